//! Heads of HTTP/2, as HTTP/1.1 has them.

use super::*;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h1::parse;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 * 1024,
    fields: 5,
};

/// What the h2 crate gives for a GET with these fields.
fn parts(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("it is a request").into_parts().0
}

fn read(parts: &request::Parts) -> Result<RequestHead, Rejection> {
    let mut head = RequestHead::default();
    request_head(parts, LIMITS, &mut head).map(|_| head)
}

fn listed(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = fields.iter();
    all.map(|field| (text(field.name), text(field.value)))
        .collect()
}

fn fields_of(fields: &[(&str, &str)]) -> Fields {
    let mut all = Fields::default();
    for (name, value) in fields {
        all.push(name.as_bytes(), value.as_bytes());
    }
    all
}

#[test]
fn requests_that_are_refused() {
    let six = ["a", "b", "c", "d", "e", "f"].map(|name| (name, "1"));
    for (rule, uri, fields, status) in [
        ("§8.3.1 no authority", "/", &[][..], 400),
        ("§8.3.1 user information", "http://a@b/", &[], 400),
        ("a port that is none", "http://a:0/", &[], 400),
        ("§8.3.1 Host differs", "http://a/", &[("host", "b")], 400),
        (
            "Host differs by its port",
            "http://a/",
            &[("host", "a:80")],
            400,
        ),
        ("Host twice", "/", &[("host", "a"), ("host", "a")], 400),
        ("Host that is none", "/", &[("host", "a b")], 400),
        ("§8.2.1 space in front", "http://a/", &[("x", " 1")], 400),
        ("§8.2.1 tab behind", "http://a/", &[("x", "1\t")], 400),
        (
            "§8.2.2 connection",
            "http://a/",
            &[("connection", "x")],
            400,
        ),
        (
            "§8.2.2 keep-alive",
            "http://a/",
            &[("keep-alive", "x")],
            400,
        ),
        (
            "§8.2.2 proxy-connection",
            "http://a/",
            &[("proxy-connection", "x")],
            400,
        ),
        (
            "§8.2.2 transfer-encoding",
            "http://a/",
            &[("transfer-encoding", "x")],
            400,
        ),
        ("§8.2.2 upgrade", "http://a/", &[("upgrade", "x")], 400),
        ("too many fields", "http://a/", &six, 431),
        ("a backslash", "http://a/b\\c", &[], 400),
        ("%00", "http://a/%00", &[], 400),
        ("half an escape", "http://a/%2", &[], 400),
        ("out of the root", "http://a/..", &[], 400),
    ] {
        // Not every row is one that the http crate lets through.
        let Ok(_) = uri.parse::<Uri>() else { continue };
        let refused = read(&parts(uri, fields)).map_err(|r| r.status);
        assert_eq!(refused.err(), Some(status), "{rule}");
    }
    let mut connect = parts("http://a/", &[]);
    connect.method = ::http::Method::CONNECT;
    assert_eq!(read(&connect).map_err(|r| r.status).err(), Some(405));
    let mut asterisk = parts("http://a/", &[]);
    asterisk.uri = Uri::from_static("*");
    asterisk
        .headers
        .insert("host", HeaderValue::from_static("a"));
    assert_eq!(read(&asterisk).map_err(|r| r.status).err(), Some(400));
    asterisk.method = ::http::Method::OPTIONS;
    assert_eq!(read(&asterisk).expect("it may").path, b"*");
}

#[test]
fn requests_that_are_taken() {
    let head = read(&parts(
        "http://A.test:81/a/./b/../c?d=/../e",
        &[
            ("cookie", "a=1"),
            ("x-b", "2"),
            ("cookie", "b=2"),
            ("cookie", ""),
            ("host", "a.test:81"),
        ],
    ));
    let head = head.expect("it is in order");
    assert_eq!(head.version, Version::Http2);
    assert_eq!(
        (head.method, &*head.method_text),
        (Method::Get, &b"GET"[..])
    );
    assert_eq!(
        (&*head.path, &*head.query),
        (&b"/a/c"[..], &b"?d=/../e"[..])
    );
    assert_eq!((&*head.host, head.port), ("a.test", Some(81)));
    let expected = [("x-b", "2"), ("cookie", "a=1; b=2")];
    let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(listed(&head.fields), expected, "§8.2.3 crumbs are joined");
    let mut other = parts("http://a/", &[]);
    other.method = ::http::Method::from_bytes(b"PURGE").expect("a token");
    let head = read(&other).expect("it is in order");
    assert_eq!(
        (head.method, &*head.method_text),
        (Method::Other, &b"PURGE"[..])
    );
    let mut extended = parts("http://a/chat", &[]);
    extended.method = ::http::Method::CONNECT;
    extended
        .extensions
        .insert(Protocol::from_static("WebSocket"));
    let mut head = RequestHead::default();
    let asked = request_head(&extended, LIMITS, &mut head).expect("it is in order");
    assert_eq!(asked.as_deref(), Some("websocket"), "RFC 8441 §4");
    assert_eq!(
        (head.method, &*head.method_text),
        (Method::Get, &b"GET"[..])
    );
}

/// Whatever is taken reads as one request of HTTP/1.1 with the same parts.
#[test]
fn what_is_taken_is_one_request_of_http_1() {
    for uri in [
        "http://a/",
        "http://[::1]:8/b?c",
        "http://a.b.:9/%41%2f;d=e",
    ] {
        let head = read(&parts(uri, &[("x", "\u{e9}"), ("y", "")])).expect("it is in order");
        let mut out = Vec::new();
        encode::request_head(&head, BodyFraming::None, ConnectionField::None, &mut out);
        let mut again = RequestHead::default();
        assert_eq!(
            parse::request_head(&out, LIMITS, &mut again),
            Ok(Some(out.len()))
        );
        assert_eq!(
            (&again.path, &again.query),
            (&head.path, &head.query),
            "{uri}"
        );
        assert_eq!(
            (&again.authority, again.port),
            (&head.authority, head.port),
            "{uri}"
        );
        assert_eq!(listed(&again.fields), listed(&head.fields), "{uri}");
    }
}

#[test]
fn how_long_a_body_is() {
    use BodyFraming::{Chunked, Length, None};
    for (rule, method, lengths, ended, expected) in [
        (
            "nothing, and it goes on",
            Method::Get,
            &[][..],
            false,
            Ok(Chunked),
        ),
        (
            "nothing, and it has ended",
            Method::Get,
            &[],
            true,
            Ok(None),
        ),
        (
            "the same for a POST",
            Method::Post,
            &[],
            true,
            Ok(Length(0)),
        ),
        ("the same for a PUT", Method::Put, &[], true, Ok(Length(0))),
        ("the same for a DELETE", Method::Delete, &[], true, Ok(None)),
        ("a length", Method::Post, &["3"], false, Ok(Length(3))),
        (
            "a length, and it has ended",
            Method::Post,
            &["3"],
            true,
            Err(()),
        ),
        (
            "0, and it has ended",
            Method::Get,
            &["0"],
            true,
            Ok(Length(0)),
        ),
        (
            "0, and it goes on",
            Method::Get,
            &["0"],
            false,
            Ok(Length(0)),
        ),
        (
            "two that are alike",
            Method::Post,
            &["3", "3"],
            false,
            Err(()),
        ),
        ("two that differ", Method::Post, &["3", "4"], false, Err(())),
        ("a list", Method::Post, &["3, 3"], false, Err(())),
        ("no number", Method::Post, &["x"], false, Err(())),
        ("a sign", Method::Post, &["+3"], false, Err(())),
        (
            "over 2^64",
            Method::Post,
            &["18446744073709551616"],
            false,
            Err(()),
        ),
    ] {
        let mut head = RequestHead {
            method,
            ..RequestHead::default()
        };
        for length in lengths {
            head.fields.push(b"content-length", length.as_bytes());
        }
        assert_eq!(
            request_framing(&head, ended).map_err(drop),
            expected,
            "{rule}"
        );
    }
    for (rule, method, status, lengths, ended, expected) in [
        ("HEAD", Method::Head, 200, &["5"][..], true, Ok(None)),
        ("204", Method::Get, 204, &[], true, Ok(None)),
        (
            "304 with the length of another",
            Method::Get,
            304,
            &["5"],
            true,
            Ok(None),
        ),
        ("200", Method::Get, 200, &["5"], false, Ok(Length(5))),
        (
            "200 that is cut short",
            Method::Get,
            200,
            &["5"],
            true,
            Err(()),
        ),
        (
            "200 of unknown length",
            Method::Get,
            200,
            &[],
            false,
            Ok(Chunked),
        ),
        (
            "to a POST, without a body",
            Method::Post,
            200,
            &[],
            true,
            Ok(None),
        ),
    ] {
        let mut head = ResponseHead {
            status,
            ..ResponseHead::default()
        };
        for length in lengths {
            head.fields.push(b"content-length", length.as_bytes());
        }
        let framing = response_framing(method, &head, ended).map_err(drop);
        assert_eq!(framing, expected, "{rule}");
    }
}

#[test]
fn requests_are_written() {
    let mut head = RequestHead {
        method: Method::Post,
        path: b"/a".to_vec(),
        query: b"?b".to_vec(),
        ..RequestHead::default()
    };
    head.set_authority(b"a.test:81").expect("it is one");
    head.fields = fields_of(&[
        ("X-B", "1"),
        ("Connection", "close"),
        ("Keep-Alive", "1"),
        ("Content-Length", "9"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "gzip"),
        ("Upgrade", "x"),
        ("Host", "other"),
        ("x-b", "2"),
    ]);
    let written =
        request(&head, BodyFraming::Length(3), false, None, "b.test").expect("it can be said");
    assert_eq!(written.method(), "POST");
    assert_eq!(written.uri(), "http://a.test:81/a?b");
    let expected = [("x-b", "1"), ("x-b", "2"), ("content-length", "3")];
    let map = written.headers().iter();
    let map: Vec<_> = map
        .map(|(n, v)| (n.as_str(), v.to_str().expect("ASCII")))
        .collect();
    assert_eq!(map, expected);
    let written =
        request(&head, BodyFraming::Chunked, true, None, "b.test").expect("it can be said");
    assert_eq!(written.uri().scheme_str(), Some("https"));
    assert!(!written.headers().contains_key("content-length"));
    let written = request(&head, BodyFraming::None, false, Some("websocket"), "b.test");
    let written = written.expect("it can be said");
    assert_eq!(written.method(), "CONNECT");
    let protocol = written.extensions().get::<Protocol>();
    assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
    head.fields = fields_of(&[("Content-Type", "application/grpc+proto")]);
    let written =
        request(&head, BodyFraming::Chunked, false, None, "b.test").expect("it can be said");
    assert_eq!(written.headers()["te"], "trailers");
}

/// Whatever path and query are taken in HTTP/1.1 can be asked for in HTTP/2.
#[test]
fn every_target_can_be_said() {
    for byte in 0x21..=0x7e_u8 {
        let mut head = RequestHead::default();
        head.set_authority(b"a").expect("it is one");
        if normalise_path(&[b'/', byte, b'x'], &mut head.path).is_err() {
            // An escape, or what is refused in any version.
            assert!(matches!(byte, b'%' | b'\\' | b'?' | b'#'));
            head.path = b"/".to_vec();
        }
        if byte != b'#' {
            head.query = vec![b'?', byte];
        }
        let written = request(&head, BodyFraming::None, false, None, "b.test");
        let written = written.unwrap_or_else(|e| panic!("{:?}: {e}", byte as char));
        let said = written.uri().path_and_query().expect("there is one");
        let mut again = RequestHead::default();
        let (parts, ()) = written.clone().into_parts();
        request_head(&parts, LIMITS, &mut again).expect("it is in order");
        let same = [&*head.path, &*head.query].concat();
        let escaped = format!("%{byte:02X}");
        let spelled = String::from_utf8_lossy(&same).replace(char::from(byte), &escaped);
        assert!(
            said.as_str().as_bytes() == same || said.as_str() == spelled,
            "{:?}: {said}",
            byte as char
        );
    }
    let unnamed = RequestHead {
        path: b"/".to_vec(),
        ..RequestHead::default()
    };
    let written = request(&unnamed, BodyFraming::None, false, None, "b.test");
    assert_eq!(written.expect("it can be said").uri(), "http://b.test/");
    let asterisk = RequestHead {
        method: Method::Options,
        path: b"*".to_vec(),
        authority: b"a".to_vec(),
        ..RequestHead::default()
    };
    let written =
        request(&asterisk, BodyFraming::None, false, None, "b.test").expect("it can be said");
    assert_eq!(written.uri().path(), "*");
}

#[test]
fn what_is_grpc() {
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/gRPC; x=y", true),
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/grp", false),
        ("text/plain", false),
    ] {
        let fields = fields_of(&[("content-type", value)]);
        assert_eq!(is_grpc(&fields), expected, "{value}");
    }
}

#[test]
fn responses_are_read() {
    let read = |status: u16, fields: &[(&str, &str)]| {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (parts, ()) = response.body(()).expect("it is one").into_parts();
        let mut head = ResponseHead::default();
        response_head(&parts, &mut head).map(|()| head)
    };
    let head = read(404, &[("x", "1"), ("set-cookie", "a"), ("set-cookie", "b")]);
    let head = head.expect("it is in order");
    assert_eq!((head.status, &*head.reason), (404, &b"Not Found"[..]));
    assert_eq!(head.version, Version::Http2);
    assert_eq!(head.fields.len(), 3, "cookies that are set stay apart");
    assert_eq!(read(299, &[]).expect("it is in order").reason, b"");
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(read(200, &[(name, "x")]).is_err(), "§8.2.2 {name}");
    }
    let names: Vec<String> = (0..257).map(|n| format!("x{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert!(read(200, &many).is_err());
    assert!(read(200, &many[1..]).is_ok());
}

#[test]
fn responses_are_written() {
    use BodyFraming::{Chunked, Length, None};
    for (rule, status, framing, fields, length) in [
        ("a length", 200, Length(3), &[][..], Some("3")),
        (
            "the framing says, not the field",
            200,
            Length(3),
            &[("Content-Length", "9")],
            Some("3"),
        ),
        (
            "of unknown length",
            200,
            Chunked,
            &[("Content-Length", "9")],
            Option::None,
        ),
        ("to HEAD", 200, None, &[("Content-Length", "9")], Some("9")),
        ("304", 304, None, &[("Content-Length", "9")], Some("9")),
        (
            "204 has none",
            204,
            None,
            &[("Content-Length", "9")],
            Option::None,
        ),
        (
            "103 has none",
            103,
            None,
            &[("Content-Length", "9")],
            Option::None,
        ),
    ] {
        let mut head = ResponseHead {
            status,
            fields: fields_of(fields),
            ..ResponseHead::default()
        };
        for name in [
            "Connection",
            "Keep-Alive",
            "Transfer-Encoding",
            "Upgrade",
            "X-A",
        ] {
            head.fields.push(name.as_bytes(), b"x");
        }
        let written = response(&head, framing).expect("it can be said");
        assert_eq!(written.status(), status, "{rule}");
        let said = written.headers().get("content-length");
        assert_eq!(said.map(|v| v.to_str().expect("ASCII")), length, "{rule}");
        let rest = written.headers().keys().filter(|n| *n != "content-length");
        assert_eq!(
            rest.map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-a"],
            "{rule}"
        );
    }
}

#[test]
fn trailers_in_both_directions() {
    let mut map = HeaderMap::new();
    for name in [
        "x-sum",
        "content-length",
        "host",
        "authorization",
        "set-cookie",
        "trailer",
        "grpc-status",
    ] {
        map.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    let mut fields = Fields::default();
    trailers_from(&map, &mut fields);
    let names: Vec<_> = listed(&fields).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["x-sum", "grpc-status"], "RFC 9110 §6.5.1");
    let back = trailers(&fields, &Nominated::default());
    assert_eq!(back.len(), 2);
    let mut odd = fields_of(&[("x-sum", "1")]);
    odd.push(b"x y", b"1");
    odd.push(b"x", b"a\nb");
    let said = trailers(&odd, &Nominated::default());
    assert_eq!(said.keys().collect::<Vec<_>>(), ["x-sum"]);
    let barred = Nominated::of(&fields_of(&[("Connection", "x-sum")]));
    assert!(trailers(&fields_of(&[("X-Sum", "1")]), &barred).is_empty());
}
