//! Header fields of one message in one reusable allocation (RFC 9110 §5).

mod hop_by_hop;

pub use hop_by_hop::{MAX_OPTIONS, Nominated, remove_hop_by_hop};

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
    XEvenkeelExplain,
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
///
/// They lie in one allocation as the lines that go out, so that those which a proxy leaves alone,
/// nearly all, are encoded by copying runs of lines.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// Lines as HTTP/1.1 writes them (`name: value` and CRLF); between those that `entries` names
    /// there may be others, which do not count any more.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// A bit for each [`Known`] that was ever pushed since the last `clear`: what is not there is
    /// not searched for.
    kinds: u64,
}

/// Where a field lies in `bytes`: the name from `start` to `colon`, the value from two bytes on to
/// `end`, then CRLF.
#[derive(Debug, Clone, Copy)]
struct Entry {
    known: Known,
    start: u32,
    colon: u32,
    end: u32,
}

impl Known {
    /// Recognises a field name, whatever its case.
    pub fn of(name: &[u8]) -> Known {
        let Some(first) = name.first() else {
            return Known::Other;
        };
        /// Of a length that the compiler knows, so that it compares without a loop.
        fn is<const N: usize>(name: &[u8], text: &[u8; N]) -> bool {
            <&[u8; N]>::try_from(name).is_ok_and(|name| {
                let pairs = name.iter().zip(text);
                pairs.fold(0, |bad, (b, t)| bad | (b.to_ascii_lowercase() ^ t)) == 0
            })
        }
        // Length and first letter leave one candidate, rarely two.
        match (name.len(), first.to_ascii_lowercase()) {
            (2, b't') if is(name, b"te") => Known::Te,
            (3, b'v') if is(name, b"via") => Known::Via,
            (4, b'd') if is(name, b"date") => Known::Date,
            (4, b'h') if is(name, b"host") => Known::Host,
            (6, b'a') if is(name, b"accept") => Known::Accept,
            (6, b'c') if is(name, b"cookie") => Known::Cookie,
            (6, b'e') if is(name, b"expect") => Known::Expect,
            (6, b's') if is(name, b"server") => Known::Server,
            (7, b'r') if is(name, b"referer") => Known::Referer,
            (7, b't') if is(name, b"trailer") => Known::Trailer,
            (7, b'u') if is(name, b"upgrade") => Known::Upgrade,
            (8, b'l') if is(name, b"location") => Known::Location,
            (9, b'f') if is(name, b"forwarded") => Known::Forwarded,
            (9, b'x') if is(name, b"x-real-ip") => Known::XRealIp,
            (10, b'c') if is(name, b"connection") => Known::Connection,
            (10, b'k') if is(name, b"keep-alive") => Known::KeepAlive,
            (10, b's') if is(name, b"set-cookie") => Known::SetCookie,
            (10, b'u') if is(name, b"user-agent") => Known::UserAgent,
            (11, b't') if is(name, b"traceparent") => Known::Traceparent,
            (12, b'c') if is(name, b"content-type") => Known::ContentType,
            (12, b'x') if is(name, b"x-request-id") => Known::XRequestId,
            (13, b'a') if is(name, b"authorization") => Known::Authorization,
            (14, b'c') if is(name, b"content-length") => Known::ContentLength,
            (15, b'x') if is(name, b"x-forwarded-for") => Known::XForwardedFor,
            (16, b'p') if is(name, b"proxy-connection") => Known::ProxyConnection,
            (16, b'w') if is(name, b"www-authenticate") => Known::WwwAuthenticate,
            (16, b'x') if is(name, b"x-forwarded-host") => Known::XForwardedHost,
            (17, b's') if is(name, b"sec-websocket-key") => Known::SecWebSocketKey,
            (17, b't') if is(name, b"transfer-encoding") => Known::TransferEncoding,
            (17, b'x') if is(name, b"x-forwarded-proto") => Known::XForwardedProto,
            (18, b'x') if is(name, b"x-evenkeel-explain") => Known::XEvenkeelExplain,
            (18, b'p') if is(name, b"proxy-authenticate") => Known::ProxyAuthenticate,
            (19, b'p') if is(name, b"proxy-authorization") => Known::ProxyAuthorization,
            (12.., b'x') if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => {
                Known::XForwardedOther
            }
            _ => Known::Other,
        }
    }

    /// A bit of its own.
    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

impl Fields {
    /// Appends a field. `name` and `value` are taken as they are: the caller has checked them, and
    /// has bounded them far below 4 GiB in all.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Known::of(name), name, value);
    }

    /// [`Fields::push`] of a name that was recognised before.
    pub fn push_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + 4);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.add(known, start, name.len(), value.len());
    }

    /// Appends a field whose value `write` appends to what it is given; spaces at its end are taken off.
    /// What it writes is taken as it is, as by [`Fields::push`].
    pub fn push_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.bytes.len();
        write(&mut self.bytes);
        while self.bytes.len() > value && self.bytes.ends_with(b" ") {
            self.bytes.pop();
        }
        let length = self.bytes.len() - value;
        self.bytes.extend_from_slice(b"\r\n");
        self.add(Known::of(name), start, name.len(), length);
    }

    /// Appends fields that lie in `block` as lines, each ended by CRLF, in order. The block is
    /// copied as a whole; a field whose line is not written as we write it (white space around the
    /// value, none behind the colon) is copied once more.
    pub(super) fn extend_from_block<'a>(
        &mut self,
        block: &'a [u8],
        fields: impl Iterator<Item = (Known, &'a [u8], &'a [u8])>,
    ) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(block);
        for (known, name, value) in fields {
            // A name from elsewhere would begin behind the end of the block, or before it, which
            // wraps around to the same.
            let start = name.as_ptr().addr().wrapping_sub(block.as_ptr().addr());
            let length = name.len() + value.len() + 4;
            let line = start
                .checked_add(length)
                .and_then(|end| block.get(start..end));
            let as_we_write = line.is_some_and(|line| {
                line[name.len()..].starts_with(b": ")
                    && line.ends_with(b"\r\n")
                    && std::ptr::eq(line[name.len() + 2..].as_ptr(), value.as_ptr())
            });
            match as_we_write {
                true => self.add(known, base + start, name.len(), value.len()),
                false => self.push_known(known, name, value),
            }
        }
    }

    fn add(&mut self, known: Known, start: usize, name: usize, value: usize) {
        self.kinds |= known.bit();
        let colon = start + name;
        self.entries.push(Entry {
            known,
            start: start as u32,
            colon: colon as u32,
            end: (colon + 2 + value) as u32,
        });
    }

    /// Forgets all fields and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.kinds = 0;
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
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.entries.iter().map(|e| e.field(&self.bytes))
    }

    /// False if there is no field of that kind; true if there is or was one.
    pub fn may_have(&self, known: Known) -> bool {
        self.kinds & known.bit() != 0
    }

    /// Values of every field of that kind, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let among = match self.may_have(known) {
            true => &self.entries[..],
            false => &[],
        };
        among
            .iter()
            .filter(move |e| e.known == known)
            .map(|e| e.field(&self.bytes).value)
    }

    /// The lines of the fields for which `keep` is true, as they go out, in runs that are as long
    /// as possible.
    pub(super) fn lines(&self, keep: impl Fn(Known) -> bool) -> impl Iterator<Item = &[u8]> {
        let mut kept = self
            .entries
            .iter()
            .filter(move |e| keep(e.known))
            .peekable();
        std::iter::from_fn(move || {
            let first = kept.next()?;
            let mut end = first.end + 2;
            while let Some(next) = kept.next_if(|next| next.start == end) {
                end = next.end + 2;
            }
            Some(&self.bytes[first.start as usize..end as usize])
        })
    }

    /// Value of the first field of that kind.
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// Values of every field with that name, whatever its case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.iter()
            .filter(move |f| f.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|f| f.value)
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|e| keep(e.field(bytes)));
    }

    /// Makes one field of all those of a kind and of `value`, as a list (RFC 9110 §5.3), behind all
    /// others.
    pub fn join(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        if self.may_have(known) {
            for e in self.entries.iter().filter(|e| e.known == known) {
                self.bytes
                    .extend_from_within(e.colon as usize + 2..e.end as usize);
                self.bytes.extend_from_slice(b", ");
            }
            self.entries.retain(|e| e.known != known);
        }
        self.bytes.extend_from_slice(value);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
        self.add(known, start, name.len(), end - start - name.len() - 2);
    }
}

/// Does a name hold an underscore (`Content_Length`, `X_Forwarded_For`)? CGI-like backends cannot
/// tell it from the name with a hyphen. Of [`Known`] only `Other` and `XForwardedOther` can.
pub fn is_underscored(name: &[u8]) -> bool {
    memchr::memchr(b'_', name).is_some()
}

/// Are these names of the same field, for whoever takes an underscore for a hyphen, too?
pub fn is_same_field(a: &[u8], b: &[u8]) -> bool {
    let plain = |b: &u8| match b {
        b'_' => b'-',
        b => b.to_ascii_lowercase(),
    };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

impl Entry {
    fn field<'a>(&self, bytes: &'a [u8]) -> Field<'a> {
        Field {
            known: self.known,
            name: &bytes[self.start as usize..self.colon as usize],
            value: &bytes[self.colon as usize + 2..self.end as usize],
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
    matches!(
        name.first(),
        Some(b'c' | b'C' | b's' | b'S' | b't' | b'T' | b'x' | b'X')
    ) && ABOUT_CLIENT_CERTIFICATES
        .iter()
        .any(|prefix| starts_with(prefix))
}

/// Prefixes, in lower case. `X-Forwarded-Client-Cert` and its kin are among `X-Forwarded-*`.
const ABOUT_CLIENT_CERTIFICATES: [&str; 14] = [
    "client-cert",
    "tls-client-",
    "x-tls-client-",
    "x-certificate-",
    "x-client-s-dn",
    "x-client-i-dn",
    "x-apigee-",
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
