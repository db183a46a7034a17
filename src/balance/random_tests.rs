use crate::balance::testing::{Fixture, tier, tiers};
use crate::config::Strategy;
use crate::upstream::standing::Reason;

fn fixture(weights: &[u16]) -> Fixture {
    Fixture::new(&tier(weights), Strategy::Random, 3)
}

#[test]
fn shares_are_probabilities() {
    let counts = fixture(&[60, 30, 10]).count(100_000);
    for (number, expected) in [(1, 60_000), (2, 30_000), (3, 10_000)] {
        // Five standard deviations.
        let off = counts[&number].abs_diff(expected);
        assert!(off < 800, "{counts:?}");
    }
}

#[test]
fn tried_ones_and_those_out_are_left_out() {
    let mut fixture = fixture(&[60, 30, 10]);
    fixture.backend(2).set_down(Reason::CheckTimeout);
    for _ in 0..1_000 {
        assert_eq!(fixture.pick_without(&[1]), 3);
    }
}

#[test]
fn the_next_tier_serves_where_all_are_out_and_the_first_where_nobody_can() {
    let records = tiers(&[(1, 0, 1), (2, 0, 1), (3, 9, 1)]);
    let mut fixture = Fixture::new(&records, Strategy::Random, 3);
    for number in [1, 2] {
        fixture.backend(number).set_down(Reason::CheckTimeout);
    }
    assert!(fixture.picks(100).iter().all(|n| *n == 3));
    fixture.backend(3).set_down(Reason::CheckTimeout);
    assert!(fixture.picks(100).iter().all(|n| *n < 3), "panic");
}
