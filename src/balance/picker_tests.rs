use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, any, prop};
use proptest::strategy::Strategy as _;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::balance::testing::{Fixture, found, tier, tiers};
use crate::discovery::Offer;

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Picks after which every count is whole: Σw over the greatest common divisor.
fn period(weights: &[u16]) -> usize {
    let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    (sum / weights.iter().fold(0, |all, &w| gcd(all, w.into()))) as usize
}

fn counts(of: &[(u32, usize)]) -> BTreeMap<u32, usize> {
    of.iter().copied().collect()
}

// ---- shares

#[test]
fn shares_are_exact_from_the_first_period_on() {
    let rows: &[(&str, &[u16], &[usize])] = &[
        ("thirds and so on", &[30, 20, 10], &[3, 2, 1]),
        ("[1,1] is half and half", &[1, 1], &[1, 1]),
        ("eleven equal weights", &[1; 11], &[1; 11]),
        ("a heavy one", &[5, 1, 1], &[5, 1, 1]),
        ("equal whatever the value", &[65535; 7], &[1; 7]),
        (
            "weights below 256 are not all alike",
            &[30, 20, 40],
            &[3, 2, 4],
        ),
        ("alone", &[9], &[1]),
        ("16 bits", &[65535, 1], &[65535, 1]),
    ];
    for (rule, weights, expected) in rows {
        for seed in 0..2 {
            let mut fixture = Fixture::weighted(weights, seed);
            let expected = (1..).zip(expected.iter().copied()).collect();
            for round in 0..2 {
                let got = fixture.count(period(weights));
                assert_eq!(got, expected, "{rule}, seed {seed}, round {round}");
            }
        }
    }
}

#[test]
fn weight_5_1_1_is_smooth() {
    // The two light ones are half a round apart, and the heavy one is never served more than
    // three times in a row.
    for seed in 0..200 {
        let picks = Fixture::weighted(&[5, 1, 1], seed).picks(70);
        let longest = picks.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
        assert!(longest <= Some(3), "seed {seed}: {picks:?}");
    }
}

#[test]
fn all_zero_weights_are_equal() {
    let mut fixture = Fixture::weighted(&[0; 11], 1);
    assert_eq!(fixture.count(1_100), (1..=11).map(|n| (n, 100)).collect());
}

#[test]
fn a_zero_weight_gets_a_256th_of_the_mean() {
    // Mean 512/3; shares 384 : 384 : 1 of 769.
    let mut fixture = Fixture::weighted(&[256, 256, 0], 1);
    let got = fixture.count(769 * 10);
    assert_eq!(got, counts(&[(1, 3840), (2, 3840), (3, 10)]));
}

#[test]
fn addresses_of_a_target_share_its_weight() {
    // One target of weight 30 with three addresses, one of weight 30 with one.
    let offer = [(1, 3), (2, 3), (3, 3), (4, 1)].map(|(n, split)| found(n, 0, 30, split));
    let mut fixture = Fixture::new(&Offer::Endpoints(offer.into()), Strategy::Weighted, 3);
    let got = fixture.count(6_000);
    for (n, expected) in [(1, 1_000), (2, 1_000), (3, 1_000), (4, 3_000)] {
        assert!(got[&n].abs_diff(expected) <= 1, "{got:?}");
    }
}

#[test]
fn round_robin_ignores_weight_and_split() {
    let offer = [(1, 9, 2), (2, 9, 2), (3, 0, 1)].map(|(n, w, split)| found(n, 0, w, split));
    let mut fixture = Fixture::new(&Offer::Endpoints(offer.into()), Strategy::RoundRobin, 3);
    let picks = fixture.picks(300);
    assert!(
        picks
            .windows(3)
            .all(|w| w[0] != w[1] && w[1] != w[2] && w[0] != w[2])
    );
}

fn weight() -> impl proptest::strategy::Strategy<Value = u16> {
    prop_oneof![1u16..=10, 1u16..=1000, Just(65535), Just(1)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Over Σw/gcd picks each backend gets w/gcd, give or take one, from any moment on.
    #[test]
    fn counts_over_a_period_are_exact(
        weights in prop_oneof![
            prop::collection::vec(1u16..=300, 1..40),
            prop::collection::vec(weight(), 1..4),
        ],
        seed in any::<u64>(),
        skip in 0usize..5_000,
    ) {
        let period = period(&weights);
        let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let mut fixture = Fixture::weighted(&weights, seed);
        fixture.picks(skip);
        let got = fixture.count(period);
        for (n, &weight) in (1..).zip(&weights) {
            let exact = f64::from(weight) * period as f64 / sum;
            let got = got.get(&n).copied().unwrap_or(0) as f64;
            prop_assert!((got - exact).abs() <= 1.0, "b{} got {} of {}", n, got, exact);
        }
    }

    /// In virtual time V each class of equal weights has at any moment been served its share of
    /// V to within one, and so has each of its members. Counted in picks N instead of V, a member
    /// of share f is therefore within 1 + f·(number of classes) of f·N.
    #[test]
    fn nobody_is_far_from_its_fluid_share(
        weights in prop_oneof![
            prop::collection::vec(weight(), 1..30),
            (1u16..100, 1usize..200).prop_map(|(weight, n)| vec![weight; n]),
            // A heavy one among many light ones of equal weight.
            (1u16..100, 1usize..200).prop_map(|(weight, n)| {
                let mut all = vec![weight; n];
                all.push(weight * n as u16);
                all
            }),
        ],
        seed in any::<u64>(),
    ) {
        let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let classes = weights.iter().collect::<std::collections::BTreeSet<_>>().len() as f64;
        let mut fixture = Fixture::weighted(&weights, seed);
        let mut got = vec![0.0; weights.len()];
        for picks in 1..2_000 {
            got[fixture.pick() as usize - 1] += 1.0;
            for (got, &weight) in got.iter().zip(&weights) {
                let share = f64::from(weight) / sum;
                let (fluid, bound) = (share * f64::from(picks), 1.0 + share * classes);
                prop_assert!((got - fluid).abs() < bound, "{} of {} after {}", got, fluid, picks);
            }
        }
    }

    /// Whatever came before, who is picked is listed now, and at the lowest priority there is
    /// (RFC 2782) unless the strategy is `cycle`.
    #[test]
    fn only_who_is_listed_is_picked(
        sets in prop::collection::vec(prop::collection::btree_map(1u32..12, weight(), 1..8), 1..12),
        seed in any::<u64>(),
        strategy in prop_oneof![
            Just(Strategy::Weighted), Just(Strategy::RoundRobin), Just(Strategy::Cycle)
        ],
    ) {
        let mut fixture = Fixture::new(&tier(&[1]), strategy, seed);
        for set in sets {
            let records: Vec<_> = set.iter().map(|(&n, &w)| (n, (n % 3) as u16, w)).collect();
            fixture.apply(&tiers(&records));
            let least = records.iter().map(|r| r.1).min().expect("at least one");
            for _ in 0..50 {
                let picked = fixture.pick();
                prop_assert!(set.contains_key(&picked));
                if strategy != Strategy::Cycle {
                    prop_assert_eq!((picked % 3) as u16, least, "strict priority");
                }
            }
        }
    }
}

// ---- fresh schedules

#[test]
fn first_picks_of_many_balancers_spread_over_equal_backends() {
    let mut firsts = BTreeMap::new();
    for seed in 0..1_000 {
        *firsts
            .entry(Fixture::weighted(&[1; 10], seed).pick())
            .or_insert(0) += 1;
    }
    // 100 expected, standard deviation 9.5.
    assert!(
        firsts.len() == 10 && firsts.values().all(|n| (65..=135).contains(n)),
        "{firsts:?}"
    );
}

#[test]
fn every_pick_of_many_balancers_spreads_by_weight() {
    for nth in [1, 2, 3, 7] {
        let mut picked = BTreeMap::new();
        for seed in 0..6_000 {
            let mut fixture = Fixture::weighted(&[30, 20, 10], seed);
            *picked.entry(fixture.picks(nth)[nth - 1]).or_insert(0u32) += 1;
        }
        // Standard deviation below 40.
        for (n, expected) in [(1, 3_000u32), (2, 2_000), (3, 1_000)] {
            assert!(
                picked[&n].abs_diff(expected) < 160,
                "pick {nth}: {picked:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    let picks = |seed| Fixture::weighted(&[7, 5, 3, 3], seed).picks(100);
    assert_eq!(picks(5), picks(5));
    assert_ne!(picks(5), picks(6));
}

// ---- changed records

#[test]
fn rebuilding_before_every_pick_keeps_the_shares() {
    let mut fixture = Fixture::weighted(&[30, 20, 10], 9);
    let mut got = BTreeMap::new();
    for _ in 0..6_000 {
        fixture.service.snapshot().touch();
        *got.entry(fixture.pick()).or_default() += 1;
    }
    assert_eq!(got, counts(&[(1, 3_000), (2, 2_000), (3, 1_000)]));
}

#[test]
fn reweighting_before_every_pick_keeps_the_shares() {
    // Every scale event of a Kubernetes service changes every weight.
    let mut fixture = Fixture::weighted(&[30, 20, 10], 9);
    let mut got = BTreeMap::new();
    for pick in 0..6_000u16 {
        let by = 1 + pick % 97;
        fixture.apply(&tier(&[3 * by, 2 * by, by]));
        *got.entry(fixture.pick()).or_default() += 1;
    }
    assert_eq!(got, counts(&[(1, 3_000), (2, 2_000), (3, 1_000)]));
}

#[test]
fn rescaling_all_weights_moves_no_pick() {
    let mut still = Fixture::weighted(&[3, 2, 1], 4);
    let mut rescaled = Fixture::weighted(&[3, 2, 1], 4);
    for round in 1..200 {
        rescaled.apply(&tier(&[3 * round, 2 * round, round]));
        assert_eq!(still.picks(5), rescaled.picks(5), "round {round}");
    }
}

#[test]
fn a_backend_that_comes_and_goes_before_every_pick_moves_no_share() {
    let mut fixture = Fixture::weighted(&[30, 20, 10], 9);
    let mut got = BTreeMap::new();
    for _ in 0..6_000 {
        fixture.apply(&tier(&[30, 20, 10, 60]));
        fixture.apply(&tier(&[30, 20, 10]));
        *got.entry(fixture.pick()).or_insert(0usize) += 1;
    }
    for (n, expected) in [(1, 3_000), (2, 2_000), (3, 1_000)] {
        assert!(got[&n].abs_diff(expected) <= 1, "{got:?}");
    }
}

#[test]
fn a_reweighted_backend_has_its_new_share_at_once() {
    let mut fixture = Fixture::weighted(&[1, 1], 2);
    fixture.picks(1_001);
    fixture.apply(&tier(&[9, 1]));
    let got = fixture.count(1_000);
    assert!(got[&1].abs_diff(900) <= 1, "{got:?}");
}

#[test]
fn a_new_backend_has_neither_a_burst_nor_a_wait() {
    for seed in 0..50 {
        let mut fixture = Fixture::weighted(&[1; 9], seed);
        fixture.picks(1_003);
        fixture.apply(&tier(&[1; 10]));
        let picks = fixture.picks(100);
        let turns: Vec<_> = (0..100).filter(|&at| picks[at] == 10).collect();
        assert!((9..=11).contains(&turns.len()), "seed {seed}: {turns:?}");
        assert!(turns[0] <= 10, "seed {seed}: {turns:?}");
        assert!(
            turns.windows(2).all(|w| w[1] - w[0] >= 9),
            "seed {seed}: {turns:?}"
        );
    }
}

#[test]
fn many_new_backends_are_mixed_in() {
    let mut fixture = Fixture::weighted(&[1; 20], 3);
    fixture.picks(1_005);
    fixture.apply(&tier(&[1; 40]));
    let picks = fixture.picks(40);
    let new = |picks: &[u32]| picks.iter().filter(|&&n| n > 20).count();
    assert!(new(&picks).abs_diff(20) <= 1, "{picks:?}");
    assert!((4..=16).contains(&new(&picks[..20])), "{picks:?}");
}

#[test]
fn a_new_backend_is_not_everybodys_next_pick() {
    let mut next = BTreeMap::new();
    for seed in 0..1_000 {
        let mut fixture = Fixture::weighted(&[1; 9], seed);
        fixture.picks(30);
        fixture.apply(&tier(&[1; 10]));
        *next.entry(fixture.pick()).or_insert(0) += 1;
    }
    // 100 expected, standard deviation 9.5.
    assert!((65..=135).contains(&next[&10]), "{next:?}");
}

#[test]
fn a_removed_backend_is_never_picked_again() {
    let mut fixture = Fixture::weighted(&[5, 1, 1], 2);
    fixture.picks(10);
    fixture.apply(&tiers(&[(2, 0, 1), (3, 0, 1)]));
    assert_eq!(fixture.count(100), counts(&[(2, 50), (3, 50)]));
}

#[test]
fn ten_thousand_backends() {
    let weights: Vec<u16> = (0..10_000).map(|n| 1 + n % 3).collect();
    let mut fixture = Fixture::weighted(&weights, 1);
    let got = fixture.count(period(&weights));
    assert!((1..).zip(&weights).all(|(n, &w)| got[&n] == usize::from(w)));
    fixture.apply(&tier(&weights[..9_999]));
    fixture.apply(&tier(&weights));
    let got = fixture.count(2 * period(&weights));
    assert!(
        (1..)
            .zip(&weights)
            .all(|(n, &w)| got[&n].abs_diff(2 * usize::from(w)) <= 1)
    );
}

// ---- nobody

#[test]
fn why_nobody_is_picked() {
    for strategy in [Strategy::Weighted, Strategy::RoundRobin, Strategy::Cycle] {
        let mut fixture = Fixture::new(&Offer::Pending, strategy, 1);
        let mut pick = |offer: &Offer, excluded: &[BackendId]| {
            fixture.apply(offer);
            let wish = Wish {
                excluded,
                ..Wish::at(fixture.now)
            };
            let picked = fixture.picker.pick(wish);
            picked.map(|pick| pick.backend().id)
        };
        assert_eq!(pick(&Offer::Pending, &[]), Err(NoBackend::Unresolved));
        assert_eq!(pick(&Offer::Absent, &[]), Err(NoBackend::Empty));
        let first = pick(&tier(&[1, 1]), &[]).expect("two are there");
        let second = pick(&tier(&[1, 1]), &[first]).expect("one is left");
        assert_ne!(first, second);
        let both = [first, second];
        assert_eq!(pick(&tier(&[1, 1]), &both), Err(NoBackend::Exhausted));
        assert_eq!(pick(&Offer::Pending, &both), Err(NoBackend::Exhausted));
        assert_eq!(pick(&Offer::Absent, &[]), Err(NoBackend::Empty));
    }
}

// ---- tiers, passed over, excluded

/// b1 and b2 first, then b3, then b4.
fn three_tiers() -> Fixture {
    let offer = tiers(&[(1, 10, 1), (2, 10, 1), (3, 20, 1), (4, 30, 1)]);
    Fixture::new(&offer, Strategy::Weighted, 1)
}

impl Fixture {
    fn fail(&self, number: u32) {
        self.backend(number).connect_failed(self.now);
    }

    fn wait(&mut self, millis: u64) {
        self.now = Millis(self.now.0 + millis);
    }
}

#[test]
fn the_standby_takes_over_and_gives_back() {
    let mut fixture = three_tiers();
    assert_eq!(fixture.count(10), counts(&[(1, 5), (2, 5)]));
    fixture.fail(1);
    assert_eq!(
        fixture.count(10),
        counts(&[(2, 10)]),
        "one of the tier is left"
    );
    fixture.fail(2);
    assert_eq!(fixture.count(10), counts(&[(3, 10)]), "the next tier");
    fixture.fail(3);
    assert_eq!(fixture.count(10), counts(&[(4, 10)]), "and the next");
    fixture.wait(1_000);
    assert_eq!(fixture.count(10), counts(&[(1, 5), (2, 5)]), "back");
}

#[test]
fn a_tier_of_excluded_backends_hands_over_too() {
    let mut fixture = three_tiers();
    assert_eq!(fixture.pick_without(&[1, 2]), 3);
    fixture.fail(1);
    assert_eq!(
        fixture.pick_without(&[2]),
        3,
        "one passed over, one excluded"
    );
    let mut pick = fixture
        .picker
        .pick(Wish::at(fixture.now))
        .expect("somebody");
    assert_eq!(pick.priority, 10);
    let excluded: Vec<_> = [1, 2, 3].map(|n| fixture.backend(n).id).into();
    pick = fixture
        .picker
        .pick(Wish {
            excluded: &excluded,
            ..Wish::at(fixture.now)
        })
        .expect("somebody");
    assert_eq!(pick.priority, 30);
}

#[test]
fn when_no_tier_can_serve_the_first_is_tried_as_if_healthy() {
    for strategy in [Strategy::Weighted, Strategy::Cycle] {
        let offer = tiers(&[(1, 10, 3), (2, 10, 1), (3, 20, 1)]);
        let mut fixture = Fixture::new(&offer, strategy, 1);
        (1..=3).for_each(|n| fixture.fail(n));
        let expected = match strategy {
            Strategy::Cycle => counts(&[(1, 12), (2, 4), (3, 4)]),
            _ => counts(&[(1, 15), (2, 5)]),
        };
        assert_eq!(
            fixture.count(20),
            expected,
            "{strategy:?}: by weight all the same"
        );
        assert_eq!(fixture.pick_without(&[1]), 2);
        assert_eq!(fixture.pick_without(&[1, 2]), 3);
        fixture.wait(1_000);
        assert!(fixture.picks(3).contains(&1));
    }
}

#[test]
fn a_connect_that_another_worker_dared_is_noticed_soon() {
    let mut fixture = Fixture::weighted(&[1; 5], 1);
    (1..=5).for_each(|n| fixture.fail(n));
    fixture.picks(20);
    fixture.backend(3).connected();
    fixture.wait(100);
    assert_eq!(fixture.picks(10), [3; 10]);
}

#[test]
fn a_passed_over_backend_comes_back_without_a_burst() {
    for seed in 0..50 {
        let mut fixture = Fixture::weighted(&[90, 5, 5], seed);
        fixture.picks(40);
        fixture.fail(1);
        let meanwhile = fixture.count(1_000);
        assert!(!meanwhile.contains_key(&1));
        assert!(meanwhile[&2].abs_diff(500) <= 1);
        fixture.wait(1_000);
        let got = fixture.count(100);
        assert!(got[&1].abs_diff(90) <= 2, "seed {seed}: {got:?}");
        // The other way round: a light one that comes back is no burst either.
        fixture.fail(2);
        fixture.picks(1_000);
        fixture.wait(2_000);
        let got = fixture.count(100);
        assert!(
            got.get(&2).copied().unwrap_or(0).abs_diff(5) <= 2,
            "seed {seed}: {got:?}"
        );
    }
}

#[test]
fn many_that_come_back_together_are_mixed_in() {
    let mut fixture = Fixture::weighted(&[1; 40], 3);
    (1..=20).for_each(|n| fixture.fail(n));
    fixture.picks(1_000);
    fixture.wait(1_000);
    let picks = fixture.picks(40);
    let returned = picks.iter().filter(|&&n| n <= 20).count();
    assert!(returned.abs_diff(20) <= 1, "{picks:?}");
    let in_first_half = picks[..20].iter().filter(|&&n| n <= 20).count();
    assert!((4..=16).contains(&in_first_half), "{picks:?}");
}

#[test]
fn what_is_passed_over_stays_so_through_a_rebuild() {
    let mut fixture = Fixture::weighted(&[4, 1, 1], 3);
    fixture.fail(1);
    fixture.picks(10);
    fixture.apply(&tier(&[4, 1, 1, 1]));
    assert!(!fixture.count(100).contains_key(&1));
    fixture.wait(1_000);
    assert!(fixture.count(7)[&1].abs_diff(4) <= 1);
}

#[test]
fn an_excluded_backend_keeps_its_turn_but_saves_none_up() {
    let mut fixture = Fixture::weighted(&[1, 1, 1], 3);
    let first = fixture.pick();
    let others: Vec<_> = (1..=3).filter(|&n| n != first).collect();
    let order = fixture.picks(3);
    assert_eq!(order[2], first);
    // The one whose turn it is gets excluded once: it is next.
    let tried = order[0];
    assert_ne!(fixture.pick_without(&[tried]), tried);
    assert_eq!(fixture.pick(), tried);
    // Excluded for long, it is one turn behind, not hundreds.
    let other = others[0];
    (0..600).for_each(|_| assert_ne!(fixture.pick_without(&[other]), other));
    let got = fixture.count(30);
    assert!((10..=12).contains(&got[&other]), "{got:?}");
}
