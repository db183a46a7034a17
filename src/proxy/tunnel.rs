//! A connection that has switched protocols: bytes in both directions, whatever they mean.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::account::Account;
use super::connection::Serving;
use super::drain::{Phase, Withdrawal};
use super::exchange::Tunnel;
use super::failure::{Cause, Failure, Progress};
use super::forward;
use super::request::Next;
use crate::http::body::BodyFraming;
use crate::http::h1::encode::{self, ConnectionField};
use crate::io::relay::{self, End, Relayed, relay};

impl Serving<'_> {
    /// Passes the backend's 101 on, and from then on whatever comes, until both sides are done.
    pub(super) async fn tunnel(
        &mut self,
        mut tunnel: Tunnel,
        token: &str,
        idle: Duration,
        account: &mut Account,
    ) -> Next {
        forward::rewrite_response(self.response);
        forward::push_upgrade(&mut self.response.fields, token);
        let mut out = self.worker.buffers.output();
        let (framing, connection) = (BodyFraming::None, ConnectionField::Upgrade);
        encode::response_head(self.response, framing, connection, &mut out.bytes);
        account.status = 101;
        let written = self.io.write_all(&out.bytes, &[], self.writing).await;
        drop(out);
        if written.is_err() {
            return Next::Abort;
        }
        let moved = Relayed::default();
        let first = End {
            io: self.io,
            inbox: self.inbox,
            pace: self.writing,
        };
        let second = End {
            io: &tunnel.upstream,
            inbox: &mut tunnel.inbox,
            pace: self.pushing,
        };
        let ended = {
            let relayed = relay(first, second, self.timer, idle, &moved);
            let mut relayed = std::pin::pin!(relayed);
            let streams = self.worker.shared.config.drain.streams;
            let withdrawal = Withdrawal::watch(&tunnel.backend, streams, self.watch);
            poll_fn(|cx| match relayed.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending
                    if self.worker.shared.drain.phase() >= Phase::CutAll
                        || withdrawal.poll_over(cx) =>
                {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        account.received = moved.forth.get();
        account.sent = moved.back.get();
        let cause = match ended {
            Some(relay::Ended::Closed) => None,
            Some(relay::Ended::First) => Some(Cause::ClientClosed),
            Some(relay::Ended::Second) => Some(Cause::UpstreamClosed),
            Some(relay::Ended::Idle) => Some(Cause::StreamIdle),
            None => Some(Cause::Drained),
        };
        account.failure = cause.map(|c| Failure::new(c, Progress::Forwarded).meaning());
        Next::Abort
    }
}
