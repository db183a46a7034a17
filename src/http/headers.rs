//! Header fields of one message in one reusable allocation (RFC 9110 §5).

/// Fields that the proxy itself looks at; recognised once, when the field is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // each is the field of that name
pub enum Known {
    Other,
    Accept,
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    Location,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    SecWebSocketKey,
    Server,
    SetCookie,
    Te,
    Traceparent,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    WwwAuthenticate,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XForwardedOther,
    XRealIp,
    XRequestId,
}

/// One field as seen in a [`Fields`].
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Which field it is, if it is one the proxy knows.
    pub known: Known,
    /// Name as received.
    pub name: &'a [u8],
    /// Value without surrounding white space.
    pub value: &'a [u8],
}

/// The fields of a message, in order, repeated ones kept apart.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    known: Known,
    name: (u32, u32),
    value: (u32, u32),
}

impl Known {
    /// Recognises a field name, whatever its case.
    pub fn of(name: &[u8]) -> Known {
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        let Some(first) = name.first() else {
            return Known::Other;
        };
        // Length and first letter leave one candidate, rarely two.
        match (name.len(), first.to_ascii_lowercase()) {
            (2, b't') if is("te") => Known::Te,
            (3, b'v') if is("via") => Known::Via,
            (4, b'd') if is("date") => Known::Date,
            (4, b'h') if is("host") => Known::Host,
            (6, b'a') if is("accept") => Known::Accept,
            (6, b'c') if is("cookie") => Known::Cookie,
            (6, b'e') if is("expect") => Known::Expect,
            (6, b's') if is("server") => Known::Server,
            (7, b'r') if is("referer") => Known::Referer,
            (7, b't') if is("trailer") => Known::Trailer,
            (7, b'u') if is("upgrade") => Known::Upgrade,
            (8, b'l') if is("location") => Known::Location,
            (9, b'f') if is("forwarded") => Known::Forwarded,
            (9, b'x') if is("x-real-ip") => Known::XRealIp,
            (10, b'c') if is("connection") => Known::Connection,
            (10, b'k') if is("keep-alive") => Known::KeepAlive,
            (10, b's') if is("set-cookie") => Known::SetCookie,
            (10, b'u') if is("user-agent") => Known::UserAgent,
            (11, b't') if is("traceparent") => Known::Traceparent,
            (12, b'c') if is("content-type") => Known::ContentType,
            (12, b'x') if is("x-request-id") => Known::XRequestId,
            (13, b'a') if is("authorization") => Known::Authorization,
            (14, b'c') if is("content-length") => Known::ContentLength,
            (15, b'x') if is("x-forwarded-for") => Known::XForwardedFor,
            (16, b'p') if is("proxy-connection") => Known::ProxyConnection,
            (16, b'w') if is("www-authenticate") => Known::WwwAuthenticate,
            (16, b'x') if is("x-forwarded-host") => Known::XForwardedHost,
            (17, b's') if is("sec-websocket-key") => Known::SecWebSocketKey,
            (17, b't') if is("transfer-encoding") => Known::TransferEncoding,
            (17, b'x') if is("x-forwarded-proto") => Known::XForwardedProto,
            (18, b'p') if is("proxy-authenticate") => Known::ProxyAuthenticate,
            (19, b'p') if is("proxy-authorization") => Known::ProxyAuthorization,
            (12.., b'x') if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => {
                Known::XForwardedOther
            }
            _ => Known::Other,
        }
    }

    /// Has a meaning on one connection only (RFC 9110 §7.6.1).
    fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    }

    /// The proxy sets it or decides by it, so the peer cannot have it removed on the way by
    /// naming it in `Connection`.
    fn is_relied_on(self) -> bool {
        matches!(
            self,
            Known::Authorization
                | Known::ContentLength
                | Known::Cookie
                | Known::Date
                | Known::Expect
                | Known::Forwarded
                | Known::Host
                | Known::Location
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::SecWebSocketKey
                | Known::Server
                | Known::SetCookie
                | Known::Traceparent
                | Known::Via
                | Known::WwwAuthenticate
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedProto
                | Known::XForwardedOther
                | Known::XRealIp
                | Known::XRequestId
        )
    }
}

impl Fields {
    /// Appends a field. `name` and `value` are taken as they are: the caller has checked them, and
    /// has bounded them far below 4 GiB in all.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Known::of(name), name, value);
    }

    /// [`Fields::push`] of a name that was recognised before.
    pub(super) fn push_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry {
            known,
            name: (start, middle),
            value: (middle, self.bytes.len() as u32),
        });
    }

    /// Forgets all fields and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Bytes of memory that it holds, used or not.
    pub fn footprint(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|e| e.field(&self.bytes))
    }

    /// Values of every field of that kind, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |f| f.known == known)
            .map(|f| f.value)
    }

    /// Value of the first field of that kind.
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// Values of every field with that name, whatever its case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |f| f.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|f| f.value)
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|e| keep(e.field(bytes)));
    }

    /// Drops the fields with an underscore in their name, which CGI-like backends cannot tell from
    /// the name with a hyphen (`Content_Length`, `X_Forwarded_For`).
    pub fn drop_underscored(&mut self) {
        self.retain(|f| memchr::memchr(b'_', f.name).is_none());
    }
}

impl Entry {
    fn field<'a>(&self, bytes: &'a [u8]) -> Field<'a> {
        Field {
            known: self.known,
            name: &bytes[self.name.0 as usize..self.name.1 as usize],
            value: &bytes[self.value.0 as usize..self.value.1 as usize],
        }
    }
}

/// Comma-separated members of a field that may be repeated (RFC 9110 §5.6.1), without the
/// empty ones and without surrounding white space.
pub fn list_members<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values
        .flat_map(|v| v.split(|b| *b == b','))
        .map(trim)
        .filter(|m| !m.is_empty())
}

/// Without optional white space around it: spaces and tabs only (RFC 9110 §5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// RFC 9110 §5.6.2: what names are made of.
pub fn is_token_byte(b: u8) -> bool {
    TOKEN[b as usize]
}

/// RFC 9110 §5.5: visible characters, spaces, tabs and bytes above ASCII; no control characters.
pub(super) fn is_value(text: &[u8]) -> bool {
    // No early exit, so that it is compiled to vector code.
    !text.iter().fold(false, |bad, &b| {
        bad | ((b < b' ') & (b != b'\t')) | (b == 0x7f)
    })
}

/// Removes what belongs to one hop only (RFC 9110 §7.6.1): the fields that `Connection` names,
/// `Connection` itself, `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `Transfer-Encoding`,
/// `Upgrade`. A `Connection` that names a field the proxy adds or relies on (`Host`,
/// `Content-Length`, `X-Forwarded-*`, `Forwarded`, `Via`, `X-Request-Id`, …) removes nothing of
/// that. Options after the first [`MAX_OPTIONS`] that could remove something are not looked at.
pub fn remove_hop_by_hop(fields: &mut Fields) {
    let Fields { bytes, entries } = fields;
    let mut named: [&[u8]; MAX_OPTIONS] = [&[]; MAX_OPTIONS];
    let mut count = 0;
    let connection = entries
        .iter()
        .filter(|e| e.known == Known::Connection)
        .map(|e| e.field(bytes).value);
    let removing = list_members(connection).filter(|option| {
        let known = Known::of(option);
        !known.is_hop_by_hop() && !known.is_relied_on()
    });
    for (slot, option) in named.iter_mut().zip(removing) {
        *slot = option;
        count += 1;
    }
    let named = &named[..count];
    entries.retain(|e| {
        let name = e.field(bytes).name;
        !e.known.is_hop_by_hop() && !named.iter().any(|n| n.eq_ignore_ascii_case(name))
    });
}

/// Every option is compared with every field, so that a head full of options would cost far more
/// than it took to send. Real ones name one or two fields; and since a sender can only take away
/// what it sent itself, not looking further is safe.
pub const MAX_OPTIONS: usize = 64;

/// Is this a field by which a proxy tells a backend about the client's certificate? There is no one
/// name: RFC 9440 has one, NGINX, HAProxy and the clouds have others. Underscores are read like
/// hyphens, for where they are allowed.
pub fn is_about_client_certificate(name: &[u8]) -> bool {
    let starts_with = |prefix: &str| {
        name.len() >= prefix.len()
            && name.iter().zip(prefix.as_bytes()).all(|(b, p)| match b {
                b'_' => *p == b'-',
                b => b.to_ascii_lowercase() == *p,
            })
    };
    // Most names start with another letter.
    matches!(name.first(), Some(b'c' | b'C' | b's' | b'S' | b'x' | b'X'))
        && ABOUT_CLIENT_CERTIFICATES
            .iter()
            .any(|prefix| starts_with(prefix))
}

/// Prefixes, in lower case. `X-Forwarded-Client-Cert` and its kin are among `X-Forwarded-*`.
const ABOUT_CLIENT_CERTIFICATES: [&str; 8] = [
    "client-cert",
    "ssl-client-",
    "x-ssl-",
    "x-client-cert",
    "x-client-verify",
    "x-client-dn",
    "x-amzn-mtls-",
    "x-arr-clientcert",
];

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        table[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests;
