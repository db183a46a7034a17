//! The probe listener: `/livez`, `/readyz` and `/metrics`, read-only, on the control thread.
//!
//! It answers one request per connection and closes it. Connections, the size of a head and the
//! time for all of it are bounded, so that nobody who reaches it can hold the control thread up.
//! It answers while the control thread turns: when that is stuck, the probe's own deadline says
//! so.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::occupancy::PROBES;
use super::state::State;
use crate::clock::Millis;
use crate::http::h1::parse::{HeadLimits, request_head};
use crate::http::head::{Method, RequestHead};
use crate::http::headers::list_members;
use crate::telemetry::metrics::{CONTENT_TYPE, classic};

/// For everything from accept to close.
const DEADLINE: Duration = Duration::from_secs(5);
/// After the response, for the client to close.
const LINGER: Duration = Duration::from_millis(500);
/// A kubelet or a scraper sends a few hundred bytes.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 * 1024,
    fields: 64,
};
/// When there are no descriptors, the next accept would fail at once, over and over.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Answers for as long as it is polled. Its connections end when it is dropped. To be called in a
/// `LocalRuntime`.
pub async fn serve(listener: TcpListener, state: Rc<State>) {
    let mut connections = JoinSet::new();
    let descriptors = Arc::clone(&state.generations.load().limits.descriptors);
    let reserve = &descriptors.reserve;
    loop {
        let accept = poll_fn(|cx| {
            let accepted = listener.poll_accept(cx);
            if accepted.is_pending() {
                reserve.refill();
            }
            accepted
        });
        state.occupancy.probes.set(connections.len());
        tokio::select! {
            accepted = accept => match accepted {
                Ok((stream, _)) if connections.len() < PROBES => {
                    connections.spawn_local(answer(stream, Rc::clone(&state)));
                }
                Ok(_) => tracing::debug!("probe listener: too many connections"),
                // Whoever asks whether this process is alive must not hear that it has no
                // descriptors left; the next one takes it.
                Err(_) if reserve.give_up() => {}
                Err(error) => {
                    tracing::warn!(%error, "probe listener: accept failed");
                    sleep(AFTER_FAILED_ACCEPT).await;
                    reserve.refill();
                }
            },
            // Its descriptor goes back into the reserve, if it was that.
            Some(_) = connections.join_next() => {
                reserve.refill();
            }
        }
    }
}

async fn answer(stream: TcpStream, state: Rc<State>) {
    match timeout(DEADLINE, exchange(stream, &state)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "probe listener"),
        Err(_) => tracing::debug!("probe listener: too slow"),
    }
}

async fn exchange(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let mut input = Vec::with_capacity(1024);
    let mut head = RequestHead::default();
    let reply = loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        match request_head(&input, LIMITS, &mut head) {
            Ok(None) => {}
            Ok(Some(_)) => break reply(&head, state, Millis::now()),
            Err(rejection) => break Reply::text(rejection.status, rejection.reason),
        }
    };
    stream
        .write_all(reply.written(head.method).as_bytes())
        .await?;
    stream.shutdown().await?;
    // Closing while something is unread would reset the connection and could take the response
    // along, so what still comes is read for a moment.
    let unread = async {
        while input.len() < 2 * LIMITS.bytes && stream.read_buf(&mut input).await? > 0 {}
        Ok(())
    };
    timeout(LINGER, unread).await.unwrap_or(Ok(()))
}

#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
}

fn reply(head: &RequestHead, state: &State, now: Millis) -> Reply {
    let known = matches!(&*head.path, b"/livez" | b"/readyz" | b"/metrics");
    if !known {
        return Reply::text(404, "there are /livez, /readyz and /metrics");
    }
    if !matches!(head.method, Method::Get | Method::Head) {
        return Reply::text(405, "GET or HEAD");
    }
    match &*head.path {
        b"/livez" => Reply::verdict("alive", &state.stuck(now)),
        b"/readyz" => Reply::verdict("ready", &state.unmet(now)),
        _ => {
            let open_metrics = state.scrape(now);
            let (content_type, body) = match takes_open_metrics(head) {
                true => (CONTENT_TYPE, open_metrics),
                false => (classic::CONTENT_TYPE, classic::classic(&open_metrics)),
            };
            Reply {
                status: 200,
                content_type,
                body,
            }
        }
    }
}

/// Is the newer format asked for? Prometheus does; who says nothing gets what everybody reads.
fn takes_open_metrics(head: &RequestHead) -> bool {
    let mut accepted = list_members(head.fields.named("accept"));
    accepted.any(|member| member.starts_with(b"application/openmetrics-text"))
}

impl Reply {
    fn text(status: u16, text: &str) -> Reply {
        Reply {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{text}\n"),
        }
    }

    /// 200 if nothing is amiss, else 503 and what is.
    fn verdict(fine: &str, amiss: &[impl fmt::Display]) -> Reply {
        if amiss.is_empty() {
            return Reply::text(200, fine);
        }
        let lines: Vec<String> = amiss.iter().map(ToString::to_string).collect();
        Reply::text(503, &lines.join("\n"))
    }

    fn written(&self, method: Method) -> String {
        let Reply {
            status,
            content_type,
            body,
        } = self;
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            405 => "Method Not Allowed",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut text = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: evenkeel\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n",
            body.len()
        );
        if *status == 405 {
            text.push_str("Allow: GET, HEAD\r\n");
        }
        text.push_str("\r\n");
        if method != Method::Head {
            text.push_str(body);
        }
        text
    }
}

#[cfg(test)]
mod tests;
