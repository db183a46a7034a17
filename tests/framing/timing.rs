//! Peers that are slow or silent: every wait has an end, and says which.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::{Answer, Bench, Row, Talk, got};
use crate::support::backend::Step;
use crate::support::client::{End, NoResponse};
use crate::support::pause;

/// Times short enough to be waited for, and long beside what a busy machine makes us wait.
fn hasty() -> Bench {
    Bench::with(
        r#"
        [defaults]
        header_timeout = "500ms"
        keep_alive = "700ms"
        body_timeout = "600ms"
        response_timeout = "900ms"
        stream_idle = "600ms"
        stall_timeout = "600ms"
        "#,
    )
}

#[test]
fn waits_that_end_in_an_answer() {
    let body = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc";
    let silent = || vec![Step::Request, Step::AwaitClose];
    let rows = vec![
        Row::new(
            "9110 §15.5.9 a head that does not go on",
            "GET /p HTTP/1.1\r\nHo",
        )
        .answer(Answer::Own(408))
        .closed(),
        Row::new("9110 §15.5.9 a body that does not go on", body)
            .answer(Answer::Own(408))
            .closed()
            .got(got("POST /p").end("Content-Length: 5\r\n\r\nabc")),
        Row::new(
            "9110 §15.5.9 chunks that do not go on",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        )
        .answer(Answer::Own(408))
        .closed()
        .got(got("POST /p").chunked("2\r\nab\r\n")),
        Row::new(
            "9110 §15.6.5 no response; the connection goes on",
            "GET /p HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(silent())
        .answer(Answer::Own(504))
        .got(got("GET /p")),
        Row::new(
            "9110 §15.6.5 half a response head",
            "GET /p HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(vec![
            Step::Request,
            Step::send("HTTP/1.1 200 OK\r\nX"),
            Step::AwaitClose,
        ])
        .answer(Answer::Own(504))
        .got(got("GET /p")),
        Row::new(
            "9110 §9.2.2 a time-out is not repeated elsewhere",
            "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(silent())
        .answer(Answer::Own(504))
        .got(got("GET /pair")),
        Row::new(
            "9110 §10.1.1 nobody says 100, nobody sends the body",
            "POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .script(vec![Step::Head, Step::AwaitClose])
        .answer(Answer::Own(504))
        .closed()
        .got(
            got("POST /p")
                .fields("Expect: 100-continue\r\n")
                .end("Content-Length: 3\r\n\r\n"),
        ),
        Row::new(
            "9110 §10.1.1 it got its 100 and sends nothing",
            "POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::AwaitClose,
        ])
        .talk([Talk::Interim("HTTP/1.1 100 Continue\r\n\r\n")])
        .answer(Answer::Own(408))
        .closed()
        .got(
            got("POST /p")
                .fields("Expect: 100-continue\r\n")
                .end("Content-Length: 3\r\n\r\n"),
        ),
        Row::new(
            "9112 §8 a response that does not go on",
            "GET /p HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(vec![
            Step::Request,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
            Step::AwaitClose,
        ])
        .answer(Answer::Cut(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        ))
        .got(got("GET /p")),
        Row::new(
            "9112 §2.2 an empty line is not the beginning of a head",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n",
        )
        .talk([Talk::Settle])
        .answer(Answer::Echo)
        .closed()
        .got(got("POST /p").length("abc")),
    ];
    assert_eq!(hasty().try_all(rows), 10);
}

/// RFC 9112 §9.5: whoever sent nothing is told nothing, at the start and between requests.
#[test]
fn silence_is_answered_by_silence() {
    let bench = hasty();
    let begun = Instant::now();
    let mut client = bench.client();
    assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    let first = begun.elapsed();
    assert!(first >= Duration::from_millis(500), "{first:?}");

    let mut client = bench.client();
    client.get("a", "/").expect("it is answered");
    let begun = Instant::now();
    assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    let between = begun.elapsed();
    assert!(between >= Duration::from_millis(600), "{between:?}");
}

/// The time for a head is for all of it: a byte now and then does not buy more.
#[test]
fn a_head_that_trickles_in_is_cut_short() {
    let bench = hasty();
    let mut client = bench.client();
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1) {
        client.send(byte);
        pause(Duration::from_millis(75));
        if begun.elapsed() > Duration::from_millis(1_300) {
            break;
        }
    }
    let response = client.response().expect("it is told why");
    assert_eq!(response.status(), 408);
}

/// A client that waits for its 100 is not blamed for sending nothing; body bytes that come slowly
/// but do come are waited for.
#[test]
fn a_body_that_comes_slowly_is_waited_for() {
    let mut bench = hasty();
    let mut client = bench.client();
    client.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for byte in b"abcdefgh".chunks(1) {
        pause(Duration::from_millis(150));
        client.send(byte);
    }
    let response = client.response().expect("it is answered");
    assert_eq!(response.text(), "POST /p abcdefgh");
    drop(client);
    bench.main.take();
    assert_eq!(bench.try_all(Vec::new()), 0);
}

/// A response that moves slowly but moves goes on beyond every time-out.
#[test]
fn a_response_that_comes_slowly_is_waited_for() {
    let bench = hasty();
    let mut script = vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"),
    ];
    for byte in b"abcdefgh".chunks(1) {
        script.push(Step::Call(std::sync::Arc::new(|| {
            pause(Duration::from_millis(150));
        })));
        script.push(Step::send(byte));
    }
    bench.main.next(script);
    let response = bench.client().get("a", "/p").expect("it is answered");
    assert_eq!(response.text(), "abcdefgh");
}

/// RFC 9112 §9.5: a client that does not take its response is given up, and the backend with it.
#[test]
fn a_client_that_does_not_read_is_given_up() {
    let bench = hasty();
    bench.main.next(vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Step::SendForever([b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat()),
    ]);
    let mut client = bench.client();
    client.send("GET /p HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::support::wait_until("the backend is told by a close", || {
        bench.main.connections() == 1 && bench.main.open() == 0
    });
    // What was under way comes, and then the end.
    match client.rest() {
        Ok((bytes, _)) => assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n")),
        Err(no) => panic!("{no:?}"),
    }
}

/// Whoever keeps no connections says so, or a client's next request meets the close.
#[test]
fn a_keep_alive_of_nothing_is_said_with_each_response() {
    let bench = Bench::with("[defaults]\nkeep_alive = \"0s\"");
    let mut client = bench.client();
    client.send("GET /p HTTP/1.1\r\nHost: a\r\n\r\n");
    match client.rest() {
        Ok((bytes, _)) => {
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        }
        Err(no) => panic!("{no:?}"),
    }
}

/// A backend that does not take the request: 504, and the client need not have sent all of it.
#[test]
fn a_backend_that_does_not_read_is_given_up() {
    let bench = hasty();
    let gate = crate::support::Gate::new();
    bench.main.next(vec![Step::Head, Step::Wait(gate.clone())]);
    let mut client = bench.client();
    client.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let piece = [b'x'; 0x10000];
    let wait = Some(Duration::from_millis(50));
    client
        .tcp()
        .set_write_timeout(wait)
        .expect("it is not zero");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        if client.try_send(piece).is_err() {
            break;
        }
    }
    match client.response() {
        Ok(response) => assert_eq!(response.status(), 504),
        Err(NoResponse::Ended(..)) => panic!("it is told why"),
        Err(no) => panic!("{no:?}"),
    }
    gate.open();
}

/// A body that moves, but slower than anybody means well, is given up once the grace is over.
#[test]
fn a_body_that_trickles_in_is_cut_short() {
    let bench = Bench::with("[defaults]\nmin_rate = \"1KiB\"\n");
    let mut client = bench.client();
    client.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        if client.try_send("x").is_err() {
            break;
        }
        client.patience(Duration::from_millis(100));
        if client.read_some().is_ok() {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(4), "{took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    let response = client.response().expect("it is told why");
    assert_eq!(response.status(), 408);
}
