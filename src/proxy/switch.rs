//! How a switch of protocols is said: by `Upgrade` and 101 in HTTP/1.1 (RFC 9110 §7.8), by an extended
//! CONNECT and 200 in HTTP/2 (RFC 8441). Where one side says it so and the other otherwise, the key by
//! which WebSocket makes sure in HTTP/1.1 that it was understood (RFC 6455 §1.3) is ours to make, or
//! to answer.

use aws_lc_rs::digest;
use data_encoding::BASE64;

use super::forward;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Fields, Known};

/// A switch that a request asks for.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    token: &'a str,
    /// The client asks for it by an extended CONNECT.
    from_stream: bool,
    /// The backend is asked by one.
    to_stream: bool,
    /// What the other side has to prove that it knows.
    accept: Option<String>,
}

impl<'a> Handshake<'a> {
    /// Makes `head` ask the backend for it in its words, after hop-by-hop fields were removed.
    pub(super) fn translate(
        token: &'a str,
        head: &mut RequestHead,
        from_stream: bool,
        to_stream: bool,
    ) -> Handshake<'a> {
        let mut accept = None;
        let is_websocket = token == "websocket";
        if is_websocket && (from_stream || to_stream) {
            if !from_stream {
                accept = head.fields.first(Known::SecWebSocketKey).map(accepted);
            }
            head.fields.retain(|f| f.known != Known::SecWebSocketKey);
            if from_stream && !to_stream {
                let key = BASE64.encode(&fastrand::u128(..).to_be_bytes());
                head.fields.push(b"Sec-WebSocket-Key", key.as_bytes());
                accept = Some(accepted(key.as_bytes()));
            }
        }
        if !to_stream {
            forward::push_upgrade(&mut head.fields, token);
        }
        Handshake {
            token,
            from_stream,
            to_stream,
            accept,
        }
    }

    /// Makes the backend's consent one that the client reads. An error: it is none.
    pub(super) fn answer(&self, head: &mut ResponseHead) -> Result<(), &'static str> {
        if self.from_stream
            && !self.to_stream
            && let Some(accept) = &self.accept
        {
            let said = head.fields.named(ACCEPT).next();
            if said != Some(accept.as_bytes()) {
                return Err("101 with the wrong Sec-WebSocket-Accept");
            }
        }
        forward::rewrite_response(head);
        head.reason.clear();
        if self.from_stream {
            head.status = 200;
            if !self.to_stream {
                remove_accept(&mut head.fields);
            }
            return Ok(());
        }
        head.status = 101;
        head.reason.extend_from_slice(b"Switching Protocols");
        if let (true, Some(accept)) = (self.to_stream, &self.accept) {
            remove_accept(&mut head.fields);
            head.fields.push(b"Sec-WebSocket-Accept", accept.as_bytes());
        }
        forward::push_upgrade(&mut head.fields, self.token);
        Ok(())
    }
}

const ACCEPT: &str = "sec-websocket-accept";

fn remove_accept(fields: &mut Fields) {
    fields.retain(|f| !f.name.eq_ignore_ascii_case(ACCEPT.as_bytes()));
}

/// What a server proves with that it has read the key (RFC 6455 §4.2.2).
fn accepted(key: &[u8]) -> String {
    let mut hashed = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hashed.update(key);
    hashed.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(hashed.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_the_rfc_says() {
        assert_eq!(
            accepted(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn request() -> RequestHead {
        let mut head = RequestHead::default();
        head.fields
            .push(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==");
        head
    }

    #[test]
    fn to_a_stream_no_key_goes_and_the_client_gets_its_answer() {
        let mut head = request();
        let handshake = Handshake::translate("websocket", &mut head, false, true);
        assert!(head.fields.is_empty());
        let mut response = ResponseHead {
            status: 200,
            ..ResponseHead::default()
        };
        handshake.answer(&mut response).expect("it is consent");
        assert_eq!(response.status, 101);
        let accept = response.fields.named(ACCEPT).next();
        assert_eq!(accept, Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
    }

    #[test]
    fn from_a_stream_a_key_of_ours_has_to_be_answered() {
        let mut head = RequestHead::default();
        let handshake = Handshake::translate("websocket", &mut head, true, false);
        let key = head.fields.first(Known::SecWebSocketKey).map(accepted);
        let key = key.expect("there is one");
        for (said, right) in [
            (key.as_str(), true),
            ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false),
        ] {
            let mut response = ResponseHead {
                status: 101,
                ..ResponseHead::default()
            };
            response
                .fields
                .push(b"Sec-WebSocket-Accept", said.as_bytes());
            assert_eq!(handshake.answer(&mut response).is_ok(), right);
            if right {
                assert_eq!(response.status, 200);
                assert!(response.fields.is_empty());
            }
        }
    }
}
