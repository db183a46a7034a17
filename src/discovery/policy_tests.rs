//! One row per rule of the answer → action table, and the property that any sequence of answers
//! converges on the last one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn one(n: u8, priority: u16, weight: u16) -> Discovered {
    Discovered {
        endpoint: Endpoint {
            target: format!("b{n}").into(),
            address: [10, 0, 0, n].into(),
            port: 80,
        },
        priority,
        weight,
        split: 1,
    }
}

fn socket(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

/// What is fed to the policy.
#[derive(Debug, Clone)]
enum Step {
    /// These members, each with priority 0 and weight 1.
    Set(&'static [u8]),
    /// Members that wait besides those.
    Waiting(&'static [u8]),
    Weighted(u8, u16, u16),
    Nothing,
    Declined,
    Failed,
    ConnectFailed(u8),
    /// The next answers come after the TTL of the last one ran out, or before.
    Fresh,
    Cached,
    Repeat(&'static [u8]),
}

struct Bench {
    policy: Policy,
    now: Instant,
    step: Duration,
    failing: HashSet<SocketAddr>,
    events: Vec<Event>,
}

impl Bench {
    fn new(absent_after: u8, shrink_guard: u8) -> Bench {
        Bench {
            policy: Policy::new(Settings {
                absent_after,
                shrink_guard,
            }),
            now: Instant::now(),
            step: TTL,
            failing: HashSet::new(),
            events: Vec::new(),
        }
    }

    fn answer(&mut self, answer: Answer, repeated: bool) {
        if !repeated {
            self.now += self.step;
        }
        let facts = Facts {
            now: self.now,
            believed_for: TTL,
            repeated,
            failing: &self.failing,
        };
        let outcome = self.policy.answered(answer, facts);
        self.events.extend(outcome.events);
    }

    fn feed(&mut self, step: &Step) {
        let of = |members: &[u8], waiting| Answer::Endpoints {
            set: members.iter().map(|n| one(*n, 0, 1)).collect(),
            waiting,
        };
        match step {
            Step::Set(members) => self.answer(of(members, false), false),
            Step::Waiting(members) => self.answer(of(members, true), false),
            Step::Repeat(members) => self.answer(of(members, false), true),
            Step::Weighted(n, priority, weight) => {
                let set = vec![one(*n, *priority, *weight)];
                let waiting = false;
                self.answer(Answer::Endpoints { set, waiting }, false);
            }
            Step::Nothing => self.answer(Answer::Nothing, false),
            Step::Declined => self.answer(Answer::Declined, false),
            Step::Failed => {
                self.now += self.step;
                let outcome = self.policy.failed("SERVFAIL", self.now);
                self.events.extend(outcome.events);
            }
            Step::ConnectFailed(n) => {
                self.failing.insert(socket(*n));
                let outcome = self.policy.connect_failed(socket(*n));
                self.events.extend(outcome.events);
            }
            Step::Fresh => self.step = TTL,
            Step::Cached => self.step = TTL / 10,
        }
    }

    /// `-` for pending, `0` for absent, else the members.
    fn offered(&self) -> String {
        match self.policy.offer() {
            Offer::Pending => "-".to_owned(),
            Offer::Absent => "0".to_owned(),
            Offer::Endpoints(endpoints) => {
                let last = |d: &Discovered| match d.endpoint.address {
                    std::net::IpAddr::V4(v4) => v4.octets()[3].to_string(),
                    std::net::IpAddr::V6(_) => unreachable!(),
                };
                endpoints.iter().map(last).collect()
            }
        }
    }
}

#[test]
fn answer_to_action() {
    use Step::*;
    // Steps, each with what is offered after it.
    type Row<'a> = (&'a str, &'a [(Step, &'a str)]);
    let table: &[Row] = &[
        ("records are published", &[(Set(&[1, 2]), "12")]),
        (
            "additions take effect at once",
            &[(Set(&[1]), "1"), (Set(&[1, 2, 3, 4, 5]), "12345")],
        ),
        (
            "a removal of half takes effect at once",
            &[(Set(&[1, 2, 3, 4]), "1234"), (Set(&[1, 2]), "12")],
        ),
        (
            "a removal of more than half takes two in a row",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "they need not be the same",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (Set(&[2]), "2"),
            ],
        ),
        (
            "while it is held back, additions take effect",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[4]), "1234"),
                (Set(&[4, 5]), "45"),
            ],
        ),
        (
            "an answer in between that removes less starts over",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "the only one replaced: both, then the new one",
            &[(Set(&[1]), "1"), (Set(&[2]), "12"), (Set(&[2]), "2")],
        ),
        (
            "a confirmation from a cache does not count",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Cached, "123"),
                (Set(&[1]), "123"),
                (Set(&[1]), "123"),
                (Set(&[1]), "123"),
                (Fresh, "123"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "nor does the same answer looked at again",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (Repeat(&[1]), "123"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "the first of its kind counts even when it is looked at again",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Repeat(&[1]), "123"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "backends that fail do not count as working",
            &[
                (Set(&[1, 2, 3, 4]), "1234"),
                (ConnectFailed(3), "1234"),
                (ConnectFailed(4), "1234"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "all fail: nothing to guard",
            &[(Set(&[1]), "1"), (ConnectFailed(1), "1"), (Set(&[2]), "2")],
        ),
        (
            "a failed connect to a held backend ends the hold for it alone",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1]), "123"),
                (ConnectFailed(2), "13"),
                (ConnectFailed(1), "13"),
            ],
        ),
        (
            "one that failed before is not held at all",
            &[
                (Set(&[1, 2, 3, 4, 5]), "12345"),
                (ConnectFailed(5), "12345"),
                (Set(&[1]), "1234"),
            ],
        ),
        (
            "NXDOMAIN is believed after three in a row",
            &[
                (Set(&[1, 2]), "12"),
                (Nothing, "12"),
                (Nothing, "12"),
                (Nothing, "0"),
            ],
        ),
        (
            "an answer in between starts over",
            &[
                (Set(&[1, 2]), "12"),
                (Nothing, "12"),
                (Nothing, "12"),
                (Set(&[1, 2]), "12"),
                (Nothing, "12"),
                (Nothing, "12"),
            ],
        ),
        (
            "a failure in between does not: it is no answer",
            &[
                (Set(&[1, 2]), "12"),
                (Nothing, "12"),
                (Failed, "12"),
                (Nothing, "12"),
                (Failed, "12"),
                (Nothing, "0"),
            ],
        ),
        (
            "NXDOMAIN from a cache does not count",
            &[
                (Set(&[1]), "1"),
                (Cached, "1"),
                (Nothing, "1"),
                (Nothing, "1"),
                (Nothing, "1"),
                (Nothing, "1"),
            ],
        ),
        (
            "a failed connect during NXDOMAIN ends the hold, down to nobody",
            &[
                (Set(&[1, 2]), "12"),
                (Nothing, "12"),
                (ConnectFailed(1), "2"),
                (ConnectFailed(2), "0"),
            ],
        ),
        (
            "nobody to keep: NXDOMAIN is believed at once",
            &[(Nothing, "0")],
        ),
        (
            "and somebody at once after it",
            &[(Nothing, "0"), (Set(&[1]), "1")],
        ),
        (
            "`.` is believed at once",
            &[(Set(&[1, 2, 3]), "123"), (Declined, "0")],
        ),
        ("`.` at first", &[(Declined, "0")]),
        (
            "failures keep the last good set, however many",
            &[
                (Set(&[1, 2]), "12"),
                (Failed, "12"),
                (Failed, "12"),
                (Failed, "12"),
                (Failed, "12"),
            ],
        ),
        (
            "failures before any answer say nothing",
            &[(Failed, "-"), (Failed, "-")],
        ),
        (
            "no record of an answer can be used: guarded as a removal of all",
            &[(Set(&[1]), "1"), (Set(&[]), "1"), (Set(&[]), "0")],
        ),
        ("nothing usable at first", &[(Set(&[]), "0")]),
        (
            "targets that wait are no reason to hold the others",
            &[(Waiting(&[1]), "1"), (Set(&[1, 2]), "12")],
        ),
        (
            "only targets that wait: still pending",
            &[(Waiting(&[]), "-"), (Set(&[1]), "1")],
        ),
        (
            "only targets that wait: those of before stay",
            &[
                (Set(&[1, 2]), "12"),
                (Waiting(&[]), "12"),
                (Waiting(&[]), "12"),
                (Waiting(&[]), "12"),
                (ConnectFailed(1), "12"),
                (Set(&[3]), "23"),
                (Set(&[3]), "3"),
            ],
        ),
    ];
    for (rule, steps) in table {
        let mut bench = Bench::new(3, 2);
        for (n, (step, offered)) in steps.iter().enumerate() {
            bench.feed(step);
            assert_eq!(bench.offered(), *offered, "{rule}, step {n} {step:?}");
        }
    }
}

#[test]
fn guards_of_one_and_of_zero_believe_at_once() {
    for guard in [0, 1] {
        let mut bench = Bench::new(guard, guard);
        for (step, offered) in [
            (Step::Set(&[1, 2, 3]), "123"),
            (Step::Set(&[4]), "4"),
            (Step::Nothing, "0"),
        ] {
            bench.feed(&step);
            assert_eq!(bench.offered(), offered);
        }
    }
}

#[test]
fn weights_and_priorities_change_in_place() {
    let mut bench = Bench::new(3, 2);
    bench.feed(&Step::Weighted(1, 0, 30));
    bench.events.clear();
    bench.feed(&Step::Weighted(1, 10, 40));
    let Offer::Endpoints(endpoints) = bench.policy.offer() else {
        panic!();
    };
    assert_eq!((endpoints[0].priority, endpoints[0].weight), (10, 40));
    let expected = Event::Reweighted {
        endpoint: one(1, 0, 0).endpoint,
        from: (0, 30),
        to: (10, 40),
    };
    assert_eq!(bench.events, [expected]);
}

#[test]
fn stale_and_recovered_are_told_once() {
    let mut bench = Bench::new(3, 2);
    for _ in 0..3 {
        bench.feed(&Step::Set(&[1]));
        bench.feed(&Step::Failed);
        let since = bench.policy.stale_since().unwrap();
        bench.feed(&Step::Failed);
        assert_eq!(
            bench.policy.stale_since(),
            Some(since),
            "its age is that of the first"
        );
    }
    let count = |wanted: fn(&Event) -> bool| bench.events.iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, Event::Stale { .. })), 3);
    assert_eq!(count(|e| matches!(e, Event::Recovered { .. })), 2);
}

#[test]
fn an_old_answer_looked_at_again_is_no_sign_of_life() {
    let mut bench = Bench::new(3, 2);
    for step in [Step::Set(&[1]), Step::Failed, Step::Repeat(&[1, 2])] {
        bench.feed(&step);
    }
    assert_eq!(bench.offered(), "12");
    assert!(bench.policy.stale_since().is_some());
}

#[test]
fn each_step_of_a_hold_is_told_once() {
    let mut bench = Bench::new(3, 2);
    for step in [
        Step::Set(&[1]),
        Step::Nothing,
        Step::Cached,
        Step::Nothing,
        Step::Nothing,
    ] {
        bench.feed(&step);
    }
    let held = bench
        .events
        .iter()
        .filter(|e| matches!(e, Event::HeldBack { .. }));
    assert_eq!(held.count(), 1);
    assert!(bench.policy.confirmed_from().unwrap() > bench.now);
}

#[test]
fn many_changes_are_one_event() {
    let mut bench = Bench::new(3, 2);
    let set = |weight| (1..=100).map(|n| one(n, 0, weight)).collect();
    for weight in [1, 2] {
        let (set, waiting) = (set(weight), false);
        bench.answer(Answer::Endpoints { set, waiting }, false);
    }
    let many = |joined, reweighted| Event::Many {
        joined,
        left: 0,
        reweighted,
    };
    assert_eq!(bench.events, [many(100, 0), many(0, 100)]);
}

#[derive(Debug, Clone)]
enum Any {
    Answer(AnyAnswer),
    Failed,
    ConnectFailed(u8),
}

#[derive(Debug, Clone)]
enum AnyAnswer {
    Set(Vec<(u8, u16, u16)>),
    Nothing,
    Declined,
}

fn any_answer() -> impl Strategy<Value = AnyAnswer> {
    let member = (1..6u8, 0..3u16, 0..4u16);
    prop_oneof![
        5 => prop::collection::vec(member, 0..6).prop_map(AnyAnswer::Set),
        2 => Just(AnyAnswer::Nothing),
        1 => Just(AnyAnswer::Declined),
    ]
}

fn any_step() -> impl Strategy<Value = Any> {
    prop_oneof![
        5 => any_answer().prop_map(Any::Answer),
        2 => Just(Any::Failed),
        2 => (1..6u8).prop_map(Any::ConnectFailed),
    ]
}

fn plain(answer: &AnyAnswer) -> Answer {
    match answer {
        AnyAnswer::Nothing => Answer::Nothing,
        AnyAnswer::Declined => Answer::Declined,
        AnyAnswer::Set(members) => {
            let unique: BTreeMap<_, _> = members.iter().map(|m| (m.0, (m.1, m.2))).collect();
            Answer::Endpoints {
                set: unique.iter().map(|(n, (p, w))| one(*n, *p, *w)).collect(),
                waiting: false,
            }
        }
    }
}

proptest! {
    /// No slots, no state that sticks: whatever happened, the last answer, given as often as the
    /// guards ask for, is what is offered.
    #[test]
    fn any_sequence_converges_on_the_last_answer(
        steps in prop::collection::vec(any_step(), 0..20),
        last in any_answer(),
        (absent_after, shrink_guard) in (0..5u8, 0..4u8),
    ) {
        let mut bench = Bench::new(absent_after, shrink_guard);
        for step in &steps {
            match step {
                Any::Answer(answer) => bench.answer(plain(answer), false),
                Any::Failed => bench.feed(&Step::Failed),
                Any::ConnectFailed(n) => bench.feed(&Step::ConnectFailed(*n)),
            }
        }
        for _ in 0..absent_after.max(shrink_guard).max(1) {
            bench.answer(plain(&last), false);
        }
        let expected = match plain(&last) {
            Answer::Endpoints { mut set, .. } if !set.is_empty() => {
                set.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
                Offer::Endpoints(set.into())
            }
            _ => Offer::Absent,
        };
        prop_assert_eq!(bench.policy.offer(), expected);
        prop_assert_eq!(bench.policy.hold(), None);
    }

    /// A guard never holds back anything but removals.
    #[test]
    fn what_an_answer_lists_is_offered_as_it_lists_it(
        steps in prop::collection::vec(any_answer(), 1..20),
    ) {
        let mut bench = Bench::new(3, 2);
        for step in &steps {
            let answer = plain(step);
            bench.answer(answer.clone(), false);
            let Answer::Endpoints { set, .. } = answer else { continue };
            let offered = match bench.policy.offer() {
                Offer::Endpoints(endpoints) => endpoints.to_vec(),
                _ => Vec::new(),
            };
            for listed in set {
                prop_assert!(offered.contains(&listed));
            }
        }
    }

    /// What the events tell adds up to what is offered.
    #[test]
    fn the_journal_tells_the_whole_story(steps in prop::collection::vec(any_step(), 0..30)) {
        let mut bench = Bench::new(3, 2);
        for step in &steps {
            match step {
                Any::Answer(answer) => bench.answer(plain(answer), false),
                Any::Failed => bench.feed(&Step::Failed),
                Any::ConnectFailed(n) => bench.feed(&Step::ConnectFailed(*n)),
            }
        }
        let mut told = BTreeSet::new();
        for event in &bench.events {
            match event {
                Event::Joined { endpoint, .. } => prop_assert!(told.insert(endpoint.clone())),
                Event::Left { endpoint, .. } => prop_assert!(told.remove(endpoint)),
                _ => {}
            }
        }
        let offered: BTreeSet<_> = match bench.policy.offer() {
            Offer::Endpoints(endpoints) => endpoints.iter().map(|d| d.endpoint.clone()).collect(),
            _ => BTreeSet::new(),
        };
        prop_assert_eq!(told, offered);
    }
}
