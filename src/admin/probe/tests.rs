use std::net::SocketAddr;

use tokio::runtime::{Builder, LocalOptions};
use tokio::time::Instant;

use super::*;
use crate::admin::state::tests::{Process, process};
use crate::balance::service::Service;
use crate::discovery::Offer;
use crate::proxy::drain::Phase;

struct Probe {
    address: SocketAddr,
    state: Rc<State>,
    services: Vec<Service>,
}

/// Runs a client against a probe listener, on a runtime like the control thread's.
fn with_probe(test: impl AsyncFnOnce(Probe)) {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let Process { state, services } = process(Millis::now());
        let state = Rc::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::task::spawn_local(serve(listener, Rc::clone(&state)));
        test(Probe {
            address,
            state,
            services,
        })
        .await;
        assert!(!serving.is_finished());
        serving.abort();
    });
}

impl Probe {
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self
            .ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}

#[test]
fn what_is_asked_and_answered() {
    with_probe(async |probe| {
        for (rule, request, starts, contains) in [
            (
                "alive",
                "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
                "\r\n\r\nalive\n",
            ),
            (
                "a query changes nothing",
                "GET /livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
                "alive",
            ),
            (
                "HTTP/1.0",
                "GET /livez HTTP/1.0\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
                "alive",
            ),
            (
                "closed after each",
                "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200",
                "Connection: close\r\n",
            ),
            (
                "HEAD has no body",
                "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
                "Content-Length: 6\r\n",
            ),
            (
                "metrics",
                "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
                "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
            ),
            (
                "OpenMetrics",
                "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;q=0.1, application/openmetrics-text\r\n\r\n",
                "HTTP/1.1 200 OK\r\nServer: evenkeel\r\nContent-Type: application/openmetrics-text; version=1.0.0",
                "\n# EOF\n",
            ),
            (
                "nothing else",
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\n",
                "/readyz",
            ),
            (
                "read-only",
                "POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
                "HTTP/1.1 405 Method Not Allowed\r\n",
                "Allow: GET, HEAD\r\n",
            ),
            (
                "no Host (RFC 9112 §3.2)",
                "GET /livez HTTP/1.1\r\n\r\n",
                "HTTP/1.1 400 ",
                "",
            ),
            ("no HTTP", "hello\r\n\r\n", "HTTP/1.1 400 ", ""),
        ] {
            let response = probe.ask(request).await;
            assert!(response.starts_with(starts), "{rule}: {response}");
            assert!(response.contains(contains), "{rule}: {response}");
        }
        let head = probe.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    });
}

#[test]
fn unready_says_why() {
    with_probe(async |mut probe| {
        let unmet =
            "service a: no answer from discovery yet\nservice b: no answer from discovery yet\n";
        assert_eq!(probe.get("/readyz").await, (503, unmet.to_owned()));
        for service in &mut probe.services {
            service.apply(&Offer::Absent);
        }
        assert_eq!(probe.get("/readyz").await, (200, "ready\n".to_owned()));
        probe
            .state
            .generations
            .load()
            .drain
            .advance(Phase::Announced);
        assert_eq!(probe.get("/readyz").await, (503, "draining\n".to_owned()));
        assert_eq!(probe.get("/livez").await, (200, "alive\n".to_owned()));
    });
}

#[test]
fn a_head_that_comes_byte_by_byte_is_read() {
    with_probe(async |probe| {
        let mut stream = TcpStream::connect(probe.address).await.unwrap();
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    });
}

#[test]
fn an_endless_head_is_refused() {
    with_probe(async |probe| {
        let mut stream = TcpStream::connect(probe.address).await.unwrap();
        let endless = format!("GET /livez HTTP/1.1\r\nHost: {}", "x".repeat(LIMITS.bytes));
        stream.write_all(endless.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    });
}

#[test]
fn those_who_say_nothing_are_bounded_in_number_and_time() {
    with_probe(async |probe| {
        let begun = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..PROBES {
            silent.push(TcpStream::connect(probe.address).await.unwrap());
        }
        // One more is closed before it can ask.
        let mut extra = TcpStream::connect(probe.address).await.unwrap();
        assert_eq!(extra.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(
            begun.elapsed() < DEADLINE,
            "this machine is too slow for this test"
        );
        tokio::time::pause();
        tokio::time::advance(DEADLINE).await;
        tokio::time::resume();
        for mut stream in silent {
            assert_eq!(
                stream.read(&mut [0]).await.unwrap_or(0),
                0,
                "closed by the deadline"
            );
        }
        assert_eq!(probe.get("/livez").await.0, 200);
    });
}
