//! What clients notice of backends that die, hang, lie and come back: the fault matrix, and what
//! limits and retries do about it. The table of the matrix:
//!
//! ```text
//! cargo test --test faults matrix -- --nocapture
//! ```

#[path = "faults/actor.rs"]
mod actor;
#[path = "faults/checks.rs"]
mod checks;
#[path = "faults/killed.rs"]
mod killed;
#[path = "support/ledger.rs"]
mod ledger;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/matrix.rs"]
mod matrix;
#[path = "faults/retries.rs"]
mod retries;
#[path = "faults/slow.rs"]
mod slow;
mod support;
#[path = "faults/terminator.rs"]
mod terminator;
#[path = "support/tls_backend.rs"]
mod tls_backend;
#[path = "support/traffic.rs"]
mod traffic;

use support::client::Client;
use support::server::Server;

/// Lines of `/metrics` that begin with `name`, with their values.
pub fn series(server: &Server, name: &str) -> Vec<(String, f64)> {
    let address = server.probe.expect("there is a probe listener");
    let answer = Client::plain(address)
        .get("probe", "/metrics")
        .expect("it answers");
    let text = String::from_utf8(answer.body).expect("it is text");
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// State and reason of a backend, by its address.
pub fn state(server: &Server, backend: std::net::SocketAddr) -> (String, String) {
    let wanted = format!("backend=\"{backend}\"");
    let all = series(server, "evenkeel_backend_state{");
    let found = all.iter().find(|(series, _)| series.contains(&wanted));
    let (series, _) = found.unwrap_or_else(|| panic!("{backend} is not in {all:?}"));
    let label = |name: &str| {
        let (_, rest) = series.split_once(&format!("{name}=\"")).expect("a label");
        rest.split('"').next().expect("its value").to_owned()
    };
    (label("state"), label("reason"))
}

/// The sum of the values of all series that begin with `name` and contain `label`.
pub fn sum(server: &Server, name: &str, label: &str) -> f64 {
    let all = series(server, name);
    let chosen = all.iter().filter(|(series, _)| series.contains(label));
    chosen.map(|(_, value)| value).sum()
}
