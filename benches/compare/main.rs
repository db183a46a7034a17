//! Evenkeel beside its peers, on one core each.
//!
//! `cargo bench --profile dist --bench compare -- --help`

mod load;

fn main() {}
