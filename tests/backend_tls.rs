//! TLS to backends: who is believed and who is not, what a failed handshake leads to, sessions,
//! ends that are none, checks; with rustls at the other end, and with NGINX.

#[path = "backend_tls/checks.rs"]
mod checks;
#[path = "support/dns.rs"]
mod dns;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "backend_tls/peer.rs"]
mod peer;
mod support;
#[path = "support/tls_backend.rs"]
mod tls_backend;

use std::net::SocketAddr;

use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

use support::backend::Backend;
use support::client::{Client, End};
use support::server::{Folder, Server};
use support::wait_until;
use tls_backend::{Authority, Issued, Seen, TlsBackend, Valid, self_signed};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A server in front of these backends, over TLS by these keys of the service.
fn front(backends: &[SocketAddr], keys: &str) -> Server {
    let list: Vec<_> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        upstream = "https"
        discover = {{ static = [{}] }}
        {keys}
        [[route]]
        service = "web"
        "#,
        list.join(", ")
    ))
}

/// The value of a series on the metrics page; 0 when it is not there.
fn metric(server: &Server, series: &str) -> f64 {
    server.metric(series).unwrap_or(0.0)
}

fn errors(server: &Server, reason: &str) -> f64 {
    let labels = format!("{{service=\"web\",reason=\"{reason}\"}}");
    metric(server, &format!("evenkeel_upstream_errors_total{labels}"))
}

/// `tls = { … }` that trusts an authority, and more.
fn trusting(authority: &Authority, folder: &Folder, more: &str) -> String {
    let file = authority.file(folder, "authority.pem");
    format!("tls = {{ ca = \"{}\"{more} }}", file.display())
}

/// What is expected of one request.
enum Expected {
    /// It is answered by a connection that was seen so.
    Answered(Seen),
    /// It is not, for this reason.
    Refused(u16, &'static str),
}

use Expected::{Answered, Refused};

/// SNI and ALPN of a connection.
fn named(name: &str) -> Seen {
    Seen {
        name: (!name.is_empty()).then(|| name.to_owned()),
        requests: vec!["/".to_owned()],
        ..Seen::default()
    }
}

#[test]
fn who_is_believed() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let other = Authority::new("another");
    let ca = |more: &str| trusting(&authority, &folder, more);
    let good = authority.issue(&["b.test"], Valid::Now);
    let by_address = authority.issue(&["127.0.0.1"], Valid::Now);
    let alone = self_signed(&["b.test"]);
    let alone_file = folder.write("alone.pem", &alone.certificate);
    let own = other.issue(&["client"], Valid::Now).entry(&folder, "own");
    let plain = |issued: &Issued| issued.server(BOTH, None);
    let name = ", name = \"b.test\"";
    let insecure = || "tls = { insecure = true }".to_owned();
    let mut offers = plain(&good);
    offers.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let rows: Vec<(&str, ServerConfig, String, Expected)> = vec![
        ("by name", plain(&good), ca(name), Answered(named("b.test"))),
        (
            "by name over TLS 1.2",
            good.server(&[&TLS12], None),
            ca(name),
            Answered(named("b.test")),
        ),
        (
            "a name is written as people do",
            plain(&good),
            ca(", name = \"B.Test.\""),
            Answered(named("b.test")),
        ),
        (
            "HTTP/1.1 is what is agreed on",
            offers,
            ca(name),
            Answered(Seen {
                alpn: Some("http/1.1".to_owned()),
                ..named("b.test")
            }),
        ),
        (
            "by address, without SNI",
            plain(&by_address),
            ca(""),
            Answered(named("")),
        ),
        (
            "an address that the certificate has not",
            plain(&good),
            ca(""),
            Refused(503, "tls_certificate"),
        ),
        (
            "for another name",
            plain(&authority.issue(&["c.test"], Valid::Now)),
            ca(name),
            Refused(503, "tls_certificate"),
        ),
        (
            "expired",
            plain(&authority.issue(&["b.test"], Valid::Before)),
            ca(name),
            Refused(503, "tls_certificate"),
        ),
        (
            "not valid yet",
            plain(&authority.issue(&["b.test"], Valid::Later)),
            ca(name),
            Refused(503, "tls_certificate"),
        ),
        (
            "by another issuer",
            plain(&other.issue(&["b.test"], Valid::Now)),
            ca(name),
            Refused(503, "tls_certificate"),
        ),
        (
            "by itself",
            plain(&alone),
            ca(name),
            Refused(503, "tls_certificate"),
        ),
        (
            "by itself, and that is who is trusted",
            plain(&alone),
            format!("tls = {{ ca = \"{}\"{name} }}", alone_file.display()),
            Answered(named("b.test")),
        ),
        (
            "by itself, insecure",
            plain(&alone),
            insecure(),
            Answered(named("")),
        ),
        (
            "expired, insecure",
            plain(&other.issue(&["c.test"], Valid::Before)),
            insecure(),
            Answered(named("")),
        ),
        (
            "too old a version",
            good.server(&[&TLS12], None),
            ca(&format!("{name}, min_version = \"1.3\"")),
            Refused(503, "tls_failed"),
        ),
        (
            "the backend knows us",
            good.server(BOTH, Some(&other)),
            ca(&format!("{name}, certificate = {own}")),
            Answered(Seen {
                certified: true,
                ..named("b.test")
            }),
        ),
        (
            "the backend does not know us, TLS 1.2",
            good.server(&[&TLS12], Some(&other)),
            ca(name),
            Refused(503, "tls_failed"),
        ),
        // The handshake is over for us before the backend has seen what we did not send.
        (
            "the backend does not know us, TLS 1.3",
            good.server(&[&TLS13], Some(&other)),
            ca(name),
            Refused(502, "upstream_closed"),
        ),
    ];
    for (rule, config, keys, expected) in rows {
        let backend = TlsBackend::tls("b", config);
        let server = front(&[backend.address], &keys);
        let response = Client::plain(server.address()).get("shop.example", "/");
        let response = response.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        match expected {
            Answered(seen) => {
                assert_eq!(response.text(), "b", "{rule}: {:?}", backend.seen());
                assert_eq!(backend.seen(), [seen], "{rule}");
            }
            Refused(status, reason) => {
                assert_eq!(response.status(), status, "{rule}: {:?}", backend.seen());
                assert!(errors(&server, reason) >= 1.0, "{rule}");
                assert!(!response.text().contains("certificate"), "{rule}");
                let seen = backend.seen();
                assert!(
                    seen.iter().all(|s| s.requests.is_empty()),
                    "{rule}: {seen:?}"
                );
            }
        }
    }
}

/// Without `ca`, whoever this system trusts.
#[test]
fn the_authorities_of_the_system() {
    let folder = Folder::new();
    let ours = Authority::new("ours");
    let ca = ours.file(&folder, "ca.pem");
    for (issuer, status) in [(&ours, 200), (&Authority::new("another"), 503)] {
        let config = issuer.issue(&["127.0.0.1"], Valid::Now).server(BOTH, None);
        let backend = TlsBackend::tls("b", config);
        let server = Server::binary_with(
            "SSL_CERT_FILE",
            &ca,
            &format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
                 name = \"web\"\nupstream = \"https\"\n\
                 discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"web\"\n",
                backend.address
            ),
        );
        let response = Client::plain(server.address()).get("a", "/");
        assert_eq!(response.expect("it is answered").status(), status);
    }
}

#[test]
fn what_is_no_tls_is_no_connection() {
    // It answers a ClientHello as best it can.
    let plain = Backend::custom("plain", |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let silent = Backend::custom("silent", |mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let closes = Backend::custom("closes", drop);
    for (address, reason) in [
        (plain.address, "tls_failed"),
        (silent.address, "tls_timeout"),
        (closes.address, "tls_failed"),
    ] {
        let keys = "tls = { insecure = true }\ntls_timeout = \"200ms\"";
        let server = front(&[address], keys);
        let response = Client::plain(server.address()).get("shop.example", "/");
        assert_eq!(response.expect("it is answered").status(), 503, "{reason}");
        assert_eq!(errors(&server, reason), 1.0, "{reason}");
    }
}

/// Nothing was sent, so another backend can have it, whatever the method; this one is passed over,
/// and the log says why.
#[test]
fn a_failed_handshake_goes_on_to_another_backend() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let [old, good] = [Valid::Before, Valid::Now]
        .map(|valid| authority.issue(&["b.test"], valid).server(BOTH, None));
    let (old, good) = (TlsBackend::tls("old", old), TlsBackend::tls("good", good));
    let server = Server::binary(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        upstream = "https"
        discover = {{ static = [
          {{ address = "{}", priority = 0 }},
          {{ address = "{}", priority = 1 }},
        ] }}
        retries = 0
        {}
        [[route]]
        service = "web"
        [log]
        format = "json"
        "#,
        old.address,
        good.address,
        trusting(&authority, &folder, ", name = \"b.test\"")
    ));
    let mut server = server;
    let state = format!(
        "evenkeel_backend_state{{service=\"web\",backend=\"{}\",state=\"passed_over\",reason=\"connect\"}}",
        old.address
    );
    let mut client = Client::plain(server.address());
    wait_until("it is passed over", || {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.response().expect("it is answered").text(), "body");
        metric(&server, &state) == 1.0
    });
    assert!(errors(&server, "tls_certificate") >= 1.0);
    wait_until("the log says why", || {
        let log = server.process().log();
        let said = |line: &String| line.contains("WARN") && line.contains("has expired");
        log.iter().any(said)
    });
}

/// Under TLS 1.3 a backend that misses our certificate says so when the handshake is over for us.
#[test]
fn the_log_says_what_a_backend_misses() {
    let config = self_signed(&["b.test"]).server(&[&TLS13], Some(&Authority::new("clients")));
    let backend = TlsBackend::tls("b", config);
    let mut server = Server::binary(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\nupstream = \"https\"\ntls = {{ insecure = true }}\n\
         discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"web\"\n",
        backend.address
    ));
    wait_until("the log says why", || {
        // A reset may overtake the alert.
        let response = Client::plain(server.address()).get("a", "/");
        assert_eq!(response.expect("it is answered").status(), 502);
        let log = server.process().log();
        let said = |line: &String| line.contains("WARN") && line.contains("CertificateRequired");
        log.iter().any(said)
    });
    // And at the start that anybody could be the backend.
    let log = server.process().log();
    assert!(
        log.iter().any(|line| line.contains("anybody can pretend")),
        "{log:#?}"
    );
}

/// A connection that was closed is followed by one that resumes its session.
#[test]
fn sessions_are_resumed() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let keys = trusting(&authority, &folder, ", name = \"b.test\"");
    for version in [&TLS13, &TLS12] {
        let config = authority
            .issue(&["b.test"], Valid::Now)
            .server(&[version], None);
        let backend = TlsBackend::tls("b", config);
        let server = front(&[backend.address], &keys);
        for _ in 0..3 {
            let response = Client::plain(server.address()).get("a", "/close");
            assert_eq!(response.expect("it is answered").text(), "b");
        }
        let resumed: Vec<_> = backend.seen().iter().map(|seen| seen.resumed).collect();
        assert_eq!(resumed, [false, true, true], "{version:?}");
    }
}

/// Two services that verify different names share neither connections nor sessions.
#[test]
fn a_name_is_part_of_a_backend() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let config = authority
        .issue(&["a.test", "b.test"], Valid::Now)
        .server(BOTH, None);
    let backend = TlsBackend::tls("both", config);
    let ca = authority.file(&folder, "ca.pem");
    let service = |name: &str, verified: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nupstream = \"https\"\n\
             discover = {{ static = [\"{}\"] }}\ntls = {{ ca = \"{}\", name = \"{verified}\" }}\n\
             [[route]]\nhost = \"{name}\"\nservice = \"{name}\"\n",
            backend.address,
            ca.display()
        )
    };
    let server = Server::in_process(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}{}{}",
        service("a", "a.test"),
        service("b", "b.test"),
        service("c", "c.test"),
    ));
    let mut client = Client::plain(server.address());
    for host in ["a", "b", "a", "b"] {
        let response = client.get(host, "/").expect("it is answered");
        assert_eq!(response.text(), "both");
    }
    assert_eq!(client.get("c", "/").expect("it is answered").status(), 503);
    let seen = backend.seen();
    let names: Vec<_> = seen.iter().map(|s| s.name.as_deref()).collect();
    // A handshake that we break off is not seen to its end.
    assert_eq!(names, [Some("a.test"), Some("b.test"), None]);
    assert!(seen.iter().all(|s| !s.resumed), "{seen:?}");
    assert_eq!(seen[0].requests.len() + seen[1].requests.len(), 4);
}

/// The target of the record is who has to be there.
#[test]
fn the_name_is_the_target_of_the_record() {
    use hickory_proto::rr::RecordType;
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let config = authority
        .issue(&["one.test"], Valid::Now)
        .server(BOTH, None);
    let backend = TlsBackend::tls("one", config);
    let port = backend.address.port();
    let (one, two) = ("_https._tcp.one.test", "_https._tcp.two.test");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads can be had");
    let server = runtime.block_on(dns::DnsServer::start());
    for (name, target) in [(one, "one.test"), (two, "two.test")] {
        let reply = dns::srv_reply(name, 30, &[(0, 1, port, target, &["127.0.0.1"])]);
        server.on(name, RecordType::SRV, reply);
    }
    let keys = trusting(&authority, &folder, "");
    let service = |name: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nupstream = \"https\"\n{keys}\n\
             discover = {{ srv = \"_https._tcp.{name}.test.\" }}\n\
             [[route]]\nhost = \"{name}\"\nservice = \"{name}\"\n"
        )
    };
    let front = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [dns]\nservers = [\"{}\"]\n{}{}",
        server.address(),
        service("one"),
        service("two")
    ));
    let get = |host: &str| {
        let response = Client::plain(front.address()).get(host, "/");
        response.expect("it is answered")
    };
    wait_until("the name is resolved", || get("one").status() == 200);
    let labels = "{service=\"two\",reason=\"tls_certificate\"}";
    wait_until("the other one is verified by its own name", || {
        assert_eq!(get("two").status(), 503);
        metric(&front, &format!("evenkeel_upstream_errors_total{labels}")) > 0.0
    });
    assert_eq!(backend.seen()[0].name.as_deref(), Some("one.test"));
}

/// RFC 9112 §9.8: a response that only the end ends is whole if TLS says that this was the end.
#[test]
fn an_end_that_tls_does_not_announce_is_none() {
    let backend = TlsBackend::tls("whole", self_signed(&["b.test"]).server(BOTH, None));
    let server = front(&[backend.address], "tls = { insecure = true }");
    let response = Client::plain(server.address()).get("a", "/until-close");
    assert_eq!(response.expect("it is whole").text(), "whole");

    let mut client = Client::plain(server.address());
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let (received, _) = client.rest().expect("the connection ends");
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        !text.ends_with("0\r\n\r\n"),
        "it ends like a whole one: {text}"
    );
    assert_eq!(errors(&server, "upstream_closed"), 1.0);
}

/// Bytes of another protocol, until one side ends.
#[test]
fn a_tunnel_over_tls() {
    let backend = TlsBackend::tls("b", self_signed(&["b.test"]).server(BOTH, None));
    let server = front(&[backend.address], "tls = { insecure = true }");
    let mut client = Client::plain(server.address());
    client.send(
        "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.response().expect("it switches").status(), 101);
    for words in ["first", "second"] {
        client.send(words);
        let back = client.exactly(words.len()).expect("it comes back");
        assert_eq!(back, words.as_bytes());
    }
    client.finish();
    let (rest, end) = client.rest().expect("it ends");
    assert_eq!((rest.as_slice(), end), (&b""[..], End::Closed));
    assert_eq!(errors(&server, "upstream_closed"), 0.0);
}

/// What TLS says to itself on a kept connection makes it no worse (RFC 8446 §4.6).
#[test]
fn a_kept_connection_survives_new_keys() {
    let backend = TlsBackend::tls("b", self_signed(&["b.test"]).server(&[&TLS13], None));
    let server = front(&[backend.address], "tls = { insecure = true }");
    let mut client = Client::plain(server.address());
    for _ in 0..3 {
        assert_eq!(client.get("a", "/rekey").expect("an answer").text(), "b");
        backend.rekey();
        // One that may not be repeated looks harder at what it takes.
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.response().expect("an answer").text(), "x");
    }
    assert_eq!(backend.connections(), 1);
}

/// Many records each way.
#[test]
fn long_bodies() {
    let backend = TlsBackend::tls("b", self_signed(&["b.test"]).server(BOTH, None));
    let server = front(&[backend.address], "tls = { insecure = true }");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut client = Client::plain(server.address());
    for _ in 0..2 {
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        client.send(&body);
        let response = client.response().expect("it is answered");
        assert!(response.body == body, "{} bytes", response.body.len());
    }
    assert_eq!(backend.connections(), 1);
}

/// What `check` and a start say of files that cannot be used.
#[test]
fn unusable_files_are_said() {
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let empty = folder.write("empty.pem", "");
    let own = authority.issue(&["a"], Valid::Now);
    let other = authority.issue(&["a"], Valid::Now);
    let mixed = Issued {
        key: other.key,
        ..own
    };
    let mixed = mixed.entry(&folder, "mixed");
    for (tls, code, said) in [
        (
            format!("ca = \"{}\"", empty.display()),
            1,
            "no certificate in it",
        ),
        (
            format!("insecure = true, certificate = {mixed}"),
            1,
            "does not match",
        ),
        ("insecure = true".to_owned(), 0, "anybody can pretend"),
    ] {
        let file = folder.write(
            "evenkeel.toml",
            &format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
                 name = \"web\"\nupstream = \"https\"\ndiscover = {{ static = [\"127.0.0.1:1\"] }}\n\
                 tls = {{ {tls} }}\n[[route]]\nservice = \"web\"\n"
            ),
        );
        let checked = support::server::output(support::server::binary().arg("check").arg(&file));
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(code), "{text}");
        assert!(text.contains(said), "{text}");
        if code == 0 {
            let summary = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(
                summary.contains("anybody's certificate is taken"),
                "{summary}"
            );
            continue;
        }
        let mut command = support::server::binary();
        let run = command.arg("run").arg("-c").arg(&file);
        let ran = support::server::output(run.arg("--set").arg("probe.address=off"));
        let text = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_ne!(ran.status.code(), Some(0), "{text}");
        assert!(
            text.contains("service web") && text.contains(said),
            "{text}"
        );
    }
}
