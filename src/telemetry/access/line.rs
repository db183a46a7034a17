//! Pieces of a log line, appended to bytes without an allocation of their own.

use std::time::Duration;

use crate::telemetry::characters::steers;

/// Whose rules a text is escaped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// RFC 8259 §7. What is not UTF-8 becomes U+FFFD.
    Json,
    /// `\"`, `\\` and `\xhh`, as web servers write it. Only ASCII is left as it is.
    Combined,
}

/// Appends text between its quotes. Control characters of every kind are escaped, C1 among them
/// (a terminal takes U+009B for the start of a command), and so are those that reorder text.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8], quoting: Quoting) {
    if all_plain(text) {
        return out.extend_from_slice(text);
    }
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest
            .iter()
            .position(|&byte| !is_plain(byte))
            .unwrap_or(rest.len());
        let (head, tail) = rest.split_at(plain);
        out.extend_from_slice(head);
        rest = match quoting {
            Quoting::Json => json_escape(out, tail),
            Quoting::Combined => combined_escape(out, tail),
        };
    }
}

/// Is there nothing to escape? Nearly every text is so, and most are short: eight bytes at a time,
/// the last eight again rather than what is left one by one.
fn all_plain(text: &[u8]) -> bool {
    let (words, _) = text.as_chunks::<8>();
    match text.last_chunk::<8>() {
        Some(last) => words.iter().chain([last]).all(|word| is_plain_word(*word)),
        None => text.iter().fold(true, |all, &byte| all & is_plain(byte)),
    }
}

/// [`is_plain`] of eight bytes at once. A byte is zero, or below `n`, where subtracting 1, or `n`,
/// borrows from its high bit; what a borrow does to its neighbours can only add a hit to one.
fn is_plain_word(word: [u8; 8]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let word = u64::from_ne_bytes(word);
    let below = |word: u64, n: u8| word.wrapping_sub(each(n)) & !word;
    let is = |byte: u8| below(word ^ each(byte), 1);
    let found = word | below(word, b' ') | is(b'"') | is(b'\\') | is(0x7f);
    found & each(0x80) == 0
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// Escapes what `rest` begins with; returns what is left.
fn combined_escape<'a>(out: &mut Vec<u8>, rest: &'a [u8]) -> &'a [u8] {
    let Some((&byte, after)) = rest.split_first() else {
        return rest;
    };
    if matches!(byte, b'"' | b'\\') {
        out.extend_from_slice(&[b'\\', byte]);
    } else {
        out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte)]);
    }
    after
}

/// Escapes what `rest` begins with; returns what is left.
fn json_escape<'a>(out: &mut Vec<u8>, rest: &'a [u8]) -> &'a [u8] {
    let Some(chunk) = rest.utf8_chunks().next() else {
        return rest;
    };
    let Some(character) = chunk.valid().chars().next() else {
        out.extend_from_slice("\u{fffd}".as_bytes());
        return &rest[chunk.invalid().len()..];
    };
    let code = character as u32;
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', code as u8]),
        steering if steers(steering) => {
            let [_, _, high, low] = code.to_be_bytes();
            out.extend_from_slice(b"\\u");
            out.extend([high >> 4, high, low >> 4, low].map(hex));
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    &rest[character.len_utf8()..]
}

/// The digit of the low four bits.
fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 0xf)]
}

/// Appends a whole number.
pub(super) fn number(out: &mut Vec<u8>, mut n: u64) {
    // Octets, counts, a status: most have one to three digits.
    match n {
        0..10 => return out.push(b'0' + n as u8),
        10..100 => return out.extend_from_slice(&[n / 10, n % 10].map(|digit| b'0' + digit as u8)),
        100..1_000 => return out.extend_from_slice(&three_digits(n as u16)),
        _ => {}
    }
    let mut digits = [0; 20];
    let mut start = digits.len();
    while n > 0 {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

/// A number below 1,000 with its leading zeros.
pub(super) fn three_digits(n: u16) -> [u8; 3] {
    [n / 100, n / 10 % 10, n % 10].map(|digit| b'0' + digit as u8)
}

/// Appends a time in milliseconds, to the microsecond: `12.345`.
pub(super) fn millis(out: &mut Vec<u8>, time: Duration) {
    let micros = time.as_micros() as u64;
    number(out, micros / 1_000);
    let [a, b, c] = three_digits((micros % 1_000) as u16);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// Appends an address with its port. `address`: its text.
pub(super) fn socket(out: &mut Vec<u8>, address: &str, port: u16) {
    match memchr::memchr(b':', address.as_bytes()) {
        None => out.extend_from_slice(address.as_bytes()),
        Some(_) => {
            out.push(b'[');
            out.extend_from_slice(address.as_bytes());
            out.push(b']');
        }
    }
    out.push(b':');
    number(out, port.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes() {
        for (rule, input, json, combined) in [
            ("plain", &b"/a?b=c~"[..], "/a?b=c~", "/a?b=c~"),
            ("nothing", b"", "", ""),
            ("quote and backslash", br#"a"\b"#, r#"a\"\\b"#, r#"a\"\\b"#),
            (
                "C0",
                b"a\r\n\t\0\x1b[",
                r"a\u000d\u000a\u0009\u0000\u001b[",
                r"a\x0d\x0a\x09\x00\x1b[",
            ),
            ("DEL", b"\x7f", r"\u007f", r"\x7f"),
            ("C1", "\u{9b}1m".as_bytes(), r"\u009b1m", r"\xc2\x9b1m"),
            (
                "right-to-left",
                "\u{202e}x".as_bytes(),
                r"\u202ex",
                r"\xe2\x80\xaex",
            ),
            (
                "line separator",
                "\u{2028}".as_bytes(),
                r"\u2028",
                r"\xe2\x80\xa8",
            ),
            ("UTF-8", "é".as_bytes(), "é", r"\xc3\xa9"),
            (
                "above the first plane",
                "😀".as_bytes(),
                "😀",
                r"\xf0\x9f\x98\x80",
            ),
            (
                "not UTF-8",
                b"a\xff\xfeb",
                "a\u{fffd}\u{fffd}b",
                r"a\xff\xfeb",
            ),
            ("UTF-8 cut short", b"a\xe2\x80", "a\u{fffd}", r"a\xe2\x80"),
        ] {
            assert_eq!(
                written(|out| text(out, input, Quoting::Json)),
                json,
                "{rule}"
            );
            assert_eq!(
                written(|out| text(out, input, Quoting::Combined)),
                combined,
                "{rule}"
            );
        }
    }

    #[test]
    fn a_byte_to_escape_is_found_wherever_it_stands() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    assert_eq!(
                        all_plain(&text),
                        is_plain(byte),
                        "{byte} at {place} of {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn numbers_times_and_addresses() {
        for n in (0..2_000).chain([1_234_567, u64::MAX]) {
            assert_eq!(written(|out| number(out, n)), n.to_string());
        }
        for (micros, expected) in [
            (0, "0.000"),
            (7, "0.007"),
            (1_230, "1.230"),
            (9_999_999, "9999.999"),
        ] {
            assert_eq!(
                written(|out| millis(out, Duration::from_micros(micros))),
                expected
            );
        }
        for (address, port, expected) in [
            ("10.0.0.255", 80, "10.0.0.255:80"),
            ("::1", 8_443, "[::1]:8443"),
        ] {
            assert_eq!(written(|out| socket(out, address, port)), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_one_json_string_and_one_line(bytes: Vec<u8>) {
            let quoted = written(|out| {
                out.push(b'"');
                text(out, &bytes, Quoting::Json);
                out.push(b'"');
            });
            let read: String = serde_json::from_str(&quoted).unwrap();
            proptest::prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
            proptest::prop_assert!(!quoted.chars().any(char::is_control));
            let combined = written(|out| text(out, &bytes, Quoting::Combined));
            proptest::prop_assert!(combined.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        }
    }
}
