//! A Prometheus that scrapes a server of a test's, and what it says.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::server::{Folder, Process};
use crate::support::wait_until;

/// Ends when dropped.
pub struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    /// Scrapes this probe listener five times a second, under the job `evenkeel`. `more`: what else
    /// its configuration says.
    pub fn scraping(probe: SocketAddr, more: &str) -> Prometheus {
        let folder = Folder::new();
        let file = folder.write(
            "prometheus.yml",
            &format!(
                "global: {{ evaluation_interval: 200ms }}\n{more}\n\
                 scrape_configs:\n  - job_name: evenkeel\n    scrape_interval: 200ms\n    \
                 scrape_timeout: 200ms\n    static_configs: [{{ targets: ['{probe}'] }}]\n"
            ),
        );
        // Nobody else is at this address, and it cannot tell which port it took.
        let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..=250));
        let address = SocketAddr::from(([127, a, b, c], 9090));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}/data",
                folder.path().display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null());
        let mut process = Process::spawn(&mut command);
        wait_until("Prometheus listens", || {
            assert!(process.is_running(), "{:#?}", process.log());
            std::net::TcpStream::connect(address).is_ok()
        });
        let prometheus = Prometheus {
            address,
            _process: process,
            _folder: folder,
        };
        wait_until("it is scraped", || prometheus.value("up") == Some(1.0));
        prometheus
    }

    /// What it answers at this path; null while it starts.
    pub fn get(&self, path: &str) -> Value {
        let Ok(answer) = Client::plain(self.address).get("prometheus", path) else {
            return Value::Null;
        };
        serde_json::from_str(&answer.text()).unwrap_or_default()
    }

    /// The series that a query finds now, or why it is none.
    pub fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}"));
        match answer["status"].as_str() {
            Some("error") => Err(answer["error"].to_string()),
            _ => Ok(answer["data"]["result"]
                .as_array()
                .cloned()
                .unwrap_or_default()),
        }
    }

    /// The same, of a query that is one.
    pub fn ask(&self, query: &str) -> Vec<Value> {
        self.query(query)
            .unwrap_or_else(|error| panic!("{error}: {query}"))
    }

    /// The value of the only series that it finds.
    pub fn value(&self, query: &str) -> Option<f64> {
        let found = self.ask(query);
        let [only] = &found[..] else { return None };
        only["value"][1].as_str()?.parse().ok()
    }
}
