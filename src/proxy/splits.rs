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
    /// The listeners of the route, none: all of them, and its label. Two of the same may differ in
    /// what is not in a label; a split goes on for no more than one of them.
    route: (Vec<Arc<str>>, Arc<str>),
    /// Services and their weights.
    shares: Vec<(Arc<str>, u32)>,
    split: RefCell<Split>,
}

impl Splits {
    /// Those of a configuration. `before`: of the one before it.
    pub(super) fn new(config: &Config, before: &Splits, rng: &mut Rng) -> Splits {
        let mut known: Vec<_> = before.0.iter().flatten().map(Some).collect();
        let routes = config.routes.iter().map(|route| {
            let Target::Split(shares) = &route.target else {
                return None;
            };
            let named = |share: &crate::config::Share| {
                let name = Arc::clone(&config.services[share.service].name);
                (name, share.weight)
            };
            let shares: Vec<_> = shares.iter().map(named).collect();
            let listeners = route.listeners.iter();
            let listeners = listeners.map(|index| Arc::clone(&config.listeners[*index].name));
            let name = (listeners.collect(), Arc::clone(&route.label));
            let same = known.iter_mut().find(|known| {
                known.is_some_and(|known| known.route == name && known.shares == shares)
            });
            let same = same.and_then(Option::take);
            Some(same.cloned().unwrap_or_else(|| {
                let weights: Vec<u32> = shares.iter().map(|(_, weight)| *weight).collect();
                Rc::new(Schedule {
                    route: name,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;

    #[test]
    fn routes_that_are_called_the_same_keep_one_schedule_each() {
        let text = r#"
            [[listener]]
            name = "a"
            address = "127.0.0.1:8001"
            protocol = "http"
            [[listener]]
            name = "b"
            address = "127.0.0.1:8002"
            protocol = "http"
            [[service]]
            name = "x"
            discover = { static = ["127.0.0.1:1"] }
            [[service]]
            name = "y"
            discover = { static = ["127.0.0.1:2"] }
            [[route]]
            listener = ["a"]
            service = [{ service = "x", weight = 1 }, { service = "y", weight = 1 }]
            [[route]]
            listener = ["b"]
            service = [{ service = "x", weight = 1 }, { service = "y", weight = 1 }]
        "#;
        let config = from_toml_str(text).expect("it is right");
        let mut rng = Rng::with_seed(1);
        let first = Splits::new(&config, &Splits::default(), &mut rng);
        let second = Splits::new(&config, &first, &mut rng);
        for route in [0, 1] {
            let schedule = |splits: &Splits| splits.0[route].clone().expect("it has one");
            assert!(Rc::ptr_eq(&schedule(&first), &schedule(&second)), "{route}");
        }
    }
}
