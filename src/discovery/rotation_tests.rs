//! Which answers rotate and which do not, one row each; what that costs; and by simulation that
//! nobody who is there is taken for gone.

use std::collections::HashSet;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn member(n: usize) -> Member {
    Member {
        target: format!("b{n}").into(),
        port: 80,
        address: None,
    }
}

fn endpoint(n: usize) -> Endpoint {
    Endpoint {
        target: format!("b{n}").into(),
        address: [10, 0, (n / 256) as u8, (n % 256) as u8].into(),
        port: 80,
    }
}

struct Bench {
    rotation: Rotation,
    now: Instant,
    /// From one answer to the next.
    step: Duration,
    /// Everybody who was listed is offered: whoever holds removals back does so.
    offered: BTreeSet<Member>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            rotation: Rotation::new(4096),
            now: Instant::now(),
            step: TTL,
            offered: BTreeSet::new(),
        }
    }

    fn answer(&mut self, members: impl IntoIterator<Item = usize>) -> Option<Turn> {
        self.now += self.step;
        let listed: BTreeMap<_, _> = members
            .into_iter()
            .map(|n| (member(n), Shown::Records(Vec::new())))
            .collect();
        self.offered.extend(listed.keys().cloned());
        let failing = HashSet::new();
        let facts = Facts {
            now: self.now,
            believed_for: TTL,
            repeated: false,
            failing: &failing,
        };
        self.rotation
            .observe(listed, &|| self.offered.clone(), facts)
    }

    /// Who is in the union without being listed.
    fn unlisted(&self) -> Vec<String> {
        let unlisted = self.rotation.unlisted();
        unlisted.map(|(m, _)| m.target[1..].to_owned()).collect()
    }
}

/// The letters of a word, by number.
fn letters(word: &str) -> impl Iterator<Item = usize> {
    word.bytes().map(|letter| (letter - b'a').into())
}

#[test]
fn what_rotates_and_what_does_not() {
    // (rule, answers, the first that shows it: `None`: they do not rotate)
    type Row<'a> = (&'a str, &'a str, Option<usize>);
    let table: &[Row] = &[
        (
            "parts: whoever came back is gone again, twice",
            "abc def abc adg beh",
            Some(4),
        ),
        ("that they come back is not enough", "abc def adg beh", None),
        ("once is not enough", "abc def adg hij klm", None),
        ("parts that overlap", "abc abd acd abc", None),
        ("and go once more", "abc abd acd abc abd acd", Some(5)),
        ("one of two", "a b a b a", Some(4)),
        ("halves that take turns", "ab cd ab cd ab", Some(4)),
        ("the same set over and over", "abc abc abc abc abc", None),
        (
            "a set that grows and shrinks",
            "abc abcde abc abcde ab abcde abc abcdef",
            None,
        ),
        (
            "one backend that restarts twice, and again",
            "abc ab abc ab abc ab abc ab abc",
            None,
        ),
        (
            "two that restart by turns",
            "abc ab abc ac abc ab abc ac abc",
            None,
        ),
        (
            "a rolling restart, one after the other",
            "abcd bcd acd abd abc abcd",
            None,
        ),
        (
            "a second and a third one",
            "abc bc ac ab abc bc ac ab abc bc ac ab abc",
            None,
        ),
        (
            "a rolling restart that is seen from its middle on",
            "acde abde abce abcd abcde abcde",
            None,
        ),
        (
            "five that are scaled down and up",
            "abcde abc abcde abc abcde ab abcde abcd abcde",
            None,
        ),
        (
            "a rolling update: everybody is new",
            "abc bcd cde def efg fgh ghi",
            None,
        ),
        ("blue, green, blue", "abc def abc abc abc", None),
        (
            "blue, green, blue, green, each for some time",
            "abc abc abc abc def def def def abc abc abc abc def def def def abc",
            None,
        ),
        (
            "standby and back, each for some time",
            "a a a a b b b b a a a a b b b b a",
            None,
        ),
        (
            "a partial answer now and then",
            "abcd abcd ab abcd cd abcd ad abcd abcd",
            None,
        ),
        (
            "parts of which one was larger",
            "abcd efg hij abe cfg abe hij",
            None,
        ),
        (
            "once the largest size comes again",
            "abcd efg abch egad bcde efgh",
            Some(4),
        ),
    ];
    for (rule, answers, expected) in table {
        let mut bench = Bench::new();
        let turns: Vec<_> = answers
            .split(' ')
            .map(|word| bench.answer(letters(word)))
            .collect();
        let first = turns.iter().position(Option::is_some);
        assert_eq!(first, *expected, "{rule}: {turns:?}");
        if let Some(first) = first {
            assert!(matches!(turns[first], Some(Turn::Rotates(_))), "{rule}");
        }
    }
}

#[test]
fn what_may_be_a_part() {
    // (rule, answers, may the last one be a part?)
    let table = [
        ("the first answer", "abc", false),
        ("the second, others for some", "abc abd", true),
        ("later, others for some", "abc abc abd", false),
        ("others for more than half", "abc abc ade", true),
        ("some more", "abc abcd", false),
        ("some less", "abcd a", false),
        ("others, then the same again", "abc abc def def", false),
        ("others, then more of them", "abc abc def defg", false),
        ("others each time", "abc abc def dgh", true),
        ("a comeback, then the same", "ab ab cd ab ab", true),
        ("for three times", "ab ab cd ab ab ab ab", false),
    ];
    for (rule, answers, expected) in table {
        let mut bench = Bench::new();
        for word in answers.split(' ') {
            bench.answer(letters(word));
        }
        assert_eq!(bench.rotation.is_doubtful(), expected, "{rule}");
    }
}

#[test]
fn doubt_ends_although_answers_go_on_to_differ() {
    let mut bench = Bench::new();
    for n in 0..MEMORY as usize + 1 {
        bench.answer([3 * n, 3 * n + 1, 3 * n + 2]);
        assert_eq!(bench.rotation.is_doubtful(), n > 0);
    }
    bench.answer([900]);
    assert!(!bench.rotation.is_doubtful());
    let remembered = bench.rotation.members.len();
    assert!(remembered <= 3 * (MEMORY as usize + 2), "{remembered}");
}

fn rotating(answers: &str) -> Bench {
    let mut bench = Bench::new();
    for word in answers.split(' ') {
        bench.answer(letters(word));
    }
    assert!(bench.rotation.rotating().is_some(), "{answers}");
    bench
}

#[test]
fn the_union_is_who_was_seen() {
    let mut bench = rotating("abc def abc adg beh");
    assert_eq!(bench.unlisted(), ["0", "2", "3", "5", "6"]);
    bench.answer(letters("xyz"));
    assert_eq!(bench.rotation.rotating().unwrap().known, 11);
    assert_eq!(bench.rotation.rotating().unwrap().misses, misses(3, 11));
    assert!(bench.rotation.remembers(&endpoint(0)));
    assert!(!bench.rotation.remembers(&endpoint(25)), "it is listed");
    assert!(!bench.rotation.remembers(&endpoint(99)), "who is that?");
}

#[test]
fn whoever_is_not_offered_is_not_in_it() {
    let mut bench = Bench::new();
    for word in ["abc", "def", "abc", "adg"] {
        bench.answer(letters(word));
    }
    bench.offered.remove(&member(5));
    assert!(bench.answer(letters("beh")).is_some());
    assert_eq!(bench.unlisted(), ["0", "2", "3", "6"]);
}

#[test]
fn a_member_leaves_after_its_misses_and_not_before() {
    let mut bench = rotating("abc abd acd abc abd acd abc");
    // Four are known, and `d` is gone; the others take turns.
    let mut answers = ["ab", "bc", "ac"].into_iter().cycle();
    for missed in 2.. {
        bench.answer(letters(answers.next().unwrap()));
        let needed = misses(2, 4);
        assert_eq!(bench.rotation.remembers(&endpoint(3)), missed < needed);
        if missed == needed {
            assert_eq!(bench.rotation.missed(&endpoint(3)), Some(needed));
            break;
        }
    }
    bench.answer(letters("ab"));
    assert_eq!(bench.rotation.missed(&endpoint(3)), None, "told once");
}

#[test]
fn an_answer_from_a_cache_misses_nobody() {
    let mut bench = rotating("abc def abc adg beh");
    let misses = |bench: &Bench| bench.rotation.members.misses(&member(2)).unwrap();
    let before = misses(&bench);
    bench.step = TTL / 10;
    for _ in 0..4 {
        bench.answer(letters("abd"));
        bench.answer(letters("def"));
    }
    assert_eq!(misses(&bench), before, "its time has not run out");
    bench.step = TTL;
    bench.answer(letters("abd"));
    assert_eq!(misses(&bench), before + 1);
    for _ in 0..10 {
        bench.answer(letters("abd"));
    }
    assert_eq!(misses(&bench), before + 1, "it is the same answer");
}

#[test]
fn additions_of_an_answer_from_a_cache_are_in_the_union() {
    let mut bench = rotating("abc def abc adg beh");
    bench.step = TTL / 10;
    bench.answer(letters("xyz"));
    bench.answer(letters("abc"));
    assert!(bench.unlisted().contains(&"25".to_owned()));
}

#[test]
fn how_it_ends() {
    let table: [(&str, Vec<Vec<usize>>, Ended); 3] = [
        (
            "the same answer again and again",
            vec![vec![0, 1, 2]; CALM as usize + 1],
            Ended::Calm,
        ),
        (
            "an answer too large to be a part",
            vec![(0..=MAX_WINDOW).collect()],
            Ended::Large,
        ),
        (
            "all who are known, and more than before",
            vec![(0..8).collect()],
            Ended::Whole,
        ),
    ];
    for (rule, answers, expected) in table {
        let mut bench = rotating("abc def abc adg beh");
        let last = answers.len() - 1;
        for (n, answer) in answers.into_iter().enumerate() {
            let turn = bench.answer(answer);
            let expected = (n == last).then_some(Turn::Ended(expected));
            assert_eq!(turn, expected, "{rule}, {n}");
        }
        assert!(bench.rotation.rotating().is_none());
        assert_eq!(bench.unlisted(), [""; 0]);
    }
}

#[test]
fn a_larger_answer_that_lacks_somebody_does_not_end_it() {
    let mut bench = rotating("abc def abc adg beh");
    assert_eq!(bench.answer(letters("abcdefg")), None);
    assert_eq!(bench.unlisted(), ["7"]);
    assert_eq!(bench.rotation.rotating().unwrap().shown, 3);
}

#[test]
fn a_set_that_just_fits_an_answer_stays_watched_until_it_is_calm() {
    let mut bench = rotating("abc abd acd abc abd acd abc");
    // `d` is gone for good, and nobody else ever misses.
    let calm = (1..).find(|_| bench.answer(letters("abc")).is_some());
    assert_eq!(calm, Some(CALM as usize));
}

#[test]
fn after_a_failed_connect_it_takes_a_record_to_come_back() {
    let mut bench = rotating("abc def abc adg beh");
    bench.rotation.unreachable(&endpoint(0), true);
    assert!(!bench.rotation.remembers(&endpoint(0)));
    bench.answer(letters("xyz"));
    assert!(!bench.rotation.remembers(&endpoint(0)));
    bench.answer(letters("abc"));
    bench.answer(letters("xyz"));
    assert!(bench.rotation.remembers(&endpoint(0)));
    bench.answer(letters("abc"));
    bench.rotation.unreachable(&endpoint(0), true);
    bench.answer(letters("xyz"));
    assert!(bench.rotation.remembers(&endpoint(0)), "it was listed");
}

#[test]
fn one_of_several_addresses_that_fails_is_left_out_alone() {
    let mut bench = rotating("abc def abc adg beh");
    bench.rotation.unreachable(&endpoint(0), false);
    assert!(bench.rotation.is_unreachable(&endpoint(0)));
    let other = Endpoint {
        address: [10, 9, 9, 9].into(),
        ..endpoint(0)
    };
    assert!(bench.rotation.remembers(&other) && !bench.rotation.is_unreachable(&other));
    bench.answer(letters("abc"));
    assert!(!bench.rotation.is_unreachable(&endpoint(0)));
}

#[test]
fn the_union_has_a_bound() {
    let mut bench = Bench::new();
    bench.rotation = Rotation::new(100);
    let mut rng = Rng::with_seed(7);
    for _ in 0..300 {
        bench.answer(some(&mut rng, 8, 1000));
        bench.offered.clear();
        let known = bench.rotation.members.len();
        assert!(known <= 64 * 8 + 8, "{known}");
        if bench.rotation.rotating().is_some() {
            assert!(known <= 100, "{known}");
        }
    }
    assert!(bench.rotation.rotating().is_some());
}

/// `k` of the first `n`, at random.
fn some(rng: &mut Rng, k: usize, n: usize) -> Vec<usize> {
    rng.choose_multiple(0..n, k)
}

/// Answers to go until each of `n` was in one, all but once in a million times.
fn all_seen(k: usize, n: usize) -> usize {
    let missing = 1.0 - k as f64 / n as f64;
    ((1e-6 / n as f64).ln() / missing.ln()).ceil() as usize
}

#[test]
fn servers_as_they_are() {
    for (k, n) in [
        (1, 2),
        (1, 10),
        (2, 3),
        (3, 4),
        (3, 20),
        (8, 9),
        (8, 40),
        (3, 200),
        (7, 8),
    ] {
        let (mut left, mut late) = (0, 0);
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let mut bench = Bench::new();
            let mut known = BTreeSet::new();
            let (mut full, mut began) = (None, None);
            for answer in 0..1500 {
                let listed = some(&mut rng, k, n);
                known.extend(listed.iter().copied());
                if let Some(Turn::Rotates(_)) = bench.answer(listed) {
                    began = began.or(Some(answer));
                }
                if began.is_some() {
                    left += known.len() - bench.rotation.members.len();
                }
                if known.len() == n {
                    full = full.or(Some(answer));
                }
            }
            let began = began.expect("it is seen");
            assert!(began <= 40, "{k} of {n}: {began}");
            late += u32::from(full.expect("all are seen") > all_seen(k, n));
            assert!(bench.rotation.rotating().is_some(), "{k} of {n}: over");
        }
        assert_eq!((left, late), (0, 0), "{k} of {n}");
    }
}

proptest! {
    /// Whatever was answered: the same answer often enough is all there is.
    #[test]
    fn it_ends_when_answers_no_longer_rotate(
        answers in prop::collection::vec(prop::collection::btree_set(0..12usize, 0..5), 0..60),
        last in prop::collection::btree_set(0..12usize, 0..5),
    ) {
        let mut bench = Bench::new();
        for answer in answers {
            bench.answer(answer);
        }
        for _ in 0..=CALM {
            bench.answer(last.iter().copied());
        }
        prop_assert!(bench.rotation.rotating().is_none());
        prop_assert_eq!(bench.unlisted(), [""; 0]);
        prop_assert!(!bench.rotation.is_doubtful());
        prop_assert_eq!(bench.rotation.members.len(), last.len());
    }

    /// Who is listed is never missed, and the union holds whoever is listed.
    #[test]
    fn who_is_listed_is_there(
        answers in prop::collection::vec(prop::collection::btree_set(0..12usize, 0..5), 0..80),
    ) {
        let mut bench = Bench::new();
        for answer in answers {
            bench.answer(answer.iter().copied());
            for n in answer {
                prop_assert!(bench.rotation.members.misses(&member(n)).is_some());
                prop_assert_eq!(bench.rotation.missed(&endpoint(n)), None);
                prop_assert!(!bench.rotation.remembers(&endpoint(n)));
            }
        }
    }
}

/// Whether `n` that keep their names and restart one after the other, `rounds` times, are taken
/// for parts: each is missing from up to `slowest` answers, and `whole` says whether there is an
/// answer with all of them after each round.
fn restarts_look_like_parts(
    rng: &mut Rng,
    n: usize,
    slowest: usize,
    (rounds, whole): (usize, bool),
) -> bool {
    let mut bench = Bench::new();
    let mut turns = Vec::from_iter(bench.answer(0..n));
    for _ in 0..rounds {
        for restarting in 0..n {
            for _ in 0..rng.usize(1..=slowest) {
                turns.extend(bench.answer((0..n).filter(|m| *m != restarting)));
            }
        }
        for _ in 0..rng.usize(1..20) * usize::from(whole) {
            turns.extend(bench.answer(0..n));
        }
    }
    !turns.is_empty()
}

#[test]
fn restarts_are_not_taken_for_rotation() {
    for (n, slowest) in [
        (2, 6),
        (3, 6),
        (5, 1),
        (5, 6),
        (5, 15),
        (8, 3),
        (8, 6),
        (9, 3),
        (20, 2),
        (20, 6),
    ] {
        for rounds in [(3, true), (2, false)] {
            let mut rng = Rng::with_seed(1);
            let taken = |_: &_| restarts_look_like_parts(&mut rng, n, slowest, rounds);
            let wrong = (0..100).filter(taken).count();
            assert_eq!(wrong, 0, "{n}, {slowest} answers at most, {rounds:?}");
        }
    }
}

/// Without an end to it and without a pause: that is what rotation looks like, and what it costs is
/// said in the documentation.
#[test]
fn restarts_without_end_are_taken_for_rotation_but_not_of_more_than_a_part() {
    for (n, expected) in [(5, 20), (9, 20), (10, 0), (20, 0)] {
        let mut rng = Rng::with_seed(1);
        let taken = |_: &_| restarts_look_like_parts(&mut rng, n, 2, (20, false));
        assert_eq!((0..20).filter(taken).count(), expected, "{n}");
    }
}
