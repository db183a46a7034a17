//! `evenkeel dns` as a program: updates by `nsupdate` and by hand, leases, restarts, synth.

#[path = "support/dns.rs"]
mod dns;
mod support;
#[path = "support/zone.rs"]
mod zone;

#[path = "registry/bounds.rs"]
mod bounds;
#[path = "registry/churn.rs"]
mod churn;
#[path = "registry/leases.rs"]
mod leases;
#[path = "registry/nsupdate.rs"]
mod nsupdate;
#[path = "registry/signatures.rs"]
mod signatures;
#[path = "registry/synth.rs"]
mod synth;
