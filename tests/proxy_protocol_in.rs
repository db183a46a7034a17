//! Who the client is behind a proxy that says so in a PROXY header, and who may say so.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use tokio::time::Instant;

use support::backend::{Backend, nobody};
use support::client::{Client, End, NoResponse, tls_config};
use support::server::{Certificate, Folder, Process, Server, output};
use support::{PATIENCE, require, wait_until};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Listeners: http and https that want a header, http that does not.
struct Site {
    server: Server,
    backend: Backend,
    certificate: Certificate,
    _folder: Folder,
}

impl Site {
    /// This host's 127.0.0.1 is trusted, and what is in 10/8.
    fn start(more: &str) -> Site {
        Site::run(Server::in_process, more)
    }

    fn run(run: impl FnOnce(&str) -> Server, more: &str) -> Site {
        let backend = Backend::start("b");
        let folder = Folder::new();
        let certificate = folder.certificate("default", &["localhost"]);
        let server = run(&format!(
            r#"
            workers = 2
            trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
            [[listener]]
            name = "plain"
            address = "127.0.0.1:0"
            protocol = "http"
            proxy_protocol = true
            [[listener]]
            name = "secure"
            address = "127.0.0.1:0"
            protocol = "https"
            proxy_protocol = true
            certificates = [{}]
            [[listener]]
            name = "direct"
            address = "127.0.0.1:0"
            protocol = "http"
            [[service]]
            name = "web"
            discover = {{ static = ["{}"] }}
            [[route]]
            service = "web"
            {more}
            "#,
            certificate.entry(),
            backend.address,
        ));
        Site {
            server,
            backend,
            certificate,
            _folder: folder,
        }
    }

    fn plain(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    fn secure(&self) -> SocketAddr {
        self.server.addresses[1]
    }

    fn direct(&self) -> SocketAddr {
        self.server.addresses[2]
    }

    /// The field of the only request that has come since the last look.
    fn field(&self, name: &str) -> Option<String> {
        self.backend.await_requests(1);
        let mut taken = self.backend.take();
        assert_eq!(taken.len(), 1, "{taken:?}");
        let request = taken.remove(0).whole.expect("it is whole");
        request.field(name).map(str::to_owned)
    }

    fn forwarded_for(&self) -> String {
        self.field("x-forwarded-for").expect("it is always set")
    }

    fn refused(&self, reason: &str) -> f64 {
        self.metric(&format!(
            "evenkeel_refused_connections_total{{reason=\"{reason}\"}}"
        ))
    }

    fn metric(&self, series: &str) -> f64 {
        let probe = self.server.probe.expect("there is a probe listener");
        let page = Client::plain(probe).get("probe", "/metrics");
        let page = page.expect("it answers").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("it is a number"))
    }
}

fn v1(client: &str, port: u16) -> Vec<u8> {
    let client: IpAddr = client.parse().expect("it is an address");
    let (family, own) = match client {
        IpAddr::V4(_) => ("TCP4", "198.51.100.1"),
        IpAddr::V6(_) => ("TCP6", "2001:db8::1"),
    };
    format!("PROXY {family} {client} {own} {port} 443\r\n").into_bytes()
}

/// With a TLV that nobody knows.
fn v2(client: &str, port: u16) -> Vec<u8> {
    let client: IpAddr = client.parse().expect("it is an address");
    let (family, mut content) = match client {
        IpAddr::V4(v4) => (0x11, [v4.octets(), [198, 51, 100, 1]].concat()),
        IpAddr::V6(v6) => (0x21, [v6.octets(), v6.octets()].concat()),
    };
    content.extend(port.to_be_bytes());
    content.extend(443_u16.to_be_bytes());
    content.extend(b"\xea\x00\x05vpce!");
    block(0x21, family, &content)
}

fn block(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(
        u16::try_from(content.len())
            .expect("it is short")
            .to_be_bytes(),
    );
    bytes.extend(content);
    bytes
}

fn local() -> Vec<u8> {
    block(0x20, 0, b"")
}

/// Sends this on a connection of its own; the status of the answer.
fn asked(address: SocketAddr, bytes: &[&[u8]]) -> u16 {
    let mut client = Client::plain(address);
    client.send(bytes.concat());
    client.response().expect("it is answered").status()
}

/// The end of a connection on which nothing was said.
fn ended(mut client: Client) -> End {
    match client.response() {
        Err(NoResponse::Ended(end, said)) if said.is_empty() => end,
        other => panic!("it was not closed without a word: {other:?}"),
    }
}

#[test]
fn the_address_in_the_header_is_the_clients() {
    let mut site = Site::run(Server::binary, "[log]\naccess = \"json\"\n");
    let trust = [&TLS12, &TLS13].map(|version| tls_config(&site.certificate.ca, &[version]));
    for (header, client, log) in [
        (v1("192.0.2.7", 4711), "192.0.2.7", "192.0.2.7:4711"),
        (v2("192.0.2.7", 4712), "192.0.2.7", "192.0.2.7:4712"),
        (v1("2001:db8::7", 4713), "2001:db8::7", "[2001:db8::7]:4713"),
        (v2("2001:db8::7", 4714), "2001:db8::7", "[2001:db8::7]:4714"),
        (v2("::ffff:192.0.2.8", 4715), "192.0.2.8", "192.0.2.8:4715"),
    ] {
        // In one packet with what follows.
        assert_eq!(asked(site.plain(), &[&header, REQUEST]), 200);
        assert_eq!(site.forwarded_for(), client);
        for trust in &trust {
            let mut tls = Client::tls_behind(&header, site.secure(), trust, "localhost")
                .expect("the handshake is made");
            for _ in 0..2 {
                assert_eq!(tls.get("a", "/").expect("it is served").status(), 200);
                assert_eq!(site.forwarded_for(), client);
            }
        }
        wait_until("all are in the access log", || {
            let lines = site.server.process().access();
            let ours = |line: &&String| line.contains(&format!("\"client\":\"{log}\""));
            lines.iter().filter(ours).count() == 5
        });
    }
}

#[test]
fn the_proxy_may_speak_for_itself() {
    let site = Site::start("");
    for header in [
        local(),
        block(0x20, 0x11, &[1; 12]),
        block(0x21, 0, b""),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
    ] {
        assert_eq!(asked(site.plain(), &[&header, REQUEST]), 200);
        assert_eq!(site.forwarded_for(), "127.0.0.1", "{header:x?}");
    }
}

/// A proxy that does not know its client cannot hand on another one's word for it: each request would
/// be another client's.
#[test]
fn nobody_behind_an_unknown_client_has_a_limit_of_its_own() {
    let site = Site::start("[defaults]\nrate_limit = { requests = 2, per = \"1h\" }\n");
    let asked = |n: u8| {
        let request = format!(
            "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{n}\r\n\r\n"
        );
        asked(site.plain(), &[request.as_bytes()])
    };
    assert_eq!([1, 2, 3].map(asked), [200, 200, 429]);
}

#[test]
fn cut_anywhere() {
    let site = Site::start("");
    for header in [v1("192.0.2.7", 1), v2("192.0.2.7", 1)] {
        let whole = [&header[..], REQUEST].concat();
        for at in 1..=header.len() {
            let mut client = Client::plain(site.plain());
            let (first, rest) = whole.split_at(at);
            // Another connection is served meanwhile, so the first part was looked at most likely.
            client.send_pieces(&[first, rest], || {
                assert_eq!(asked(site.plain(), &[&local(), REQUEST]), 200);
            });
            assert_eq!(client.response().expect("it is served").status(), 200);
            site.backend.await_requests(2);
            let taken = site.backend.take();
            let whose: Vec<_> = taken
                .iter()
                .filter_map(|r| r.whole.as_ref()?.field("x-forwarded-for"))
                .collect();
            assert_eq!(whose, ["127.0.0.1", "192.0.2.7"], "{at}");
        }
    }
}

#[test]
fn without_a_header_nobody_is_served() {
    let site =
        Site::start("[defaults]\nheader_timeout = \"500ms\"\nhandshake_timeout = \"500ms\"\n");
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let long = block(0x21, 0x11, &[0; 5000]);
    let wrong: [&[u8]; 6] = [
        REQUEST,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &block(0x21, 0x12, &[1; 12]),
        &long,
    ];
    let mut expected = 0.0;
    for bytes in wrong {
        for address in [site.plain(), site.secure()] {
            let mut client = Client::plain(address);
            client.send(bytes);
            ended(client);
            expected += 1.0;
        }
    }
    assert!(Client::tls(site.secure(), &trust, "localhost").is_err());
    expected += 1.0;
    // A part of a header, and then the end.
    let mut client = Client::plain(site.plain());
    client.send(&v1("192.0.2.7", 1)[..20]).finish();
    ended(client);
    expected += 1.0;
    wait_until("they are counted", || {
        site.refused("proxy_header") == expected
    });

    // A part of a header, and then nothing; nothing at all.
    for (begun, address) in [(20, site.plain()), (20, site.secure()), (0, site.plain())] {
        let started = Instant::now();
        let mut client = Client::plain(address);
        client.send(&v1("192.0.2.7", 1)[..begun]);
        ended(client);
        assert!(started.elapsed() >= Duration::from_millis(400));
    }
    wait_until("they are counted", || site.refused("proxy_timeout") == 3.0);

    // Somebody looks whether the port is open.
    let mut client = Client::plain(site.plain());
    client.finish();
    ended(client);
    assert_eq!(site.refused("proxy_header"), expected);
    assert_eq!(site.backend.requests(), 0);
    // Nothing of all that is left.
    wait_until("nobody is counted", || {
        site.metric("evenkeel_bounded{of=\"client_connections\"}") == 0.0
    });
}

#[test]
fn a_header_that_trickles_is_not_waited_for() {
    let site = Site::start("[defaults]\nheader_timeout = \"500ms\"\n");
    let mut client = Client::plain(site.plain());
    let begun = Instant::now();
    let header = v1("192.0.2.7", 1);
    let mut sent = 0;
    client.patience(Duration::from_millis(50));
    // A byte each time: some 44 times 50 ms.
    for byte in &header[..header.len() - 1] {
        client.send([*byte]);
        sent += 1;
        match client.response() {
            Err(NoResponse::Late(_)) => {}
            Err(NoResponse::Ended(..)) => break,
            said => panic!("{said:?}"),
        }
    }
    assert!(sent < header.len() - 1, "it was waited for");
    assert!(begun.elapsed() < PATIENCE);
    wait_until("it is counted", || site.refused("proxy_timeout") == 1.0);
}

#[test]
fn who_is_not_trusted_says_nothing() {
    let site = Site::start("");
    let stranger: IpAddr = "127.0.0.2".parse().expect("it is an address");
    for (count, bytes) in [&v1("192.0.2.7", 1)[..], &local(), REQUEST]
        .iter()
        .enumerate()
    {
        let mut client = Client::plain_from(stranger, site.plain());
        client.send([*bytes, REQUEST].concat());
        ended(client);
        wait_until("it is counted", || {
            site.refused("proxy_untrusted") == (count + 1) as f64
        });
    }
    let mut client = Client::plain_from(stranger, site.secure());
    client.send(v2("192.0.2.7", 1));
    ended(client);
    assert_eq!(site.backend.requests(), 0);
}

#[test]
fn a_listener_that_wants_none_takes_none() {
    let site = Site::start("");
    for header in [v1("192.0.2.7", 1), v2("192.0.2.7", 1)] {
        assert_eq!(asked(site.direct(), &[&header, REQUEST]), 400);
    }
    assert_eq!(asked(site.direct(), &[REQUEST]), 200);
    assert_eq!(site.forwarded_for(), "127.0.0.1");
}

#[test]
fn what_a_request_says_is_believed_of_its_client_not_of_the_proxy() {
    let site = Site::start("");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    for (client, expected) in [
        ("192.0.2.7", "192.0.2.7"),
        ("10.0.0.7", "203.0.113.9, 10.0.0.7"),
    ] {
        assert_eq!(asked(site.plain(), &[&v1(client, 1), request]), 200);
        assert_eq!(site.forwarded_for(), expected);
    }
    assert_eq!(asked(site.plain(), &[&local(), request]), 200);
    assert_eq!(site.forwarded_for(), "203.0.113.9, 127.0.0.1");
}

/// A proxy that does not know its client vouches for nothing that the client says; one that speaks for
/// itself does.
#[test]
fn a_client_that_nobody_knows_is_not_trusted() {
    let site = Site::start("");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\
        X-Client-Cert-Subject: CN=root\r\n\r\n";
    let trusted = ("203.0.113.9, 127.0.0.1", Some("CN=root"));
    let unknown = ("127.0.0.1", None);
    for (rule, header, expected) in [
        ("UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), unknown),
        (
            "UNKNOWN with addresses",
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
            unknown,
        ),
        ("PROXY, UNSPEC", block(0x21, 0, b""), unknown),
        ("LOCAL", local(), trusted),
        ("LOCAL with addresses", block(0x20, 0x11, &[1; 12]), trusted),
    ] {
        assert_eq!(asked(site.plain(), &[&header, request]), 200, "{rule}");
        site.backend.await_requests(1);
        let mut taken = site.backend.take();
        let came = taken.remove(0).whole.expect("it is whole");
        let told = (
            came.field("x-forwarded-for").expect("it is always set"),
            came.field("x-client-cert-subject"),
        );
        assert_eq!(told, expected, "{rule}");
    }
}

#[test]
fn hashing_goes_by_the_client() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let server = Server::in_process(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         protocol = \"http\"\nproxy_protocol = true\n[[service]]\nname = \"web\"\n\
         strategy = \"hash\"\ndiscover = {{ static = [\"{}\", \"{}\"] }}\n[[route]]\nservice = \"web\"\n",
        backends[0].address, backends[1].address,
    ));
    let counts = || backends.each_ref().map(Backend::requests);
    for client in 0..32 {
        let header = v2(&format!("192.0.2.{client}"), 1);
        let before = counts();
        for _ in 0..3 {
            assert_eq!(asked(server.address(), &[&header, REQUEST]), 200);
        }
        let after = counts();
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained == [3, 0] || gained == [0, 3], "{client}: {gained:?}");
    }
    // All at one of them: once in two thousand million times.
    assert!(counts().iter().all(|count| *count > 0), "{:?}", counts());
}

#[test]
fn limits_count_for_the_client() {
    let site = Site::start(
        "[limits]\nmax_connections_per_client = 2\n\
         [defaults]\nrate_limit = { requests = 2, per = \"1h\" }\n",
    );
    let connect = |client: &str| {
        let mut connection = Client::plain(site.plain());
        connection.send([&v2(client, 1)[..], REQUEST].concat());
        let status = connection.response().expect("it is told").status();
        (connection, status)
    };
    let (first, second) = (connect("192.0.2.7"), connect("192.0.2.7"));
    assert_eq!((first.1, second.1), (200, 200));
    let mut third = connect("192.0.2.7");
    assert_eq!(third.1, 503);
    assert_eq!(third.0.rest(), Ok((Vec::new(), End::Closed)));
    assert_eq!(site.refused("max_connections_per_client"), 1.0);
    // Others behind the same proxy have their own.
    let other = connect("192.0.2.8");
    assert_eq!(other.1, 200);
    assert_eq!(site.metric("evenkeel_bounded{of=\"clients\"}"), 2.0);
    drop((first, second, third, other));
    wait_until("nobody is counted", || {
        site.metric("evenkeel_bounded{of=\"clients\"}") == 0.0
    });
    // Two requests were made, and there are no more.
    assert_eq!(connect("192.0.2.7").1, 429);
    assert_eq!(connect("192.0.2.8").1, 200);
}

#[test]
fn connections_without_a_header_yet_are_counted() {
    let site = Site::start("[limits]\nmax_connections = 2\n");
    let mut waiting: Vec<_> = (0..2).map(|_| Client::plain(site.plain())).collect();
    wait_until("both are counted", || {
        site.metric("evenkeel_bounded{of=\"client_connections\"}") == 2.0
    });
    assert_eq!(asked(site.plain(), &[&local(), REQUEST]), 503);
    for client in &mut waiting {
        client.send([&v1("192.0.2.7", 1)[..], REQUEST].concat());
        assert_eq!(client.response().expect("it is served").status(), 200);
    }
}

#[test]
fn a_drain_serves_whoever_is_there() {
    let site = Site::start("[drain]\nwait = \"0s\"\nrequests = \"20s\"\n");
    let mut client = Client::plain(site.plain());
    client.send(&v1("192.0.2.7", 1)[..20]);
    wait_until("it is counted", || {
        site.metric("evenkeel_bounded{of=\"client_connections\"}") == 1.0
    });
    site.server.drain();
    wait_until("the listeners are closed", || {
        std::net::TcpStream::connect(site.direct()).is_err()
    });
    client.send([&v1("192.0.2.7", 1)[20..], REQUEST].concat());
    let answer = client.response().expect("it is served");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(site.forwarded_for(), "192.0.2.7");
    assert_eq!(site.server.drained(), evenkeel::server::Drained::Clean);
}

#[test]
fn curl_says_who_it_is() {
    if !require("curl") {
        return;
    }
    let site = Site::start("");
    for http in ["--http1.1", "--http2"] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(["--max-time", "20", "--haproxy-protocol", http])
            .arg("--cacert")
            .arg(&site.certificate.ca)
            .args([
                "--resolve",
                &format!("localhost:{}:127.0.0.1", site.secure().port()),
            ])
            .arg(format!("https://localhost:{}/", site.secure().port()));
        let output = output(&mut curl);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(site.forwarded_for(), "127.0.0.1");
    }
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
        .args(["--max-time", "20", "--haproxy-protocol"])
        .arg(format!("http://{}/", site.plain()));
    let output = output(&mut curl);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(site.forwarded_for(), "127.0.0.1");
}

/// HAProxy passes connections and requests on, with both versions, and checks with headers of its
/// own.
#[test]
fn haproxy_in_front() {
    if !require("haproxy") {
        return;
    }
    let site = Site::start("");
    let folder = Folder::new();
    let fronts: [SocketAddr; 4] = std::array::from_fn(|_| nobody());
    let mut text =
        "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n".to_owned();
    let ways = [
        ("http", "send-proxy", site.plain()),
        (
            "http",
            "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl",
            site.plain(),
        ),
        ("tcp", "send-proxy", site.secure()),
        (
            "tcp",
            "send-proxy-v2 proxy-v2-options crc32c",
            site.secure(),
        ),
    ];
    for (front, (mode, says, to)) in fronts.iter().zip(ways) {
        text += &format!(
            "listen l{}\n  mode {mode}\n  bind {front}\n  unique-id-format %rt\n  \
             server lb {to} check inter 100ms check-send-proxy {says}\n",
            front.port()
        );
    }
    let file = folder.write("haproxy.cfg", &text);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
    let _process = Process::spawn(&mut command);
    for front in fronts {
        wait_until("HAProxy listens", || {
            std::net::TcpStream::connect(front).is_ok()
        });
    }
    let client: IpAddr = "127.0.0.9".parse().expect("it is an address");
    for front in &fronts[..2] {
        let mut client = Client::plain_from(client, *front);
        for _ in 0..3 {
            assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
            assert_eq!(site.forwarded_for(), "127.0.0.9");
        }
    }
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    for front in &fronts[2..] {
        let mut client = Client::tls(*front, &trust, "localhost").expect("the handshake is made");
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
        assert_eq!(site.forwarded_for(), "127.0.0.1");
    }
    assert_eq!(
        site.refused("proxy_header"),
        0.0,
        "its checks are sound too"
    );
}
