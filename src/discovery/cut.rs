//! Answers over UDP that were cut without saying so (no TC, against RFC 2181 section 9), as Consul
//! cuts them to the payload that it was offered: which may be such, when that is worth a question
//! over TCP, and which names are asked over TCP from then on.
//!
//! Pure; for `name_server.rs`, one for each server.
//!
//! An answer is suspect when another record like its largest would not have fitted. That alone asks
//! nothing: it is asked over TCP when it is the first such answer, or lacks somebody whom the one
//! before listed. So a server that gives everything gets one such question a change, and one that
//! gives another part over TCP too, one an answer. If TCP fails, the answer counts as it is, and
//! TCP is left alone for [`PAUSE`].
//!
//! A name of which TCP lists more is asked over TCP alone, until what comes would fit UDP with room
//! to spare: to go back earlier would cost two questions for each answer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinEncodable;
use tokio::time::Instant;

/// So long after TCP failed it is not asked again whether an answer was cut: a port that drops
/// packets costs a time-out each.
const PAUSE: Duration = Duration::from_secs(30);

/// Octets that Consul leaves unused besides: 8 for a UDP header, 11 for an EDNS record that it adds
/// later, and some because it reckons names as they are before compression.
const SLACK: usize = 32;

/// Questions of which the answers are remembered. A target with so many addresses is rare; for
/// those beyond, each answer counts as it is.
const MAX_QUESTIONS: usize = 256;

/// What was asked for.
pub(super) type Question = (Name, RecordType);

/// How an answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP.
    Udp,
    /// Over TCP, as it did not fit UDP and the server said so (TC).
    Truncated,
    /// Over TCP, as over UDP it may have been cut; there is no more.
    Whole,
    /// Over TCP, as over UDP it was cut without TC.
    Cut {
        /// Records that UDP showed.
        shown: usize,
        /// Records that there are.
        all: usize,
    },
    /// Over UDP, where it may have been cut; TCP did not tell, for this reason.
    Unchecked(String),
}

/// The questions of one server of which the answers over UDP are suspect.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    suspects: HashMap<Question, Suspect>,
}

#[derive(Debug, Default)]
struct Suspect {
    /// Whom the last answer listed.
    listed: HashSet<RData>,
    /// UDP shows so many, and there are more.
    shown: Option<usize>,
    /// TCP failed, then and so.
    failed: Option<(Instant, String)>,
}

impl Cuts {
    /// Is it known that UDP does not show everything?
    pub(super) fn is_cut(&self, question: &Question) -> bool {
        let suspect = self.suspects.get(question);
        suspect.is_some_and(|suspect| suspect.shown.is_some())
    }

    /// Takes up an answer over UDP, of `size` octets where `payload` were offered. Is the same to
    /// be asked over TCP at once?
    pub(super) fn over_udp(
        &mut self,
        question: &Question,
        message: &Message,
        (size, payload): (usize, usize),
        now: Instant,
    ) -> bool {
        if !nearly_full(message, question.1, size, payload) {
            self.suspects.remove(question);
            return false;
        }
        let listed = listed(message, question.1);
        if let Some(suspect) = self.suspects.get_mut(question) {
            let failed = suspect.failed.as_ref();
            let paused = failed.is_some_and(|(at, _)| now.duration_since(*at) < PAUSE);
            let lacks = !suspect.listed.is_subset(&listed);
            if suspect.shown.is_none() {
                suspect.listed = listed;
            }
            return lacks && !paused;
        }
        if self.suspects.len() >= MAX_QUESTIONS {
            return false;
        }
        let suspect = Suspect {
            listed,
            ..Suspect::default()
        };
        self.suspects.insert(question.clone(), suspect);
        true
    }

    /// Takes up what TCP gave, of `size` octets where `payload` can be offered over UDP.
    pub(super) fn over_tcp(
        &mut self,
        question: &Question,
        message: &Message,
        (size, payload): (usize, usize),
    ) -> Transport {
        let Some(suspect) = self.suspects.get_mut(question) else {
            return Transport::Whole;
        };
        let listed = listed(message, question.1);
        let (all, shown) = (listed.len(), suspect.shown.unwrap_or(suspect.listed.len()));
        suspect.failed = None;
        suspect.listed = listed;
        if suspect.shown.is_some() && !nearly_full(message, question.1, size, payload) {
            self.suspects.remove(question);
            return Transport::Whole;
        }
        if suspect.shown.is_none() && all <= shown {
            return Transport::Whole;
        }
        suspect.shown = Some(shown);
        Transport::Cut { shown, all }
    }

    /// TCP failed where UDP gave an answer, which counts.
    pub(super) fn failed(&mut self, question: &Question, why: String, now: Instant) {
        if let Some(suspect) = self.suspects.get_mut(question) {
            suspect.failed = Some((now, why));
        }
    }

    /// What is to be said of an answer over UDP that counts.
    pub(super) fn transport(&self, question: &Question) -> Transport {
        let suspect = self.suspects.get(question);
        let failed = suspect.and_then(|suspect| suspect.failed.as_ref());
        failed.map_or(Transport::Udp, |(_, why)| Transport::Unchecked(why.clone()))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Udp => f.write_str("the answer came over UDP"),
            Transport::Truncated => {
                f.write_str("the answer did not fit UDP and came over TCP: TCP must stay open to this server")
            }
            Transport::Whole => f.write_str(
                "the answer nearly fills a UDP message and may have been cut; over TCP there is no more",
            ),
            Transport::Cut { shown, all } => write!(
                f,
                "over UDP the server shows {shown} of {all} records and does not say that it cuts its answers (no TC): this name is asked over TCP from now on, and TCP must stay open to this server"
            ),
            Transport::Unchecked(why) => write!(
                f,
                "the answer nearly fills a UDP message and may have been cut, but over TCP the server {why}: it counts as it is"
            ),
        }
    }
}

/// Would another record like the largest, with what comes along for its target, have been too
/// much?
fn nearly_full(message: &Message, qtype: RecordType, size: usize, payload: usize) -> bool {
    // Spares most answers the reckoning: an SRV record has less than 300 octets, and what comes
    // along is seldom more.
    if size * 2 < payload {
        return false;
    }
    let mut along = HashMap::<&Name, usize>::new();
    for record in &message.additionals {
        *along.entry(&record.name).or_default() += octets(record);
    }
    let answers = message.answers.iter();
    let answers = answers.filter(|record| record.record_type() == qtype);
    let largest = answers.map(|record| {
        let target = match &record.data {
            RData::SRV(srv) => along.get(&srv.target).copied(),
            _ => None,
        };
        octets(record) + target.unwrap_or_default()
    });
    let largest = largest.max();
    largest.is_some_and(|largest| size + largest + SLACK > payload)
}

/// Octets of a record with its names in full.
fn octets(record: &Record) -> usize {
    record.to_bytes().map_or(0, |octets| octets.len())
}

/// Whoever is listed, by what makes an identity: a change of weight lacks nobody.
fn listed(message: &Message, qtype: RecordType) -> HashSet<RData> {
    let answers = message.answers.iter();
    let answers = answers.filter(|record| record.record_type() == qtype);
    answers
        .map(|record| match &record.data {
            RData::SRV(srv) => RData::SRV(SRV::new(0, 0, srv.port, srv.target.clone())),
            data => data.clone(),
        })
        .collect()
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
