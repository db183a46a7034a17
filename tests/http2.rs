//! HTTP/2 (RFC 9113): frame by frame as the RFC wants it, translated to HTTP/1.1 and back without a byte
//! that means something else there, and under attack.

#[path = "http2/attacks.rs"]
mod attacks;
#[path = "http2/bodies.rs"]
mod bodies;
#[path = "http2/conformance.rs"]
mod conformance;
#[path = "http2/deadlines.rs"]
mod deadlines;
#[path = "http2/flow.rs"]
mod flow;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/hpack.rs"]
mod hpack;
#[path = "http2/lives.rs"]
mod lives;
#[path = "http2/peers.rs"]
mod peers;
#[path = "http2/retries.rs"]
mod retries;
#[path = "http2/sharing.rs"]
mod sharing;
mod support;
#[path = "http2/translation.rs"]
mod translation;
#[path = "http2/tunnels.rs"]
mod tunnels;

use std::net::SocketAddr;

use support::client::Client;
use support::server::Server;

/// A server without TLS in front of these backends, which speak `upstream`. `more` goes to the
/// service, `other` to the file.
pub fn config(upstream: &str, backends: &[SocketAddr], more: &str, other: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        r#"
        workers = 1
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        upstream = "{upstream}"
        ejection = "off"
        {more}
        [[route]]
        service = "web"
        {other}
        "#,
        backends.join(", ")
    )
}

/// The same with this instead of no ejection.
pub fn ejecting(configuration: &str, ejection: &str) -> String {
    configuration.replace(
        "ejection = \"off\"",
        &format!("ejection = {{ {ejection} }}"),
    )
}

/// The value of a series on the metrics page.
pub fn metric(server: &Server, series: &str) -> Option<f64> {
    let address = server.probe.expect("there is a probe listener");
    let page = Client::plain(address).get("probe", "/metrics");
    let page = page.expect("it answers").text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("it is a number"))
}
