//! How near the memory in use is to its budget, and what follows from it. Pure.

/// What is to be done about memory, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    #[default]
    Fine = 0,
    /// Idle connections of clients are closed.
    Shedding = 1,
    /// New ones are refused, besides.
    Refusing = 2,
}

/// From so many percent of the budget on a level holds, and below so many it is over: what was
/// closed brings memory down by less than the distance, or the level would come and go.
const SHEDDING: (u64, u64) = (85, 80);
const REFUSING: (u64, u64) = (95, 90);

/// From so many percent of the budget on it is looked at more often.
const NEAR: u64 = 75;

impl Level {
    /// The level that follows, with so many bytes in use of so many.
    pub fn next(self, used: u64, budget: u64) -> Level {
        let percent = percent(used, budget);
        let holds = |level: Level, (from, below): (u64, u64)| {
            percent >= if self >= level { below } else { from }
        };
        if holds(Level::Refusing, REFUSING) {
            Level::Refusing
        } else if holds(Level::Shedding, SHEDDING) {
            Level::Shedding
        } else {
            Level::Fine
        }
    }

    /// As it was stored.
    pub fn of(number: u8) -> Level {
        match number {
            0 => Level::Fine,
            1 => Level::Shedding,
            _ => Level::Refusing,
        }
    }
}

/// Is the first level not far?
pub fn is_near(used: u64, budget: u64) -> bool {
    percent(used, budget) >= NEAR
}

fn percent(used: u64, budget: u64) -> u64 {
    let percent = u128::from(used) * 100 / u128::from(budget.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_and_go() {
        use Level::{Fine, Refusing, Shedding};
        for (rule, level, used, expected) in [
            ("far from it", Fine, 0, Fine),
            ("not yet", Fine, 849, Fine),
            ("idle ones go first", Fine, 850, Shedding),
            ("and stay gone for a while", Shedding, 800, Shedding),
            ("until there is room again", Shedding, 799, Fine),
            ("not yet refused", Shedding, 949, Shedding),
            ("then new ones are refused", Shedding, 950, Refusing),
            ("for a while", Refusing, 900, Refusing),
            ("then only idle ones go", Refusing, 899, Shedding),
            ("a jump up", Fine, 2_000, Refusing),
            ("a jump down", Refusing, 799, Fine),
        ] {
            assert_eq!(level.next(used, 1_000), expected, "{rule}");
        }
        assert_eq!(Fine.next(u64::MAX, 1), Refusing, "nothing overflows");
        assert_eq!(Fine.next(0, 0), Fine, "nothing of nothing");
        assert!(is_near(750, 1_000) && !is_near(749, 1_000));
    }
}
