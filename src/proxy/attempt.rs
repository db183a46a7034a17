//! One attempt at a request with one backend: both directions copied at once.
//!
//! Two futures of one task: `send` writes head and body to the backend, `receive` (in `answer.rs`)
//! reads its response and writes it to the client. The attempt is over when the response is; a response
//! that comes before the request body is done is delivered. Either side is a connection of HTTP/1.1 or
//! a stream of HTTP/2: `source.rs` and `sink.rs` know which.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::answer::{Answering, receive};
use super::drain::{Phase, Withdrawal};
use super::failure::{Cause, Failure, Progress, Side};
use super::job::{Client, Done, Downstream, Job, State, Upstream};
use super::recode::TRAILERS;
use super::sink::Sink;
use super::source::{Broken, Source};
use super::worker::Worker;
use crate::http::body::BodyFraming;
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::head::ResponseHead;
use crate::io::deadline::Timer;
use crate::io::duplex::WriteError;
use crate::io::pace::Pace;

/// A write to the backend failed: so long for the response that it may have sent before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Makes one attempt. `timer` and `pushing` (patience with the backend's receiving) are lent;
/// `withdrawal` ends it when its backend has been gone for too long.
pub async fn attempt(
    worker: &Rc<Worker>,
    job: &Job<'_>,
    client: Client<'_>,
    upstream: &Upstream,
    (timer, pushing, withdrawal): (&Timer, &mut Pace, &Withdrawal<'_>),
    response: &mut ResponseHead,
    state: &State,
) -> Result<Done, Failure> {
    let Client {
        mut over,
        reading,
        writing,
    } = client;
    timer.set(job.patience);
    let sent_before = pushing.moved();
    let leaving = over.leaving();
    let is_copy = matches!(over, Downstream::Copy(_));
    let outcome = {
        let (source, back) = match over.again() {
            Downstream::H1 { io, inbox } => {
                let body = BodyDecoder::new(job.framing, TRAILERS).barring(job.nominated.clone());
                (Source::h1(io, inbox, body), Sink::H1(io))
            }
            // What comes then is for the tunnel, or for the request that is asked about.
            Downstream::H2 { outgoing, .. } if job.upgrade.is_some() || job.asks_for.is_some() => {
                (Source::Nothing, Sink::H2(outgoing))
            }
            Downstream::H2 { incoming, outgoing } => {
                incoming.rewind();
                (Source::H2(incoming), Sink::H2(outgoing))
            }
            Downstream::Copy(copied) => (copied.source(), Sink::Nowhere(copied)),
        };
        let forth = match upstream {
            Upstream::H1(io) => Sink::H1(io),
            Upstream::H2(call) => {
                state.reached(Progress::Sent);
                Sink::H2(&call.outgoing)
            }
        };
        let mut send = pin!(send(
            worker,
            job,
            (source, reading),
            (forth, &mut *pushing),
            timer,
            state
        ));
        let answering = Answering {
            worker,
            job,
            client: back,
            timer,
            state,
        };
        let mut receive = pin!(receive(answering, writing, upstream, response));
        let mut sending = true;
        let mut cut_off = None;
        poll_fn(|cx| {
            // First: it is no deadline of the backend's.
            if job
                .deadline
                .is_some_and(|end| end.poll_expired(cx).is_ready())
            {
                return Poll::Ready(Err(state.fail(Cause::CallDeadline)));
            }
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
            if is_cut && !is_copy {
                drain.cut();
            }
            if is_cut || withdrawal.poll_over(cx) {
                return Poll::Ready(Err(state.fail(Cause::Drained)));
            }
            if leaving.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(state.fail(Cause::ClientReset)));
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
/// rest as it comes. Over HTTP/2 the head has been sent already.
async fn send(
    worker: &Rc<Worker>,
    job: &Job<'_>,
    (mut source, reading): (Source<'_>, &mut Pace),
    (sink, pushing): (Sink<'_>, &mut Pace),
    timer: &Timer,
    state: &State,
) -> Result<(), Failure> {
    let recode = sink.recode(&source, job.framing, job.framing);
    let connection = match job.upgrade {
        Some(_) => ConnectionField::Upgrade,
        None => ConnectionField::None,
    };
    let mut first = true;
    if let Some(copying) = job.copying {
        copying.begin();
    }
    // The head of a request without a body has ended its stream.
    let has_ended = matches!(sink, Sink::H2(_)) && ends_with_head(job);
    loop {
        {
            let mut out = worker.buffers.output();
            if first && matches!(sink, Sink::H1(_)) {
                encode::request_head(job.head, job.framing, connection, &mut out.bytes);
            }
            let lot = source
                .gather(recode, &mut out.bytes, job.copying)
                .map_err(|e| state.fail(Cause::RequestBody(e)))?;
            state.received.set(state.received.get() + lot.data);
            if state.received.get() > job.max_body {
                return Err(state.fail(Cause::BodyTooLarge));
            }
            let is_done = source.is_done();
            let piece = source.piece(&lot);
            let ends_stream = is_done && matches!(sink, Sink::H2(_)) && !has_ended;
            if !out.bytes.is_empty() || !piece.is_empty() || ends_stream {
                let end = source.trailers().filter(|_| ends_stream);
                let before = pushing.moved();
                let outcome = sink.write(&mut out.bytes, piece, end, pushing).await;
                if pushing.moved() > before {
                    state.reached(Progress::Sent);
                }
                outcome.map_err(|e| match e {
                    WriteError::Io(_) => state.fail(Cause::UpstreamClosed),
                    WriteError::Stalled => state.fail(Cause::UpstreamStalled),
                })?;
            }
            if is_done && first {
                // The inbox keeps the body until the response has come: it may be sent again.
                state.used.set(lot.used);
                copied(job);
                return Ok(());
            }
            if source.went_on(&lot) {
                state.consumed.set(true);
            }
            first = false;
        }
        if source.is_done() {
            timer.set(job.patience);
            copied(job);
            return Ok(());
        }
        let awaits_continue =
            job.expects_continue && !state.consumed.get() && !state.continued.get();
        timer.set(match state.status.get() {
            // The backend is to say that it wants the body.
            0 if awaits_continue => job.patience,
            // A call may be a conversation in which nobody has anything to say for long.
            0 if job.grpc => job.limits.stream_idle,
            // It is the client whom everybody waits for: `reading` is the clock for that.
            0 => job.limits.body_timeout.saturating_add(job.patience),
            _ => job.limits.stream_idle,
        });
        let n = poll_fn(|cx| match source.poll_more(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(|e| broken(e, state))),
            // Whoever waits for our 100, or reads a response, need not send. A call may be a
            // conversation, in which it is the backend's turn.
            Poll::Pending
                if state.progress.get() == Progress::Forwarded
                    || job.grpc
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
        reading.progress(n);
        if state.status.get() == 0 {
            timer.set(job.patience);
        }
    }
}

/// All of the request has gone to the backend, and into the copy of it.
fn copied(job: &Job<'_>) {
    if let Some(copying) = job.copying {
        copying.send();
    }
}

/// Is there no body?
pub(super) fn ends_with_head(job: &Job<'_>) -> bool {
    matches!(job.framing, BodyFraming::None | BodyFraming::Length(0))
}

/// Why the client sends no more.
fn broken(why: Broken, state: &State) -> Failure {
    state.fail(match why {
        Broken::Closed => Cause::ClientClosed,
        Broken::Io(e) => Cause::ClientIo(e),
        Broken::Reset(_) => Cause::ClientReset,
        Broken::Bad(e) => Cause::RequestBody(e),
    })
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
