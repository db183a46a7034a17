//! A request head: never a panic; each part of it is waited for or refused like the whole;
//! httparse agrees on what is taken; what a backend gets reads as itself.

#![no_main]

use evenkeel::http::body::request_framing;
use evenkeel::http::h1::encode::{self, ConnectionField};
use evenkeel::http::h1::parse::{HeadLimits, request_head};
use evenkeel::http::head::{Rejection, RequestHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits {
        bytes: 1024,
        fields: 16,
    };
    let mut head = RequestHead::default();
    let whole = request_head(input, limits, &mut head);

    let mut other = RequestHead::default();
    for split in (0..input.len()).step_by(1 + input.len() / 64) {
        let part = request_head(&input[..split], limits, &mut other);
        assert!(part == Ok(None) || part == whole, "{split}: {part:?}");
    }

    let Ok(Some(taken)) = whole else { return };
    agrees_with_httparse(input, taken, &head);
    let Ok(once) = forwarded(&head) else { return };
    if head.authority.is_empty() {
        return; // HTTP/1.0 without Host: forwarded with an empty one, which is not taken in 1.1.
    }
    let unlimited = HeadLimits {
        bytes: usize::MAX,
        fields: usize::MAX,
    };
    let again = request_head(&once, unlimited, &mut other);
    assert_eq!(again, Ok(Some(once.len())));
    assert_eq!(forwarded(&other), Ok(once));
    assert_eq!(
        (&head.method, &head.path, &head.query, &head.host, head.port),
        (
            &other.method,
            &other.path,
            &other.query,
            &other.host,
            other.port
        ),
    );
});

fn forwarded(head: &RequestHead) -> Result<Vec<u8>, Rejection> {
    let framing = request_framing(head)?;
    let mut out = Vec::new();
    encode::request_head(head, framing, ConnectionField::None, &mut out);
    Ok(out)
}

fn agrees_with_httparse(input: &[u8], taken: usize, head: &RequestHead) {
    let mut fields = [httparse::EMPTY_HEADER; 17];
    let mut other = httparse::Request::new(&mut fields);
    match other.parse(input) {
        Ok(status) => assert_eq!(status, httparse::Status::Complete(taken)),
        Err(httparse::Error::Version) => return, // It knows no higher minor version.
        Err(e) => panic!("{e}"),
    }
    assert_eq!(other.method.map(str::as_bytes), Some(&head.method_text[..]));
    let others = other.headers.iter().map(|h| (h.name.as_bytes(), h.value));
    let others = others.filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"));
    assert!(others.eq(head.fields.iter().map(|f| (f.name, f.value))));
}
