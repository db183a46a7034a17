//! Checks over TLS: what requests would find out, without a request at stake.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::{Folder, Server};
use crate::support::wait_until;
use crate::tls_backend::{Authority, TlsBackend, Valid, self_signed};
use crate::{BOTH, front, metric, trusting};

/// Is the backend in this state for this reason?
fn is(server: &Server, backend: SocketAddr, state: &str, reason: &str) -> bool {
    let labels =
        format!("{{service=\"web\",backend=\"{backend}\",state=\"{state}\",reason=\"{reason}\"}}");
    metric(server, &format!("evenkeel_backend_state{labels}")) == 1.0
}

#[test]
fn a_certificate_that_has_expired_takes_its_backend_down() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let tls = trusting(&authority, &folder, ", name = \"b.test\"");
    for (check, passes) in [
        ("http = \"/\"", true),
        ("tcp = true", true),
        ("http = \"/\"", false),
    ] {
        let valid = if passes { Valid::Now } else { Valid::Before };
        let config = authority.issue(&["b.test"], valid).server(BOTH, None);
        let backend = TlsBackend::tls("b", config);
        let keys =
            format!("{tls}\nhealth = {{ {check}, interval = \"20ms\", initial = \"down\" }}");
        let server = front(&[backend.address], &keys);
        if passes {
            wait_until("it passes", || is(&server, backend.address, "up", ""));
            // A handshake is done here before the backend has noted it.
            let named = |s: &crate::tls_backend::Seen| s.name.as_deref() == Some("b.test");
            wait_until("it was called by its name", || {
                backend.seen().iter().any(named)
            });
        } else {
            wait_until("it fails", || {
                is(&server, backend.address, "down", "check_connect")
            });
            let response = Client::plain(server.address()).get("a", "/");
            assert_eq!(response.expect("it is answered").status(), 503);
        }
    }
}

/// Health at a port of its own, where nobody speaks TLS.
#[test]
fn a_check_can_do_without() {
    let backend = TlsBackend::tls("b", self_signed(&["b.test"]).server(BOTH, None));
    let plain = Backend::start("plain");
    let keys = format!(
        "tls = {{ insecure = true }}\nhealth = {{ http = \"/well\", tls = false, port = {}, \
         interval = \"20ms\", initial = \"down\" }}",
        plain.address.port()
    );
    let server = front(&[backend.address], &keys);
    wait_until("it passes", || is(&server, backend.address, "up", ""));
    assert!(plain.requests() > 0);
    let response = Client::plain(server.address()).get("a", "/");
    assert_eq!(response.expect("it is answered").text(), "b");
}

/// Two services that check one address, and verify different names there.
#[test]
fn checks_by_different_names_are_different_checks() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let config = authority.issue(&["b.test"], Valid::Now).server(BOTH, None);
    let backend = TlsBackend::tls("b", config);
    let ca = authority.file(&folder, "ca.pem");
    let service = |name: &str, verified: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nupstream = \"https\"\n\
             discover = {{ static = [\"{}\"] }}\ntls = {{ ca = \"{}\", name = \"{verified}\" }}\n\
             health = {{ http = \"/\", host = \"b\", interval = \"20ms\", initial = \"down\" }}\n\
             [[route]]\nhost = \"{name}\"\nservice = \"{name}\"\n",
            backend.address,
            ca.display()
        )
    };
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}{}",
        service("right", "b.test"),
        service("wrong", "c.test"),
    ));
    let state = |service: &str, state: &str, reason: &str| {
        let address = backend.address;
        let labels = format!(
            "{{service=\"{service}\",backend=\"{address}\",state=\"{state}\",reason=\"{reason}\"}}"
        );
        metric(&server, &format!("evenkeel_backend_state{labels}")) == 1.0
    };
    wait_until("one passes", || state("right", "up", ""));
    wait_until("the other fails", || {
        state("wrong", "down", "check_connect")
    });
}

/// A gRPC server that is well, over TLS; it agrees to what `config` has of ALPN.
fn grpc(config: ServerConfig) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("it is a socket");
    // It ends with the process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there are descriptors");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is bound");
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let Ok(mut calls) = h2::server::handshake(tls).await else {
                        return;
                    };
                    while let Some(Ok((_, mut respond))) = calls.accept().await {
                        let head = http::Response::builder()
                            .header("content-type", "application/grpc")
                            .body(())
                            .expect("it is well formed");
                        let Ok(mut body) = respond.send_response(head, false) else {
                            return;
                        };
                        let serving = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
                        let _ = body.send_data(serving, false);
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                        let _ = body.send_trailers(trailers);
                    }
                });
            }
        });
    });
    address
}

#[test]
fn grpc_agrees_on_http_2() {
    let issued = self_signed(&["b.test"]);
    for (rule, alpn, state, reason) in [
        (
            "it does",
            vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            "up",
            "",
        ),
        ("it has no ALPN", vec![], "down", "check_connect"),
    ] {
        let mut config = issued.server(BOTH, None);
        config.alpn_protocols = alpn;
        let address = grpc(config);
        let keys = "tls = { insecure = true }\nhealth = { grpc = true, interval = \"20ms\", \
                    initial = \"down\" }";
        let server = front(&[address], keys);
        wait_until(rule, || is(&server, address, state, reason));
    }
}
