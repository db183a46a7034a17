//! Fields, their recognition and their removal, rule by rule.

use proptest::prelude::*;

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
        ("X-Evenkeel-Explain", Known::XEvenkeelExplain),
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
fn joining() {
    let mut fields = fields(&[("Via", "1"), ("A", "2"), ("vIA", ""), ("Via", "3")]);
    fields.join(Known::Via, b"Via", b"4");
    assert_eq!(names(&fields), ["A", "Via"]);
    assert_eq!(fields.first(Known::Via), Some(b"1, , 3, 4".as_slice()));
    fields.join(Known::Host, b"Host", b"");
    assert_eq!(fields.first(Known::Host), Some(b"".as_slice()));
    assert_eq!(lines(&fields), "A: 2\r\nVia: 1, , 3, 4\r\nHost: \r\n");
}

#[test]
fn fields_go_out_as_they_came_in_one_piece() {
    let block = b"A: 1\r\nHost: h\r\nB:2\r\nC: \r\nD: 4 \r\nE: 5\r\n\r\n";
    // What a parser makes of it: the value of C is empty, and may lie anywhere.
    let parsed: [(&[u8], &[u8]); 5] = [
        (&block[..1], &block[3..4]),
        (&block[15..16], &block[17..18]),
        (&block[20..21], b""),
        (&block[25..26], &block[28..29]),
        (&block[32..33], &block[35..36]),
    ];
    let mut fields = Fields::default();
    fields.push(b"Z", b"0");
    let known = parsed.map(|(name, value)| (Known::of(name), name, value));
    fields.extend_from_block(block, known.into_iter());
    fields.push(b"Y", b"9");
    assert_eq!(names(&fields), ["Z", "A", "B", "C", "D", "E", "Y"]);
    assert_eq!(
        lines(&fields),
        "Z: 0\r\nA: 1\r\nB: 2\r\nC: \r\nD: 4\r\nE: 5\r\nY: 9\r\n"
    );
    let runs = |fields: &Fields| fields.lines(|_| true).count();
    let mut whole = Fields::default();
    let known = [(&block[..1], &block[3..4]), (&block[6..10], &block[12..13])];
    let known = known.map(|(name, value)| (Known::of(name), name, value));
    whole.extend_from_block(&block[..15], known.into_iter());
    assert_eq!(
        (lines(&whole), runs(&whole)),
        ("A: 1\r\nHost: h\r\n".into(), 1)
    );
    assert_eq!(whole.lines(|known| known != Known::Host).count(), 1);
}

#[test]
fn underscores() {
    for (name, expected) in [("A_B", true), ("A-B", false), ("_", true), ("", false)] {
        assert_eq!(is_underscored(name.as_bytes()), expected, "{name}");
    }
}

/// Everything as it goes out.
fn lines(fields: &Fields) -> String {
    let all: Vec<u8> = fields.lines(|_| true).flatten().copied().collect();
    String::from_utf8(all).expect("it is text")
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
fn what_connection_names_for_the_trailers() {
    for (rule, connection, nominated, not) in [
        ("nothing", &[][..], &[][..], &["X", ""][..]),
        ("options", &["close, keep-alive"], &[], &["X"]),
        (
            "in any case",
            &["x-sum, Y"],
            &["X-Sum", "y"],
            &["X", "X-Su"],
        ),
        ("in several fields", &["a", "b,,c"], &["a", "b", "c"], &[""]),
        ("what is relied on", &["Date, A"], &["A"], &["Date"]),
    ] {
        let mut fields = Fields::default();
        for value in connection {
            fields.push(b"Connection", value.as_bytes());
        }
        let found = Nominated::of(&fields);
        for name in nominated {
            assert!(found.has(name.as_bytes()), "{rule}: {name}");
        }
        for name in not {
            assert!(!found.has(name.as_bytes()), "{rule}: {name:?}");
        }
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
    let nominated = Nominated::of(&fields);
    assert!(nominated.has(last.as_bytes()) && !nominated.has(b"late"));
    remove_hop_by_hop(&mut fields);
    assert_eq!(names(&fields), ["Late"]);
}

/// What may be done to fields.
#[derive(Debug, Clone)]
enum Step {
    Push(String, String),
    /// Recognised as one of these, whatever it is called.
    PushKnown(Known, String, String),
    Block(Vec<Line>),
    /// Those that the mask has stay, and those with a short value.
    Retain(u64, usize),
    Join(Known, String, String),
    Clear,
}

/// A line of a block.
#[derive(Debug, Clone)]
struct Line {
    name: String,
    value: String,
    /// White space around the value.
    around: (String, String),
    /// One that is not told of is in the block and is no field.
    told: bool,
    /// An empty value may lie anywhere.
    elsewhere: bool,
}

const KINDS: [Known; 5] = [
    Known::Other,
    Known::Connection,
    Known::Host,
    Known::Via,
    Known::XRequestId,
];

fn step() -> impl Strategy<Value = Step> {
    let name = || "Host|via|Via|Connection|X-Request-Id|[a-z]{1,3}";
    let value = || "([!-~]([ \t!-~]{0,6}[!-~])?)?";
    let known = || prop::sample::select(&KINDS[..]);
    let line = (name(), value(), "( | | |\t|  )?", " ?", 0..5, any::<bool>());
    let line = line.prop_map(|(name, value, before, after, told, elsewhere)| Line {
        name,
        value,
        around: (before, after),
        told: told > 0,
        elsewhere,
    });
    prop_oneof![
        4 => (name(), value()).prop_map(|(n, v)| Step::Push(n, v)),
        2 => (known(), name(), value()).prop_map(|(k, n, v)| Step::PushKnown(k, n, v)),
        4 => prop::collection::vec(line, 0..8).prop_map(Step::Block),
        3 => (any::<u64>(), 0..8usize).prop_map(|(mask, short)| Step::Retain(mask, short)),
        3 => (known(), name(), value()).prop_map(|(k, n, v)| Step::Join(k, n, v)),
        1 => Just(Step::Clear),
    ]
}

/// Fields as simply as they can be held.
type Model = Vec<(Known, String, String)>;

fn carry_out(step: Step, fields: &mut Fields, model: &mut Model) {
    match step {
        Step::Push(name, value) => {
            fields.push(name.as_bytes(), value.as_bytes());
            model.push((Known::of(name.as_bytes()), name, value));
        }
        Step::PushKnown(known, name, value) => {
            fields.push_known(known, name.as_bytes(), value.as_bytes());
            model.push((known, name, value));
        }
        Step::Block(lines) => {
            let mut block = Vec::new();
            let mut told = Vec::new();
            for line in lines {
                let start = block.len();
                block.extend_from_slice(line.name.as_bytes());
                block.extend_from_slice(format!(":{}", line.around.0).as_bytes());
                let value = block.len();
                block.extend_from_slice(line.value.as_bytes());
                block.extend_from_slice(format!("{}\r\n", line.around.1).as_bytes());
                if line.told {
                    told.push((start, value, line));
                }
            }
            block.extend_from_slice(b"\r\n");
            let parsed = told.iter().map(|(start, value, line)| {
                let name = &block[*start..start + line.name.len()];
                let value = match line.value.is_empty() && line.elsewhere {
                    true => b"".as_slice(),
                    false => &block[*value..value + line.value.len()],
                };
                (Known::of(name), name, value)
            });
            fields.extend_from_block(&block, parsed);
            let told = told.into_iter().map(|(.., line)| line);
            model.extend(told.map(|l| (Known::of(l.name.as_bytes()), l.name, l.value)));
        }
        Step::Retain(mask, short) => {
            fields.retain(|f| mask & f.known.bit() != 0 || f.value.len() < short);
            model.retain(|(known, _, value)| mask & known.bit() != 0 || value.len() < short);
        }
        Step::Join(known, name, value) => {
            fields.join(known, name.as_bytes(), value.as_bytes());
            let of_kind = model.iter().filter(|(k, ..)| *k == known);
            let values = of_kind.map(|(.., v)| v.as_str()).chain([value.as_str()]);
            let joined = values.collect::<Vec<_>>().join(", ");
            model.retain(|(k, ..)| *k != known);
            model.push((known, name, joined));
        }
        Step::Clear => {
            fields.clear();
            model.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_kept_goes_out_as_if_each_field_were_written_by_itself(
        steps in prop::collection::vec(step(), 0..12),
        mask in any::<u64>(),
    ) {
        let (mut fields, mut model) = (Fields::default(), Model::new());
        for step in steps {
            carry_out(step, &mut fields, &mut model);
            for mask in [mask, u64::MAX, 0] {
                let keep = |known: Known| mask & known.bit() != 0;
                let runs: Vec<&[u8]> = fields.lines(keep).collect();
                let kept = model.iter().filter(|(known, ..)| keep(*known));
                let expected: String = kept.map(|(_, n, v)| format!("{n}: {v}\r\n")).collect();
                let written = String::from_utf8(runs.concat()).expect("it is text");
                prop_assert_eq!(written, expected);
                prop_assert!(runs.iter().all(|run| !run.is_empty()));
            }
        }
    }
}
