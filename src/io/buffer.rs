//! Buffers that belong to a worker and are lent to a connection while it has bytes to hold.
//!
//! A read goes into a scratch buffer of the worker; only when bytes arrive does the connection
//! keep it. A connection that waits holds nothing, or just the part of a message it has so far.

use std::cell::RefCell;
use std::rc::Rc;

use super::spares::Spares;

/// Size of a scratch buffer. Larger than most messages, so that one read takes a whole one and
/// the runtime learns from the short read that the socket is empty.
///
/// What is read is what is written, so it stays below the largest packet of the loopback device
/// (65,483 octets of data over IPv4, 65,464 over IPv6), with what TLS adds to four
/// records. A write of 64 KiB is two packets there, the second of some bytes: 10 MiB then took 40 %
/// more CPU. Sidecars speak to their neighbour over loopback; elsewhere it makes no difference.
pub const SCRATCH: usize = 63 * 1024;

/// Octets of the largest packet of the loopback device, over IPv6 with time stamps.
const LOOPBACK_PACKET: usize = 65_536 - 72;

// Four records, and 29 octets that TLS 1.2 adds to each.
const _: () = assert!(SCRATCH + 4 * 29 <= LOOPBACK_PACKET);

/// Room for one write: a scratch buffer's worth and a head, each record with what TLS adds to it.
pub const OUTBOX: usize = SCRATCH + 16 * 1024;

/// One worker's spare buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    scratch: RefCell<Spares<Box<[u8]>>>,
    outboxes: RefCell<Spares<Box<[u8]>>>,
    output: RefCell<Spares<Vec<u8>>>,
}

impl BufferPool {
    /// An empty pool.
    pub fn new() -> Rc<BufferPool> {
        Rc::default()
    }

    fn take(&self) -> Box<[u8]> {
        let spare = self.scratch.borrow_mut().take();
        spare.unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
    }

    fn take_outbox(&self) -> Box<[u8]> {
        let spare = self.outboxes.borrow_mut().take();
        spare.unwrap_or_else(|| vec![0; OUTBOX].into_boxed_slice())
    }

    /// Takes a buffer of any kind back; one that was made to measure goes.
    fn put(&self, buffer: Box<[u8]>) {
        match buffer.len() {
            SCRATCH => self.scratch.borrow_mut().put(buffer),
            OUTBOX => self.outboxes.borrow_mut().put(buffer),
            _ => {}
        }
    }

    /// Lends a scratch buffer for the length of a call.
    pub fn with_scratch<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut scratch = self.take();
        let outcome = work(&mut scratch);
        self.put(scratch);
        outcome
    }

    /// An empty vector to write a message into; it comes back when the guard is dropped.
    pub fn output(self: &Rc<Self>) -> Output {
        let bytes = self.output.borrow_mut().take().unwrap_or_default();
        Output {
            bytes,
            pool: Rc::clone(self),
        }
    }

    /// Drops the spare buffers that were not needed since the last call; returns how many of the
    /// large ones that were.
    pub fn trim(&self) -> usize {
        self.output.borrow_mut().trim();
        self.scratch.borrow_mut().trim() + self.outboxes.borrow_mut().trim()
    }
}

/// A vector lent by a [`BufferPool`].
#[derive(Debug)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
    pool: Rc<BufferPool>,
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= 2 * SCRATCH {
            bytes.clear();
            self.pool.output.borrow_mut().put(bytes);
        }
    }
}

/// Bytes in a buffer that a [`BufferPool`] has lent, or in a small copy of them. Whoever holds none
/// holds no buffer.
#[derive(Debug)]
struct Held {
    pool: Rc<BufferPool>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Held {
    fn new(pool: Rc<BufferPool>) -> Held {
        Held {
            pool,
            bytes: Box::default(),
            start: 0,
            end: 0,
        }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    /// Takes `n` bytes off the front; the last one gives the buffer back.
    fn consume(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.end, "no more is taken than is held");
        if self.len() == 0 {
            self.release();
        }
    }

    /// Goes on in `buffer`, in front of which what is held has been copied already.
    fn move_to(&mut self, buffer: Box<[u8]>) {
        let held = self.len();
        self.release();
        self.bytes = buffer;
        self.end = held;
    }

    /// Exchanges a buffer of `size` bytes for a copy of what is held, if that is at most `part`.
    fn shrink(&mut self, size: usize, part: usize) {
        if self.bytes.len() == size && self.len() <= part {
            let small = self.filled().into();
            self.move_to(small);
        }
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.pool.put(bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes received and not yet used up: in a scratch buffer, or in a small copy made while waiting
/// for more.
#[derive(Debug)]
pub struct Inbox(Held);

impl Inbox {
    /// An empty inbox.
    pub fn new(pool: Rc<BufferPool>) -> Inbox {
        Inbox(Held::new(pool))
    }

    /// What was received and not consumed.
    pub fn filled(&self) -> &[u8] {
        self.0.filled()
    }

    /// The same, to be worked on in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[self.0.start..self.0.end]
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Marks `n` bytes as used up; the last one gives the buffer back.
    pub fn consume(&mut self, n: usize) {
        self.0.consume(n);
    }

    /// Calls `read` with a scratch buffer; what it says it wrote is appended. Nothing changes if
    /// it returns `None`, except that a large buffer is exchanged for a small copy.
    ///
    /// `read` is given room for at least one byte unless [`SCRATCH`] bytes are held already.
    pub fn fill_with<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Option<Result<usize, E>>,
    ) -> Option<Result<usize, E>> {
        let held = self.0.len();
        let mut scratch = self.0.pool.take();
        let outcome = read(&mut scratch[held..]);
        match outcome {
            Some(Ok(n)) if n > 0 => {
                scratch[..held].copy_from_slice(self.filled());
                self.0.move_to(scratch);
                self.0.end += n;
            }
            _ => {
                self.0.pool.put(scratch);
                self.shrink();
            }
        }
        outcome
    }

    /// Exchanges a scratch buffer that is held for a part of a message for a copy of just that.
    pub fn shrink(&mut self) {
        self.0.shrink(SCRATCH, SCRATCH / 2);
    }
}

/// Bytes to be sent that the kernel has not taken yet: in a buffer of [`OUTBOX`] bytes, or in a
/// small copy made while waiting for the peer.
#[derive(Debug)]
pub struct Outbox(Held);

impl Outbox {
    /// An empty outbox.
    pub fn new(pool: Rc<BufferPool>) -> Outbox {
        Outbox(Held::new(pool))
    }

    /// What waits to be sent.
    pub fn filled(&self) -> &[u8] {
        self.0.filled()
    }

    /// Bytes that wait to be sent.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Marks `n` bytes as sent; the last one gives the buffer back.
    pub fn consume(&mut self, n: usize) {
        self.0.consume(n);
    }

    /// Calls `write` with room for all that [`OUTBOX`] leaves; what it says it wrote is appended.
    pub fn append_with<E>(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let held = &mut self.0;
        if held.bytes.len() != OUTBOX || held.start > 0 {
            let mut large = held.pool.take_outbox();
            large[..held.len()].copy_from_slice(held.filled());
            held.move_to(large);
        }
        let outcome = write(&mut held.bytes[held.end..]);
        if let Ok(n) = outcome {
            held.end += n;
        }
        if held.len() == 0 {
            held.release();
        }
        outcome
    }

    /// The peer takes no more for now: a large buffer is exchanged for a copy of a small rest.
    pub fn shrink(&mut self) {
        self.0.shrink(OUTBOX, OUTBOX / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(inbox: &mut Inbox, bytes: &[u8]) {
        let n = inbox.fill_with(|room| {
            room[..bytes.len()].copy_from_slice(bytes);
            Some(Ok::<_, ()>(bytes.len()))
        });
        assert_eq!(n, Some(Ok(bytes.len())));
    }

    #[test]
    fn what_is_left_over_stays_in_front_of_what_comes() {
        let pool = BufferPool::new();
        let mut inbox = Inbox::new(Rc::clone(&pool));
        give(&mut inbox, b"abcdef");
        inbox.consume(4);
        give(&mut inbox, b"gh");
        assert_eq!(inbox.filled(), b"efgh");
        inbox.consume(4);
        assert!(inbox.is_empty());
        assert_eq!(inbox.0.bytes.len(), 0, "an empty inbox holds no buffer");
        assert!(!pool.scratch.borrow().is_empty());
    }

    #[test]
    fn a_read_that_must_wait_leaves_only_a_small_copy() {
        let mut inbox = Inbox::new(BufferPool::new());
        give(&mut inbox, b"part of a head");
        assert!(inbox.fill_with(|_| None::<Result<usize, ()>>).is_none());
        assert_eq!(inbox.0.bytes.len(), 14);
        give(&mut inbox, b", rest");
        assert_eq!(inbox.filled(), b"part of a head, rest");
    }

    #[test]
    fn an_outbox_holds_a_buffer_only_while_there_is_something_to_send() {
        let pool = BufferPool::new();
        let mut outbox = Outbox::new(Rc::clone(&pool));
        let append = |outbox: &mut Outbox, bytes: &[u8]| {
            let n = outbox.append_with(|room| {
                room[..bytes.len()].copy_from_slice(bytes);
                Ok::<_, ()>(bytes.len())
            });
            assert_eq!(n, Ok(bytes.len()));
        };
        append(&mut outbox, b"abcdef");
        outbox.consume(2);
        outbox.shrink();
        assert_eq!(outbox.0.bytes.len(), 4, "a small rest is a small copy");
        append(&mut outbox, b"gh");
        assert_eq!(outbox.filled(), b"cdefgh");
        outbox.consume(6);
        assert_eq!(outbox.append_with(|_| Err(7)), Err(7));
        assert_eq!(outbox.0.bytes.len(), 0, "an empty outbox holds no buffer");
        assert_eq!(pool.outboxes.borrow().len(), 1, "it is used again");
    }

    #[test]
    fn output_comes_back_empty() {
        let pool = BufferPool::new();
        let mut out = pool.output();
        out.bytes.extend_from_slice(b"x");
        drop(out);
        assert_eq!(pool.output.borrow().len(), 1);
        assert!(pool.output().bytes.is_empty());
    }
}
