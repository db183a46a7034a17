//! What happens to backends, in the log and in the journal: one line each, but of a backend that
//! flaps only one in a while, with how many were left out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Millis;
use crate::events::journal::{Journal, Kind, What};
use crate::upstream::backend::Backend;
use crate::upstream::standing::Reason;

/// What was written of whom, and when.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    lately: HashMap<u64, Page>,
    /// Is told whatever is logged.
    pub(super) journal: Arc<Journal>,
}

#[derive(Debug)]
struct Page {
    /// When the pause began that is running.
    since: Millis,
    pause: Duration,
    /// What was left out in it: how often, and the last of it.
    left_out: u32,
    last: Option<Line>,
}

/// What happened to a backend.
#[derive(Debug, Clone)]
struct Line {
    backend: Arc<Backend>,
    state: &'static str,
    why: Why,
    detail: Option<String>,
}

/// Why something happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why {
    /// As logs and metrics call it.
    pub name: &'static str,
    /// As events say it.
    pub words: &'static str,
}

impl Why {
    /// What has no other name than its words.
    pub(super) fn said(words: &'static str) -> Why {
        Why { name: words, words }
    }
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Why {
        Why {
            name: reason.name(),
            words: reason.words(),
        }
    }
}

impl Chronicle {
    /// A backend is in that state from now on.
    pub(super) fn write(
        &mut self,
        backend: &Arc<Backend>,
        now: Millis,
        state: &'static str,
        why: Why,
        detail: Option<&str>,
    ) {
        let line = Line {
            backend: Arc::clone(backend),
            state,
            why,
            detail: detail.map(str::to_owned),
        };
        match self.lately.get_mut(&backend.id.0) {
            Some(page) if page.bears(now) => {
                page.left_out += 1;
                page.last = Some(line);
            }
            known => {
                let left_out = known.map_or(0, |page| page.left_out);
                line.tell(left_out, &self.journal);
                self.open(backend.id.0, now);
            }
        }
    }

    /// Writes what was left out, where the pause is over. To be called about once a second.
    pub(super) fn tick(&mut self, now: Millis) {
        let over: Vec<_> = self
            .lately
            .iter_mut()
            .filter(|(_, page)| !page.bears(now))
            .filter_map(|(&id, page)| Some((id, page.last.take()?, page.left_out)))
            .collect();
        for (id, line, left_out) in over {
            line.tell(left_out - 1, &self.journal);
            self.open(id, now);
        }
        self.lately
            .retain(|_, page| now.since(page.since) < page.pause + LONGEST_PAUSE);
    }

    /// After a line: the next pause, twice as long as the last one if that is hardly over.
    fn open(&mut self, backend: u64, now: Millis) {
        let pause = match self.lately.get(&backend) {
            Some(page) => (page.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let page = Page {
            since: now,
            pause,
            left_out: 0,
            last: None,
        };
        self.lately.insert(backend, page);
    }
}

impl Page {
    /// Is its pause running?
    fn bears(&self, now: Millis) -> bool {
        now.since(self.since) < self.pause
    }
}

impl Line {
    /// Logs it, and tells the journal of the process.
    fn tell(&self, left_out: u32, journal: &Journal) {
        self.log(left_out);
        let kind = match self.state {
            "up" => Kind::BackendUp,
            "ejected" => Kind::BackendEjected,
            _ => Kind::BackendDown,
        };
        let mut text = format!(
            "{} is {}: {}",
            self.backend.address, self.state, self.why.words
        );
        if let Some(detail) = &self.detail {
            text = format!("{text}, {detail}");
        }
        if left_out > 0 {
            text = format!("{text} ({left_out} changes before that are left out)");
        }
        journal.record(What {
            service: Some(Arc::clone(&self.backend.service)),
            backend: Some((*self.backend.address).into()),
            ..What::new(kind, text)
        });
    }

    fn log(&self, left_out: u32) {
        let backend = &self.backend;
        let detail = self.detail.as_deref().unwrap_or_default();
        // Of a backend that flaps: how often it changed since the last line.
        let changes = left_out + 1;
        match self.state {
            "up" => tracing::info!(
                service = %backend.service,
                backend = %backend.address,
                name = %backend.endpoint.target,
                reason = self.why.name,
                changes,
                "backend is up",
            ),
            state => tracing::warn!(
                service = %backend.service,
                backend = %backend.address,
                name = %backend.endpoint.target,
                reason = self.why.name,
                detail,
                changes,
                "backend is {state}",
            ),
        }
    }
}

/// After a line about a backend the next ones wait so long, and the longer the more there are.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Most of it; and a backend of which nothing was heard for so long is written about at once again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
