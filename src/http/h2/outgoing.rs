//! What goes out on a stream: a head, data as far as the peer's window allows, trailers.
//!
//! Two futures of one task use it side by side: one writes, the other looks whether the peer has
//! reset the stream. Each borrows it for the length of a call only.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use ::h2::server::SendResponse;
use ::h2::{Error, Reason, SendStream};
use ::http::{HeaderMap, Response};
use bytes::Bytes;

/// The half of a stream that goes.
#[derive(Debug)]
pub struct Outgoing(RefCell<State>);

#[derive(Debug)]
enum State {
    /// The final response has not begun.
    Waiting(SendResponse<Bytes>),
    UnderWay(SendStream<Bytes>),
}

impl Outgoing {
    /// For the response to a request.
    pub fn response(to: SendResponse<Bytes>) -> Outgoing {
        Outgoing(RefCell::new(State::Waiting(to)))
    }

    /// For a request whose head has been sent.
    pub fn request(stream: SendStream<Bytes>) -> Outgoing {
        Outgoing(RefCell::new(State::UnderWay(stream)))
    }

    /// Sends an interim response.
    pub fn interim(&self, head: Response<()>) -> Result<(), Error> {
        match &mut *self.0.borrow_mut() {
            State::Waiting(to) => to.send_informational(head),
            State::UnderWay(_) => Ok(()),
        }
    }

    /// Sends the head of the final response; `ended`: nothing follows.
    pub fn begin(&self, head: Response<()>, ended: bool) -> Result<(), Error> {
        let mut state = self.0.borrow_mut();
        if let State::Waiting(to) = &mut *state {
            let stream = to.send_response(head, ended)?;
            *state = State::UnderWay(stream);
        }
        Ok(())
    }

    /// Has the final response begun?
    pub fn has_begun(&self) -> bool {
        matches!(*self.0.borrow(), State::UnderWay(_))
    }

    /// Asks for room for `wanted` bytes, at least one; ready with how many may go now.
    pub fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Error>> {
        let mut state = self.0.borrow_mut();
        let State::UnderWay(stream) = &mut *state else {
            return Poll::Ready(Err(Reason::INTERNAL_ERROR.into()));
        };
        stream.reserve_capacity(wanted);
        loop {
            let room = stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Err(e)),
                // It was reset, or has ended.
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            }
        }
    }

    /// Sends data for which there is room; `ended`: nothing follows.
    pub fn send(&self, data: Bytes, ended: bool) -> Result<(), Error> {
        match &mut *self.0.borrow_mut() {
            State::UnderWay(stream) => stream.send_data(data, ended),
            State::Waiting(_) => Err(Reason::INTERNAL_ERROR.into()),
        }
    }

    /// Sends trailers, which end it.
    pub fn end_with(&self, trailers: HeaderMap) -> Result<(), Error> {
        match &mut *self.0.borrow_mut() {
            State::UnderWay(stream) => stream.send_trailers(trailers),
            State::Waiting(_) => Err(Reason::INTERNAL_ERROR.into()),
        }
    }

    /// Ends the stream at once: nobody can take what was sent for the whole.
    pub fn reset(&self, reason: Reason) {
        match &mut *self.0.borrow_mut() {
            State::Waiting(to) => to.send_reset(reason),
            State::UnderWay(stream) => stream.send_reset(reason),
        }
    }

    /// Ready when the peer has reset the stream, or its connection is over.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Result<Reason, Error>> {
        match &mut *self.0.borrow_mut() {
            State::Waiting(to) => to.poll_reset(cx),
            State::UnderWay(stream) => stream.poll_reset(cx),
        }
    }
}
