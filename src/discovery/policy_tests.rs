//! One row per rule of the answer → action table, and the property that any sequence of answers
//! converges on the last one.

use std::time::Duration;

use proptest::prelude::*;

use super::super::answers::{SrvRecord, Target};
use super::super::members::misses;
use super::super::rotation::CALM;
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

/// As an answer lists it.
fn as_member(discovered: &Discovered) -> (Member, Shown) {
    let Endpoint { target, port, .. } = &discovered.endpoint;
    let member = Member {
        target: Arc::clone(target),
        port: *port,
        address: None,
    };
    let record = SrvRecord {
        priority: discovered.priority,
        weight: discovered.weight,
        port: *port,
        target: Target::Host(Arc::clone(target)),
    };
    (member, Shown::Records(vec![record]))
}

/// And back, as its target has one address and keeps it.
fn as_endpoint((member, shown): (Member, Shown)) -> Discovered {
    let Shown::Records(records) = shown else {
        panic!("nothing here lists addresses");
    };
    let number = member.target[1..].parse().unwrap();
    one(number, records[0].priority, records[0].weight)
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
    /// Nobody fails to connect any more.
    Recovered,
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
                max_endpoints: 4096,
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
        let answer = match answer {
            Answer::Endpoints { mut set, waiting } => {
                let unlisted = self
                    .policy
                    .lists(set.iter().map(as_member).collect(), facts);
                set.extend(unlisted.into_iter().map(as_endpoint));
                Answer::Endpoints { set, waiting }
            }
            other => other,
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
            Step::Recovered => self.failing.clear(),
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
                (Set(&[1, 2, 3, 4, 5]), "12345"),
                (Set(&[1, 2]), "12345"),
                (Set(&[1]), "1"),
            ],
        ),
        (
            "but no others each time: those may be parts of a larger set",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[4, 5]), "12345"),
                (Set(&[1, 6]), "123456"),
                (Set(&[2, 6]), "123456"),
                (Set(&[2, 6]), "26"),
            ],
        ),
        (
            "the second answer of all may be a part as well",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1, 2, 4]), "1234"),
                (Set(&[1, 2, 4]), "124"),
            ],
        ),
        (
            "later ones are believed when half or less is replaced",
            &[
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1, 2, 3]), "123"),
                (Set(&[1, 2, 4]), "124"),
            ],
        ),
        (
            "answers that rotate: the union, from the first on",
            &[
                (Set(&[1, 2]), "12"),
                (Set(&[3, 4]), "1234"),
                (Set(&[1, 2]), "1234"),
                (Set(&[1, 3]), "1234"),
                (Set(&[2, 5]), "12345"),
                (Set(&[1, 4]), "12345"),
                (Set(&[1, 6]), "123456"),
            ],
        ),
        (
            "a failed connect evicts whom the last answer does not list, until it is listed",
            &[
                (Set(&[1, 2]), "12"),
                (Set(&[3, 4]), "1234"),
                (Set(&[1, 2]), "1234"),
                (Set(&[1, 3]), "1234"),
                (Set(&[2, 5]), "12345"),
                (ConnectFailed(1), "2345"),
                (ConnectFailed(2), "2345"),
                (Set(&[3, 4]), "345"),
                (Recovered, "345"),
                (Set(&[4, 5]), "345"),
                (Set(&[1, 2]), "12345"),
                (Set(&[4, 5]), "12345"),
            ],
        ),
        (
            "NXDOMAIN among answers that rotate is guarded like any",
            &[
                (Set(&[1, 2]), "12"),
                (Set(&[3, 4]), "1234"),
                (Set(&[1, 2]), "1234"),
                (Set(&[1, 3]), "1234"),
                (Set(&[2, 5]), "12345"),
                (Nothing, "12345"),
                (Nothing, "12345"),
                (Set(&[1, 2]), "12345"),
                (Nothing, "12345"),
                (Nothing, "12345"),
                (Nothing, "0"),
                (Set(&[4, 5]), "45"),
            ],
        ),
        (
            "`.` ends rotation at once",
            &[
                (Set(&[1, 2]), "12"),
                (Set(&[3, 4]), "1234"),
                (Set(&[1, 2]), "1234"),
                (Set(&[1, 3]), "1234"),
                (Set(&[2, 5]), "12345"),
                (Declined, "0"),
                (Set(&[1, 3]), "13"),
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

/// A name of which the answers show two of five.
fn rotating() -> Bench {
    let mut bench = Bench::new(3, 2);
    for set in [&[1, 2], &[3, 4], &[1, 2], &[1, 3], &[2, 5]] {
        bench.feed(&Step::Set(set));
    }
    assert!(bench.policy.rotating().is_some());
    bench
}

#[test]
fn rotation_is_told_once_and_so_is_its_end() {
    let mut bench = rotating();
    let found = bench.policy.rotating().unwrap();
    assert_eq!((found.shown, found.known), (2, 5));
    assert_eq!(bench.policy.unlisted(), 3);
    assert!(bench.policy.confirmed_from().unwrap() > bench.now);
    for _ in 0..3 {
        bench.feed(&Step::Set(&[1, 2]));
        bench.feed(&Step::Set(&[3, 4]));
    }
    for _ in 0..=CALM {
        bench.feed(&Step::Set(&[1, 2, 3]));
    }
    assert_eq!(bench.policy.rotating(), None);
    assert_eq!(bench.offered(), "123");
    let told = |wanted: fn(&Event) -> bool| bench.events.iter().filter(|e| wanted(e)).count();
    assert_eq!(told(|e| matches!(e, Event::Rotates(_))), 1);
    assert_eq!(told(|e| matches!(e, Event::RotationEnded(_))), 1);
}

#[test]
fn why_a_member_left_that_was_missed() {
    let mut bench = rotating();
    bench.events.clear();
    let mut answers = [&[1, 2], &[3, 4], &[1, 3], &[2, 4]].into_iter().cycle();
    while bench.offered() != "1234" {
        bench.feed(&Step::Set(answers.next().unwrap()));
    }
    let left = Event::Left {
        endpoint: one(5, 0, 0).endpoint,
        why: Why::Missed(misses(2, 5)),
    };
    assert_eq!(bench.events, [left]);
}

#[test]
fn a_place_is_that_of_the_last_record() {
    let mut bench = rotating();
    bench.feed(&Step::Weighted(5, 7, 9));
    bench.feed(&Step::Set(&[1, 2]));
    let Offer::Endpoints(endpoints) = bench.policy.offer() else {
        panic!();
    };
    assert!(endpoints.contains(&one(5, 7, 9)));
}

#[test]
fn a_guard_of_one_believes_each_answer_until_answers_rotate() {
    let mut bench = Bench::new(1, 1);
    for (set, offered) in [
        (&[1, 2], "12"),
        (&[3, 4], "34"),
        (&[1, 2], "12"),
        (&[1, 3], "13"),
        (&[2, 5], "1235"),
    ] {
        bench.feed(&Step::Set(set));
        assert_eq!(bench.offered(), offered);
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
    /// guards ask for, is what is offered; once answers that rotated no longer do.
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
        let mut guards = u32::from(absent_after.max(shrink_guard).max(1));
        if steps.len() > 1 {
            bench.answer(plain(&last), false);
            guards += if bench.policy.rotating().is_some() { CALM } else { 3 };
        }
        for _ in 0..guards {
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

/// Two answers alike can be told from rotation only where that is unlikely: with parts that are
/// nearly the whole, somebody leaves for a moment now and then until rotation is seen.
#[test]
fn hardly_anybody_leaves_while_rotation_is_not_seen_yet() {
    for (shown, all, most) in [(3, 20, 0), (8, 16, 0), (8, 40, 0), (3, 4, 100), (8, 9, 100)] {
        let mut left = 0;
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(3, 2);
            for _ in 0..60 {
                let set = rng.choose_multiple(1..=all, shown).into_iter();
                let set = set.map(|n| one(n, 0, 1)).collect();
                let waiting = false;
                bench.answer(Answer::Endpoints { set, waiting }, false);
            }
            assert!(bench.policy.rotating().is_some());
            let gone = |e: &&Event| matches!(e, Event::Left { .. });
            left += bench.events.iter().filter(gone).count();
        }
        assert!(left <= most, "{left} with {shown} of {all}");
    }
}

/// A set from before the process began is guarded as one that a server gave.
#[test]
fn a_restored_set_is_in_effect_and_stale_until_a_server_answers() {
    let settings = Settings {
        absent_after: 3,
        shrink_guard: 2,
        max_endpoints: 4096,
    };
    let failing = HashSet::new();
    let since = Instant::now();
    let facts = |seconds: u64| Facts {
        now: since + Duration::from_secs(seconds),
        believed_for: TTL,
        repeated: false,
        failing: &failing,
    };
    let set = |all: &[u8]| all.iter().map(|n| one(*n, 0, 10)).collect::<Vec<_>>();
    let listed = |all: &[u8]| Answer::Endpoints {
        set: set(all),
        waiting: false,
    };
    let restored = || {
        let mut policy = Policy::new(settings);
        let outcome = policy.restored(set(&[1, 2, 3]), since);
        assert_eq!((outcome.joined, outcome.left), (3, 0));
        policy
    };
    let known = |policy: &Policy| match policy.offer() {
        Offer::Endpoints(all) => all.len(),
        Offer::Absent => 0,
        Offer::Pending => panic!("it is restored"),
    };
    let stale = |event: &Event| matches!(event, Event::Stale { .. });

    let mut policy = restored();
    assert_eq!(policy.stale_since(), Some(since));
    assert_eq!(policy.last_success(), None);
    let outcome = policy.failed("silence", facts(1).now);
    assert!(outcome.events.iter().any(stale), "why is told");
    assert_eq!(policy.failed("silence", facts(2).now), Outcome::default());
    assert_eq!((policy.stale_since(), known(&policy)), (Some(since), 3));
    let outcome = policy.answered(listed(&[2, 3, 4]), facts(9));
    let after = Duration::from_secs(9);
    assert_eq!(outcome.events[0], Event::Recovered { after });
    assert_eq!((outcome.joined, outcome.left), (1, 1));
    assert_eq!((policy.stale_since(), known(&policy)), (None, 3));

    let mut policy = restored();
    for (seconds, left) in [(1, 3), (7, 3), (13, 0)] {
        policy.answered(Answer::Nothing, facts(seconds));
        assert_eq!(known(&policy), left, "NXDOMAIN after {seconds} s");
    }

    let mut policy = restored();
    for (seconds, left) in [(1, 4), (7, 1)] {
        policy.answered(listed(&[4]), facts(seconds));
        assert_eq!(known(&policy), left, "a shrinking answer after {seconds} s");
    }

    let mut policy = restored();
    policy.answered(Answer::Declined, facts(1));
    assert_eq!(known(&policy), 0, "the target `.`");
}

#[test]
fn what_is_restored_can_be_judged_again() {
    let settings = Settings {
        absent_after: 3,
        shrink_guard: 2,
        max_endpoints: 4096,
    };
    let since = Instant::now();
    let mut policy = Policy::new(settings);
    assert_eq!(policy.restored(Vec::new(), since), Outcome::default());
    assert_eq!(policy.offer(), Offer::Pending, "nobody may be used");
    let outcome = policy.restored(vec![one(1, 0, 1), one(2, 0, 1)], since);
    assert_eq!(outcome.joined, 2);
    let outcome = policy.restored(vec![one(2, 0, 1)], since);
    assert_eq!((outcome.joined, outcome.left), (0, 1));
    policy.restored(Vec::new(), since);
    assert_eq!(policy.offer(), Offer::Absent);
}
