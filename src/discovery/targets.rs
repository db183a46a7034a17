//! Addresses of the targets of one name, kept between refreshes.
//!
//! A target whose lookup fails keeps its last addresses; one that decidedly has none any more
//! loses them after `absent_after` such answers, as a name does. Pure; driven by `task.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answers::{Addresses, OneFamily};
use super::srv::Located;
use crate::config::{Family, Lookup};

/// What is known of every target.
#[derive(Debug, Default)]
pub(super) struct Targets {
    known: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    v4: Kept,
    v6: Kept,
    /// Until when nobody needs to be asked.
    expires: Instant,
    /// The TTL behind `expires`, bounded; `None` when something went wrong.
    ttl: Option<Duration>,
    trouble: Option<String>,
    /// The last answer names it.
    listed: bool,
}

#[derive(Debug, Default)]
struct Kept {
    located: Vec<Located>,
    /// Answers in a row that there are none, and from when on another one counts.
    absent: u8,
    next_from: Option<Instant>,
}

impl Targets {
    /// Is there no need to ask for `target` at `now`?
    pub(super) fn is_fresh(&self, target: &str, now: Instant) -> bool {
        self.known.get(target).is_some_and(|k| now < k.expires)
    }

    /// Takes over an answer.
    pub(super) fn update(
        &mut self,
        target: &Arc<str>,
        answer: &Addresses,
        lookup: &Lookup,
        now: Instant,
    ) {
        let known = self.known(target, now);
        let failed = |family: &OneFamily| matches!(family, OneFamily::Failed(_));
        known.v4.update(&answer.v4, failed(&answer.v6), lookup, now);
        known.v6.update(&answer.v6, failed(&answer.v4), lookup, now);
        known.trouble = trouble(answer);
        known.ttl = [&answer.v4, &answer.v6]
            .into_iter()
            .filter_map(|family| match family {
                OneFamily::Found { ttl, .. } => Some(*ttl),
                OneFamily::Nothing(negative) => negative.ttl,
                _ => None,
            })
            .min()
            .filter(|_| known.trouble.is_none())
            .map(|ttl| ttl.clamp(lookup.min_ttl, lookup.max_ttl.max(lookup.min_ttl)));
        // A fixed ticker means to ask every time.
        known.expires = match (lookup.interval, known.ttl) {
            (None, Some(ttl)) => now + ttl,
            _ => now,
        };
    }

    /// Takes up an address of `target` from before this process began: it counts until an answer
    /// says otherwise, and the target is asked for as soon as it is listed.
    pub(super) fn seed(&mut self, target: &Arc<str>, located: Located, now: Instant) {
        let known = self.known(target, now);
        let family = match located.address {
            IpAddr::V4(_) => &mut known.v4.located,
            IpAddr::V6(_) => &mut known.v6.located,
        };
        if !family.iter().any(|known| known.address == located.address) {
            family.push(located);
        }
    }

    /// What is known of this address of `target`.
    pub(super) fn said(&self, target: &str, address: IpAddr) -> Option<Located> {
        let known = self.known.get(target)?;
        let mut located = known.v4.located.iter().chain(&known.v6.located);
        located.find(|located| located.address == address).copied()
    }

    /// The addresses to use, for those of `targets` that have any.
    pub(super) fn located<'a>(
        &self,
        targets: impl Iterator<Item = &'a Arc<str>>,
        family: Family,
    ) -> BTreeMap<Arc<str>, Vec<Located>> {
        let of = |target: &Arc<str>| {
            let known = self.known.get(target)?;
            let (v4, v6) = (&known.v4.located, &known.v6.located);
            let chosen = match family {
                Family::Auto if !v4.is_empty() => v4.clone(),
                Family::Auto => v6.clone(),
                Family::V4 => v4.clone(),
                Family::V6 => v6.clone(),
                Family::Both => v4.iter().chain(v6).copied().collect(),
            };
            (!chosen.is_empty()).then(|| (Arc::clone(target), chosen))
        };
        targets.filter_map(of).collect()
    }

    /// What went wrong with `target` the last time, if anything did.
    pub(super) fn trouble(&self, target: &str) -> Option<&str> {
        self.known.get(target)?.trouble.as_deref()
    }

    /// The earliest moment at which one of the listed targets should be asked for again.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let listed = self.known.values().filter(|known| known.listed);
        let ticking = listed.filter(|known| known.ttl.is_some());
        ticking.map(|known| known.expires).min()
    }

    /// The first `many` of those that are kept without being listed and should be asked for
    /// again, those that wait for it longest.
    pub(super) fn unlisted_expired(&self, now: Instant, many: usize) -> Vec<Arc<str>> {
        let unlisted = self.known.iter().filter(|(_, known)| !known.listed);
        let mut expired: Vec<_> = unlisted
            .filter(|(_, known)| known.expires <= now)
            .map(|(target, known)| (known.expires, target))
            .collect();
        expired.sort_unstable();
        let first = expired.into_iter().take(many);
        first.map(|(_, target)| Arc::clone(target)).collect()
    }

    fn known(&mut self, target: &Arc<str>, now: Instant) -> &mut Known {
        self.known.entry(Arc::clone(target)).or_insert(Known {
            v4: Kept::default(),
            v6: Kept::default(),
            expires: now,
            ttl: None,
            trouble: None,
            listed: true,
        })
    }

    /// Goes by a new answer: forgets the targets that are neither among `listed` nor `of_use`.
    pub(super) fn retain(&mut self, listed: impl Fn(&str) -> bool, of_use: impl Fn(&str) -> bool) {
        self.known.retain(|target, known| {
            known.listed = listed(target);
            known.listed || of_use(target)
        });
    }
}

impl Kept {
    fn update(&mut self, answer: &OneFamily, other_failed: bool, lookup: &Lookup, now: Instant) {
        match answer {
            OneFamily::Found {
                addresses, server, ..
            } => {
                let located = |address| Located {
                    address,
                    server_on_loopback: on_loopback(*server),
                };
                *self = Kept {
                    located: addresses.iter().copied().map(located).collect(),
                    ..Kept::default()
                };
            }
            // Not because the other family is enough: whether it is, nobody could say.
            OneFamily::NotAsked if other_failed => {}
            OneFamily::NotAsked => *self = Kept::default(),
            OneFamily::Failed(_) => {}
            OneFamily::Nothing(_) if self.located.is_empty() => {}
            OneFamily::Nothing(negative) => {
                if self.next_from.is_none_or(|from| now >= from) {
                    self.absent = self.absent.saturating_add(1);
                    let believed_for = negative.ttl.unwrap_or_default().min(lookup.max_ttl);
                    self.next_from = Some(now + believed_for);
                }
                if self.absent >= lookup.absent_after {
                    *self = Kept::default();
                }
            }
        }
    }
}

pub(super) fn on_loopback(server: SocketAddr) -> bool {
    server.ip().to_canonical().is_loopback()
}

fn trouble(answer: &Addresses) -> Option<String> {
    let families = [&answer.v4, &answer.v6];
    let failure = families.iter().find_map(|family| match family {
        OneFamily::Failed(error) => Some(error.to_string()),
        _ => None,
    });
    failure.or_else(|| {
        let found = |family: &&OneFamily| matches!(family, OneFamily::Found { .. });
        let exists = |family: &&OneFamily| matches!(family, OneFamily::Nothing(n) if n.name_exists);
        if families.iter().any(found) {
            None
        } else if families.iter().any(exists) {
            Some("it has no address of that family (NODATA)".to_owned())
        } else {
            Some("it does not exist (NXDOMAIN)".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::answers::LookupError;

    /// `auto` does not ask for AAAA when the lookup of A fails.
    #[test]
    fn a_failed_lookup_of_one_family_takes_nothing_from_the_other() {
        let lookup = Lookup::to(&[]);
        let server: SocketAddr = ([192, 0, 2, 53], 53).into();
        let found = |address: &str| OneFamily::Found {
            addresses: vec![address.parse().unwrap()],
            ttl: Duration::from_secs(5),
            server,
            glue: false,
        };
        let nothing = OneFamily::Nothing(super::super::answers::Negative {
            name_exists: true,
            ttl: None,
            server,
        });
        let failed = OneFamily::Failed(LookupError::TooManyAliases);
        let target: Arc<str> = "only-v6.test".into();
        let (mut targets, now) = (Targets::default(), Instant::now());
        let mut known_after = |v4: &OneFamily, v6: &OneFamily| {
            let (v4, v6) = (v4.clone(), v6.clone());
            targets.update(&target, &Addresses { v4, v6 }, &lookup, now);
            let located = targets.located([&target].into_iter(), Family::Auto);
            located.into_values().flatten().next().map(|l| l.address)
        };
        let v6 = Some("2001:db8::1".parse().unwrap());
        assert_eq!(known_after(&nothing, &found("2001:db8::1")), v6);
        assert_eq!(known_after(&failed, &OneFamily::NotAsked), v6);
        let v4 = Some("192.0.2.1".parse().unwrap());
        assert_eq!(known_after(&found("192.0.2.1"), &OneFamily::NotAsked), v4);
    }
}
