//! Does the backend serve? Asked before it is registered and as long as it is.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::ResponseHead;

/// Between two checks while the backend starts.
const STARTING: Duration = Duration::from_millis(100);

/// Between two checks of a backend that is registered, and for each check: the defaults of the
/// balancer's own.
const INTERVAL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(1);

/// Failures in a row that withdraw a backend.
const FAILURES: u32 = 3;

/// The head of an answer is small.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 << 10,
    fields: 100,
};

/// How to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// It takes connections on its port.
    Port,
    /// It takes connections at one of these.
    Tcp(Vec<SocketAddr>),
    /// It answers a GET with 2xx.
    Http {
        /// Tried in turn.
        addresses: Vec<SocketAddr>,
        /// As in the URL.
        host: String,
        /// With the query.
        path: String,
    },
}

impl Check {
    /// `tcp`, `tcp://IP:PORT` or `http://IP[:PORT]/path`; `localhost` does for an address.
    pub(super) fn parse(text: &str) -> Result<Check, String> {
        let wrong = || {
            "`tcp`, `tcp://127.0.0.1:8080` or `http://127.0.0.1:8080/healthz`, with an address or \
             localhost"
                .to_owned()
        };
        if text == "tcp" {
            return Ok(Check::Port);
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            let addresses = addresses(address, None).ok_or_else(wrong)?;
            return Ok(Check::Tcp(addresses));
        }
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let visible = |c: char| c.is_ascii_graphic() && c != '#';
        if !path.chars().all(visible) {
            return Err(wrong());
        }
        Ok(Check::Http {
            addresses: addresses(host, Some(80)).ok_or_else(wrong)?,
            host: host.to_owned(),
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }

    /// With the backend's port, where that is the question.
    pub(super) fn of(self, port: NonZeroU16) -> Check {
        match self {
            Check::Port => Check::Tcp(loopback(port.get())),
            other => other,
        }
    }

    /// Asks once; why not, in words. Cancel-safe.
    async fn ask(&self) -> Result<(), String> {
        let asked = timeout(PATIENCE, async {
            match self {
                Check::Port => Ok(()),
                Check::Tcp(addresses) => connect(addresses).await.map(drop),
                Check::Http {
                    addresses,
                    host,
                    path,
                } => get(connect(addresses).await?, host, path).await,
            }
        });
        match asked.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer within a second".to_owned()),
        }
    }
}

/// Says in `ready` whether the backend serves, for as long as this is polled. Without a check it
/// always does.
pub(super) async fn follow(check: Option<Check>, ready: watch::Sender<bool>) -> Infallible {
    let Some(check) = check else {
        return std::future::pending().await;
    };
    let mut failures = 0;
    loop {
        match check.ask().await {
            Ok(()) => {
                failures = 0;
                if !ready.send_replace(true) {
                    tracing::info!("the backend is ready");
                }
            }
            Err(why) => {
                failures += 1;
                if failures >= FAILURES && ready.send_replace(false) {
                    tracing::warn!("the backend is no longer ready: {why}");
                }
            }
        }
        let pause = match *ready.borrow() {
            true => INTERVAL,
            false => STARTING,
        };
        sleep(pause).await;
    }
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ]
}

fn addresses(text: &str, port: Option<u16>) -> Option<Vec<SocketAddr>> {
    let found = match text.strip_prefix("localhost") {
        Some("") => loopback(port?),
        Some(rest) => loopback(rest.strip_prefix(':')?.parse().ok()?),
        None => {
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            let whole = text.parse();
            let address = whole.or_else(|error| {
                let ip: Option<IpAddr> = match bare {
                    Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
                    None => text.parse().ok().filter(IpAddr::is_ipv4),
                };
                ip.zip(port).map(SocketAddr::from).ok_or(error)
            });
            vec![address.ok()?]
        }
    };
    found.iter().all(|a| a.port() != 0).then_some(found)
}

/// To the first of them that takes it; there is at least one.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    TcpStream::connect(addresses).await
}

async fn get(mut stream: TcpStream, host: &str, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut input = Vec::new();
    let mut head = ResponseHead::default();
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(end) = parse::response_head(&input, LIMITS, &mut head)
            .map_err(|_| io::Error::other("what answers does not speak HTTP"))?
        {
            match head.status {
                // Interim: the answer follows.
                100..=199 => drop(input.drain(..end)),
                200..=299 => return Ok(()),
                status => return Err(io::Error::other(format!("it answers {status}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn checks_as_they_are_written() {
        let at = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let http = |addresses: &[&str], host: &str, path: &str| Check::Http {
            addresses: at(addresses),
            host: host.to_owned(),
            path: path.to_owned(),
        };
        for (text, check) in [
            ("tcp", Check::Port),
            ("tcp://10.0.0.1:80", Check::Tcp(at(&["10.0.0.1:80"]))),
            (
                "http://127.0.0.1:8080/healthz?deep=1",
                http(&["127.0.0.1:8080"], "127.0.0.1:8080", "/healthz?deep=1"),
            ),
            (
                "http://127.0.0.1",
                http(&["127.0.0.1:80"], "127.0.0.1", "/"),
            ),
            ("http://[::1]:81?a", http(&["[::1]:81"], "[::1]:81", "/?a")),
            ("http://[::1]/", http(&["[::1]:80"], "[::1]", "/")),
            (
                "http://localhost:82/",
                http(&["127.0.0.1:82", "[::1]:82"], "localhost:82", "/"),
            ),
        ] {
            assert_eq!(Check::parse(text).as_ref(), Ok(&check), "{text}");
        }
        for text in [
            "",
            "udp",
            "tcp://",
            "tcp://10.0.0.1",
            "https://127.0.0.1/",
            "http://web:80/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\n",
            "http://::1/",
            "http://localhostess/",
        ] {
            assert!(Check::parse(text).is_err(), "{text}");
        }
        let port = NonZeroU16::new(90).unwrap();
        let both = Check::Tcp(at(&["127.0.0.1:90", "[::1]:90"]));
        assert_eq!(Check::Port.of(port), both);
    }

    #[tokio::test]
    async fn answers() {
        for (row, response, outcome) in [
            ("ok", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(())),
            ("no content", "HTTP/1.0 204 Fine\r\n\r\n", Ok(())),
            (
                "interim first",
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                Ok(()),
            ),
            (
                "unready",
                "HTTP/1.1 503 Not Yet\r\n\r\n",
                Err("it answers 503"),
            ),
            (
                "elsewhere",
                "HTTP/1.1 302 Found\r\n\r\n",
                Err("it answers 302"),
            ),
            (
                "something else",
                "220 mail.test ESMTP\r\n\r\n",
                Err("does not speak HTTP"),
            ),
            ("nothing", "", Err("unexpected end of file")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                assert!(request.starts_with(b"GET /ready HTTP/1.1\r\n"));
                stream.write_all(response.as_bytes()).await.unwrap();
            };
            let check = Check::parse(&format!("http://{address}/ready")).unwrap();
            let (answer, ()) = tokio::join!(check.ask(), server);
            match (answer, outcome) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(words)) => assert!(why.contains(words), "{row}: {why}"),
                (answer, _) => panic!("{row}: {answer:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_has() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let check = Check::Tcp(vec![address]);
        assert_eq!(check.ask().await, Ok(()));
        drop(listener);
        assert!(check.ask().await.is_err());
    }
}
