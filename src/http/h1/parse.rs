//! Bytes to heads (RFC 9112 §2–§5), strictly: a smuggled request begins where two readers
//! disagree, so every leniency that the RFC merely allows is left out.
//!
//! A scan for the end of the head comes first. It refuses what no later byte can mend (bare CR,
//! bare LF, NUL) at once and costs little when it is repeated because the head came in pieces;
//! lines are read only when the head is whole. The body's framing is not decided here but in
//! [`crate::http::body`].

use memchr::{memchr, memchr2, memchr3};

use crate::http::head::normalise_path;
use crate::http::head::{BadResponse, Method, Rejection, RequestHead, ResponseHead, Version};
use crate::http::headers::{Fields, Known, is_token_byte, is_value, trim};

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes, first line and final empty line included.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
}

/// Reads a request head from the front of `input`. `Ok(None)`: it is not whole yet, nothing is
/// wrong so far. `Ok(Some(n))`: `head` is filled in and took `n` bytes, with an empty line before
/// it if there was one (RFC 9112 §2.2). After a refusal, what `head` holds means nothing.
///
/// - CONNECT is a 405: there is no resource here that it could be meant for.
/// - An HTTP major version other than 1 is a 505; a higher minor version is read as 1.1
///   (RFC 9110 §2.5).
/// - The listener's policy is not applied: see [`crate::http::head::has_encoded_slash`] and
///   [`crate::http::headers::is_underscored`].
pub fn request_head(
    input: &[u8],
    limits: HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Rejection> {
    let start = match input {
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let Some(Scanned { end, fields: count }) = scan(input, start, limits)? else {
        return Ok(None);
    };
    let mut lines = Lines(&input[start..end]);
    let target = request_line(lines.take(), head)?;
    let mut hosts: (usize, &[u8]) = (0, b"");
    head.fields.clear();
    let not_host = |known, value| {
        if known == Known::Host {
            hosts = (hosts.0 + 1, value);
        }
        known != Known::Host
    };
    lines
        .fields(count, &mut head.fields, not_host)
        .map_err(Rejection::bad_request)?;
    let target_authority = request_target(target, head)?;
    authority(hosts, target_authority, head)?;
    Ok(Some(end))
}

/// Reads a response head, interim or final, from the front of `input`; as [`request_head`].
/// Nothing may stand before the status line, and a line is never folded (RFC 9112 §5.2 lets a
/// proxy answer 502 to that).
pub fn response_head(
    input: &[u8],
    limits: HeadLimits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, BadResponse> {
    // Refused at once: a peer that speaks something else may never send the end of a head.
    if !input.iter().zip(b"HTTP/1.").all(|(a, b)| a == b) {
        return Err(BAD_STATUS_LINE);
    }
    let Some(Scanned { end, fields: count }) = scan(input, 0, limits)? else {
        return Ok(None);
    };
    let mut lines = Lines(&input[..end]);
    status_line(lines.take(), head)?;
    head.fields.clear();
    lines
        .fields(count, &mut head.fields, |_, _| true)
        .map_err(BadResponse)?;
    Ok(Some(end))
}

/// A head that is whole.
struct Scanned {
    /// The offset after its empty line.
    end: usize,
    /// Lines between the first one and the empty one.
    fields: usize,
}

/// Finds the end of the head, or `None` if that has not come. What it says of a head it also said
/// of each longer prefix since the fault came in.
fn scan(input: &[u8], start: usize, limits: HeadLimits) -> Result<Option<Scanned>, Fault> {
    let bounded = &input[..input.len().min(limits.bytes)];
    let mut line = start;
    let mut lines = 0;
    loop {
        let rest = bounded.get(line..).unwrap_or_default();
        let Some(length) = memchr3(b'\r', b'\n', 0, rest) else {
            break;
        };
        match rest[length..] {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => break,
            [b'\r', ..] => return Err(Fault::Malformed("bare CR in the head")),
            [b'\n', ..] => return Err(Fault::Malformed("bare LF in the head")),
            _ => return Err(Fault::Malformed("NUL in the head")),
        }
        line += length + 2;
        if length == 0 {
            let fields = usize::saturating_sub(lines, 1);
            return Ok(Some(Scanned { end: line, fields }));
        }
        if lines > limits.fields {
            return Err(Fault::TooManyFields);
        }
        lines += 1;
    }
    match input.len() < limits.bytes {
        true => Ok(None),
        false if lines == 0 => Err(Fault::FirstLineTooLong),
        false => Err(Fault::TooLong),
    }
}

/// Name and value, still in the input.
type RawField<'a> = (&'a [u8], &'a [u8]);

/// Lines of a scanned head: each ends with CRLF and holds no other CR.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its CRLF; the empty one is the last.
    fn take(&mut self) -> &'a [u8] {
        let length = memchr(b'\r', self.0).unwrap_or(self.0.len());
        let line = &self.0[..length];
        self.0 = self.0.get(length + 2..).unwrap_or_default();
        line
    }

    /// Appends the `count` fields that are left to `to`, those for which `keep` is true. httparse
    /// takes the lines apart; it would let a bare LF end one, but [`scan`] has refused those.
    fn fields(
        self,
        count: usize,
        to: &mut Fields,
        keep: impl FnMut(Known, &'a [u8]) -> bool,
    ) -> Result<(), &'static str> {
        // Room has to be written before it is lent: 32 bytes a field, so no more than is needed,
        // and on the stack up to what backends may send (8 KiB).
        const NONE: httparse::Header<'_> = httparse::EMPTY_HEADER;
        match count {
            0..=16 => self.fields_within(&mut [NONE; 16], to, keep),
            17..=64 => self.fields_within(&mut [NONE; 64], to, keep),
            65..=256 => self.fields_within(&mut [NONE; 256], to, keep),
            _ => self.fields_within(&mut vec![NONE; count], to, keep),
        }
    }

    fn fields_within(
        mut self,
        room: &mut [httparse::Header<'a>],
        to: &mut Fields,
        mut keep: impl FnMut(Known, &'a [u8]) -> bool,
    ) -> Result<(), &'static str> {
        let Ok(httparse::Status::Complete((n, fields))) = httparse::parse_headers(self.0, room)
        else {
            return Err(self.complaint());
        };
        if n != self.0.len() {
            return Err(MALFORMED_FIELD);
        }
        let kept = fields.iter().filter_map(|header| {
            let (name, value) = (header.name.as_bytes(), trim(header.value));
            let known = Known::of(name);
            keep(known, value).then_some((known, name, value))
        });
        to.extend_from_block(self.0, kept);
        Ok(())
    }

    /// What is wrong with the fields that httparse refused.
    fn complaint(&mut self) -> &'static str {
        loop {
            match self.take() {
                [] => return MALFORMED_FIELD,
                line => {
                    if let Err(complaint) = field_line(line) {
                        return complaint;
                    }
                }
            }
        }
    }
}

/// RFC 9112 §5: one line, as trailers come; and why it is refused.
pub(super) fn field_line(line: &[u8]) -> Result<RawField<'_>, &'static str> {
    let name_end = line.iter().position(|b| !is_token_byte(*b));
    match name_end.map(|end| (end, line[end])) {
        // §5.2: obs-fold.
        Some((0, b' ' | b'\t')) => Err("folded field line"),
        Some((0, b':')) => Err("empty field name"),
        Some((end, b':')) => {
            let value = trim(&line[end + 1..]);
            match is_value(value) {
                true => Ok((&line[..end], value)),
                false => Err("control character in a field value"),
            }
        }
        // §5.1: no white space between name and colon.
        Some((_, b' ' | b'\t')) => Err("white space in a field name"),
        Some(_) => Err("invalid character in a field name"),
        None => Err("field line without a colon"),
    }
}

/// RFC 9112 §3: method, one space, target, one space, version. Gives back the target, which holds
/// visible ASCII only.
fn request_line<'a>(line: &'a [u8], head: &mut RequestHead) -> Result<&'a [u8], Rejection> {
    let mut parts = line.splitn(3, |b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD_REQUEST_LINE);
    };
    if method.is_empty() || !method.iter().all(|b| is_token_byte(*b)) || target.is_empty() {
        return Err(BAD_REQUEST_LINE);
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Rejection::bad_request("invalid character in the target"));
    }
    if memchr(b'#', target).is_some() {
        return Err(Rejection::bad_request("fragment in the target"));
    }
    head.version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Rejection {
                status: 505,
                reason: "HTTP version not supported",
            });
        }
        _ => return Err(BAD_REQUEST_LINE),
    };
    head.method = Method::of(method);
    head.method_text.clear();
    head.method_text.extend_from_slice(method);
    Ok(target)
}

/// RFC 9112 §3.2: sets path and query, gives back the authority of an absolute-form target.
fn request_target<'a>(
    target: &'a [u8],
    head: &mut RequestHead,
) -> Result<Option<&'a [u8]>, Rejection> {
    let (authority, path_and_query) = match (head.method, target) {
        (Method::Connect, _) => {
            return Err(Rejection {
                status: 405,
                reason: "CONNECT is not supported",
            });
        }
        (Method::Options, b"*") | (_, [b'/', ..]) => (None, target),
        (_, b"*") => return Err(Rejection::bad_request("target * without OPTIONS")),
        _ => {
            let rest = without_scheme(target)
                .ok_or(Rejection::bad_request("target is neither a path nor a URL"))?;
            let end = memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            let (authority, path_and_query) = rest.split_at(end);
            (Some(authority), path_and_query)
        }
    };
    let path_end = memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(path_end);
    head.query.clear();
    head.query.extend_from_slice(query);
    match path {
        b"*" => head.path.splice(.., *b"*"),
        // §3.2.4: the last proxy turns this into `*`.
        b"" if head.method == Method::Options && query.is_empty() => head.path.splice(.., *b"*"),
        // RFC 9110 §4.2.3.
        b"" => head.path.splice(.., *b"/"),
        _ => return normalise_path(path, &mut head.path).map(|()| authority),
    };
    Ok(authority)
}

fn without_scheme(url: &[u8]) -> Option<&[u8]> {
    [b"http://".as_slice(), b"https://"]
        .iter()
        .find_map(|scheme| {
            let (start, rest) = url.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        })
}

/// RFC 9112 §3.2, §3.2.2: exactly one valid `Host` in 1.1, at most one in 1.0; the target's own
/// authority takes its place.
fn authority(
    (hosts, host): (usize, &[u8]),
    target_authority: Option<&[u8]>,
    head: &mut RequestHead,
) -> Result<(), Rejection> {
    let old = head.version == Version::Http10;
    match (hosts, host) {
        (0, _) if !old => return Err(Rejection::bad_request("missing host")),
        (2.., _) => return Err(Rejection::bad_request("repeated host")),
        (1, b"") if !old && target_authority.is_none() => {
            return Err(Rejection::bad_request("empty host"));
        }
        (0, _) | (1, b"") => head.clear_authority(),
        (1, _) => head.set_authority(host)?,
    }
    match target_authority {
        Some(authority) => head.set_authority(authority),
        None => Ok(()),
    }
}

/// RFC 9112 §4; the space before an absent reason may be absent too, as many servers have it.
fn status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), BadResponse> {
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ b'0'..=b'9',
        b' ',
        hundreds @ b'1'..=b'9',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
        rest @ ..,
    ] = line
    else {
        return Err(BAD_STATUS_LINE);
    };
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] if is_value(reason) => reason,
        _ => return Err(BAD_STATUS_LINE),
    };
    head.version = match minor {
        b'0' => Version::Http10,
        _ => Version::Http11,
    };
    head.status = [hundreds, tens, ones]
        .iter()
        .fold(0, |n, d| n * 10 + u16::from(**d - b'0'));
    head.reason.clear();
    head.reason.extend_from_slice(reason);
    Ok(())
}

/// What is wrong with a head of either kind.
enum Fault {
    Malformed(&'static str),
    FirstLineTooLong,
    TooLong,
    TooManyFields,
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Rejection {
        let (status, reason) = match fault {
            Fault::Malformed(reason) => (400, reason),
            Fault::FirstLineTooLong => (414, "request line too long"),
            Fault::TooLong => (431, "request head too large"),
            Fault::TooManyFields => (431, "too many fields"),
        };
        Rejection { status, reason }
    }
}

impl From<Fault> for BadResponse {
    fn from(fault: Fault) -> BadResponse {
        BadResponse(match fault {
            Fault::Malformed(reason) => reason,
            Fault::FirstLineTooLong | Fault::TooLong => "response head too large",
            Fault::TooManyFields => "too many fields in the response",
        })
    }
}

const MALFORMED_FIELD: &str = "malformed field";
const BAD_REQUEST_LINE: Rejection = Rejection::bad_request("malformed request line");
const BAD_STATUS_LINE: BadResponse = BadResponse("malformed status line");

#[cfg(test)]
mod tests;
