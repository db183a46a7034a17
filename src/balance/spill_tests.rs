use std::collections::BTreeMap;

use super::*;
use crate::balance::picker::Picker;
use crate::balance::service::Service;
use crate::balance::testing::{endpoint, number, tiers};
use crate::balance::wish::Wish;
use crate::config::Strategy;
use crate::upstream::standing::Reason;

#[test]
fn shared_out_by_rule() {
    type Row<'a> = (&'a str, &'a [f64], &'a [f64]);
    let rows: &[Row<'_>] = &[
        ("the first can take all", &[1.0, 1.0], &[1.0, 0.0]),
        ("the second takes the rest", &[0.7, 1.0], &[0.7, 0.3]),
        (
            "and the third what that leaves",
            &[0.5, 0.2, 1.0],
            &[0.5, 0.2, 0.3],
        ),
        ("too little in all: in proportion", &[0.2, 0.2], &[0.5, 0.5]),
        ("one that is gone", &[0.0, 0.4], &[0.0, 1.0]),
        ("nobody", &[0.0, 0.0], &[0.0, 0.0]),
    ];
    for (rule, can_take, expected) in rows {
        let lot = |part: &f64| Lot {
            part: *part,
            ..Lot::default()
        };
        let mut lots: Vec<_> = can_take.iter().map(lot).collect();
        share_out(&mut lots);
        for (lot, expected) in lots.iter().zip(*expected) {
            assert!((lot.part - expected).abs() < 1e-12, "{rule}: {lots:?}");
        }
    }
}

/// Ten of the first tier (`b1` to `b10`) and two of the next.
struct Fixture {
    service: Service,
    picker: Picker,
    now: Millis,
}

impl Fixture {
    fn new(balancing: &Balancing) -> Fixture {
        let mut service = Service::new("web".into());
        let records: Vec<_> = (1..=12)
            .map(|n| (n, if n <= 10 { 0 } else { 5 }, 10))
            .collect();
        let now = Millis(1_000);
        service.apply_at(&tiers(&records), now);
        let picker = Picker::new(service.snapshot().reader(), balancing, 7);
        Fixture {
            service,
            picker,
            now,
        }
    }

    fn each(
        &self,
        numbers: std::ops::RangeInclusive<u32>,
        change: impl Fn(&crate::upstream::backend::Backend),
    ) {
        let snapshot = self.service.snapshot().load();
        for n in numbers {
            let backend = snapshot.backends().find(|b| b.endpoint == endpoint(n));
            change(backend.expect("it is listed"));
        }
    }

    fn down(&mut self, numbers: std::ops::RangeInclusive<u32>) {
        self.each(numbers, |b| b.set_down(Reason::CheckTimeout));
        self.now = self.now.after(FRESH);
    }

    /// How many of so many picks each tier gets.
    fn count(&mut self, picks: usize) -> [usize; 2] {
        let mut counts = BTreeMap::new();
        for _ in 0..picks {
            let pick = self.picker.pick(Wish::at(self.now)).expect("somebody");
            assert_eq!(number(pick.backend()) > 10, pick.priority == 5);
            *counts.entry(pick.priority).or_insert(0) += 1;
        }
        [0, 5].map(|priority| counts.get(&priority).copied().unwrap_or(0))
    }
}

fn spilling(factor: f64) -> Balancing {
    Balancing {
        spill: Some(factor),
        ..Balancing::default()
    }
}

#[test]
fn the_overflow_goes_to_the_next_tier() {
    let mut fixture = Fixture::new(&spilling(1.4));
    assert_eq!(fixture.count(1_000), [1_000, 0]);
    fixture.down(1..=2);
    assert_eq!(fixture.count(1_000), [1_000, 0], "0.8 × 1.4 is enough");
    fixture.down(3..=5);
    let [first, next] = fixture.count(1_000);
    assert!(
        first.abs_diff(700) <= 1 && next.abs_diff(300) <= 1,
        "{first} and {next}"
    );
    // Not by luck: every ten have their seven.
    for _ in 0..20 {
        let [first, _] = fixture.count(10);
        assert!((6..=8).contains(&first), "{first} of ten");
    }
    fixture.down(6..=10);
    assert_eq!(fixture.count(100), [0, 100]);
    fixture.down(11..=12);
    assert_eq!(fixture.count(100), [100, 0], "panic: the first tier");
}

#[test]
fn strict_unless_told_otherwise() {
    let mut fixture = Fixture::new(&Balancing::default());
    fixture.down(1..=9);
    assert_eq!(fixture.count(100), [100, 0]);
}

#[test]
fn every_strategy_spills() {
    for strategy in [
        Strategy::Weighted,
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::Random,
        Strategy::TwoChoices,
        Strategy::Hash,
    ] {
        let mut fixture = Fixture::new(&Balancing {
            strategy,
            ..spilling(1.0)
        });
        fixture.down(1..=5);
        let [first, next] = fixture.count(1_000);
        assert!(
            first.abs_diff(next) <= 2,
            "{strategy:?}: {first} and {next}"
        );
        fixture.down(6..=10);
        assert_eq!(fixture.count(100), [0, 100], "{strategy:?}");
        fixture.down(11..=12);
        assert_eq!(fixture.count(100), [100, 0], "{strategy:?}: panic");
    }
}

#[test]
fn a_tier_that_comes_back_as_a_whole_rises_beside_its_standby() {
    let mut fixture = Fixture::new(&Balancing {
        slow_start: Duration::from_secs(10),
        ..Balancing::default()
    });
    fixture.down(1..=10);
    assert_eq!(fixture.count(100), [0, 100]);
    let back = fixture.now;
    fixture.each(1..=10, |b| {
        b.set_down(Reason::None);
        b.rise(Some(back));
    });
    for (after, expected) in [(1_000, 100), (3_000, 300), (9_000, 900), (10_000, 1_000)] {
        fixture.now = back.after(Duration::from_millis(after));
        let [first, _] = fixture.count(1_000);
        assert!(first.abs_diff(expected) <= 1, "{after} ms: {first}");
    }
    // One that is whole is enough for all.
    fixture.each(1..=9, |b| b.rise(Some(fixture.now)));
    fixture.now = fixture.now.after(FRESH);
    assert_eq!(fixture.count(100), [100, 0]);
    // And without a standby everybody has to.
    fixture.each(10..=10, |b| b.rise(Some(fixture.now)));
    fixture.down(11..=12);
    assert_eq!(fixture.count(100), [100, 0]);
}

#[test]
fn whoever_was_tried_in_the_next_tier_is_replaced_in_the_first() {
    let mut fixture = Fixture::new(&spilling(1.0));
    fixture.down(1..=9);
    let snapshot = fixture.service.snapshot().load();
    let tried: Vec<_> = snapshot.tiers[1]
        .members
        .iter()
        .map(|m| m.backend.id)
        .collect();
    for _ in 0..100 {
        let wish = Wish {
            excluded: &tried,
            ..Wish::at(fixture.now)
        };
        let pick = fixture.picker.pick(wish).expect("b10");
        assert_eq!(number(pick.backend()), 10);
    }
}
