//! gRPC through Evenkeel: another's client and server (grpcio), over TLS at the front.

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::server::{Certificate, Folder, Server, output};
use support::{python_with, wait_until};

/// A gRPC server of grpcio's; ends when dropped.
struct GrpcServer {
    process: Child,
    address: SocketAddr,
    /// Calls that it saw given up.
    cancelled: Arc<AtomicUsize>,
}

impl GrpcServer {
    fn start(python: &Path, name: &str, tls: Option<&Certificate>) -> GrpcServer {
        let mut process = Command::new(python)
            .arg("tests/scripts/grpc_server.py")
            .arg(name)
            .args(tls.iter().flat_map(|tls| [&tls.cert, &tls.key]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python is there");
        let mut port = String::new();
        let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
        out.read_line(&mut port).expect("it says its port");
        let cancelled = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&cancelled);
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                counter.fetch_add(usize::from(line == "cancelled"), Ordering::SeqCst);
            }
        });
        let port: u16 = port.trim().parse().expect("a port");
        GrpcServer {
            process,
            address: ([127, 0, 0, 1], port).into(),
            cancelled,
        }
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // What has ended already cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a client of grpcio's makes of Evenkeel in front of three servers with weights 1, 2 and 1.
/// `silent`: seconds of silence that streams have to bear.
fn through(silent: u32, upstream: &str, config: &str) {
    let Some(python) = python_with(&["grpc"]) else {
        return;
    };
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let tls = (upstream == "h2").then_some(&certificate);
    let trust = match tls {
        Some(tls) => format!("tls = {{ ca = {:?}, name = \"localhost\" }}", tls.ca),
        None => String::new(),
    };
    let servers = ["a", "b", "c"].map(|name| GrpcServer::start(&python, name, tls));
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let server = Server::binary(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
         certificates = [{}]\n[[service]]\nname = \"calls\"\nupstream = \"{upstream}\"\n{config}\n{trust}\n\
         discover = {{ static = [{{ address = \"{a}\", weight = 1 }}, \
         {{ address = \"{b}\", weight = 2 }}, {{ address = \"{c}\", weight = 1 }}] }}\n\
         [[service]]\nname = \"nobody\"\nupstream = \"h2c\"\n\
         discover = {{ static = [\"127.0.0.1:1\"] }}\n\
         [[route]]\nservice = \"calls\"\n[[route]]\npath = \"/nobody\"\nservice = \"nobody\"\n\
         [log]\naccess = \"json\"\n",
        certificate.entry()
    ));
    let mut client = Command::new(&python);
    client
        .arg("tests/scripts/grpc_client.py")
        .arg(server.address().to_string())
        .arg(&certificate.ca)
        .arg(silent.to_string());
    let said = match silent {
        // Its own patience is longer than that of the tests.
        60.. => client.output().expect("Python is there"),
        _ => output(&mut client),
    };
    let (out, error) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    println!("{out}");
    assert!(said.status.success(), "{out}{error}");
    assert!(
        out.contains("shares [('a', 25), ('b', 50), ('c', 25)]"),
        "{out}"
    );
    wait_until("the servers hear of a deadline and a cancellation", || {
        let counts = servers.iter().map(|s| s.cancelled.load(Ordering::SeqCst));
        counts.sum::<usize>() == 2
    });
    let mut server = server;
    let process = server.process();
    wait_until("the access log names statuses of gRPC", || {
        let log = process.access().join("\n");
        ["OK", "NOT_FOUND", "DATA_LOSS"]
            .iter()
            .all(|name| log.contains(&format!("\"grpc_status\":\"{name}\"")))
    });
}

/// With deadlines that would end a stream that is silent, were it a request that is slow.
#[test]
fn every_kind_of_call() {
    through(
        4,
        "h2c",
        "response_timeout = \"3s\"\nbody_timeout = \"2s\"\nstall_timeout = \"2s\"",
    );
}

#[test]
fn every_kind_of_call_over_tls_on_both_sides() {
    through(1, "h2", "");
}

/// With the defaults, which takes its time.
#[test]
#[ignore = "takes three minutes"]
fn streams_that_are_silent_for_long() {
    through(90, "h2c", "");
}
