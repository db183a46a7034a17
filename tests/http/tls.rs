//! The TLS front end with clients that are not rustls on its own terms: OpenSSL's key updates and
//! renegotiations, bodies of many records, readers that take their time, broken streams.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustls::version::{TLS12, TLS13};

use crate::Site;
use crate::support::backend::Backend;
use crate::support::client::{Client, End, tls_config};
use crate::support::{PATIENCE, require};

/// `openssl s_client` with a hand on its keyboard.
struct OpenSsl {
    child: std::process::Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl OpenSsl {
    fn connect(site: &Site, version: &str) -> OpenSsl {
        let mut child = Command::new("openssl")
            .args(["s_client", version, "-servername", "localhost", "-connect"])
            .arg(site.server.address().to_string())
            .arg("-CAfile")
            .arg(&site.certificate.ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is there");
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out: Box<dyn std::io::Read + Send> = Box::new(out.expect("it is piped"));
        let err: Box<dyn std::io::Read + Send> = Box::new(err.expect("it is piped"));
        for stream in [out, err] {
            let sender = sender.clone();
            // Each ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    let _ = sender.send(line);
                }
            });
        }
        OpenSsl {
            input: child.stdin.take().expect("it is piped"),
            child,
            lines,
        }
    }

    fn types(&mut self, text: &str) {
        let typed = self.input.write_all(text.as_bytes());
        typed.expect("it listens");
    }

    /// Waits for a line that begins so.
    fn says(&self, start: &str) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(start) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("never said {start:?}, but {seen:#?}"),
            }
        }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for `path`, whose response's last line is followed by the end of a line.
fn request(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n\n")
}

/// RFC 8446 §4.6.3, asked for by somebody else's implementation.
#[test]
fn openssl_updates_its_keys_and_has_ours_updated() {
    if !require("openssl") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let mut client = OpenSsl::connect(&site, "-tls1_3");
    client.types(&request("/before"));
    client.says("POST /before");
    // `K` asks the other side to follow, `k` does not.
    for (n, command) in ["K\n", "k\n", "K\n"].into_iter().enumerate() {
        client.types(command);
        client.says("KEYUPDATE");
        client.types(&request(&format!("/after/{n}")));
        client.says(&format!("POST /after/{n}"));
    }
}

/// RFC 5746: a renegotiation is turned down, and nothing else comes of it.
#[test]
fn openssl_does_not_renegotiate() {
    if !require("openssl") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let mut client = OpenSsl::connect(&site, "-tls1_2");
    client.types(&request("/before"));
    client.says("POST /before");
    client.types("R\n");
    client.says("RENEGOTIATING");
    let config = tls_config(&site.certificate.ca, &[&TLS12]);
    let mut other = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    assert_eq!(
        other.get("localhost", "/").expect("it is served").status(),
        200
    );
    assert_eq!(backend.requests(), 2);
}

#[test]
fn ten_mebibytes_both_ways() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let body: Vec<u8> = (0..10u32 << 20).map(|n| (n / 253) as u8).collect();
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&site.certificate.ca, &[version]);
        let mut client =
            Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        client.send(&request);
        let response = client.response().expect("it is answered");
        assert_eq!(response.status(), 200);
        assert!(response.body.ends_with(&body), "{version:?}");
        // The connection goes on.
        let again = client.get("localhost", "/again").expect("it is served");
        assert_eq!(again.text(), "GET /again ");
    }
}

/// A stream of records that breaks off in one: whoever sent it gets an alert, the others are served.
#[test]
fn garbage_after_the_handshake_ends_the_connection_only() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let connect = || Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    let mut other = connect();
    let mut client = connect();
    assert_eq!(
        client.get("localhost", "/").expect("it is served").status(),
        200
    );
    let raw = client.tcp().try_clone();
    let mut raw = raw.expect("there are descriptors");
    raw.write_all(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it is open");
    let told = client.read_some().expect_err("it is over");
    assert!(told.to_string().contains("DecodeError"), "{told}");
    assert_eq!(
        other.get("localhost", "/").expect("it is served").status(),
        200
    );
    assert_eq!(backend.requests(), 2);
}

/// Python's `ssl` ends a stream without close_notify: what was whole before is answered.
#[test]
fn python_truncates_its_stream() {
    const SCRIPT: &str = r#"
import socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
context.suppress_ragged_eofs = False
for whole in (True, False):
    raw = socket.create_connection(("localhost", port), timeout=30)
    tls = context.wrap_socket(raw, server_hostname="localhost")
    head = b"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    tls.sendall(head if whole else head[:20])
    # FIN without close_notify.
    socket.socket(fileno=socket.dup(tls.fileno())).shutdown(socket.SHUT_WR)
    got = b""
    while True:
        try:
            more = tls.recv(65536)
        except ssl.SSLZeroReturnError:
            more = b""
        if not more:
            break
        got += more
    print(got.split(b"\r\n")[0].decode(), got.split(b"\r\n\r\n")[-1].decode() if whole else "")
"#;
    if !require("python3") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let seen = crate::text(
        Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(site.server.address().port().to_string())
            .arg(&site.certificate.ca),
    );
    assert_eq!(seen, "HTTP/1.1 200 OK GET /t \nHTTP/1.1 400 Bad Request \n");
}

/// What speaks HTTP where TLS is spoken gets the alert of RFC 8446 §6.2, and an end.
#[test]
fn http_on_the_tls_port_gets_an_alert() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let mut plain = Client::plain(site.server.address());
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (told, end) = plain.rest().expect("it ends");
    assert!(matches!(&*told, [21, 3, _, 0, 2, 2, _]), "{told:?}");
    assert_eq!(end, End::Closed);
}
