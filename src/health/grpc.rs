//! The gRPC health checking protocol (`grpc.health.v1.Health/Check`): one call over HTTP/2, with
//! prior knowledge or, over TLS, agreed on by ALPN.
//!
//! The two messages are written and read by hand: each has one field.
//! Source: github.com/grpc/grpc/blob/master/doc/health-checking.md

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};

use super::probe::{Failed, answer, connect};
use crate::io::transport::Transport;

/// Asks for the health of `service`; empty: of the server as a whole. `authority`: `:authority`.
pub(super) async fn check(stream: Transport, authority: &str, service: &str) -> Result<(), Failed> {
    if let Some(tls) = stream.tls()
        && tls.alpn() != Some(b"h2")
    {
        return Err(connect(
            "no HTTP/2: the backend did not agree to it in its handshake (ALPN)".to_owned(),
        ));
    }
    let (requests, connection) = h2::client::Builder::new()
        .max_header_list_size(HEADERS)
        .initial_window_size(WINDOW)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(|e| connect(format!("no HTTP/2: {e}")))?;
    tokio::select! {
        answered = call(requests, authority, service) => answered,
        // It ends by itself only when it fails: nobody has dropped `requests`.
        ended = connection => Err(answer(match ended {
            Ok(()) => "closed without a response".to_owned(),
            Err(e) => format!("the connection failed: {e}"),
        })),
    }
}

async fn call(requests: SendRequest<Bytes>, authority: &str, service: &str) -> Result<(), Failed> {
    let failed = |e: h2::Error| answer(format!("the call failed: {e}"));
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "evenkeel-check")
        .body(())
        .map_err(|e| answer(format!("{authority} cannot be asked: {e}")))?;
    let mut requests = requests.ready().await.map_err(failed)?;
    let (response, mut body) = requests.send_request(request, false).map_err(failed)?;
    body.send_data(question(service), true).map_err(failed)?;
    let (head, mut body) = response.await.map_err(failed)?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(answer(format!("answered {}", head.status.as_u16())));
    }
    // A response of headers alone has its status there.
    if head.headers.contains_key(STATUS) {
        status(&head.headers)?;
    }
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        message.extend_from_slice(&data);
        if message.len() > MESSAGE {
            return Err(answer(format!("a message of more than {MESSAGE} bytes")));
        }
        // That much was taken; an error here shows at the next read.
        let _ = body.flow_control().release_capacity(data.len());
    }
    if let Some(trailers) = body.trailers().await.map_err(failed)? {
        status(&trailers)?;
    }
    match serving_status(&message) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = STATUSES.get(other as usize).copied();
            Err(answer(name.unwrap_or("an unknown status").to_owned()))
        }
        None => Err(answer("no HealthCheckResponse".to_owned())),
    }
}

/// Is `grpc-status` 0?
fn status(fields: &HeaderMap) -> Result<(), Failed> {
    let text = |name: &str| {
        let value = fields.get(name).map(|value| value.as_bytes());
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    match text(STATUS).as_str() {
        "0" => Ok(()),
        // UNIMPLEMENTED, as the protocol names what to look for.
        "12" => Err(answer("the backend has no health service".to_owned())),
        "5" => Err(answer("the backend does not know this service".to_owned())),
        code => Err(answer(format!(
            "grpc-status {code} {}",
            text("grpc-message")
        ))),
    }
}

/// `HealthCheckRequest { string service = 1; }` as a length-prefixed message.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    // Not compressed.
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `status` of `HealthCheckResponse { ServingStatus status = 1; }`, a length-prefixed message;
/// `None`: it is none.
fn serving_status(framed: &[u8]) -> Option<u8> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || length as usize != message.len() {
        return None;
    }
    match message {
        // A field with its default value is left out: UNKNOWN.
        [] => Some(0),
        [0x08, status] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

/// Where a call's status stands.
const STATUS: &str = "grpc-status";

/// `ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u8 = 1;

/// Most of the fields of a response.
const HEADERS: u32 = 16 * 1024;

/// The server may send so much before it is told to go on.
const WINDOW: u32 = 16 * 1024;

/// Most of a message: a HealthCheckResponse has 7 bytes with its prefix.
const MESSAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(
            question("ab").as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        let long = "x".repeat(300);
        assert_eq!(question(&long)[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_answer() {
        for (rule, framed, expected) in [
            ("serving", &[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            ("not serving", &[0, 0, 0, 0, 2, 8, 2], Some(2)),
            ("left out: unknown", &[0, 0, 0, 0, 0], Some(0)),
            ("compressed", &[1, 0, 0, 0, 2, 8, 1], None),
            ("another length", &[0, 0, 0, 0, 3, 8, 1], None),
            ("another field", &[0, 0, 0, 0, 2, 16, 1], None),
            ("nothing", &[], None),
            ("a longer number", &[0, 0, 0, 0, 3, 8, 0x81, 1], None),
        ] {
            assert_eq!(serving_status(framed), expected, "{rule}");
        }
    }
}
