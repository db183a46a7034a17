//! What a TLS client says in the open: the name that it asks for and the protocols that it offers.
//!
//! Pure: bytes in, an answer out. `proxy::layer4` calls it with all that has come so far, after each
//! read, and passes the same bytes on unchanged. RFC 8446 §4.1.2 and §5.1, RFC 6066 §3 (server_name),
//! RFC 7301 §3.1 (ALPN); a TLS 1.2 hello (RFC 5246 §7.4.1.2) has the same shape. With Encrypted
//! Client Hello the name is that of the outer hello, as anybody on the way sees it.
//!
//! A hello may be spread over any number of records and each record over any number of reads. As long
//! as it is not whole, a call costs a step per record; the message is put together once.

use std::borrow::Cow;

/// Most bytes of a hello, its four bytes of header included. Post-quantum key shares make it some
/// 1.8 KB, a long session ticket a few more.
pub const LONGEST: usize = 16 * 1024;

/// Most bytes of the records that it is spread over: the same and half as much again, for the headers
/// of very small ones.
pub const LONGEST_RECORDS: usize = LONGEST + LONGEST / 2;

/// A ClientHello that is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name that the client asks for, lower case, without a final dot. At most 253 bytes.
    pub server_name: Option<String>,
    /// The protocols that it offers, as they came: each with its length in front.
    protocols: Vec<u8>,
}

/// Why there is no ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are not TLS.
    #[error("the client does not speak TLS")]
    NotTls,
    /// It would be longer than it may be.
    #[error("the ClientHello is too long")]
    TooLong,
    /// It is TLS, and it is wrong.
    #[error("malformed ClientHello: {0}")]
    Malformed(&'static str),
}

impl ClientHello {
    /// The protocols that it offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut list = Reader(&self.protocols);
        std::iter::from_fn(move || list.vector8())
    }
}

/// Reads the ClientHello that `received` begins with; what follows it is not looked at. `None`: more
/// has to come.
pub fn client_hello(received: &[u8]) -> Result<Option<ClientHello>, Refused> {
    match message(received)? {
        Some(message) => body(&message[HEADER..]).map(Some),
        None => Ok(None),
    }
}

/// The handshake message at the front, header included, put together from its records.
fn message(received: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Refused> {
    let looked_at = &received[..received.len().min(LONGEST_RECORDS)];
    let mut header = [0; HEADER];
    let mut length = 0;
    for fragment in Fragments(looked_at) {
        let fragment = fragment?;
        for (place, byte) in header.iter_mut().skip(length).zip(fragment) {
            *place = *byte;
        }
        length += fragment.len();
        if header[0] != CLIENT_HELLO {
            return Err(Refused::Malformed("another handshake message"));
        }
        if length < HEADER {
            continue;
        }
        let [_, a, b, c] = header;
        let whole = HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
        if whole > LONGEST {
            return Err(Refused::TooLong);
        }
        if length >= whole {
            return Ok(Some(gather(looked_at, whole)));
        }
    }
    match received.len() >= LONGEST_RECORDS {
        true => Err(Refused::TooLong),
        false => Ok(None),
    }
}

/// The first `length` bytes of the records' content, which are there.
fn gather(records: &[u8], length: usize) -> Cow<'_, [u8]> {
    let mut fragments = Fragments(records).map_while(Result::ok);
    let first = fragments.next().unwrap_or_default();
    if let Some(whole) = first.get(..length) {
        return Cow::Borrowed(whole);
    }
    let mut message = Vec::with_capacity(length);
    for fragment in std::iter::once(first).chain(fragments) {
        let missing = length - message.len();
        message.extend_from_slice(&fragment[..fragment.len().min(missing)]);
    }
    Cow::Owned(message)
}

/// The content of records, one after the other (RFC 8446 §5.1): of the last one as much as there is,
/// and never nothing.
struct Fragments<'a>(&'a [u8]);

impl<'a> Iterator for Fragments<'a> {
    type Item = Result<&'a [u8], Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        let records = std::mem::take(&mut self.0);
        // What tells TLS from anything else is looked at as it comes.
        if records.first().is_some_and(|kind| *kind != HANDSHAKE)
            || records.get(1).is_some_and(|major| *major != MAJOR)
        {
            return Some(Err(Refused::NotTls));
        }
        let (&[_, _, _, high, low], content) = records.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return Some(Err(Refused::Malformed("an empty record")));
        }
        if length > LONGEST_FRAGMENT {
            return Some(Err(Refused::Malformed("a record of more than 16 KiB")));
        }
        let (fragment, rest) = content.split_at(length.min(content.len()));
        self.0 = rest;
        (!fragment.is_empty()).then_some(Ok(fragment))
    }
}

/// The message without its header (RFC 8446 §4.1.2).
fn body(bytes: &[u8]) -> Result<ClientHello, Refused> {
    let mut rest = Reader(bytes);
    let fixed = rest.take(VERSION_AND_RANDOM).and(rest.vector8());
    let suites = rest.vector16();
    let compressions = rest.vector8();
    let (Some(session_id), Some(suites), Some(compressions)) = (fixed, suites, compressions) else {
        return Err(Refused::Malformed("it ends too early"));
    };
    if session_id.len() > 32 {
        return Err(Refused::Malformed("session id"));
    }
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Refused::Malformed("cipher suites"));
    }
    if compressions.is_empty() {
        return Err(Refused::Malformed("compression methods"));
    }
    let mut hello = ClientHello::default();
    if rest.is_empty() {
        // TLS 1.2 without any extension.
        return Ok(hello);
    }
    let mut extensions = match (rest.vector16(), rest.is_empty()) {
        (Some(extensions), true) => Reader(extensions),
        _ => return Err(Refused::Malformed("length of the extensions")),
    };
    let mut kinds = Vec::new();
    while !extensions.is_empty() {
        let (Some(kind), Some(content)) = (extensions.number16(), extensions.vector16()) else {
            return Err(Refused::Malformed("an extension is cut off"));
        };
        kinds.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(content)?),
            ALPN => hello.protocols = protocols(content)?.to_vec(),
            _ => {}
        }
    }
    kinds.sort_unstable();
    match kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        // RFC 8446 §4.2.
        true => Err(Refused::Malformed("an extension comes twice")),
        false => Ok(hello),
    }
}

/// RFC 6066 §3: a list, of which only one name of one type was ever defined.
fn server_name(content: &[u8]) -> Result<String, Refused> {
    const WRONG: Refused = Refused::Malformed("server name");
    let mut content = Reader(content);
    let mut list = Reader(content.vector16().ok_or(WRONG)?);
    let kind = list.take(1).ok_or(WRONG)?;
    let name = list.vector16().ok_or(WRONG)?;
    if kind != [HOST_NAME] || !list.is_empty() || !content.is_empty() {
        return Err(WRONG);
    }
    // Some clients send the dot that they were given.
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_label = |label: &[u8]| {
        let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.iter().all(known)
    };
    // An IPv6 address is no name (RFC 6066), and routes would be looked up for it in vain.
    if name.len() > LONGEST_NAME || !name.split(|b| *b == b'.').all(is_label) {
        return Err(WRONG);
    }
    let name = str::from_utf8(name).map_err(|_| WRONG)?;
    Ok(name.to_ascii_lowercase())
}

/// RFC 7301 §3.1: a list of names that are not empty.
fn protocols(content: &[u8]) -> Result<&[u8], Refused> {
    const WRONG: Refused = Refused::Malformed("protocols");
    let mut content = Reader(content);
    let list = content.vector16().ok_or(WRONG)?;
    if list.is_empty() || !content.is_empty() {
        return Err(WRONG);
    }
    let mut names = Reader(list);
    while !names.is_empty() {
        match names.vector8() {
            None | Some([]) => return Err(WRONG),
            Some(_) => {}
        }
    }
    Ok(list)
}

/// Takes bytes off the front; `None`: there are not so many.
#[derive(Clone)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let (&number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(number))
    }

    /// Bytes with their number in front, in one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// The same, in two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

/// RFC 8446 §5.1: content type, and the first byte of every version since SSL 3.0.
const HANDSHAKE: u8 = 22;
const MAJOR: u8 = 3;
const LONGEST_FRAGMENT: usize = 1 << 14;

/// RFC 8446 §4: type and length in front of a handshake message.
const HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

const VERSION_AND_RANDOM: usize = 2 + 32;

/// Of extensions (RFC 6066 §1.1, RFC 7301 §3.1), and of names in the first.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// RFC 1035 §2.3.4, as text without the final dot.
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests;
