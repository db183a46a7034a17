//! Connections that are passed on as they are: the real server between raw clients and raw backends,
//! and between TLS clients (curl, rustls) and backends that end TLS themselves.

#[path = "support/dns.rs"]
mod dns;
mod support;
#[path = "layer4/tcp.rs"]
mod tcp;
#[path = "layer4/tls.rs"]
mod tls;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use support::backend::Backend;
use support::client::Client;
use support::server::Server;
use support::wait_until;

/// A backend that says its name as soon as a client comes, and then whatever the client says; when
/// that ends, it ends.
pub fn greeter(name: &'static str) -> Backend {
    Backend::custom(name, move |mut stream| {
        let _ = stream.write_all(format!("{name}\n").as_bytes());
        echo(stream);
    })
}

/// Sends back what comes to its end.
pub fn echo(mut stream: TcpStream) {
    let mut room = [0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut room) {
        if stream.write_all(&room[..n]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// The name that a [`greeter`] says; empty if nobody does.
pub fn greeting(client: &mut Client) -> String {
    let mut name = Vec::new();
    loop {
        match client.exactly(1).as_deref() {
            Ok(b"\n") | Err(_) => return String::from_utf8_lossy(&name).into_owned(),
            Ok(byte) => name.extend_from_slice(byte),
        }
    }
}

/// Says something and hears it again.
pub fn is_echoed(client: &mut Client, text: &str) -> bool {
    client.send(text);
    client
        .exactly(text.len())
        .is_ok_and(|heard| heard == text.as_bytes())
}

/// The value of a series on the metrics page; 0 when it is not there yet.
pub fn metric(server: &Server, series: &str) -> f64 {
    server.metric(series).unwrap_or(0.0)
}

/// Waits until so many connections of service `raw` have ended so.
pub fn await_outcome(server: &Server, outcome: &str, count: u32) {
    let series = format!("evenkeel_streams_total{{service=\"raw\",outcome=\"{outcome}\"}}");
    wait_until(outcome, || metric(server, &series) >= f64::from(count));
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7 % 251) as u8).collect()
}

/// Reads to the end.
pub fn to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}
