//! Why a request goes where it goes: on its response, asked beforehand, and looked at afterwards; with a
//! real server.

#[path = "explain/asked.rs"]
mod asked;
#[path = "explain/field.rs"]
mod field;
#[path = "explain/outcomes.rs"]
mod outcomes;
mod support;

use std::net::SocketAddr;

/// One listener, one worker, and a service `web` with these endpoints (address, priority, weight) and
/// these settings; 127.0.0.1 is told.
pub fn config(endpoints: &[(SocketAddr, u16, u16)], top: &str, service: &str) -> String {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(a, p, w)| format!("{{ address = \"{a}\", priority = {p}, weight = {w} }}"))
        .collect();
    format!(
        r#"
        workers = 1
        explain_from = ["127.0.0.1"]
        {top}
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        protocol = "http"
        [[route]]
        name = "shop"
        host = "shop.test"
        service = "web"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        {service}
        "#,
        endpoints.join(", ")
    )
}
