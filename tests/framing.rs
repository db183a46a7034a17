//! Message framing through the running server: raw bytes in at either side, and what must come
//! out of both. Each row names its rule and the RFC clause that it comes from.

#[path = "framing/bench.rs"]
mod bench;
#[path = "framing/requests.rs"]
mod requests;
#[path = "framing/responses.rs"]
mod responses;
#[path = "framing/splits.rs"]
mod splits;
mod support;
#[path = "framing/timing.rs"]
mod timing;
