//! Time over HTTP/2: how long a client may take for its request, and how long it wants to wait for the
//! response.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use crate::bodies::Behind;
use crate::frames::*;
use crate::peers;
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::support::server::{Folder, Server};
use crate::support::{Gate, wait_until};
use crate::{config, ejecting, metric};

const DEADLINE_EXCEEDED: &str = "4";

/// A call that goes on.
fn call<'a>(stream: u32, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let mut fields = request("POST", path).to_vec();
    fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    fields.extend(more);
    headers(stream, 0, &fields)
}

/// A message, and no more.
fn message(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, [0; 5])
}

/// `body_timeout` ends a request whose client stops, over HTTP/2 as over HTTP/1.1; a call by gRPC, in
/// which it may be nobody's turn, is another matter.
#[test]
fn a_body_that_stops_is_not_waited_for() {
    let h1 = Backend::start("b");
    let h2 = peers::Backend::start(peers::echo);
    for behind in [Behind::H1(h1), Behind::H2(h2)] {
        let server = behind.server("body_timeout = \"1s\"", "");
        let mut old = Client::plain(server.address());
        old.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabc");
        let mut peer = Peer::connect(server.address());
        // It is silent from before the others are to after their end.
        peer.send(call(1, "/a.B/C", &[]));
        peer.send(frame(DATA, 0, 1, b"abc"));
        let mut told = request("POST", "/").to_vec();
        told.push(("content-length", "100"));
        peer.send(headers(3, 0, &told));
        peer.send(frame(DATA, 0, 3, b"abc"));
        peer.send(headers(5, 0, &request("POST", "/")));
        peer.send(frame(DATA, 0, 5, b"abc"));
        peer.send(headers(7, 0, &request("POST", "/")));
        for stream in [3, 5, 7] {
            assert_eq!(peer.over(stream).status(), Some(408), "{stream}");
        }
        assert_eq!(old.response().expect("it is told").status(), 408);
        peer.send(frame(DATA, END_STREAM, 1, b"def"));
        let came = peer.over(1);
        assert_eq!(came.status(), Some(200), "{came:?}");
        assert_eq!(came.data, b"POST /a.B/C abcdef");
    }
}

/// A client's deadline that is shorter than a backend takes is no fault of that backend's.
#[test]
fn a_deadline_of_the_clients_is_not_held_against_the_backend() {
    let backend = || {
        peers::Backend::start(|mut call| async move {
            match call.request.uri().path() {
                "/a.B/Never" => std::future::pending().await,
                _ => call.answer(200),
            }
        })
    };
    let backends = [backend(), backend()];
    let addresses = backends.each_ref().map(|b| b.address);
    let server = Server::in_process(&ejecting(
        &config("h2c", &addresses, "", ""),
        "failures = 3, success_rate = 0",
    ));
    let mut peer = Peer::connect(server.address());
    for n in 0..20 {
        let stream = 2 * n + 1;
        peer.send(call(stream, "/a.B/Never", &[("grpc-timeout", "20m")]));
        peer.send(message(stream));
        let came = peer.over(stream);
        assert_eq!(
            came.field("grpc-status").as_deref(),
            Some(DEADLINE_EXCEEDED)
        );
    }
    for stream in [101, 103, 105, 107] {
        peer.send(call(stream, "/a.B/C", &[])).send(message(stream));
        assert_eq!(peer.over(stream).status(), Some(200));
    }
    for address in addresses {
        let series = format!(
            "evenkeel_backend_ejections_total{{service=\"web\",backend=\"{address}\",reason=\"failures\"}}"
        );
        assert_eq!(metric(&server, &series).unwrap_or_default(), 0.0);
    }
}

/// Passes on what comes to `address` and back, once the gate is open.
fn relay(gate: &Gate, address: SocketAddr, near: TcpStream) {
    fn copy(mut from: &TcpStream, mut to: &TcpStream) {
        let mut room = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut room) {
            if to.write_all(&room[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
    if !gate.pass() {
        return;
    }
    let Ok(far) = TcpStream::connect(address) else {
        return;
    };
    let (back, to) = (far.try_clone(), near.try_clone());
    let (Ok(back), Ok(to)) = (back, to) else {
        return;
    };
    let returning = std::thread::spawn(move || copy(&back, &to));
    copy(&near, &far);
    let _ = returning.join();
}

/// A connection is made for all who wait for it, in the time that the service has for that: that of one
/// client who is in a hurry ends its own call only.
#[test]
fn one_client_in_a_hurry_fails_nobody_else() {
    let folder = Folder::new();
    let certificate = folder.certificate("backend", &["localhost"]);
    let echo = peers::Backend::start(peers::echo);
    // In front of it somebody who speaks HTTP/2 over TLS, and does so late.
    let secure = Server::in_process(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
         certificates = [{}]\n[[service]]\nname = \"echo\"\nupstream = \"h2c\"\n\
         discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"echo\"\n",
        certificate.entry(),
        echo.address
    ));
    let (gate, address) = (Gate::new(), secure.address());
    let late = gate.clone();
    let backend = Backend::custom("late", move |tcp| relay(&late, address, tcp));
    let more = format!(
        "tls = {{ ca = {:?}, name = \"localhost\" }}\ntls_timeout = \"15s\"",
        certificate.ca
    );
    let server = Server::in_process(&config("h2", &[backend.address], &more, ""));
    let mut peer = Peer::connect(server.address());
    let mut all = call(1, "/a.B/C", &[("grpc-timeout", "1n")]);
    all.extend(message(1));
    all.extend(get(3, "/3"));
    for stream in [5, 7] {
        all.extend(call(stream, "/a.B/C", &[("grpc-timeout", "1n")]));
        all.extend(message(stream));
    }
    all.extend(get(9, "/9"));
    peer.send(all);
    for stream in [1, 5, 7] {
        let came = peer.over(stream);
        assert_eq!(
            came.field("grpc-status").as_deref(),
            Some(DEADLINE_EXCEEDED)
        );
    }
    wait_until("the connection is being made", || backend.connections() > 0);
    gate.open();
    for (stream, body) in [(3, "GET /3 "), (9, "GET /9 ")] {
        let came = peer.over(stream);
        assert_eq!((came.status(), &*came.data), (Some(200), body.as_bytes()));
    }
    assert_eq!(backend.connections(), 1);
}

/// A client that resets its stream while its request finds out whether an ejected backend is back leaves
/// that to the next one.
#[test]
fn who_leaves_a_trial_leaves_it_to_another() {
    let folder = Folder::new();
    let certificate = folder.certificate("backend", &["localhost"]);
    let named = |name: &'static str| {
        let answering = peers::Backend::start(move |mut call| async move {
            call.answer_with(name).await;
        });
        let secure = Server::in_process(&format!(
            "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificates = [{}]\n[[service]]\nname = \"named\"\nupstream = \"h2c\"\n\
             discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"named\"\n",
            certificate.entry(),
            answering.address
        ));
        (secure, answering)
    };
    let ((sick, _a), (sound, _b)) = (named("sick"), named("sound"));
    let (is_back, gate, address) = (Gate::new(), Gate::new(), sick.address());
    let (back, late) = (is_back.clone(), gate.clone());
    let backend = Backend::custom("sick", move |tcp| {
        if back.is_open() {
            relay(&late, address, tcp);
        }
    });
    let more = format!(
        "tls = {{ ca = {:?}, name = \"localhost\" }}\ntls_timeout = \"15s\"",
        certificate.ca
    );
    let addresses = [backend.address, sound.address()];
    let server = Server::in_process(&ejecting(
        &config("h2", &addresses, &more, ""),
        "failures = 1, success_rate = 0, time = \"200ms\", max_time = \"200ms\"",
    ));
    let labels = format!("service=\"web\",backend=\"{}\"", backend.address);
    let mut peer = Peer::connect(server.address());
    let mut stream = 1;
    let ejections = format!("evenkeel_backend_ejections_total{{{labels},reason=\"failures\"}}");
    while metric(&server, &ejections) != Some(1.0) {
        peer.send(get(stream, "/"));
        assert_eq!(
            peer.over(stream).status(),
            Some(200),
            "there is another one"
        );
        stream += 2;
    }
    let before = backend.connections();
    is_back.open();
    // Until one of them is the trial, which is held up.
    peer.patience(std::time::Duration::from_millis(5));
    wait_until("the backend is tried", || {
        if peer.came.get(&stream).is_some_and(Came::is_over) {
            stream += 2;
        }
        if !peer.came.contains_key(&stream) {
            peer.send(get(stream, "/"));
            peer.came.insert(stream, Came::default());
        }
        // An error: nothing came.
        let _ = peer.try_step();
        backend.connections() > before && !peer.came[&stream].is_over()
    });
    peer.send(reset(stream, CANCEL));
    let in_flight = format!("evenkeel_backend_in_flight{{{labels}}}");
    wait_until("its client has left", || {
        metric(&server, &in_flight) == Some(0.0)
    });
    gate.open();
    peer.patience(crate::support::PATIENCE);
    // A trial of which nothing is heard would be taken for lost after a while longer than this.
    let begun = Instant::now();
    wait_until("another one finds that it is back", || {
        stream += 2;
        peer.send(get(stream, "/"));
        peer.over(stream).data == b"sick"
    });
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

/// A client that sends, but too slowly on average, is not waited for either.
#[test]
fn a_body_that_trickles_ends() {
    let backend = Backend::start("b");
    backend.usually(vec![Step::Request, Step::Echo]);
    // Five seconds of waiting are forgiven; the most that is asked for leaves no more than that.
    let more = "min_rate = \"100M\"";
    let server = Server::in_process(&config("http", &[backend.address], more, ""));
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &request("POST", "/")));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = peer.reader();
        scope.spawn({
            let over = &over;
            move || {
                while !over.load(Ordering::SeqCst) {
                    writer.send(frame(DATA, 0, 1, b"x"));
                    crate::support::pause(std::time::Duration::from_millis(100));
                }
            }
        });
        let came = peer.over(1);
        over.store(true, Ordering::SeqCst);
        assert_eq!(came.status(), Some(408));
    });
}
