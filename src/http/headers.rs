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
        let _ = name;
        todo!()
    }
}

impl Fields {
    /// Appends a field. `name` and `value` are taken as they are: the caller has checked them.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let _ = (name, value);
        todo!()
    }

    /// Forgets all fields and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
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
        self.entries.iter().map(|e| Field {
            known: e.known,
            name: &self.bytes[e.name.0 as usize..e.name.1 as usize],
            value: &self.bytes[e.value.0 as usize..e.value.1 as usize],
        })
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
        self.entries.retain(|e| {
            keep(Field {
                known: e.known,
                name: &bytes[e.name.0 as usize..e.name.1 as usize],
                value: &bytes[e.value.0 as usize..e.value.1 as usize],
            })
        });
    }
}

/// Comma-separated members of a field that may be repeated (RFC 9110 §5.6.1), without the
/// empty ones and without surrounding white space.
pub fn list_members<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values
        .flat_map(|v| v.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|m| !m.is_empty())
}

/// Removes what belongs to one hop only (RFC 9110 §7.6.1): the fields that `Connection` names,
/// `Connection` itself, `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `Transfer-Encoding`,
/// `Upgrade`. A `Connection` that names a field the proxy adds or relies on (`Host`,
/// `Content-Length`, `X-Forwarded-*`, `Forwarded`, `Via`, `X-Request-Id`, …) removes nothing of
/// that.
pub fn remove_hop_by_hop(fields: &mut Fields) {
    let _ = fields;
    todo!()
}
