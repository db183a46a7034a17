//! HAProxy: one frontend, one backend; `server-template` and a resolver where the backends come from DNS.

use std::ffi::OsString;

use anyhow::Result;

use super::{Backends, Launch, Setup, text};
use crate::scenario::Front;

pub const DIFFERS: &str = "checks its backend by a TCP connect every 2 s and repeats a failed connect 3 times (its defaults); keeps \
     connections to backends however many files are open (not its default); \
     from SRV records it takes weights (in steps of 1/256) and ports, not priorities: all tiers are one";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let (resolvers, servers) = match &setup.backends {
        Backends::One(address) => (String::new(), format!("    server one {address} check\n")),
        // One answer with all records is larger than UDP carries, so it is asked for over TCP. No checks: 500
        // connects every 2 s would not be what is measured.
        Backends::Srv { name, server, most } => (
            format!(
                "resolvers names\n    nameserver one tcp@{server}\n    accepted_payload_size 65535\n    \
                 hold valid 1s\n    hold obsolete 5s\n    timeout resolve 1s\n    timeout retry 1s\n"
            ),
            format!(
                "    server-template s {most} {name} resolvers names resolve-prefer ipv4 init-addr none\n"
            ),
        ),
    };
    let passes = setup.front == Front::Tcp;
    let (target, lines) = match setup.access_log && !passes {
        true => (
            "    log stdout format raw local0\n",
            "    log global\n    option httplog\n",
        ),
        false => ("", ""),
    };
    let (mode, reuse) = match passes {
        true => ("tcp", ""),
        false => ("http", "    http-reuse always\n"),
    };
    let alpn = match setup.front {
        Front::Http2 => "h2,http/1.1",
        Front::Http1 | Front::Tcp => "http/1.1",
    };
    let front = match passes {
        true => format!("    bind {} backlog 4096\n", setup.plain),
        false => format!(
            "    bind {plain} backlog 4096
    bind {tls} backlog 4096 ssl crt {pem} alpn {alpn}
    option forwardfor
    http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid
    unique-id-header X-Request-Id
",
            plain = setup.plain,
            tls = setup.tls,
            pem = text(&setup.cert_and_key),
        ),
    };
    // It wants two files for each of its connections before it starts, and few are open towards the backend: where the limit is
    // lower than that, a warning is enough. By default it keeps no idle connection to a backend once a quarter of the
    // files are open, which clients alone can be.
    let config = setup.write(
        "haproxy.cfg",
        &format!(
            "global
    nbthread {workers}
    maxconn {connections}
    no strict-limits
    tune.pool-high-fd-ratio 95
    tune.pool-low-fd-ratio 90
{target}
{resolvers}
defaults
    mode {mode}
    timeout connect 1s
    timeout client 75s
    timeout server 60s
{reuse}{lines}
frontend in
{front}    default_backend web

backend web
{servers}",
            workers = setup.workers,
            connections = setup.connections,
        ),
    )?;
    let words: [OsString; 3] = ["-db".into(), "-f".into(), config.into()];
    Ok(Launch::with(words))
}
