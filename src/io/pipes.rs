//! Pipes of a worker, through which bulk goes from one socket to another without a copy (splice(2)).
//!
//! A tunnel has one only while bytes are in it or more of them are known to wait, so that few are
//! enough; where there is none to spare, or a socket cannot do it, bytes are copied instead.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::spares::Spares;

/// Pipes that a worker has at once, two descriptors each: as many tunnels carry bulk without a copy.
const MOST: usize = 16;

/// Bytes that one takes: what any user may ask for (fs.pipe-max-size). The kernel gives less to a user
/// who has many, which is as good as it is. With 64 KiB it saves a fifth of the CPU, with this half.
const SIZE: usize = 1 << 20;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub struct Pipes {
    idle: RefCell<Spares<Pipe>>,
    lent: Cell<usize>,
}

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// A pipe that is lent until it is dropped. One that is not empty then is closed.
#[derive(Debug)]
pub struct Lent<'a> {
    pool: &'a Pipes,
    pipe: Option<Pipe>,
    held: usize,
}

impl Pipes {
    /// A pipe, if there is one to spare.
    pub fn lend(&self) -> Option<Lent<'_>> {
        if self.lent.get() >= MOST {
            return None;
        }
        let idle = self.idle.borrow_mut().take();
        let pipe = idle.or_else(|| Pipe::new().ok())?;
        self.lent.set(self.lent.get() + 1);
        Some(Lent {
            pool: self,
            pipe: Some(pipe),
            held: 0,
        })
    }

    /// Closes those that were not needed since the last call.
    pub fn trim(&self) {
        self.idle.borrow_mut().trim();
    }
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // It has the usual size otherwise.
        let _ = fcntl_setpipe_size(&into, SIZE);
        Ok(Pipe { out, into })
    }
}

impl Lent<'_> {
    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what a socket has received into it, which must be empty. `Ok(0)`: nothing more comes.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let moved = match &self.pipe {
            Some(pipe) => splice(from, None, &pipe.into, None, SIZE, FLAGS)?,
            None => 0,
        };
        self.held += moved;
        Ok(moved)
    }

    /// Moves what is in it to a socket.
    pub fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let moved = match &self.pipe {
            Some(pipe) => splice(&pipe.out, None, to, None, self.held, FLAGS)?,
            None => 0,
        };
        self.held -= moved;
        Ok(moved)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        if let (0, Some(pipe)) = (self.held, self.pipe.take()) {
            self.pool.idle.borrow_mut().put(pipe);
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more() {
        let pipes = Pipes::default();
        let mut lent: Vec<_> = (0..MOST).map(|_| pipes.lend()).collect();
        assert!(lent.iter().all(Option::is_some));
        assert!(pipes.lend().is_none());
        lent.pop();
        assert!(pipes.lend().is_some());
    }

    #[test]
    fn one_that_is_not_empty_is_not_used_again() {
        use std::os::unix::net::UnixStream;
        let pipes = Pipes::default();
        let (mut here, there) = UnixStream::pair().expect("there are descriptors");
        io::Write::write_all(&mut here, b"abc").expect("it is taken");
        let mut lent = pipes.lend().expect("there is one");
        assert_eq!(lent.fill(&there).expect("it can be spliced"), 3);
        drop(lent);
        assert!(pipes.idle.borrow().is_empty());
        drop(pipes.lend());
        assert!(!pipes.idle.borrow().is_empty());
    }
}
