//! NGINX: a master and its workers, bodies passed on without a file in between.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Launch, Setup, text};
use crate::scenario::Front;

pub const DIFFERS: &str = "a master process beside the worker; request bodies are not buffered, response bodies in memory only \
     (no temporary files)";

/// What it passes TCP on by, where Debian puts it.
pub fn stream_module() -> Option<&'static Path> {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    module.is_file().then_some(module)
}

pub fn configure(setup: &Setup) -> Result<Launch> {
    match setup.front {
        Front::Tcp => passing(setup),
        Front::Http1 | Front::Http2 => http(setup),
    }
}

/// TCP, passed on.
fn passing(setup: &Setup) -> Result<Launch> {
    let module = stream_module().context("its stream module is not there")?;
    let text = format!(
        r#"load_module {module};
daemon off;
worker_processes {workers};
pid {pid};
error_log {errors};

events {{
    worker_connections {connections};
}}

stream {{
    server {{
        listen {plain} backlog=4096;
        proxy_connect_timeout 1s;
        proxy_pass {backend};
    }}
}}
"#,
        module = text(module),
        workers = setup.workers,
        pid = setup.path("nginx.pid"),
        errors = setup.path("error.log"),
        connections = 2 * setup.connections,
        plain = setup.plain,
        backend = setup.backend()?,
    );
    launch(setup, &text)
}

fn http(setup: &Setup) -> Result<Launch> {
    let text = format!(
        r#"daemon off;
worker_processes {workers};
pid {pid};
error_log {errors};

events {{
    worker_connections {connections};
}}

http {{
    access_log {access};
    client_body_temp_path {temp};
    proxy_temp_path {temp};
    fastcgi_temp_path {temp};
    uwsgi_temp_path {temp};
    scgi_temp_path {temp};
    client_max_body_size 0;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;

    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;

    upstream web {{
        server {backend};
        keepalive 512;
        keepalive_requests 1000000000;
    }}

    server {{
        listen {plain} backlog=4096;
        listen {tls} ssl {http2}backlog=4096;
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
"#,
        workers = setup.workers,
        pid = setup.path("nginx.pid"),
        errors = setup.path("error.log"),
        // A proxied request takes two.
        connections = 2 * setup.connections,
        access = match setup.access_log {
            true => format!("{} combined", setup.path("access.log")),
            false => "off".to_owned(),
        },
        temp = setup.path("temp"),
        cert = text(&setup.cert),
        key = text(&setup.key),
        backend = setup.backend()?,
        plain = setup.plain,
        tls = setup.tls,
        http2 = match setup.front {
            Front::Http2 => "http2 ",
            Front::Http1 | Front::Tcp => "",
        },
    );
    launch(setup, &text)
}

fn launch(setup: &Setup, text: &str) -> Result<Launch> {
    let config = setup.write("nginx.conf", text)?;
    let words: [OsString; 4] = [
        "-p".into(),
        setup.folder.clone().into(),
        "-c".into(),
        config.into(),
    ];
    Ok(Launch::with(words))
}
