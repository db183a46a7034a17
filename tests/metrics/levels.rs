//! What is open, what there is at most, and what was made smaller.

use std::net::SocketAddr;

use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{Gate, wait_until};

/// A server with one service, of these lines, behind `address`.
fn server(head: &str, service: &str, address: SocketAddr) -> Server {
    Server::in_process(&format!(
        "workers = 1\n{head}\n\
         [[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [\"{address}\"] }}\n{service}\n\
         [[route]]\nservice = \"web\"\n"
    ))
}

/// What a bounded thing holds, may hold and ever held.
fn bounded(server: &Server, labels: &str) -> [Option<f64>; 3] {
    ["", "_limit", "_high_water"]
        .map(|level| server.metric(&format!("evenkeel_bounded{level}{{{labels}}}")))
}

/// Connections to a backend: active, idle.
fn connections(server: &Server, address: SocketAddr) -> [Option<f64>; 2] {
    ["active", "idle"].map(|state| {
        server.metric(&format!(
                "evenkeel_backend_connections{{service=\"web\",backend=\"{address}\",state=\"{state}\"}}"
            ),
        )
    })
}

/// A request that waits at the backend's gate.
fn ask(server: &Server) -> Client {
    let mut client = Client::plain(server.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

fn answered(mut clients: Vec<Client>) {
    for client in &mut clients {
        assert_eq!(client.response().expect("it is answered").status(), 200);
    }
}

#[test]
fn every_bounded_thing_has_a_high_water_mark() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let server = server(
        "[limits]\nmax_connections = 50\nmax_connections_per_client = 20",
        "max_in_flight = 7\nadaptive = true",
        backend.address,
    );
    let clients: Vec<_> = (0..3).map(|_| ask(&server)).collect();
    backend.await_requests(3);
    gate.open();
    answered(clients);
    let address = server.address();
    wait_until("they are gone", || {
        bounded(&server, "of=\"client_connections\"")[0] == Some(0.0)
    });
    let _last = Client::plain_from([127, 0, 0, 2].into(), address);
    wait_until("another one came", || {
        bounded(&server, "of=\"clients\"")[0] == Some(1.0)
    });
    for (labels, now, limit, high_water) in [
        ("of=\"client_connections\"", 1.0, Some(50.0), 3.0),
        ("of=\"clients\"", 1.0, Some(50.0), 1.0),
        ("of=\"connections_of_one_client\"", 1.0, Some(20.0), 3.0),
        ("of=\"in_flight\",service=\"web\"", 0.0, None, 3.0),
        (
            "of=\"in_flight_of_one_backend\",service=\"web\"",
            0.0,
            Some(7.0),
            3.0,
        ),
        ("of=\"coders\"", 0.0, Some(256.0), 0.0),
        ("of=\"event_streams\"", 0.0, Some(32.0), 0.0),
        ("of=\"control_connections\"", 0.0, Some(64.0), 0.0),
    ] {
        let [is, may, was] = bounded(&server, labels);
        assert_eq!((is, was), (Some(now), Some(high_water)), "{labels}");
        assert!(limit.is_none() || may == limit, "{labels}: {may:?}");
    }
    // How many of them are kept for longer depends on how long this takes.
    assert_eq!(bounded(&server, "of=\"idle_connections\"")[2], Some(3.0));
    for labels in ["of=\"probe_connections\"", "of=\"journal\""] {
        let [is, may, was] = bounded(&server, labels);
        assert!(was >= is && was >= Some(1.0), "{labels}: {is:?}, {was:?}");
        assert!(may >= was, "{labels}: {may:?}");
    }
    // Nothing that is bounded goes without.
    let probe = server.probe.expect("there is one");
    let page = Client::plain(probe).get("probe", "/metrics");
    let page = page.expect("it answers").text();
    let of = |name: &str| -> Vec<String> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .map(|line| line[..=line.find('}').expect("it has labels")].to_owned())
            .collect()
    };
    assert_eq!(of("evenkeel_bounded{"), of("evenkeel_bounded_high_water{"));
}

#[test]
fn copies_of_requests_have_a_bound_and_a_high_water_mark() {
    let backend = Backend::start("b");
    let copied = Backend::start("c");
    let gate = Gate::new();
    copied.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let server = Server::in_process(&format!(
        "workers = 1\n\
         [[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [\"{}\"] }}\n\
         [[service]]\nname = \"copied\"\ndiscover = {{ static = [\"{}\"] }}\n\
         [[route]]\nservice = \"web\"\n\
         mirror = {{ service = \"copied\", percent = 100, max_in_flight = 9 }}\n",
        backend.address, copied.address
    ));
    answered((0..4).map(|_| ask(&server)).collect());
    copied.await_requests(4);
    let labels = "of=\"mirrored_requests\",service=\"copied\"";
    assert_eq!(
        bounded(&server, labels),
        [Some(4.0), Some(9.0), Some(4.0)],
        "they wait"
    );
    gate.open();
    wait_until("they are over", || {
        bounded(&server, labels) == [Some(0.0), Some(9.0), Some(4.0)]
    });
}

#[test]
fn connections_to_a_backend_are_active_or_idle() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let server = server("", "", backend.address);
    let clients: Vec<_> = (0..2).map(|_| ask(&server)).collect();
    backend.await_requests(2);
    assert_eq!(
        connections(&server, backend.address),
        [Some(2.0), Some(0.0)]
    );
    gate.open();
    answered(clients);
    wait_until("both are kept", || {
        connections(&server, backend.address) == [Some(0.0), Some(2.0)]
    });
    answered(vec![ask(&server)]);
    wait_until("one was used again and is kept again", || {
        connections(&server, backend.address) == [Some(0.0), Some(2.0)]
    });
    backend.close_all();
    wait_until("the backend has closed them", || {
        connections(&server, backend.address) == [Some(0.0), Some(0.0)]
    });
}

/// One connection, whose streams come and go.
#[test]
fn connections_over_http2_are_idle_without_streams() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let near = server("", "", backend.address);
    let far = server("", "upstream = \"h2c\"", near.address());
    let clients: Vec<_> = (0..3).map(|_| ask(&far)).collect();
    backend.await_requests(3);
    assert_eq!(connections(&far, near.address()), [Some(1.0), Some(0.0)]);
    gate.open();
    answered(clients);
    wait_until("it is kept", || {
        connections(&far, near.address()) == [Some(0.0), Some(1.0)]
    });
    let address = near.address();
    near.drain();
    wait_until("it is over", || {
        connections(&far, address) == [Some(0.0), Some(0.0)]
    });
}

#[test]
fn what_compression_saves_is_counted() {
    let backend = Backend::start("b");
    let body = "the same again and again, ".repeat(400);
    backend.usually(vec![
        Step::Request,
        Step::send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )),
    ]);
    let server = server("", "compress = \"on\"", backend.address);
    let mut sent = 0;
    for (accepted, codings) in [("gzip", 1), ("gzip", 1), ("br", 1), ("identity", 0)] {
        let mut client = Client::plain(server.address());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accepted}\r\n\r\n"
        ));
        let answer = client.response().expect("it is answered");
        assert_eq!(
            answer.field("content-encoding").is_some(),
            codings == 1,
            "{accepted}"
        );
        if accepted == "gzip" {
            sent += answer.body.len();
        }
    }
    let of = |name: &str, coding: &str| {
        let labels = format!("{{service=\"web\",coding=\"{coding}\"}}");
        server.metric(&format!("evenkeel_{name}_total{labels}"))
    };
    assert_eq!(of("compressed_responses", "gzip"), Some(2.0));
    assert_eq!(of("compressed_responses", "br"), Some(1.0));
    assert_eq!(of("compressed_responses", "zstd"), None);
    assert_eq!(
        bounded(&server, "of=\"coders\""),
        [Some(0.0), Some(256.0), Some(1.0)]
    );
    let whole = of("compression_uncompressed_bytes", "gzip");
    assert_eq!(whole, Some(2.0 * body.len() as f64));
    let small = of("compression_compressed_bytes", "gzip");
    assert_eq!(small, Some(sent as f64));
    assert!(small < whole.map(|bytes| bytes / 5.0), "{small:?}");
}

#[test]
fn what_a_retry_saved_or_a_backend_said_has_not_failed() {
    let backend = Backend::start("b");
    let busy = Backend::start("c");
    busy.usually(vec![
        Step::Request,
        Step::send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let service = |name: &str, addresses: &[SocketAddr]| {
        let addresses: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        format!(
            "[[service]]\nname = \"{name}\"\ndiscover = {{ static = [{}] }}\n\
             [[route]]\nhost = \"{name}.test\"\nservice = \"{name}\"\n",
            addresses.join(", ")
        )
    };
    let server = Server::in_process(&format!(
        "workers = 1\n\
         [[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}{}{}",
        service("saved", &[backend.address, nobody()]),
        service("lost", &[nobody()]),
        service("busy", &[busy.address]),
    ));
    let status = |host: &str| {
        let answer = Client::plain(server.address()).get(host, "/");
        answer.expect("it is answered").status()
    };
    for _ in 0..4 {
        assert_eq!(status("saved.test"), 200);
    }
    assert_eq!((status("lost.test"), status("busy.test")), (503, 503));
    let counted = |name: &str, service: &str| {
        let labels = format!("{{service=\"{service}\",reason=\"connect_failed\"}}");
        server.metric(&format!("evenkeel_{name}_total{labels}"))
    };
    assert!(
        counted("upstream_errors", "saved") > Some(0.0),
        "it was tried"
    );
    for (service, failed) in [("saved", 0.0), ("lost", 1.0), ("busy", 0.0)] {
        assert_eq!(
            counted("failed_requests", service),
            Some(failed),
            "{service}"
        );
    }
}
