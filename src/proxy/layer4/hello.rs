//! The two ends of a connection that leads nowhere, or not yet: the ClientHello that is waited for, and
//! what a client is told that is not passed on.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Stream;
use crate::io::duplex::Duplex;
use crate::io::pace::{Pace, Patience};
use crate::io::transport::Transport;
use crate::proxy::drain::Phase;
use crate::proxy::failure::{Cause, Failure};
use crate::tls::client_hello::{ClientHello, Refused, client_hello};

/// A client that is told why it is not passed on may take so long to hear it, and what it sends is
/// read meanwhile, up to so much: a connection that is closed with bytes unread is reset, and the alert
/// with it.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LAST_BYTES: usize = 64 * 1024;

impl Stream {
    /// Reads what the client says in the open. It stays in the inbox, to be passed on.
    pub(super) async fn read_hello(
        &mut self,
        client: &mut Transport,
    ) -> Result<ClientHello, Cause> {
        let (worker, inbox) = (&self.worker, &mut self.inbox);
        let drain = &worker.shared.drain;
        let timer = worker.deadlines.timer();
        let wait = worker.shared.config.downstream.handshake_timeout;
        timer.set(wait);
        loop {
            match client_hello(inbox.filled()) {
                Ok(Some(hello)) => return Ok(hello),
                Ok(None) => {}
                Err(refused) => return Err(Cause::BadHello(refused)),
            }
            let silent = inbox.is_empty();
            let read = poll_fn(|cx| {
                let outcome = inbox.fill_with(|room| match client.poll_read(cx, room) {
                    Poll::Ready(outcome) => Some(outcome),
                    Poll::Pending => None,
                });
                if let Some(outcome) = outcome {
                    return Poll::Ready(outcome.map_err(Cause::ClientIo));
                }
                let phase = drain.phase();
                if phase >= Phase::CutRequests {
                    drain.cut();
                }
                if phase >= Phase::CutRequests || (silent && phase >= Phase::ClosingIdle) {
                    return Poll::Ready(Err(Cause::Drained));
                }
                if silent && worker.sheds(|| wait.saturating_sub(timer.left())) {
                    return Poll::Ready(Err(Cause::Shed));
                }
                timer.poll_expired(cx).map(|_| Err(Cause::ClientStalled))
            });
            if read.await? == 0 {
                return Err(Cause::ClientClosed);
            }
        }
    }

    /// Tells a client that its connection leads nowhere, as far as there are words for it.
    pub(super) async fn turn_away(&mut self, client: &Duplex, failure: &Failure) {
        let Some(alert) = alert(&failure.cause) else {
            // What it takes for an answer is none.
            client.reset_on_close();
            return;
        };
        let deadlines = &self.worker.deadlines;
        let patience = Patience {
            stall: LAST_WORDS,
            min_rate: 0,
        };
        let mut pace = Pace::new(deadlines.timer(), patience);
        let inbox = &mut self.inbox;
        // A full inbox would leave no room to read into.
        inbox.consume(inbox.filled().len());
        let said = async {
            let fatal = [ALERT, 3, 1, 0, 2, FATAL, alert];
            if client.write_all(&fatal, &[], &mut pace).await.is_err()
                || client.shutdown().await.is_err()
            {
                return;
            }
            let mut taken = 0;
            while let Ok(n @ 1..) = client.fill(inbox).await {
                inbox.consume(inbox.filled().len());
                taken += n;
                if taken > LAST_BYTES {
                    return;
                }
            }
        };
        // Whether it listened or not, that was it.
        let _ = deadlines.timer().limit(LAST_WORDS, said).await;
    }
}

/// The alert that says so (RFC 8446 §6.2); `None`: its client does not speak TLS, or is gone, or it is
/// nothing that an alert could say.
fn alert(cause: &Cause) -> Option<u8> {
    match cause {
        Cause::BadHello(Refused::NotTls) => None,
        Cause::BadHello(Refused::TooLong | Refused::Malformed(_)) => Some(DECODE_ERROR),
        Cause::NoRoute => Some(UNRECOGNIZED_NAME),
        _ => None,
    }
}

/// RFC 8446 §5.1 and §6.
const ALERT: u8 = 21;
const FATAL: u8 = 2;
const DECODE_ERROR: u8 = 50;
const UNRECOGNIZED_NAME: u8 = 112;
