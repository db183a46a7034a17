//! What single steps of a request cost, and a rebuild of the schedules: for finding what grows
//! faster than it should. What a whole request costs is for `compare`.
//!
//! ```text
//! cargo bench --bench micro                    # all of it, some ten seconds
//! cargo bench --bench micro -- router          # what has that in its name
//! cargo test --bench micro                     # each once, unoptimised: does it still run?
//! ```
//!
//! Only the library's public functions are called. Each input is checked once before it is timed,
//! so that nobody measures how quickly it is refused.

mod balance;
mod http;
mod router;
mod telemetry;

fn main() {
    divan::main();
}
