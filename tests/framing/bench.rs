//! The bench on which rows are tried: one server, its backends, and what a row expects.
//!
//! After each row the connection is shown to be closed, or to be good for one more request; and
//! an innocent client comes through the same backends and must get its own answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::backend::{Backend, Received, Script, Step, echo};
use crate::support::client::{Client, End};
use crate::support::pause;
use crate::support::server::Server;
use crate::support::wire::{self, Kind};

/// What nothing on this bench takes when all is well.
const LONG: Duration = Duration::from_secs(5);

/// A client from here is one of `trusted_proxies`.
pub const TRUSTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A server with the routes that rows are written for.
pub struct Bench {
    /// The server.
    pub server: Server,
    /// Where nearly all requests go.
    pub main: Backend,
    /// Where `/secret` goes.
    pub secret: Backend,
    /// Where `/pair` goes when `main` fails.
    pub standby: Backend,
    rows: usize,
}

/// One row.
pub struct Row {
    rule: String,
    from: Option<IpAddr>,
    listener: usize,
    talk: Vec<Talk>,
    scripts: Vec<Script>,
    answers: Vec<Answer>,
    after: After,
    got: Vec<String>,
    secret: Vec<String>,
    standby: Vec<String>,
}

/// What the client does before it reads final responses.
pub enum Talk {
    /// Sends this in one write.
    Send(Vec<u8>),
    /// Reads one interim response that must be exactly this.
    Interim(&'static str),
    /// Reads exactly this.
    Read(&'static str),
    /// Lets the server read what was sent so far.
    Settle,
    /// Ends its direction.
    Finish,
}

/// A final response.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// 200 from a backend, with what the backend was sent.
    Echo,
    /// The same for HEAD.
    EchoToHead,
    /// One of our own.
    Own(u16),
    /// The same for HEAD.
    OwnToHead(u16),
    /// Exactly these bytes, `X-Request-Id` and `Date` masked.
    Raw(&'static str),
    /// These bytes, then the connection is closed although the response is not whole.
    Cut(&'static str),
    /// These bytes, then the connection is reset.
    Reset(&'static str),
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It serves another request.
    Kept,
    /// It is closed, and nothing more came.
    Closed,
    /// The row itself has said all there is to say.
    Settled,
}

impl Row {
    /// A row of which nothing is expected yet.
    pub fn new(rule: &str, request: impl AsRef<[u8]>) -> Row {
        Row {
            rule: rule.to_owned(),
            from: None,
            listener: 0,
            talk: vec![Talk::Send(request.as_ref().to_vec())],
            scripts: Vec::new(),
            answers: Vec::new(),
            after: After::Kept,
            got: Vec::new(),
            secret: Vec::new(),
            standby: Vec::new(),
        }
    }

    pub fn talk(mut self, more: impl IntoIterator<Item = Talk>) -> Row {
        self.talk.extend(more);
        self
    }

    pub fn script(mut self, script: Script) -> Row {
        self.scripts.push(script);
        self
    }

    pub fn answer(mut self, answer: Answer) -> Row {
        self.answers.push(answer);
        if let Answer::Cut(_) | Answer::Reset(_) = answer {
            self.after = After::Settled;
        }
        self
    }

    pub fn closed(mut self) -> Row {
        self.after = After::Closed;
        self
    }

    pub fn from(mut self, from: IpAddr) -> Row {
        self.from = Some(from);
        self
    }

    /// Of the listener without routes.
    pub fn at_bare(mut self) -> Row {
        self.listener = 1;
        self
    }

    /// Of the listener that redirects.
    pub fn at_redirect(mut self) -> Row {
        self.listener = 2;
        self
    }

    pub fn got(mut self, got: impl Into<String>) -> Row {
        self.got.push(got.into());
        self
    }

    pub fn secret_got(mut self, got: impl Into<String>) -> Row {
        self.secret.push(got.into());
        self
    }

    pub fn standby_got(mut self, got: impl Into<String>) -> Row {
        self.standby.push(got.into());
        self
    }
}

/// Forwarded and answered, and the connection goes on.
pub fn passes(rule: &str, request: impl AsRef<[u8]>, got: impl Into<String>) -> Row {
    Row::new(rule, request).answer(Answer::Echo).got(got)
}

/// Refused with this status; the connection is closed and no backend hears of it.
pub fn refused(rule: &str, status: u16, request: impl AsRef<[u8]>) -> Row {
    Row::new(rule, request).answer(Answer::Own(status)).closed()
}

/// What a backend gets: our fields where we put them.
pub struct Got {
    line: String,
    host: String,
    fields: String,
    client: String,
    proto: String,
    forwarded_host: Option<String>,
    id: bool,
    via: &'static str,
    end: String,
}

/// A request line without its version, for host `a`, without a body.
pub fn got(line: &str) -> Got {
    Got {
        line: line.to_owned(),
        host: "a".into(),
        fields: String::new(),
        client: "127.0.0.1".into(),
        proto: "http".into(),
        forwarded_host: Some("a".into()),
        id: true,
        via: "1.1",
        end: "\r\n".into(),
    }
}

impl Got {
    /// The authority, also in `X-Forwarded-Host`; nothing: an empty `Host` alone.
    pub fn host(mut self, host: &str) -> Got {
        host.clone_into(&mut self.host);
        self.forwarded_host = (!host.is_empty()).then(|| host.to_owned());
        self
    }

    /// The client's own fields, CRLF included.
    pub fn fields(mut self, fields: &str) -> Got {
        fields.clone_into(&mut self.fields);
        self
    }

    /// A body of known length.
    pub fn length(self, body: &str) -> Got {
        let end = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.end(&end)
    }

    /// A chunked body as it is on the wire.
    pub fn chunked(self, body: &str) -> Got {
        let end = format!("Transfer-Encoding: chunked\r\n\r\n{body}");
        self.end(&end)
    }

    /// All that comes after `Via`.
    pub fn end(mut self, end: &str) -> Got {
        end.clone_into(&mut self.end);
        self
    }

    pub fn via(mut self, version: &'static str) -> Got {
        self.via = version;
        self
    }

    pub fn client(mut self, client: &str) -> Got {
        client.clone_into(&mut self.client);
        self
    }

    /// The client brought this one, among its own fields.
    pub fn without_proto(mut self) -> Got {
        self.proto.clear();
        self
    }

    /// The client brought this one, among its own fields.
    pub fn without_forwarded_host(mut self) -> Got {
        self.forwarded_host = None;
        self
    }

    /// The client brought this one, among its own fields.
    pub fn without_id(mut self) -> Got {
        self.id = false;
        self
    }
}

impl From<Got> for String {
    fn from(got: Got) -> String {
        let mut text = format!(
            "{} HTTP/1.1\r\nHost: {}\r\n{}",
            got.line, got.host, got.fields
        );
        text += &format!("X-Forwarded-For: {}\r\n", got.client);
        if !got.proto.is_empty() {
            text += &format!("X-Forwarded-Proto: {}\r\n", got.proto);
        }
        if let Some(host) = got.forwarded_host {
            text += &format!("X-Forwarded-Host: {host}\r\n");
        }
        if got.id {
            text += "X-Request-Id: *\r\n";
        }
        text + &format!("Via: {} evenkeel\r\n{}", got.via, got.end)
    }
}

impl Bench {
    /// Boots the server.
    pub fn start() -> Bench {
        Bench::with("")
    }

    /// Boots the server with these tables besides.
    pub fn with(tables: &str) -> Bench {
        let [main, secret, standby] = ["main", "secret", "standby"].map(Backend::start);
        let server = Server::in_process(&format!(
            r#"
            workers = 1
            trusted_proxies = ["127.0.0.2/32"]
            [[listener]]
            name = "routed"
            address = "127.0.0.1:0"
            protocol = "http"
            [[listener]]
            name = "bare"
            address = "127.0.0.1:0"
            protocol = "http"
            [[listener]]
            name = "redirecting"
            address = "127.0.0.1:0"
            protocol = "http"
            redirect = "https"
            [[service]]
            name = "main"
            # The rows have it fail in a row, and go on with it.
            ejection = "off"
            discover = {{ static = ["{main}"] }}
            [[service]]
            name = "secret"
            discover = {{ static = ["{secret}"] }}
            [[service]]
            name = "small"
            max_body = 10
            discover = {{ static = ["{main}"] }}
            [[service]]
            name = "pair"
            ejection = "off"
            discover = {{ static = [
                {{ address = "{main}", priority = 0 }},
                {{ address = "{standby}", priority = 10 }},
            ] }}
            [[service]]
            name = "absent"
            discover = {{ static = ["{absent}"] }}
            [[route]]
            listener = ["routed"]
            service = "main"
            [[route]]
            listener = ["routed"]
            path = "/secret"
            service = "secret"
            [[route]]
            listener = ["routed"]
            path = "/small"
            service = "small"
            [[route]]
            listener = ["routed"]
            path = "/pair"
            service = "pair"
            [[route]]
            listener = ["routed"]
            path = "/absent"
            service = "absent"
            {tables}
            "#,
            main = main.address,
            secret = secret.address,
            standby = standby.address,
            absent = crate::support::backend::nobody(),
        ));
        Bench {
            server,
            main,
            secret,
            standby,
            rows: 0,
        }
    }

    /// A client of the listener with routes.
    pub fn client(&self) -> Client {
        self.client_of(0, None)
    }

    fn client_of(&self, listener: usize, from: Option<IpAddr>) -> Client {
        let address: SocketAddr = self.server.addresses[listener];
        let client = match from {
            None => Client::plain(address),
            Some(from) => Client::plain_from(from, address),
        };
        client.patience(LONG);
        client
    }

    /// A client whose every request is answered by the server itself, on the only worker: when
    /// its answer is there, what was sent to the server before has been read.
    pub fn barrier(&self) -> Barrier {
        Barrier(self.client_of(1, None))
    }

    /// A step of a backend's: waits until the server has read what was sent to it so far.
    pub fn server_has_read(&self) -> Step {
        let address = self.server.addresses[1];
        Step::Call(Arc::new(move || Barrier(Client::plain(address)).pass()))
    }

    /// Tries every row and panics with all that went wrong; gives back how many there were.
    pub fn try_all(&mut self, rows: Vec<Row>) -> usize {
        let count = rows.len();
        let mut wrong = String::new();
        for row in rows {
            if let Err(why) = self.attempt(&row) {
                wrong += &format!("\n\n{}\n{why}", row.rule);
                // What the row left behind is not the next one's.
                pause(Duration::from_millis(50));
                for backend in [&self.main, &self.secret, &self.standby] {
                    backend.forget_scripts();
                    backend.close_all();
                    backend.take();
                }
                pause(Duration::from_millis(50));
            }
        }
        assert!(wrong.is_empty(), "rows that failed:{wrong}");
        count
    }

    fn attempt(&mut self, row: &Row) -> Result<(), String> {
        self.rows += 1;
        for script in &row.scripts {
            self.main.next(script.clone());
        }
        let mut client = self.client_of(row.listener, row.from);
        for talk in &row.talk {
            match talk {
                Talk::Read(expected) => {
                    let read = client.exactly(expected.len());
                    let read = read.map_err(|no| format!("{expected:?}: {no:?}"))?;
                    same("the first part", &mask(&read), expected)?;
                }
                Talk::Settle => self.barrier().pass(),
                // That the server has closed already shows in its answer.
                Talk::Send(bytes) => {
                    client.send(bytes);
                }
                Talk::Interim(expected) => {
                    let response = client.response();
                    let response = response.map_err(|no| format!("interim: {no:?}"))?;
                    same("interim response", &mask(&response.raw), expected)?;
                }
                Talk::Finish => client.finish(),
            }
        }
        let mut wanted: Vec<&String> = row.got.iter().collect();
        let mut all = row.got.iter().chain(&row.secret).chain(&row.standby);
        for answer in &row.answers {
            check_answer(&mut client, *answer, &mut all, row.after)?;
        }
        let kept: String;
        if row.after == After::Kept && row.listener == 0 {
            let mut target = got("GET /kept");
            if row.from == Some(TRUSTED) {
                target = target.client("127.0.0.2");
            }
            kept = target.into();
            let response = client.get("a", "/kept");
            let response = response.map_err(|no| format!("the next request: {no:?}"))?;
            same("the next response", &response.text(), "GET /kept ")?;
            wanted.push(&kept);
        }
        match row.after {
            After::Kept => client.finish(),
            After::Closed => {}
            After::Settled => drop(client.take()),
        }
        if row.after != After::Settled {
            let rest = client.rest();
            if rest != Ok((Vec::new(), End::Closed)) {
                return Err(format!("the connection should have ended: {rest:?}"));
            }
        }
        drop(client);

        // An innocent, through each backend.
        let mut innocent = self.client();
        let mut after = Vec::new();
        for prefix in ["", "/secret"] {
            let path = format!("{prefix}/after-{}", self.rows);
            let response = innocent.get("a", &path);
            let response = response.map_err(|no| format!("the innocent: {no:?}"))?;
            let body = format!("GET {path} ");
            same("the innocent's response", &response.text(), &body)?;
            after.push(String::from(got(&format!("GET {path}"))));
        }
        wanted.push(&after[0]);
        let secret: Vec<_> = row.secret.iter().chain(Some(&after[1])).collect();
        arrived("main", &self.main, &wanted)?;
        arrived("secret", &self.secret, &secret)?;
        arrived(
            "standby",
            &self.standby,
            &row.standby.iter().collect::<Vec<_>>(),
        )?;
        match self.main.unused_scripts() {
            0 => Ok(()),
            n => Err(format!("{n} scripts were not used")),
        }
    }
}

/// See [`Bench::barrier`].
pub struct Barrier(Client);

impl Barrier {
    /// Returns when all that was sent to the server before has been read by it.
    pub fn pass(&mut self) {
        let response = self.0.get("a", "/").expect("the server answers");
        assert_eq!(response.status(), 404);
    }
}

fn check_answer<'a>(
    client: &mut Client,
    answer: Answer,
    got: &mut impl Iterator<Item = &'a String>,
    after: After,
) -> Result<(), String> {
    let kind = match answer {
        Answer::EchoToHead | Answer::OwnToHead(_) => Kind::ResponseToHead,
        _ => Kind::Response,
    };
    let fail = |no| format!("{answer:?}: {no:?}");
    match answer {
        Answer::Echo | Answer::EchoToHead => {
            let response = client.message(kind).map_err(fail)?;
            let got = got
                .next()
                .ok_or("no request is left that this could answer")?;
            let request = wire::message(got.as_bytes(), Kind::Request, true)?;
            let request = request.ok_or_else(|| format!("not whole: {got:?}"))?;
            let body = echo(request.method(), request.target(), &request.body);
            if response.status() != 200 || response.field("x-backend").is_none() {
                return Err(format!("not a backend's: {response:?}"));
            }
            if kind == Kind::Response {
                let body = String::from_utf8_lossy(&body);
                same("body", &response.text(), &body)?;
            }
            Ok(())
        }
        Answer::Own(status) | Answer::OwnToHead(status) => {
            let response = client.message(kind).map_err(fail)?;
            let id = response.field("x-request-id").unwrap_or_default();
            let closes = response.field("connection") == Some("close");
            let text = response.text();
            let says = kind == Kind::ResponseToHead
                || (300..400).contains(&status)
                || text.starts_with(&format!("{status} "));
            let sound = response.status() == status
                && response.field("server") == Some("evenkeel")
                && response.field("date").is_some()
                && id.len() == 32
                && says
                && closes == (after == After::Closed);
            match sound {
                true => Ok(()),
                false => Err(format!(
                    "not our {status}, or `close` is wrong: {response:?}"
                )),
            }
        }
        Answer::Raw(expected) => {
            let mut raw = Vec::new();
            while mask(&raw).len() < expected.len() {
                match client.exactly(1) {
                    Ok(byte) => raw.extend(byte),
                    Err(no) => {
                        same("response", &mask(&raw), expected)?;
                        return Err(fail(no));
                    }
                }
            }
            same("response", &mask(&raw), expected)
        }
        Answer::Cut(expected) | Answer::Reset(expected) => {
            let (raw, end) = client.rest().map_err(fail)?;
            same("response", &mask(&raw), expected)?;
            match (answer, end) {
                (Answer::Reset(_), End::Closed) => Err("closed, not reset".into()),
                _ => Ok(()),
            }
        }
    }
}

/// Has the backend got exactly this? What was under way may still have to arrive: a request that
/// breaks off is perhaps seen by the backend only after the next one, on another connection.
fn arrived(name: &str, backend: &Backend, wanted: &[&String]) -> Result<(), String> {
    let breaks_off = |text: &str| {
        let message = wire::message(text.as_bytes(), Kind::Request, true);
        matches!(message, Ok(None))
    };
    let mut wanted = wanted.to_vec();
    wanted.sort_by_key(|text| breaks_off(text));
    let begun = Instant::now();
    loop {
        let received: Vec<Received> = backend.look();
        let mut texts: Vec<String> = received.iter().map(|r| mask(&r.bytes)).collect();
        texts.sort_by_key(|text| breaks_off(text));
        if texts.iter().eq(wanted.iter().copied()) {
            backend.take();
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(1) {
            return Err(format!("{name} got {texts:#?}\n  and not {wanted:#?}"));
        }
        pause(Duration::from_millis(1));
    }
}

fn same(what: &str, found: &str, expected: &str) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}\n  and not {expected:?}")),
    }
}

/// As text, with what differs from run to run replaced by `*`.
pub fn mask(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    ["X-Request-Id: ", "\r\nDate: "]
        .iter()
        .fold(text, |text, name| {
            let mut parts = text.split(name);
            let mut masked = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                masked += name;
                let (value, rest) = part.split_at(part.find("\r\n").unwrap_or(part.len()));
                let ours = value.len() == 32 || value.ends_with(" GMT");
                masked += if ours { "*" } else { value };
                masked += rest;
            }
            masked
        })
}
