//! The other half of an attempt: a backend's response, read and written to the client.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::compress;
use super::drain::Phase;
use super::failure::{Cause, Failure, Progress};
use super::forward;
use super::grpc;
use super::job::{Done, Job, OutOfPatience, Rest, State, Upstream};
use super::recode::TRAILERS;
use super::sink::Sink;
use super::source::{Broken, Source};
use super::worker::Worker;
use crate::http::body::{BodyFraming, declared, response_framing, response_keeps_alive};
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::h2;
use crate::http::h2::incoming::Incoming;
use crate::http::head::{BadResponse, Method, ResponseHead, Version};
use crate::io::buffer::Inbox;
use crate::io::deadline::Timer;
use crate::io::duplex::{Duplex, WriteError};
use crate::io::pace::Pace;
use crate::upstream::streams::{Call, CallError};

/// Bounds of a backend's response head: twice what a client may send, and within one buffer.
const RESPONSE_HEAD: HeadLimits = HeadLimits {
    bytes: 60 * 1024,
    fields: 256,
};

/// Interim responses that one request may be given.
const INTERIM: u32 = 64;

/// What reading and writing a response needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answering<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) job: &'a Job<'a>,
    /// Where the response goes.
    pub(super) client: Sink<'a>,
    pub(super) timer: &'a Timer,
    pub(super) state: &'a State,
}

/// What comes from the backend, and over what.
#[derive(Debug)]
enum Coming<'a> {
    H1(&'a Duplex, Inbox),
    /// `None`: no head of a final response yet.
    H2(&'a Call, Option<Incoming>),
}

/// Reads the backend's response and writes it to the client.
pub(super) async fn receive(
    answering: Answering<'_>,
    writing: &mut Pace,
    upstream: &Upstream,
    response: &mut ResponseHead,
) -> Result<Done, Failure> {
    let Answering {
        worker,
        job,
        client,
        timer,
        state,
    } = answering;
    let mut coming = match upstream {
        Upstream::H1(io) => Coming::H1(io, Inbox::new(Rc::clone(&worker.buffers))),
        Upstream::H2(call) => Coming::H2(call, None),
    };
    let mut interim = 0;
    loop {
        match &mut coming {
            Coming::H1(io, inbox) => read_head(io, inbox, answering, response).await?,
            Coming::H2(call, incoming) => {
                *incoming = read_stream_head(call, answering, response).await?;
            }
        }
        match response.status {
            100..200 => {
                // RFC 9110 §15.2: it ends with its head. One that announces a body leaves open
                // where the next response starts.
                response_framing(job.head.method, response)
                    .map_err(|e| state.fail(Cause::BadResponse(e)))?;
                if response.status == 101 {
                    if let Some(watched) = job.watched {
                        watched.answered(worker, state);
                    }
                    return match (job.upgrade, coming) {
                        (_, Coming::H2(..)) => Err(bad(state, "101 over HTTP/2")),
                        (Some(token), Coming::H1(_, inbox))
                            if forward::switches_to(response, token) =>
                        {
                            forward::push_own(&mut response.fields, job.cookie, job.explanation);
                            Ok(Done::Switched(Rest::H1(inbox)))
                        }
                        (Some(_), _) => Err(bad(state, "101 to another protocol")),
                        (None, _) => Err(bad(state, "101 although no upgrade was asked for")),
                    };
                }
                interim += 1;
                if interim > INTERIM {
                    return Err(bad(state, "too many interim responses"));
                }
                // RFC 9110 §15.2: never to an HTTP/1.0 client.
                if job.head.version != Version::Http10 && job.asks_for.is_none() {
                    // Once it is written a final response may still follow from whoever sends
                    // one; while it is half written none can.
                    let reached = state.progress.replace(Progress::Forwarded);
                    forward::rewrite_response(response);
                    write_interim(answering, writing, response).await?;
                    state.progress.set(reached);
                    if response.status == 100 {
                        state.continued.set(true);
                        // The sender looks at it, and begins to be impatient, in its next turn.
                        poll_fn(|cx| {
                            cx.waker().wake_by_ref();
                            Poll::Ready(())
                        })
                        .await;
                    }
                }
            }
            _ => break,
        }
    }

    if let Some(again) = job.again
        && again
            .statuses
            .iter()
            .any(|range| range.contains(&response.status))
        && interim == 0
        && state.request_done.get()
        && !state.consumed.get()
        && worker.may_try_another(again.service, again.tried)
    {
        return Err(state.fail(Cause::Status(response.status)));
    }
    if let Some(watched) = job.watched {
        watched.answered(worker, state);
    }
    // RFC 8441 §5: a client of HTTP/2 would take it for consent, and what follows for the other protocol.
    if job.upgrade.is_some()
        && matches!((&coming, client), (Coming::H1(..), Sink::H2(_)))
        && matches!(response.status, 200..300)
    {
        return Err(state.fail(Cause::NotSwitched));
    }
    // RFC 8441 §5: to an extended CONNECT that is what 101 is to an upgrade.
    let switches = job.upgrade.is_some() && matches!(response.status, 200..300);
    if let Coming::H2(_, incoming @ Some(_)) = &mut coming
        && switches
        && let Some(incoming) = incoming.take()
    {
        forward::push_own(&mut response.fields, job.cookie, job.explanation);
        return Ok(Done::Switched(Rest::H2(incoming)));
    }
    let framing = match &coming {
        Coming::H1(..) => response_framing(job.head.method, response),
        Coming::H2(_, incoming) => {
            let ended = incoming.as_ref().is_none_or(Incoming::has_ended);
            h2::head::response_framing(job.head.method, response, ended)
        }
    }
    .map_err(|e| state.fail(Cause::BadResponse(e)))?;
    if job.asks_for.is_some() && matches!(response.status, 200..300) {
        let read = discard(answering, &mut coming, framing).await;
        return Ok(Done::Granted {
            upstream_keeps: read && response_keeps_alive(response) && state.request_done.get(),
        });
    }
    let for_head = job.asks_for == Some(Method::Head);
    let framing_out = match (framing, job.head.version) {
        // Its client reads no body, although the backend was asked for one.
        _ if for_head => BodyFraming::None,
        (BodyFraming::Chunked | BodyFraming::UntilClose, Version::Http10) => {
            BodyFraming::UntilClose
        }
        (BodyFraming::Chunked | BodyFraming::UntilClose, _) => BodyFraming::Chunked,
        // The end of a stream says it; in HTTP/1.1 only these have no body unless that is said.
        (BodyFraming::None, Version::Http10 | Version::Http11)
            if job.head.method != Method::Head && !matches!(response.status, 204 | 304) =>
        {
            BodyFraming::Length(0)
        }
        (framing, _) => framing,
    };
    let upstream_keeps = response_keeps_alive(response)
        && framing != BodyFraming::UntilClose
        && (!for_head || framing == BodyFraming::None);
    let client_keeps = job.keep_alive
        && state.request_done.get()
        && framing_out != BodyFraming::UntilClose
        && worker.shared.drain.phase() < Phase::Closing
        && !worker.has_closed(job.peer.listener);
    let connection = match (client_keeps, job.head.version) {
        (false, _) => ConnectionField::Close,
        (true, Version::Http10) => ConnectionField::KeepAlive,
        (true, _) => ConnectionField::None,
    };
    let mut nominated = forward::nominated(framing, &response.fields);
    forward::rewrite_response(response);
    if let Some(edits) = job.edits {
        edits.apply(&mut response.fields);
        if framing != BodyFraming::None {
            nominated = nominated.and(edits.replaced());
        }
    }
    let mut compressor = job.compress.and_then(|negotiated| {
        let asked = (job.head, job.peer);
        compress::begin(negotiated, asked, response, framing, worker)
    });
    if compressor.is_some() {
        nominated = nominated.and(compress::UNTRUE_BEHIND.map(str::as_bytes).into_iter());
    }
    let framing_out = match &compressor {
        Some(_) => BodyFraming::Chunked,
        None => framing_out,
    };
    forward::push_own(&mut response.fields, job.cookie, job.explanation);

    let mut source = match &mut coming {
        _ if for_head => Source::Nothing,
        Coming::H1(io, inbox) => {
            let body = BodyDecoder::new(framing, TRAILERS).barring(nominated);
            Source::h1(io, inbox, body)
        }
        // Whatever comes behind a head that has no body is not passed on as the next message.
        Coming::H2(_, Some(incoming)) if framing != BodyFraming::None => {
            if !nominated.is_empty() {
                incoming.bar(nominated);
            }
            Source::H2(incoming)
        }
        Coming::H2(..) => Source::Nothing,
    };
    let recode = client.recode(&source, framing, framing_out);
    if job.grpc {
        state.grpc_status.set(grpc::status(&response.fields));
    }
    let mut first = true;
    loop {
        {
            let mut out = worker.buffers.output();
            if first && !matches!(client, Sink::H2(_)) {
                encode::response_head(response, framing_out, connection, &mut out.bytes);
            }
            let lot = match &mut compressor {
                None => source.gather(recode, &mut out.bytes, None),
                Some(compressor) => {
                    let chunked = matches!(client, Sink::H1(_));
                    compressor.gather(&mut source, framing, chunked, &mut out.bytes)
                }
            }
            .map_err(|e| state.fail(Cause::ResponseBody(e)))?;
            let piece = source.piece(&lot);
            let is_done = source.is_done();
            let nothing: &crate::http::headers::Fields = &Default::default();
            let mut end = is_done.then(|| source.trailers().unwrap_or(nothing));
            if first && let Sink::H2(stream) = client {
                let ends = out.bytes.is_empty()
                    && piece.is_empty()
                    && end.is_some_and(|trailers| trailers.is_empty());
                let head = h2::head::response(response, framing_out)
                    .map_err(|e| state.fail(Cause::BadResponse(e)))?;
                state.reached(Progress::Forwarded);
                state.status.set(response.status);
                stream
                    .begin(head, ends)
                    .map_err(|_| state.fail(Cause::ClientReset))?;
                if ends {
                    end = None;
                }
            }
            let is_anything = !out.bytes.is_empty() || !piece.is_empty();
            if is_anything || (end.is_some() && matches!(client, Sink::H2(_))) {
                state.reached(Progress::Forwarded);
                state.status.set(response.status);
                state
                    .until_close
                    .set(framing_out == BodyFraming::UntilClose);
                let outcome = client.write(&mut out.bytes, piece, end, writing).await;
                outcome.map_err(|e| unwritten(e, state))?;
                state.sent.set(state.sent.get() + lot.data);
            }
            source.went_on(&lot);
            first = false;
        }
        if source.is_done() {
            break;
        }
        if compressor.is_some() {
            // A backend that is fast must not have the worker to itself.
            tokio::task::yield_now().await;
        }
        timer.set(job.limits.stream_idle);
        let more = timer.guard(poll_fn(|cx| source.poll_more(cx))).await;
        match more {
            Err(_) => return Err(state.fail(Cause::StreamIdle)),
            Ok(Err(why)) => return Err(broken(why, state)),
            Ok(Ok(_)) => {}
        }
    }
    if job.grpc
        && let Some(status) = source.trailers().and_then(grpc::status)
    {
        state.grpc_status.set(Some(status));
    }
    drop(source);
    Ok(Done::Answered {
        client_keeps,
        upstream_keeps: upstream_keeps
            && state.request_done.get()
            && matches!(&coming, Coming::H1(_, inbox) if inbox.is_empty()),
    })
}

/// Reads a body that nobody wants off a connection that others may use. False: it has to end, since the
/// body is long, or does not come.
async fn discard(answering: Answering<'_>, coming: &mut Coming<'_>, framing: BodyFraming) -> bool {
    // A stream ends by itself, and a connection may be cheaper than what its end is waited for.
    let Coming::H1(io, inbox) = coming else {
        return false;
    };
    if framing == BodyFraming::UntilClose {
        return false;
    }
    answering.timer.set(DISCARDING);
    let mut body = BodyDecoder::new(framing, TRAILERS);
    let mut taken = 0;
    loop {
        while !body.is_done() && !inbox.is_empty() {
            match body.decode(inbox.filled()) {
                Ok(piece) if piece.consumed > 0 || piece.end => {
                    taken += piece.consumed;
                    inbox.consume(piece.consumed);
                }
                _ => return false,
            }
        }
        if body.is_done() {
            return inbox.is_empty();
        }
        if taken > DISCARDED {
            return false;
        }
        match answering.timer.guard(io.fill(inbox)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return false,
        }
    }
}

/// So many bytes of a body that nobody wants are read, and waited for so long: a new connection costs
/// about as much.
const DISCARDED: usize = 64 * 1024;
const DISCARDING: Duration = Duration::from_millis(100);

/// Writes an interim response, whole.
async fn write_interim(
    answering: Answering<'_>,
    writing: &mut Pace,
    response: &ResponseHead,
) -> Result<(), Failure> {
    let state = answering.state;
    match answering.client {
        Sink::H1(io) => {
            let mut out = answering.worker.buffers.output();
            let (framing, connection) = (BodyFraming::None, ConnectionField::None);
            encode::response_head(response, framing, connection, &mut out.bytes);
            let outcome = io.write_all(&out.bytes, &[], writing).await;
            outcome.map_err(|e| unwritten(e, state))
        }
        Sink::Nowhere(_) => Ok(()),
        Sink::H2(stream) => {
            let head = h2::head::response(response, BodyFraming::None)
                .map_err(|e| state.fail(Cause::BadResponse(e)))?;
            let outcome = stream.interim(head);
            outcome.map_err(|_| state.fail(Cause::ClientReset))
        }
    }
}

/// Reads one response head off the front of `inbox`, filling it as needed.
async fn read_head(
    upstream: &Duplex,
    inbox: &mut Inbox,
    answering: Answering<'_>,
    response: &mut ResponseHead,
) -> Result<(), Failure> {
    let Answering {
        job, timer, state, ..
    } = answering;
    loop {
        if !inbox.is_empty() {
            let parsed = parse::response_head(inbox.filled(), RESPONSE_HEAD, response)
                .map_err(|e| state.fail(Cause::BadResponse(e)))?;
            if let Some(n) = parsed {
                inbox.consume(n);
                return Ok(());
            }
        }
        match timer.guard(upstream.fill(inbox)).await {
            Err(_) => return Err(state.fail(out_of_patience(job))),
            Ok(Err(_) | Ok(0)) => return Err(state.fail(Cause::UpstreamClosed)),
            Ok(Ok(_)) => answered(state),
        }
    }
}

/// Waits for one response head on a stream: `None` for an interim one, else what follows it.
async fn read_stream_head(
    call: &Call,
    answering: Answering<'_>,
    response: &mut ResponseHead,
) -> Result<Option<Incoming>, Failure> {
    let Answering {
        job, timer, state, ..
    } = answering;
    match timer
        .guard(poll_fn(|cx| call.poll_head(cx, response)))
        .await
    {
        Err(_) => Err(state.fail(out_of_patience(job))),
        Ok(Err(CallError::Bad(e))) => Err(state.fail(Cause::BadResponse(e))),
        Ok(Err(CallError::Stream(e))) => Err(state.fail(cause_of(&e))),
        Ok(Ok(body)) => {
            answered(state);
            let Some(body) = body else { return Ok(None) };
            let length = match job.head.method {
                // It is that of another response.
                Method::Head => None,
                _ => declared(&response.fields),
            };
            Ok(Some(Incoming::passing(body, length)))
        }
    }
}

/// Something of a response has come.
fn answered(state: &State) {
    state.reached(Progress::Answered);
    if state.first_byte.get().is_none() {
        state.first_byte.set(Some(Instant::now()));
    }
}

fn out_of_patience(job: &Job<'_>) -> Cause {
    match job.out_of_patience {
        OutOfPatience::ResponseTimeout => Cause::ResponseTimeout,
        OutOfPatience::TryTimeout => Cause::TryTimeout,
    }
}

/// Why the backend sends no more.
fn broken(why: Broken, state: &State) -> Failure {
    state.fail(match why {
        Broken::Closed | Broken::Io(_) => Cause::UpstreamClosed,
        Broken::Reset(e) => cause_of(&e),
        Broken::Bad(e) => Cause::ResponseBody(e),
    })
}

/// What the end of a stream to a backend means.
pub(super) fn cause_of(error: &h2::Error) -> Cause {
    let reason = error.reason();
    match reason {
        // RFC 9113 §8.7, §6.8: of a connection that ends, only the streams end that were not taken.
        Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => Cause::Refused,
        Some(_) if error.is_go_away() && error.is_remote() => Cause::Refused,
        Some(reason) if error.is_reset() && error.is_remote() => Cause::UpstreamReset(reason),
        Some(_) => Cause::BadResponse(BadResponse("not as HTTP/2 wants it")),
        None => Cause::UpstreamClosed,
    }
}

fn unwritten(error: WriteError, state: &State) -> Failure {
    state.fail(match error {
        WriteError::Io(e) if e.get_ref().is_some_and(|e| e.is::<h2::Error>()) => Cause::ClientReset,
        WriteError::Io(e) => Cause::ClientIo(e),
        WriteError::Stalled => Cause::ClientStalled,
    })
}

fn bad(state: &State, what: &'static str) -> Failure {
    state.fail(Cause::BadResponse(BadResponse(what)))
}
