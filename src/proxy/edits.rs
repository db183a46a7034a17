//! Fields that the configuration sets, adds and removes, and those for security.
//!
//! What is changed comes last: neither a client nor a backend can undo it. Of an exchange for which
//! nothing is to be changed there is no [`Edits`].

use std::io::Write as _;
use std::net::IpAddr;

use super::peer::Peer;
use crate::config::{Config, HeaderEdits, Piece, Scheme, Template};
use crate::http::headers::{Fields, is_same_field};

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    pub host: &'a str,
    pub request_id: [u8; 32],
    /// By which the client came.
    pub scheme: Scheme,
}

/// What is done to the responses of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edits<'a> {
    /// The service's, then the route's.
    lists: [Option<&'a HeaderEdits>; 2],
    security: Option<Secure>,
    told: Told<'a>,
}

/// Does the client come to us over TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secure {
    Yes,
    No,
}

/// What is to be done to responses to a request; `None`: nothing. `route` and `service` are indexes.
pub(super) fn of_responses<'a>(
    config: &'a Config,
    route: Option<usize>,
    service: Option<usize>,
    peer: &Peer,
    told: impl FnOnce() -> Told<'a>,
) -> Option<Edits<'a>> {
    let route = route.and_then(|index| config.routes[index].response_headers.as_ref());
    let service = service.map(|index| &config.services[index]);
    let secure = match peer.tls {
        Some(_) => Secure::Yes,
        None => Secure::No,
    };
    let security = service
        .filter(|service| service.security_headers)
        .map(|_| secure);
    let service = service.and_then(|service| service.response_headers.as_ref());
    (route.is_some() || service.is_some() || security.is_some()).then(|| Edits {
        lists: [service, route],
        security,
        told: told(),
    })
}

impl Edits<'_> {
    /// Changes a response that goes on. To be called when hop-by-hop fields were removed.
    pub(super) fn apply(&self, fields: &mut Fields) {
        if let Some(secure) = self.security {
            self::secure(fields, secure);
        }
        for edits in self.lists.into_iter().flatten() {
            apply(edits, fields, self.told);
        }
    }

    /// What a backend cannot say, neither in its head nor behind its body.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.lists.into_iter().flatten().flat_map(replaced)
    }
}

/// The fields of which nothing is left that the sender said: those that are removed or set.
pub(super) fn replaced(edits: &HeaderEdits) -> impl Iterator<Item = &[u8]> + Clone {
    let set = edits.set.iter().map(|(name, _)| name);
    edits.remove.iter().chain(set).map(|name| name.as_bytes())
}

/// Changes the fields of a message. O(fields · names).
pub(super) fn apply(edits: &HeaderEdits, fields: &mut Fields, told: Told<'_>) {
    fields.retain(|field| !replaced(edits).any(|name| is_same_field(field.name, name)));
    for (name, template) in edits.set.iter().chain(&edits.add) {
        fields.push_with(name.as_bytes(), |out| write(template, told, out));
    }
}

fn write(template: &Template, told: Told<'_>, out: &mut Vec<u8>) {
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Client => {
                // To memory nothing fails.
                let _ = write!(out, "{}", told.client);
            }
            Piece::Host => out.extend_from_slice(told.host.as_bytes()),
            Piece::RequestId => out.extend_from_slice(&told.request_id),
            Piece::Scheme => out.extend_from_slice(told.scheme.name().as_bytes()),
        }
    }
}

/// Fields by which browsers are told to be careful, where the backend says nothing of the kind. None of
/// them breaks a page that does not rely on being framed by another site.
fn secure(fields: &mut Fields, secure: Secure) {
    for (name, value) in SECURITY {
        // RFC 6797 §7.2: never without TLS.
        let applies = secure == Secure::Yes || name != HSTS;
        if applies && fields.named(name).next().is_none() {
            fields.push(name.as_bytes(), value.as_bytes());
        }
    }
}

const HSTS: &str = "Strict-Transport-Security";

/// HSTS for a year, which preload lists ask for at the least; not for subdomains, which may be anybody's.
const SECURITY: [(&str, &str); 4] = [
    (HSTS, "max-age=31536000"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("X-Frame-Options", "SAMEORIGIN"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn edits(text: &str) -> HeaderEdits {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[service]]\nname = \"a\"\ndiscover = {{ static = \"127.0.0.1:1\" }}\n\
             [[route]]\nservice = \"a\"\nrequest_headers = {{ {text} }}\n"
        );
        let config = config::from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"));
        config.routes[0]
            .request_headers
            .clone()
            .expect("it changes something")
    }

    #[test]
    fn what_is_set_added_and_removed() {
        for (rule, text, before, after) in [
            (
                "set",
                "set = { X-A = \"2\" }",
                "x-a: 1, X-A: 3, x-b: 4",
                "x-b: 4, X-A: 2",
            ),
            (
                "set what is not there",
                "set = { X-A = \"2\" }",
                "",
                "X-A: 2",
            ),
            ("added", "add = { X-A = \"2\" }", "x-a: 1", "x-a: 1, X-A: 2"),
            (
                "removed",
                "remove = \"x-a\"",
                "X-A: 1, X-B: 2, x-A: 3",
                "X-B: 2",
            ),
            (
                "an underscore hides nothing",
                "remove = \"x-a\"",
                "X_A: 1",
                "",
            ),
            (
                "in order",
                "remove = \"x-a\", add = { X-A = \"2\" }",
                "x-a: 1",
                "X-A: 2",
            ),
            (
                "an address",
                "set = { A = \"{client}\" }",
                "",
                "A: 2001:db8::7",
            ),
            ("a host", "set = { A = \"<{host}>\" }", "", "A: <a.test>"),
            (
                "a scheme",
                "set = { A = \"{scheme}://x\" }",
                "",
                "A: https://x",
            ),
            (
                "an identity",
                "set = { A = \"{request_id}\" }",
                "",
                "A: 77777777777777777777777777777777",
            ),
            (
                "braces",
                "set = { A = \"{{client}} }}{{\" }",
                "",
                "A: {client} }{",
            ),
        ] {
            let mut fields = Fields::default();
            for field in before.split(", ").filter(|f| !f.is_empty()) {
                let (name, value) = field.split_once(": ").expect("a field");
                fields.push(name.as_bytes(), value.as_bytes());
            }
            let told = Told {
                client: "2001:db8::7".parse().expect("an address"),
                host: "a.test",
                request_id: [b'7'; 32],
                scheme: Scheme::Https,
            };
            apply(&edits(text), &mut fields, told);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let found: Vec<String> = (fields.iter())
                .map(|f| format!("{}: {}", text(f.name), text(f.value)))
                .collect();
            assert_eq!(found.join(", "), after, "{rule}");
        }
    }
}
