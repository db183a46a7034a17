//! Pingora: the proxy of `benches/pingora`, which takes all that it needs as arguments.

use std::ffi::OsString;

use anyhow::Result;

use super::{Launch, Setup};

pub const DIFFERS: &str = "is a library: the proxy around it (`benches/pingora`) does no more than the headers and the log line; \
     TLS by rustls on ring; its own threads for signals and timers beside the one that serves";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let mut words: Vec<OsString> = vec![
        setup.plain.to_string().into(),
        setup.tls.to_string().into(),
        setup.backend()?.to_string().into(),
        setup.cert.clone().into(),
        setup.key.clone().into(),
        setup.workers.to_string().into(),
    ];
    if setup.access_log {
        words.push(setup.path("access.log").into());
    }
    Ok(Launch::with(words))
}
