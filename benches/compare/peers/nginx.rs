//! NGINX: a master and its workers, bodies passed on without a file in between.

use std::ffi::OsString;

use anyhow::Result;

use super::{Launch, Setup, text};

pub const DIFFERS: &str = "a master process beside the worker; request bodies are not buffered, response bodies in memory only \
     (no temporary files)";

pub fn configure(setup: &Setup) -> Result<Launch> {
    let config = setup.write(
        "nginx.conf",
        &format!(
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
        listen {tls} ssl backlog=4096;
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
        ),
    )?;
    let words: [OsString; 4] = [
        "-p".into(),
        setup.folder.clone().into(),
        "-c".into(),
        config.into(),
    ];
    Ok(Launch::with(words))
}
