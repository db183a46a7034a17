//! Checks of real listeners, by a real clock: what is waited for is a report.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Ask, HttpCheck};
use crate::discovery::Endpoint;
use crate::upstream::backend::BackendId;

fn backend(address: SocketAddr) -> Arc<Backend> {
    let endpoint = Endpoint {
        target: "b1.test.".into(),
        address: address.ip(),
        port: address.port(),
    };
    Backend::new(BackendId::unused(), "web".into(), endpoint)
}

fn check(ask: Ask) -> Arc<Check> {
    Arc::new(Check {
        ask,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        fall: 2,
        rise: 2,
        port: None,
        initially_down: false,
        plain: false,
    })
}

fn http(statuses: std::ops::RangeInclusive<u16>, body: Option<&str>) -> Ask {
    Ask::Http(HttpCheck {
        method: "GET".into(),
        path: "/healthz?full".into(),
        host: None,
        statuses: vec![statuses],
        body: body.map(Into::into),
    })
}

/// A listener that says `answer` to whoever connects, and keeps what it was asked.
async fn answering(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..n]).into_owned();
                keep.lock().expect("nobody panics").push(text);
                let _ = stream.write_all(answer).await;
            });
        }
    });
    (address, asked)
}

/// What the first report about a backend says.
async fn first_news(address: SocketAddr, check: Arc<Check>) -> News {
    let (reports, mut found) = mpsc::channel(8);
    let prober = Prober::start(reports).expect("threads can be had");
    let backend = backend(address);
    prober.watch(ServiceId::unused(), &check, vec![Arc::clone(&backend)]);
    let report = timeout(PATIENCE, found.recv()).await;
    let report = report.expect("it is checked").expect("and reported");
    assert_eq!(report.backends[0].id, backend.id);
    report.news
}

fn down(news: News) -> Failed {
    match news {
        News::Down(failed) => failed,
        News::Up => panic!("it is up"),
    }
}

/// No check takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn answers() {
    type Row = (&'static str, &'static [u8], Ask, Option<&'static str>);
    let rows: [Row; 12] = [
        (
            "status in the range",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            http(200..=399, None),
            None,
        ),
        (
            "status outside it",
            b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            http(200..=399, None),
            Some("answered 503"),
        ),
        (
            "an interim response is read over",
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            http(200..=299, None),
            None,
        ),
        (
            "the body has it",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall: good",
            http(200..=200, Some("good")),
            None,
        ),
        (
            "in chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ngo\r\n2\r\nod\r\n0\r\n\r\n",
            http(200..=200, Some("good")),
            None,
        ),
        (
            "until the connection ends",
            b"HTTP/1.1 200 OK\r\n\r\nall: good",
            http(200..=200, Some("good")),
            None,
        ),
        (
            "the body has it not",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
            http(200..=200, Some("good")),
            Some("\"good\" is not in the body"),
        ),
        (
            "a body without an end",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n",
            http(200..=200, Some("good")),
            Some("\"good\" is not in the body"),
        ),
        (
            "no HTTP",
            b"SSH-2.0-x\r\n\r\n",
            http(200..=200, None),
            Some("no HTTP response"),
        ),
        (
            "nothing at all",
            b"",
            http(200..=200, None),
            Some("closed without a whole response"),
        ),
        ("TCP asks for nothing", b"", Ask::Tcp, None),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            http(200..=200, Some("good")),
            Some(""),
        ),
    ];
    for (rule, answer, ask, failure) in rows {
        let (address, _) = answering(answer).await;
        let news = first_news(address, check(ask)).await;
        match failure {
            None => assert!(matches!(news, News::Up), "{rule}: {news:?}"),
            Some(detail) => {
                let failed = down(news);
                assert_eq!(failed.reason, Reason::CheckAnswer, "{rule}");
                assert!(failed.detail.contains(detail), "{rule}: {}", failed.detail);
            }
        }
    }
}

#[tokio::test]
async fn what_is_asked() {
    let (address, asked) = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    first_news(address, check(http(200..=200, None))).await;
    let asked = asked.lock().expect("nobody panics");
    let expected = format!(
        "GET /healthz?full HTTP/1.1\r\nHost: b1.test:{}\r\nUser-Agent: evenkeel-check\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        address.port(),
    );
    assert_eq!(asked[0], expected);
}

#[tokio::test]
async fn nobody_listens_and_nobody_answers() {
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.local_addr().expect("it is bound")
    };
    let failed = down(first_news(free, check(Ask::Tcp)).await);
    assert_eq!(failed.reason, Reason::CheckConnect);

    // Accepted by the kernel, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = silent.local_addr().expect("it is bound");
    let quick = Check {
        timeout: Duration::from_millis(50),
        ..(*check(http(200..=200, None))).clone()
    };
    let failed = down(first_news(address, Arc::new(quick)).await);
    assert_eq!(failed.reason, Reason::CheckTimeout);
}

#[tokio::test]
async fn one_probe_serves_all_who_share_backend_and_check() {
    let ids = [(); 3].map(|()| ServiceId::unused());
    let (address, asked) = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let (reports, mut found) = mpsc::channel(8);
    let prober = Prober::start(reports).expect("threads can be had");
    let (first, second) = (backend(address), backend(address));
    let slow = Arc::new(Check {
        interval: Duration::from_secs(3_600),
        initially_down: true,
        ..(*check(http(200..=200, None))).clone()
    });
    // Equal, and not the same.
    prober.watch(ids[0], &slow, vec![Arc::clone(&first)]);
    prober.watch(
        ids[1],
        &Arc::new((*slow).clone()),
        vec![Arc::clone(&second)],
    );
    let mut up = Vec::new();
    while up.len() < 2 {
        let report = timeout(PATIENCE, found.recv()).await;
        let report = report.expect("in time").expect("it is there");
        assert!(matches!(report.news, News::Up));
        up.extend(report.backends.iter().map(|backend| backend.id));
    }
    up.sort_unstable();
    assert_eq!(up, [first.id, second.id]);
    assert_eq!(asked.lock().expect("nobody panics").len(), 1);

    // Whoever joins a check that has found something is told at once, without another probe.
    let third = backend(address);
    prober.watch(ids[2], &slow, vec![Arc::clone(&third)]);
    let report = timeout(PATIENCE, found.recv()).await;
    let report = report.expect("in time").expect("it is there");
    assert_eq!(report.backends[0].id, third.id);
    assert_eq!(asked.lock().expect("nobody panics").len(), 1);
}

#[tokio::test]
async fn nobody_is_checked_who_is_not_listed_any_more() {
    let ids = [(); 3].map(|()| ServiceId::unused());
    let (address, asked) = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let (reports, mut found) = mpsc::channel(8);
    let prober = Prober::start(reports).expect("threads can be had");
    let check = check(http(200..=200, None));
    prober.watch(ids[0], &check, vec![backend(address)]);
    found.recv().await.expect("it is checked");
    prober.watch(ids[0], &check, Vec::new());
    // The thread is heard of once more when the next one is checked.
    let (other, _) = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    prober.watch(ids[1], &check, vec![backend(other)]);
    found.recv().await.expect("it is checked");
    let count = || asked.lock().expect("nobody panics").len();
    let before = count();
    let (another, _) = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    prober.watch(ids[2], &check, vec![backend(another)]);
    found.recv().await.expect("it is checked");
    // One may have been under way when it was called off.
    assert!(count() <= before + 1);
}
