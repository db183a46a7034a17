//! What each backend may have in flight, and the line in front of them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::series;
use crate::support::Gate;
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{lock, pause, wait_until};

fn server(backends: &[(SocketAddr, u16)], more: &str) -> Server {
    let list: Vec<_> = backends
        .iter()
        .map(|(address, priority)| format!("{{ address = \"{address}\", priority = {priority} }}"))
        .collect();
    Server::in_process(&format!(
        r#"
        workers = 3
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        {more}
        [[route]]
        service = "web"
        "#,
        list.join(", "),
    ))
}

/// A client whose request is under way.
fn begin(server: &Server, number: usize) -> Client {
    let mut client = Client::plain(server.address());
    client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// Requests that wait in line.
fn waiting(server: &Server) -> usize {
    let all = series(server, "evenkeel_bounded{of=\"queue\",service=\"web\"");
    all.first().map_or(0, |(_, value)| *value as usize)
}

fn status(client: &mut Client) -> u16 {
    client.response().expect("it is answered").status()
}

#[test]
fn the_bound_holds_in_the_whole_process_and_the_line_is_first_come_first_served() {
    let backend = Backend::start("b");
    let gates: Vec<_> = (0..8).map(|_| Gate::new()).collect();
    for gate in &gates {
        backend.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    }
    let server = server(&[(backend.address, 0)], "max_in_flight = 2");
    let mut clients = Vec::new();
    for number in 0..2 {
        clients.push(begin(&server, number));
        backend.await_requests(number + 1);
    }
    for number in 2..8 {
        clients.push(begin(&server, number));
        wait_until("it waits in line", || waiting(&server) == number - 1);
    }
    assert_eq!(backend.requests(), 2);
    for number in 0..8 {
        gates[number].open();
        assert_eq!(status(&mut clients[number]), 200);
        wait_until("the next one is let in", || {
            backend.requests() >= (number + 3).min(8)
        });
        assert!(backend.requests() <= number + 3, "no more than two at once");
    }
    let received = backend.take();
    let targets = received
        .iter()
        .map(|received| received.whole.as_ref().expect("it came whole"));
    let order: Vec<_> = targets.map(|request| request.target().to_owned()).collect();
    let expected: Vec<_> = (0..8).map(|number| format!("/{number}")).collect();
    assert_eq!(order, expected);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let limits = "max_in_flight = 1\nqueue_timeout = \"300ms\"";
    let server = server(&[(backend.address, 0)], limits);
    let mut first = begin(&server, 0);
    backend.await_requests(1);
    let answer = begin(&server, 1).response().expect("it is answered");
    assert_eq!(answer.status(), 503);
    assert!(answer.field("retry-after").is_some());
    gate.open();
    assert_eq!(status(&mut first), 200);
    assert_eq!(backend.requests(), 1);
}

#[test]
fn the_line_is_bounded() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let limits = "max_in_flight = 1\nmax_queue = 2\nqueue_timeout = \"20s\"";
    let server = server(&[(backend.address, 0)], limits);
    let mut clients = vec![begin(&server, 0)];
    backend.await_requests(1);
    for number in 1..3 {
        clients.push(begin(&server, number));
        wait_until("it waits in line", || waiting(&server) == number);
    }
    assert_eq!(status(&mut begin(&server, 3)), 503, "there is no room");
    gate.open();
    for client in &mut clients {
        assert_eq!(status(client), 200);
    }
}

#[test]
fn after_the_line_comes_the_next_tier() {
    let (primary, standby) = (Backend::start("primary"), Backend::start("standby"));
    let gate = Gate::new();
    primary.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let backends = [(primary.address, 0), (standby.address, 10)];
    let server = server(&backends, "max_in_flight = 1\nqueue_timeout = \"100ms\"");
    let mut first = begin(&server, 0);
    primary.await_requests(1);
    assert_eq!(status(&mut begin(&server, 1)), 200);
    assert_eq!(standby.requests(), 1);
    gate.open();
    assert_eq!(status(&mut first), 200);
}

#[test]
fn a_client_that_leaves_the_line_takes_nobodys_turn() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let server = server(&[(backend.address, 0)], "max_in_flight = 1");
    let mut first = begin(&server, 0);
    backend.await_requests(1);
    let leaving = begin(&server, 1);
    wait_until("it waits in line", || waiting(&server) == 1);
    let mut last = begin(&server, 2);
    wait_until("it waits in line", || waiting(&server) == 2);
    drop(leaving);
    gate.open();
    assert_eq!(status(&mut first), 200);
    assert_eq!(status(&mut last), 200);
    wait_until("nobody waits", || waiting(&server) == 0);
}

/// What waits in line is not the backend's time: with a line the limit stays where the backend can
/// do with it.
#[test]
fn a_line_does_not_lower_the_limit_that_is_found_out() {
    let backend = of_ten();
    let server = server(&[(backend.address, 0)], "adaptive = { min = 2, max = 10 }");
    std::thread::scope(|scope| {
        for number in 0..40 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..30 {
                    assert_eq!(status(&mut begin(server, number)), 200);
                }
            });
        }
    });
    let all = series(&server, "evenkeel_bounded_limit{of=\"in_flight\"");
    let limit = all.first().expect("it is there").1;
    assert!(limit >= 8.0, "{limit}");
}

/// Responses that go on for ever hold no place: those who come later are served.
#[test]
fn streams_do_not_shut_others_out() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    let begins = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    for _ in 0..10 {
        backend.next(vec![
            Step::Request,
            Step::send(begins),
            Step::Wait(gate.clone()),
            Step::Close,
        ]);
    }
    let limits = "adaptive = { min = 2, max = 4 }\nmax_queue = 0";
    let server = server(&[(backend.address, 0)], limits);
    let mut streams = Vec::new();
    for number in 0..10 {
        let mut client = begin(&server, number);
        let received = client.exactly(12).expect("it has begun");
        assert_eq!(received, b"HTTP/1.1 200");
        streams.push(client);
    }
    assert_eq!(status(&mut begin(&server, 10)), 200);
    gate.open();
}

/// If a slot came free without anybody being told, the first in line would look a tenth of a second
/// later: 1,280 times that is longer than anybody waits here.
#[test]
fn no_turn_is_lost_between_workers() {
    let backend = Backend::start("b");
    let server = server(&[(backend.address, 0)], "max_in_flight = 1");
    std::thread::scope(|scope| {
        for client in 0..32 {
            let server = &server;
            scope.spawn(move || {
                for request in 0..40 {
                    assert_eq!(status(&mut begin(server, client * 100 + request)), 200);
                }
            });
        }
    });
    assert_eq!(backend.requests(), 1_280);
}

/// A backend that has ten requests in hand at once, 20 ms each; whatever is more queues inside it.
fn of_ten() -> Backend {
    let hands = std::sync::Arc::new((std::sync::Mutex::new(10), std::sync::Condvar::new()));
    let work = move || {
        let (free, freed) = &*hands;
        let mut guard = freed
            .wait_while(lock(free), |free| *free == 0)
            .expect("nobody panics");
        *guard -= 1;
        drop(guard);
        pause(Duration::from_millis(20));
        *lock(free) += 1;
        freed.notify_one();
    };
    let backend = Backend::start("of ten");
    backend.usually(vec![
        Step::Request,
        Step::Call(std::sync::Arc::new(work)),
        Step::Echo,
    ]);
    backend
}

/// What is in flight follows what the backend can do: printed, and bounded on both sides.
#[test]
fn a_limit_that_is_found_out_by_latency() {
    let backend = of_ten();
    let server = server(
        &[(backend.address, 0)],
        "adaptive = { min = 2 }\nmax_queue = 0",
    );
    let limit = || {
        let all = series(&server, "evenkeel_bounded_limit{of=\"in_flight\"");
        all.first().expect("it is there").1
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        // Calm at first, so that the usual latency is known.
        for number in 0..60 {
            assert_eq!(status(&mut begin(&server, number)), 200);
        }
        let crowd: Vec<_> = (0..80)
            .map(|number| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut refused = 0;
                    while !is_over() {
                        match status(&mut begin(server, number)) {
                            200 => {}
                            503 => {
                                refused += 1;
                                pause(Duration::from_millis(20));
                            }
                            other => panic!("{other}"),
                        }
                    }
                    refused
                })
            })
            .collect();
        let begun = tokio::time::Instant::now();
        wait_until("the limit has come down", || {
            limit() < 35.0 || begun.elapsed() > Duration::from_secs(15)
        });
        let found = limit();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let refused: usize = crowd.into_iter().map(|c| c.join().expect("it ends")).sum();
        println!(
            "found {found} after {:?}, {refused} refused",
            begun.elapsed()
        );
        assert!((5.0..35.0).contains(&found), "{found}");
        assert!(refused > 0);
    });
}

/// A client that authenticates its connection has one to the backend for itself, and waits in line
/// like everybody else.
#[test]
fn the_bound_holds_for_connections_of_one_client_too() {
    let backend = Backend::start("b");
    let server = server(&[(backend.address, 0)], "max_in_flight = 1");
    let mut clients: Vec<_> = (0..4)
        .map(|number| {
            let mut client = Client::plain(server.address());
            client.send(format!(
                "GET /{number} HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM abc\r\n\r\n"
            ));
            assert_eq!(status(&mut client), 200);
            client
        })
        .collect();
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let before = backend.requests();
    for client in &mut clients {
        client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("three wait in line", || waiting(&server) == 3);
    wait_until("one is there", || backend.requests() > before);
    assert_eq!(backend.requests() - before, 1);
    gate.open();
    for client in &mut clients {
        assert_eq!(status(client), 200);
    }
}
