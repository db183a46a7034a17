//! Which names DNS can carry (RFC 1035 §2.3.4, §3.1), and which a `Host` can.

/// Checks a name that is to be looked up, as written: labels of letters, digits, `-` and `_`,
/// perhaps a final dot. Underscores are what SRV names are made of (RFC 2782).
pub fn check(name: &[u8]) -> Result<(), String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    // 255 bytes on the wire: a length byte before each label, and the root's at the end.
    if name.len() > 253 {
        return Err(format!(
            "the name has {} bytes, at most 253 fit",
            name.len()
        ));
    }
    for label in name.split(|b| *b == b'.') {
        if label.is_empty() {
            return Err("the name has an empty label".into());
        }
        if label.len() > 63 {
            return Err(format!("a label has {} bytes, at most 63 fit", label.len()));
        }
        if let Some(bad) = label
            .iter()
            .find(|b| !(b.is_ascii_alphanumeric() || **b == b'-' || **b == b'_'))
        {
            return Err(if bad.is_ascii_graphic() {
                format!("a name has no `{}` in it", char::from(*bad))
            } else {
                "a name has only letters, digits, `-` and `_` in it (others as punycode)".into()
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_rfc_1035() {
        let label63 = "a".repeat(63);
        let whole = [label63.as_str(); 3].join(".") + "." + &"a".repeat(61);
        assert_eq!(whole.len(), 253);
        for (name, good) in [
            ("web", true),
            ("_http._tcp.web.default.svc.cluster.local", true),
            ("_http._tcp.web.default.svc.cluster.local.", true),
            ("tag.service.consul", true),
            (&label63, true),
            (&whole, true),
            (&format!("{whole}."), true),
            ("", false),
            (".", false),
            ("a..b", false),
            (".a", false),
            ("a..", false),
            (&"a".repeat(64), false),
            (&format!("{whole}a"), false),
            ("a b", false),
            ("srv://a", false),
            ("a:80", false),
            ("bücher.example", false),
            ("*.example", false),
        ] {
            assert_eq!(check(name.as_bytes()).is_ok(), good, "{name}");
        }
    }
}
