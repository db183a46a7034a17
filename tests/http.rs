//! The real binary and real clients: curl, openssl, Python, and our own where those cannot
//! misbehave as needed.

#[path = "http/descriptors.rs"]
mod descriptors;
#[path = "http/drain.rs"]
mod drain;
#[path = "http/https.rs"]
mod https;
#[path = "http/idle.rs"]
mod idle;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/memory.rs"]
mod memory;
#[path = "http/records.rs"]
mod records;
#[path = "http/streams.rs"]
mod streams;
mod support;
#[path = "http/tls.rs"]
mod tls;

use std::path::Path;
use std::process::Command;

use support::backend::Backend;
use support::client::Client;
use support::server::{Certificate, Folder, Server, output};

/// A server with TLS in front of some backends.
pub struct Site {
    /// The server.
    pub server: Server,
    /// Its default certificate, for `localhost` and 127.0.0.1.
    pub certificate: Certificate,
    /// Holds the certificates.
    pub folder: Folder,
}

impl Site {
    /// Everything goes to `backend`. Listeners: https, http.
    pub fn start(backend: &Backend, more: &str) -> Site {
        Site::start_under("", backend, more)
    }

    /// The same with keys of the top.
    pub fn start_under(top: &str, backend: &Backend, more: &str) -> Site {
        Site::run(Server::binary, top, backend, more)
    }

    /// The same, run by `run`.
    pub fn run(run: impl FnOnce(&str) -> Server, top: &str, backend: &Backend, more: &str) -> Site {
        let folder = Folder::new();
        let certificate = folder.certificate("default", &["localhost", "127.0.0.1"]);
        let server = run(&format!(
            r#"
            {top}
            [[listener]]
            name = "secure"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{certificate}]
            [[listener]]
            name = "plain"
            address = "127.0.0.1:0"
            protocol = "http"
            [[service]]
            name = "web"
            discover = {{ static = ["{backend}"] }}
            [[route]]
            service = "web"
            {more}
            "#,
            certificate = certificate.entry(),
            backend = backend.address,
        ));
        Site {
            server,
            certificate,
            folder,
        }
    }

    /// The value of a series on the metrics page; 0 when it is not there yet.
    pub fn metric(&self, series: &str) -> f64 {
        let probe = self.server.probe.expect("there is a probe listener");
        let page = Client::plain(probe).get("probe", "/metrics");
        let page = page.expect("it answers").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("it is a number"))
    }

    /// A URL over https.
    pub fn url(&self, path: &str) -> String {
        format!(
            "https://localhost:{}{path}",
            self.server.addresses[0].port()
        )
    }
}

/// curl, trusting this authority; every name leads to this machine.
pub fn curl(authority: &Path) -> Command {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--noproxy",
            "*",
        ])
        .args(["--max-time", "40", "--connect-to", "::127.0.0.1:"])
        .arg("--cacert")
        .arg(authority);
    command
}

/// What a command wrote, which must have ended well.
pub fn text(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
