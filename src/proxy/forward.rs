//! Heads on their way through: what is removed, what is set (RFC 9110 §7.6).

use std::net::IpAddr;

use super::certificate_fields::{self, Asked};
use super::mirror;
use crate::http::body::{BodyFraming, connection_says};
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::headers::{
    Fields, Known, Nominated, is_about_client_certificate, is_same_field, is_underscored,
    list_members, remove_hop_by_hop,
};

/// What a request's rewriting depends on besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The client's address as text.
    pub client: &'a str,
    /// The same.
    pub address: IpAddr,
    /// The client came over TLS.
    pub secure: bool,
    /// The client is a proxy whose `X-Forwarded-*` are believed.
    pub trusted: bool,
    /// Names with an underscore pass.
    pub underscores: bool,
    /// `Forwarded` is wanted (RFC 7239).
    pub forwarded: bool,
    /// Where clients are asked for a certificate.
    pub certificate: Option<Asked<'a>>,
}

/// Our name in `Via`, behind the version that the message came in (RFC 9110 §7.6.3).
fn via(received: Version) -> &'static [u8] {
    match received {
        Version::Http10 => b"1.0 evenkeel",
        Version::Http11 => b"1.1 evenkeel",
        Version::Http2 => b"2.0 evenkeel",
    }
}

/// The upgrade that a request asks for, if it is one of those allowed (RFC 9110 §7.8). To be
/// asked before hop-by-hop fields are removed.
pub fn wanted_upgrade(head: &RequestHead, allowed: &[Box<str>]) -> Option<usize> {
    if head.version != Version::Http11 || !connection_says(&head.fields, b"upgrade") {
        return None;
    }
    let mut wanted = list_members(head.fields.all(Known::Upgrade));
    let (only, more) = (wanted.next()?, wanted.next());
    if more.is_some() {
        return None;
    }
    allowed
        .iter()
        .position(|token| only.eq_ignore_ascii_case(token.as_bytes()))
}

/// Does this 101 switch to what was asked for (RFC 9110 §7.8), and to nothing else?
pub fn switches_to(head: &ResponseHead, token: &str) -> bool {
    let mut said = list_members(head.fields.all(Known::Upgrade));
    said.next()
        .is_some_and(|only| only.eq_ignore_ascii_case(token.as_bytes()))
        && said.next().is_none()
}

/// Trailers of a message framed so that do not travel on. To be asked before its head is rewritten.
pub fn nominated(framing: BodyFraming, fields: &Fields) -> Nominated {
    match framing {
        BodyFraming::Chunked => Nominated::of(fields),
        // Only chunked bodies have trailers (RFC 9112 §7.1.2).
        BodyFraming::None | BodyFraming::Length(_) | BodyFraming::UntilClose => {
            Nominated::default()
        }
    }
}

/// Turns a client's head into the one for the backend, all but framing and `Connection`. Returns
/// the request's identity: the one a trusted proxy gave, else `fresh_id`.
pub fn rewrite_request(head: &mut RequestHead, hop: Hop<'_>, fresh_id: [u8; 32]) -> [u8; 32] {
    remove_hop_by_hop(&mut head.fields);
    let mut id = fresh_id;
    let (mut has_proto, mut has_host, mut has_id) = (false, false, false);
    if hop.trusted {
        has_proto = head.fields.first(Known::XForwardedProto).is_some();
        has_host = head.fields.first(Known::XForwardedHost).is_some();
        if let Some(given) = head.fields.first(Known::XRequestId) {
            has_id = true;
            if let Ok(given) = <[u8; 32]>::try_from(given)
                && given.iter().all(u8::is_ascii_alphanumeric)
            {
                id = given;
            }
        }
    }
    head.fields.retain(|field| match field.known {
        Known::Other | Known::XForwardedOther if !hop.underscores && is_underscored(field.name) => {
            false
        }
        Known::Forwarded
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::XForwardedOther
        | Known::XRealIp
        | Known::XRequestId => hop.trusted,
        // It is asked of us.
        Known::XEvenkeelExplain => false,
        // RFC 9110 §10.1.1: not in HTTP/1.0, and the backend is spoken to in 1.1.
        Known::Expect => head.version != Version::Http10,
        Known::Other => hop.trusted || !tells_of_the_client(field.name),
        _ => true,
    });
    let proto: &[u8] = if hop.secure { b"https" } else { b"http" };
    let client = hop.client.as_bytes();
    head.fields
        .join(Known::XForwardedFor, b"X-Forwarded-For", client);
    if !has_proto {
        head.fields
            .push_known(Known::XForwardedProto, b"X-Forwarded-Proto", proto);
    }
    if !has_host && !head.authority.is_empty() {
        head.fields
            .push_known(Known::XForwardedHost, b"X-Forwarded-Host", &head.authority);
    }
    if hop.forwarded {
        head.fields.push_known(
            Known::Forwarded,
            b"Forwarded",
            forwarded(head, hop, proto).as_bytes(),
        );
    }
    if let Some(asked) = hop.certificate {
        certificate_fields::push(&mut head.fields, asked, hop.trusted);
    }
    if !has_id {
        head.fields
            .push_known(Known::XRequestId, b"X-Request-Id", &id);
    }
    head.fields
        .push_known(Known::Via, b"Via", via(head.version));
    id
}

/// Is this, underscores read as hyphens, a field by which a proxy tells where a client came from, or
/// one that is for proxies alone?
fn tells_of_the_client(name: &[u8]) -> bool {
    if is_about_client_certificate(name) || is_same_field(name, mirror::FIELD) {
        return true;
    }
    if !name.contains(&b'_') {
        return false;
    }
    let hyphens = |b: &u8| if *b == b'_' { b'-' } else { *b };
    let meant: Vec<u8> = name.iter().map(hyphens).collect();
    matches!(
        Known::of(&meant),
        Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedProto
            | Known::XForwardedOther
            | Known::XRealIp
            | Known::XRequestId
            | Known::XEvenkeelExplain
    )
}

/// One element of `Forwarded` (RFC 7239 §4).
fn forwarded(head: &RequestHead, hop: Hop<'_>, proto: &[u8]) -> String {
    let client = match hop.address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let host = String::from_utf8_lossy(&head.authority);
    let proto = String::from_utf8_lossy(proto);
    format!("for={client};host=\"{host}\";proto={proto}")
}

/// Turns a backend's head into the one for the client, all but framing and `Connection`.
pub fn rewrite_response(head: &mut ResponseHead) {
    remove_hop_by_hop(&mut head.fields);
}

/// Puts an `Upgrade` field back for a switch of protocols.
pub fn push_upgrade(fields: &mut Fields, token: &str) {
    fields.push(b"Upgrade", token.as_bytes());
}

/// Gives the client what is ours beside the backend's: a cookie, and why it is this backend.
pub fn push_own(fields: &mut Fields, cookie: Option<&str>, explanation: Option<&str>) {
    if let Some(cookie) = cookie {
        fields.push_known(Known::SetCookie, b"Set-Cookie", cookie.as_bytes());
    }
    if let Some(explanation) = explanation {
        if fields.may_have(Known::XEvenkeelExplain) {
            // A backend that is a balancer itself has been asked by somebody else.
            fields.retain(|field| field.known != Known::XEvenkeelExplain);
        }
        fields.push_known(Known::XEvenkeelExplain, EXPLAIN, explanation.as_bytes());
    }
}

/// The field by which a client asks why, and is told.
pub const EXPLAIN: &[u8] = b"X-Evenkeel-Explain";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead {
            authority: b"shop.example".to_vec(),
            ..RequestHead::default()
        };
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    fn hop(trusted: bool) -> Hop<'static> {
        Hop {
            client: "192.0.2.7",
            address: IpAddr::from([192, 0, 2, 7]),
            secure: true,
            trusted,
            underscores: false,
            forwarded: true,
            certificate: None,
        }
    }

    fn text(head: &RequestHead) -> Vec<String> {
        let field = |f: crate::http::headers::Field<'_>| {
            let name = String::from_utf8_lossy(f.name).to_lowercase();
            format!("{name}: {}", String::from_utf8_lossy(f.value))
        };
        head.fields.iter().map(field).collect()
    }

    const FORGED: &[(&str, &str)] = &[
        ("X-Forwarded-For", "10.0.0.1"),
        ("x-forwarded-proto", "gopher"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Request-Id", "mine"),
        ("X_Api_Key", "1"),
        ("X-Forwarded-Client_Cert", "forged"),
        ("X-Evenkeel-Explain", "1"),
        ("Accept", "*/*"),
    ];

    #[test]
    fn an_untrusted_client_says_nothing_about_where_it_came_from() {
        let mut head = head(FORGED);
        rewrite_request(&mut head, hop(false), [b'7'; 32]);
        assert_eq!(
            text(&head),
            [
                "accept: */*",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-proto: https",
                "x-forwarded-host: shop.example",
                "forwarded: for=192.0.2.7;host=\"shop.example\";proto=https",
                "x-request-id: 77777777777777777777777777777777",
                "via: 1.1 evenkeel",
            ]
        );
    }

    #[test]
    fn an_underscore_hides_no_forgery_where_underscores_pass() {
        let mut head = head(&[
            ("X_Forwarded_For", "10.0.0.1"),
            ("x_real-ip", "10.0.0.1"),
            ("x_evenkeel_explain", "10.0.0.1"),
            ("my_own", "1"),
        ]);
        let hop = Hop {
            underscores: true,
            ..hop(false)
        };
        rewrite_request(&mut head, hop, [b'7'; 32]);
        let text = text(&head);
        assert!(text.contains(&"my_own: 1".to_owned()), "{text:?}");
        assert!(!text.iter().any(|f| f.contains("10.0.0.1")), "{text:?}");
    }

    #[test]
    fn a_trusted_proxy_is_appended_to_and_kept() {
        let mut head = head(FORGED);
        rewrite_request(&mut head, hop(true), [b'7'; 32]);
        let text = text(&head);
        assert!(
            text.contains(&"x-forwarded-for: 10.0.0.1, 192.0.2.7".to_owned()),
            "{text:?}"
        );
        assert!(
            text.contains(&"x-forwarded-proto: gopher".to_owned()),
            "{text:?}"
        );
        assert!(text.contains(&"x-request-id: mine".to_owned()), "{text:?}");
    }

    #[test]
    fn connection_cannot_remove_what_we_set() {
        let mut head = head(&[
            ("Connection", "X-Forwarded-For, X-Private, close"),
            ("X-Private", "1"),
            ("X-Forwarded-For", "10.0.0.1"),
        ]);
        rewrite_request(&mut head, hop(true), [b'7'; 32]);
        let text = text(&head);
        assert!(
            text.contains(&"x-forwarded-for: 10.0.0.1, 192.0.2.7".to_owned()),
            "{text:?}"
        );
        assert!(!text.iter().any(|f| f.starts_with("x-private")), "{text:?}");
    }

    #[test]
    fn only_a_listed_upgrade_alone_is_wanted() {
        let allowed = [Box::from("websocket")];
        for (fields, wanted) in [
            (
                &[("Connection", "Upgrade"), ("Upgrade", "WebSocket")][..],
                Some(0),
            ),
            (
                &[
                    ("Connection", "keep-alive, upgrade"),
                    ("Upgrade", "websocket"),
                ],
                Some(0),
            ),
            (&[("Upgrade", "websocket")], None),
            (&[("Connection", "Upgrade"), ("Upgrade", "h2c")], None),
            (
                &[("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
                None,
            ),
        ] {
            assert_eq!(
                wanted_upgrade(&head(fields), &allowed),
                wanted,
                "{fields:?}"
            );
        }
    }
}
