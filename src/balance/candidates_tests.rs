use super::*;
use crate::balance::shares::{Weight, strides};
use crate::balance::testing::endpoint;
use crate::upstream::backend::BackendId;
use crate::upstream::standing::Reason;

/// `b1`, `b2`, … with these weights.
fn candidates(weights: &[u16]) -> (Candidates, Vec<Arc<Backend>>) {
    let member = |(&weight, number)| Member {
        backend: Backend::new(BackendId::unused(), "web".into(), endpoint(number)),
        weight,
        recorded: weight,
        overridden: false,
        split: 1,
    };
    let members: Vec<_> = weights.iter().zip(1..).map(member).collect();
    let weights: Vec<_> = weights
        .iter()
        .map(|&weight| Weight { weight, split: 1 })
        .collect();
    let mut candidates = Candidates::new(7, Duration::from_secs(10));
    candidates.rebuild(&members, &strides(&weights));
    (candidates, members.into_iter().map(|m| m.backend).collect())
}

const NOW: Millis = Millis(60_000);

/// How often each is drawn of `draws`, as parts of all.
fn parts(
    candidates: &mut Candidates,
    draws: usize,
    mut draw: impl FnMut(&mut Candidates) -> usize,
) -> Vec<f64> {
    let mut counts = vec![0; candidates.len()];
    for _ in 0..draws {
        counts[draw(candidates)] += 1;
    }
    counts
        .into_iter()
        .map(|n: usize| n as f64 / draws as f64)
        .collect()
}

fn assert_near(got: &[f64], expected: &[f64]) {
    for (got_one, expected_one) in got.iter().zip(expected) {
        // Five standard deviations of 100,000 draws.
        let off = (got_one - expected_one).abs();
        assert!(off < 0.008, "{got:?} for {expected:?}");
    }
}

#[test]
fn draws_by_rule() {
    type Change = fn(&[Arc<Backend>]);
    type Row<'a> = (&'a str, Change, Option<usize>, &'a [f64]);
    let rows: &[Row<'_>] = &[
        ("by weight", |_| {}, None, &[0.5, 0.3, 0.2]),
        ("but one", |_| {}, Some(0), &[0.0, 0.6, 0.4]),
        (
            "who is out is not drawn, the others by weight",
            |all| all[1].set_down(Reason::CheckTimeout),
            None,
            &[5.0 / 7.0, 0.0, 2.0 / 7.0],
        ),
        (
            "who rises has a part of its share",
            |all| all[0].rise(Some(Millis(NOW.0 - 2_000))),
            None,
            &[0.1 / 0.6, 0.5, 0.2 / 0.6],
        ),
    ];
    for (rule, change, but, expected) in rows {
        let (mut candidates, backends) = candidates(&[50, 30, 20]);
        change(&backends);
        let wish = Wish::at(NOW);
        let quick = parts(&mut candidates, 100_000, |c| {
            c.draw(wish, *but).expect("somebody")
        });
        println!("{rule}");
        assert_near(&quick, expected);
        let slow = parts(&mut candidates, 100_000, |c| {
            c.draw_among_all(wish, *but).expect("somebody")
        });
        assert_near(&slow, expected);
    }
}

#[test]
fn the_last_one_is_found() {
    let (mut candidates, backends) = candidates(&[100; 1_000]);
    for backend in &backends[1..] {
        backend.set_down(Reason::CheckTimeout);
    }
    assert_eq!(candidates.draw(Wish::at(NOW), None), Ok(0));
    let excluded = [backends[0].id];
    let wish = Wish {
        excluded: &excluded,
        ..Wish::at(NOW)
    };
    assert_eq!(candidates.draw(wish, None), Err(Missed::Nobody));
    assert_eq!(
        candidates.draw(Wish::at(NOW), None),
        Ok(0),
        "that one was tried says nothing of who is out"
    );
}

#[test]
fn all_out_are_left_alone_for_a_tenth_of_a_second() {
    let (mut candidates, backends) = candidates(&[1, 1]);
    for backend in &backends {
        backend.set_down(Reason::CheckTimeout);
    }
    assert!(candidates.draw(Wish::at(NOW), None).is_err());
    backends[1].set_down(Reason::None);
    assert!(
        candidates
            .draw(Wish::at(NOW.after(LOOK_AGAIN)), None)
            .is_ok()
    );
}

#[test]
fn nobody_is_nobody() {
    let (mut candidates, _) = candidates(&[]);
    let wish = Wish::at(NOW);
    assert_eq!(candidates.draw(wish, None), Err(Missed::Nobody));
    assert_eq!(candidates.pick_out(wish).err(), Some(Missed::Nobody));
    assert_eq!(candidates.claim_any(wish).err(), Some(Missed::Nobody));
}
