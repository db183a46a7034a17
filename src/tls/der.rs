//! The little of DER (X.690) that is needed to walk through a certificate. Pure.
//!
//! What comes here was parsed by webpki before, so this walks straight to what is wanted; anything
//! unexpected on the way gives `None`.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[0]`, constructed: the version of a certificate.
const VERSION: u8 = 0xa0;

/// An element of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
}

/// Splits an element off the front: it, and what follows it. Tags have one byte, and lengths are
/// definite and as short as can be (X.690 §10.1).
pub(super) fn any(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = digits.iter().fold(0, |n, &d| n << 8 | usize::from(d));
            if digits.first() == Some(&0) || length < 0x80 {
                return None;
            }
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = &der[..der.len() - rest.len()];
    Some((
        Element {
            tag,
            content,
            whole,
        },
        rest,
    ))
}

/// The same with that tag: its content, and what follows it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = any(der)?;
    (found.tag == tag).then_some((found.content, rest))
}

/// What follows the issuer of a certificate (RFC 5280 §4.1): period, subject and more.
pub(super) fn behind_issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut tbs, _) = element(certificate, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        (_, tbs) = element(tbs, VERSION)?;
    }
    let (_, tbs) = element(tbs, INTEGER)?; // serialNumber
    let (_, tbs) = element(tbs, SEQUENCE)?; // signature
    let (_, tbs) = element(tbs, SEQUENCE)?; // issuer
    Some(tbs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element() {
        let long = [&[0x30, 0x81, 0x80][..], &[7; 0x80]].concat();
        for (rule, der, expected) in [
            ("short", &[0x30, 2, 7, 8, 9][..], Some((0x30, 2, 1))),
            ("empty", &[0x05, 0], Some((0x05, 0, 0))),
            ("long", &long, Some((0x30, 0x80, 0))),
            ("nothing", &[], None),
            ("no length", &[0x30], None),
            ("cut", &[0x30, 2, 7], None),
            ("long without need", &[0x30, 0x81, 1, 7], None),
            ("a zero in front", &[0x30, 0x82, 0, 1, 7], None),
            ("indefinite", &[0x30, 0x80, 0, 0], None),
            ("five bytes of length", &[0x30, 0x85, 0, 0, 0, 0, 0], None),
            ("a tag of two bytes", &[0x1f, 0x81, 0], None),
        ] {
            let found = any(der).map(|(e, rest)| (e.tag, e.content.len(), rest.len()));
            assert_eq!(found, expected, "{rule}");
        }
    }
}
