//! Rules of RFC 9112 §2–§5 by raw bytes.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1024,
    fields: 8,
};

#[test]
fn a_request_is_taken_apart() {
    let raw = b"GET /a/../b%61?q=1 HTTP/1.1\r\nHost: Example.com.:81\r\nAccept:  */* \r\n\r\nrest";
    let mut head = RequestHead::default();
    let n = request_head(raw, LIMITS, &mut head).unwrap().unwrap();
    assert_eq!(&raw[n..], b"rest");
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path, b"/ba");
    assert_eq!(head.query, b"?q=1");
    assert_eq!(head.authority, b"Example.com.:81");
    assert_eq!(head.host, "example.com");
    assert_eq!(head.port, Some(81));
    assert_eq!(head.fields.first(Known::Accept), Some(b"*/*".as_slice()));
    assert_eq!(head.fields.len(), 1);
}
