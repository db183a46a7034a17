//! The subject of a certificate as text (RFC 4514). Pure.
//!
//! The text goes into header fields and logs, so it is printable ASCII whatever the certificate
//! holds: everything else is escaped as `\hh`, byte by byte of its UTF-8 (RFC 4514 §2.4 allows it of
//! any character). It reads as OpenSSL's `-nameopt RFC2253` does.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::der::{OBJECT_IDENTIFIER, SEQUENCE, SET, any, behind_issuer, element};

/// The subject of a DER certificate; empty if it has none. `None`: it is malformed, or its text has
/// more than 4 KiB.
pub fn of_certificate(der: &[u8]) -> Option<String> {
    let (_, rest) = element(behind_issuer(der)?, SEQUENCE)?; // validity
    let (subject, _) = any(rest)?;
    of_name(subject.whole)
}

/// A DER `Name` (RFC 5280 §4.1.2.4), and nothing behind it. O(bytes).
pub fn of_name(der: &[u8]) -> Option<String> {
    let (mut names, b"") = element(der, SEQUENCE)? else {
        return None;
    };
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (set, rest) = element(names, SET)?;
        parts.push(set);
        names = rest;
    }
    let mut text = String::new();
    // The last one comes first (RFC 4514 §2.1).
    for (nth, set) in parts.into_iter().rev().enumerate() {
        if nth > 0 {
            text.push(',');
        }
        relative(set, &mut text)?;
        if text.len() > MOST {
            return None;
        }
    }
    Some(text)
}

/// One member of a name: attributes, of which there is one nearly always (§2.2).
fn relative(mut set: &[u8], text: &mut String) -> Option<()> {
    let mut first = true;
    loop {
        let (attribute, rest) = element(set, SEQUENCE)?;
        if !first {
            text.push('+');
        }
        self::attribute(attribute, text)?;
        if rest.is_empty() {
            return Some(());
        }
        (set, first) = (rest, false);
    }
}

/// `TYPE=value` (§2.3, §2.4).
fn attribute(der: &[u8], text: &mut String) -> Option<()> {
    let (kind, rest) = element(der, OBJECT_IDENTIFIER)?;
    let (value, b"") = any(rest)? else {
        return None;
    };
    let known = KEYWORDS.iter().find(|(oid, _)| *oid == kind);
    match known {
        Some((_, keyword)) => text.push_str(keyword),
        None => dotted(kind, text)?,
    }
    text.push('=');
    match (known, characters(value.tag, value.content)) {
        (Some(_), Some(characters)) => escape(&characters, text),
        // What has no keyword, or no characters, is written as its encoding.
        _ => {
            text.push('#');
            value.whole.iter().for_each(|byte| hex(*byte, text));
        }
    }
    Some(())
}

/// An object identifier in decimals (X.690 §8.19).
fn dotted(oid: &[u8], text: &mut String) -> Option<()> {
    let mut arc: u128 = 0;
    let mut begun = false;
    let mut first = true;
    for &byte in oid {
        if (!begun && byte == 0x80) || arc >> 120 != 0 {
            return None;
        }
        arc = arc << 7 | u128::from(byte & 0x7f);
        begun = byte & 0x80 != 0;
        if begun {
            continue;
        }
        if first {
            let top = (arc / 40).min(2);
            // A String takes everything.
            let _ = write!(text, "{top}.{}", arc - 40 * top);
        } else {
            let _ = write!(text, ".{arc}");
        }
        (arc, first) = (0, false);
    }
    (!begun && !first).then_some(())
}

/// What a string of that kind says; `None` if it is none, or not sound.
fn characters(tag: u8, content: &[u8]) -> Option<Cow<'_, str>> {
    match tag {
        UTF8_STRING => std::str::from_utf8(content).ok().map(Cow::Borrowed),
        NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING => {
            let text = std::str::from_utf8(content).ok()?;
            text.is_ascii().then_some(Cow::Borrowed(text))
        }
        BMP_STRING => {
            let (units, []) = content.as_chunks::<2>() else {
                return None;
            };
            // Surrogates are no characters of it (X.680 §41).
            let one = |unit: &[u8; 2]| char::from_u32(u16::from_be_bytes(*unit).into());
            units
                .iter()
                .map(one)
                .collect::<Option<String>>()
                .map(Cow::Owned)
        }
        UNIVERSAL_STRING => {
            let (units, []) = content.as_chunks::<4>() else {
                return None;
            };
            let one = |unit: &[u8; 4]| char::from_u32(u32::from_be_bytes(*unit));
            units
                .iter()
                .map(one)
                .collect::<Option<String>>()
                .map(Cow::Owned)
        }
        _ => None,
    }
}

/// §2.4: what would end a value or be taken for something else, and all that is not printable ASCII.
fn escape(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                hex(byte, text);
            }
        }
    }
}

fn hex(byte: u8, text: &mut String) {
    for nibble in [byte >> 4, byte & 0xf] {
        text.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
    }
}

/// Longest text, in bytes: what a field may well have, and more than any authority issues.
const MOST: usize = 4096;

const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;

/// Types and their keywords: those of RFC 4514 §3, and others that are registered (RFC 4519, RFC
/// 2985) and common in certificates.
const KEYWORDS: [(&[u8], &str); 17] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 46], "dnQualifier"),
    (&[0x55, 4, 65], "pseudonym"),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
        "emailAddress",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        "DC",
    ),
];

#[cfg(test)]
mod tests;
