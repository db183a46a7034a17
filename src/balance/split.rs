//! Which of several takes the next turn, each its exact share: earliest deadline first, as within a
//! tier (`edf.rs`), over members that are always there.
//!
//! Each member's next turn has a deadline in virtual time; a pick takes the earliest one and moves it
//! on by the member's stride, the inverse of its share. O(members) for a pick, which are few, and
//! no allocation. Pure; chance is passed in once, at the start.

use fastrand::Rng;

/// A schedule. Members are called by their places, from 0.
#[derive(Debug)]
pub struct Split {
    /// Members that get anything.
    slots: Box<[Slot]>,
}

#[derive(Debug)]
struct Slot {
    member: usize,
    stride: u128,
    deadline: u128,
}

/// One pick, in virtual time: strides are rounded down by less than one part in 2⁴⁰, with weights of a
/// million as well.
const PICK: u128 = 1 << 64;

impl Split {
    /// A schedule by weight. A member of weight zero gets nothing; one at least must have more.
    ///
    /// From the first pick on each member comes with a probability of exactly its share, whoever
    /// starts how many schedules at one moment: the first turn is drawn by share, the others begin at
    /// random points of their strides (Palm: see `Edf::scatter`).
    pub fn new(weights: &[u32], rng: &mut Rng) -> Split {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let mut ticket = rng.u64(..total.max(1));
        let mut slots = Vec::with_capacity(weights.len());
        let mut drawn = false;
        for (member, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0) {
            let stride = PICK * u128::from(total) / u128::from(weight);
            let is_first = !drawn && ticket < u64::from(weight);
            ticket = ticket.wrapping_sub(u64::from(weight));
            drawn |= is_first;
            let deadline = match is_first {
                true => 0,
                // Behind the first one, if only just.
                false => rng.u128(1..=stride),
            };
            slots.push(Slot {
                member,
                stride,
                deadline,
            });
        }
        Split {
            slots: slots.into(),
        }
    }

    /// Whose turn it is; `None`: nobody has any weight.
    pub fn pick(&mut self) -> Option<usize> {
        let next = self.slots.iter_mut().min_by_key(|slot| slot.deadline)?;
        // 2⁶⁰ picks until this is more than it can hold.
        next.deadline += next.stride;
        Some(next.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_number_of_picks_each_has_its_share() {
        for weights in [
            &[1][..],
            &[1, 1],
            &[9, 1],
            &[99, 1],
            &[5, 3, 2],
            &[0, 7, 0, 3],
            &[1_000_000, 1, 333],
            &[1; 16],
        ] {
            let total: u32 = weights.iter().sum();
            for seed in 0..50 {
                let mut split = Split::new(weights, &mut Rng::with_seed(seed));
                let mut counts = vec![0_u32; weights.len()];
                for picks in 1..=2_000_u32 {
                    counts[split.pick().expect("there is weight")] += 1;
                    for (count, weight) in counts.iter().zip(weights) {
                        let share = f64::from(*weight) / f64::from(total);
                        let off = f64::from(*count) - share * f64::from(picks);
                        let bound = 1.0 + share * weights.len() as f64;
                        assert!(off.abs() <= bound, "{weights:?} {seed} {picks}: {off}");
                    }
                }
            }
        }
    }

    /// Balancers that start together don't all begin with the same one.
    #[test]
    fn each_pick_of_a_fresh_schedule_falls_by_share() {
        let weights = [6, 3, 1];
        let mut rng = Rng::with_seed(7);
        let mut counts = [[0_u32; 3]; 12];
        for _ in 0..20_000 {
            let mut split = Split::new(&weights, &mut rng);
            for count in &mut counts {
                count[split.pick().expect("there is weight")] += 1;
            }
        }
        for (pick, counts) in counts.iter().enumerate() {
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*count) / 20_000.0;
                let expected = f64::from(weight) / 10.0;
                // Five standard deviations of a share of one half are 0.018.
                assert!((share - expected).abs() < 0.018, "pick {pick}: {counts:?}");
            }
        }
    }

    #[test]
    fn nobody_has_any_weight() {
        let mut split = Split::new(&[0, 0], &mut Rng::with_seed(1));
        assert_eq!(split.pick(), None);
    }
}
