//! A plain reverse proxy on Pingora: one service, one backend, HTTP and HTTPS on one thread.
//!
//! `compare-pingora PLAIN TLS BACKEND CERT KEY THREADS [ACCESS_LOG]`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain, tls, backend, cert, key, threads, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: compare-pingora PLAIN TLS BACKEND CERT KEY THREADS [ACCESS_LOG]");
        std::process::exit(2);
    };
    let conf = ServerConf {
        threads: threads.parse().expect("THREADS is a number"),
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let log = rest.first().map(|path| {
        let file = File::create(path).expect("the access log can be made");
        Mutex::new(BufWriter::with_capacity(64 * 1024, file))
    });
    let proxy = OneBackend {
        backend: backend.clone(),
        log,
        started: unix_time().as_nanos() as u64,
        requests: AtomicU64::new(0),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(cert, key).expect("the certificate can be read");
    // For those who ask for it: the load generator of HTTP/1.1 offers no protocol at all.
    settings.enable_h2();
    service.add_tls_with_settings(tls, None, settings);
    server.add_service(service);
    server.run_forever();
}

struct OneBackend {
    backend: String,
    log: Option<Mutex<BufWriter<File>>>,
    /// Makes request ids of one run differ from those of another.
    started: u64,
    requests: AtomicU64,
}

#[async_trait]
impl ProxyHttp for OneBackend {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.backend.as_str(), false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(1));
        peer.options.read_timeout = Some(Duration::from_secs(60));
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(address) = session.client_addr().and_then(|a| a.as_inet()) {
            request.insert_header("X-Forwarded-For", address.ip().to_string())?;
        }
        let secure = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        request.insert_header("X-Forwarded-Proto", if secure { "https" } else { "http" })?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        request.insert_header("X-Request-Id", format!("{:016x}{number:016x}", self.started))
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        let Some(log) = &self.log else { return };
        let client = session.client_addr().map(|a| a.to_string()).unwrap_or_default();
        let status = session.response_written().map_or(0, |r| r.status.as_u16());
        let line = format!(
            "{client} {} \"{}\" {status} {}\n",
            unix_time().as_millis(),
            session.request_summary(),
            session.body_bytes_sent(),
        );
        let mut file = log.lock().expect("nobody panics while writing a line");
        // A full disk costs lines, not requests.
        let _ = file.write_all(line.as_bytes());
    }
}

fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
