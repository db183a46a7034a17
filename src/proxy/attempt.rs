//! One attempt at a request with one backend: both directions copied at once.
//!
//! Two futures of one task: `send` writes head and body to the backend, `receive` reads its
//! response and writes it to the client. The attempt is over when the response is; a response
//! that comes before the request body is done is delivered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::drain::{Phase, Withdrawal};
use super::failure::{Cause, Failure, Progress, Side};
use super::forward;
use super::job::{Client, Done, Job, OutOfPatience, State};
use super::recode::{Recode, TRAILERS, gather, joined};
use super::worker::Worker;
use crate::http::body::{BodyFraming, response_framing, response_keeps_alive};
use crate::http::h1::body::{BodyDecoder, encode_last_chunk};
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{BadResponse, ResponseHead, Version};
use crate::http::headers::Fields;
use crate::io::buffer::Inbox;
use crate::io::deadline::Timer;
use crate::io::duplex::{Duplex, WriteError};
use crate::io::pace::Pace;

/// Bounds of a backend's response head: twice what a client may send, and within one buffer.
const RESPONSE_HEAD: HeadLimits = HeadLimits {
    bytes: 60 * 1024,
    fields: 256,
};

/// Interim responses that one request may be given.
const INTERIM: u32 = 64;

/// A write to the backend failed: so long for the response that it may have sent before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Makes one attempt. `timer` and `pushing` (patience with the backend's receiving) are lent;
/// `withdrawal` ends it when its backend has been gone for too long.
pub async fn attempt(
    worker: &Rc<Worker>,
    job: Job<'_>,
    client: Client<'_>,
    upstream: &Duplex,
    (timer, pushing, withdrawal): (&Timer, &mut Pace, &Withdrawal<'_>),
    response: &mut ResponseHead,
    state: &State,
) -> Result<Done, Failure> {
    let Client {
        io,
        inbox,
        reading,
        writing,
    } = client;
    timer.set(job.patience);
    let sent_before = pushing.moved();
    let outcome = {
        let mut send = pin!(send(
            worker,
            job,
            (io, inbox, reading),
            (upstream, &mut *pushing),
            timer,
            state
        ));
        let mut receive = pin!(receive(
            worker,
            job,
            (io, writing),
            upstream,
            timer,
            response,
            state
        ));
        let mut sending = true;
        let mut cut_off = None;
        poll_fn(|cx| {
            if sending && let Poll::Ready(outcome) = send.as_mut().poll(cx) {
                sending = false;
                match outcome {
                    Ok(()) => state.request_done.set(true),
                    Err(failure)
                        if failure.meaning().side == Side::Upstream
                            && failure.progress > Progress::NothingSent =>
                    {
                        // It may have answered before it stopped listening.
                        if state.status.get() == 0 {
                            timer.set(LAST_WORDS);
                            cut_off = Some(failure);
                        }
                    }
                    Err(failure) => return Poll::Ready(Err(failure)),
                }
            }
            if let Poll::Ready(outcome) = receive.as_mut().poll(cx) {
                return Poll::Ready(match (outcome, cut_off.take()) {
                    // It had no last words: what ended it is that it stopped listening.
                    (Err(late), Some(cut_off))
                        if matches!(late.cause, Cause::ResponseTimeout | Cause::TryTimeout) =>
                    {
                        Err(cut_off)
                    }
                    (outcome, _) => outcome,
                });
            }
            let drain = &worker.shared.drain;
            let phase = drain.phase();
            let is_cut = phase >= Phase::CutAll
                || (phase >= Phase::CutRequests && state.progress.get() < Progress::Forwarded);
            if is_cut {
                drain.cut();
            }
            if is_cut || withdrawal.poll_over(cx) {
                return Poll::Ready(Err(state.fail(Cause::Drained)));
            }
            if let Some(watched) = job.watched {
                watched.look_at_trial(worker, state);
            }
            Poll::Pending
        })
        .await
    };
    timer.clear();
    if pushing.moved() > sent_before {
        // A write that was cut short had sent something all the same.
        state.reached(Progress::Sent);
    }
    outcome.map_err(|failure| Failure {
        progress: failure.progress.max(state.progress.get()),
        ..failure
    })
}

/// Writes the request to the backend: the head together with what there is of the body, then the
/// rest as it comes.
async fn send(
    worker: &Rc<Worker>,
    job: Job<'_>,
    (client, inbox, reading): (&Duplex, &mut Inbox, &mut Pace),
    (upstream, pushing): (&Duplex, &mut Pace),
    timer: &Timer,
    state: &State,
) -> Result<(), Failure> {
    let mut body = BodyDecoder::new(job.framing, TRAILERS).barring(job.nominated.clone());
    let recode = match job.framing {
        BodyFraming::Chunked => Recode::Chunk,
        _ => Recode::Direct,
    };
    let connection = match job.upgrade {
        Some(_) => ConnectionField::Upgrade,
        None => ConnectionField::None,
    };
    let mut first = true;
    loop {
        {
            let mut out = worker.buffers.output();
            if first {
                encode::request_head(job.head, job.framing, connection, &mut out.bytes);
            }
            let gathered = gather(&mut body, inbox.filled(), recode, &mut out.bytes)
                .map_err(|e| state.fail(Cause::RequestBody(e)))?;
            state.received.set(state.received.get() + gathered.data);
            if state.received.get() > job.max_body {
                return Err(state.fail(Cause::BodyTooLarge));
            }
            let direct = joined(&mut out.bytes, &inbox.filled()[gathered.direct.clone()]);
            if !out.bytes.is_empty() || !direct.is_empty() {
                let before = pushing.moved();
                let outcome = upstream.write_all(&out.bytes, direct, pushing).await;
                if pushing.moved() > before {
                    state.reached(Progress::Sent);
                }
                outcome.map_err(|e| match e {
                    WriteError::Io(_) => state.fail(Cause::UpstreamClosed),
                    WriteError::Stalled => state.fail(Cause::UpstreamStalled),
                })?;
            }
            if body.is_done() && first {
                // The inbox keeps the body until the response has come: it may be sent again.
                state.used.set(gathered.used);
                return Ok(());
            }
            if gathered.used > 0 {
                state.consumed.set(true);
                inbox.consume(gathered.used);
            }
            first = false;
        }
        if body.is_done() {
            timer.set(job.patience);
            return Ok(());
        }
        let awaits_continue =
            job.expects_continue && !state.consumed.get() && !state.continued.get();
        timer.set(match state.status.get() {
            // The backend is to say that it wants the body.
            0 if awaits_continue => job.patience,
            // It is the client whom everybody waits for: `reading` is the clock for that.
            0 => job.limits.body_timeout.saturating_add(job.patience),
            _ => job.limits.stream_idle,
        });
        let n = poll_fn(|cx| match client.poll_fill(cx, inbox) {
            Poll::Ready(outcome) => {
                Poll::Ready(outcome.map_err(|e| state.fail(Cause::ClientIo(e))))
            }
            // Whoever waits for our 100, or reads a response, need not send.
            Poll::Pending
                if state.progress.get() == Progress::Forwarded
                    || (job.expects_continue
                        && !state.consumed.get()
                        && !state.continued.get()) =>
            {
                reading.stop();
                Poll::Pending
            }
            Poll::Pending => reading
                .poll_wait(cx)
                .map(|_| Err(state.fail(Cause::ClientStalled))),
        })
        .await?;
        if n == 0 {
            return Err(state.fail(Cause::ClientClosed));
        }
        reading.progress(n);
        if state.status.get() == 0 {
            timer.set(job.patience);
        }
    }
}

/// Reads the backend's response and writes it to the client.
async fn receive(
    worker: &Rc<Worker>,
    job: Job<'_>,
    (client, writing): (&Duplex, &mut Pace),
    upstream: &Duplex,
    timer: &Timer,
    response: &mut ResponseHead,
    state: &State,
) -> Result<Done, Failure> {
    let mut inbox = Inbox::new(Rc::clone(&worker.buffers));
    let mut interim = 0;
    loop {
        read_head(upstream, &mut inbox, (timer, job), response, state).await?;
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
                    return match job.upgrade {
                        Some(token) if forward::switches_to(response, token) => {
                            forward::push_cookie(&mut response.fields, job.cookie);
                            Ok(Done::Switched(inbox))
                        }
                        Some(_) => Err(bad(state, "101 to another protocol")),
                        None => Err(bad(state, "101 although no upgrade was asked for")),
                    };
                }
                interim += 1;
                if interim > INTERIM {
                    return Err(bad(state, "too many interim responses"));
                }
                // RFC 9110 §15.2: never to an HTTP/1.0 client.
                if job.head.version != Version::Http10 {
                    let mut out = worker.buffers.output();
                    forward::rewrite_response(response);
                    let (framing, connection) = (BodyFraming::None, ConnectionField::None);
                    encode::response_head(response, framing, connection, &mut out.bytes);
                    // Once it is written a final response may still follow from whoever sends
                    // one; while it is half written none can.
                    let reached = state.progress.replace(Progress::Forwarded);
                    write(client, &out.bytes, &[], writing, state).await?;
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
    let framing = response_framing(job.head.method, response)
        .map_err(|e| state.fail(Cause::BadResponse(e)))?;
    let (framing_out, recode) = match (framing, job.head.version) {
        (BodyFraming::Chunked, Version::Http10) => (BodyFraming::UntilClose, Recode::Unchunk),
        (BodyFraming::UntilClose, Version::Http10) => (BodyFraming::UntilClose, Recode::Direct),
        (BodyFraming::Chunked | BodyFraming::UntilClose, _) => {
            (BodyFraming::Chunked, Recode::Chunk)
        }
        (framing, _) => (framing, Recode::Direct),
    };
    let upstream_keeps = response_keeps_alive(response) && framing != BodyFraming::UntilClose;
    let client_keeps = job.keep_alive
        && state.request_done.get()
        && framing_out != BodyFraming::UntilClose
        && worker.shared.drain.phase() < Phase::Closing;
    let connection = match (client_keeps, job.head.version) {
        (false, _) => ConnectionField::Close,
        (true, Version::Http10) => ConnectionField::KeepAlive,
        (true, _) => ConnectionField::None,
    };
    let nominated = forward::nominated(framing, &response.fields);
    forward::rewrite_response(response);
    forward::push_cookie(&mut response.fields, job.cookie);

    let mut body = BodyDecoder::new(framing, TRAILERS).barring(nominated);
    let mut first = true;
    loop {
        {
            let mut out = worker.buffers.output();
            if first {
                encode::response_head(response, framing_out, connection, &mut out.bytes);
            }
            let gathered = gather(&mut body, inbox.filled(), recode, &mut out.bytes)
                .map_err(|e| state.fail(Cause::ResponseBody(e)))?;
            let direct = joined(&mut out.bytes, &inbox.filled()[gathered.direct.clone()]);
            if !out.bytes.is_empty() || !direct.is_empty() {
                state.reached(Progress::Forwarded);
                state.status.set(response.status);
                state
                    .until_close
                    .set(framing_out == BodyFraming::UntilClose);
                write(client, &out.bytes, direct, writing, state).await?;
                state.sent.set(state.sent.get() + gathered.data);
            }
            inbox.consume(gathered.used);
            first = false;
        }
        if body.is_done() {
            break;
        }
        timer.set(job.limits.stream_idle);
        match timer.guard(upstream.fill(&mut inbox)).await {
            Err(_) => return Err(state.fail(Cause::StreamIdle)),
            Ok(Err(_)) => return Err(state.fail(Cause::UpstreamClosed)),
            Ok(Ok(0)) if body.closed() => {
                if recode == Recode::Chunk {
                    let mut out = worker.buffers.output();
                    encode_last_chunk(&Fields::default(), &mut out.bytes);
                    write(client, &out.bytes, &[], writing, state).await?;
                }
                break;
            }
            Ok(Ok(0)) => return Err(state.fail(Cause::UpstreamClosed)),
            Ok(Ok(_)) => {}
        }
    }
    Ok(Done::Answered {
        client_keeps,
        upstream_keeps: upstream_keeps && state.request_done.get() && inbox.is_empty(),
    })
}

/// Reads one response head off the front of `inbox`, filling it as needed.
async fn read_head(
    upstream: &Duplex,
    inbox: &mut Inbox,
    (timer, job): (&Timer, Job<'_>),
    response: &mut ResponseHead,
    state: &State,
) -> Result<(), Failure> {
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
            Err(_) => {
                return Err(state.fail(match job.out_of_patience {
                    OutOfPatience::ResponseTimeout => Cause::ResponseTimeout,
                    OutOfPatience::TryTimeout => Cause::TryTimeout,
                }));
            }
            Ok(Err(_) | Ok(0)) => return Err(state.fail(Cause::UpstreamClosed)),
            Ok(Ok(_)) => {
                state.reached(Progress::Answered);
                if state.first_byte.get().is_none() {
                    state.first_byte.set(Some(Instant::now()));
                }
            }
        }
    }
}

async fn write(
    client: &Duplex,
    first: &[u8],
    second: &[u8],
    pace: &mut Pace,
    state: &State,
) -> Result<(), Failure> {
    client
        .write_all(first, second, pace)
        .await
        .map_err(|e| match e {
            WriteError::Io(e) => state.fail(Cause::ClientIo(e)),
            WriteError::Stalled => state.fail(Cause::ClientStalled),
        })
}

fn bad(state: &State, what: &'static str) -> Failure {
    state.fail(Cause::BadResponse(BadResponse(what)))
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
