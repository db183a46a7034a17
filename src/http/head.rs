//! Heads of requests and responses, whatever HTTP version they came in (RFC 9110 §6).
//!
//! A head is parsed into buffers that the connection reuses, so that in the steady state a
//! request allocates nothing.

use std::borrow::Cow;

use super::headers::Fields;

/// Request method (RFC 9110 §9). The text of an extension method is in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

/// Protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// Head of a request, with what routing needs already taken apart.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method as received; of use when `method` is [`Method::Other`].
    pub method_text: Vec<u8>,
    /// Version the client speaks.
    pub version: Version,
    /// Host and port exactly as they go into `Host` of the forwarded request. The authority of an
    /// absolute-form target takes the place of `Host` (RFC 9112 §3.2.2). Empty for an HTTP/1.0
    /// request without `Host`.
    pub authority: Vec<u8>,
    /// The authority's host for routing: lower case, no port, no final dot; an IPv6 address
    /// keeps its brackets.
    pub host: String,
    /// Port of the authority, if it has one.
    pub port: Option<u16>,
    /// Normalised path, starting with `/`; `*` for `OPTIONS *`.
    pub path: Vec<u8>,
    /// Query with its `?`, or empty.
    pub query: Vec<u8>,
    /// Fields in order, `Host` left out (it is in `authority`).
    pub fields: Fields,
}

/// Head of a response.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// Version the peer speaks.
    pub version: Version,
    /// Status code, 100..=999.
    pub status: u16,
    /// Reason phrase, perhaps empty.
    pub reason: Vec<u8>,
    /// Fields in order.
    pub fields: Fields,
}

/// Most that a head keeps for the next one, in bytes. A browser's with its cookies takes two or three
/// thousand, and its memory has grown by doubling.
const KEPT: usize = 16 * 1024;

impl RequestHead {
    /// Gives memory back that an unusually large head took. For a connection that becomes idle.
    pub fn shed(&mut self) {
        let texts = [&self.method_text, &self.authority, &self.path, &self.query];
        let texts: usize = texts.iter().map(|t| t.capacity()).sum();
        if texts + self.host.capacity() + self.fields.footprint() > KEPT {
            *self = RequestHead::default();
        }
    }
}

impl ResponseHead {
    /// Gives memory back that an unusually large head took. For a connection that becomes idle.
    pub fn shed(&mut self) {
        if self.reason.capacity() + self.fields.footprint() > KEPT {
            *self = ResponseHead::default();
        }
    }
}

impl Method {
    /// Recognises a method; names are case-sensitive (RFC 9110 §9.1).
    pub fn of(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// Name for logs and metrics; `OTHER` for an extension method.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other => "OTHER",
        }
    }

    /// RFC 9110 §9.2.2: sending it twice has the effect of sending it once.
    pub fn is_idempotent(self) -> bool {
        match self {
            Method::Get
            | Method::Head
            | Method::Put
            | Method::Delete
            | Method::Options
            | Method::Trace => true,
            Method::Post | Method::Patch | Method::Connect | Method::Other => false,
        }
    }
}

/// A request refused before it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Rejection {
    /// Status to answer with; the connection is closed after it.
    pub status: u16,
    /// What is wrong, for the log and the error text.
    pub reason: &'static str,
}

/// A backend's response that cannot be understood: 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadResponse(pub &'static str);

impl Rejection {
    /// A 400.
    pub const fn bad_request(reason: &'static str) -> Rejection {
        Rejection {
            status: 400,
            reason,
        }
    }
}

/// Normalises a path once, for matching and for forwarding alike: unreserved characters are
/// decoded (RFC 3986 §6.2.2.2), other escapes written with capital digits (§6.2.2.1), dot segments
/// removed (§5.2.4). `%2f` and `%5c` stay. A raw `\`,
/// `%00`, a malformed escape or `..` above the root is a 400. `out` is replaced.
pub fn normalise_path(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Rejection> {
    out.clear();
    let Some((b'/', mut rest)) = raw.split_first() else {
        return Err(Rejection::bad_request("path does not start with a slash"));
    };
    out.push(b'/');
    if is_plain(rest) {
        out.extend_from_slice(rest);
        return Ok(());
    }
    let mut segment = 1;
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        match b {
            b'/' => {
                if !ends_in_dot_segment(out, &mut segment)? {
                    out.push(b'/');
                    segment = out.len();
                }
            }
            b'%' => {
                let &[high, low, ref after @ ..] = rest else {
                    return Err(BAD_ESCAPE);
                };
                rest = after;
                match hex(high).zip(hex(low)).map(|(h, l)| h << 4 | l) {
                    Some(0) => return Err(Rejection::bad_request("%00 in the path")),
                    Some(c) if is_unreserved(c) => out.push(c),
                    // §6.2.2.1: one spelling for routes and backends alike.
                    Some(_) => out.extend([b'%', high, low].map(|b| b.to_ascii_uppercase())),
                    None => return Err(BAD_ESCAPE),
                }
            }
            b'\\' => return Err(Rejection::bad_request("backslash in the path")),
            b'?' | b'#' => return Err(Rejection::bad_request("delimiter in the path")),
            0x21..=0x7e => out.push(b),
            _ => return Err(Rejection::bad_request("invalid character in the path")),
        }
    }
    ends_in_dot_segment(out, &mut segment)?;
    Ok(())
}

/// Is this rest of a path normal as it stands: no escape, no segment that begins with a dot, and
/// nothing that is refused? Nearly every path is.
fn is_plain(rest: &[u8]) -> bool {
    let mut before = b'/';
    for &b in rest {
        let plain = match b {
            b'.' => before != b'/',
            _ => PLAIN[b as usize],
        };
        if !plain {
            return false;
        }
        before = b;
    }
    true
}

/// Bytes that stay as they are wherever they stand in a path.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0x21;
    while b <= 0x7e {
        table[b] = !matches!(b as u8, b'%' | b'\\' | b'?' | b'#');
        b += 1;
    }
    table
};

/// The path by which a route is looked for: the same without its empty segments. Many programs read
/// `//admin` as `/admin`; a guard of the one is to be asked for the other too. Nearly always it is
/// borrowed.
pub fn without_empty_segments(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.windows(2).any(|pair| pair == b"//") {
        return Cow::Borrowed(path);
    }
    let mut merged = path.to_vec();
    merged.dedup_by(|b, before| *b == b'/' && *before == b'/');
    Cow::Owned(merged)
}

/// Does a normalised path hold `%2f` or `%5c`? For listeners with `reject_encoded_slash`, which
/// answer 400: some backends decode them into separators after the routing was done.
pub fn has_encoded_slash(path: &[u8]) -> bool {
    memchr::memchr_iter(b'%', path).any(|at| {
        let escape = path.get(at + 1..at + 3).unwrap_or_default();
        escape.eq_ignore_ascii_case(b"2f") || escape.eq_ignore_ascii_case(b"5c")
    })
}

/// What programs may read a normalised path as that decode more of it: visible characters which need no
/// escape, and `%2f`, `%5c` or both, for separators. Most of them resolve dot segments and merge empty ones
/// after that (nginx by default), some do not. All are without empty segments, as that is how routes are
/// looked for. A path without such an escape has none, and costs a look for `%`; another costs nine copies.
pub fn other_readings(path: &[u8]) -> Vec<Vec<u8>> {
    let mut escapes = memchr::memchr_iter(b'%', path).filter_map(|at| escaped(&path[at..]));
    if !escapes.any(is_decoded_by_some) {
        return Vec::new();
    }
    let mut readings = Vec::with_capacity(9);
    for separators in [&b"/\\"[..], b"/", b"\\"] {
        let decoded = decoded(path, separators);
        let merged = without_empty_segments(&decoded);
        let resolved = without_dot_segments(&decoded);
        readings.extend([
            without_dot_segments(&merged),
            without_empty_segments(&resolved).into_owned(),
            merged.into_owned(),
        ]);
    }
    readings
}

/// The path with what [`other_readings`] says decoded, of the separators only these.
fn decoded(path: &[u8], separators: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let meant = escaped(rest).filter(|&b| is_decoded_by_some(b));
        let meant = match meant {
            Some(b'/' | b'\\') => meant.filter(|b| separators.contains(b)).map(|_| b'/'),
            other => other,
        };
        decoded.push(meant.unwrap_or(byte));
        rest = if meant.is_some() { &rest[3..] } else { after };
    }
    decoded
}

/// The byte that an escape at the front of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else {
        return None;
    };
    hex(high).zip(hex(low)).map(|(h, l)| h << 4 | l)
}

/// Of the characters that stay escaped here. A delimiter or a `%` that was decoded would end the path or
/// begin another escape: whoever does that reads anything as anything.
fn is_decoded_by_some(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'%' | b'?' | b'#')
}

/// The path with its dot segments removed (RFC 3986 §5.2.4); above the root there is nothing.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    [b"/", &*segments.join(&b'/')].concat()
}

/// Takes `.` or `..` off the end of `path`, whose last segment starts at `segment`, and `..`'s
/// parent too. False if the last segment is neither.
fn ends_in_dot_segment(path: &mut Vec<u8>, segment: &mut usize) -> Result<bool, Rejection> {
    match &path[*segment..] {
        b"." => path.truncate(*segment),
        b".." => {
            // `path[..segment]` ends with a slash; the parent starts after the slash before it.
            let Some(slash) = memchr::memrchr(b'/', &path[..*segment - 1]) else {
                return Err(Rejection::bad_request("path leads above the root"));
            };
            *segment = slash + 1;
            path.truncate(*segment);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// RFC 3986 §2.3.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const BAD_ESCAPE: Rejection = Rejection::bad_request("malformed escape in the path");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn normalised(raw: &[u8]) -> Result<String, u16> {
        let mut out = b"left over".to_vec();
        normalise_path(raw, &mut out)
            .map(|()| String::from_utf8(out).expect("ASCII"))
            .map_err(|rejection| rejection.status)
    }

    #[test]
    fn paths() {
        for (rule, raw, expected) in [
            ("the root", "/", Ok("/")),
            ("3986 §3.3 empty segments stay", "//a///b/", Ok("//a///b/")),
            (
                "3986 §6.2.2.2 unreserved are decoded",
                "/%41%7a%30%2d%5F%7E%2e",
                Ok("/Az0-_~."),
            ),
            (
                "3986 §6.2.2.2 others stay",
                "/%20%21%3a%40%7f%c3%A4",
                Ok("/%20%21%3A%40%7F%C3%A4"),
            ),
            ("an encoded slash stays", "/a%2fb%2Fc", Ok("/a%2Fb%2Fc")),
            ("an encoded backslash stays", "/a%5cb%5Cc", Ok("/a%5Cb%5Cc")),
            (
                "an encoded percent is decoded by nobody",
                "/%252e%252e/",
                Ok("/%252e%252e/"),
            ),
            ("encoded delimiters stay", "/a%3fb%23c", Ok("/a%3Fb%23c")),
            (
                "3986 §3.3 sub-delimiters pass",
                "/!$&'()*+,;=:@",
                Ok("/!$&'()*+,;=:@"),
            ),
            (
                "visible ASCII outside the grammar passes",
                "/\"<>^`{|}[]",
                Ok("/\"<>^`{|}[]"),
            ),
            ("3986 §5.2.4 a dot", "/a/./b", Ok("/a/b")),
            ("3986 §5.2.4 a dot at the end", "/a/.", Ok("/a/")),
            ("3986 §5.2.4 a dot at the start", "/./a", Ok("/a")),
            ("3986 §5.2.4 only a dot", "/.", Ok("/")),
            ("3986 §5.2.4 two dots", "/a/b/../c", Ok("/a/c")),
            ("3986 §5.2.4 two dots at the end", "/a/b/..", Ok("/a/")),
            ("3986 §5.2.4 two dots and a slash", "/a/b/../", Ok("/a/")),
            ("3986 §5.2.4 back to the root", "/a/..", Ok("/")),
            ("3986 §5.2.4 back to the root and on", "/a/../b", Ok("/b")),
            ("3986 §5.2.4 several", "/a/b/c/./../../g", Ok("/a/g")),
            ("3986 §5.2.4 empty segments count", "/a//../b", Ok("/a/b")),
            ("3986 §5.2.4 an empty segment at the start", "//..", Ok("/")),
            (
                "3986 §6.2.2.3 encoded dots are dots",
                "/a/%2e%2E/b/%2e/c",
                Ok("/b/c"),
            ),
            ("three dots are a name", "/.../a", Ok("/.../a")),
            ("dots in a name", "/a../..b/.c/d.", Ok("/a../..b/.c/d.")),
            ("a parameter makes it a name", "/a/..;x/b", Ok("/a/..;x/b")),
            (
                "an encoded slash makes it a name",
                "/a/..%2f../b",
                Ok("/a/..%2F../b"),
            ),
            ("above the root", "/..", Err(400)),
            ("above the root with a slash", "/../", Err(400)),
            ("above the root later", "/a/../..", Err(400)),
            ("above the root and back", "/../a", Err(400)),
            ("above the root by escapes", "/%2E%2e", Err(400)),
            ("above the root after a dot", "/./..", Err(400)),
            ("NUL", "/%00", Err(400)),
            ("NUL inside", "/a%00b", Err(400)),
            ("a backslash", "/\\", Err(400)),
            ("a backslash for a slash", "/a\\..\\b", Err(400)),
            ("an escape cut short", "/%", Err(400)),
            ("an escape of one digit", "/%4", Err(400)),
            ("an escape before a slash", "/%4/", Err(400)),
            ("an escape that is none", "/%zz", Err(400)),
            ("an escape with a sign", "/%+1", Err(400)),
            ("an escape of an escape", "/%%34%31", Err(400)),
            ("a query", "/a?b", Err(400)),
            ("a fragment", "/a#b", Err(400)),
            ("a space", "/a b", Err(400)),
            ("a control character", "/a\x1fb", Err(400)),
            ("DEL", "/\x7f", Err(400)),
            ("above ASCII", "/ä", Err(400)),
            ("no slash", "a", Err(400)),
            ("a dot without slash", "../a", Err(400)),
            ("empty", "", Err(400)),
        ] {
            assert_eq!(
                normalised(raw.as_bytes()).as_deref(),
                expected.as_ref().map(|s| *s),
                "{rule}"
            );
        }
    }

    #[test]
    fn encoded_slashes() {
        for (path, expected) in [
            ("/", false),
            ("/a%2fb", true),
            ("/%2F", true),
            ("/a%5c", true),
            ("/%5C/a", true),
            ("/%20%2f", true),
            ("/2f5c", false),
            ("/%25%32f", false),
            ("/%252f", false),
            ("/%2", false),
            ("/%", false),
        ] {
            assert_eq!(has_encoded_slash(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn readings_by_programs_that_decode_more() {
        for (path, all) in [
            ("/a/b", &[][..]),
            ("/a%20b%C3%A9", &[]),
            ("/%252F%3F%23", &[]),
            ("/a%3Ab%7Cc%20", &["/a:b|c%20"]),
            ("/a%2Fb", &["/a/b", "/a%2Fb"]),
            ("/a%5Cb", &["/a/b", "/a%5Cb"]),
            ("/a%2F%2Fb", &["/a/b", "/a%2F%2Fb"]),
            ("/a%2F..%2Fb", &["/b", "/a/../b", "/a%2F..%2Fb"]),
            ("/%2F..%2F..%2Fb", &["/b", "/../../b", "/%2F..%2F..%2Fb"]),
            ("/a%2F%2F..", &["/", "/a", "/a/..", "/a%2F%2F.."]),
            (
                "/a%2Fb%5C..",
                &["/a", "/a/b/..", "/a/b%5C..", "/", "/a%2Fb/.."],
            ),
        ] {
            let text = |reading| String::from_utf8(reading).expect("ASCII");
            let found: BTreeSet<_> = other_readings(path.as_bytes())
                .into_iter()
                .map(text)
                .collect();
            let all: BTreeSet<_> = all.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(found, all, "{path}");
        }
    }

    #[test]
    fn methods() {
        for (text, method, idempotent) in [
            ("GET", Method::Get, true),
            ("HEAD", Method::Head, true),
            ("POST", Method::Post, false),
            ("PUT", Method::Put, true),
            ("DELETE", Method::Delete, true),
            ("CONNECT", Method::Connect, false),
            ("OPTIONS", Method::Options, true),
            ("TRACE", Method::Trace, true),
            ("PATCH", Method::Patch, false),
            ("OTHER", Method::Other, false),
        ] {
            assert_eq!(Method::of(text.as_bytes()), method, "{text}");
            assert_eq!(method.name(), text);
            assert_eq!(method.is_idempotent(), idempotent, "9110 §9.2.2 {text}");
        }
        for (rule, text) in [
            ("9110 §9.1 case-sensitive", "get"),
            ("a prefix", "GE"),
            ("longer", "GETS"),
            ("empty", ""),
        ] {
            assert_eq!(Method::of(text.as_bytes()), Method::Other, "{rule}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_normal_path_stays_as_it_is(raw in "/([./a%]|%2[eEfF5]|%61|\\.\\.|/){0,24}") {
            if let Ok(once) = normalised(raw.as_bytes()) {
                prop_assert_eq!(normalised(once.as_bytes()), Ok(once.clone()));
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.split('/').all(|s| s != "." && s != ".."), "{once}");
            }
        }

        #[test]
        fn any_path_is_refused_or_visible(raw in prop::collection::vec(any::<u8>(), 0..24)) {
            let raw = [b"/", raw.as_slice()].concat();
            if let Ok(path) = normalised(&raw) {
                prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"\\?#".contains(&b)));
                prop_assert!(path.len() <= raw.len());
            }
        }
    }
}
