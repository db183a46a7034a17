use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, prop};
use proptest::sample::select;
use proptest::strategy::Strategy as _;
use proptest::{option, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::balance::affinity::Affinity;
use crate::balance::by_hand::Change;
use crate::balance::service::{Service, Terms};
use crate::balance::testing::{endpoint, tiers};
use crate::balance::wish::WhenFull;
use crate::clock::Millis;
use crate::config::{Balancing, Sticky, Strategy};
use crate::upstream::backend::Trial;
use crate::upstream::gate::Gate;
use crate::upstream::standing::Reason;

/// Something that happens to a service, or is asked of it.
#[derive(Debug, Clone)]
enum Step {
    Pick(Asked),
    Finish(usize),
    Pass(u64),
    ConnectFails(u32),
    Eject(u32, u64),
    Readmit(u32),
    Down(u32),
    Up(u32),
    Slow(u32, u64),
    ByHand(u32, Change),
    Offer(Vec<(u32, u16, u16)>),
}

#[derive(Debug, Clone)]
struct Asked {
    excluded: Vec<u32>,
    key: Option<u64>,
    cookie: Option<u32>,
    reluctant: bool,
    waits: bool,
    last_resort: bool,
}

fn asked() -> impl proptest::strategy::Strategy<Value = Asked> {
    let excluded = prop_oneof![
        4 => prop::collection::vec(1..9u32, 0),
        1 => prop::collection::vec(1..9u32, 1..4),
    ];
    let cookie = option::weighted(0.1, 1..9u32);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let all = (excluded, option::of(0..20u64), cookie, flags);
    all.prop_map(
        |(excluded, key, cookie, (reluctant, waits, last_resort))| Asked {
            excluded,
            key,
            cookie,
            reluctant,
            waits,
            last_resort,
        },
    )
}

fn records() -> impl proptest::strategy::Strategy<Value = Vec<(u32, u16, u16)>> {
    let record = |n| (prop::bool::weighted(0.8), 0..3u16, 0..6u16).prop_map(move |r| (n, r));
    let all: Vec<_> = (1..9u32).map(record).collect();
    all.prop_map(|all| {
        let there = all.into_iter().filter(|(_, (there, ..))| *there);
        there.map(|(n, (_, p, w))| (n, p * 10, w)).collect()
    })
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        12 => asked().prop_map(Step::Pick),
        3 => (0..8usize).prop_map(Step::Finish),
        3 => (1..3_000u64).prop_map(Step::Pass),
        2 => (1..9u32).prop_map(Step::ConnectFails),
        2 => (1..9u32, 0..5_000u64).prop_map(|(n, time)| Step::Eject(n, time)),
        1 => (1..9u32).prop_map(Step::Readmit),
        2 => (1..9u32).prop_map(Step::Down),
        2 => (1..9u32).prop_map(Step::Up),
        1 => (1..9u32, 1..500u64).prop_map(|(n, time)| Step::Slow(n, time)),
        1 => (1..9u32, select(BY_HAND.to_vec())).prop_map(|(n, change)| Step::ByHand(n, change)),
        1 => records().prop_map(Step::Offer),
    ]
}

const BY_HAND: [Change; 4] = [
    Change::Drain,
    Change::Undrain,
    Change::Weigh(Some(3)),
    Change::Weigh(None),
];

const STRATEGIES: [Strategy; 7] = [
    Strategy::Weighted,
    Strategy::RoundRobin,
    Strategy::LeastConnections,
    Strategy::Random,
    Strategy::TwoChoices,
    Strategy::Hash,
    Strategy::Cycle,
];

/// What a pick comes to, so that two can be compared.
type Came = Result<(BackendId, bool, u16, WhyTier), NoBackend>;

fn came(picked: &Result<Pick, NoBackend>) -> Came {
    let of = |pick: &Pick| (pick.backend().id, pick.trial, pick.priority, pick.why);
    picked.as_ref().map(of).map_err(|none| *none)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever has happened: a forecast says what the next pick gives, and the schedule does not
    /// notice that it was asked. A second schedule with the same seed is never asked, and gives
    /// the same as the first at every pick.
    #[test]
    fn the_next_pick_is_what_was_said(
        strategy in select(&STRATEGIES[..]),
        spill in option::weighted(0.3, 1.0..2.0f64),
        slow_start in select(vec![0, 0, 2_000]),
        per_backend in option::weighted(0.4, 1..3u32),
        first in records(),
        steps in prop::collection::vec(step(), 1..120),
        seed in any::<u64>(),
    ) {
        let balancing = Balancing {
            strategy,
            spill: spill.filter(|_| strategy != Strategy::Cycle),
            slow_start: Duration::from_millis(if strategy == Strategy::Cycle { 0 } else { slow_start }),
        };
        let terms = || Terms {
            gate: per_backend.map(|most| Gate::new(NonZeroU32::new(most), None, 10, Duration::ZERO)),
            rises: !balancing.slow_start.is_zero(),
            affinity: Some(Affinity::new("web".into(), &Sticky::default(), &[7; 32]).into()),
            ..Terms::default()
        };
        // Two services that nothing is different of, but that the first one is asked.
        let mut services = [(); 2].map(|()| Service::on("web".into(), terms()));
        let mut now = Millis(1_000);
        for service in &mut services {
            service.apply_at(&tiers(&first), now);
        }
        let mut pickers =
            [0, 1].map(|i: usize| Picker::new(services[i].snapshot().reader(), &balancing, seed));
        let mut held: Vec<[Result<Pick, NoBackend>; 2]> = Vec::new();
        for step in steps {
            let each = |n: u32, change: &dyn Fn(&Arc<Backend>)| {
                for service in &services {
                    let snapshot = service.snapshot().load();
                    snapshot.backends().filter(|b| b.endpoint == endpoint(n)).for_each(change);
                }
            };
            match step {
                Step::Pick(asked) => {
                    let made = [0, 1].map(|which: usize| {
                        let snapshot = services[which].snapshot().load();
                        let id = |n: &u32| {
                            let mut all = snapshot.backends();
                            all.find(|b| b.endpoint == endpoint(*n)).map(|b| b.id)
                        };
                        let excluded: Vec<_> = asked.excluded.iter().filter_map(id).collect();
                        let affinity = services[which].affinity();
                        let wish = Wish {
                            now,
                            excluded: &excluded,
                            trial: if asked.reluctant { Trial::Reluctant } else { Trial::Welcome },
                            when_full: if asked.waits { WhenFull::Waits } else { WhenFull::GoesOn },
                            last_resort: asked.last_resort,
                            key: asked.key,
                            token: affinity.zip(asked.cookie).map(|(a, n)| a.token(&endpoint(n))),
                        };
                        let said = (which == 0).then(|| {
                            let mut forecast = pickers[0].forecast();
                            let next = came(&forecast.next(wish));
                            // More than one may be asked for.
                            let _ = forecast.next(wish);
                            next
                        });
                        let picked = pickers[which].pick(wish);
                        (said, picked)
                    });
                    let [(said, first), (_, second)] = made;
                    prop_assert_eq!(said, Some(came(&first)));
                    let number = |picked: &Result<Pick, NoBackend>| {
                        let of = |p: &Pick| (p.backend().endpoint.clone(), p.trial, p.priority, p.why);
                        picked.as_ref().map(of).map_err(|none| *none)
                    };
                    prop_assert_eq!(number(&first), number(&second));
                    held.push([first, second]);
                }
                Step::Finish(which) => {
                    if which < held.len() {
                        drop(held.swap_remove(which));
                    }
                }
                Step::Pass(ms) => now = now.after(Duration::from_millis(ms)),
                Step::ConnectFails(n) => each(n, &|b| {
                    b.connect_failed(now);
                }),
                Step::Eject(n, ms) => {
                    each(n, &|b| b.eject(now.after(Duration::from_millis(ms)), Reason::Failures));
                }
                Step::Readmit(n) => each(n, &|b| b.readmit()),
                Step::Down(n) => each(n, &|b| b.set_down(Reason::CheckTimeout)),
                Step::Up(n) => each(n, &|b| b.set_down(Reason::None)),
                Step::Slow(n, ms) => each(n, &|b| b.load.succeeded(now, Duration::from_millis(ms))),
                Step::ByHand(n, change) => {
                    for service in &mut services {
                        // Perhaps nobody is listed there.
                        let _ = service.set_by_hand(endpoint(n).socket(), change, now);
                    }
                }
                Step::Offer(records) => {
                    for service in &mut services {
                        service.apply_at(&tiers(&records), now);
                    }
                }
            }
        }
    }
}

/// So many backends of one tier with strategy `strategy`; some are out, some have more to do.
fn uneven(strategy: Strategy, count: u32) -> (Service, Picker) {
    let records: Vec<_> = (1..=count).map(|n| (n, 0, 1 + n as u16 % 5)).collect();
    let mut service = Service::new("web".into());
    service.apply_at(&tiers(&records), Millis(1));
    for (backend, n) in service.snapshot().load().backends().zip(1..) {
        if n % 4 == 0 {
            backend.set_down(Reason::CheckTimeout);
        }
        backend
            .load
            .succeeded(Millis(1), Duration::from_millis(1 + n % 3));
        if n % 3 == 0 {
            // For as long as the test runs.
            std::mem::forget(backend.begin());
        }
    }
    let balancing = Balancing {
        strategy,
        ..Balancing::default()
    };
    let picker = Picker::new(service.snapshot().reader(), &balancing, 11);
    (service, picker)
}

#[test]
fn chances_are_what_many_picks_come_to() {
    for (strategy, count) in [
        (Strategy::Random, 7),
        (Strategy::TwoChoices, 7),
        (Strategy::TwoChoices, 1),
        (Strategy::LeastConnections, 70),
    ] {
        let (service, mut picker) = uneven(strategy, count);
        let wish = Wish::at(Millis(1));
        let mut forecast = picker.forecast();
        let next = forecast.next(wish).expect("somebody");
        let chances = picker.forecast().chances(next.priority, next.why, wish);
        let chances = chances.expect("chance chooses");
        assert!(
            (chances.iter().sum::<f64>() - 1.0).abs() < 1e-9,
            "{chances:?}"
        );
        const PICKS: u32 = 40_000;
        let mut got = HashMap::new();
        for _ in 0..PICKS {
            let pick = picker.pick(wish).expect("somebody");
            *got.entry(pick.backend().id).or_insert(0) += 1;
        }
        for (backend, chance) in service.snapshot().load().backends().zip(&chances) {
            let got = f64::from(got.get(&backend.id).copied().unwrap_or(0));
            let expected = chance * f64::from(PICKS);
            let five_sigma = 5.0 * (expected * (1.0 - chance)).sqrt();
            assert!(
                (got - expected).abs() <= five_sigma.max(1e-9),
                "{strategy:?} of {count}: {} got {got}, not {expected}",
                backend.address
            );
        }
    }
}

#[test]
fn chances_where_nobody_can_serve() {
    let (service, picker) = uneven(Strategy::Random, 3);
    for backend in service.snapshot().load().backends() {
        backend.set_down(Reason::CheckTimeout);
    }
    let mut forecast = picker.forecast();
    let wish = Wish::at(Millis(1));
    let next = forecast.next(wish).expect("somebody is tried");
    assert_eq!(next.why, WhyTier::Panic);
    let chances = forecast.chances(0, next.why, wish);
    // Weights 2, 3 and 4.
    let expected = [2.0, 3.0, 4.0].map(|weight| weight / 9.0);
    for (chance, expected) in chances.expect("chance chooses").iter().zip(expected) {
        assert!((chance - expected).abs() < 1e-9);
    }
}

#[test]
fn chance_has_no_part_in_a_schedule() {
    for strategy in [
        Strategy::Weighted,
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::Hash,
        Strategy::Cycle,
    ] {
        let (_service, picker) = uneven(strategy, 7);
        let forecast = picker.forecast();
        let chances = forecast.chances(0, WhyTier::First, Wish::at(Millis(1)));
        assert_eq!(chances, None, "{strategy:?}");
    }
}

#[test]
fn a_key_has_its_owners_in_order() {
    let (service, mut picker) = uneven(Strategy::Hash, 7);
    let backends: Vec<_> = service.snapshot().load().backends().cloned().collect();
    backends.iter().for_each(|b| b.set_down(Reason::None));
    for key in 0..50 {
        let owners = picker.forecast().owners(0, key).expect("it knows keys");
        let mut tried = Vec::new();
        for owner in owners {
            let wish = Wish {
                key: Some(key),
                excluded: &tried,
                last_resort: false,
                ..Wish::at(Millis(1))
            };
            let pick = picker.pick(wish).expect("somebody is left");
            assert_eq!(pick.backend().id, backends[owner].id, "key {key}");
            tried.push(pick.backend().id);
        }
        assert_eq!(tried.len(), backends.len());
    }
}

#[test]
fn the_parts_of_the_tiers_are_told_where_more_than_one_serves() {
    let mut service = Service::new("web".into());
    service.apply_at(&tiers(&[(1, 0, 1), (2, 0, 1), (3, 5, 1)]), Millis(1));
    let spill = |spill| {
        let balancing = Balancing {
            spill,
            ..Balancing::default()
        };
        Picker::new(service.snapshot().reader(), &balancing, 1)
    };
    let snapshot = service.snapshot().load();
    let first = snapshot.backends().next().expect("three are listed");
    first.set_down(Reason::CheckTimeout);
    for (factor, expected) in [(Some(1.0), vec![0.5, 0.5]), (None, vec![])] {
        let mut forecast = spill(factor).forecast();
        let _ = forecast.next(Wish::at(Millis(1_000)));
        assert_eq!(forecast.parts(), expected, "{factor:?}");
    }
}

#[test]
fn the_parts_of_a_snapshot_are_those_that_the_schedule_gives() {
    let of = |strategy, spill| Balancing {
        strategy,
        spill,
        ..Balancing::default()
    };
    // Two of the first tier, one of the second; who is down, the parts, and whether all are.
    type Row<'a> = (&'a str, Balancing, &'a [usize], &'a [f64], bool);
    let rows: &[Row<'_>] = &[
        (
            "the first takes all",
            of(Strategy::Weighted, None),
            &[0],
            &[1.0, 0.0],
            false,
        ),
        (
            "the first that can",
            of(Strategy::Weighted, None),
            &[0, 1],
            &[0.0, 1.0],
            false,
        ),
        (
            "panic tries the first",
            of(Strategy::Weighted, None),
            &[0, 1, 2],
            &[1.0, 0.0],
            true,
        ),
        (
            "half is spilled",
            of(Strategy::Random, Some(1.0)),
            &[0],
            &[0.5, 0.5],
            false,
        ),
        (
            "panic while it spills",
            of(Strategy::Weighted, Some(1.0)),
            &[0, 1, 2],
            &[1.0, 0.0],
            true,
        ),
        (
            "all have turns",
            of(Strategy::Cycle, None),
            &[],
            &[2.0 / 3.0, 1.0 / 3.0],
            false,
        ),
        (
            "but those that are out",
            of(Strategy::Cycle, None),
            &[0],
            &[0.5, 0.5],
            false,
        ),
        (
            "panic in the cycle",
            of(Strategy::Cycle, None),
            &[0, 1, 2],
            &[2.0 / 3.0, 1.0 / 3.0],
            true,
        ),
    ];
    for (rule, balancing, down, expected, last_resort) in rows {
        let mut service = Service::new("web".into());
        service.apply_at(&tiers(&[(1, 0, 1), (2, 0, 1), (3, 5, 1)]), Millis(1));
        let snapshot = service.snapshot().load();
        let backends: Vec<_> = snapshot.backends().collect();
        down.iter()
            .for_each(|&n| backends[n].set_down(Reason::CheckTimeout));
        let told = parts(&snapshot, balancing, Millis(1_000));
        assert_eq!(
            (&*told.tiers, told.last_resort),
            (*expected, *last_resort),
            "{rule}"
        );
        let mut picker = Picker::new(service.snapshot().reader(), balancing, 1);
        let wish = Wish::at(Millis(1_000));
        let mut counts = [0.0, 0.0];
        for _ in 0..60 {
            let pick = picker.pick(wish).expect("somebody is tried");
            counts[usize::from(pick.priority > 0)] += 1.0 / 60.0;
        }
        for (count, part) in counts.iter().zip(*expected) {
            assert!(
                (count - part).abs() < 0.02,
                "{rule}: {counts:?} for {expected:?}"
            );
        }
    }
}
