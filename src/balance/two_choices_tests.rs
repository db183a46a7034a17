use std::time::Duration;

use crate::balance::testing::{Fixture, tier};
use crate::clock::Millis;
use crate::config::Strategy;
use crate::upstream::standing::Reason;

fn fixture(weights: &[u16]) -> Fixture {
    Fixture::new(&tier(weights), Strategy::TwoChoices, 3)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn without_samples_the_first_of_the_two_by_weight() {
    let counts = fixture(&[60, 30, 10]).count(100_000);
    for (number, expected) in [(1, 60_000), (2, 30_000), (3, 10_000)] {
        // Five standard deviations.
        assert!(counts[&number].abs_diff(expected) < 800, "{counts:?}");
    }
}

#[test]
fn the_slowest_of_three_gets_what_nobody_else_is_drawn_for() {
    let mut fixture = fixture(&[1, 1, 1]);
    for (number, latency) in [(1, 10), (2, 12), (3, 100)] {
        fixture
            .backend(number)
            .load
            .succeeded(fixture.now, ms(latency));
    }
    let counts = fixture.count(30_000);
    assert!(
        counts[&1] > counts[&2] && !counts.contains_key(&3),
        "{counts:?}"
    );
}

#[test]
fn cost_is_latency_times_load_for_the_share() {
    type Row<'a> = (&'a str, [u16; 2], [u64; 2], [usize; 2], u32);
    let rows: &[Row<'_>] = &[
        ("quicker", [1, 1], [10, 11], [0, 0], 1),
        ("quicker, and busy", [1, 1], [10, 11], [1, 0], 2),
        (
            "a third of the latency is worth two under way",
            [1, 1],
            [10, 31],
            [2, 0],
            1,
        ),
        ("half of the latency is not", [1, 1], [10, 19], [2, 0], 2),
        ("heavier", [3, 1], [10, 10], [1, 0], 1),
        ("heavier, and busy", [3, 1], [10, 10], [3, 0], 2),
        ("no sample: load alone", [1, 1], [0, 900], [1, 0], 2),
        ("no sample, no load: either", [1, 1], [900, 0], [0, 1], 1),
    ];
    for (rule, weights, latencies, in_flight, expected) in rows {
        let mut fixture = fixture(weights);
        for n in 0..2 {
            let backend = fixture.backend(n as u32 + 1);
            if latencies[n] > 0 {
                backend.load.succeeded(fixture.now, ms(latencies[n]));
            }
            for _ in 0..in_flight[n] {
                std::mem::forget(backend.begin());
            }
        }
        for _ in 0..20 {
            assert_eq!(fixture.pick(), *expected, "{rule}");
        }
    }
}

#[test]
fn who_was_slow_is_tried_again_some_time() {
    let mut fixture = fixture(&[1, 1]);
    fixture.backend(1).load.succeeded(fixture.now, ms(1_000));
    let mut first = None;
    for millis in (1..120_000).step_by(10) {
        fixture.now = Millis(millis);
        match fixture.pick() {
            1 => first = first.or(Some(millis)),
            _ => fixture.backend(2).load.succeeded(fixture.now, ms(10)),
        }
    }
    // ln 100 time constants of 10 s.
    let first = first.expect("it faded");
    assert!((44_000..48_000).contains(&first), "{first}");
}

#[test]
fn who_fails_fast_attracts_nothing() {
    let mut fixture = fixture(&[1, 1, 1]);
    let failing = fixture.backend(2);
    // It was the quickest of all.
    failing.load.succeeded(Millis(1), ms(1));
    let mut failed = 0;
    for millis in 1..=10_000 {
        fixture.now = Millis(millis);
        match fixture.pick() {
            2 => {
                failed += 1;
                failing.load.failed(fixture.now, ms(0));
            }
            other => fixture.backend(other).load.succeeded(fixture.now, ms(5)),
        }
    }
    // A fifth of the latency is worth four failures at once, and one a second from then on.
    assert!((1..20).contains(&failed), "{failed} of 10,000");
}

#[test]
fn who_is_out_or_tried_is_left_out() {
    let mut fixture = fixture(&[1, 1, 1]);
    for n in [2, 3] {
        fixture.backend(n).load.succeeded(fixture.now, ms(n.into()));
    }
    assert!((0..99).all(|_| fixture.pick_without(&[1, 2]) == 3));
    for n in [1, 2] {
        fixture.backend(n).set_down(Reason::CheckTimeout);
    }
    assert!(fixture.picks(99).iter().all(|n| *n == 3));
    fixture.backend(3).set_down(Reason::CheckTimeout);
    assert_eq!(fixture.count(300).len(), 3, "panic");
}

#[test]
fn a_due_trial_is_made_whatever_it_was_like() {
    let mut fixture = fixture(&[1, 1]);
    let ejected = fixture.backend(1);
    ejected.load.failed(Millis(1), ms(0));
    ejected.load.succeeded(Millis(1), ms(60_000));
    fixture.backend(2).load.succeeded(Millis(1), ms(1));
    ejected.eject(Millis(5), Reason::Failures);
    assert_eq!(fixture.pick(), 2);
    fixture.now = Millis(5);
    assert_eq!(fixture.pick(), 1);
    assert_eq!(fixture.pick(), 2, "one at a time");
}
