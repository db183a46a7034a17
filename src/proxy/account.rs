//! What is known of a request when it is over: for the access log and the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::Way;
use super::failure::Meaning;
use crate::telemetry::spans::Begun;
use crate::upstream::backend::Backend;

/// One request's account, written as it goes on.
#[derive(Debug)]
pub struct Account {
    /// When its head was whole.
    pub begun: Instant,
    /// Its identity in logs and for the backend: 32 hexadecimal digits, or what a trusted proxy said.
    pub request_id: [u8; 32],
    /// Label of the route.
    pub route: Option<Arc<str>>,
    /// Index of the route, among those of its generation.
    pub route_index: Option<usize>,
    /// The path that its client asked for, where it went on by another one.
    pub path: Option<Box<[u8]>>,
    /// Index of the service.
    pub service: Option<usize>,
    /// The backend of the last attempt.
    pub backend: Option<Arc<Backend>>,
    /// How the last attempt came to it.
    pub way: Way,
    /// Attempts made.
    pub attempts: u32,
    /// Status the client got; 0: none.
    pub status: u16,
    /// What gRPC says of how the call went.
    pub grpc_status: Option<u8>,
    /// Bytes of the request's body taken from the client.
    pub received: u64,
    /// Bytes of the response's body sent to the client.
    pub sent: u64,
    /// Time the last attempt's connect took; `None`: a kept connection was used.
    pub connect: Option<Duration>,
    /// From `begun` to the first byte of the response.
    pub first_byte: Option<Duration>,
    /// How it failed, if it did.
    pub failure: Option<Meaning>,
    /// What its client may hear of all this.
    pub audience: Audience,
    /// Its span, if it is recorded.
    pub span: Option<Box<Begun>>,
}

/// What a client may hear of where its request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Nothing.
    Anybody,
    /// `explain_from` lists it: details, where something went wrong.
    Listed,
    /// It has asked, too: everything, in a field of the response.
    Asking,
}

impl Account {
    /// A request whose head has just been read.
    pub fn begin(request_id: [u8; 32]) -> Account {
        Account {
            begun: Instant::now(),
            request_id,
            route: None,
            route_index: None,
            path: None,
            service: None,
            backend: None,
            way: Way::default(),
            attempts: 0,
            status: 0,
            grpc_status: None,
            received: 0,
            sent: 0,
            connect: None,
            first_byte: None,
            failure: None,
            audience: Audience::Anybody,
            span: None,
        }
    }
}
