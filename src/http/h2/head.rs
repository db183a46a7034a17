//! Heads of HTTP/2 messages to those of [`crate::http::head`], and back (RFC 9113 §8).
//!
//! The h2 crate has refused what makes a message malformed in itself: upper case or other bytes that
//! no name has, fields of a connection, pseudo-fields that are unknown, repeated or late, a length that
//! the body does not have. Here is refused what HTTP/1.1 would read otherwise than HTTP/2 wrote it.

use ::h2::ext::Protocol;
use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::{Request, Response, StatusCode, Uri, request, response};

use crate::http::body::{BodyFraming, Declared, declared_length};
use crate::http::h1::body::may_be_trailer;
use crate::http::h1::parse::HeadLimits;
use crate::http::head::{
    BadResponse, Method, Rejection, RequestHead, ResponseHead, Version, normalise_path,
};
use crate::http::headers::{Fields, Known, Nominated, is_about_client_certificate, is_value, trim};

/// Reads a request's head. Gives back what an extended CONNECT asks to speak (RFC 8441); it is a GET
/// from then on, as it would be in HTTP/1.1. After a refusal, what `head` holds means nothing.
pub fn request_head(
    parts: &request::Parts,
    limits: HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<Box<str>>, Rejection> {
    let method = parts.method.as_str().as_bytes();
    head.version = Version::Http2;
    head.method = Method::of(method);
    let protocol = match (head.method, parts.extensions.get::<Protocol>()) {
        (Method::Connect, None) => {
            return Err(Rejection {
                status: 405,
                reason: "CONNECT is not supported",
            });
        }
        (_, protocol) => protocol.map(|p| p.as_str().to_ascii_lowercase().into_boxed_str()),
    };
    let method = match protocol {
        Some(_) => {
            head.method = Method::Get;
            b"GET"
        }
        None => method,
    };
    head.method_text.clear();
    head.method_text.extend_from_slice(method);
    target(&parts.uri, head)?;
    fields(&parts.headers, limits, head)?;
    if head.authority.is_empty() {
        return Err(Rejection::bad_request("missing host"));
    }
    Ok(protocol)
}

/// `:path`, and `:authority` if there is one.
fn target(uri: &Uri, head: &mut RequestHead) -> Result<(), Rejection> {
    head.clear_authority();
    if let Some(authority) = uri.authority() {
        head.set_authority(authority.as_str().as_bytes())?;
    }
    let target = uri
        .path_and_query()
        .ok_or(Rejection::bad_request("missing path"))?;
    let (path, query) = (target.path().as_bytes(), target.query());
    head.query.clear();
    if let Some(query) = query {
        if !query.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Rejection::bad_request("invalid character in the target"));
        }
        head.query.push(b'?');
        head.query.extend_from_slice(query.as_bytes());
    }
    match path {
        b"*" if head.method == Method::Options && query.is_none() => {
            head.path.clear();
            head.path.push(b'*');
            Ok(())
        }
        b"*" => Err(Rejection::bad_request("target * without OPTIONS")),
        _ => normalise_path(path, &mut head.path),
    }
}

fn fields(map: &HeaderMap, limits: HeadLimits, head: &mut RequestHead) -> Result<(), Rejection> {
    let fields = &mut head.fields;
    fields.clear();
    if map.len() > limits.fields {
        return Err(Rejection {
            status: 431,
            reason: "too many fields",
        });
    }
    let mut host: Option<&[u8]> = None;
    let mut cookies = 0;
    for (name, value) in map {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        // RFC 9113 §8.2.1: HTTP/1.1 would take white space around it off.
        if !is_value(value) || trim(value).len() != value.len() {
            return Err(Rejection::bad_request("invalid field value"));
        }
        let known = Known::of(name);
        match known {
            Known::Host if host.is_some() => return Err(Rejection::bad_request("repeated host")),
            Known::Host => host = Some(value),
            Known::Cookie => cookies += 1,
            // §8.2.2. The h2 crate refuses them; whoever smuggles would begin here.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {
                return Err(Rejection::bad_request("field of a connection in HTTP/2"));
            }
            _ => fields.push_known(known, name, value),
        }
    }
    if cookies > 0 {
        // §8.2.3: in pieces, for compression's sake. An empty one would leave white space at an end.
        let pieces = map.get_all(::http::header::COOKIE).iter();
        let pieces = pieces.map(HeaderValue::as_bytes).filter(|p| !p.is_empty());
        let pieces: Vec<&[u8]> = pieces.collect();
        fields.push_known(Known::Cookie, b"cookie", &pieces.join(&b"; "[..]));
    }
    match host {
        None => Ok(()),
        Some(host) if head.authority.is_empty() => head.set_authority(host),
        // §8.3.1: who reads the one and who reads the other must not be led elsewhere.
        Some(host) if host.eq_ignore_ascii_case(&head.authority) => Ok(()),
        Some(_) => Err(Rejection::bad_request("host differs from :authority")),
    }
}

/// How long a request's body is, as far as its head says: `ended` if the stream is over with it.
pub fn request_framing(head: &RequestHead, ended: bool) -> Result<BodyFraming, &'static str> {
    Ok(match (body_framing(&head.fields, ended)?, head.method) {
        // RFC 9110 §8.6: in HTTP/1.1 it is said; there are servers that want to hear it.
        (BodyFraming::None, Method::Post | Method::Put | Method::Patch) => BodyFraming::Length(0),
        (framing, _) => framing,
    })
}

/// How long a message's body is, as far as its head says: `ended` if the stream is over with it.
/// Without a length it is known at its end, with trailers or without, as in a chunked body.
fn body_framing(fields: &Fields, ended: bool) -> Result<BodyFraming, &'static str> {
    match (declared_length(fields)?, ended) {
        (Declared::Repeated(_), _) => Err("repeated content-length"),
        (Declared::Nothing, true) => Ok(BodyFraming::None),
        (Declared::Nothing, false) => Ok(BodyFraming::Chunked),
        (Declared::Once(0), _) => Ok(BodyFraming::Length(0)),
        // The h2 crate has seen this as well.
        (Declared::Once(_), true) => Err("content-length without content"),
        (Declared::Once(n), false) => Ok(BodyFraming::Length(n)),
    }
}

/// RFC 9113 §8.1.1 for the response to a request with that method: what its head says of a length
/// counts only where there can be a body.
pub fn response_framing(
    method: Method,
    head: &ResponseHead,
    ended: bool,
) -> Result<BodyFraming, BadResponse> {
    if method == Method::Head || matches!(head.status, 204 | 304) {
        return Ok(BodyFraming::None);
    }
    body_framing(&head.fields, ended).map_err(BadResponse)
}

/// Writes a request's head. `secure`: the backend is spoken to over TLS; `protocol`: it is an extended
/// CONNECT (RFC 8441). `unnamed` is the authority of a request of HTTP/1.0 that has none: the h2 crate
/// sends none without.
pub fn request(
    head: &RequestHead,
    framing: BodyFraming,
    secure: bool,
    protocol: Option<&str>,
    unnamed: &str,
) -> Result<Request<()>, &'static str> {
    const BAD: &str = "cannot be said in HTTP/2";
    let method = match (protocol, head.method) {
        (Some(_), _) => "CONNECT".as_bytes(),
        (None, Method::Other) => &head.method_text,
        (None, known) => known.name().as_bytes(),
    };
    let mut target = Vec::with_capacity(head.path.len() + head.query.len());
    target.extend_from_slice(&head.path);
    target.extend_from_slice(&head.query);
    let mut uri = ::http::uri::Parts::default();
    uri.path_and_query = Some(match target.as_slice().try_into() {
        Ok(target) => target,
        Err(_) => escaped(&target).try_into().map_err(|_| BAD)?,
    });
    let scheme = if secure { "https" } else { "http" };
    uri.scheme = scheme.try_into().ok();
    let authority = match &head.authority[..] {
        [] => unnamed.as_bytes(),
        named => named,
    };
    uri.authority = Some(authority.try_into().map_err(|_| BAD)?);
    let mut request = Request::new(());
    *request.method_mut() = ::http::Method::from_bytes(method).map_err(|_| BAD)?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| BAD)?;
    *request.version_mut() = ::http::Version::HTTP_2;
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    let map = request.headers_mut();
    write_fields(&head.fields, map).map_err(|_| BAD)?;
    if let BodyFraming::Length(n) = framing {
        map.insert(::http::header::CONTENT_LENGTH, n.into());
    }
    if is_grpc(&head.fields) {
        // Servers of gRPC take it as a sign that nobody on the way drops trailers.
        map.insert(::http::header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

/// Escapes what no URI has (RFC 3986 §2). HTTP/1.1 lets it pass as it came, the http crate does not.
fn escaped(target: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(target.len() + 8);
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 0xf));
                out.extend([b'%', DIGITS[high], DIGITS[low]]);
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Is it a call by gRPC, whatever the encoding of its messages? gRPC-Web is not.
pub fn is_grpc(fields: &Fields) -> bool {
    fields.first(Known::ContentType).is_some_and(|value| {
        let prefix = b"application/grpc";
        let is_so =
            value.len() >= prefix.len() && value[..prefix.len()].eq_ignore_ascii_case(prefix);
        is_so && matches!(value.get(prefix.len()), None | Some(b'+' | b';' | b' '))
    })
}

/// Reads a response's head.
pub fn response_head(parts: &response::Parts, head: &mut ResponseHead) -> Result<(), BadResponse> {
    head.version = Version::Http2;
    head.status = parts.status.as_u16();
    head.reason.clear();
    // HTTP/1.1 has a phrase there, which nobody reads; browsers show it all the same.
    let reason = parts.status.canonical_reason().unwrap_or_default();
    head.reason.extend_from_slice(reason.as_bytes());
    head.fields.clear();
    if parts.headers.len() > MAX_RESPONSE_FIELDS {
        return Err(BadResponse("too many fields"));
    }
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), trim(value.as_bytes()));
        if !is_value(value) {
            return Err(BadResponse("invalid field value"));
        }
        match Known::of(name) {
            // RFC 9113 §8.2.2.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(BadResponse("field of a connection in HTTP/2")),
            known => head.fields.push_known(known, name, value),
        }
    }
    Ok(())
}

/// Writes a response's head, interim or final. With `BodyFraming::None` a `Content-Length` among the
/// fields is kept where a GET would have had it (see [`crate::http::h1::encode::response_head`]).
pub fn response(head: &ResponseHead, framing: BodyFraming) -> Result<Response<()>, BadResponse> {
    const BAD: BadResponse = BadResponse("cannot be said in HTTP/2");
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| BAD)?;
    *response.version_mut() = ::http::Version::HTTP_2;
    let map = response.headers_mut();
    write_fields(&head.fields, map).map_err(|_| BAD)?;
    let length = match (framing, head.status, declared_length(&head.fields)) {
        (BodyFraming::Length(n), ..) => Some(n),
        (BodyFraming::None, 100..=199 | 204, _) => None,
        (BodyFraming::None, _, Ok(Declared::Once(n) | Declared::Repeated(n))) => Some(n),
        _ => None,
    };
    if let Some(n) = length {
        map.insert(::http::header::CONTENT_LENGTH, n.into());
    }
    Ok(response)
}

/// Trailers to fields: those that may come so late (RFC 9110 §6.5.1).
pub fn trailers_from(map: &HeaderMap, fields: &mut Fields) {
    for (name, value) in map.iter().take(MAX_RESPONSE_FIELDS) {
        let (name, value) = (name.as_str().as_bytes(), trim(value.as_bytes()));
        if may_be_trailer(name) && is_value(value) && !is_about_client_certificate(name) {
            fields.push(name, value);
        }
    }
}

/// Fields to trailers.
pub fn trailers(fields: &Fields, barred: &Nominated) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter().filter(|f| !barred.has(f.name)) {
        // A trailer that HTTP/2 cannot say is no reason to break the message.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name),
            HeaderValue::from_bytes(field.value),
        ) {
            map.append(name, value);
        }
    }
    map
}

/// All but those that frame the message or belong to a connection.
fn write_fields(fields: &Fields, map: &mut HeaderMap) -> Result<(), ()> {
    map.reserve(fields.len());
    for field in fields.iter() {
        if matches!(
            field.known,
            Known::Connection
                | Known::ContentLength
                | Known::Host
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        ) {
            continue;
        }
        let name = HeaderName::from_bytes(field.name).map_err(drop)?;
        let value = HeaderValue::from_bytes(field.value).map_err(drop)?;
        map.append(name, value);
    }
    Ok(())
}

/// Fields of a backend's head, and of trailers: as many as in HTTP/1.1.
const MAX_RESPONSE_FIELDS: usize = 256;

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
