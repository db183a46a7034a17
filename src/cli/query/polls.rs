//! The same question several times: does the server show all it has, or a part of it, another
//! one each time? Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::discovery::answers::{Glue, SrvAnswer, SrvRecord, Target};
use crate::discovery::members::misses;
use crate::discovery::rotation::MAX_WINDOW;
use crate::discovery::srv::declined;

/// So often a name is asked for unless the command line says otherwise. Three of 20 show some
/// twelve by then, and a change that happens meanwhile makes one difference, not two.
pub(crate) const USUAL: u32 = 5;

/// What the answers show, all together.
#[derive(Debug)]
pub(super) struct Polls {
    /// How many there were.
    pub(super) answers: u32,
    /// Records of the smallest one.
    pub(super) shown: usize,
    /// Each record once; of those with the same target and port the first.
    pub(super) records: Vec<SrvRecord>,
    /// Addresses that came along with any of them.
    pub(super) glue: BTreeMap<Arc<str>, Glue>,
    last: BTreeSet<Key>,
    known: BTreeSet<Key>,
    /// Answers that lacked somebody of the one before and had others.
    replaced: u32,
}

type Key = (String, u16);

impl Polls {
    /// The first answer.
    pub(super) fn new(answer: &SrvAnswer) -> Polls {
        let keys: BTreeSet<_> = answer.records.iter().map(key).collect();
        Polls {
            answers: 1,
            shown: keys.len(),
            records: answer.records.clone(),
            glue: answer.glue.clone(),
            last: keys.clone(),
            known: keys,
            replaced: 0,
        }
    }

    /// Can the first answer be a part?
    pub(super) fn may_differ(&self) -> bool {
        self.shown <= MAX_WINDOW && !declined(&self.records)
    }

    /// Another one.
    pub(super) fn take(&mut self, answer: SrvAnswer) {
        let keys: BTreeSet<_> = answer.records.iter().map(key).collect();
        self.answers += 1;
        self.shown = self.shown.min(keys.len());
        let replaced = !keys.is_subset(&self.last) && !self.last.is_subset(&keys);
        self.replaced += u32::from(replaced);
        let known = &self.known;
        let new = answer
            .records
            .into_iter()
            .filter(|r| !known.contains(&key(r)));
        self.records.extend(new);
        self.known.extend(keys.iter().cloned());
        self.last = keys;
        for (target, glue) in answer.glue {
            self.glue.entry(target).or_insert(glue);
        }
    }

    /// Does the server show parts?
    pub(super) fn rotates(&self) -> bool {
        self.replaced > 1
    }

    /// That it does, and what comes of it.
    pub(super) fn remark(&self) -> String {
        let Polls { answers, shown, .. } = self;
        let known = self.known.len();
        let misses = misses(*shown, known);
        format!(
            "answers rotate: the server shows {shown} of at least {known} records, others each time ({answers} answers). Evenkeel sees that after a few answers and uses all that it saw; one leaves when {misses} answers in a row lack it, or when a connect to it fails"
        )
    }
}

fn key(record: &SrvRecord) -> Key {
    let target = match &record.target {
        Target::Declined => ".".to_owned(),
        Target::Host(host) => host.to_string(),
        Target::Invalid(text) => text.clone(),
    };
    (target, record.port)
}
