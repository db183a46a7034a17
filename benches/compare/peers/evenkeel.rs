//! Evenkeel: a file as an operator would write it, and the access log to standard output.

use std::ffi::OsString;

use anyhow::Result;

use super::{Backends, Launch, Setup, text};
use crate::scenario::Front;

pub const DIFFERS: &str = "writes X-Forwarded-Host besides X-Forwarded-For, X-Forwarded-Proto and X-Request-Id; metrics are \
     always on; a backend is judged by the connects of requests (there are no health checks); the access log is JSON";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let discover = match &setup.backends {
        Backends::One(address) => format!("{{ static = [\"{address}\"] }}"),
        Backends::Srv { name, .. } => format!("{{ srv = \"{name}.\" }}"),
    };
    let dns = match &setup.backends {
        Backends::One(_) => String::new(),
        Backends::Srv { server, .. } => {
            format!("[dns]\nservers = [\"{server}\"]\ninterval = \"1s\"\n")
        }
    };
    let listeners = match setup.front {
        Front::Tcp => format!(
            "[[listener]]\naddress = \"{}\"\nprotocol = \"tcp\"\n",
            setup.plain
        ),
        // HTTP/2 is offered unless it is switched off.
        Front::Http1 | Front::Http2 => format!(
            "[[listener]]\naddress = \"{}\"\nprotocol = \"http\"\n\n\
             [[listener]]\naddress = \"{}\"\nprotocol = \"https\"\n\
             certificates = [{{ cert = \"{}\", key = \"{}\" }}]\n",
            setup.plain,
            setup.tls,
            text(&setup.cert),
            text(&setup.key),
        ),
    };
    let config = setup.write(
        "evenkeel.toml",
        &format!(
            r#"workers = {workers}

{listeners}
[[service]]
name = "web"
discover = {discover}
max_idle = 512

[[route]]
service = "web"

{dns}
[limits]
max_connections = {connections}

[log]
access = "{access}"

[probe]
address = "{admin}"
"#,
            workers = setup.workers,
            connections = setup.connections,
            access = if setup.access_log { "json" } else { "off" },
            admin = setup.admin,
        ),
    )?;
    let words: [OsString; 3] = ["run".into(), "-c".into(), config.into()];
    Ok(Launch::with(words))
}
