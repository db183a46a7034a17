//! Claims, states and what a backend remembers.

use super::*;

fn backend() -> Arc<Backend> {
    let endpoint = Endpoint {
        target: "b1.test".into(),
        address: [127, 0, 0, 1].into(),
        port: 80,
    };
    Backend::new(BackendId::unused(), "web".into(), endpoint)
}

/// Fails `backend` at `now` and tells for how long it is passed over from then.
fn fail(backend: &Backend, now: Millis) -> u64 {
    backend.connect_failed(now);
    backend.passed_over_until(now).expect("it just failed").0 - now.0
}

#[test]
fn failures_double_the_wait_from_1_s_to_10_s() {
    let backend = backend();
    let mut now = Millis(5);
    for expected in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000] {
        assert_eq!(fail(&backend, now), expected);
        now = Millis(now.0 + expected);
        assert_eq!(backend.passed_over_until(now), None, "over at {now:?}");
    }
}

#[test]
fn failures_of_one_moment_count_once() {
    let backend = backend();
    for late in 0..50 {
        backend.connect_failed(Millis(100 + late));
    }
    assert_eq!(backend.passed_over_until(Millis(150)), Some(Millis(1_100)));
    assert_eq!(fail(&backend, Millis(1_100)), 2_000);
}

#[test]
fn failures_of_many_threads_at_one_moment_count_once() {
    let backend = backend();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    backend.connect_failed(Millis(7));
                }
            });
        }
    });
    assert_eq!(backend.passed_over_until(Millis(7)), Some(Millis(1_007)));
}

#[test]
fn a_connect_forgets_the_failures() {
    let backend = backend();
    fail(&backend, Millis(1));
    fail(&backend, Millis(1_001));
    backend.connected();
    assert_eq!(backend.passed_over_until(Millis(1_002)), None);
    assert_eq!(fail(&backend, Millis(1_002)), 1_000);
}

#[test]
fn in_flight_counts_guards() {
    let backend = backend();
    let first = backend.begin();
    let second = backend.begin();
    assert_eq!(backend.in_flight(), 2);
    drop(first);
    assert_eq!(second.backend().in_flight(), 1);
    drop(second);
    assert_eq!(backend.in_flight(), 0);
}

#[test]
fn identities_are_never_used_twice() {
    assert_ne!(BackendId::unused(), BackendId::unused());
}

#[test]
fn one_worker_wins_the_trial() {
    let backend = backend();
    backend.eject(Millis(100), Reason::Failures);
    let claim = |now| backend.claim(Millis(now), Trial::Welcome);
    assert_eq!(claim(99).err(), Some(Unavailable::Until(Millis(100))));
    let won = claim(100).expect("its time is over");
    assert!(won.trial);
    assert!(claim(100).is_err(), "one at a time");
    assert!(backend.look(Millis(100), Trial::Welcome).is_err());
    assert_eq!(backend.state(Millis(100)), (State::Trial, Reason::Failures));
    backend.trial_abandoned(Millis(101));
    assert!(claim(101).expect("nobody tries any more").trial);
    assert!(claim(10_100).is_err());
    assert!(claim(10_101).expect("nothing was heard of it").trial);
    backend.readmit();
    assert!(!claim(10_102).expect("it is back").trial);
}

#[test]
fn a_trial_is_left_to_what_can_be_repeated_for_a_while() {
    let backend = backend();
    backend.eject(Millis(100), Reason::Failures);
    let claim = |now, trial| backend.claim(Millis(now), trial);
    let look = |now, trial| backend.look(Millis(now), trial).is_ok();
    assert!(!look(99, Trial::Welcome) && look(100, Trial::Welcome));
    assert!(!look(1_099, Trial::Reluctant) && look(1_100, Trial::Reluctant));
    assert!(claim(1_099, Trial::Reluctant).is_err());
    assert!(
        claim(1_100, Trial::Reluctant)
            .expect("nothing better came")
            .trial
    );
}

#[test]
fn checks_keep_it_out_whatever_else_holds() {
    let backend = backend();
    backend.set_down(Reason::CheckTimeout);
    assert!(backend.claim(Millis(1 << 40), Trial::Welcome).is_err());
    assert_eq!(backend.state(Millis(1)).0, State::Down);
    assert!(
        backend.claim_anyway(Millis(1)).is_ok(),
        "nobody else is left"
    );
    backend.set_down(Reason::None);
    assert!(backend.claim(Millis(1), Trial::Welcome).is_ok());
}

#[test]
fn the_bound_holds_with_many_threads() {
    let gate = Gate::new(NonZeroU32::new(3), None, 9, Duration::from_secs(5));
    let endpoint = backend().endpoint.clone();
    let backend = Backend::limited(
        BackendId::unused(),
        "web".into(),
        endpoint,
        Layers::default(),
        Some(gate),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let claim = backend.claim(Millis(1), Trial::Welcome);
                    assert!(backend.in_flight() <= 3);
                    drop(claim);
                }
            });
        }
    });
    let all: Vec<_> = (0..4).map(|_| backend.claim_anyway(Millis(1))).collect();
    assert_eq!(all.iter().filter(|claim| claim.is_ok()).count(), 3);
    assert_eq!(all[3].as_ref().err(), Some(&Unavailable::Full));
    let look = backend.look(Millis(1), Trial::Welcome);
    assert_eq!(look, Err(Unavailable::Full));
}

#[test]
fn outcomes_are_counted_and_a_success_ends_a_row() {
    let backend = backend();
    assert_eq!([backend.failed(), backend.failed()], [1, 2]);
    backend.succeeded();
    assert_eq!(backend.failed(), 1);
    let (successes, failures) = (1, 3);
    assert_eq!(
        backend.outcomes(),
        Outcomes {
            successes,
            failures
        }
    );
}

#[test]
fn a_rising_share_grows_to_the_whole() {
    let backend = backend();
    let part = |now| backend.part(Millis(now), Duration::from_secs(10));
    assert_eq!(part(5), None);
    backend.rise(Some(Millis(1_000)));
    assert_eq!(part(1_000), Some(0.1));
    assert_eq!(part(6_000), Some(0.5));
    assert_eq!(part(11_000), None);
    backend.rise(None);
    assert_eq!(part(6_000), None);
}
