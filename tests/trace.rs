//! `traceparent` and `tracestate` are passed on as they are, over whatever is spoken; none is made up.

mod support;

use std::process::Command;

use support::backend::Backend;
use support::client::Client;
use support::require;
use support::server::{Server, output};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

fn server(backend: std::net::SocketAddr, upstream: &str) -> Server {
    Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "a"
        discover = {{ static = ["{backend}"] }}
        upstream = "{upstream}"
        [[route]]
        service = "a"
        "#
    ))
}

/// The two fields of the only request that came.
fn came(backend: &Backend) -> (Option<String>, Option<String>) {
    backend.await_requests(1);
    let mut taken = backend.take();
    assert_eq!(taken.len(), 1, "{taken:?}");
    let request = taken.remove(0).whole.expect("it is whole");
    let field = |name| request.field(name).map(str::to_owned);
    (field("traceparent"), field("tracestate"))
}

fn sent() -> (Option<String>, Option<String>) {
    (Some(PARENT.to_owned()), Some(STATE.to_owned()))
}

#[test]
fn over_http_1_and_over_http_2_to_a_backend() {
    let backend = Backend::start("b");
    let near = server(backend.address, "http");
    let far = server(near.address(), "h2c");
    for address in [near.address(), far.address()] {
        let mut client = Client::plain(address);
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nTraceparent: {PARENT}\r\nTracestate: {STATE}\r\n\r\n"
        ));
        assert_eq!(client.response().expect("it is answered").status(), 200);
        assert_eq!(came(&backend), sent());
        assert_eq!(client.get("a", "/").expect("it is answered").status(), 200);
        assert_eq!(came(&backend), (None, None));
    }
}

#[test]
fn over_http_2_from_a_client() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b");
    let server = server(backend.address, "http");
    let ask = |fields: &[String]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--http2-prior-knowledge"]);
        curl.args(fields.iter().flat_map(|field| ["-H", field]));
        let answer = output(curl.arg(format!("http://{}/", server.address())));
        assert!(answer.status.success(), "{answer:?}");
    };
    ask(&[
        format!("traceparent: {PARENT}"),
        format!("tracestate: {STATE}"),
    ]);
    assert_eq!(came(&backend), sent());
    ask(&[]);
    assert_eq!(came(&backend), (None, None));
}
