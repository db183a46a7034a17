//! A certificate's name, or a certificate: never a panic, and what comes of it is printable ASCII, of
//! bounded length, with every special character escaped.

#![no_main]

use evenkeel::tls::subject::{of_certificate, of_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for text in [of_name(input), of_certificate(input)]
        .into_iter()
        .flatten()
    {
        assert!(text.len() <= 4096);
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            assert!(matches!(byte, b' '..=b'~'));
            assert!(!matches!(byte, b'"' | b';' | b'<' | b'>'), "{text}");
            if byte == b'\\' {
                let next = bytes.next().expect("something is escaped");
                if next.is_ascii_hexdigit() {
                    assert!(bytes.next().is_some_and(|b| b.is_ascii_hexdigit()));
                }
            }
        }
    }
});
