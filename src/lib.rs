//! Evenkeel: a load balancer for container clusters that is driven by DNS SRV records.
//!
//! # The lexicon
//!
//! - **downstream**: the client's side; **upstream**: the backends' side.
//! - **listener**: an address where clients connect.
//! - **route**: host and path (and header fields) that lead to a service.
//! - **service**: a name with its discovery, balancing and timeouts.
//! - **endpoint**: target, port and address: what DNS said.
//! - **backend**: an endpoint plus its state in this process.
//! - **tier**: the endpoints of one SRV priority.
//! - **snapshot**: the immutable state that workers read.
//! - **worker**: one thread with its listeners, its schedule and its connections; **seat**: a client
//!   connection's place at one, which it keeps until it ends.
//! - **runner**: a future that carries a worker's requests out, for whichever connection has one;
//!   **room**: what a request needs beside its connection (heads, deadlines), and a runner has.
//! - **drain**: to stop taking new work and to finish what is under way.
//! - **zone**: the names that a name server answers for; **registration**: the records by which a
//!   backend says in it where it is; **lease**: for how long one holds that is not renewed;
//!   **key**: what proves who sent it (TSIG).
//!
//! # The floors
//!
//! A folder imports only from lower floors; inside a folder there are no circles.
//!
//! | floor | what lives there |
//! |---|---|
//! | 8 | [`cli`]: one file per command |
//! | 7 | [`server`]: composition root |
//! | 6 | [`admin`], [`listener`] |
//! | 5 | [`proxy`]: one request, or one connection that is passed on, from route to account; [`health`]: checks and ejection |
//! | 4 | [`balance`]: service, snapshot, picker; [`sample`]: a sample backend; [`acme`]: certificates that are ordered; `otel`: spans to a collector (behind a feature) |
//! | 3 | [`upstream`]: backends, pool, how connections are made; [`dns_server`]: a zone, updates and both their sides; [`errand`]: a request of our own |
//! | 2 | [`discovery`], [`router`], [`tls`] |
//! | 1 | [`http`], [`io`], [`config`] |
//! | 0 | [`telemetry`], [`clock`], [`events`], [`published`], [`id_map`], [`memory`] |

pub mod acme;
pub mod admin;
pub mod balance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod discovery;
pub mod dns_server;
pub mod errand;
pub mod events;
pub mod health;
pub mod http;
pub mod id_map;
pub mod io;
pub mod listener;
pub mod memory;
#[cfg(feature = "otel")]
pub mod otel;
pub mod proxy;
pub mod published;
pub mod router;
pub mod sample;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;
