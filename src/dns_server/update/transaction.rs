//! Changes that can be taken back, and what they came to (RFC 2136 section 3.4.2). Pure.

use std::collections::BTreeSet;

use hickory_proto::rr::{Name, RData, RecordType};

use super::super::lease::Lease;
use super::super::records::{Entry, Octets, Records, Sets, octets};
use super::{Action, Changes, Update};

/// One record that was touched, as it was before: to undo it, and to tell what changed.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) owner: Name,
    pub(super) kind: RecordType,
    octets: Octets,
    pub(super) before: Option<Entry>,
    /// Of its set; `None`: there was none.
    ttl: Option<u32>,
}

/// Section 3.4.2: one record of the update section.
pub(super) fn carry_out(
    records: &mut Records,
    update: &Update,
    lease: Option<Lease>,
    done: &mut Vec<Touched>,
) {
    let owner = &update.owner;
    let of_set = |records: &Records, kind| -> Vec<(RecordType, Octets)> {
        let set = records.set(owner, kind);
        let all = set.into_iter().flat_map(|set| set.entries.keys());
        all.map(|octets| (kind, octets.clone())).collect()
    };
    let gone: Vec<(RecordType, Octets)> = match &update.action {
        Action::Add { ttl, data } => return add(records, owner, (*ttl, data), lease, done),
        Action::Ignore => return,
        Action::Remove(data) => vec![(data.record_type(), octets(data))],
        Action::RemoveSet(kind) => of_set(records, *kind),
        Action::RemoveName => {
            let kinds: Vec<_> = records
                .sets(owner)
                .into_iter()
                .flat_map(Sets::keys)
                .copied()
                .collect();
            kinds
                .into_iter()
                .flat_map(|kind| of_set(records, kind))
                .collect()
        }
    };
    for (kind, octets) in gone {
        let ttl = records.set(owner, kind).map(|set| set.ttl);
        if let Some(entry) = records.take(owner, kind, &octets) {
            done.push(Touched {
                owner: owner.clone(),
                kind,
                octets,
                before: Some(entry),
                ttl,
            });
        }
    }
}

/// Section 3.4.2.2.
fn add(
    records: &mut Records,
    owner: &Name,
    (ttl, data): (u32, &RData),
    lease: Option<Lease>,
    done: &mut Vec<Touched>,
) {
    let kind = data.record_type();
    let alias = kind == RecordType::CNAME;
    // An alias stands alone (RFC 1034 section 3.6.2); what breaks that is ignored.
    let mut kinds = records.sets(owner).into_iter().flat_map(Sets::keys);
    if kinds.any(|other| (*other == RecordType::CNAME) != alias) {
        return;
    }
    if alias {
        let update = Update {
            owner: owner.clone(),
            action: Action::RemoveSet(kind),
        };
        carry_out(records, &update, None, done);
    }
    let ttl_before = records.set(owner, kind).map(|set| set.ttl);
    let octets = octets(data);
    let data = data.clone();
    done.push(Touched {
        owner: owner.clone(),
        kind,
        octets: octets.clone(),
        before: records.insert(owner, octets, Entry { data, lease }),
        ttl: ttl_before,
    });
    // What is leased must not be believed for longer than it is leased.
    let longest = lease.map_or(u64::MAX, |lease| lease.granted.as_secs());
    // One TTL for the whole set (RFC 2181 section 5.2).
    records.set_ttl(owner, kind, u64::from(ttl).min(longest) as u32);
}

/// Takes all of it back.
pub(super) fn undo(records: &mut Records, done: Vec<Touched>) {
    for touched in done.into_iter().rev() {
        let Touched {
            owner,
            kind,
            octets,
            before,
            ttl,
        } = touched;
        match before {
            Some(entry) => drop(records.insert(&owner, octets, entry)),
            None => drop(records.take(&owner, kind, &octets)),
        }
        if let Some(ttl) = ttl {
            records.set_ttl(&owner, kind, ttl);
        }
    }
}

/// What all of it came to.
pub(super) fn difference(records: &Records, done: Vec<Touched>) -> Changes {
    let mut changes = Changes::default();
    let mut seen = BTreeSet::new();
    let mut sets = BTreeSet::new();
    // The first touch of a record knows what it was before all of it.
    for touched in done {
        let Touched {
            owner,
            kind,
            octets,
            before,
            ttl,
        } = touched;
        let set = records.set(&owner, kind);
        if sets.insert((owner.clone(), kind)) {
            changes.changed |= ttl != set.map(|set| set.ttl);
        }
        let now = set.and_then(|set| set.entries.get(&octets));
        if !seen.insert((owner.clone(), kind, octets)) {
            continue;
        }
        let granted = |entry: &Entry| entry.lease.map(|lease| lease.granted);
        match (before, now) {
            (None, Some(now)) => changes.added.push((owner, now.data.clone())),
            (Some(before), None) => changes.removed.push((owner, before.data)),
            (Some(before), Some(now)) => changes.stored |= granted(&before) != granted(now),
            (None, None) => {}
        }
    }
    changes.changed |= !changes.added.is_empty() || !changes.removed.is_empty();
    changes.stored |= changes.changed;
    changes
}
