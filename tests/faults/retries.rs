//! What is tried again, where, for how long and at what price.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::state;
use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wire::Message;
use crate::support::{pause, wait_until};

/// A server in front of these backends (address, priority), with more lines for the service.
fn server(backends: &[(SocketAddr, u16)], more: &str) -> Server {
    let list: Vec<_> = backends
        .iter()
        .map(|(address, priority)| format!("{{ address = \"{address}\", priority = {priority} }}"))
        .collect();
    Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        strategy = "cycle"
        discover = {{ static = [{}] }}
        {more}
        [[route]]
        service = "web"
        "#,
        list.join(", "),
    ))
}

fn ask(server: &Server, method: &str) -> Message {
    let mut client = Client::plain(server.address());
    client.send(format!(
        "{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    ));
    client.response().expect("it is answered")
}

/// A GET without a body.
fn get(server: &Server) -> u16 {
    let answer = Client::plain(server.address()).get("a", "/x");
    answer.expect("it is answered").status()
}

fn answers(status: &str) -> Vec<Step> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nmine");
    vec![Step::Request, Step::send(text)]
}

fn after(time: Duration, then: Step) -> Vec<Step> {
    vec![
        Step::Request,
        Step::Call(Arc::new(move || pause_for(time))),
        then,
    ]
}

/// `park_timeout` may return early.
fn pause_for(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        pause(time.saturating_sub(begun.elapsed()));
    }
}

#[test]
fn there_is_one_deadline_for_all_attempts() {
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    first.usually(after(Duration::from_millis(1_500), Step::Reset));
    second.usually(vec![Step::Request, Step::AwaitClose]);
    let backends = [(first.address, 0), (second.address, 1)];
    let server = server(&backends, "response_timeout = \"2s\"");
    let begun = Instant::now();
    let answer = ask(&server, "GET");
    // Two attempts with 2 s each would have taken 3.5 s.
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(answer.status(), 504);
    assert_eq!(second.requests(), 1, "it was tried");
}

#[test]
fn connects_have_no_more_than_is_left_either() {
    let first = Backend::start("first");
    first.usually(after(Duration::from_millis(700), Step::Reset));
    // A listener whose queue is full answers no connect: what else is silent on loopback?
    let silent =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let anywhere: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    silent.bind(&anywhere.into()).expect("loopback has ports");
    silent.listen(0).expect("it is bound");
    let full = silent
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an address");
    let held: Vec<_> = (0..4)
        .filter_map(|_| {
            std::net::TcpStream::connect_timeout(&full, Duration::from_millis(100)).ok()
        })
        .collect();
    let timing = "response_timeout = \"1s\"\nconnect_timeout = \"10s\"";
    let server = server(&[(first.address, 0), (full, 1)], timing);
    let begun = Instant::now();
    let answer = ask(&server, "GET");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!([503, 504].contains(&answer.status()), "{}", answer.status());
    drop(held);
}

#[test]
fn an_attempt_that_takes_too_long_goes_elsewhere_if_it_may() {
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    first.usually(vec![Step::Request, Step::AwaitClose]);
    let backends = [(first.address, 0), (second.address, 1)];
    let server = server(&backends, "try_timeout = \"200ms\"");
    let answer = ask(&server, "PUT");
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "PUT /x hi")
    );
    assert_eq!((first.requests(), second.requests()), (1, 1));

    let server = self::server(&backends, "try_timeout = \"200ms\"");
    assert_eq!(ask(&server, "POST").status(), 504);
    assert_eq!(second.requests(), 1, "a POST is not sent twice");
}

#[test]
fn responses_that_are_tried_again() {
    let rows = [
        // method, budget per second, (first, second) → status, whose, attempts
        ("GET", 10, ["503 No", "200 OK"], 200, 2),
        ("POST", 10, ["503 No", "200 OK"], 503, 1),
        ("GET", 10, ["500 No", "200 OK"], 500, 1),
        // What the last one says is passed on.
        ("GET", 10, ["503 No", "503 No"], 503, 2),
        // What cannot be paid for is passed on.
        ("GET", 0, ["503 No", "200 OK"], 503, 1),
    ];
    for (method, budget, statuses, expected, attempts) in rows {
        let backends = ["first", "second"].map(Backend::start);
        for (backend, status) in backends.iter().zip(statuses) {
            backend.usually(answers(status));
        }
        let rule = format!("{method} {statuses:?} budget {budget}");
        let more = format!(
            "retry_on = {{ status = [502, 503] }}\nretry_budget_percent = 0\n\
             retry_budget_per_second = {budget}"
        );
        let all = [(backends[0].address, 0), (backends[1].address, 1)];
        let answer = ask(&server(&all, &more), method);
        assert_eq!(answer.status(), expected, "{rule}");
        assert_eq!(answer.text(), "mine", "{rule}: it is the backend's own");
        let made = backends.iter().map(Backend::requests).sum::<usize>();
        assert_eq!(made, attempts, "{rule}");
    }
}

#[test]
fn with_nobody_else_to_ask_the_response_is_passed_on() {
    let backend = Backend::start("alone");
    backend.usually(answers("503 No"));
    let server = server(&[(backend.address, 0)], "retry_on = { status = [503] }");
    let answer = ask(&server, "GET");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "mine"));
    assert_eq!(backend.requests(), 1);
}

#[test]
fn tried_backends_first_then_the_next_tier() {
    let standby = Backend::start("standby");
    let backends = [
        (nobody(), 0),
        (nobody(), 0),
        (nobody(), 10),
        (standby.address, 20),
    ];
    let list: Vec<_> = backends
        .iter()
        .map(|(address, priority)| format!("{{ address = \"{address}\", priority = {priority} }}"))
        .collect();
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\ndiscover = {{ static = [{}] }}\n[[route]]\nservice = \"web\"\n",
        list.join(", "),
    ));
    for method in ["GET", "POST"] {
        assert_eq!(ask(&server, method).status(), 200, "{method}");
    }
}

/// A primary that is gone, at whatever rate: the standby has every request.
#[test]
fn a_dead_sole_primary_costs_no_request() {
    let standby = Backend::start("standby");
    let dead = nobody();
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\ndiscover = {{ static = [{{ address = \"{dead}\" }}, \
         {{ address = \"{}\", priority = 10 }}] }}\nejection = {{ time = \"200ms\" }}\n\
         [[route]]\nservice = \"web\"\n",
        standby.address
    ));
    std::thread::scope(|scope| {
        for client in 0..16 {
            let server = &server;
            scope.spawn(move || {
                for request in 0..100 {
                    let method = if (client + request) % 2 == 0 {
                        "GET"
                    } else {
                        "POST"
                    };
                    assert_eq!(ask(server, method).status(), 200);
                }
            });
        }
    });
}

/// The same when it takes connections and never answers: it goes out although it is the only one
/// of its tier, and with it what requests wait for.
#[test]
fn a_sole_primary_that_hangs_gives_way_to_the_standby() {
    let (primary, standby) = (Backend::start("primary"), Backend::start("standby"));
    primary.usually(vec![Step::Request, Step::AwaitClose]);
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\ndiscover = {{ static = [{{ address = \"{}\" }}, \
         {{ address = \"{}\", priority = 10 }}] }}\ntry_timeout = \"100ms\"\n\
         ejection = {{ failures = 3 }}\n[[route]]\nservice = \"web\"\n",
        primary.address, standby.address
    ));
    for _ in 0..3 {
        assert_eq!(ask(&server, "GET").status(), 200);
    }
    wait_until("it is ejected", || {
        state(&server, primary.address).0 == "ejected"
    });
    assert_eq!(state(&server, primary.address).1, "failures");
    let before = primary.requests();
    for _ in 0..10 {
        assert_eq!(ask(&server, "POST").status(), 200);
    }
    assert_eq!(primary.requests(), before, "nothing goes there any more");
}

#[test]
fn one_request_tries_whether_an_ejected_backend_is_back() {
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    first.usually(vec![Step::Request, Step::Reset]);
    let backends = [(first.address, 0), (second.address, 0)];
    let server = server(
        &backends,
        "ejection = { failures = 2, time = \"300ms\", max_time = \"300ms\" }",
    );
    wait_until("it is ejected", || {
        assert_eq!(get(&server), 200);
        state(&server, first.address).0 == "ejected"
    });
    // Still bad: each trial is one request, and that is answered by the other one.
    let before = first.requests();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_000) {
        assert_eq!(get(&server), 200);
    }
    let trials = first.requests() - before;
    assert!((1..=4).contains(&trials), "{trials} trials in a second");
    first.usually(vec![Step::Echo]);
    wait_until("it is back", || {
        assert_eq!(get(&server), 200);
        state(&server, first.address).0 == "up"
    });
}

/// A client that pauses within its body is waited for as `body_timeout` says, and says nothing
/// about the backend.
#[test]
fn a_client_that_is_slow_with_its_body_takes_no_backend_out() {
    let backend = Backend::start("b");
    let standby = Backend::start("standby");
    let backends = [(backend.address, 0), (standby.address, 10)];
    let timing = "try_timeout = \"300ms\"\nresponse_timeout = \"2s\"\nbody_timeout = \"10s\"\n\
                  ejection = { failures = 1 }";
    let server = server(&backends, timing);
    let mut client = Client::plain(server.address());
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhi");
    pause_for(Duration::from_millis(900));
    client.send("ho");
    let answer = client.response().expect("it is answered");
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "POST /x hiho")
    );

    let mut silent = Client::plain(server.address());
    silent.send("POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhi");
    drop(silent);
    assert_eq!(state(&server, backend.address).0, "up");
}

/// With hundreds of backends that are gone a request tries some of them, and is answered.
#[test]
fn a_request_does_not_try_hundreds_that_are_gone() {
    let list: Vec<_> = (0..300)
        .map(|n| format!("\"127.1.{}.{}:1\"", n / 250, n % 250 + 1))
        .collect();
    let server = Server::in_process(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\nstrategy = \"least_connections\"\ndiscover = {{ static = [{}] }}\n\
         [[route]]\nservice = \"web\"\n",
        list.join(", "),
    ));
    // One finds out that all are gone. They are passed over for a second, by whoever comes within it:
    // on a busy machine that may not be the next one.
    let attempts = || crate::sum(&server, "evenkeel_upstream_errors_total", "");
    let made_by_one = || {
        let before = attempts();
        assert_eq!(get(&server), 503);
        attempts() - before
    };
    wait_until("one has found all of them gone", || made_by_one() >= 300.0);
    wait_until("one passes them over", || made_by_one() <= 40.0);
}
