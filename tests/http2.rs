//! HTTP/2 (RFC 9113): frame by frame as the RFC wants it, translated to HTTP/1.1 and back without a byte
//! that means something else there, and under attack.

#[path = "http2/attacks.rs"]
mod attacks;
#[path = "http2/bodies.rs"]
mod bodies;
#[path = "http2/conformance.rs"]
mod conformance;
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
mod support;
#[path = "http2/translation.rs"]
mod translation;
#[path = "http2/tunnels.rs"]
mod tunnels;

use std::net::SocketAddr;

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
