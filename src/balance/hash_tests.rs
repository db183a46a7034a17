use super::*;
use crate::balance::testing::{Fixture, endpoint, number, tier, tiers};
use crate::config::Strategy;
use crate::upstream::standing::Reason;

const KEYS: u64 = 100_000;

fn fixture(weights: &[u16]) -> Fixture {
    Fixture::new(&tier(weights), Strategy::Hash, 3)
}

fn nth(n: u64) -> u64 {
    key([&n.to_be_bytes()[..]])
}

fn pick(fixture: &mut Fixture, key: u64, excluded: &[crate::upstream::backend::BackendId]) -> u32 {
    let wish = Wish {
        key: Some(key),
        excluded,
        ..Wish::at(fixture.now)
    };
    let pick = fixture.picker.pick(wish).expect("somebody");
    number(pick.backend())
}

/// Who has each key.
fn owners(fixture: &mut Fixture) -> Vec<u32> {
    (0..KEYS).map(|n| pick(fixture, nth(n), &[])).collect()
}

fn moved(before: &[u32], after: &[u32]) -> Vec<(u32, u32)> {
    let pairs = before.iter().zip(after);
    pairs
        .filter(|(before, after)| before != after)
        .map(|(before, after)| (*before, *after))
        .collect()
}

/// Written down once: another hash would have every key of every replica move.
#[test]
fn hashes_are_what_they_were() {
    assert_eq!(key([&b""[..]]), scramble(0xcbf2_9ce4_8422_2325));
    assert_eq!(fnv(FNV_BASIS, b"a"), 0xaf63_dc4c_8601_ec8c, "FNV's own");
    assert_eq!(
        fnv(FNV_BASIS, b"foobar"),
        0x8594_4171_f739_67e8,
        "FNV's own"
    );
    assert_eq!(key([&b"foo"[..], b"bar"]), key([&b"foobar"[..]]));
    let b1 = endpoint(1);
    assert_eq!(
        node(&b1),
        key([&b"b000001\0"[..], &[10, 0, 0, 1], &[0, 80]])
    );
    let mut fixture = fixture(&[5, 3, 1]);
    let owners: Vec<u32> = (0..12).map(|n| pick(&mut fixture, nth(n), &[])).collect();
    assert_eq!(owners, [1, 1, 2, 2, 2, 1, 1, 3, 2, 1, 1, 2]);
}

#[test]
fn the_logarithm_is_one() {
    for hash in (0..200_000).map(scramble).chain([0, u64::MAX]) {
        let u = ((hash >> 12) as f64 + 0.5) / 2_f64.powi(52);
        let (got, expected) = (minus_ln(hash), -u.ln());
        assert!((got - expected).abs() < 1e-11, "{u}: {got} for {expected}");
    }
}

#[test]
fn shares_by_weight() {
    let weights = [50, 20, 10, 10, 5, 5];
    let owners = owners(&mut fixture(&weights));
    for (weight, number) in weights.into_iter().zip(1..) {
        let got = owners.iter().filter(|n| **n == number).count() as f64 / KEYS as f64;
        let expected = f64::from(weight) / 100.0;
        assert!(
            (got - expected).abs() < 0.02 * expected.max(0.2),
            "{number}: {got}"
        );
    }
}

#[test]
fn one_of_ten_goes_and_takes_its_keys_only() {
    let mut fixture = fixture(&[10; 10]);
    let before = owners(&mut fixture);
    let nine: Vec<_> = (1..=10).filter(|n| *n != 4).map(|n| (n, 0, 10)).collect();
    fixture.apply(&tiers(&nine));
    let after = owners(&mut fixture);
    let gone = moved(&before, &after);
    println!("removing 1 of 10 moves {} of {KEYS} keys", gone.len());
    assert!(gone.iter().all(|(before, _)| *before == 4));
    assert!((gone.len() as f64) < (0.1 + 0.02) * KEYS as f64);
    // Nobody gets all of them.
    let most = (1..=10).map(|n| gone.iter().filter(|(_, after)| *after == n).count());
    assert!(most.max().expect("ten") < gone.len() / 6);
    // It comes back, and has them again.
    fixture.apply(&tier(&[10; 10]));
    assert_eq!(owners(&mut fixture), before);
}

#[test]
fn one_more_takes_its_part_only() {
    let mut fixture = fixture(&[10; 9]);
    let before = owners(&mut fixture);
    fixture.apply(&tier(&[10; 10]));
    let taken = moved(&before, &owners(&mut fixture));
    println!("adding 1 to 9 moves {} of {KEYS} keys", taken.len());
    assert!(taken.iter().all(|(_, after)| *after == 10));
    assert!((taken.len() as f64) < (0.1 + 0.02) * KEYS as f64);
}

#[test]
fn weights_in_another_proportion_move_little_and_in_the_same_nothing() {
    let mut fixture = fixture(&[5, 4, 3, 2, 1]);
    let before = owners(&mut fixture);
    fixture.apply(&tier(&[35, 28, 21, 14, 7]));
    assert_eq!(moved(&before, &owners(&mut fixture)), []);
    fixture.apply(&tier(&[35, 28, 21, 14, 14]));
    let taken = moved(&before, &owners(&mut fixture));
    assert!(taken.iter().all(|(_, after)| *after == 5));
}

#[test]
fn keys_of_one_that_is_out_or_tried_go_elsewhere_and_return() {
    let mut fixture = fixture(&[10; 5]);
    let before = owners(&mut fixture);
    fixture.backend(2).set_down(Reason::CheckTimeout);
    let meanwhile = owners(&mut fixture);
    let gone = moved(&before, &meanwhile);
    assert!(
        gone.iter()
            .all(|(before, after)| *before == 2 && *after != 2)
    );
    assert!(meanwhile.iter().all(|owner| *owner != 2));
    fixture.backend(2).set_down(Reason::None);
    assert_eq!(owners(&mut fixture), before);
    let tried = [fixture.backend(2).id];
    for n in 0..1_000 {
        assert_eq!(pick(&mut fixture, nth(n), &tried), meanwhile[n as usize]);
    }
}

#[test]
fn nobody_has_more_than_its_bound() {
    let weights = [40, 30, 20, 10];
    let mut fixture = fixture(&weights);
    // One key has half of all requests.
    let mut under_way = Vec::new();
    let mut strayed = 0;
    let hot = pick(&mut fixture, nth(0), &[]);
    for n in 0..2_000 {
        let key = nth(if n % 2 == 0 { 0 } else { n });
        let wish = Wish {
            key: Some(key),
            ..Wish::at(fixture.now)
        };
        let pick = fixture.picker.pick(wish).expect("somebody");
        strayed += u32::from(n % 2 == 0 && number(pick.backend()) != hot);
        under_way.push(pick);
        for (weight, number) in weights.into_iter().zip(1..) {
            let held = f64::from(fixture.backend(number).in_flight());
            let bound = (1.25 * f64::from(weight) / 100.0 * under_way.len() as f64 - 1e-6)
                .ceil()
                .max(FEW);
            assert!(held <= bound, "b{number} has {held} of at most {bound}");
        }
    }
    println!("{strayed} of 1000 requests of the hot key went to another");
    assert!(strayed > 0);
    drop(under_way);
    assert_eq!(pick(&mut fixture, nth(0), &[]), hot, "it comes back");
}

#[test]
fn without_a_key_by_weight() {
    let counts = fixture(&[3, 2, 1]).count(600);
    let counts: Vec<_> = counts.into_iter().collect();
    assert_eq!(counts, [(1, 300), (2, 200), (3, 100)]);
}

#[test]
fn a_key_has_its_backend_even_if_nobody_can_serve() {
    let mut fixture = fixture(&[10; 5]);
    let before = owners(&mut fixture);
    for n in 1..=5 {
        fixture.backend(n).set_down(Reason::CheckTimeout);
    }
    for n in 0..1_000 {
        assert_eq!(pick(&mut fixture, nth(n), &[]), before[n as usize]);
    }
}

#[test]
fn a_few_at_once_stay_together() {
    let mut fixture = fixture(&[10; 5]);
    let wish = Wish {
        key: Some(nth(0)),
        ..Wish::at(fixture.now)
    };
    let picks: Vec<_> = (0..5)
        .map(|_| fixture.picker.pick(wish).expect("somebody"))
        .collect();
    let at: Vec<_> = picks.iter().map(|pick| number(pick.backend())).collect();
    assert!(at[..4].iter().all(|n| *n == at[0]), "{at:?}");
    assert_ne!(at[4], at[0], "{at:?}");
}
