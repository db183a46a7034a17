//! What a plain client is told that is not taken in, and for how long.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::io::deadline::Deadlines;
use crate::proxy::limits::Refused;

/// Clients that may be told so at once by one worker; others are closed without a word. Each holds a
/// descriptor for as long as it is told.
const REFUSALS: usize = 64;

/// How long a client that is refused may take to read why, and what it sends is read meanwhile: a
/// connection that is closed with bytes unread is reset, and the response with it (RFC 9112 §9.6).
const REFUSAL: Duration = Duration::from_secs(1);

/// Reads of what a client has sent that is refused at once: 64 KiB, more than a request without a
/// body has.
const READS: usize = 16;

/// The refusals of one worker.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// One more for each that is under way.
    under_way: Rc<()>,
}

impl Refusals {
    /// Tells a plain client why it is not taken in.
    pub(super) fn tell(&self, why: Refused, mut stream: TcpStream, deadlines: &Rc<Deadlines>) {
        if Rc::strong_count(&self.under_way) > REFUSALS {
            return;
        }
        let (timer, counted) = (deadlines.timer(), Rc::clone(&self.under_way));
        tokio::task::spawn_local(async move {
            let told = async {
                stream.write_all(response(why).as_bytes()).await?;
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

/// Tells a plain client why it is not taken in, and closes: at once, so that nothing is held for it.
/// What it has sent by now is read, what it sends later may cost it the response.
pub(super) fn tell_at_once(why: Refused, mut stream: std::net::TcpStream) {
    use std::io::{Read, Write};
    // A send buffer that is empty takes it. Whether it listens or not, that was it.
    let _ = stream.write_all(response(why).as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 4096];
    let mut reads = 0..READS;
    while reads.next().is_some() && matches!(stream.read(&mut rest), Ok(1..)) {}
}

/// The response to whatever it asks for.
fn response(why: Refused) -> String {
    let because = match why {
        Refused::Full => "too many connections now",
        Refused::FullForClient => "too many connections from this address",
        Refused::Memory => "no memory for more connections now",
        Refused::Descriptors => "no more connections can be opened now",
    };
    let body = format!("503: {because}\n");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nServer: evenkeel\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
