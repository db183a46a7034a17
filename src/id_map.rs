//! Tables by ids that we gave out ourselves.
//!
//! Nobody outside chooses these numbers, so the hash need not withstand anybody: a lookup costs a
//! multiplication instead of a round of SipHash. On floor 0; used by whoever keeps something per
//! backend.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash table whose keys are consecutive numbers of ours, or types that hash as one `u64`.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads an id over all 64 bits.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio spreads consecutive numbers over all bits.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }
}
