//! What share of a tier each of its members gets, from SRV weights (RFC 2782).
//!
//! Pure. A share is kept as a *stride*: the distance between two of a member's turns, counted in
//! picks of its tier, in fixed point. Used by the schedules and by whatever shows shares to people.

/// SRV weight of a target and the number of addresses that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// SRV weight of the target as a whole.
    pub weight: u16,
    /// Addresses that share it; 0 counts as 1.
    pub split: u16,
}

/// Share of each member in its tier, between 0 and 1; they sum to 1.
///
/// Weight w gets w/Σw, divided among the target's addresses. When some weights are positive, a
/// target of weight zero gets 1/256 of the mean weight of the tier's targets; all zeros are equal.
pub fn shares(weights: &[Weight]) -> Vec<f64> {
    let turns: Vec<f64> = strides(weights)
        .into_iter()
        .map(|stride| 1.0 / stride as f64)
        .collect();
    let total: f64 = turns.iter().sum();
    turns.into_iter().map(|turn| turn / total).collect()
}

/// The stride of each member: [`PICK`] divided by its share, or a little less when zero weights
/// take part (only the proportions count). Rounded down by less than one part in 2⁶⁴.
pub(super) fn strides(weights: &[Weight]) -> Vec<u128> {
    let all_zero = weights.iter().all(|w| w.weight == 0);
    // Sums over targets rather than addresses, in units of 1/65536. Their rounding is common to
    // all members and so moves no proportion between positive weights.
    let mut total: u128 = 0;
    let mut targets: u128 = 0;
    for member in weights {
        let one = ONE / u128::from(member.split.max(1));
        let weight = if all_zero { 1 } else { member.weight };
        total += u128::from(weight) * ONE / u128::from(member.split.max(1));
        targets += one;
    }
    weights
        .iter()
        .map(|member| {
            let split = u128::from(member.split.max(1));
            match member.weight {
                0 if all_zero => total * (PICK / ONE) * split,
                // PICK · split · total / (mean / 256), and the mean is total / targets.
                0 => targets * (PICK / ONE) * ZERO_WEIGHT_DIVISOR * split,
                weight => total * (PICK / ONE) * split / u128::from(weight),
            }
        })
        .collect()
}

/// Equal strides for `members` members.
pub(super) fn equal_strides(members: usize) -> Vec<u128> {
    vec![PICK * members as u128; members]
}

/// Turns of each member in a cycle that serves everybody weight/gcd times: the addresses of a
/// target share its weight, and whoever would get no turn at all gets one. For strategy `cycle`.
pub(super) fn turns(weights: &[Weight]) -> Vec<u64> {
    // The common denominator of the shared weights. Where it is huge (many targets with many
    // addresses each), 2³² is close enough: shares are then off by less than one part in 2¹⁶.
    let denominator = weights
        .iter()
        .try_fold(1, |all: u64, weight| {
            let split = u64::from(weight.split.max(1));
            let all = all / gcd(all, split) * split;
            (all <= u64::from(u32::MAX)).then_some(all)
        })
        .unwrap_or(1 << 32);
    let mut turns: Vec<u64> = weights
        .iter()
        .map(|w| u64::from(w.weight) * denominator / u64::from(w.split.max(1)))
        .collect();
    let divisor = turns.iter().copied().fold(0, gcd).max(1);
    for turns in &mut turns {
        *turns = (*turns / divisor).max(1);
    }
    turns
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Virtual time of one pick. In 128 bits there is room for 2⁶⁴ picks: at a million a second,
/// 580,000 years.
pub(super) const PICK: u128 = 1 << 64;

/// A member of weight zero beside positive ones gets the mean weight divided by this.
const ZERO_WEIGHT_DIVISOR: u128 = 256;

/// Fixed point of the sums.
const ONE: u128 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[(u16, u16)]) -> Vec<f64> {
        let weights: Vec<_> = weights
            .iter()
            .map(|&(weight, split)| Weight { weight, split })
            .collect();
        shares(&weights)
    }

    #[test]
    fn shares_by_rule() {
        type Row<'a> = (&'a str, &'a [(u16, u16)], &'a [f64]);
        let rows: &[Row<'_>] = &[
            (
                "w/Σw",
                &[(30, 1), (20, 1), (10, 1)],
                &[0.5, 1.0 / 3.0, 1.0 / 6.0],
            ),
            ("[1,1] is half and half", &[(1, 1), (1, 1)], &[0.5, 0.5]),
            ("alone", &[(7, 1)], &[1.0]),
            ("all zeros are equal", &[(0, 1); 4], &[0.25; 4]),
            (
                "16 bits",
                &[(65535, 1), (1, 1)],
                &[65535.0 / 65536.0, 1.0 / 65536.0],
            ),
            (
                "addresses share",
                &[(30, 3), (30, 3), (30, 3), (30, 1)],
                &[1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5],
            ),
            (
                "zeros share too",
                &[(0, 2), (0, 2), (0, 1)],
                &[0.25, 0.25, 0.5],
            ),
            (
                "zero among positives: mean/256",
                &[(256, 1), (256, 1), (0, 1)],
                &[384.0 / 769.0, 384.0 / 769.0, 1.0 / 769.0],
            ),
            ("split of nothing is 1", &[(3, 0), (1, 1)], &[0.75, 0.25]),
        ];
        for (rule, weights, expected) in rows {
            for (got, expected) in of(weights).iter().zip(*expected) {
                assert!(
                    (got - expected).abs() < 1e-5,
                    "{rule}: {got} for {expected}"
                );
            }
        }
    }

    #[test]
    fn nothing_overflows_at_the_extremes() {
        let many = vec![
            Weight {
                weight: 65535,
                split: 65535
            };
            100_000
        ];
        let zeros = vec![
            Weight {
                weight: 0,
                split: 65535
            };
            100_000
        ];
        let mixed: Vec<_> = [zeros.clone(), many.clone()].concat();
        for set in [many, zeros, mixed] {
            assert!(
                strides(&set)
                    .iter()
                    .all(|&stride| stride > 0 && stride < 1 << 120)
            );
        }
    }

    #[test]
    fn turns_never_overflow() {
        let weights: Vec<_> = (0..100)
            .map(|n| Weight {
                weight: 65535,
                split: 65535 - n,
            })
            .collect();
        assert!(turns(&weights).iter().all(|&n| (1..1 << 48).contains(&n)));
    }

    #[test]
    fn rescaling_all_weights_leaves_the_strides() {
        let weigh = |by: u16| {
            let set = [3, 2, 1].map(|w| Weight {
                weight: w * by,
                split: 1,
            });
            strides(&set)
        };
        assert_eq!(weigh(1), weigh(100));
        assert_eq!(weigh(1), vec![2 * PICK, 3 * PICK, 6 * PICK]);
    }
}
