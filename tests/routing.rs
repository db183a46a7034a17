//! Which request is taken on, where it goes and what is changed on its way: each rule over HTTP/1.1 and
//! HTTP/2, through a real server to real backends.

#[path = "routing/admission.rs"]
mod admission;
#[path = "routing/auth.rs"]
mod auth;
#[path = "routing/coded_fields.rs"]
mod coded_fields;
#[path = "routing/coders.rs"]
mod coders;
#[path = "routing/compression.rs"]
mod compression;
#[path = "routing/conditions.rs"]
mod conditions;
#[path = "support/frames.rs"]
#[allow(dead_code, reason = "a part of it is needed here")]
mod frames;
#[path = "routing/headers.rs"]
mod headers;
#[path = "support/hpack.rs"]
#[allow(dead_code, reason = "a part of it is needed here")]
mod hpack;
#[path = "routing/mirror.rs"]
mod mirror;
#[path = "routing/paths.rs"]
mod paths;
#[path = "routing/splits.rs"]
mod splits;
mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use support::backend::Backend;
use support::client::Client;
use support::lock;
use support::server::Server;
use support::wire::{Kind, Message};

/// What a request is asked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    H1,
    H2,
}

/// Both.
pub(crate) const BOTH: [Over; 2] = [Over::H1, Over::H2];

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) fields: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
    /// Client's address.
    pub(crate) from: Option<&'a str>,
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A GET.
pub(crate) fn get(target: &str) -> Ask<'_> {
    Ask {
        method: "GET",
        host: "a.test",
        target,
        fields: Vec::new(),
        body: b"",
        from: None,
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn method(mut self, method: &'a str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn host(mut self, host: &'a str) -> Self {
        self.host = host;
        self
    }

    pub(crate) fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn from(mut self, address: &'a str) -> Self {
        self.from = Some(address);
        self
    }

    /// Asks over a connection of its own.
    pub(crate) fn ask(&self, over: Over, server: SocketAddr) -> Answer {
        match over {
            Over::H1 => self.over_h1(server),
            Over::H2 => self.over_h2(server),
        }
    }

    fn client(&self, server: SocketAddr) -> Client {
        match self.from {
            None => Client::plain(server),
            Some(from) => {
                let from: IpAddr = from.parse().expect("it is an address");
                Client::plain_from(from, server)
            }
        }
    }

    fn over_h1(&self, server: SocketAddr) -> Answer {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        let mut client = self.client(server);
        client.send([head.as_bytes(), b"\r\n", self.body].concat());
        let kind = match self.method {
            "HEAD" => Kind::ResponseToHead,
            _ => Kind::Response,
        };
        loop {
            let message = client.message(kind);
            let message = message.unwrap_or_else(|e| panic!("{self:?}: {e:?}"));
            // Interim ones come before it.
            if message.status() >= 200 {
                return Answer::of(message);
            }
        }
    }

    fn over_h2(&self, server: SocketAddr) -> Answer {
        use frames::{DATA, END_STREAM, frame, headers};
        let tcp = self.client(server).tcp().try_clone();
        let mut peer = frames::Peer::over_tcp(tcp.expect("there are descriptors"));
        let pseudo = [
            (":method", self.method),
            (":scheme", "http"),
            (":authority", self.host),
            (":path", self.target),
        ];
        let lower: Vec<(String, &str)> = (self.fields.iter())
            .map(|(name, value)| (name.to_lowercase(), *value))
            .collect();
        let mut fields: Vec<(&str, &str)> = pseudo.to_vec();
        fields.extend(lower.iter().map(|(name, value)| (name.as_str(), *value)));
        let ends = self.body.is_empty();
        peer.send(headers(1, if ends { END_STREAM } else { 0 }, &fields));
        if !ends {
            peer.send(frame(DATA, END_STREAM, 1, self.body));
        }
        let came = peer.over(1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let final_head = came.heads.iter().find(|head| {
            let status = head.iter().find(|(name, _)| name == b":status");
            status.is_some_and(|(_, value)| !value.starts_with(b"1"))
        });
        let fields = final_head.unwrap_or_else(|| panic!("{self:?}: {came:?}"));
        Answer {
            status: came.status().expect("there is a head"),
            fields: fields.iter().map(|(n, v)| (text(n), text(v))).collect(),
            body: came.data,
        }
    }
}

impl Answer {
    fn of(message: Message) -> Answer {
        Answer {
            status: message.status(),
            fields: message.fields,
            body: message.body,
        }
    }

    /// Value of the first field of that name (lower case).
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Values of all of them.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let all = self.fields.iter().filter(|(n, _)| n == name);
        all.map(|(_, value)| value.as_str()).collect()
    }

    /// Name of the backend that echoed.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.field("x-backend")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A file with a plain listener and a service for each backend, called as it is.
pub(crate) fn config(backends: &[(&str, &Backend)], rest: &str) -> String {
    let mut text = String::from(
        r#"
        workers = 1
        trusted_proxies = ["127.9.0.0/16"]
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        protocol = "http"
        "#,
    );
    for (name, backend) in backends {
        text += &format!(
            "[[service]]\nname = \"{name}\"\nejection = \"off\"\ndiscover = {{ static = [\"{}\"] }}\n",
            backend.address
        );
    }
    text + rest
}

/// An access log in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What was logged so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The value of a series on the metrics page.
pub(crate) fn metric(server: &Server, series: &str) -> Option<f64> {
    server.metric(series)
}
