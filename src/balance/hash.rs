//! Consistent hashing with bounded loads: requests of one key go to one backend, as long as that
//! does not get too much.
//!
//! **Whose key it is** is decided by weighted rendezvous (Thaler, Ravishankar 1998, "Using
//! name-based mappings to increase hit rates"; weights after Schindelhauer, Schomaker 2005): each
//! member scores −ln u divided by its share, where u is a hash of key and member, and the least
//! score has the key. So a member that goes loses its keys and no other does, one that comes takes
//! only those that it has from then on, and weights that all change in one proportion change
//! nothing.
//!
//! **No member gets more** than `BOUND` times its share of what is under way, rounded up
//! (Mirrokni, Thorup, Zadimoghaddam 2018, "Consistent hashing with bounded loads"): the key goes to
//! the next in its own order then, and comes back afterwards. The same holds for members that are
//! out, tried or full. What is under way is counted in this process. Up to `FEW` are never too
//! much: where little is under way, two requests of one client at once would part otherwise.
//!
//! All replicas agree, now and after a restart, because nothing of chance is in it: strings are
//! hashed with FNV-1a of 64 bits (draft-eastlake-fnv), scrambled with the finalizer of SplitMix64
//! (Steele, Lea, Flood 2014). A member is its target, a zero byte, the 4 or 16 bytes of its
//! address, and its port, high byte first. The logarithm is made of additions, multiplications and
//! divisions alone, which IEEE 754 leaves no room in.
//!
//! A pick is one pass over the tier, and one over the scores for each member that is passed over
//! because it has too much: 0.9 µs with 50 members, 73 µs with 4096 (`cargo bench --bench micro
//! -- strategy_hash`). A member that rises (`slow_start`) has its keys at once: half of a
//! session is no use. A request without a key has a turn by weight, as in `edf.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::candidates::Candidates;
use super::edf::Edf;
use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::discovery::Endpoint;
use crate::upstream::backend::{Backend, Claim};

/// The members of one tier.
#[derive(Debug, Clone)]
pub(super) struct Hash {
    candidates: Candidates,
    /// Hashes of who they are, by candidate.
    nodes: Vec<u64>,
    /// Scores for the key of one pick, by candidate; kept for its memory.
    scores: Vec<f64>,
    /// For requests without a key.
    keyless: Edf,
}

/// The key that stands for these bytes; several parts are one text.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    scramble(parts.into_iter().fold(FNV_BASIS, fnv))
}

impl Hash {
    /// Nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> Hash {
        Hash {
            candidates: Candidates::new(seed, slow_start),
            nodes: Vec::new(),
            scores: Vec::new(),
            keyless: Edf::new(seed, slow_start),
        }
    }

    /// Takes over a tier's members with their strides.
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        self.candidates.rebuild(members, strides);
        self.keyless.rebuild(members, strides);
        let node = |member: &Member| node(&member.backend.endpoint);
        self.nodes = members.iter().map(node).collect();
        self.scores = vec![f64::INFINITY; members.len()];
    }

    /// The members in the order in which they have a key, as long as none is out, full or has too
    /// much.
    pub(super) fn owners(&self, key: u64) -> Vec<usize> {
        let score = |index: usize| score(key, self.nodes[index], self.candidates.get(index).stride);
        let mut owners: Vec<usize> = (0..self.nodes.len()).collect();
        owners.sort_by(|a, b| score(*a).total_cmp(&score(*b)));
        owners
    }

    /// Calls `see` with each member's backend, more than once.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.candidates.backends(see);
        self.keyless.backends(see);
    }

    /// Whose key it is, without those that are out, excluded, full, or have too much.
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let Some(key) = wish.key else {
            return self.keyless.pick(wish);
        };
        let (nodes, scores) = (&self.nodes, &mut self.scores);
        scores.fill(f64::INFINITY);
        let (mut in_flight, mut shares) = (0, 0.0);
        self.candidates.each(wish, |index, candidate, _| {
            scores[index] = score(key, nodes[index], candidate.stride);
            in_flight += u64::from(candidate.backend.in_flight());
            shares += 1.0 / candidate.stride;
        })?;
        let all = (in_flight + 1) as f64 * BOUND / shares;
        let mut first = None;
        while let Some(index) = least(&self.scores) {
            first = first.or(Some(index));
            let candidate = self.candidates.get(index);
            let bound = (all / candidate.stride - ROUNDING).ceil().max(FEW);
            if f64::from(candidate.backend.in_flight()) < bound
                && let Some(claim) = self.candidates.claim(index, wish)
            {
                return Ok(claim);
            }
            self.scores[index] = f64::INFINITY;
        }
        // Only other workers' picks at this very moment lead here.
        match first.and_then(|index| self.candidates.claim(index, wish)) {
            Some(claim) => Ok(claim),
            None => self.candidates.claim_any(wish),
        }
    }

    /// Whose key it is as if nobody were out.
    pub(super) fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let Some(key) = wish.key else {
            return self.keyless.pick_out(wish);
        };
        for (index, score) in self.scores.iter_mut().enumerate() {
            let stride = self.candidates.get(index).stride;
            *score = self::score(key, self.nodes[index], stride);
        }
        let mut missed = Missed::Nobody;
        while let Some(index) = least(&self.scores) {
            match self.candidates.claim_anyway(index, wish) {
                Ok(claim) => return Ok(claim),
                Err(why) => missed = missed.max(why),
            }
            self.scores[index] = f64::INFINITY;
        }
        Err(missed)
    }
}

/// The lowest score has the key.
fn score(key: u64, node: u64, stride: f64) -> f64 {
    minus_ln(scramble(key ^ node)) * stride
}

/// Index of the least score; `None`: all are infinite.
fn least(scores: &[f64]) -> Option<usize> {
    let mut best = (f64::INFINITY, None);
    for (index, &score) in scores.iter().enumerate() {
        if score < best.0 {
            best = (score, Some(index));
        }
    }
    best.1
}

fn node(endpoint: &Endpoint) -> u64 {
    let state = fnv(fnv(FNV_BASIS, endpoint.target.as_bytes()), &[0]);
    let state = match endpoint.address {
        IpAddr::V4(v4) => fnv(state, &v4.octets()),
        IpAddr::V6(v6) => fnv(state, &v6.octets()),
    };
    scramble(fnv(state, &endpoint.port.to_be_bytes()))
}

fn fnv(state: u64, bytes: &[u8]) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    bytes.iter().fold(state, step)
}

fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// −ln u, where u is `hash` as a number between 0 and 1, both excluded. To 10⁻¹².
fn minus_ln(hash: u64) -> f64 {
    // 52 bits and a half fit into the 53 of a mantissa: u is exact, and never 1.
    let u = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    let bits = u.to_bits();
    let exponent = (bits >> 52) as f64 - 1023.0;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    // ln m = ln √2 + 2 artanh s, with |s| below 0.172: seven terms leave 10⁻¹².
    let s = (mantissa - std::f64::consts::SQRT_2) / (mantissa + std::f64::consts::SQRT_2);
    let q = s * s;
    let artanh = s
        * (1.0
            + q * (1.0 / 3.0
                + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0))))));
    -((exponent + 0.5) * std::f64::consts::LN_2 + 2.0 * artanh)
}

/// The paper's 1 + ε with ε = 1/4: nobody has more than that of its share, and of the backends at
/// least a fifth always have room, so that few are asked.
const BOUND: f64 = 1.25;

/// In exchanges: what a browser may well have at once, and no backend is overloaded by.
const FEW: f64 = 4.0;

/// In exchanges: what sums of shares may be off by, which is no exchange more.
const ROUNDING: f64 = 1e-6;

/// Of FNV-1a with 64 bits.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;
