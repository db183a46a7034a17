//! A backend's response head: never a panic; each part of it is waited for or refused like the
//! whole; httparse agrees on what is taken; what a client gets reads as itself.

#![no_main]

use evenkeel::http::body::response_framing;
use evenkeel::http::h1::encode::{self, ConnectionField};
use evenkeel::http::h1::parse::{HeadLimits, response_head};
use evenkeel::http::head::{BadResponse, Method, ResponseHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits {
        bytes: 1024,
        fields: 16,
    };
    let mut head = ResponseHead::default();
    let whole = response_head(input, limits, &mut head);

    let mut other = ResponseHead::default();
    for split in (0..input.len()).step_by(1 + input.len() / 64) {
        let part = response_head(&input[..split], limits, &mut other);
        assert!(part == Ok(None) || part == whole, "{split}: {part:?}");
    }

    let Ok(Some(taken)) = whole else { return };
    agrees_with_httparse(input, taken, &head);
    for method in [Method::Get, Method::Head] {
        let Ok(once) = returned(method, &head) else {
            continue;
        };
        let unlimited = HeadLimits {
            bytes: usize::MAX,
            fields: usize::MAX,
        };
        let again = response_head(&once, unlimited, &mut other);
        assert_eq!(again, Ok(Some(once.len())));
        assert_eq!(returned(method, &other), Ok(once));
        assert_eq!(
            response_framing(method, &head),
            response_framing(method, &other)
        );
    }
});

fn returned(method: Method, head: &ResponseHead) -> Result<Vec<u8>, BadResponse> {
    let framing = response_framing(method, head)?;
    let mut out = Vec::new();
    encode::response_head(head, framing, ConnectionField::None, &mut out);
    Ok(out)
}

fn agrees_with_httparse(input: &[u8], taken: usize, head: &ResponseHead) {
    let mut fields = [httparse::EMPTY_HEADER; 17];
    let mut other = httparse::Response::new(&mut fields);
    match other.parse(input) {
        Ok(status) => assert_eq!(status, httparse::Status::Complete(taken)),
        Err(httparse::Error::Version) => return, // It knows no higher minor version.
        Err(e) => panic!("{e}"),
    }
    assert_eq!(other.code, Some(head.status));
    let others = other.headers.iter().map(|h| (h.name.as_bytes(), h.value));
    assert!(others.eq(head.fields.iter().map(|f| (f.name, f.value))));
}
