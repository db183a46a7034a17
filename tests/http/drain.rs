//! How the process ends: drains under traffic, second signals, exit codes.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::version::TLS13;
use tokio::time::Instant;

use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, NoResponse, tls_config};
use crate::support::server::{Server, binary, output};
use crate::support::{Gate, pause, require, wait_until};
use crate::{Site, curl};

const SOON: Duration = Duration::from_secs(10);

/// A site that waits for half a second before it closes its listeners.
fn hasty(backend: &Backend) -> Site {
    Site::start(
        backend,
        "[drain]\nwait = \"500ms\"\nrequests = \"5s\"\nstreams = \"6s\"\n",
    )
}

/// Clients that keep their connections until they are told to close, clients that open one for
/// every request as long as nobody could know better, and one request that takes its time: TERM
/// fails none of them.
#[test]
fn a_drain_under_traffic_loses_nothing() {
    let backend = Backend::start("b");
    let mut site = Site::start(&backend, "[drain]\nwait = \"2s\"\n");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let (secure, plain) = (site.server.addresses[0], site.server.addresses[1]);
    let answered = Arc::new(AtomicUsize::new(0));
    let draining = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..4 {
        let (config, answered) = (Arc::clone(&config), Arc::clone(&answered));
        clients.push(std::thread::spawn(move || {
            let mut client = match n % 2 {
                0 => Client::plain(plain),
                _ => Client::tls(secure, &config, "localhost").expect("it is TLS"),
            };
            for i in 0.. {
                let path = format!("/{n}/{i}");
                let response = match i % 2 {
                    0 => client.get("localhost", &path),
                    _ => {
                        client.send(format!(
                            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                        ));
                        client.response()
                    }
                };
                let response = response.unwrap_or_else(|no| panic!("{path}: {no:?}"));
                assert_eq!(response.status(), 200, "{path}");
                assert!(response.text().contains(&format!(" {path} ")), "{path}");
                answered.fetch_add(1, Ordering::SeqCst);
                if response.field("connection") == Some("close") {
                    assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
                    return;
                }
            }
        }));
    }
    for n in 4..6 {
        let (config, answered) = (Arc::clone(&config), Arc::clone(&answered));
        let draining = Arc::clone(&draining);
        clients.push(std::thread::spawn(move || {
            for i in 0.. {
                if draining.load(Ordering::SeqCst) {
                    return;
                }
                let path = format!("/{n}/{i}");
                let mut client = match n % 2 {
                    0 => Client::plain(plain),
                    _ => Client::tls(secure, &config, "localhost").expect("it is TLS"),
                };
                let response = client.get("localhost", &path);
                let response = response.unwrap_or_else(|no| panic!("{path}: {no:?}"));
                assert_eq!(response.status(), 200, "{path}");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    wait_until("traffic flows", || answered.load(Ordering::SeqCst) > 300);
    // A request that is under way for longer than everything else.
    let gate = Gate::new();
    let mut slow = Client::plain(plain);
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow one is with the backend", || {
        backend
            .look()
            .iter()
            .any(|r| r.bytes.starts_with(b"GET /slow "))
    });
    backend.usually(vec![Step::Echo]);

    let before = answered.load(Ordering::SeqCst);
    site.server.drain();
    // Still accepting, for longer than a connect takes on a busy machine.
    pause(Duration::from_millis(300));
    draining.store(true, Ordering::SeqCst);
    // Those that came upon the backend while it waited for the gate are let go as well.
    wait_until("the listener closes", || {
        std::net::TcpStream::connect(plain).is_err()
    });
    gate.open();
    for client in clients {
        if let Err(panic) = client.join() {
            std::panic::resume_unwind(panic);
        }
    }
    assert!(
        answered.load(Ordering::SeqCst) > before,
        "it went on while draining"
    );
    let response = slow.response().expect("the slow one is answered");
    assert_eq!(response.text(), "GET /slow ");
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(site.server.process().exit_code(SOON), Some(0));
}

/// The same with curl, one process per request until the drain was announced.
#[test]
fn curl_does_not_notice_the_beginning_of_a_drain() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b");
    // On a busy machine a curl takes its time to start: the last one begins long before the end.
    let mut site = Site::start(&backend, "[drain]\nwait = \"5s\"\n");
    let url = site.url("/c");
    site.server.drain();
    let begun = Instant::now();
    let mut count = 0;
    while count < 4 || begun.elapsed() < Duration::from_millis(1_200) {
        let seen = output(curl(&site.certificate.ca).arg(&url));
        assert!(
            seen.status.success(),
            "{}",
            String::from_utf8_lossy(&seen.stderr)
        );
        count += 1;
    }
    assert!(count > 3, "{count}");
    assert_eq!(site.server.process().exit_code(SOON), Some(0));
}

/// Probes say that it drains while it still serves.
#[test]
fn a_drain_is_announced_before_it_bites() {
    let backend = Backend::start("b");
    let mut site = Site::start(&backend, "[drain]\nwait = \"3s\"\n");
    let probe = site
        .server
        .probe
        .expect("there is one unless it is switched off");
    let ask = |path| Client::plain(probe).get("127.0.0.1", path);
    wait_until("it is ready", || {
        ask("/readyz").is_ok_and(|r| r.status() == 200)
    });
    site.server.drain();
    wait_until("it is not ready any more", || {
        ask("/readyz").is_ok_and(|r| r.status() == 503)
    });
    assert_eq!(ask("/livez").expect("it lives").status(), 200);
    let mut client = Client::plain(site.server.addresses[1]);
    let response = client.get("a", "/p").expect("it still serves");
    assert_eq!(response.text(), "GET /p ");
    assert_eq!(site.server.process().exit_code(SOON), Some(0));
}

/// A connection that is idle in a drain may still send a request; then it is told to close. One
/// that sends nothing is closed, and none of this is a failure.
#[test]
fn idle_connections_are_closed_last() {
    let backend = Backend::start("b");
    let mut site = hasty(&backend);
    let plain = site.server.addresses[1];
    let (mut busy, mut idle) = (Client::plain(plain), Client::plain(plain));
    for client in [&mut busy, &mut idle] {
        client.get("a", "/1").expect("it is answered");
    }
    site.server.drain();
    wait_until("the listener closes", || {
        std::net::TcpStream::connect(plain).is_err()
    });
    let response = busy.get("a", "/2").expect("it is answered");
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(idle.rest(), Ok((Vec::new(), End::Closed)));
    assert_eq!(site.server.process().exit_code(SOON), Some(0));
}

/// Exit code 3: a request was still under way when its time was over.
#[test]
fn a_drain_has_a_deadline() {
    let backend = Backend::start("b");
    let mut site = Site::start(
        &backend,
        "[drain]\nwait = \"100ms\"\nrequests = \"500ms\"\nstreams = \"1s\"\n",
    );
    backend.usually(vec![Step::Request, Step::AwaitClose]);
    let mut client = Client::plain(site.server.addresses[1]);
    client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.await_requests(1);
    // A stream gets its own time.
    backend.next(vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
        Step::AwaitClose,
    ]);
    let mut stream = Client::plain(site.server.addresses[1]);
    stream.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = stream.exactly(40).expect("it begins");
    assert!(head.ends_with(b"\r\n\r\nab"));
    let begun = Instant::now();
    site.server.drain();
    let response = client.response().expect("it is told");
    assert_eq!(response.status(), 503);
    let (first, second) = (begun.elapsed(), stream.rest());
    assert!(
        matches!(second, Ok((ref bytes, _)) if bytes.is_empty()),
        "{second:?}"
    );
    assert!(begun.elapsed() > first + Duration::from_millis(200));
    assert_eq!(site.server.process().exit_code(SOON), Some(3));
}

/// What was under way was answered, with a 503 of our own: that is cut off too.
#[test]
fn a_request_that_is_cut_off_shows_in_the_exit_code() {
    let backend = Backend::start("b");
    let times = "[drain]\nwait = \"100ms\"\nrequests = \"500ms\"\nstreams = \"20s\"\n";
    let mut site = Site::start(&backend, times);
    backend.usually(vec![Step::Request, Step::AwaitClose]);
    let mut client = Client::plain(site.server.addresses[1]);
    client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.await_requests(1);
    site.server.drain();
    assert_eq!(client.response().expect("it is told").status(), 503);
    assert_eq!(site.server.process().exit_code(SOON), Some(3));
}

#[test]
fn a_second_signal_ends_at_once() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let backend = Backend::start("b");
        let mut site = Site::start(&backend, "");
        backend.usually(vec![Step::Request, Step::AwaitClose]);
        let mut client = Client::plain(site.server.addresses[1]);
        client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
        backend.await_requests(1);
        let process = site.server.process();
        process.signal(signals[0]);
        wait_until("it drains", || {
            process.log().iter().any(|l| l.contains("draining"))
        });
        assert!(process.is_running());
        process.signal(signals[1]);
        let begun = Instant::now();
        assert_eq!(process.exit_code(SOON), Some(3));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        match client.rest() {
            Ok(_) | Err(NoResponse::Ended(..)) => {}
            Err(no) => panic!("{no:?}"),
        }
    }
}

/// It says that something was cut off, so it must not say so of nothing.
#[test]
fn a_second_signal_with_nothing_under_way_is_a_good_end() {
    let backend = Backend::start("b");
    let mut site = Site::start(&backend, "");
    let mut client = Client::plain(site.server.addresses[1]);
    assert_eq!(client.get("a", "/").expect("it is answered").status(), 200);
    let process = site.server.process();
    process.signal(Signal::TERM);
    wait_until("it drains", || {
        process.log().iter().any(|l| l.contains("draining"))
    });
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(SOON), Some(0));
    let log = process.log();
    assert!(
        !log.iter().any(|l| l.contains("still under way")),
        "{log:?}"
    );
}

/// 0 fine, 1 start-up or configuration, 2 usage.
#[test]
fn exit_codes() {
    let backend = Backend::start("b");
    let mut site = Site::start(&backend, "[drain]\nwait = \"0s\"\n");
    let taken = site.server.addresses[1];
    let folder = crate::support::server::Folder::new();
    let run = |command: &mut Command| {
        let output = output(command);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let good = format!(
        "[[listener]]\naddress = \"{taken}\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"b\"\ndiscover = {{ static = [\"127.0.0.1:1\"] }}\n\
         [[route]]\nservice = \"b\"\n[probe]\naddress = \"off\"\n"
    );
    let file = folder.write("good.toml", &good);
    let (code, text) = run(binary().arg("run").arg("-c").arg(&file));
    assert_eq!(code, Some(1), "a port that is taken: {text}");
    assert!(text.contains(&taken.to_string()), "{text}");

    let file = folder.write("bad.toml", &good.replace("protocol", "protokol"));
    let (code, text) = run(binary().arg("run").arg("-c").arg(&file));
    assert_eq!(code, Some(1), "a key that is none: {text}");
    assert!(text.contains("protokol"), "{text}");

    let (code, text) = run(binary().arg("run").arg("-c").arg("/nonexistent.toml"));
    assert_eq!(code, Some(1), "no such file: {text}");

    let no_key = good.replace(
        "protocol = \"http\"",
        "protocol = \"https\"\ncertificates = [{ cert = \"none.pem\", key = \"none.key\" }]",
    );
    let file = folder.write(
        "keyless.toml",
        &no_key.replace(&taken.to_string(), "127.0.0.1:0"),
    );
    let (code, text) = run(binary().arg("run").arg("-c").arg(&file));
    assert_eq!(code, Some(1), "no such certificate: {text}");

    let (code, text) = run(binary().arg("run").arg("--nonsense"));
    assert_eq!(code, Some(2), "usage: {text}");

    site.server.drain();
    assert_eq!(
        site.server.process().exit_code(SOON),
        Some(0),
        "nothing was under way"
    );
    let again = Server::binary(&good.replace("127.0.0.1:1\"", &format!("{}\"", backend.address)));
    let mut client = Client::plain(again.address());
    assert_eq!(
        client.get("a", "/").expect("the port is free again").text(),
        "GET / "
    );
}

/// A signal that comes as soon as anybody can know that we are there drains, too.
#[test]
fn a_signal_right_after_the_start_drains() {
    let backend = Backend::start("b");
    for _ in 0..10 {
        let mut site = Site::start(&backend, "[drain]\nwait = \"0s\"\n");
        site.server.drain();
        assert_eq!(site.server.process().exit_code(SOON), Some(0));
    }
}
