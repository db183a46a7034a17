//! The schedules of routes that lead to several services: one worker's.
//!
//! They go on through a reload where the route has the same services at the same weights, so that
//! shares stay exact however often a configuration is loaded.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;

use crate::balance::split::Split;
use crate::config::{Config, Target};

/// The schedules, by the index of the route.
#[derive(Debug, Default)]
pub(super) struct Splits(Box<[Option<Rc<Schedule>>]>);

#[derive(Debug)]
struct Schedule {
    /// Label of the route.
    route: Arc<str>,
    /// Services and their weights.
    shares: Vec<(Arc<str>, u32)>,
    split: RefCell<Split>,
}

impl Splits {
    /// Those of a configuration. `before`: of the one before it.
    pub(super) fn new(config: &Config, before: &Splits, rng: &mut Rng) -> Splits {
        let routes = config.routes.iter().map(|route| {
            let Target::Split(shares) = &route.target else {
                return None;
            };
            let named = |share: &crate::config::Share| {
                let name = Arc::clone(&config.services[share.service].name);
                (name, share.weight)
            };
            let shares: Vec<_> = shares.iter().map(named).collect();
            let mut known = before.0.iter().flatten();
            let known = known.find(|known| known.route == route.label && known.shares == shares);
            Some(known.cloned().unwrap_or_else(|| {
                let weights: Vec<u32> = shares.iter().map(|(_, weight)| *weight).collect();
                Rc::new(Schedule {
                    route: Arc::clone(&route.label),
                    split: RefCell::new(Split::new(&weights, rng)),
                    shares,
                })
            }))
        });
        Splits(routes.collect())
    }

    /// Which of its services a route (index) leads to now, by the place in its list.
    pub(super) fn pick(&self, route: usize) -> Option<usize> {
        let schedule = self.0.get(route)?.as_ref()?;
        schedule.split.borrow_mut().pick()
    }
}
