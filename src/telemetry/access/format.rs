//! A record to a line. Nothing is allocated but what the buffer needs to grow.

use std::io::Write;
use std::time::SystemTime;

use super::line::{self, Quoting};
use super::{AccessFormat, Record};
use crate::telemetry::date::{Civil, MONTHS, unix_millis};
use crate::telemetry::traceparent::Traceparent;

/// What stands before a member's value, in one piece.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
/// What stands before a string, its quote included.
macro_rules! string {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}
/// Writes lines, and remembers the text of the current second.
#[derive(Debug)]
pub(super) struct Formatter {
    format: AccessFormat,
    query: bool,
    /// Seconds since 1970 that `second_text` stands for.
    second: i64,
    second_text: Vec<u8>,
}

impl Formatter {
    pub(super) fn new(format: AccessFormat, query: bool) -> Formatter {
        Formatter {
            format,
            query,
            second: i64::MIN,
            second_text: Vec::new(),
        }
    }

    /// Appends a line and its end.
    pub(super) fn line(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self.format {
            AccessFormat::Off => return,
            AccessFormat::Json => self.json(record, out),
            AccessFormat::Combined => self.combined(record, out),
        }
        out.push(b'\n');
    }

    fn json(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        let millis = self.second(record.ended, out);
        let [a, b, c] = line::three_digits(millis);
        out.extend_from_slice(&[b'.', a, b, c, b'Z', b'"']);

        let mut object = Object(out);
        object.quoted(string!("client"), |out| {
            line::socket(out, record.client, record.client_port);
        });
        if let Some(tls) = record.tls {
            object.plain(string!("tls"), tls);
        }
        object.optional_text(string!("client_cert"), record.client_cert);
        object.text(string!("listener"), record.listener);
        object.optional_text(string!("route"), record.route);
        object.optional_text(string!("service"), record.service);
        object.optional_text(string!("backend"), record.backend);
        object.number(key!("attempts"), record.attempts.into());
        object.text(string!("method"), record.method);
        object.text(string!("host"), record.host);
        object.text(string!("path"), record.path);
        if self.query && !record.query.is_empty() {
            object.text(string!("query"), record.query);
        }
        object.plain(string!("protocol"), record.protocol);
        object.number(key!("status"), record.status.into());
        if let Some(status) = record.grpc_status {
            object.plain(string!("grpc_status"), status);
        }
        object.number(key!("received"), record.received);
        object.number(key!("sent"), record.sent);
        match record.broken {
            None => object.plain(string!("end"), "complete"),
            Some(broken) => {
                object.plain(string!("end"), broken.side);
                object.plain(string!("phase"), broken.phase);
            }
        }
        object.text(string!("request_id"), record.request_id);
        object.optional_text(string!("trace_id"), record.traceparent.and_then(trace_id));
        object.optional_text(string!("referer"), self.referer(record));
        object.optional_text(string!("user_agent"), record.user_agent);
        if let Some(connect) = record.connect {
            object.with(key!("connect_ms"), |out| line::millis(out, connect));
        }
        if let Some(first_byte) = record.first_byte {
            object.with(key!("first_byte_ms"), |out| line::millis(out, first_byte));
        }
        object.with(key!("total_ms"), |out| line::millis(out, record.total));
        out.push(b'}');
    }

    /// `client - - [time] "request" status bytes "referer" "user agent"`
    fn combined(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &[u8]| line::text(out, text, Quoting::Combined);
        out.extend_from_slice(record.client.as_bytes());
        out.extend_from_slice(b" - - [");
        self.second(record.ended, out);
        out.extend_from_slice(b" +0000] \"");
        text(out, record.method);
        out.push(b' ');
        text(out, record.path);
        if self.query {
            text(out, record.query);
        }
        out.push(b' ');
        text(out, record.protocol.as_bytes());
        out.extend_from_slice(b"\" ");
        line::number(out, record.status.into());
        out.push(b' ');
        line::number(out, record.sent);
        for field in [self.referer(record), record.user_agent] {
            out.extend_from_slice(b" \"");
            text(out, field.unwrap_or(b"-"));
            out.push(b'"');
        }
    }

    /// A referrer's query is a query, of some other page: it may hold as much that is private.
    fn referer<'a>(&self, record: &Record<'a>) -> Option<&'a [u8]> {
        let referer = record.referer?;
        let end = referer.iter().position(|byte| matches!(byte, b'?' | b'#'));
        Some(match end {
            Some(end) if !self.query => &referer[..end],
            _ => referer,
        })
    }

    /// Appends the time up to the second; returns the milliseconds after it.
    fn second(&mut self, time: SystemTime, out: &mut Vec<u8>) -> u16 {
        let millis = unix_millis(time);
        let second = millis.div_euclid(1_000);
        if second != self.second {
            self.second = second;
            self.second_text.clear();
            let Civil {
                year,
                month,
                day,
                hour,
                minute,
                second,
            } = Civil::from_unix(second);
            let name = MONTHS[usize::from(month) - 1];
            // A Vec takes everything.
            let _ = match self.format {
                AccessFormat::Combined => write!(
                    self.second_text,
                    "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02}"
                ),
                _ => write!(
                    self.second_text,
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
                ),
            };
        }
        out.extend_from_slice(&self.second_text);
        millis.rem_euclid(1_000) as u16
    }
}

/// A JSON object that has one member already.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    fn with(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(key.as_bytes());
        value(self.0);
    }

    /// `key` opens the string.
    fn quoted(&mut self, key: &str, content: impl FnOnce(&mut Vec<u8>)) {
        self.with(key, content);
        self.0.push(b'"');
    }

    fn text(&mut self, key: &str, text: impl AsRef<[u8]>) {
        self.quoted(key, |out| line::text(out, text.as_ref(), Quoting::Json));
    }

    fn optional_text(&mut self, key: &str, text: Option<impl AsRef<[u8]>>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    /// A word of ours, in which there is nothing to escape.
    fn plain(&mut self, key: &str, word: &'static str) {
        self.quoted(key, |out| out.extend_from_slice(word.as_bytes()));
    }

    fn number(&mut self, key: &str, n: u64) {
        self.with(key, |out| line::number(out, n));
    }
}

/// The trace id in a `traceparent`.
pub(super) fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    Traceparent::parse(traceparent).map(|parsed| parsed.trace)
}
