//! One check of one backend: connect, with the layers that requests have too, ask, look at the
//! answer.
//!
//! A connection of its own each time: a kept one would say that the connection lives, not that the
//! backend takes new ones. Called by `prober.rs`, which bounds the time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::grpc;
use crate::config::{Ask, Check, HttpCheck};
use crate::http::body::response_framing;
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{Method, ResponseHead};
use crate::io::buffer::BufferPool;
use crate::io::proxy_header::encode::header;
use crate::io::transport::Transport;
use crate::upstream::connect::is_exhaustion;
use crate::upstream::establish::{Layers, establish};
use crate::upstream::standing::Reason;

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// For the metrics. None: it was for want of something of ours, and says nothing.
    pub reason: Reason,
    /// For people.
    pub detail: String,
}

/// Makes one check. Not bounded in time; cancel-safe. `host`: what stands in Host unless the check
/// says otherwise; `layers`: those of the check.
pub async fn probe(
    address: SocketAddr,
    host: &str,
    layers: &Layers,
    check: &Check,
) -> Result<(), Failed> {
    let nobody = |version| header(version, None);
    let told = layers.header.map(nobody).unwrap_or_default();
    // It holds nothing without TLS, and with it for the length of a check.
    let buffers = BufferPool::new();
    let made = establish(address, &told, layers.tls.as_ref(), &buffers, None).await;
    let mut stream = made.map_err(|e| Failed {
        reason: match is_exhaustion(e.error()) {
            true => Reason::None,
            false => Reason::CheckConnect,
        },
        detail: e.to_string(),
    })?;
    match &check.ask {
        Ask::Tcp => {
            if layers.tls.is_some() {
                // Without our last words the handshake is not over for the backend.
                let ended = stream.shutdown().await;
                ended.map_err(|e| connect(format!("the connection broke: {e}")))?;
            }
            Ok(())
        }
        Ask::Http(http) => ask_http(stream, host, http).await,
        Ask::Grpc(call) => {
            let host = call.host.as_deref().unwrap_or(host);
            grpc::check(stream, host, &call.service).await
        }
    }
}

async fn ask_http(mut stream: Transport, host: &str, http: &HttpCheck) -> Result<(), Failed> {
    let host = http.host.as_deref().unwrap_or(host);
    let request = format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: evenkeel-check\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        http.method, http.path,
    );
    // Whoever refuses a request may close before it has read all of it: what it says counts.
    let written = match stream.write_all(request.as_bytes()).await {
        Ok(()) => stream.flush().await,
        failed => failed,
    };
    let mut received = Vec::new();
    let head = match final_head(&mut stream, &mut received).await {
        Err(failed) => {
            written.map_err(|e| connect(format!("the request could not be sent: {e}")))?;
            return Err(failed);
        }
        Ok(head) => head,
    };
    if !http
        .statuses
        .iter()
        .any(|range| range.contains(&head.status))
    {
        return Err(answer(format!("answered {}", head.status)));
    }
    match &http.body {
        Some(wanted) => contains(&mut stream, received, &head, &http.method, wanted).await,
        None => Ok(()),
    }
}

/// The head of the final response; what came after it is left in `received`.
async fn final_head(
    stream: &mut Transport,
    received: &mut Vec<u8>,
) -> Result<ResponseHead, Failed> {
    let mut head = ResponseHead::default();
    let mut interim = 0;
    loop {
        let parsed = parse::response_head(received, HEAD, &mut head)
            .map_err(|e| answer(format!("no HTTP response: {}", e.0)))?;
        match parsed {
            Some(used) => {
                received.drain(..used);
                match head.status {
                    100..200 if interim < INTERIM => interim += 1,
                    100..200 => return Err(answer("too many interim responses".to_owned())),
                    _ => return Ok(head),
                }
            }
            None => match stream.read_buf(received).await {
                Ok(1..) => {}
                Ok(0) => return Err(answer("closed without a whole response".to_owned())),
                Err(e) => return Err(answer(format!("no response: {e}"))),
            },
        }
    }
}

/// Reads the body until it contains `wanted`, or ends.
async fn contains(
    stream: &mut Transport,
    mut received: Vec<u8>,
    head: &ResponseHead,
    method: &str,
    wanted: &str,
) -> Result<(), Failed> {
    let method = Method::of(method.as_bytes());
    let framing = response_framing(method, head).map_err(|e| answer(e.0.to_owned()))?;
    let mut decoder = BodyDecoder::new(framing, TRAILERS);
    let mut body = Vec::new();
    loop {
        while !received.is_empty() && !decoder.is_done() {
            let decoded = decoder
                .decode(&received)
                .map_err(|e| answer(e.0.to_owned()))?;
            body.extend_from_slice(&received[decoded.data.clone()]);
            if decoded.consumed == 0 {
                break;
            }
            received.drain(..decoded.consumed);
        }
        if memchr::memmem::find(&body, wanted.as_bytes()).is_some() {
            return Ok(());
        }
        if body.len() > BODY {
            return Err(answer(format!(
                "{wanted:?} is not in the first {BODY} bytes"
            )));
        }
        if decoder.is_done() {
            return Err(answer(format!("{wanted:?} is not in the body")));
        }
        match stream.read_buf(&mut received).await {
            Ok(1..) => {}
            Ok(0) => return Err(answer(format!("{wanted:?} is not in the body"))),
            Err(e) => return Err(answer(format!("the body broke off: {e}"))),
        }
    }
}

pub(super) fn connect(detail: String) -> Failed {
    Failed {
        reason: Reason::CheckConnect,
        detail,
    }
}

pub(super) fn answer(detail: String) -> Failed {
    Failed {
        reason: Reason::CheckAnswer,
        detail,
    }
}

/// Bounds of the head of an answer, as of any response of a backend.
const HEAD: HeadLimits = HeadLimits {
    bytes: 60 * 1024,
    fields: 256,
};

/// Interim responses that are read over.
const INTERIM: u32 = 8;

/// Trailers of an answer, in bytes.
const TRAILERS: usize = 8 * 1024;

/// So much of a body is looked through.
const BODY: usize = 64 * 1024;
