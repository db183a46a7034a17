//! What a worker keeps of one kind for the next use, and gives back when the load has become less.
//!
//! Last in, first out: what nobody needs sinks to the bottom. What lay there from one
//! [`Spares::trim`] to the next goes, but for a few. There is no other limit: as many are kept as
//! were in use at once a moment ago, which the number of connections bounds. Used by `buffer`, and
//! by `proxy::serve` for its runners.

/// Spare values of one kind. Taking one costs a comparison and a store more than it does of a
/// vector.
#[derive(Debug)]
pub struct Spares<T> {
    kept: Vec<T>,
    /// The fewest there were since the last trim.
    unneeded: usize,
}

/// How many more are kept than were needed: what the number of requests under way varies by from
/// one second to the next without a change of the load.
const FLOOR: usize = 4;

/// Most that go in one trim: nothing else is done meanwhile, and each is a free or several.
const AT_ONCE: usize = 1024;

impl<T> Spares<T> {
    /// The one that was put last, if there is one.
    pub fn take(&mut self) -> Option<T> {
        let spare = self.kept.pop();
        self.unneeded = self.unneeded.min(self.kept.len());
        spare
    }

    /// Keeps one for the next use.
    pub fn put(&mut self, spare: T) {
        self.kept.push(spare);
    }

    /// Drops what has not been needed since the last call, or a part of many; returns how many it
    /// dropped.
    pub fn trim(&mut self) -> usize {
        let dropped = self.unneeded.saturating_sub(FLOOR).min(AT_ONCE);
        self.kept.drain(..dropped);
        self.kept.shrink_to(2 * self.kept.len());
        self.unneeded = self.kept.len();
        dropped
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl<T> Default for Spares<T> {
    fn default() -> Spares<T> {
        Spares {
            kept: Vec::new(),
            unneeded: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many are in use at once, for a moment.
    fn load(spares: &mut Spares<usize>, at_once: usize) -> usize {
        let (mut made, mut used) = (0, Vec::new());
        for _ in 0..at_once {
            used.push(spares.take().unwrap_or_else(|| {
                made += 1;
                made
            }));
        }
        used.into_iter().for_each(|spare| spares.put(spare));
        made
    }

    #[test]
    fn a_steady_load_makes_none_anew() {
        let mut spares = Spares::default();
        assert_eq!(load(&mut spares, 100), 100);
        for at_once in [98, 100, 96, 97, 100] {
            spares.trim();
            assert_eq!(load(&mut spares, at_once), 0);
        }
    }

    #[test]
    fn what_a_burst_needed_goes_once_it_was_not_needed_from_one_trim_to_the_next() {
        let mut spares = Spares::default();
        load(&mut spares, 1_000);
        assert_eq!(spares.trim(), 0, "all were needed since the last one");
        load(&mut spares, 10);
        assert_eq!(spares.trim(), 1_000 - 10 - FLOOR);
        assert_eq!(load(&mut spares, 10 + FLOOR), 0);
        spares.trim();
        assert_eq!(spares.trim(), 10);
        assert_eq!(spares.len(), FLOOR);
    }

    #[test]
    fn many_go_in_parts() {
        let mut spares = Spares::default();
        load(&mut spares, 2 * AT_ONCE + FLOOR + 1);
        let gone: Vec<usize> = (0..5).map(|_| spares.trim()).collect();
        assert_eq!(gone, [0, AT_ONCE, AT_ONCE, 1, 0]);
    }

    #[test]
    fn the_one_put_last_is_used_again_and_stays() {
        let mut spares = Spares::default();
        (0..50).for_each(|n| spares.put(n));
        spares.trim();
        spares.trim();
        assert_eq!(spares.take(), Some(49));
    }
}
