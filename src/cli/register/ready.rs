//! Does the backend serve? Asked before it is registered and as long as it is.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cli::url::{self, Url};

/// Between two checks while the backend starts.
const STARTING: Duration = Duration::from_millis(100);

/// Between two checks of a backend that is registered, and for each check: the defaults of the
/// balancer's own.
const INTERVAL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(1);

/// Failures in a row that withdraw a backend.
const FAILURES: u32 = 3;

/// How to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// It takes connections on its port.
    Port,
    /// It takes connections at one of these.
    Tcp(Vec<SocketAddr>),
    /// It answers a GET with 2xx.
    Http(Url),
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
            let addresses = url::addresses(address, None).ok_or_else(wrong)?;
            return Ok(Check::Tcp(addresses));
        }
        text.parse().map(Check::Http).map_err(|_| wrong())
    }

    /// With the backend's port, where that is the question.
    pub(super) fn of(self, port: NonZeroU16) -> Check {
        match self {
            Check::Port => Check::Tcp(url::loopback(port.get())),
            other => other,
        }
    }

    /// Asks once; why not, in words. Cancel-safe.
    async fn ask(&self) -> Result<(), String> {
        let asked = timeout(PATIENCE, async {
            match self {
                Check::Port => Ok(()),
                Check::Tcp(addresses) => TcpStream::connect(&**addresses).await.map(drop),
                Check::Http(url) => match url.get().await? {
                    200..=299 => Ok(()),
                    status => Err(io::Error::other(format!("it answers {status}"))),
                },
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::url::answer_one;

    #[test]
    fn checks_as_they_are_written() {
        let at = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let url = "http://127.0.0.1:8080/healthz?deep=1";
        for (text, check) in [
            ("tcp", Check::Port),
            ("tcp://10.0.0.1:80", Check::Tcp(at(&["10.0.0.1:80"]))),
            (url, Check::Http(url.parse().unwrap())),
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
        ] {
            assert!(Check::parse(text).is_err(), "{text}");
        }
        let port = NonZeroU16::new(90).unwrap();
        let both = Check::Tcp(at(&["127.0.0.1:90", "[::1]:90"]));
        assert_eq!(Check::Port.of(port), both);
    }

    #[tokio::test]
    async fn only_2xx_will_do() {
        // What is no such answer at all is for `url.rs` to tell.
        for (row, response, outcome) in [
            ("the first", "HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("the last", "HTTP/1.1 299 Odd\r\n\r\n", Ok(())),
            (
                "elsewhere",
                "HTTP/1.1 300 Choices\r\n\r\n",
                Err("it answers 300"),
            ),
            (
                "unready",
                "HTTP/1.1 503 Not Yet\r\n\r\n",
                Err("it answers 503"),
            ),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = answer_one(&listener, "GET /ready HTTP/1.1", response);
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
