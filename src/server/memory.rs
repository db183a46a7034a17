//! Looks at memory, and says what is to be done about it. On the control thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::{Config, MemoryLimit};
use crate::memory;
use crate::memory::budget::Budget;
use crate::memory::level::{Level, is_near};
use crate::proxy::limits::pressure::Pressure;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks when it is near. Connections that are closed need a moment to be gone.
const NEAR: Duration = Duration::from_millis(500);

/// Giving memory back holds workers up: the pause is so many times as long as that took, where that
/// is more. It may be others in the group who need the memory, for hours.
const RARITY: u32 = 100;

/// Most of that pause.
const LONGEST: Duration = Duration::from_secs(10);

/// What is to be watched, if anything is.
pub fn budget(config: &Config) -> Option<Budget> {
    match config.memory {
        MemoryLimit::Group => Budget::of_group(),
        MemoryLimit::Bytes(bytes) => Some(Budget::own(bytes)),
        MemoryLimit::Off => None,
    }
}

/// Watches for as long as the runtime lives.
pub async fn watch(budget: Budget, pressure: Arc<Pressure>) {
    loop {
        let begun = Instant::now();
        if pressure.level() > Level::Fine {
            // What was closed since the last look is free, and counts still.
            memory::give_back();
        }
        let took = begun.elapsed();
        let look = budget.look();
        let (before, now) = pressure.update(look);
        let (used, budget) = look.map_or((0, 0), |look| (look.used, look.budget));
        if before != now {
            match now {
                Level::Fine => tracing::info!(used, budget, "memory suffices again"),
                Level::Shedding => {
                    tracing::warn!(used, budget, "memory runs short: idle clients are closed");
                }
                Level::Refusing => {
                    tracing::warn!(used, budget, "memory runs out: new clients are refused");
                }
            }
        }
        let pause = match is_near(used, budget) {
            true => NEAR,
            false => LOOK,
        };
        sleep(pause.max((took * RARITY).min(LONGEST))).await;
    }
}
