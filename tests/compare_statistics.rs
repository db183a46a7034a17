//! What `benches/compare` calls a difference, and what it does not.

#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../benches/compare/statistics.rs"]
mod statistics;

use statistics::{Spread, Verdict};

#[test]
fn the_median_of_an_even_number_lies_between_the_middle_two() {
    let spread = |values: &[f64]| Spread::of(values).map(|s| (s.median, s.least, s.most));
    assert_eq!(spread(&[]), None);
    assert_eq!(spread(&[3.0]), Some((3.0, 3.0, 3.0)));
    assert_eq!(spread(&[9.0, 1.0, 2.0]), Some((2.0, 1.0, 9.0)));
    assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 1.0, 9.0)));
}

#[test]
fn a_ratio_is_taken_in_each_round_by_itself() {
    // The second round was disturbed, and twice as slow for both.
    let ratio = Spread::of_ratios(&[15.0, 30.0, 15.0], &[10.0, 20.0, 10.0]);
    let expected = Spread {
        median: 1.5,
        least: 1.5,
        most: 1.5,
    };
    assert_eq!(ratio, Some(expected));
}

#[test]
fn what_is_a_difference() {
    let cases = [
        ("less than 10 % more", (1.09, 1.05, 1.12), Verdict::Level),
        ("less than 10 % less", (0.92, 0.90, 0.95), Verdict::Level),
        (
            "more, but not always",
            (1.30, 0.98, 1.60),
            Verdict::Undecided,
        ),
        (
            "less, but not always",
            (0.70, 0.60, 1.01),
            Verdict::Undecided,
        ),
        (
            "a little, and not always",
            (1.05, 0.90, 1.12),
            Verdict::Level,
        ),
        ("always more", (1.20, 1.01, 1.40), Verdict::Ahead),
        ("always less", (0.80, 0.70, 0.99), Verdict::Behind),
    ];
    for (name, (median, least, most), expected) in cases {
        let spread = Spread {
            median,
            least,
            most,
        };
        assert_eq!(spread.verdict(), expected, "{name}");
    }
}
