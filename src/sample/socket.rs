//! WebSocket (RFC 6455): the handshake, and a conversation in which everything said is said back.
//!
//! Frames, masks, pings and the closing handshake are tungstenite's; the handshake's head came
//! through the parser that every request comes through. Each wait has its deadline.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::Shared;
use super::answer::{self, Envelope};
use super::connection::farewell;
use crate::http::body::BodyFraming;
use crate::http::h1::encode;
use crate::http::head::{Method, RequestHead, Version};
use crate::http::headers::{Known, is_token_byte, list_members};

/// Bytes of the largest message that is taken, all its frames together.
pub const LARGEST_MESSAGE: usize = 1 << 20;

/// For the next message; as long as the balancer keeps a tunnel in which nothing moves.
const IDLE: Duration = Duration::from_secs(3_600);

/// For the peer to take something.
const PATIENCE: Duration = Duration::from_secs(30);

/// For the peer to close after us (§7.1.1).
const FAREWELL: Duration = Duration::from_secs(2);

/// Read at a time; held by every conversation.
const READ: usize = 8 << 10;

/// What a request says of WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handshake {
    /// Nothing.
    None,
    /// It opens one.
    Accept(Accept),
    /// It tries to: with which status to answer, and why.
    Refuse(u16, &'static str),
}

/// What goes into the 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accept {
    key: String,
    /// The first one offered: some clients give up when none is chosen.
    protocol: Option<Vec<u8>>,
}

impl Handshake {
    /// Reads the client's half of the handshake (§4.2.1). A request that asks for WebSocket by
    /// another method or version of HTTP is an ordinary one: it need not be upgraded.
    pub(super) fn of(head: &RequestHead) -> Handshake {
        let fields = &head.fields;
        let says = |known, what: &[u8]| {
            list_members(fields.all(known)).any(|member| member.eq_ignore_ascii_case(what))
        };
        let wanted = head.method == Method::Get
            && head.version == Version::Http11
            && says(Known::Upgrade, b"websocket")
            && says(Known::Connection, b"upgrade");
        if !wanted {
            return Handshake::None;
        }
        if !fields.named("sec-websocket-version").eq([b"13"]) {
            return Handshake::Refuse(426, "only version 13 of WebSocket is spoken here");
        }
        let mut keys = fields.all(Known::SecWebSocketKey);
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) if BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16) => key,
            _ => return Handshake::Refuse(400, "no Sec-WebSocket-Key of 16 bytes in Base64"),
        };
        let protocol = list_members(fields.named("sec-websocket-protocol")).next();
        let sound = |name: &&[u8]| name.iter().all(|b| is_token_byte(*b));
        Handshake::Accept(Accept {
            key: accept_key(key),
            protocol: protocol.filter(sound).map(Vec::from),
        })
    }
}

impl Accept {
    /// Appends the server's half of the handshake (§4.2.2).
    pub(super) fn write(&self, envelope: Envelope<'_>, out: &mut Vec<u8>) {
        let mut head = answer::head(101, envelope);
        head.fields.push(b"Upgrade", b"websocket");
        head.fields
            .push(b"Sec-WebSocket-Accept", self.key.as_bytes());
        if let Some(protocol) = &self.protocol {
            head.fields.push(b"Sec-WebSocket-Protocol", protocol);
        }
        encode::response_head(&head, BodyFraming::None, envelope.connection, out);
    }
}

/// §4.2.2, step 5.4. SHA-1 keeps no secret here: it shows that the key was understood.
fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    BASE64.encode(digest.as_ref())
}

/// Says back each message until one of both sides closes. `input` came behind the handshake.
pub(super) async fn echo(stream: TcpStream, input: Vec<u8>, shared: &Shared) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * LARGEST_MESSAGE)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    let mut socket =
        WebSocketStream::from_partially_read(stream, input, Role::Server, Some(config)).await;
    if let Some((code, reason)) = converse(&mut socket, shared).await {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let closing = async {
            if socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = socket.next().await {}
            }
        };
        // Whoever does not close after us is left alone.
        let _ = timeout(FAREWELL, closing).await;
    }
    // RFC 6455 §7.1.1: the server is the first to close the connection.
    let _ = farewell(socket.into_inner()).await;
}

/// Why we close, unless it was the peer who did.
async fn converse(
    socket: &mut WebSocketStream<TcpStream>,
    shared: &Shared,
) -> Option<(CloseCode, &'static str)> {
    loop {
        let next = tokio::select! {
            biased;
            () = shared.closing() => return Some((CloseCode::Away, "the backend stops")),
            next = timeout(IDLE, socket.next()) => next,
        };
        let message = match next {
            Ok(Some(Ok(message))) => message,
            // The closing handshake is done, or the connection gone.
            Ok(None) => return None,
            Ok(Some(Err(error))) => return fault(&error),
            Err(_) => return Some((CloseCode::Normal, "nothing was said for an hour")),
        };
        match message {
            Message::Text(_) | Message::Binary(_) => {
                match timeout(PATIENCE, socket.send(message)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return None,
                }
            }
            // Answered by tungstenite, which sends its answers with the next read.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
}

/// What to tell a peer that broke the rules (§7.4.1); nothing when it is gone.
fn fault(error: &Error) -> Option<(CloseCode, &'static str)> {
    match error {
        Error::Capacity(_) => Some((CloseCode::Size, "messages may have 1 MiB")),
        Error::Utf8(_) => Some((CloseCode::Invalid, "text that is not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some((CloseCode::Protocol, "not in accordance with RFC 6455")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With these fields, and those of a sound handshake that they do not name.
    fn request(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            if !fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in fields {
            if *value != "-" {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
        }
        head
    }

    /// The key and its answer are those of RFC 6455 §1.3.
    #[test]
    fn handshakes() {
        let accept = |protocol: Option<&str>| {
            Handshake::Accept(Accept {
                key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
                protocol: protocol.map(Vec::from),
            })
        };
        let refuses = |status| move |found: &Handshake| matches!(found, Handshake::Refuse(s, _) if *s == status);
        for (rule, fields, expected) in [
            ("as it should be", &[][..], accept(None)),
            (
                "§4.2.1 steps 3 and 4: lists, in any case",
                &[
                    ("upgrade", "h2c, WebSocket"),
                    ("connection", "keep-alive, upgrade"),
                ],
                accept(None),
            ),
            (
                "§4.2.2 step 5.5: one protocol of those offered",
                &[("Sec-WebSocket-Protocol", "chat, superchat")],
                accept(Some("chat")),
            ),
            (
                "a protocol with a space",
                &[("Sec-WebSocket-Protocol", "a b")],
                accept(None),
            ),
            ("no Upgrade", &[("Upgrade", "-")], Handshake::None),
            ("another Upgrade", &[("Upgrade", "h2c")], Handshake::None),
            ("no Connection", &[("Connection", "close")], Handshake::None),
        ] {
            assert_eq!(Handshake::of(&request(fields)), expected, "{rule}");
        }
        for (rule, fields, status) in [
            ("§4.4", &[("Sec-WebSocket-Version", "8")][..], 426),
            ("§4.4", &[("Sec-WebSocket-Version", "-")], 426),
            (
                "two versions",
                &[
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Version", "8"),
                ],
                426,
            ),
            ("no key", &[("Sec-WebSocket-Key", "-")], 400),
            ("a short key", &[("Sec-WebSocket-Key", "YWJj")], 400),
            (
                "a key that is no Base64",
                &[("Sec-WebSocket-Key", "?")],
                400,
            ),
            (
                "two keys",
                &[
                    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ],
                400,
            ),
        ] {
            let found = Handshake::of(&request(fields));
            assert!(refuses(status)(&found), "{rule}: {found:?}");
        }
        let other = RequestHead {
            method: Method::Post,
            ..request(&[])
        };
        assert_eq!(Handshake::of(&other), Handshake::None);
    }
}
