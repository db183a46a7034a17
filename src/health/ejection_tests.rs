use proptest::prelude::{Just, any, prop};
use proptest::strategy::Strategy as _;
use proptest::{prop_assert, prop_oneof, proptest};

use super::*;
use crate::balance::service::Service;
use crate::discovery::{Discovered, Endpoint, Offer};
use crate::upstream::backend::Trial;

/// A service with backends at these priorities, and its judge.
struct Court {
    service: Service,
    ejector: Ejector,
    now: Millis,
}

impl Court {
    fn new(priorities: &[u16], rules: EjectionRules) -> Court {
        let mut court = Court {
            service: Service::new("web".into()),
            ejector: Ejector::new(rules, Millis(1)),
            now: Millis(1),
        };
        court.list(priorities);
        court
    }

    fn list(&mut self, priorities: &[u16]) {
        let all = priorities
            .iter()
            .zip(1..)
            .map(|(&priority, port)| Discovered {
                endpoint: Endpoint {
                    target: "b".into(),
                    address: [10, 0, 0, 1].into(),
                    port,
                },
                priority,
                weight: 1,
                split: 1,
            });
        self.service
            .apply_at(&Offer::Endpoints(all.collect()), self.now);
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.service.snapshot().load()
    }

    /// By its place in the list.
    fn backend(&self, index: usize) -> Arc<Backend> {
        let port = index as u16 + 1;
        let snapshot = self.snapshot();
        let found = snapshot.backends().find(|b| b.endpoint.port == port);
        Arc::clone(found.expect("it is listed"))
    }

    fn failing(&mut self, index: usize) -> Option<What> {
        let (snapshot, id) = (self.snapshot(), self.backend(index).id.0);
        let ruling = self.ejector.failing(self.now, &snapshot, id);
        ruling.map(|ruling| ruling.what)
    }

    fn trial(&mut self, index: usize, passed: bool) -> Option<What> {
        let (snapshot, id) = (self.snapshot(), self.backend(index).id.0);
        let ruling = self.ejector.trial(self.now, &snapshot, id, passed);
        ruling.map(|ruling| ruling.what)
    }

    /// Lets time pass, a second at a time.
    fn pass(&mut self, seconds: u64) -> Vec<What> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            self.now = self.now.after(Duration::from_secs(1));
            let snapshot = self.snapshot();
            let rulings = self.ejector.tick(self.now, &snapshot);
            all.extend(rulings.into_iter().map(|ruling| ruling.what));
        }
        all
    }

    /// Wins the trial of a backend.
    fn try_it(&self, index: usize) -> bool {
        let claim = self.backend(index).claim(self.now, Trial::Welcome);
        claim.is_ok_and(|claim| claim.trial)
    }

    fn out(&self) -> Vec<usize> {
        let count = self.snapshot().backends().count();
        let out = |index: &usize| self.backend(*index).ejection() != Ejection::None;
        (0..count).filter(out).collect()
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ejected_for(seconds: u64) -> Option<What> {
    Some(What::Ejected(Reason::Failures, s(seconds)))
}

#[test]
fn out_for_10_s_doubling_to_300_s_and_back_by_a_trial() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    assert_eq!(court.failing(0), ejected_for(10));
    for expected in [20, 40, 80, 160, 300, 300] {
        court.pass(300);
        assert!(court.try_it(0));
        assert_eq!(court.trial(0, false), Some(What::TrialFailed(s(expected))));
    }
    court.pass(300);
    assert!(court.try_it(0));
    assert_eq!(court.trial(0, true), Some(What::Back));
    assert!(court.out().is_empty());
}

#[test]
fn before_its_time_nobody_tries() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    court.failing(0);
    court.pass(9);
    assert!(!court.try_it(0));
    court.pass(1);
    assert!(court.try_it(0));
    assert!(!court.try_it(0), "one at a time");
}

#[test]
fn an_ejection_is_forgotten_after_as_long_as_it_was() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    court.failing(0);
    court.pass(10);
    assert!(court.try_it(0));
    court.trial(0, true);
    court.pass(9);
    assert_eq!(court.failing(0), ejected_for(20), "too soon");
    court.pass(20);
    assert!(court.try_it(0));
    court.trial(0, true);
    court.pass(40);
    assert_eq!(court.failing(0), ejected_for(10));
}

#[test]
fn bounds_of_a_tier() {
    for (rule, priorities, failing, expected) in [
        ("the only one stays", &[0][..], &[0][..], &[][..]),
        ("one of two", &[0, 0], &[0, 1], &[0]),
        (
            "half of five, rounded down",
            &[0, 0, 0, 0, 0],
            &[0, 1, 2, 3],
            &[0, 1],
        ),
        ("a standby lets the only one go", &[0, 10], &[0], &[0]),
        ("the standby itself stays", &[0, 10], &[1], &[]),
        (
            "a standby lets a whole tier go",
            &[0, 0, 0, 10],
            &[0, 1, 2],
            &[0, 1, 2],
        ),
        ("and stays then", &[0, 0, 10], &[0, 1, 2], &[0, 1]),
        (
            "two standbys: one of them",
            &[0, 10, 10],
            &[0, 1, 2],
            &[0, 1],
        ),
        (
            "three tiers go one after the other",
            &[0, 10, 20],
            &[0, 1, 2],
            &[0, 1],
        ),
    ] {
        let mut court = Court::new(priorities, EjectionRules::default());
        for &index in failing {
            court.failing(index);
        }
        assert_eq!(court.out(), expected, "{rule}");
    }
}

#[test]
fn a_backend_that_is_down_is_nobody_who_could_serve() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    court.backend(1).set_down(Reason::CheckTimeout);
    assert_eq!(court.failing(0), None, "it is the last one that serves");
    let mut court = Court::new(&[0, 10], EjectionRules::default());
    court.backend(1).set_down(Reason::CheckTimeout);
    assert_eq!(court.failing(0), None, "the standby cannot serve");
}

#[test]
fn bounds_are_held_when_the_tiers_change() {
    let mut court = Court::new(&[0, 0, 0, 0, 10], EjectionRules::default());
    for index in 0..4 {
        court.failing(index);
    }
    court.list(&[0, 0, 0, 0]);
    assert_eq!(court.pass(1), [What::Released, What::Released]);
    assert_eq!(court.out().len(), 2);
    court.list(&[0, 0]);
    court.pass(1);
    assert!(court.out().len() <= 1);
}

#[test]
fn the_last_one_comes_back_when_the_others_go_down() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    court.failing(0);
    court.backend(1).set_down(Reason::CheckConnect);
    assert_eq!(court.pass(1), [What::Released]);
    assert!(court.out().is_empty());
}

#[test]
fn a_standby_that_nobody_needed_meanwhile_can_serve() {
    let mut court = Court::new(&[0, 10, 10], EjectionRules::default());
    court.failing(1);
    court.pass(60);
    court.backend(2).set_down(Reason::CheckConnect);
    assert_eq!(
        court.failing(0),
        ejected_for(10),
        "the standby is to be tried"
    );
}

#[test]
fn a_trial_that_fails_keeps_the_reason_of_the_ejection() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    court.failing(0);
    court.pass(10);
    assert!(court.try_it(0));
    court.backend(0).set_down(Reason::CheckTimeout);
    court.trial(0, false);
    court.backend(0).set_down(Reason::None);
    assert_eq!(court.backend(0).state(court.now).1, Reason::Failures);
}

#[test]
fn late_news_of_a_trial_says_nothing() {
    let mut court = Court::new(&[0, 0], EjectionRules::default());
    assert_eq!(court.trial(0, true), None, "it is not out");
    court.failing(0);
    assert_eq!(court.trial(0, true), None, "nobody has tried");
    assert_eq!(court.out(), [0]);
}

#[test]
fn success_rates_are_compared_with_the_others_of_the_tier() {
    // Successes and failures in a window, of each backend of one tier.
    for (rule, outcomes, expected) in [
        ("all alike", &[(90, 10), (90, 10), (90, 10)][..], &[][..]),
        ("one much worse", &[(60, 40), (100, 0), (100, 0)], &[0]),
        ("within the margin", &[(81, 19), (100, 0), (100, 0)], &[]),
        ("too few attempts", &[(0, 99), (1_000, 0)], &[]),
        ("nobody to compare with", &[(0, 500), (50, 0)], &[]),
        (
            "the worst one of two",
            &[(50, 50), (10, 90), (100, 0)],
            &[1],
        ),
        ("all fail alike", &[(0, 100), (0, 100)], &[]),
    ] {
        let mut court = Court::new(&vec![0; outcomes.len()], EjectionRules::default());
        for (index, &(successes, failures)) in outcomes.iter().enumerate() {
            let backend = court.backend(index);
            for _ in 0..failures {
                backend.failed();
            }
            (0..successes).for_each(|_| backend.succeeded());
        }
        court.pass(10);
        assert_eq!(court.out(), expected, "{rule}");
        court.pass(10);
        assert_eq!(
            court.out(),
            expected,
            "{rule}: what was seen is not seen again"
        );
    }
}

#[test]
fn rules_can_be_switched_off() {
    let rules = EjectionRules {
        success_rate: 0,
        ..EjectionRules::default()
    };
    let mut court = Court::new(&[0, 0, 0], rules);
    for _ in 0..500 {
        court.backend(0).failed();
    }
    (0..500).for_each(|_| court.backend(1).succeeded());
    court.pass(10);
    assert!(court.out().is_empty());
}

/// Something that happens to a service.
#[derive(Debug, Clone)]
enum Step {
    Failing(usize),
    Trial(usize, bool),
    Pass(u64),
    Down(usize, bool),
    List(Vec<u16>),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let index = 0usize..8;
    prop_oneof![
        4 => index.clone().prop_map(Step::Failing),
        2 => (index.clone(), any::<bool>()).prop_map(|(index, passed)| Step::Trial(index, passed)),
        2 => (1u64..40).prop_map(Step::Pass),
        1 => (index, any::<bool>()).prop_map(|(index, down)| Step::Down(index, down)),
        1 => prop::collection::vec(prop_oneof![Just(0), Just(10)], 1..8).prop_map(Step::List),
    ]
}

proptest! {
    /// Whatever happens: while no lower tier can serve, no more than half of a tier are out, and
    /// never all that could serve.
    #[test]
    fn the_ejected_share_never_passes_its_bound(
        priorities in prop::collection::vec(prop_oneof![Just(0), Just(10)], 1..8),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut court = Court::new(&priorities, EjectionRules::default());
        for step in steps {
            let count = court.snapshot().backends().count();
            // What the tiers look like changes by itself only between ticks.
            let outside = matches!(step, Step::Down(..) | Step::List(_));
            match step {
                Step::Failing(index) => {
                    court.failing(index % count);
                }
                Step::Trial(index, passed) => {
                    court.try_it(index % count);
                    court.trial(index % count, passed);
                }
                Step::Pass(seconds) => {
                    court.pass(seconds);
                }
                Step::Down(index, down) => court.backend(index % count).set_down(match down {
                    true => Reason::CheckTimeout,
                    false => Reason::None,
                }),
                Step::List(priorities) => court.list(&priorities),
            }
            if outside {
                court.pass(1);
            }
            let snapshot = court.snapshot();
            for (index, tier) in snapshot.tiers.iter().enumerate() {
                if lower_serves(court.now, &snapshot, index) {
                    continue;
                }
                let out = ejected(tier).count();
                prop_assert!(out * 2 <= tier.members.len(), "{} of {}", out, tier.members.len());
                let could = ejected(tier).filter(|b| b.down() == Reason::None).count();
                let serves = serving(court.now, tier).count();
                prop_assert!(could == 0 || serves > 0, "nobody is left");
            }
        }
    }
}
