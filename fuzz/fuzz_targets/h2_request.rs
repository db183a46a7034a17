//! A request's head out of HTTP/2: never a panic; what is taken and written for HTTP/1.1 reads there as
//! exactly one request with the same parts, and, written for HTTP/2 again, as itself.
//!
//! The input is lines: method, target, authority, then fields as `name: value`.

#![no_main]

use evenkeel::http::h1::encode::{self, ConnectionField};
use evenkeel::http::h1::parse::{self, HeadLimits};
use evenkeel::http::h2::head;
use evenkeel::http::head::RequestHead;
use http::uri::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits {
    bytes: usize::MAX,
    fields: 16,
};

fuzz_target!(|input: &[u8]| {
    let Some((request, ended)) = request(input) else {
        return;
    };
    let (parts, ()) = request.into_parts();
    let mut taken = RequestHead::default();
    let Ok(extended) = head::request_head(&parts, LIMITS, &mut taken) else {
        return;
    };
    let Ok(framing) = head::request_framing(&taken, ended) else {
        return;
    };
    let mut out = Vec::new();
    encode::request_head(&taken, framing, ConnectionField::None, &mut out);
    let unlimited = HeadLimits {
        bytes: usize::MAX,
        fields: usize::MAX,
    };
    let mut again = RequestHead::default();
    let read = parse::request_head(&out, unlimited, &mut again);
    assert_eq!(
        read,
        Ok(Some(out.len())),
        "{:?}",
        String::from_utf8_lossy(&out)
    );
    assert_eq!(again.method, taken.method);
    assert_eq!(again.method_text, taken.method_text);
    assert_eq!((&again.path, &again.query), (&taken.path, &taken.query));
    assert_eq!(
        (&again.authority, &again.host, again.port),
        (&taken.authority, &taken.host, taken.port)
    );
    assert_eq!(fields(&again), fields(&taken));

    let written = head::request(&taken, framing, false, extended.as_deref(), "b.test");
    let (parts, ()) = written.expect("whatever is taken can be said").into_parts();
    let mut third = RequestHead::default();
    let asked = head::request_head(&parts, unlimited, &mut third).expect("it is in order");
    assert_eq!(asked, extended);
    assert_eq!(
        (&third.authority, third.method),
        (&taken.authority, taken.method)
    );
    // An octet that no URI has may be escaped by now.
    assert!(third.path.len() >= taken.path.len() && third.query.len() >= taken.query.len());
});

/// What the h2 crate could have given for these lines, if it is a request at all.
fn request(input: &[u8]) -> Option<(Request<()>, bool)> {
    let (flags, input) = input.split_first()?;
    let mut lines = input.split(|b| *b == b'\n');
    let method = Method::from_bytes(lines.next()?).ok()?;
    let mut parts = Parts::default();
    parts.path_and_query = Some(lines.next()?.try_into().ok()?);
    let authority = lines.next()?;
    if !authority.is_empty() {
        parts.authority = Some(authority.try_into().ok()?);
        parts.scheme = Some("http".try_into().ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = HeaderName::from_bytes(&line[..colon].to_ascii_lowercase()).ok()?;
        let value = line.get(colon + 2..).unwrap_or_default();
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some((request, flags & 1 == 1))
}

/// Those that say nothing of framing or the authority, in order.
fn fields(head: &RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = head
        .fields
        .iter()
        .map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec()));
    let others = all.filter(|(name, _)| name != b"content-length" && name != b"transfer-encoding");
    others.collect()
}
