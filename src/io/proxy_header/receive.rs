//! Takes a PROXY header off a connection, and not a byte more.
//!
//! What comes behind the header (a TLS hello, the head of a request) stays with the kernel, so that
//! whoever reads next reads as if there had been none. Called by whatever accepts connections.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::decode::{self, BadHeader, Header, MOST};
use crate::io::deadline::Timer;

/// Why a connection has no PROXY header.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NoHeader {
    #[error(transparent)]
    Bad(#[from] BadHeader),
    #[error("PROXY header: not there in time")]
    Late,
    /// Not a byte came, as when somebody looks whether the port is open.
    #[error("closed without a PROXY header")]
    Closed,
    #[error("closed within a PROXY header")]
    Cut,
    #[error("PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header, which has to be whole after `wait` at the latest, however slowly it comes.
/// When the future is dropped, what it has read is lost.
pub async fn receive(
    stream: &TcpStream,
    timer: &Timer,
    wait: Duration,
) -> Result<Header, NoHeader> {
    match timer.limit(wait, take(stream)).await {
        Ok(taken) => taken,
        Err(_) => Err(NoHeader::Late),
    }
}

/// Looks at what has come, then takes what belongs to the header: usually all of it at once, with
/// two system calls.
async fn take(stream: &TcpStream) -> Result<Header, NoHeader> {
    let mut header = Vec::new();
    loop {
        let held = header.len();
        // An incomplete header is shorter than MOST.
        header.resize((held + STEP).min(MOST), 0);
        let mut room = ReadBuf::new(&mut header[held..]);
        let seen = poll_fn(|cx| stream.poll_peek(cx, &mut room)).await?;
        if seen == 0 {
            return Err(match held {
                0 => NoHeader::Closed,
                _ => NoHeader::Cut,
            });
        }
        header.truncate(held + seen);
        let whole = decode::header(&header)?;
        let length = whole.map_or(header.len(), |whole| whole.length);
        consume(stream, &mut header[held..length])?;
        if let Some(whole) = whole {
            return Ok(whole);
        }
    }
}

/// Reads what was seen to be there.
fn consume(stream: &TcpStream, mut room: &mut [u8]) -> Result<(), NoHeader> {
    while !room.is_empty() {
        match stream.try_read(room)? {
            0 => return Err(NoHeader::Cut),
            n => room = &mut room[n..],
        }
    }
    Ok(())
}

/// Bytes that are looked at first, and each time more: a header without large TLVs.
const STEP: usize = 512;

#[cfg(test)]
mod tests;
