//! What happened in this process, for whoever asks: a bounded ring with numbers.
//!
//! Discovery, health, certificates, reloads and drains write here besides their lines in the log; the
//! control listener reads. Readers keep nothing here: each remembers a number and asks for what came
//! since, so a slow one misses entries (and sees from the numbers that it did) and holds nobody up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

/// Entries that are kept. With the longest texts they take half a megabyte.
pub const CAPACITY: usize = 1024;

/// A longer text is cut off: some name what DNS sent.
const LONGEST_TEXT: usize = 400;

/// The ring.
#[derive(Debug)]
pub struct Journal {
    /// Held to push one entry or to copy some; never across an await.
    ring: Mutex<VecDeque<Entry>>,
    /// The number that the next entry will have.
    next: watch::Sender<u64>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 0 without gaps.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// What, and to whom.
    pub what: What,
}

/// What happened, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct What {
    /// What.
    pub kind: Kind,
    /// Of which service.
    pub service: Option<Arc<str>>,
    /// Address and port of the backend.
    pub backend: Option<Arc<str>>,
    /// The name in DNS, the certificate's file, the configuration's file.
    pub name: Option<Arc<str>>,
    /// In words, on one line.
    pub text: String,
}

/// Should somebody look at it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nobody has to.
    Info,
    /// Somebody should.
    Warning,
}

macro_rules! kinds {
    ($($kind:ident $name:literal $severity:ident,)*) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// As the API calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }

            /// Should somebody look at it?
            pub fn severity(self) -> Severity {
                match self {
                    $(Kind::$kind => Severity::$severity,)*
                }
            }
        }
    };
}

kinds! {
    Started "started" Info,
    DnsJoined "dns_joined" Info,
    DnsLeft "dns_left" Info,
    DnsReweighted "dns_reweighted" Info,
    DnsMany "dns_many" Info,
    DnsHeldBack "dns_held_back" Warning,
    DnsRejected "dns_rejected" Warning,
    DnsWaiting "dns_waiting" Warning,
    DnsKept "dns_kept" Warning,
    DnsRotates "dns_rotates" Warning,
    DnsRotationEnded "dns_rotation_ended" Info,
    DnsCut "dns_cut" Warning,
    DnsRestored "dns_restored" Info,
    DnsStale "dns_stale" Warning,
    DnsRecovered "dns_recovered" Info,
    DnsAbsent "dns_absent" Warning,
    BackendUp "backend_up" Info,
    BackendDown "backend_down" Warning,
    BackendEjected "backend_ejected" Warning,
    BackendDrained "backend_drained" Info,
    BackendUndrained "backend_undrained" Info,
    WeightSet "weight_set" Info,
    WeightCleared "weight_cleared" Info,
    FailedOver "failed_over" Warning,
    CertificateLoaded "certificate_loaded" Info,
    CertificateFailed "certificate_failed" Warning,
    CertificateExpiring "certificate_expiring" Warning,
    AcmeObtained "acme_obtained" Info,
    AcmeRenewed "acme_renewed" Info,
    AcmeFailed "acme_failed" Warning,
    Reloaded "reloaded" Info,
    ReloadRefused "reload_refused" Warning,
    DrainBegun "drain_begun" Info,
    DrainTakenBack "drain_taken_back" Info,
    RefreshAsked "refresh_asked" Info,
    LogLevelSet "log_level_set" Info,
}

impl What {
    /// Something of the process as a whole; the other fields are set by hand.
    pub fn new(kind: Kind, text: impl Into<String>) -> What {
        What {
            kind,
            service: None,
            backend: None,
            name: None,
            text: text.into(),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Journal {
            ring: Mutex::default(),
            next: watch::Sender::new(0),
        }
    }
}

impl Journal {
    /// Remembers it; gives its number.
    pub fn record(&self, mut what: What) -> u64 {
        if let Some((cut, _)) = what.text.char_indices().nth(LONGEST_TEXT) {
            what.text.truncate(cut);
            what.text.push('…');
        }
        let number = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let number = ring.back().map_or(0, |entry| entry.number + 1);
            if ring.len() == CAPACITY {
                ring.pop_front();
            }
            let at = SystemTime::now();
            ring.push_back(Entry { number, at, what });
            number
        };
        // Several may write at once: the highest counts.
        self.next.send_if_modified(|next| {
            let newer = *next <= number;
            *next = (*next).max(number + 1);
            newer
        });
        number
    }

    /// At most `most` entries from `number` on that are still kept, oldest first.
    pub fn since(&self, number: u64, most: usize) -> Vec<Entry> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let from = ring.partition_point(|entry| entry.number < number);
        ring.range(from..).take(most).cloned().collect()
    }

    /// The number of the oldest entry that is kept, and the number that the next one will have.
    pub fn bounds(&self) -> (u64, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ring.back().map_or(0, |entry| entry.number + 1);
        (ring.front().map_or(next, |entry| entry.number), next)
    }

    /// Is told of the number that the next entry will have, whenever that changes.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(journal: &Journal, text: &str) -> u64 {
        journal.record(What::new(Kind::Started, text))
    }

    #[test]
    fn the_ring_is_bounded_and_its_numbers_have_no_gaps() {
        let journal = Journal::default();
        assert_eq!(journal.bounds(), (0, 0));
        let mut news = journal.news();
        for n in 0..CAPACITY as u64 + 10 {
            assert_eq!(write(&journal, "x"), n);
        }
        assert_eq!(journal.bounds(), (10, CAPACITY as u64 + 10));
        assert_eq!(*news.borrow_and_update(), CAPACITY as u64 + 10);
        let numbers = |since, most| {
            let entries = journal.since(since, most).into_iter();
            entries.map(|entry| entry.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(0, 2), [10, 11]);
        let last = CAPACITY as u64 + 9;
        assert_eq!(numbers(last, 9), [last]);
        assert!(numbers(last + 1, 9).is_empty());
        assert!(!news.has_changed().unwrap());
        write(&journal, "x");
        assert!(news.has_changed().unwrap());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let journal = Journal::default();
        write(&journal, &"ä".repeat(LONGEST_TEXT + 1));
        let text = journal.since(0, 1).remove(0).what.text;
        assert_eq!(text.chars().count(), LONGEST_TEXT + 1);
        assert!(text.ends_with("ä…"));
    }

    #[test]
    fn no_two_kinds_have_one_name() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
