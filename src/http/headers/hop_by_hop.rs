//! What has a meaning on one connection only, and does not travel on (RFC 9110 §7.6.1).

use super::{Entry, Fields, Known, is_same_field, list_members};

/// Every option is compared with every field, so that a head full of options would cost far more
/// than it took to send. Real ones name one or two fields; and since a sender can only take away
/// what it sent itself, not looking further is safe.
pub const MAX_OPTIONS: usize = 64;

/// The fields with a meaning on one connection only, as bits.
const HOP_BY_HOP: u64 = Known::Connection.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Te.bit()
    | Known::Trailer.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit();

/// Removes what belongs to one hop only: the fields that `Connection` names, `Connection` itself,
/// `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `Transfer-Encoding`, `Upgrade`. A `Connection`
/// that names a field the proxy adds or relies on (`Host`, `Content-Length`, `X-Forwarded-*`,
/// `Forwarded`, `Via`, `X-Request-Id`, …) removes nothing of that. Options after the first
/// [`MAX_OPTIONS`] that could remove something are not looked at.
pub fn remove_hop_by_hop(fields: &mut Fields) {
    let Fields {
        bytes,
        entries,
        kinds,
    } = fields;
    if *kinds & HOP_BY_HOP == 0 {
        return;
    }
    if nominated(entries, bytes).next().is_none() {
        entries.retain(|e| !is_hop_by_hop(e.known));
        return;
    }
    let mut named: [&[u8]; MAX_OPTIONS] = [&[]; MAX_OPTIONS];
    let mut count = 0;
    for (slot, option) in named.iter_mut().zip(nominated(entries, bytes)) {
        *slot = option;
        count += 1;
    }
    let named = &named[..count];
    entries.retain(|e| {
        let name = e.field(bytes).name;
        !is_hop_by_hop(e.known) && !named.iter().any(|n| n.eq_ignore_ascii_case(name))
    });
}

/// The fields that a message's `Connection` names, for its trailer section: that comes when the head
/// has been rewritten long since, and what it holds of them is for one hop all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nominated {
    /// Apart, so that most of a comparison is that of two lengths: a list would be read anew for each
    /// trailer, and 64 long names with thousands of trailers hold a worker up. Empty, and no
    /// allocation, for nearly every message.
    names: Vec<Box<[u8]>>,
}

impl Nominated {
    /// To be asked before [`remove_hop_by_hop`], and with its bound.
    pub fn of(fields: &Fields) -> Nominated {
        if !fields.may_have(Known::Connection) {
            return Nominated::default();
        }
        let names = nominated(&fields.entries, &fields.bytes).take(MAX_OPTIONS);
        Nominated {
            names: names.map(Box::from).collect(),
        }
    }

    /// The same and these, which a client is not to say either.
    pub fn and<'a>(mut self, names: impl Iterator<Item = &'a [u8]>) -> Nominated {
        self.names.extend(names.map(Box::from));
        self
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Is the field of that name one of them, whatever its case, underscores read as hyphens? A
    /// comparison for each, of names as long as this one.
    pub fn has(&self, name: &[u8]) -> bool {
        self.names.iter().any(|n| is_same_field(n, name))
    }
}

/// Options of `Connection` that can name a field to be removed.
fn nominated<'a>(entries: &[Entry], bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let connection = entries
        .iter()
        .filter(|e| e.known == Known::Connection)
        .map(|e| e.field(bytes).value);
    list_members(connection).filter(|option| {
        let known = Known::of(option);
        !is_hop_by_hop(known) && !is_relied_on(known)
    })
}

fn is_hop_by_hop(known: Known) -> bool {
    known.bit() & HOP_BY_HOP != 0
}

/// The proxy sets it or decides by it, so the peer cannot have it removed on the way by naming it in
/// `Connection`.
fn is_relied_on(known: Known) -> bool {
    matches!(
        known,
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
