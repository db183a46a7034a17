use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// For what takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// One that serves, and who can end it.
struct Running {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    task: tokio::task::JoinHandle<Ended>,
}

async fn start(sample: Sample) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (phase, phases) = watch::channel(Phase::Serving);
    let task = tokio::spawn(serve(listener, sample, phases));
    Running {
        address,
        phase,
        task,
    }
}

/// Sends `input` in pieces of `size` and returns all that came back until it closed.
async fn exchange_in(sample: Sample, input: &[u8], size: usize) -> String {
    let running = start(sample).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in input.chunks(size) {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.shutdown().await.unwrap();
    let mut output = Vec::new();
    let read = client.read_to_end(&mut output);
    timeout(SOON, read).await.unwrap().unwrap();
    running.task.abort();
    String::from_utf8(output).unwrap()
}

async fn exchange(input: &[u8]) -> String {
    exchange_in(Sample::new("b7"), input, input.len()).await
}

/// The bodies of responses that all have a length, as JSON.
fn echoes(mut output: &str) -> Vec<serde_json::Value> {
    let mut echoes = Vec::new();
    while let Some((head, rest)) = output.split_once("\r\n\r\n") {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap();
        let (body, rest) = rest.split_at(length.parse().unwrap());
        echoes.push(serde_json::from_str(body).unwrap());
        output = rest;
    }
    echoes
}

const PIPELINE: &[u8] = b"GET /a/%2e%2e/b?c HTTP/1.1\r\nHost: a\r\nx-y:  z\t\r\nX-Y: \r\n\r\n\
    POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
    \r\nPUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nde\r\n1\r\nf\r\n0\r\nSum: 7\r\n\r\n\
    GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn shows_what_came_request_after_request() {
    // At each of these sizes the cuts fall elsewhere.
    for size in [1, 2, 3, 7, 50, PIPELINE.len()] {
        let output = exchange_in(Sample::new("b7"), PIPELINE, size).await;
        assert_eq!(output.matches("HTTP/1.1 200 OK\r\n").count(), 4, "{output}");
        assert_eq!(output.matches("\r\nX-Backend: b7\r\n").count(), 4);
        assert_eq!(output.matches("\r\nDate: ").count(), 4);
        assert_eq!(output.matches("\r\nConnection: close\r\n").count(), 1);
        let echoes = echoes(&output);
        for (echo, number) in echoes.iter().zip(1..) {
            assert_eq!(echo["backend"], "b7");
            assert_eq!(echo["request"], number);
            assert_eq!(echo["status"], 200);
            assert_eq!(echo["version"], "HTTP/1.1");
        }
        assert_eq!(echoes[0]["method"], "GET");
        assert_eq!(
            echoes[0]["target"], "/a/%2e%2e/b?c",
            "not as it is normalised"
        );
        let fields = json!([["Host", "a"], ["x-y", "z"], ["X-Y", ""]]);
        assert_eq!(echoes[0]["headers"], fields);
        assert_eq!(echoes[0]["body_length"], 0);
        assert!(echoes[0].get("body").is_none());
        assert_eq!(echoes[1]["body_length"], 3);
        assert_eq!(echoes[1]["body"], "abc");
        assert_eq!(echoes[2]["method"], "PUT");
        assert_eq!(echoes[2]["body"], "def");
        assert_eq!(echoes[2]["trailers"], json!([["Sum", "7"]]));
        assert_eq!(echoes[3]["target"], "/last");
    }
}

#[tokio::test]
async fn bodies_that_are_large_or_no_text_and_fields_that_are_no_utf_8() {
    let size = answer::BODY_SHOWN;
    // The last character that would be shown is cut in two.
    let text = "é".repeat(100_000);
    let large = format!("x{text}");
    for (body, key, shown, length) in [
        (&b"\xff\x00"[..], "body_base64", "/wA=".to_owned(), 2),
        ("h\u{e4}".as_bytes(), "body", "hä".to_owned(), 3),
        (
            large.as_bytes(),
            "body",
            format!("x{}", "é".repeat(size / 2 - 1)),
            200_001,
        ),
    ] {
        let mut input = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\nX: ",
            body.len()
        )
        .into_bytes();
        input.extend_from_slice(b"\xe4\r\n\r\n");
        input.extend_from_slice(body);
        let output = exchange(&input).await;
        let echo = &echoes(&output)[0];
        assert_eq!(echo["body_length"], length);
        assert_eq!(echo[key], shown);
        assert_eq!(echo.get("body_cut").is_some(), body.len() > size);
        assert_eq!(echo["headers"][3], json!(["X", "ä"]));
    }
}

#[tokio::test]
async fn answers_without_a_body_and_answers_of_many_bytes() {
    let request = |method: &str, query: &str| {
        format!("{method} /?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    };
    for (method, query, status, length, body) in [
        ("HEAD", "", 200, None, 0),
        ("HEAD", "bytes=100000", 200, Some(100_000), 0),
        ("GET", "bytes=100000", 200, Some(100_000), 100_000),
        ("GET", "bytes=0", 200, Some(0), 0),
        ("GET", "status=204", 204, None, 0),
        ("GET", "status=205&bytes=3", 205, Some(0), 0),
        ("GET", "status=304", 304, None, 0),
        ("GET", "status=599&bytes=1", 599, Some(1), 1),
    ] {
        let output = exchange(request(method, query).as_bytes()).await;
        let (head, rest) = output.split_once("\r\n\r\n").unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&line), "{method} {query}: {head}");
        let said = head.split_once("Content-Length: ");
        let said = said.map(|(_, n)| n.lines().next().unwrap().parse().unwrap());
        match (status, length) {
            (204 | 304, _) => assert_eq!(said, None, "{query}"),
            (_, None) => assert!(said > Some(0)),
            _ => assert_eq!(said, length, "{query}"),
        }
        assert_eq!(rest.len(), body, "{method} {query}");
    }
    let output = exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(
        output.contains("\r\nConnection: keep-alive\r\n"),
        "{output}"
    );
    let output = exchange(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(output.contains("\r\nConnection: close\r\n"), "{output}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    for (input, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx",
            400,
        ),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            426,
        ),
    ] {
        // The second one is not looked at any more.
        let input = format!("{input}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let output = exchange(input.as_bytes()).await;
        let line = format!("HTTP/1.1 {status} ");
        assert!(output.starts_with(&line), "{input}: {output}");
        assert!(output.contains("\r\nConnection: close\r\n"), "{output}");
        assert_eq!(output.matches("HTTP/1.1 ").count(), 1, "{output}");
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let output = exchange(long.as_bytes()).await;
    assert!(output.starts_with("HTTP/1.1 431 "), "{output}");
    // A body that ends too soon is nobody's request.
    let output = exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc").await;
    assert_eq!(output, "");
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let read = timeout(SOON, stream.read_buf(&mut text)).await;
        assert!(read.unwrap().unwrap() > 0, "{}", text.escape_ascii());
    }
    String::from_utf8(text).unwrap()
}

/// RFC 9110 §10.1.1.
#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on() {
    let running = start(Sample::new("b")).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n";
    let with_length = format!("{head}Content-Length: 2\r\n\r\n");
    client.write_all(with_length.as_bytes()).await.unwrap();
    assert_eq!(
        read_until(&mut client, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.write_all(b"ab").await.unwrap();
    let answer = read_until(&mut client, "}\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // Who did not wait, or has no body, is not told.
    for rest in ["Content-Length: 2\r\n\r\nab", "\r\n"] {
        client
            .write_all(format!("{head}{rest}").as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut client, "}\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn who_closes_answers_what_comes_on_open_connections() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let slow = b"GET /?delay=300ms HTTP/1.1\r\nHost: a\r\n\r\n";
    let running = start(Sample::new("b")).await;
    let connect = || TcpStream::connect(running.address);
    let mut kept = connect().await.unwrap();
    kept.write_all(GET).await.unwrap();
    let answer = read_until(&mut kept, "}\n").await;
    assert!(!answer.contains("Connection: close"), "{answer}");
    let mut busy = connect().await.unwrap();
    busy.write_all(slow).await.unwrap();
    let mut half = connect().await.unwrap();
    half.write_all(&GET[..20]).await.unwrap();
    let idle = connect().await.unwrap();
    // Completed by the kernel, and nobody has accepted it: this runtime has one thread.
    let mut new = std::net::TcpStream::connect(running.address).unwrap();
    running.phase.send_replace(Phase::Closing);
    std::io::Write::write_all(&mut new, GET).unwrap();
    new.set_nonblocking(true).unwrap();
    let mut new = TcpStream::from_std(new).unwrap();

    kept.write_all(&[GET, GET].concat()).await.unwrap();
    half.write_all(&GET[20..]).await.unwrap();
    for (who, client, answers) in [
        ("kept, two at once", &mut kept, 2),
        ("busy", &mut busy, 1),
        ("in the middle of a head", &mut half, 1),
        ("new", &mut new, 1),
    ] {
        let mut text = String::new();
        timeout(SOON, client.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            text.matches("HTTP/1.1 200 OK\r\n").count(),
            answers,
            "{who}: {text}"
        );
        // The last one says so.
        assert_eq!(
            text.matches("\r\nConnection: close\r\n").count(),
            1,
            "{who}: {text}"
        );
    }
    assert!(TcpStream::connect(running.address).await.is_err());
    // It waits for nobody else than the idle one.
    assert!(!running.task.is_finished());
    drop(idle);
    let ended = timeout(SOON, running.task).await.unwrap().unwrap();
    assert_eq!(ended, Ended::Finished);
}

#[tokio::test]
async fn who_leaves_serves_on_and_says_so() {
    let running = start(Sample::new("b")).await;
    running.phase.send_replace(Phase::Leaving);
    for (path, status) in [("/", "200 OK"), ("/healthz", "503 Service Unavailable")] {
        let mut client = TcpStream::connect(running.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(SOON, client.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{text}"
        );
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}

/// The clock is paused: it goes on by itself once everybody waits for it.
#[tokio::test(start_paused = true)]
async fn the_end_waits_for_nobody_for_ever() {
    for (request, ended, after) in [
        ("", Ended::Finished, LINGER),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
            Ended::Finished,
            LINGER,
        ),
        ("GET / HTTP/1.1\r\n", Ended::Cut(1), GRACE),
        (
            "GET /?delay=60s HTTP/1.1\r\nHost: a\r\n\r\n",
            Ended::Cut(1),
            GRACE,
        ),
    ] {
        let running = start(Sample::new("b")).await;
        let mut client = TcpStream::connect(running.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        let begun = tokio::time::Instant::now();
        running.phase.send_replace(Phase::Closing);
        assert_eq!(running.task.await.unwrap(), ended, "{request:?}");
        assert!(
            begun.elapsed() >= after,
            "{request:?}: {:?}",
            begun.elapsed()
        );
        assert!(
            begun.elapsed() < after + Duration::from_millis(1_500),
            "{:?}",
            begun.elapsed()
        );
    }
}
