//! One request, from its head to its account: route, pick, exchange, retry, log.
//!
//! `serve.rs` leads a client's connection from request to request: `connection.rs` reads their heads off
//! it, `streams.rs` accepts those of one that speaks HTTP/2 (each a `stream.rs`, counted by `tally.rs`),
//! `peer.rs` says whose they are. `request.rs` carries one out: `decide.rs` says where it goes, if
//! `admission.rs` takes its client on, `local_reply.rs` answers what never reaches a backend
//! (`respond.rs`, `grpc.rs`); `exchange.rs` tries backends one after the other, which `choice.rs` chooses
//! and `reach.rs` reaches (`opening.rs` opens connections, `pinned.rs` has those that serve one client);
//! `attempt.rs` is one try, `answer.rs` its other half: the copies in both directions, about a `job.rs`,
//! from a `source.rs` to a `sink.rs`, which alone know of which version of HTTP either side is;
//! `switch.rs` says how a switch of protocols is said, `tunnel.rs` is what follows. `forward.rs` rewrites
//! heads (`certificate_fields.rs` has those about a client's certificate), `recode.rs` (pure) bodies,
//! `rewrite.rs` (pure) paths, `edits.rs` what the configuration changes of
//! fields;
//! `failure.rs` says what a failure means and `retry.rs` (pure) whether it may be tried again;
//! `explain.rs` says in words why a request went where it went, `samples.rs` keeps a few of them, and
//! `questions.rs` has what the workers are asked; `limits.rs` is what the workers together may take on;
//! `spans.rs` makes requests spans of traces; `compress.rs` codes the bodies of responses;
//! `auth.rs` asks another service whether a request may go on; `mirror.rs` sends a copy of a share of
//! requests to another one; `finish.rs` accounts for a request that is over; `splits.rs` has the
//! schedules of routes that lead to several services; `seating.rs` says which worker a connection goes
//! to.
//!
//! `layer4.rs` is the other way through: a connection that is passed on as it is, with the same
//! choice, judgement, limits and account.

pub mod account;
mod admission;
mod answer;
mod attempt;
mod auth;
mod certificate_fields;
mod choice;
pub mod compress;
pub mod connection;
mod decide;
pub mod drain;
mod edits;
mod exchange;
pub mod explain;
pub mod failure;
mod finish;
pub mod forward;
mod grpc;
mod job;
pub mod layer4;
pub mod limits;
mod local_reply;
mod mirror;
mod opening;
pub mod peer;
mod pinned;
mod preference;
pub mod questions;
mod reach;
mod recode;
mod request;
mod respond;
pub mod retry;
mod rewrite;
pub mod samples;
pub mod seating;
pub mod serve;
mod sink;
mod source;
mod spans;
mod splits;
mod stream;
mod streams;
mod switch;
mod tally;
mod tunnel;
pub mod worker;
