//! Responses that went out in a content coding of ours, and what that saved.

use std::sync::Arc;

use super::histogram::Counter;
use super::shard::ServiceCounters;

/// The codings that have a label: those that a body can be given here.
pub(super) const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// What one worker counted of one service in one coding.
#[derive(Debug, Default)]
pub(super) struct Compressed {
    responses: Counter,
    uncompressed: Counter,
    compressed: Counter,
}

/// What was counted at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CompressedTotals {
    pub(super) responses: u64,
    pub(super) uncompressed: u64,
    pub(super) compressed: u64,
}

/// Counts the body of one response.
#[derive(Debug)]
pub struct Compressing {
    service: Arc<ServiceCounters>,
    coding: usize,
}

impl Compressing {
    /// `None`: no coding has that name.
    pub(super) fn of(service: Arc<ServiceCounters>, coding: &str) -> Option<Compressing> {
        let coding = CODINGS.iter().position(|&name| name == coding)?;
        service.compressed[coding].responses.add(1);
        Some(Compressing { service, coding })
    }

    /// So many bytes became so many.
    pub fn add(&self, uncompressed: usize, compressed: usize) {
        let counters = &self.service.compressed[self.coding];
        counters.uncompressed.add(uncompressed as u64);
        counters.compressed.add(compressed as u64);
    }
}

impl CompressedTotals {
    pub(super) fn add(&mut self, counters: &Compressed) {
        self.responses += counters.responses.value();
        self.uncompressed += counters.uncompressed.value();
        self.compressed += counters.compressed.value();
    }
}
