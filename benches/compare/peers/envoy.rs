//! Envoy: two listeners that share a route and a cluster, with the default circuit breakers out of the way.

use anyhow::Result;
use serde_json::{Value, json};
use std::ffi::OsString;

use super::{Launch, Setup, text};
use crate::scenario::Front;

pub const DIFFERS: &str = "has its main thread beside the worker, and counts everything in statistics by default; circuit \
     breakers raised so that none opens; one retry where a connect fails";

/// Above everything that is asked of it here.
const NO_LIMIT: u32 = 1_000_000;

pub fn configure(setup: &Setup) -> Result<Launch> {
    let backend = setup.backend()?;
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": match setup.front {
                    Front::Http2 => vec!["h2", "http/1.1"],
                    Front::Http1 | Front::Tcp => vec!["http/1.1"],
                },
                "tls_certificates": [{
                    "certificate_chain": { "filename": text(&setup.cert).to_string() },
                    "private_key": { "filename": text(&setup.key).to_string() },
                }],
            },
        },
    });
    let listeners = match setup.front {
        Front::Tcp => vec![around("tcp", setup.plain, passing())],
        Front::Http1 | Front::Http2 => vec![
            listener("plain", setup, setup.plain, None),
            listener("tls", setup, setup.tls, Some(tls)),
        ],
    };
    let config = json!({
        "static_resources": {
            "listeners": listeners,
            "clusters": [{
                "name": "web",
                "type": "STATIC",
                "circuit_breakers": { "thresholds": [{
                    "max_connections": NO_LIMIT,
                    "max_pending_requests": NO_LIMIT,
                    "max_requests": NO_LIMIT,
                    "max_retries": 3,
                }] },
                "load_assignment": {
                    "cluster_name": "web",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": address(backend) }] }],
                },
            }],
        },
    });
    let path = setup.write("envoy.json", &serde_json::to_string_pretty(&config)?)?;
    let mut words: Vec<OsString> = vec!["-c".into(), path.into()];
    let workers = setup.workers.to_string();
    let rest = [
        "--concurrency",
        &workers,
        "--disable-hot-restart",
        "--log-level",
        "error",
    ];
    words.extend(rest.map(OsString::from));
    Ok(Launch::with(words))
}

fn listener(name: &str, setup: &Setup, at: std::net::SocketAddr, tls: Option<Value>) -> Value {
    let access_log = match setup.access_log {
        true => json!([{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": setup.path("access.log"),
            },
        }]),
        false => json!([]),
    };
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "codec_type": match setup.front {
                    Front::Http2 => "AUTO",
                    Front::Http1 | Front::Tcp => "HTTP1",
                },
                "use_remote_address": true,
                "access_log": access_log,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "prefix": "/" },
                        "route": {
                            "cluster": "web",
                            "timeout": "60s",
                            "retry_policy": { "retry_on": "connect-failure", "num_retries": 1 },
                        },
                    }],
                }] },
            },
        }],
    });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    around(name, at, chain)
}

/// TCP, passed on.
fn passing() -> Value {
    json!({
        "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp",
                "cluster": "web",
            },
        }],
    })
}

fn around(name: &str, at: std::net::SocketAddr, chain: Value) -> Value {
    let mut listener = address(at);
    listener["name"] = json!(name);
    listener["tcp_backlog_size"] = json!(4096);
    listener["filter_chains"] = json!([chain]);
    listener
}

fn address(at: std::net::SocketAddr) -> Value {
    json!({ "address": { "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } } })
}
