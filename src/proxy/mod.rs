//! One request, from its head to its account: route, pick, exchange, retry, log.
//!
//! `serve.rs` leads a client's connection from request to request: `connection.rs` reads their
//! heads off it, `request.rs` carries one out and answers what never reaches a backend;
//! `exchange.rs` tries backends one after the other, which `choice.rs` chooses; `attempt.rs` is one
//! try: the copies in both directions, about a `job.rs`; `tunnel.rs` is what follows a switch of protocols;
//! `forward.rs` rewrites heads (`certificate_fields.rs` has those about a client's certificate) and `recode.rs` (pure) bodies; `failure.rs` says what a failure
//! means and `retry.rs` (pure) whether it may be tried again; `limits.rs` is what the workers
//! together may take on; `seating.rs` says which worker a connection goes to.

pub mod account;
mod answer;
mod attempt;
mod certificate_fields;
mod choice;
pub mod connection;
pub mod drain;
mod exchange;
pub mod failure;
pub mod forward;
mod grpc;
mod job;
pub mod limits;
mod opening;
mod preference;
mod reach;
mod recode;
mod request;
mod respond;
pub mod retry;
pub mod seating;
pub mod serve;
mod sink;
mod source;
mod stream;
mod streams;
mod switch;
mod tunnel;
pub mod worker;
