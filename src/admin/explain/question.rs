//! What somebody asks about, as a request: read by the parser of real ones, at the listener that it
//! would come to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::answer::Listener;
use crate::config::{Config, Protocol};
use crate::http::body::{BodyFraming, request_framing};
use crate::http::h1::parse::{HeadLimits, request_head};
use crate::http::head::{Rejection, RequestHead};

/// A request as somebody describes it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// `http://`, `https://`, or `tls://` and `tcp://` for connections that are passed on as they are.
    pub url: String,
    /// `Name: value` each.
    pub headers: Vec<String>,
    /// Address of the client, a port may follow; `None`: 127.0.0.1.
    pub client: Option<String>,
    /// Name of the listener; `None`: by scheme and port of the URL.
    pub listener: Option<String>,
}

/// It cannot be understood what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuestion(pub String);

/// A request that a listener would take.
#[derive(Debug)]
pub struct Question {
    /// Index of the listener.
    pub index: usize,
    /// The same in words.
    pub listener: Listener,
    /// The request's head.
    pub head: RequestHead,
    /// How its body is framed.
    pub framing: BodyFraming,
    /// The client's address.
    pub client: IpAddr,
}

/// What becomes of a question.
#[derive(Debug)]
pub enum Verdict {
    /// It is one.
    Asked(Box<Question>),
    /// Such a request comes to no listener.
    NoListener(String),
    /// The listener refuses such a request.
    Refused(Listener, Rejection),
}

/// Reads it.
pub fn read(config: &Config, asked: &Asked) -> Result<Verdict, BadQuestion> {
    let url = Url::read(&asked.url)?;
    let client = client(asked.client.as_deref())?;
    let (index, why) = match listener(config, &url, asked.listener.as_deref())? {
        Ok(found) => found,
        Err(why) => return Ok(Verdict::NoListener(why)),
    };
    let listener = Listener::new(&config.listeners[index], why);
    let mut head = RequestHead::default();
    match head_of(config, asked, &url, &mut head)? {
        Ok(framing) => Ok(Verdict::Asked(Box::new(Question {
            index,
            listener,
            head,
            framing,
            client,
        }))),
        Err(rejection) => Ok(Verdict::Refused(listener, rejection)),
    }
}

/// The parts of a URL that matter here.
struct Url<'a> {
    scheme: &'a str,
    authority: &'a str,
    /// Path and query.
    target: &'a str,
    port: Option<u16>,
}

impl<'a> Url<'a> {
    fn read(text: &'a str) -> Result<Url<'a>, BadQuestion> {
        let bad =
            |why: &str| BadQuestion(format!("{why}: for example https://shop.example.com/cart"));
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("a URL has a scheme"))?;
        if !matches!(scheme, "http" | "https" | "tls" | "tcp") {
            return Err(bad("the scheme is http, https, tls or tcp"));
        }
        if text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(bad("a URL has neither spaces nor control characters"));
        }
        // What is behind `#` is never sent.
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // Behind the bracket of an IPv6 address.
        let host_end = authority.rfind(']').unwrap_or(0);
        let port = match authority[host_end..].split_once(':') {
            None | Some((_, "")) => None,
            Some((_, port)) => Some(port.parse().map_err(|_| bad("that is no port"))?),
        };
        Ok(Url {
            scheme,
            authority,
            target,
            port,
        })
    }

    fn port(&self) -> Option<u16> {
        self.port.or(match self.scheme {
            "http" => Some(80),
            "https" | "tls" => Some(443),
            _ => None,
        })
    }
}

fn client(text: Option<&str>) -> Result<IpAddr, BadQuestion> {
    let Some(text) = text else {
        return Ok(Ipv4Addr::LOCALHOST.into());
    };
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    let address = text.parse().or_else(|_| with_port());
    address.map_err(|_| BadQuestion(format!("the client `{text}` is no address")))
}

/// What a listener speaks, as a URL's scheme.
fn scheme(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https(_) => "https",
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
    }
}

/// Index of the listener, and why that one; or why there is none.
#[allow(clippy::type_complexity, reason = "two kinds of no, each said once")]
fn listener(
    config: &Config,
    url: &Url<'_>,
    named: Option<&str>,
) -> Result<Result<(usize, String), String>, BadQuestion> {
    let listeners = || config.listeners.iter().enumerate();
    if let Some(name) = named {
        let found = listeners().find(|(_, listener)| *listener.name == *name);
        let Some((index, listener)) = found else {
            let known: Vec<_> = listeners().map(|(_, l)| &*l.name).collect();
            let known = known.join(", ");
            return Err(BadQuestion(format!(
                "no listener is called {name}; there are: {known}"
            )));
        };
        let speaks = scheme(&listener.protocol);
        return Ok(Ok((
            index,
            match speaks == url.scheme {
                true => "it was named".to_owned(),
                false => format!("it was named; it speaks {speaks}, not {}", url.scheme),
            },
        )));
    }
    let speaks = |(_, l): &(usize, &crate::config::Listener)| scheme(&l.protocol) == url.scheme;
    let speaking: Vec<_> = listeners().filter(speaks).collect();
    let Some(&(first, _)) = speaking.first() else {
        return Ok(Err(format!("no listener speaks {}", url.scheme)));
    };
    let on_port = |port| {
        let on_it = |(_, l): &&(usize, &crate::config::Listener)| l.address.port() == port;
        speaking.iter().find(on_it)
    };
    let port = url.port();
    if let Some((port, &(index, _))) = port.and_then(|port| Some((port, on_port(port)?))) {
        return Ok(Ok((index, format!("{} on port {port}", url.scheme))));
    }
    let port = port.map_or_else(String::new, |port| format!(", though not on port {port}"));
    Ok(Ok((
        first,
        match speaking.len() {
            1 => format!("the only one that speaks {}{port}", url.scheme),
            n => format!("the first of {n} that speak {}{port}", url.scheme),
        },
    )))
}

/// Reads the head as if it had come; gives the framing of its body.
fn head_of(
    config: &Config,
    asked: &Asked,
    url: &Url<'_>,
    head: &mut RequestHead,
) -> Result<Result<BodyFraming, Rejection>, BadQuestion> {
    let method = match asked.method.as_str() {
        "" => "GET",
        method => method,
    };
    if method.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(BadQuestion(format!(
            "`{}` is no method",
            method.escape_default()
        )));
    }
    let (mut authority, mut lines) = (url.authority, String::new());
    for header in &asked.headers {
        let Some((name, value)) = header.split_once(':') else {
            let header = header.escape_default();
            return Err(BadQuestion(format!(
                "`{header}` is no header: `Name: value`"
            )));
        };
        if header.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err(BadQuestion("a header has no control characters".to_owned()));
        }
        match name.trim().eq_ignore_ascii_case("host") {
            true => authority = value.trim(),
            false => lines.push_str(&format!("{name}: {}\r\n", value.trim())),
        }
    }
    let slash = if url.target.starts_with('/') { "" } else { "/" };
    let text = format!(
        "{method} {slash}{} HTTP/1.1\r\nHost: {authority}\r\n{lines}\r\n",
        url.target
    );
    let limits = HeadLimits {
        bytes: config.downstream.header_bytes,
        fields: config.downstream.header_fields,
    };
    match request_head(text.as_bytes(), limits, head) {
        Ok(Some(_)) => Ok(request_framing(head)),
        Ok(None) => Err(BadQuestion("that is no whole request".to_owned())),
        Err(rejection) => Ok(Err(rejection)),
    }
}
