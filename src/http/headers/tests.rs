//! Fields, their recognition and their removal, rule by rule.

use super::*;

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn names(fields: &Fields) -> Vec<&str> {
    fields
        .iter()
        .map(|f| std::str::from_utf8(f.name).unwrap())
        .collect()
}

#[test]
fn names_that_are_known() {
    for (name, known) in [
        ("Accept", Known::Accept),
        ("Authorization", Known::Authorization),
        ("Connection", Known::Connection),
        ("Content-Length", Known::ContentLength),
        ("Content-Type", Known::ContentType),
        ("Cookie", Known::Cookie),
        ("Date", Known::Date),
        ("Expect", Known::Expect),
        ("Forwarded", Known::Forwarded),
        ("Host", Known::Host),
        ("Keep-Alive", Known::KeepAlive),
        ("Location", Known::Location),
        ("Proxy-Authenticate", Known::ProxyAuthenticate),
        ("Proxy-Authorization", Known::ProxyAuthorization),
        ("Proxy-Connection", Known::ProxyConnection),
        ("Referer", Known::Referer),
        ("Sec-WebSocket-Key", Known::SecWebSocketKey),
        ("Server", Known::Server),
        ("Set-Cookie", Known::SetCookie),
        ("TE", Known::Te),
        ("Traceparent", Known::Traceparent),
        ("Trailer", Known::Trailer),
        ("Transfer-Encoding", Known::TransferEncoding),
        ("Upgrade", Known::Upgrade),
        ("User-Agent", Known::UserAgent),
        ("Via", Known::Via),
        ("WWW-Authenticate", Known::WwwAuthenticate),
        ("X-Forwarded-For", Known::XForwardedFor),
        ("X-Forwarded-Host", Known::XForwardedHost),
        ("X-Forwarded-Proto", Known::XForwardedProto),
        ("X-Forwarded-Port", Known::XForwardedOther),
        ("X-Forwarded-Client-Cert", Known::XForwardedOther),
        ("X-Forwarded-", Known::XForwardedOther),
        ("X-Real-IP", Known::XRealIp),
        ("X-Request-Id", Known::XRequestId),
    ] {
        for name in [name, &name.to_lowercase(), &name.to_uppercase()] {
            assert_eq!(Known::of(name.as_bytes()), known, "9110 §5.1 {name}");
            // One byte more, less or other is another field.
            for other in [
                format!("{name}x"),
                format!("x{name}"),
                name[1..].to_string(),
                format!("{}_", &name[..name.len() - 1]),
                name.replace('-', "_"),
            ] {
                if other != name && !other.to_lowercase().starts_with("x-forwarded-") {
                    assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other}");
                }
            }
        }
    }
    assert_eq!(Known::of(b""), Known::Other);
    // ASCII only: no other letter folds to one of these.
    assert_eq!(Known::of("\u{212a}eep-Alive".as_bytes()), Known::Other);
}

#[test]
fn fields_keep_order_and_repetition() {
    let mut fields = fields(&[("A", "1"), ("Via", "2"), ("a", ""), ("vIA", "3")]);
    assert_eq!(names(&fields), ["A", "Via", "a", "vIA"]);
    assert_eq!(fields.all(Known::Via).collect::<Vec<_>>(), [b"2", b"3"]);
    assert_eq!(fields.first(Known::Via), Some(b"2".as_slice()));
    assert_eq!(fields.first(Known::Host), None);
    assert_eq!(
        fields.named("a").collect::<Vec<_>>(),
        [b"1".as_slice(), b""]
    );
    fields.retain(|f| f.value != b"2");
    assert_eq!(names(&fields), ["A", "a", "vIA"]);
    fields.push(b"B", b"4");
    assert_eq!(fields.named("b").collect::<Vec<_>>(), [b"4"]);
    assert_eq!((fields.len(), fields.is_empty()), (4, false));
    fields.clear();
    assert_eq!((fields.len(), fields.is_empty()), (0, true));
}

#[test]
fn no_allocation_once_the_buffers_have_grown() {
    let mut fields = fields(&[("Accept", "*/*"), ("User-Agent", "x")]);
    let capacity = (fields.bytes.capacity(), fields.entries.capacity());
    for _ in 0..3 {
        fields.clear();
        fields.push(b"Accept", b"*/*");
        fields.push(b"User-Agent", b"x");
    }
    assert_eq!(
        (fields.bytes.capacity(), fields.entries.capacity()),
        capacity
    );
}

#[test]
fn underscores() {
    let mut fields = fields(&[("A_B", "1"), ("A-B", "2"), ("_", "3"), ("C", "x_y")]);
    fields.drop_underscored();
    assert_eq!(names(&fields), ["A-B", "C"]);
}

#[test]
fn lists() {
    for (rule, values, expected) in [
        ("9110 §5.6.1 one", &["a"][..], &["a"][..]),
        (
            "9110 §5.6.1 white space around members",
            &["a ,\tb , c"],
            &["a", "b", "c"],
        ),
        (
            "9110 §5.6.1.2 empty members do not count",
            &[",a,, ,b,"],
            &["a", "b"],
        ),
        (
            "9110 §5.3 several fields are one list",
            &["a, b", "", "c"],
            &["a", "b", "c"],
        ),
        (
            "9110 §5.6.3 only space and tab are white space",
            &["a\x0b,\x0cb"],
            &["a\x0b", "\x0cb"],
        ),
        ("empty", &[""], &[]),
    ] {
        let members = list_members(values.iter().map(|v| v.as_bytes()));
        let expected = expected.iter().map(|m| m.as_bytes());
        assert!(members.eq(expected), "{rule}");
    }
}

#[test]
fn hop_by_hop() {
    for (rule, before, after) in [
        (
            "9110 §7.6.1 fields of one hop",
            &[
                ("Connection", "keep-alive"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "close"),
                ("TE", "trailers"),
                ("Trailer", "A"),
                ("Transfer-Encoding", "chunked"),
                ("Upgrade", "websocket"),
                ("A", "1"),
            ][..],
            &["A"][..],
        ),
        (
            "9110 §7.6.1 named fields, whatever the case",
            &[
                ("X-A", "1"),
                ("Connection", "close, x-a ,X-b"),
                ("x-B", "2"),
                ("x-b-c", "3"),
            ],
            &["x-b-c"],
        ),
        (
            "9110 §7.6.1 a name before and after, and repeated",
            &[("A", "1"), ("Connection", "a"), ("A", "2"), ("a", "3")],
            &[],
        ),
        (
            "9110 §7.6.1 several Connection fields",
            &[
                ("Connection", "a"),
                ("A", "1"),
                ("connection", "b"),
                ("B", "2"),
                ("C", "3"),
            ],
            &["C"],
        ),
        (
            "9110 §7.6.1 options that are no names",
            &[("Connection", ",, ;, a b, \"A\""), ("A", "1")],
            &["A"],
        ),
        (
            "9110 §7.6.1 Connection naming itself",
            &[("Connection", "connection"), ("A", "1")],
            &["A"],
        ),
        (
            "known fields without a role here can be named",
            &[
                ("Connection", "user-agent, accept, referer"),
                ("User-Agent", "x"),
                ("Accept", "y"),
                ("Referer", "z"),
            ],
            &[],
        ),
        (
            "what the proxy sets or relies on stays",
            &[
                (
                    "Connection",
                    "host, content-length, cookie, set-cookie, authorization, expect",
                ),
                (
                    "Connection",
                    "x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-forwarded-port",
                ),
                (
                    "Connection",
                    "forwarded, via, x-request-id, x-real-ip, traceparent, date, server",
                ),
                ("Host", "a"),
                ("Content-Length", "1"),
                ("Cookie", "a"),
                ("Set-Cookie", "a"),
                ("Authorization", "a"),
                ("Expect", "a"),
                ("X-Forwarded-For", "a"),
                ("X-Forwarded-Proto", "a"),
                ("X-Forwarded-Host", "a"),
                ("X-Forwarded-Port", "a"),
                ("Forwarded", "a"),
                ("Via", "a"),
                ("X-Request-Id", "a"),
                ("X-Real-IP", "a"),
                ("Traceparent", "a"),
                ("Date", "a"),
                ("Server", "a"),
            ],
            &[
                "Host",
                "Content-Length",
                "Cookie",
                "Set-Cookie",
                "Authorization",
                "Expect",
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "X-Forwarded-Port",
                "Forwarded",
                "Via",
                "X-Request-Id",
                "X-Real-IP",
                "Traceparent",
                "Date",
                "Server",
            ],
        ),
        ("nothing to do", &[("A", "1"), ("B", "2")], &["A", "B"]),
    ] {
        let mut fields = fields(before);
        remove_hop_by_hop(&mut fields);
        assert_eq!(names(&fields), after, "{rule}");
    }
}

#[test]
fn options_beyond_the_bound_are_not_looked_at() {
    let mut options: Vec<String> = (0..MAX_OPTIONS).map(|n| format!("x-{n}")).collect();
    options.push("late".to_string());
    // Those that could remove nothing anyway do not use the bound up.
    options.insert(0, "keep-alive, host, upgrade".to_string());
    let mut fields = fields(&[("Connection", &options.join(","))]);
    let last = format!("X-{}", MAX_OPTIONS - 1);
    fields.push(last.as_bytes(), b"1");
    fields.push(b"Late", b"2");
    remove_hop_by_hop(&mut fields);
    assert_eq!(names(&fields), ["Late"]);
}
