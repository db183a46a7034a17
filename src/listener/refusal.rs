//! What a plain client is told that is not taken in, and for how long.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::io::deadline::Deadlines;

/// What a plain client is told when there are as many connections as there may be.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: evenkeel\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\nRetry-After: 1\r\n\
    Connection: close\r\n\r\n503: too many connections now\n";

/// Clients that may be told so at once by one worker; others are closed without a word. Each holds a
/// descriptor for as long as it is told.
const REFUSALS: usize = 64;

/// How long a client that is refused may take to read why, and what it sends is read meanwhile: a
/// connection that is closed with bytes unread is reset, and the response with it (RFC 9112 §9.6).
const REFUSAL: Duration = Duration::from_secs(1);

/// The refusals of one worker.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// One more for each that is under way.
    under_way: Rc<()>,
}

impl Refusals {
    /// Tells a plain client that there are too many.
    pub(super) fn tell(&self, mut stream: TcpStream, deadlines: &Rc<Deadlines>) {
        if Rc::strong_count(&self.under_way) > REFUSALS {
            return;
        }
        let (timer, counted) = (deadlines.timer(), Rc::clone(&self.under_way));
        tokio::task::spawn_local(async move {
            let told = async {
                stream.write_all(FULL).await?;
                stream.shutdown().await?;
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            // Whether it listened or not, that was it.
            let _ = timer.limit(REFUSAL, told).await;
            drop(counted);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_response_tells_its_length() {
        let text = std::str::from_utf8(FULL).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("it has a head");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
    }
}
