//! A client's connection from its first request to its end.

use std::rc::Rc;

use super::connection::{Connection, Peer};
use super::request::Next;
use super::worker::Worker;
use crate::io::transport::Transport;

/// Serves a client's connection until it ends.
pub async fn serve(worker: Rc<Worker>, transport: Transport, peer: Peer) {
    let mut connection = Connection::new(worker, transport, peer);
    let mut first = true;
    loop {
        let next = match connection.read_head(first).await {
            Ok(Some(())) => connection.handle().await,
            Ok(None) => Next::End,
            Err(rejection) => connection.refuse(rejection).await,
        };
        match next {
            Next::Request => first = false,
            Next::Close => return connection.close().await,
            Next::End => return connection.end().await,
            Next::Abort => return,
        }
    }
}
