//! Cookies that a client sends (RFC 6265 §4.2.1, §5.4).
//!
//! Strict in what is taken for a value, tolerant of everything around it: names and values of
//! others are not looked at, whatever they are made of.

use super::headers::{Fields, Known, trim};

/// Values of all cookies of that name, in order; case counts. Several `Cookie` fields are one
/// (RFC 9113 §8.2.3 lets clients cut it), spaces around names and values do not count, and quotes
/// around a whole value are none of it. A value of other bytes than RFC 6265 allows is left out.
pub fn named<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = fields
        .all(Known::Cookie)
        .flat_map(|field| field.split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        if trim(&pair[..equals]) != name.as_bytes() {
            return None;
        }
        let value = match trim(&pair[equals + 1..]) {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        value.iter().all(is_cookie_byte).then_some(value)
    })
}

/// RFC 6265 §4.1.1 `cookie-octet`.
fn is_cookie_byte(b: &u8) -> bool {
    matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_by_rule() {
        type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            ("none", &[], &[]),
            ("alone", &["id=7"], &["7"]),
            ("among others", &["a=1; id=7; b=2"], &["7"]),
            (
                "without a space, or with more",
                &["a=1;id=7 ;  id = 8"],
                &["7", "8"],
            ),
            ("several fields", &["a=1", "id=7"], &["7"]),
            ("in quotes", &["id=\"7\""], &["7"]),
            ("half in quotes is no value", &["id=\"7"], &[]),
            ("the whole name only", &["xid=1; idx=2; i=d; ID=3"], &[]),
            ("an equals sign in the value", &["id=7=8="], &["7=8="]),
            ("no equals sign", &["id; id"], &[]),
            ("empty", &["id="], &[""]),
            (
                "a space within, a comma, a backslash",
                &["id=7 8; id=7,8; id=7\\8"],
                &[],
            ),
            (
                "neighbours of any kind",
                &["\u{7f}=\u{e9}; ;;=; id=7;"],
                &["7"],
            ),
        ];
        for (rule, lines, expected) in rows {
            let mut fields = Fields::default();
            for line in *lines {
                fields.push(b"Cookie", line.as_bytes());
            }
            let found: Vec<_> = named(&fields, "id").collect();
            let expected: Vec<_> = expected.iter().map(|v| v.as_bytes()).collect();
            assert_eq!(found, expected, "{rule}");
        }
    }
}
