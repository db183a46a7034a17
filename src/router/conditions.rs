//! Does a request meet the conditions of a route, and if not, which one? Pure; allocates nothing.

use super::Request;
use crate::config::{Conditions, Wanted};
use crate::http::headers::Fields;

/// The first condition of a route that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// It has another method.
    Method,
    /// It has no field of that name.
    NoHeader(&'a str),
    /// It has another value of that field.
    OtherHeader(&'a str),
    /// It has that field.
    HasHeader(&'a str),
    /// It has no parameter of that name.
    NoParameter(&'a str),
    /// It has another value of that parameter.
    OtherParameter(&'a str),
    /// It has that parameter.
    HasParameter(&'a str),
}

/// The first condition that is not met; `None`: all are.
pub fn unmet<'a>(conditions: &'a Conditions, request: &Request<'_>) -> Option<Unmet<'a>> {
    let methods = &conditions.methods;
    if !methods.is_empty() && !methods.iter().any(|m| m.as_bytes() == request.method) {
        return Some(Unmet::Method);
    }
    for (name, wanted) in &conditions.headers {
        let has = || request.fields.named(name).next().is_some();
        let met = match wanted {
            Wanted::Value(value) => has_value(request.fields, name, value.as_bytes()),
            Wanted::Prefix(prefix) => has_prefix(request.fields, name, prefix.as_bytes()),
            Wanted::Present => has(),
            Wanted::Absent => !has(),
        };
        if !met {
            return Some(match (wanted, has()) {
                (Wanted::Absent, _) => Unmet::HasHeader(name),
                (_, true) => Unmet::OtherHeader(name),
                (_, false) => Unmet::NoHeader(name),
            });
        }
    }
    for (name, wanted) in &conditions.query {
        let value = parameter(request.query, name.as_bytes());
        let met = match (wanted, value) {
            (Wanted::Value(wanted), Some(value)) => decoded(value).eq(wanted.bytes()),
            (Wanted::Prefix(prefix), Some(value)) => {
                decoded(value).take(prefix.len()).eq(prefix.bytes())
            }
            (Wanted::Present, value) => value.is_some(),
            (Wanted::Absent, value) => value.is_none(),
            (Wanted::Value(_) | Wanted::Prefix(_), None) => false,
        };
        if !met {
            return Some(match (wanted, value) {
                (Wanted::Absent, _) => Unmet::HasParameter(name),
                (_, Some(_)) => Unmet::OtherParameter(name),
                (_, None) => Unmet::NoParameter(name),
            });
        }
    }
    None
}

/// True if the field has that value, exactly. Several lines of it are one value, joined with a
/// comma and a space (RFC 9110 §5.3).
fn has_value(fields: &Fields, name: &str, value: &[u8]) -> bool {
    let mut rest = value;
    let mut lines = 0;
    for line in fields.named(name) {
        let expected = match lines {
            0 => Some(rest),
            _ => rest.strip_prefix(b", "),
        };
        match expected.and_then(|e| e.strip_prefix(line)) {
            Some(behind) => rest = behind,
            None => return false,
        }
        lines += 1;
    }
    lines > 0 && rest.is_empty()
}

/// True if the value of the field begins so, lines joined as above.
fn has_prefix(fields: &Fields, name: &str, prefix: &[u8]) -> bool {
    let mut rest = prefix;
    for (number, line) in fields.named(name).enumerate() {
        if number > 0 {
            match rest.strip_prefix(b", ") {
                Some(behind) => rest = behind,
                None => return b", ".starts_with(rest),
            }
        }
        if line.starts_with(rest) {
            return true;
        }
        match rest.strip_prefix(line) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    false
}

/// The value, as it was sent, of the first parameter of that name in a query, which begins with `?`
/// unless it is empty. A parameter without `=` has an empty value.
fn parameter<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    let list = query.strip_prefix(b"?")?;
    list.split(|b| *b == b'&').find_map(|pair| {
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        decoded(key).eq(name.iter().copied()).then_some(value)
    })
}

/// What `application/x-www-form-urlencoded` means by these bytes. An escape that is none stands for
/// itself.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, behind) = rest.split_first()?;
        rest = behind;
        let escaped = || {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        Some(match first {
            b'+' => b' ',
            b'%' => match escaped() {
                Some(byte) => {
                    rest = &behind[2..];
                    byte
                }
                None => b'%',
            },
            byte => byte,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_query() {
        for (rule, query, name, value) in [
            ("alone", "?a=1", "a", Some("1")),
            ("among others", "?b=2&a=1&c", "a", Some("1")),
            ("the first counts", "?a=1&a=2", "a", Some("1")),
            ("without a value", "?c&a=1", "c", Some("")),
            ("an empty value", "?c=", "c", Some("")),
            ("not there", "?b=2", "a", None),
            ("case counts", "?A=1", "a", None),
            ("no query", "", "a", None),
            ("an empty query", "?", "a", None),
            ("more than one =", "?a=1=2", "a", Some("1=2")),
            ("escapes", "?a%62=%41%2f", "ab", Some("A/")),
            ("a plus is a space", "?a+b=c+d", "a b", Some("c d")),
            ("escapes that are none", "?a=%4&b=%zz%", "b", Some("%zz%")),
            ("an escape cut short", "?a=%4", "a", Some("%4")),
            ("an escape with a sign", "?a=%+1", "a", Some("% 1")),
        ] {
            let found = parameter(query.as_bytes(), name.as_bytes());
            let found = found.map(|v| String::from_utf8(decoded(v).collect()).expect("UTF-8"));
            assert_eq!(found.as_deref(), value, "{rule}");
        }
    }

    #[test]
    fn beginnings_of_a_value() {
        for (rule, lines, prefix, begins) in [
            ("one line", &["abc"][..], "ab", true),
            ("all of it", &["abc"], "abc", true),
            ("more than there is", &["abc"], "abcd", false),
            ("another one", &["abc"], "b", false),
            ("not there", &[], "a", false),
            ("over two lines", &["a", "bc"], "a, b", true),
            ("up to the comma", &["a", "bc"], "a,", true),
            ("up to the space", &["a", "bc"], "a, ", true),
            ("an empty line", &["", "bc"], ", b", true),
            ("otherwise in the second", &["a", "bc"], "a, c", false),
            ("behind both", &["a", "b"], "a, b, c", false),
        ] {
            let mut fields = Fields::default();
            lines.iter().for_each(|l| fields.push(b"X-A", l.as_bytes()));
            assert_eq!(
                has_prefix(&fields, "x-a", prefix.as_bytes()),
                begins,
                "{rule}"
            );
        }
    }
}
