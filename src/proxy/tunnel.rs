//! A connection, or a stream, that has switched protocols: bytes in both directions, whatever they mean.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::account::Account;
use super::connection::Serving;
use super::drain::{Phase, Withdrawal};
use super::exchange::Tunnel;
use super::failure::{Cause, Failure, Progress};
use super::job::{Downstream, Rest, Upstream};
use super::recode::{Recode, TRAILERS};
use super::request::Next;
use super::sink::Sink;
use super::source::Source;
use super::switch::Handshake;
use crate::http::body::BodyFraming;
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h2;
use crate::http::head::BadResponse;
use crate::io::buffer::BufferPool;
use crate::io::deadline::Timer;
use crate::io::pace::Pace;

/// Where a direction of a tunnel failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Reading,
    Writing,
}

impl Serving<'_> {
    /// Passes the backend's consent on, and from then on whatever comes, until both sides are done.
    pub(super) async fn tunnel(
        &mut self,
        over: Downstream<'_>,
        mut tunnel: Tunnel,
        handshake: Handshake<'_>,
        idle: Duration,
        account: &mut Account,
    ) -> Next {
        if let Err(what) = handshake.answer(self.lent.response) {
            let failure = Failure::new(Cause::BadResponse(BadResponse(what)), Progress::Answered);
            let close = ConnectionField::Close;
            return self
                .answer_failure(&over, &failure, close, None, account)
                .await;
        }
        let leaving = over.leaving();
        account.status = self.lent.response.status;
        let framing = BodyFraming::None;
        let as_it_comes = || BodyDecoder::new(BodyFraming::UntilClose, TRAILERS);
        let (mut from_client, to_client) = match over {
            Downstream::H1 { io, inbox } => {
                let mut out = self.worker.buffers.output();
                let connection = ConnectionField::Upgrade;
                encode::response_head(self.lent.response, framing, connection, &mut out.bytes);
                let written = io.write_all(&out.bytes, &[], self.lent.writing).await;
                if written.is_err() {
                    return Next::Abort;
                }
                (Source::h1(io, inbox, as_it_comes()), Sink::H1(io))
            }
            Downstream::H2 { incoming, outgoing } => {
                let begun = h2::head::response(self.lent.response, framing)
                    .is_ok_and(|head| outgoing.begin(head, false).is_ok());
                if !begun {
                    return Next::Abort;
                }
                incoming.pass();
                (Source::H2(incoming), Sink::H2(outgoing))
            }
            Downstream::Copy(_) => unreachable!("a copy asks for no switch"),
        };
        let to_backend = match &tunnel.upstream {
            Upstream::H1(io) => Sink::H1(io),
            Upstream::H2(call) => Sink::H2(&call.outgoing),
        };
        let mut from_backend = match (&tunnel.upstream, &mut tunnel.rest) {
            (Upstream::H1(io), Rest::H1(inbox)) => Source::h1(io, inbox, as_it_comes()),
            (_, Rest::H2(incoming)) => Source::H2(incoming),
            (Upstream::H2(_), Rest::H1(_)) => Source::Nothing,
        };
        let (mut forth, mut back) = (0, 0);
        self.lent.timer.set(idle);
        let ended = {
            let buffers = &self.worker.buffers;
            let active = Active {
                timer: self.lent.timer,
                idle,
                buffers,
            };
            let pushing = &mut *self.lent.pushing;
            let writing = &mut *self.lent.writing;
            let mut sending = pin!(copy(
                &mut from_client,
                to_backend,
                pushing,
                &mut forth,
                active
            ));
            let mut receiving = pin!(copy(
                &mut from_backend,
                to_client,
                writing,
                &mut back,
                active
            ));
            let streams = self.worker.shared.config.drain.streams;
            let withdrawal = Withdrawal::watch(&tunnel.backend, streams, self.lent.watch);
            let (mut sent, mut received) = (false, false);
            poll_fn(|cx| {
                if !sent && let Poll::Ready(outcome) = sending.as_mut().poll(cx) {
                    match outcome {
                        Ok(()) => sent = true,
                        Err(Broken::Reading) => return Poll::Ready(Some(Cause::ClientClosed)),
                        Err(Broken::Writing) => return Poll::Ready(Some(Cause::UpstreamClosed)),
                    }
                }
                if !received && let Poll::Ready(outcome) = receiving.as_mut().poll(cx) {
                    match outcome {
                        Ok(()) => received = true,
                        Err(Broken::Reading) => return Poll::Ready(Some(Cause::UpstreamClosed)),
                        Err(Broken::Writing) => return Poll::Ready(Some(Cause::ClientClosed)),
                    }
                }
                if sent && received {
                    return Poll::Ready(None);
                }
                if leaving.poll_gone(cx).is_ready() {
                    return Poll::Ready(Some(Cause::ClientReset));
                }
                if self.lent.timer.poll_expired(cx).is_ready() {
                    return Poll::Ready(Some(Cause::StreamIdle));
                }
                if self.worker.shared.drain.phase() >= Phase::CutAll || withdrawal.poll_over(cx) {
                    return Poll::Ready(Some(Cause::Drained));
                }
                Poll::Pending
            })
            .await
        };
        self.lent.timer.clear();
        account.received = forth;
        account.sent = back;
        let is_whole = ended.is_none();
        account.failure = ended.map(|c| Failure::new(c, Progress::Forwarded).meaning());
        match (to_client, is_whole) {
            // Both directions of the stream have ended.
            (Sink::H2(_), true) => Next::Close,
            _ => Next::Abort,
        }
    }
}

/// What a direction of a tunnel needs to say that it moves.
#[derive(Debug, Clone, Copy)]
struct Active<'a> {
    timer: &'a Timer,
    idle: Duration,
    buffers: &'a std::rc::Rc<BufferPool>,
}

/// One direction: to the end of `from`, which is then passed on as a half-close of `to`.
async fn copy(
    from: &mut Source<'_>,
    to: Sink<'_>,
    pace: &mut Pace,
    moved: &mut u64,
    active: Active<'_>,
) -> Result<(), Broken> {
    loop {
        {
            let mut out = active.buffers.output();
            let lot = from
                .gather(Recode::Direct, &mut out.bytes, None)
                .map_err(|_| Broken::Reading)?;
            let piece = from.piece(&lot);
            if !piece.is_empty() {
                let written = to.write(&mut out.bytes, piece, None, pace).await;
                written.map_err(|_| Broken::Writing)?;
                *moved += lot.data;
                from.went_on(&lot);
                active.timer.set(active.idle);
            }
        }
        if from.is_done() {
            return to.end().await.map_err(|_| Broken::Writing);
        }
        match poll_fn(|cx| from.poll_more(cx)).await {
            Ok(0) => {}
            Ok(_) => active.timer.set(active.idle),
            Err(_) => return Err(Broken::Reading),
        }
    }
}
