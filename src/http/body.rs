//! How long a message's body is: the one place where that is decided (RFC 9112 §6).
//!
//! Looks at a head as it was received, before hop-by-hop fields are removed. Steps are numbered
//! after RFC 9112 §6.3. Whatever two readers could understand differently is refused, since a
//! front and a back end that disagree on where a request ends are how requests are smuggled
//! (RFC 9112 §11.2).

use super::head::{BadResponse, Method, Rejection, RequestHead, ResponseHead, Version};
use super::headers::{Fields, Known, list_members, trim};

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// Exactly so many bytes (may be 0: `Content-Length: 0` was said and is to be said again).
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// RFC 9112 §6.3 for a request. Anything that could be read two ways is refused.
///
/// A `Content-Length` that is repeated is refused even when all say the same: clients have no
/// reason to send that, and not everybody on the way reads it alike.
pub fn request_framing(head: &RequestHead) -> Result<BodyFraming, Rejection> {
    let fields = &head.fields;
    let coding = Coding::of(fields);
    let has_length = fields.first(Known::ContentLength).is_some();
    match coding {
        // Step 3: both at once.
        Some(_) if has_length => Err(Rejection::bad_request(
            "content-length together with transfer-encoding",
        )),
        // RFC 9112 §6.1: framing is faulty in a version that has no transfer codings.
        Some(_) if head.version == Version::Http10 => Err(Rejection::bad_request(
            "transfer-encoding in an HTTP/1.0 request",
        )),
        // Step 4.
        Some(Coding::Chunked) => Ok(BodyFraming::Chunked),
        // Step 4.3, and RFC 9112 §7.1: chunked is applied once.
        Some(Coding::NotChunkedAtTheEnd) => Err(Rejection::bad_request(
            "chunked is not the last transfer coding",
        )),
        Some(Coding::ChunkedTwice) => Err(Rejection::bad_request("chunked twice")),
        // RFC 9112 §6.1.
        Some(Coding::UnknownThenChunked) => Err(Rejection {
            status: 501,
            reason: "unknown transfer coding",
        }),
        None => match declared_length(fields).map_err(Rejection::bad_request)? {
            // Step 5.
            Declared::Repeated(_) => Err(Rejection::bad_request("repeated content-length")),
            // Step 6.
            Declared::Once(n) => Ok(BodyFraming::Length(n)),
            // Step 7.
            Declared::Nothing => Ok(BodyFraming::None),
        },
    }
}

/// RFC 9112 §6.3 for the final response to a request with `method`, or for an interim one.
///
/// The same length said more than once is taken as said once (step 5): some applications do
/// that, and it is said only once when it is forwarded.
pub fn response_framing(method: Method, head: &ResponseHead) -> Result<BodyFraming, BadResponse> {
    let fields = &head.fields;
    let coding = Coding::of(fields);
    let length = declared_length(fields).map_err(BadResponse)?;
    // Step 3, first, so that it is refused wherever it stands.
    if coding.is_some() && length != Declared::Nothing {
        return Err(BadResponse(
            "content-length together with transfer-encoding",
        ));
    }
    // Step 1.
    if is_interim(head) && announces_body(head) {
        // Something must follow on this connection, and nobody can say where it starts.
        return Err(BadResponse("interim response with a body"));
    }
    if method == Method::Head || is_interim(head) || matches!(head.status, 204 | 304) {
        return Ok(BodyFraming::None);
    }
    match (coding, length) {
        // RFC 9112 §6.1.
        (Some(_), _) if head.version == Version::Http10 => {
            Err(BadResponse("transfer-encoding in an HTTP/1.0 response"))
        }
        // Step 4.
        (Some(Coding::Chunked), _) => Ok(BodyFraming::Chunked),
        (Some(_), _) => Err(BadResponse("unknown transfer coding")),
        // Steps 5 and 6.
        (None, Declared::Once(n) | Declared::Repeated(n)) => Ok(BodyFraming::Length(n)),
        // Step 8.
        (None, Declared::Nothing) => Ok(BodyFraming::UntilClose),
    }
}

/// May another request follow on this connection (RFC 9112 §9.3), as far as the head says?
pub fn request_keeps_alive(head: &RequestHead) -> bool {
    keeps_alive(head.version, &head.fields)
}

/// May the connection be used again after this response, as far as the head says? Not when it
/// announces a body where there can be none (204): what comes next may be that body.
pub fn response_keeps_alive(head: &ResponseHead) -> bool {
    keeps_alive(head.version, &head.fields) && !(head.status == 204 && announces_body(head))
}

/// The length that a message's fields declare, if they do so once and rightly.
pub fn declared(fields: &Fields) -> Option<u64> {
    match declared_length(fields) {
        Ok(Declared::Once(n) | Declared::Repeated(n)) => Some(n),
        _ => None,
    }
}

/// What the fields say of the body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Nothing,
    Once(u64),
    /// The same number more than once, in a list or in several fields.
    Repeated(u64),
}

/// Reads every `Content-Length` (RFC 9110 §8.6).
pub(super) fn declared_length(fields: &Fields) -> Result<Declared, &'static str> {
    let mut values = fields.all(Known::ContentLength);
    let Some(first) = values.next() else {
        return Ok(Declared::Nothing);
    };
    // As nearly everybody says it.
    if let (Some(n), None) = (decimal(first), values.next()) {
        return Ok(Declared::Once(n));
    }
    let members = fields
        .all(Known::ContentLength)
        .flat_map(|v| v.split(|b| *b == b','));
    let mut declared = Declared::Nothing;
    for member in members {
        let n = decimal(trim(member)).ok_or("malformed content-length")?;
        declared = match declared {
            Declared::Nothing => Declared::Once(n),
            Declared::Once(m) | Declared::Repeated(m) if m == n => Declared::Repeated(n),
            _ => return Err("differing content-lengths"),
        };
    }
    Ok(declared)
}

/// Digits only. More than an `i64` holds is refused too, since the number is passed on to peers
/// that may keep it in one.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let n = digits.iter().try_fold(0u64, |n, &d| {
        let d = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(d)
    })?;
    (n <= i64::MAX as u64).then_some(n)
}

/// What the fields say of transfer codings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    ChunkedTwice,
    UnknownThenChunked,
    NotChunkedAtTheEnd,
}

impl Coding {
    /// Reads every `Transfer-Encoding` as one list; `None` without any. Empty members count as
    /// codings that nobody knows: readers differ on them.
    fn of(fields: &Fields) -> Option<Coding> {
        let members = fields
            .all(Known::TransferEncoding)
            .flat_map(|v| v.split(|b| *b == b','))
            .map(|m| trim(m).eq_ignore_ascii_case(b"chunked"));
        let (mut all, mut chunked, mut last) = (0u32, 0u32, false);
        for is_chunked in members {
            all += 1;
            chunked += u32::from(is_chunked);
            last = is_chunked;
        }
        match (all, chunked, last) {
            (0, ..) => None,
            (_, _, false) => Some(Coding::NotChunkedAtTheEnd),
            (1, ..) => Some(Coding::Chunked),
            (_, 1, true) => Some(Coding::UnknownThenChunked),
            (_, _, true) => Some(Coding::ChunkedTwice),
        }
    }
}

fn is_interim(head: &ResponseHead) -> bool {
    matches!(head.status, 100..=199)
}

/// Does the head speak of body bytes, whether or not there can be any?
fn announces_body(head: &ResponseHead) -> bool {
    head.fields.first(Known::TransferEncoding).is_some()
        || !matches!(
            declared_length(&head.fields),
            Ok(Declared::Nothing | Declared::Once(0) | Declared::Repeated(0))
        )
}

/// Does `Connection` name this option (RFC 9110 §7.6.1)?
pub fn connection_says(fields: &Fields, option: &[u8]) -> bool {
    fields.all(Known::Connection).any(|value| {
        match memchr::memchr(b',', value) {
            // Alone, as nearly always.
            None => value.eq_ignore_ascii_case(option),
            Some(_) => list_members([value].into_iter()).any(|o| o.eq_ignore_ascii_case(option)),
        }
    })
}

/// RFC 9112 §9.3: `close` wins; HTTP/1.0 has to ask for more.
fn keeps_alive(version: Version, fields: &Fields) -> bool {
    let says = |option: &[u8]| connection_says(fields, option);
    match version {
        Version::Http10 => says(b"keep-alive") && !says(b"close"),
        Version::Http11 => !says(b"close"),
        Version::Http2 => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn response(status: u16, list: &[(&str, &str)]) -> ResponseHead {
        ResponseHead {
            status,
            fields: fields(list),
            ..ResponseHead::default()
        }
    }

    // Requests and responses to GET are tested by raw bytes beside the parser.
    #[test]
    fn responses_by_method_and_status() {
        const LENGTH: &[(&str, &str)] = &[("Content-Length", "5")];
        const CHUNKED: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];
        const NEITHER: &[(&str, &str)] = &[];
        for (rule, method, status, list, expected) in [
            (
                "9112 §6.3 step 1 HEAD",
                Method::Head,
                200,
                LENGTH,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 HEAD",
                Method::Head,
                200,
                CHUNKED,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 HEAD",
                Method::Head,
                200,
                NEITHER,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 HEAD",
                Method::Head,
                500,
                NEITHER,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 204",
                Method::Post,
                204,
                LENGTH,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 204",
                Method::Post,
                204,
                CHUNKED,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 304",
                Method::Get,
                304,
                LENGTH,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 304",
                Method::Get,
                304,
                NEITHER,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 1xx",
                Method::Post,
                100,
                NEITHER,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 1 1xx",
                Method::Post,
                199,
                NEITHER,
                Ok(BodyFraming::None),
            ),
            (
                "9112 §6.3 step 4",
                Method::Post,
                200,
                CHUNKED,
                Ok(BodyFraming::Chunked),
            ),
            (
                "9112 §6.3 step 6",
                Method::Post,
                404,
                LENGTH,
                Ok(BodyFraming::Length(5)),
            ),
            (
                "9112 §6.3 step 8",
                Method::Post,
                303,
                NEITHER,
                Ok(BodyFraming::UntilClose),
            ),
            (
                "9112 §6.3 step 3 before step 1",
                Method::Head,
                200,
                &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
                Err("content-length together with transfer-encoding"),
            ),
            (
                "9112 §6.3 step 5 before step 1",
                Method::Head,
                200,
                &[("Content-Length", "5"), ("Content-Length", "6")],
                Err("differing content-lengths"),
            ),
            (
                "9110 §8.6 1xx",
                Method::Head,
                101,
                LENGTH,
                Err("interim response with a body"),
            ),
        ] {
            let head = response(status, list);
            assert_eq!(
                response_framing(method, &head),
                expected.map_err(BadResponse),
                "{rule} {status} {list:?}"
            );
        }
    }

    #[test]
    fn persistence() {
        use Version::{Http2, Http10, Http11};
        for (rule, version, values, expected) in [
            ("9112 §9.3 1.1 persists", Http11, &[][..], true),
            ("9112 §9.3 1.1 with close", Http11, &["close"], false),
            ("9110 §7.6.1 options in any case", Http11, &["Close"], false),
            (
                "9110 §7.6.1 close in a list",
                Http11,
                &["a, close ,b"],
                false,
            ),
            (
                "9110 §7.6.1 close in another field",
                Http11,
                &["a", "close"],
                false,
            ),
            (
                "9112 §9.3 close wins",
                Http11,
                &["keep-alive, close"],
                false,
            ),
            (
                "9110 §7.6.1 other options",
                Http11,
                &["closed, keep-alive"],
                true,
            ),
            ("9112 §9.3 1.0 does not persist", Http10, &[], false),
            (
                "9112 §9.3 1.0 with keep-alive",
                Http10,
                &["Keep-Alive"],
                true,
            ),
            (
                "9112 §9.3 1.0, close wins",
                Http10,
                &["close", "keep-alive"],
                false,
            ),
            (
                "9112 §9.3 1.0 with another option",
                Http10,
                &["upgrade"],
                false,
            ),
            ("9113 §8.2.2 HTTP/2 has no such field", Http2, &[], true),
        ] {
            let list: Vec<_> = values.iter().map(|v| ("Connection", *v)).collect();
            let request = RequestHead {
                version,
                fields: fields(&list),
                ..RequestHead::default()
            };
            assert_eq!(request_keeps_alive(&request), expected, "{rule}");
            let response = ResponseHead {
                version,
                ..response(200, &list)
            };
            assert_eq!(response_keeps_alive(&response), expected, "{rule}");
        }
        // RFC 9112 §6.1, RFC 9110 §8.6: what follows such a 204 may be the body it must not have.
        for (list, expected) in [
            (&[][..], true),
            (&[("Content-Length", "0")], true),
            (&[("Content-Length", "5")], false),
            (&[("Transfer-Encoding", "chunked")], false),
        ] {
            assert_eq!(
                response_keeps_alive(&response(204, list)),
                expected,
                "{list:?}"
            );
        }
        // A 304 may say the length of what it stands for.
        assert!(response_keeps_alive(&response(
            304,
            &[("Content-Length", "5")]
        )));
    }
}
