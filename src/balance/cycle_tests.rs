use std::collections::BTreeMap;

use super::*;
use crate::balance::testing::{Fixture, found, tier, tiers};
use crate::config::Strategy;
use crate::discovery::Offer;

fn cycle(offer: &Offer) -> Fixture {
    Fixture::new(offer, Strategy::Cycle, 1)
}

/// b1 (0, 30), b2 (0, 20), b3 (10, 40).
fn older() -> Offer {
    tiers(&[(1, 0, 30), (2, 0, 20), (3, 10, 40)])
}

#[test]
fn the_nine_requests_of_the_older_project() {
    let mut fixture = cycle(&older());
    for _ in 0..5 {
        assert_eq!(fixture.picks(9), [1, 2, 1, 2, 1, 3, 3, 3, 3]);
    }
}

#[test]
fn one_cycle_by_weights() {
    type Row<'a> = (&'a str, &'a [(u32, u16, u16)], &'a [u32]);
    let rows: &[Row<'_>] = &[
        (
            "eleven equal",
            &[
                (1, 0, 1),
                (2, 0, 1),
                (3, 0, 1),
                (4, 0, 1),
                (5, 0, 1),
                (6, 0, 1),
                (7, 0, 1),
                (8, 0, 1),
                (9, 0, 1),
                (10, 0, 1),
                (11, 0, 1),
            ],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        ),
        (
            "zero weight: one turn",
            &[(1, 0, 20), (2, 0, 0), (3, 0, 10)],
            &[1, 1, 2, 3],
        ),
        (
            "all zero: one turn each",
            &[(1, 0, 0), (2, 0, 0), (3, 5, 0)],
            &[1, 2, 3],
        ),
        ("alone", &[(1, 0, 7)], &[1]),
    ];
    for (rule, records, expected) in rows {
        let mut fixture = cycle(&tiers(records));
        for round in 0..3 {
            let mut got = fixture.picks(expected.len());
            if *rule == "zero weight: one turn" {
                // Who goes first among equals depends on who was served last.
                got.sort_unstable();
            }
            assert_eq!(got, *expected, "{rule}, round {round}");
        }
    }
}

#[test]
fn huge_weights_are_counted_not_laid_out() {
    let mut fixture = cycle(&tier(&[65535, 1, 65534]));
    let got = fixture.count(131_070);
    assert_eq!(got, BTreeMap::from([(1, 65535), (2, 1), (3, 65534)]));
}

#[test]
fn addresses_of_a_target_share_its_turns() {
    // 30 over three addresses and 20: 10, 10, 10 and 20.
    let offer = [(1, 30, 3), (2, 30, 3), (3, 30, 3), (4, 20, 1)];
    let offer = offer.map(|(n, weight, split)| found(n, 0, weight, split));
    let mut fixture = cycle(&Offer::Endpoints(offer.into()));
    for _ in 0..3 {
        let got = fixture.count(5);
        assert_eq!(got, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 2)]));
    }
}

#[test]
fn a_passed_over_backend_loses_its_turns_and_has_no_burst() {
    let mut fixture = cycle(&tiers(&[(1, 0, 4), (2, 0, 4), (3, 0, 1)]));
    assert_eq!(fixture.picks(2), [1, 2]);
    fixture.backend(1).connect_failed(fixture.now);
    assert_eq!(fixture.picks(2), [2, 2]);
    fixture.now = Millis(fixture.now.0 + 1_000);
    // b1 had three turns left; b2 and b3 have one each by now.
    let mut rest = fixture.picks(3);
    rest.sort_unstable();
    assert_eq!(rest, [1, 2, 3]);
    assert_eq!(fixture.count(9), BTreeMap::from([(1, 4), (2, 4), (3, 1)]));
}

#[test]
fn the_standby_serves_alone_while_the_others_are_passed_over() {
    let mut fixture = cycle(&older());
    fixture.backend(1).connect_failed(fixture.now);
    fixture.backend(2).connect_failed(fixture.now);
    assert_eq!(fixture.picks(20), [3; 20]);
    fixture.now = Millis(fixture.now.0 + 1_000);
    fixture.picks(4);
    assert_eq!(fixture.picks(9).len(), 9);
    let got = fixture.count(90);
    assert_eq!(got, BTreeMap::from([(1, 30), (2, 20), (3, 40)]));
}

#[test]
fn an_excluded_backend_keeps_its_turn() {
    let mut fixture = cycle(&tier(&[1, 1]));
    assert_eq!(fixture.pick_without(&[1]), 2);
    assert_eq!(fixture.pick_without(&[1]), 2, "the next cycle begins early");
    assert_eq!(fixture.picks(3), [1, 1, 2]);
    // However long it is excluded, it saves up a cycle's worth at most.
    (0..100).for_each(|_| assert_eq!(fixture.pick_without(&[1]), 2));
    assert!(fixture.picks(6).iter().filter(|&&n| n == 1).count() <= 4);
}

#[test]
fn the_same_records_again_change_nothing() {
    let mut fixture = cycle(&older());
    let mut picks = Vec::new();
    for _ in 0..27 {
        fixture.service.snapshot().touch();
        picks.push(fixture.pick());
    }
    assert_eq!(picks, [1, 2, 1, 2, 1, 3, 3, 3, 3].repeat(3));
}

#[test]
fn a_new_backend_comes_in_with_what_its_tier_has_left() {
    let mut fixture = cycle(&tier(&[4, 4]));
    fixture.picks(4);
    fixture.apply(&tier(&[4, 4, 4]));
    // Weights are 1:1:1 now: everybody has one turn at most.
    let got = fixture.count(30);
    assert!(got.values().all(|&n| (9..=11).contains(&n)), "{got:?}");
}
