//! Backends, offers and counts for the tests of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::picker::Picker;
use super::service::Service;
use super::wish::Wish;
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::discovery::{Discovered, Endpoint, Offer};
use crate::upstream::backend::Backend;

/// The endpoint that `b{number}` stands for. Sorts like its number.
pub(super) fn endpoint(number: u32) -> Endpoint {
    Endpoint {
        target: format!("b{number:06}").into(),
        address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        port: 80,
    }
}

pub(super) fn found(number: u32, priority: u16, weight: u16, split: u16) -> Discovered {
    Discovered {
        endpoint: endpoint(number),
        priority,
        weight,
        split,
    }
}

/// Offers `b1`, `b2`, … of one tier, one per weight.
pub(super) fn tier(weights: &[u16]) -> Offer {
    let all = weights.iter().zip(1..);
    Offer::Endpoints(all.map(|(&weight, n)| found(n, 0, weight, 1)).collect())
}

/// Offers (number, priority, weight) each.
pub(super) fn tiers(records: &[(u32, u16, u16)]) -> Offer {
    let all = records.iter();
    Offer::Endpoints(all.map(|&(n, p, w)| found(n, p, w, 1)).collect())
}

/// A service and one worker's schedule of it.
pub(super) struct Fixture {
    pub(super) service: Service,
    pub(super) picker: Picker,
    pub(super) now: Millis,
}

impl Fixture {
    pub(super) fn new(offer: &Offer, strategy: Strategy, seed: u64) -> Fixture {
        let mut service = Service::new("web".into());
        let now = Millis(1);
        service.apply_at(offer, now);
        let balancing = Balancing {
            strategy,
            ..Balancing::default()
        };
        let picker = Picker::new(service.snapshot().reader(), &balancing, seed);
        Fixture {
            service,
            picker,
            now,
        }
    }

    pub(super) fn weighted(weights: &[u16], seed: u64) -> Fixture {
        Fixture::new(&tier(weights), Strategy::Weighted, seed)
    }

    pub(super) fn apply(&mut self, offer: &Offer) {
        self.service.apply_at(offer, self.now);
    }

    pub(super) fn backend(&self, number: u32) -> Arc<Backend> {
        let snapshot = self.service.snapshot().load();
        let found = snapshot
            .backends()
            .find(|backend| self::number(backend) == number);
        Arc::clone(found.expect("the test listed it"))
    }

    /// Number of the backend that is picked; panics where nobody is.
    pub(super) fn pick(&mut self) -> u32 {
        self.pick_without(&[])
    }

    pub(super) fn pick_without(&mut self, excluded: &[u32]) -> u32 {
        let excluded: Vec<_> = excluded.iter().map(|&n| self.backend(n).id).collect();
        let wish = Wish {
            excluded: &excluded,
            ..Wish::at(self.now)
        };
        let pick = self.picker.pick(wish).expect("somebody");
        number(pick.backend())
    }

    pub(super) fn picks(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.pick()).collect()
    }

    pub(super) fn count(&mut self, picks: usize) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..picks {
            *counts.entry(self.pick()).or_default() += 1;
        }
        counts
    }
}

pub(super) fn number(backend: &Backend) -> u32 {
    backend.endpoint.target[1..]
        .parse()
        .expect("b and a number")
}
