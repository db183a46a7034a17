//! A URL of plain HTTP on a host that needs no looking up, and one GET of it: for `health` and for
//! `register --ready`.
//!
//! Only the head of the answer is read; the deadline is the caller's.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::Request;
use hyper::header::HOST;

use super::http::{self, Peer, Whole};

/// `http://IP[:PORT][/path]`; `localhost` does for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Tried in turn; at least one.
    addresses: Vec<SocketAddr>,
    /// As it was written.
    host: String,
    /// With the query.
    path: String,
}

/// What is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("such as http://127.0.0.1:8080/healthz: plain HTTP, and an address or localhost")]
pub struct BadUrl;

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let rest = text.strip_prefix("http://").ok_or(BadUrl)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let visible = |c: char| c.is_ascii_graphic() && c != '#';
        if !path.chars().all(visible) {
            return Err(BadUrl);
        }
        Ok(Url {
            addresses: addresses(host, Some(80)).ok_or(BadUrl)?,
            host: host.to_owned(),
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// Percent-encoded, but for what needs not be (RFC 3986 §2.3): a part of a path, or of a query.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

impl Url {
    /// Asks once; gives the status of the final answer. Cancel-safe.
    pub async fn get(&self) -> io::Result<u16> {
        let request = Request::get(&self.path).header(HOST, &self.host);
        let request = request.body(Whole::default()).map_err(io::Error::other)?;
        let peer = Peer::Tcp(self.addresses.clone());
        Ok(http::ask(&peer, request).await?.status())
    }
}

/// Both loopback addresses with that port.
pub fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ]
}

/// `IP:PORT` or `localhost:PORT`; without a port only where `port` stands in for it.
pub fn addresses(text: &str, port: Option<u16>) -> Option<Vec<SocketAddr>> {
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

/// Takes one connection, expects a request that begins with `line`, and answers it: for the tests
/// of whoever asks a URL.
#[cfg(test)]
pub(super) async fn answer_one(listener: &tokio::net::TcpListener, line: &str, response: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut request).await.unwrap();
    }
    assert!(request.starts_with(format!("{line}\r\n").as_bytes()));
    stream.write_all(response.as_bytes()).await.unwrap();
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_as_they_are_written() {
        for (text, addresses, host, path) in [
            (
                "http://127.0.0.1:8080/healthz?deep=1",
                &["127.0.0.1:8080"][..],
                "127.0.0.1:8080",
                "/healthz?deep=1",
            ),
            ("http://127.0.0.1", &["127.0.0.1:80"], "127.0.0.1", "/"),
            ("http://[::1]:81?a", &["[::1]:81"], "[::1]:81", "/?a"),
            ("http://[::1]/", &["[::1]:80"], "[::1]", "/"),
            (
                "http://localhost:82/",
                &["127.0.0.1:82", "[::1]:82"],
                "localhost:82",
                "/",
            ),
        ] {
            let url = Url {
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
                host: host.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(text.parse(), Ok(url), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1/",
            "http://web:80/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://user@127.0.0.1/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\n",
            "http://127.0.0.1/#a",
            "http://::1/",
            "http://localhostess/",
        ] {
            assert_eq!(text.parse::<Url>(), Err(BadUrl), "{text}");
        }
    }

    #[tokio::test]
    async fn answers() {
        for (row, response, outcome) in [
            (
                "ok",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Ok(200),
            ),
            ("no content", "HTTP/1.0 204 Fine\r\n\r\n", Ok(204)),
            (
                "interim first",
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                Ok(200),
            ),
            ("unready", "HTTP/1.1 503 Not Yet\r\n\r\n", Ok(503)),
            (
                "something else",
                "220 mail.test ESMTP\r\n\r\n",
                Err("does not speak HTTP"),
            ),
            ("nothing", "", Err("unexpected end of file")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = answer_one(&listener, "GET /ready HTTP/1.1", response);
            let url: Url = format!("http://{address}/ready").parse().unwrap();
            let (answer, ()) = tokio::join!(url.get(), server);
            match (answer, outcome) {
                (Ok(status), Ok(expected)) => assert_eq!(status, expected, "{row}"),
                (Err(why), Err(words)) => assert!(why.to_string().contains(words), "{row}: {why}"),
                (answer, _) => panic!("{row}: {answer:?}"),
            }
        }
    }
}
