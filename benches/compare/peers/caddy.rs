//! Caddy: a Caddyfile, with certificates of our own and nothing written outside its folder.

use std::ffi::OsString;

use anyhow::Result;

use super::{Backends, Launch, Setup, text};
use crate::scenario::Front;

pub const DIFFERS: &str = "writes X-Forwarded-Host too, as Evenkeel does; a Go runtime on GOMAXPROCS threads, whose collector and \
     monitor add threads of their own; from SRV records it takes the tier that counts, weights by chance, and asks again \
     every second, each connect resolving its target anew";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let (backends, resolvers) = match &setup.backends {
        Backends::One(address) => (address.to_string(), String::new()),
        Backends::Srv { server, .. } => (String::new(), format!("resolvers {server}")),
    };
    let dynamic = match &setup.backends {
        Backends::One(_) => String::new(),
        Backends::Srv { name, server, .. } => {
            format!(
                "dynamic srv {{\n\t\t\tname {name}\n\t\t\trefresh 1s\n\t\t\tresolvers {server}\n\t\t}}"
            )
        }
    };
    let log = match setup.access_log {
        true => format!(
            "log {{\n\t\toutput file {} {{\n\t\t\troll_disabled\n\t\t}}\n\t}}",
            setup.path("access.log")
        ),
        false => String::new(),
    };
    let config = setup.write(
        "Caddyfile",
        &format!(
            "{{
\tadmin off
\tauto_https off
\tpersist_config off
\tgrace_period 1s
\tdefault_bind {ip}
\tservers {{
\t\tprotocols {protocols}
\t}}
\tlog {{
\t\tlevel ERROR
\t}}
}}

(web) {{
\t{log}
\treverse_proxy {backends} {{
\t\t{dynamic}
\t\theader_up X-Request-Id {{http.request.uuid}}
\t\ttransport http {{
\t\t\tversions 1.1
\t\t\tcompression off
\t\t\tkeepalive 60s
\t\t\tkeepalive_idle_conns_per_host 512
\t\t\tdial_timeout 1s
\t\t\t{resolvers}
\t\t}}
\t}}
}}

http://:{plain} {{
\timport web
}}

https://:{tls} {{
\ttls {cert} {key}
\timport web
}}
",
            ip = setup.plain.ip(),
            protocols = match setup.front {
                Front::Http2 => "h1 h2",
                Front::Http1 | Front::Tcp => "h1",
            },
            plain = setup.plain.port(),
            tls = setup.tls.port(),
            cert = text(&setup.cert),
            key = text(&setup.key),
        ),
    )?;
    let words: [OsString; 5] = [
        "run".into(),
        "--config".into(),
        config.into(),
        "--adapter".into(),
        "caddyfile".into(),
    ];
    let mut launch = Launch::with(words);
    let folder = OsString::from(&setup.folder);
    launch.environment = vec![
        ("GOMAXPROCS", setup.workers.to_string().into()),
        ("HOME", folder.clone()),
        ("XDG_CONFIG_HOME", folder.clone()),
        ("XDG_DATA_HOME", folder),
    ];
    Ok(launch)
}
