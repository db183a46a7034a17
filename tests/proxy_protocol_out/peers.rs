//! What other people's decoders read in a header.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustls::version::TLS13;

use crate::front;
use crate::nginx::nginx;
use crate::support::backend::nobody;
use crate::support::client::{Client, tls_config};
use crate::support::server::{Folder, Process, Server};
use crate::support::{require, wait_until};

/// Both ends of a client's connection, with spaces between.
fn both_ends(client: &Client) -> String {
    let tcp = client.tcp();
    let source = tcp.local_addr().expect("it is connected");
    let destination = tcp.peer_addr().expect("it is connected");
    format!(
        "{} {} {} {}",
        source.ip(),
        source.port(),
        destination.ip(),
        destination.port()
    )
}

#[test]
fn nginx_reads_them() {
    if !require("nginx") {
        return;
    }
    let folder = Folder::new();
    for (version, listen) in [
        ("v1", "127.0.0.1:0"),
        ("v2", "127.0.0.1:0"),
        ("v1", "[::1]:0"),
        ("v2", "[::1]:0"),
    ] {
        let address = nobody();
        let _nginx = nginx(
            &folder,
            address,
            &format!(
                "listen {address} proxy_protocol;\nlocation / {{\nreturn 200 \
                 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr \
                 $proxy_protocol_server_port $connection_requests\";\n}}"
            ),
        );
        let keys = format!("proxy_protocol = \"{version}\"");
        let server = front(listen, address, &keys);
        for _ in 0..2 {
            let mut client = Client::plain(server.address());
            for request in 1..=2 {
                let said = client.get("a", "/").expect("an answer").text();
                assert_eq!(
                    said,
                    format!("{} {request}", both_ends(&client)),
                    "{version}"
                );
            }
        }
    }
}

/// HAProxy that answers with what it has read.
fn haproxy(folder: &Folder) -> (Process, SocketAddr) {
    let address = nobody();
    let file = folder.write(
        "haproxy.cfg",
        &format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  \
             timeout client 75s\n  timeout server 60s\nfrontend f\n  \
             bind {address} accept-proxy\n  http-request return status 200 \
             content-type text/plain lf-string \
             \"%[src] %[src_port] %[dst] %[dst_port] <%[fc_pp_authority]>\"\n"
        ),
    );
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
    let mut process = Process::spawn(&mut command);
    wait_until("HAProxy listens", || {
        assert!(
            process.is_running(),
            "HAProxy has ended: {:#?}",
            process.log()
        );
        TcpStream::connect(address).is_ok()
    });
    (process, address)
}

#[test]
fn haproxy_reads_them() {
    if !require("haproxy") {
        return;
    }
    let folder = Folder::new();
    let (_haproxy, address) = haproxy(&folder);
    for version in ["v1", "v2"] {
        let keys = format!(
            "proxy_protocol = \"{version}\"\n\
             health = {{ http = \"/\", interval = \"20ms\", initial = \"down\" }}"
        );
        let server = front("127.0.0.1:0", address, &keys);
        let up = format!("backend=\"{address}\",state=\"up\",reason=\"\"}} 1");
        wait_until("its check passes", || {
            let probe = server.probe.expect("there is a probe listener");
            let page = Client::plain(probe).get("probe", "/metrics");
            page.expect("it answers").text().contains(&up)
        });
        let mut client = Client::plain_from([127, 0, 0, 9].into(), server.address());
        let said = client.get("a", "/").expect("an answer").text();
        assert_eq!(
            said.trim_end(),
            format!("{} <>", both_ends(&client)),
            "{version}"
        );
    }
    // With what it says of TLS.
    let certificate = folder.certificate("front", &["localhost"]);
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ncertificates = [{}]\n\
         [[service]]\nname = \"web\"\nproxy_protocol = \"v2\"\n\
         discover = {{ static = [\"{address}\"] }}\n[[route]]\nservice = \"web\"\n",
        certificate.entry(),
    ));
    let config = tls_config(&certificate.ca, &[&TLS13]);
    let mut client = Client::tls(server.address(), &config, "localhost").expect("TLS");
    let said = client.get("localhost", "/").expect("an answer").text();
    assert_eq!(
        said.trim_end(),
        format!("{} <localhost>", both_ends(&client))
    );
}
