//! One request on a stream of an HTTP/2 connection.

use std::rc::Rc;

use ::h2::Reason;
use ::h2::RecvStream;
use ::h2::server::SendResponse;
use ::http::{Request, request};
use bytes::Bytes;

use super::connection::{Origin, Room};
use super::job::Downstream;
use super::request::Next;
use super::tally::Counted;
use crate::http::body::declared;
use crate::http::h1::parse::HeadLimits;
use crate::http::h2::head;
use crate::http::h2::incoming::Incoming;
use crate::http::h2::outgoing::Outgoing;
use crate::http::head::Rejection;

/// A request whose head has come on a stream.
#[derive(Debug)]
pub(super) struct Stream {
    origin: Rc<Origin>,
    parts: request::Parts,
    body: RecvStream,
    outgoing: Outgoing,
    /// Held for its end.
    _counted: Counted,
}

/// RFC 9110 §15.5.20: the client asks again, over a connection of its own.
const MISDIRECTED: Rejection = Rejection {
    status: 421,
    reason: "this connection was made for a host with another certificate",
};

impl Stream {
    pub(super) fn new(
        origin: Rc<Origin>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        counted: Counted,
    ) -> Stream {
        let (parts, body) = request.into_parts();
        Stream {
            origin,
            parts,
            body,
            outgoing: Outgoing::response(respond),
            _counted: counted,
        }
    }

    /// Carries the request out and answers it.
    pub(super) async fn serve(self, room: &mut Room) {
        let Stream {
            origin,
            parts,
            body,
            outgoing,
            _counted,
        } = self;
        let downstream = &origin.worker.shared.config.downstream;
        let limits = HeadLimits {
            bytes: downstream.header_bytes,
            fields: downstream.header_fields,
        };
        let mut serving = room.serve(&origin);
        serving.head.shed();
        serving.lent.response.shed();
        let read = head::request_head(&parts, limits, serving.head);
        let read = match read {
            Ok(_) if origin.is_misdirected(&serving.head.host) => Err(MISDIRECTED),
            read => read,
        };
        drop(parts);
        let mut incoming = Incoming::new(body, declared(&serving.head.fields));
        let over = Downstream::H2 {
            incoming: &mut incoming,
            outgoing: &outgoing,
        };
        let next = match read {
            Ok(extended) => serving.handle(over, extended.as_deref()).await,
            Err(rejection) => serving.refuse(over, rejection).await,
        };
        if next == Next::Abort {
            // What the client has of the response is not the whole.
            outgoing.reset(Reason::INTERNAL_ERROR);
        }
    }
}
