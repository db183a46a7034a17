//! `evenkeel backend`: a sample backend that says who it is. The demo starts several of them.
//!
//! HTTP/1.1 with keep-alive and nothing else: to try a balancer with, not to serve anybody.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::body::{BodyFraming, request_framing, request_keeps_alive};
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{Method, Rejection, RequestHead, ResponseHead};

/// Arguments of `backend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every request is answered with 200 and the name, in the body and in X-Backend:

  evenkeel backend --listen 127.0.0.1:9001 --name b1 &
  evenkeel backend --listen 127.0.0.1:9002 --name b2 &
  evenkeel proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002")]
pub struct Args {
    /// Where to listen; port 0 takes a free one and says which
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// What it calls itself; its address unless said otherwise
    #[arg(long, value_name = "NAME", value_parser = field_value)]
    pub name: Option<String>,
    /// How long it takes over each answer
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub delay: Duration,
}

/// Serves until the process is ended.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        let address = listener.local_addr()?;
        let name = args.name.unwrap_or_else(|| address.to_string());
        println!("backend {name} listens on {address}");
        let sample = Sample {
            name,
            delay: args.delay,
        };
        tokio::select! {
            () = serve(listener, sample) => {}
            ended = super::interrupted() => ended?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What a sample backend answers, and when.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its name; what can stand in a field value.
    pub name: String,
    /// Time taken over each answer.
    pub delay: Duration,
}

/// Answers on every connection. When the future is dropped the socket and all connections close
/// at once, as if the process had been killed.
pub async fn serve(listener: TcpListener, sample: Sample) {
    let sample = Arc::new(sample);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            // A peer that misbehaves or goes away ends its own connection only.
            Ok((stream, _)) => drop(connections.spawn(converse(stream, Arc::clone(&sample)))),
            // Out of descriptors, most likely: it would fail again at once.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, request after request.
async fn converse(mut stream: TcpStream, sample: Arc<Sample>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    let mut head = RequestHead::default();
    loop {
        let read = read_request(&mut stream, &mut input, &mut head).await?;
        let (status, keeps_alive) = match &read {
            Ok(true) => (200, request_keeps_alive(&head)),
            Ok(false) => return Ok(()),
            Err(rejection) => (rejection.status, false),
        };
        sleep(sample.delay).await;
        let answer = answer(&sample, &head, status, keeps_alive);
        timeout(PATIENCE, stream.write_all(&answer)).await??;
        if !keeps_alive {
            return stream.shutdown().await;
        }
    }
}

/// Reads a request and throws its body away; false: the peer closed in front of it.
async fn read_request(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    head: &mut RequestHead,
) -> io::Result<Result<bool, Rejection>> {
    let length = loop {
        match parse::request_head(input, LIMITS, head) {
            Ok(Some(length)) => break length,
            Ok(None) => {}
            Err(rejection) => return Ok(Err(rejection)),
        }
        if timeout(PATIENCE, stream.read_buf(input)).await?? == 0 {
            return Ok(Ok(false));
        }
    };
    input.drain(..length);
    let framing = match request_framing(head) {
        Ok(framing) => framing,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let mut body = BodyDecoder::new(framing, LIMITS.bytes);
    loop {
        let decoded = match body.decode(input) {
            Ok(decoded) => decoded,
            Err(bad) => return Ok(Err(Rejection::bad_request(bad.0))),
        };
        input.drain(..decoded.consumed);
        if decoded.end {
            return Ok(Ok(true));
        }
        if decoded.consumed == 0 && timeout(PATIENCE, stream.read_buf(input)).await?? == 0 {
            return Ok(Ok(false));
        }
    }
}

fn answer(sample: &Sample, request: &RequestHead, status: u16, keeps_alive: bool) -> Vec<u8> {
    let mut head = ResponseHead {
        status,
        reason: match status {
            200 => b"OK".to_vec(),
            _ => Vec::new(),
        },
        ..ResponseHead::default()
    };
    let body = format!("hello from {}\n", sample.name);
    head.fields.push(b"Content-Type", b"text/plain");
    head.fields.push(b"X-Backend", sample.name.as_bytes());
    let connection = match keeps_alive {
        true => ConnectionField::None,
        false => ConnectionField::Close,
    };
    let mut out = Vec::new();
    let framing = BodyFraming::Length(body.len() as u64);
    encode::response_head(&head, framing, connection, &mut out);
    if request.method != Method::Head {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

fn field_value(name: &str) -> Result<String, String> {
    match name.chars().all(|c| c.is_ascii_graphic()) && !name.is_empty() {
        true => Ok(name.to_owned()),
        false => Err("only visible ASCII characters".into()),
    }
}

/// Heads above this are refused.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 << 10,
    fields: 100,
};

/// For a peer to send or to take something; as long as the balancer keeps a client.
const PATIENCE: Duration = Duration::from_secs(75);

/// Connections at once; further ones wait in the socket's queue.
const MAX_CONNECTIONS: usize = 1024;

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts one, sends it `input` and returns all that came back until it closed.
    async fn exchange(input: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let sample = Sample {
            name: "b7".into(),
            delay: Duration::ZERO,
        };
        let server = tokio::spawn(serve(listener, sample));
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(input).await.expect("sent");
        client.shutdown().await.expect("half-closed");
        let mut output = String::new();
        client.read_to_string(&mut output).await.expect("received");
        server.abort();
        output
    }

    #[tokio::test]
    async fn says_its_name_request_after_request() {
        let output = exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\
              POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
              GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(output.matches("HTTP/1.1 200 OK\r\n").count(), 4, "{output}");
        assert_eq!(output.matches("X-Backend: b7\r\n").count(), 4, "{output}");
        assert_eq!(
            output.matches("\r\n\r\nhello from b7\n").count(),
            4,
            "{output}"
        );
    }

    #[tokio::test]
    async fn head_has_no_body() {
        let output = exchange(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(output.contains("Content-Length: 14\r\n"), "{output}");
        assert!(output.ends_with("\r\n\r\n"), "{output}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let output = exchange(b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(output.starts_with("HTTP/1.1 400 "), "{output}");
    }
}
