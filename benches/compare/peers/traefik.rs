//! Traefik: entry points on the command line, routers and certificates in a file.

use std::ffi::OsString;

use anyhow::Result;

use super::{Launch, Setup};
use crate::scenario::Front;

pub const DIFFERS: &str = "gives requests no id; writes all of X-Forwarded-For, -Host, -Port, -Proto, -Server and X-Real-Ip; a Go \
     runtime on GOMAXPROCS threads, whose collector and monitor add threads of their own";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let backend = setup.backend()?;
    let text = match setup.front {
        Front::Tcp => format!(
            r#"tcp:
  routers:
    plain:
      rule: HostSNI(`*`)
      entryPoints: [plain]
      service: web
  services:
    web:
      loadBalancer:
        servers:
          - address: "{backend}"
"#
        ),
        // It offers HTTP/2 over TLS by default, to those who ask for it.
        Front::Http1 | Front::Http2 => format!(
            r#"http:
  routers:
    plain:
      rule: PathPrefix(`/`)
      entryPoints: [plain]
      service: web
    tls:
      rule: PathPrefix(`/`)
      entryPoints: [tls]
      service: web
      tls: {{}}
  services:
    web:
      loadBalancer:
        servers:
          - url: "http://{backend}"
tls:
  certificates:
    - certFile: "{cert}"
      keyFile: "{key}"
"#,
            cert = super::text(&setup.cert),
            key = super::text(&setup.key),
        ),
    };
    let routes = setup.write("routes.yaml", &text)?;
    let mut words = vec![
        format!("--entryPoints.plain.address={}", setup.plain),
        format!("--entryPoints.tls.address={}", setup.tls),
        format!("--providers.file.filename={}", routes.display()),
        "--providers.file.watch=false".to_owned(),
        "--serversTransport.maxIdleConnsPerHost=512".to_owned(),
        "--log.level=ERROR".to_owned(),
        "--global.checkNewVersion=false".to_owned(),
        "--global.sendAnonymousUsage=false".to_owned(),
    ];
    if setup.access_log {
        words.push("--accessLog=true".to_owned());
        words.push(format!("--accessLog.filePath={}", setup.path("access.log")));
    }
    let mut launch = Launch::with(words);
    launch.environment = vec![
        ("GOMAXPROCS", setup.workers.to_string().into()),
        ("HOME", OsString::from(&setup.folder)),
    ];
    Ok(launch)
}
