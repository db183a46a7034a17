//! A few requests, kept so that people can see why they went where they went.
//!
//! At most one a second of each worker; the last `KEPT` of each stay. A worker never waits to put one
//! in: while somebody reads, its sample is left out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::choice::Way;
use super::failure::Meaning;
use crate::config::Config;
use crate::upstream::backend::Backend;

/// The samples of all workers.
#[derive(Debug)]
pub struct Samples {
    /// By worker. Written by that worker, which tries once; held by a reader to copy what is there.
    lots: Box<[Mutex<VecDeque<Sample>>]>,
}

/// A request as it was when it was over; `explain.rs` says it in words.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it ended.
    pub at: SystemTime,
    /// Its identity.
    pub request_id: [u8; 32],
    /// Its method.
    pub method: Cut<32>,
    /// Host and port.
    pub host: Cut<256>,
    /// Its path, without the query.
    pub path: Cut<256>,
    /// What was in force.
    pub config: Arc<Config>,
    /// Index of the listener.
    pub listener: usize,
    /// Label of its route.
    pub route: Option<Arc<str>>,
    /// Index of its service.
    pub service: Option<usize>,
    /// The backend of its last attempt.
    pub backend: Option<Arc<Backend>>,
    /// How the last attempt came to it.
    pub way: Way,
    /// How it failed, if it did.
    pub failure: Option<Meaning>,
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
}

/// The first bytes of what a client sent, as it sent them.
#[derive(Debug, Clone, Copy)]
pub struct Cut<const MOST: usize> {
    bytes: [u8; MOST],
    length: usize,
}

impl<const MOST: usize> Cut<MOST> {
    /// Of that text.
    pub fn of(text: &[u8]) -> Cut<MOST> {
        let length = text.len().min(MOST);
        let mut bytes = [0; MOST];
        bytes[..length].copy_from_slice(&text[..length]);
        Cut { bytes, length }
    }

    /// What there is of it.
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Samples {
    /// None yet.
    pub fn new(workers: usize) -> Arc<Samples> {
        // A worker's allocates nothing later on.
        let lot = |_| Mutex::new(VecDeque::with_capacity(KEPT));
        let lots = (0..workers).map(lot).collect();
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

    /// The last ones of all workers, at most `SHOWN`; the latest first.
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

/// Samples of each worker that are kept: half a minute's.
const KEPT: usize = 32;

/// Samples that are shown.
const SHOWN: usize = 64;

/// Time between two samples of one worker.
pub const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;

    fn sample(config: &Arc<Config>, second: u64) -> Sample {
        Sample {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            request_id: [b'0'; 32],
            method: Cut::of(b"GET"),
            host: Cut::of(b"shop.test"),
            path: Cut::of(&[b'/'; 1000]),
            config: Arc::clone(config),
            listener: 0,
            route: None,
            service: None,
            backend: None,
            way: Way::default(),
            failure: None,
            status: 200,
            attempts: 1,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
        }
    }

    fn config() -> Arc<Config> {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
        Arc::new(from_toml_str(text).expect("it is right"))
    }

    #[test]
    fn the_last_ones_of_all_workers_the_latest_first() {
        let (samples, config) = (Samples::new(3), config());
        for second in 0..300 {
            samples.put(second as usize % 3, sample(&config, second));
        }
        let latest = samples.latest();
        assert_eq!(latest.len(), SHOWN);
        for (sample, second) in latest.iter().zip((0..300).rev()) {
            assert_eq!(sample.at, self::sample(&config, second).at);
            assert_eq!(sample.path.text(), [b'/'; 256]);
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
        samples.put(0, sample(&config(), 1));
        drop(reading);
        assert!(samples.latest().is_empty());
    }
}
