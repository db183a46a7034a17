//! How many of the file descriptors clients may take, so that some are left for backends.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, getrlimit};

use crate::clock::Millis;
use crate::io::reserve::Reserve;
use crate::telemetry::seldom::Seldom;

/// Clients are taken in as long as so many of all descriptors are in use. The default of
/// `max_connections` is a third, and as many more are for backends: it stays below.
const FOR_CLIENTS: (u64, u64) = (3, 4);

/// The descriptors of this process.
#[derive(Debug)]
pub struct Descriptors {
    /// The process may have; `None`: as many as it likes.
    limit: Option<u64>,
    /// Those that connections are accepted by when there are no others.
    pub reserve: Reserve,
    refusing: Seldom,
    failing: Seldom,
}

impl Descriptors {
    /// As the system says now.
    pub fn of_this_process() -> Descriptors {
        Descriptors::of(getrlimit(Resource::Nofile).current)
    }

    fn of(limit: Option<u64>) -> Descriptors {
        Descriptors {
            limit,
            reserve: Reserve::new(),
            refusing: Seldom::default(),
            failing: Seldom::default(),
        }
    }

    /// The process may have so many; `None`: as many as it likes.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Are there enough left, `latest` being the one that was opened last? The kernel gives out the
    /// lowest number that is free, so as many as this number says are in use, and nobody need count.
    pub fn suffice(&self, latest: BorrowedFd<'_>) -> bool {
        let number = u64::try_from(latest.as_raw_fd()).unwrap_or(u64::MAX);
        self.for_clients().is_none_or(|most| number < most)
    }

    /// So many may be in use for a client to be taken in.
    fn for_clients(&self) -> Option<u64> {
        let (part, whole) = FOR_CLIENTS;
        self.limit
            .map(|limit| limit / whole * part + limit % whole * part / whole)
    }

    /// More connections are allowed than there can be: says so.
    pub fn compare(&self, max_connections: usize) {
        if let Some(for_clients) = self.for_clients()
            && max_connections as u64 > for_clients
        {
            tracing::warn!(
                max_connections,
                for_clients,
                limit = self.limit,
                "limits.max_connections is more than the limit of descriptors allows",
            );
        }
    }

    /// A client is refused for want of them: says so, once in a while.
    pub fn refusing(&self) {
        if self.refusing.is_due(Millis::now()) {
            tracing::warn!(
                limit = self.limit,
                "descriptors run out: clients are refused"
            );
        }
    }

    /// A backend cannot be connected to for want of them, or of ports or memory: says so, once in a
    /// while.
    pub fn failing(&self, error: &std::io::Error) {
        if self.failing.is_due(Millis::now()) {
            tracing::error!(%error, "no resources for a connection to a backend");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn three_quarters_are_for_clients() {
        for (limit, most) in [
            (None, None),
            (Some(0), Some(0)),
            (Some(64), Some(48)),
            (Some(1_023), Some(767)),
            (Some(u64::MAX), Some(u64::MAX / 4 * 3 + 2)),
        ] {
            assert_eq!(Descriptors::of(limit).for_clients(), most, "{limit:?}");
        }
    }

    #[test]
    fn the_number_of_a_descriptor_says_how_many_there_are() {
        let (one, _other) = std::io::pipe().expect("there are descriptors");
        let number = one.as_raw_fd() as u64;
        for (limit, suffice) in [(4 * number, true), (number + 1, false)] {
            assert_eq!(Descriptors::of(Some(limit)).suffice(one.as_fd()), suffice);
        }
        assert!(Descriptors::of(None).suffice(one.as_fd()));
    }
}
