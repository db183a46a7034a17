use proptest::prelude::*;

use super::*;
use crate::balance::shares::PICK;

#[test]
fn part_of_is_exact_at_the_ends() {
    assert_eq!(part_of(6 * PICK, 0), 0);
    assert_eq!(part_of(6 * PICK, 1 << 63), 3 * PICK);
    assert_eq!(part_of(u128::MAX, u64::MAX), u128::MAX - (1 << 64));
    assert_eq!(part_of(5, 1 << 63), 2);
}

proptest! {
    /// A rebuild moves a turn by less than one part in 2⁶⁰ of a stride, and never backwards and
    /// forwards by chance: the same strides leave it where it is.
    #[test]
    fn rescale_keeps_the_part_that_is_left(
        old in PICK..(1u128 << 118),
        new in PICK..(1u128 << 118),
        part in 0u64..=u64::MAX,
    ) {
        let wait = part_of(old, part);
        prop_assert_eq!(rescale(wait, old, old), wait);
        let there = rescale(wait, old, new);
        prop_assert!(there < new);
        let exact = part_of(new, part);
        prop_assert!(there.abs_diff(exact) <= new >> 60, "{} for {}", there, exact);
    }

    #[test]
    fn rescale_of_a_whole_stride_stays_within_it(old in PICK..(1u128 << 118), new in PICK..(1u128 << 118)) {
        let there = rescale(old, old, new);
        prop_assert!(there <= new && new - there <= new >> 60);
    }
}
