//! Picks, and taking up new records.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use evenkeel::balance::hash;
use evenkeel::balance::picker::Picker;
use evenkeel::balance::service::Service;
use evenkeel::balance::snapshot::Snapshot;
use evenkeel::balance::wish::Wish;
use evenkeel::clock::Millis;
use evenkeel::config::{Balancing, Strategy};
use evenkeel::discovery::{Discovered, Endpoint, Offer};
use evenkeel::upstream::backend::BackendId;

const SIZES: [u32; 3] = [10, 500, 10_000];
const NOW: Millis = Millis(1);

/// `n` endpoints in `tiers` tiers; `shift` changes every weight, and in no common proportion.
fn offer(n: u32, tiers: u32, shift: u32) -> Vec<Discovered> {
    let endpoint = |i: u32| Discovered {
        endpoint: Endpoint {
            target: format!("b{i:06}.example").into(),
            address: Ipv4Addr::from_bits(0x0a00_0000 + i).into(),
            port: 80,
        },
        priority: (i % tiers) as u16,
        weight: (1 + (i * 7 + shift * (1 + i % 5)) % 100) as u16,
        split: 1,
    };
    (0..n).map(endpoint).collect()
}

fn service(n: u32, tiers: u32) -> Service {
    let mut service = Service::new("web".into());
    service.apply_at(&Offer::Endpoints(offer(n, tiers, 0).into()), NOW);
    assert_eq!(service.snapshot().load().backends().count(), n as usize);
    service
}

fn picker(service: &Service) -> Picker {
    let mut picker = Picker::new(service.snapshot().reader(), &Balancing::default(), 7);
    assert!(picker.pick(Wish::at(NOW)).is_ok());
    picker
}

fn without(excluded: &[BackendId]) -> Wish<'_> {
    Wish {
        excluded,
        ..Wish::at(NOW)
    }
}

fn pick(bencher: Bencher<'_, '_>, n: u32, tiers: u32, excluded: &[BackendId]) {
    let service = service(n, tiers);
    let mut picker = picker(&service);
    bencher.bench_local(|| picker.pick(without(black_box(excluded))));
}

#[divan::bench(args = SIZES)]
fn pick_of_one_tier(bencher: Bencher<'_, '_>, n: u32) {
    pick(bencher, n, 1, &[]);
}

#[divan::bench(args = SIZES)]
fn pick_of_three_tiers(bencher: Bencher<'_, '_>, n: u32) {
    pick(bencher, n, 3, &[]);
}

/// A pick of each strategy, with latencies as if each backend had been used, and another key each
/// time.
fn strategy(bencher: Bencher<'_, '_>, n: u32, strategy: Strategy) {
    let service = service(n, 1);
    for (backend, micros) in service.snapshot().load().backends().zip(1_000..) {
        backend.load.succeeded(NOW, Duration::from_micros(micros));
    }
    let balancing = Balancing {
        strategy,
        ..Balancing::default()
    };
    let mut picker = Picker::new(service.snapshot().reader(), &balancing, 7);
    let mut nth = 0_u64;
    bencher.bench_local(|| {
        nth += 1;
        picker.pick(Wish {
            key: Some(hash::key([&nth.to_be_bytes()[..]])),
            ..Wish::at(NOW)
        })
    });
}

/// A tier that is looked at as a whole, one that nearly is, and the largest by default.
const TIERS: [u32; 3] = [3, 50, 4096];

#[divan::bench(args = TIERS)]
fn strategy_weighted(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::Weighted);
}

#[divan::bench(args = TIERS)]
fn strategy_least_connections(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::LeastConnections);
}

#[divan::bench(args = TIERS)]
fn strategy_random(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::Random);
}

#[divan::bench(args = TIERS)]
fn strategy_two_choices(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::TwoChoices);
}

#[divan::bench(args = TIERS)]
fn strategy_hash(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::Hash);
}

#[divan::bench(args = TIERS)]
fn strategy_cycle(bencher: Bencher<'_, '_>, n: u32) {
    strategy(bencher, n, Strategy::Cycle);
}

/// A success noted for a schedule that goes by load: nearly always it is not worth a write.
#[divan::bench]
fn note_of_a_success(bencher: Bencher<'_, '_>) {
    let service = service(1, 1);
    let snapshot = service.snapshot().load();
    let backend = snapshot.backends().next().expect("there is one");
    let latency = Duration::from_micros(900);
    backend.load.succeeded(NOW, Duration::from_millis(1));
    bencher.bench_local(|| backend.load.succeeded(black_box(NOW), black_box(latency)));
}

/// As a retry does: those whose turn it would be are excluded.
#[divan::bench(args = SIZES)]
fn pick_with_two_excluded(bencher: Bencher<'_, '_>, n: u32) {
    let service = service(n, 1);
    let mut picker = picker(&service);
    let mut tried = Vec::with_capacity(3);
    bencher.bench_local(|| {
        tried.clear();
        for _ in 0..3 {
            let pick = picker
                .pick(without(&tried))
                .expect("there are more than three");
            tried.push(pick.backend().id);
        }
    });
}

/// The first pick after other records were published.
fn rebuild(bencher: Bencher<'_, '_>, n: u32, other: Vec<Discovered>) {
    let mut service = service(n, 1);
    let mut picker = picker(&service);
    let first: Snapshot = (*service.snapshot().load()).clone();
    let changes = service.apply_at(&Offer::Endpoints(other.into()), NOW);
    assert!(!changes.changed.is_empty() && changes.added.is_empty());
    let second: Snapshot = (*service.snapshot().load()).clone();
    let mut turn = 0;
    bencher
        .with_inputs(|| {
            turn += 1;
            let next = if turn % 2 == 0 { &first } else { &second };
            service.snapshot().publish(next.clone());
        })
        .bench_local_values(|()| picker.pick(Wish::at(NOW)));
}

/// One at a time: what is published twice before a pick is taken up once.
#[divan::bench(args = SIZES, sample_size = 1)]
fn rebuild_all_changed(bencher: Bencher<'_, '_>, n: u32) {
    rebuild(bencher, n, offer(n, 1, 1));
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn rebuild_one_changed(bencher: Bencher<'_, '_>, n: u32) {
    let mut other = offer(n, 1, 0);
    other[n as usize / 2].weight += 1;
    rebuild(bencher, n, other);
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn first_build(bencher: Bencher<'_, '_>, n: u32) {
    let service = service(n, 1);
    bencher.bench_local(|| picker(&service));
}

/// On the control thread: an answer of DNS in which every weight has changed.
#[divan::bench(args = SIZES, sample_size = 1)]
fn apply_all_changed(bencher: Bencher<'_, '_>, n: u32) {
    let mut service = service(n, 1);
    let offers = [1, 0].map(|shift| Offer::Endpoints(Arc::from(offer(n, 1, shift))));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let changes = service.apply_at(&offers[(turn - 1) % 2], NOW);
        assert!(!changes.is_empty());
        changes
    });
}
