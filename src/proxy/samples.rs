//! A few requests, kept so that people can see why they went where they went.
//!
//! At most one a second of each worker; the last [`KEPT`] of each stay. A worker never waits to put one
//! in: while somebody reads, its sample is left out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The samples of all workers.
#[derive(Debug)]
pub struct Samples {
    /// By worker. Written by that worker, which tries once; held by a reader to copy what is there.
    lots: Box<[Mutex<VecDeque<Sample>>]>,
}

/// A request as it was when it was over. What its client sent is cut short, and not escaped.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it ended.
    pub at: SystemTime,
    /// Its identity.
    pub request_id: [u8; 32],
    /// Its method.
    pub method: Box<[u8]>,
    /// Host and port.
    pub host: Box<[u8]>,
    /// Its path, without the query.
    pub path: Box<[u8]>,
    /// Where it came in.
    pub listener: Arc<str>,
    /// Label of its route.
    pub route: Option<Arc<str>>,
    /// Its service.
    pub service: Option<Arc<str>>,
    /// The backend of its last attempt: address and port.
    pub backend: Option<Box<str>>,
    /// Priority of the backend's tier.
    pub priority: Option<u16>,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Attempts made.
    pub attempts: u32,
    /// Time that the last attempt's connect took; `None`: a kept connection was used.
    pub connect: Option<Duration>,
    /// From its head to the first byte of the response.
    pub first_byte: Option<Duration>,
    /// From its head to its end.
    pub total: Duration,
    /// Why, one step a line.
    pub why: Vec<String>,
}

impl Samples {
    /// None yet.
    pub fn new(workers: usize) -> Arc<Samples> {
        let lots = (0..workers).map(|_| Mutex::default()).collect();
        Arc::new(Samples { lots })
    }

    /// Keeps one of that worker's requests, unless somebody reads just now.
    pub fn put(&self, worker: usize, sample: Sample) {
        let Ok(mut lot) = self.lots[worker].try_lock() else {
            return;
        };
        if lot.len() == KEPT {
            lot.pop_front();
        }
        lot.push_back(sample);
    }

    /// The last ones of all workers, at most [`SHOWN`]; the latest first.
    pub fn latest(&self) -> Vec<Sample> {
        let mut all = Vec::new();
        for lot in &self.lots {
            let lot = lot.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(lot.iter().cloned());
        }
        all.sort_by_key(|sample| std::cmp::Reverse(sample.at));
        all.truncate(SHOWN);
        all
    }
}

/// The first bytes of what a client sent, as many as are kept.
pub fn cut(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(LONGEST)].into()
}

/// Samples of each worker that are kept: half a minute's.
const KEPT: usize = 32;

/// Samples that are shown.
const SHOWN: usize = 64;

/// Bytes of a path, a host or a method that are kept.
const LONGEST: usize = 256;

/// Time between two samples of one worker.
pub const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64) -> Sample {
        Sample {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            request_id: [b'0'; 32],
            method: cut(b"GET"),
            host: cut(b"shop.test"),
            path: cut(&[b'/'; 1000]),
            listener: "front".into(),
            route: None,
            service: None,
            backend: None,
            priority: None,
            status: 200,
            attempts: 1,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
            why: Vec::new(),
        }
    }

    #[test]
    fn the_last_ones_of_all_workers_the_latest_first() {
        let samples = Samples::new(3);
        for second in 0..300 {
            samples.put(second as usize % 3, sample(second));
        }
        let latest = samples.latest();
        assert_eq!(latest.len(), SHOWN);
        for (sample, second) in latest.iter().zip((0..300).rev()) {
            assert_eq!(sample.at, self::sample(second).at);
            assert_eq!(sample.path.len(), LONGEST);
        }
        assert!(
            samples
                .lots
                .iter()
                .all(|lot| lot.try_lock().is_ok_and(|lot| lot.len() == KEPT))
        );
    }

    #[test]
    fn a_worker_does_not_wait_for_a_reader() {
        let samples = Samples::new(1);
        let reading = samples.lots[0].lock().expect("nobody panicked");
        samples.put(0, sample(1));
        drop(reading);
        assert!(samples.latest().is_empty());
    }
}
