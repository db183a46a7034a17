use std::time::Duration;

use crate::balance::testing::{Fixture, number, tier};
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::Strategy;
use crate::upstream::standing::Reason;

fn fixture(weights: &[u16]) -> Fixture {
    Fixture::new(&tier(weights), Strategy::LeastConnections, 3)
}

/// Whoever is picked keeps what it has.
fn pick_and_hold(fixture: &mut Fixture) -> u32 {
    let now = fixture.now;
    let pick = fixture.picker.pick(Wish::at(now)).expect("somebody");
    let number = number(pick.backend());
    std::mem::forget(pick);
    number
}

#[test]
fn idle_ones_are_served_by_weight_in_turn() {
    let mut fixture = fixture(&[3, 2, 1]);
    for _ in 0..100 {
        let counts = fixture.count(6);
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [(1, 3), (2, 2), (3, 1)]
        );
    }
}

#[test]
fn what_is_under_way_is_in_proportion_to_the_weights() {
    let mut fixture = fixture(&[30, 20, 10]);
    for _ in 0..600 {
        pick_and_hold(&mut fixture);
    }
    let held = |n| fixture.backend(n).in_flight();
    assert_eq!([held(1), held(2), held(3)], [300, 200, 100]);
}

#[test]
fn the_least_loaded_of_a_large_tier_gets_nearly_all() {
    // More than are all looked at.
    let mut fixture = fixture(&[10; 200]);
    for n in 1..=100 {
        std::mem::forget(fixture.backend(n).begin());
    }
    let busy = fixture.picks(10_000).into_iter().filter(|n| *n <= 100);
    // All of eight draws are busy with a probability of 2⁻⁸.
    assert!(busy.count() < 100);
    let idle = (1..=200).map(|n| fixture.backend(n).in_flight());
    assert_eq!(idle.sum::<u32>(), 100);
}

#[test]
fn who_fails_fast_attracts_nothing() {
    let mut fixture = fixture(&[1, 1, 1]);
    let failing = fixture.backend(2);
    let mut failed = 0;
    // A thousand requests a second, of which each keeps a good backend for 10 ms.
    let mut under_way = std::collections::VecDeque::new();
    for millis in 1..=10_000 {
        fixture.now = Millis(millis);
        let pick = fixture
            .picker
            .pick(Wish::at(fixture.now))
            .expect("somebody");
        if pick.backend().id == failing.id {
            failed += 1;
            failing.load.failed(fixture.now, Duration::ZERO);
            drop(pick);
        } else {
            under_way.push_back(pick);
        }
        if under_way.len() > 10 {
            under_way.pop_front();
        }
    }
    // Five at once, as the others have, and one a second for each of them as they are forgotten.
    assert!((1..30).contains(&failed), "{failed} of 10,000");
}

#[test]
fn a_due_trial_is_made_whatever_was_failed() {
    let mut fixture = fixture(&[1, 1, 1]);
    let ejected = fixture.backend(2);
    for _ in 0..50 {
        ejected.load.failed(Millis(1_000), Duration::ZERO);
    }
    ejected.eject(Millis(2_000), Reason::Failures);
    fixture.now = Millis(1_999);
    assert_ne!(fixture.pick(), 2);
    fixture.now = Millis(2_000);
    assert_eq!(fixture.pick(), 2);
    assert_ne!(fixture.pick(), 2, "one at a time");
}

#[test]
fn who_is_out_tried_or_full_is_left_out() {
    let mut fixture = fixture(&[1, 1, 1]);
    std::mem::forget(fixture.backend(3).begin());
    assert_eq!(fixture.pick_without(&[1, 2]), 3);
    fixture.backend(1).set_down(Reason::CheckTimeout);
    assert!(fixture.picks(9).iter().all(|n| *n == 2));
    fixture.backend(2).set_down(Reason::CheckTimeout);
    assert!(fixture.picks(9).iter().all(|n| *n == 3));
    fixture.backend(3).set_down(Reason::CheckTimeout);
    let panic = fixture.count(300);
    assert_eq!(panic.len(), 3, "{panic:?}");
}

#[test]
fn the_last_of_a_large_tier_is_found() {
    let mut fixture = fixture(&[10; 200]);
    for n in (1..=200).filter(|n| *n != 77) {
        fixture.backend(n).set_down(Reason::CheckTimeout);
    }
    assert!(fixture.picks(100).iter().all(|n| *n == 77));
}
