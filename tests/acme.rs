//! Certificates from an authority: Pebble, the one that Let's Encrypt tests clients with, which here
//! rejects a fifth of all nonces.

#[path = "support/name_servers.rs"]
mod name_servers;
#[path = "acme/suggesting.rs"]
mod suggesting;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use tokio::time::Instant;

use name_servers::{Kind, NameServer};
use suggesting::{Suggesting, base64url};
use support::backend::Backend;
use support::client::{Client, tls_config};
use support::server::{Certificate, Folder, Process, Server};
use support::{pause, require, wait_until};

/// An order takes seconds, and one whose nonces were all rejected is made again some seconds later.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an authority listens, and where it looks for proofs.
#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    roots: u16,
    names: u16,
    management: u16,
    http: u16,
    tls: u16,
}

/// Pebble, with a name server for which every name is this machine.
struct Authority {
    folder: Folder,
    /// Of its own server.
    certificate: Certificate,
    ports: Ports,
    life: u32,
    bound: bool,
    /// Another name server.
    names: Option<SocketAddr>,
    processes: Vec<Process>,
}

impl Authority {
    /// One that does not run yet.
    fn stopped() -> Authority {
        let folder = Folder::new();
        let [api, roots, names, management, http, tls] = free_ports();
        Authority {
            certificate: folder.certificate("pebble", &["localhost", "127.0.0.1"]),
            folder,
            ports: Ports {
                api,
                roots,
                names,
                management,
                http,
                tls,
            },
            life: 90 * 86_400,
            bound: false,
            names: None,
            processes: Vec::new(),
        }
    }

    fn started() -> Authority {
        let mut authority = Authority::stopped();
        authority.start();
        authority
    }

    fn start(&mut self) {
        let ports = self.ports;
        let names = match self.names {
            Some(address) => address,
            None => {
                let address = SocketAddr::from(([127, 0, 0, 1], ports.names));
                let mut names = Command::new("pebble-challtestsrv");
                names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
                names.args(["-dns01", &address.to_string(), "-defaultIPv6", ""]);
                names.args(["-management", &format!("127.0.0.1:{}", ports.management)]);
                self.processes.push(Process::spawn(&mut names));
                wait_until("the name server listens", || listens(ports.names));
                address
            }
        };
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", ports.api),
            "managementListenAddress": format!("127.0.0.1:{}", ports.roots),
            "certificate": self.certificate.cert,
            "privateKey": self.certificate.key,
            "httpPort": ports.http,
            "tlsPort": ports.tls,
            "externalAccountBindingRequired": self.bound,
            "externalAccountMACKeys": { "kid-1": EAB_KEY },
            "certificateValidityPeriod": self.life,
        }});
        let config = self.folder.write("pebble.json", &config.to_string());
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(config);
        pebble.args(["-dnsserver", &names.to_string()]);
        pebble.env("PEBBLE_WFE_NONCEREJECT", "20");
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        // Otherwise it takes some orders for proven already.
        pebble.env("PEBBLE_AUTHZREUSE", "0");
        let pebble = Process::spawn(pebble.stdin(Stdio::null()));
        self.processes.push(pebble);
        wait_until("the authority listens", || {
            listens(ports.api) && listens(ports.roots)
        });
    }

    /// A client that trusts what it issues.
    fn client(&self) -> Arc<ClientConfig> {
        let own = tls_config(&self.certificate.ca, &[&TLS13]);
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.roots));
        let mut client = None;
        wait_until("the authority says what it is trusted by", || {
            client = Client::tls(address, &own, "localhost").ok();
            client.is_some()
        });
        let mut client = client.expect("waited for");
        let root = client.get("localhost", "/roots/0").expect("it answers");
        let root = String::from_utf8(root.body).expect("PEM is text");
        tls_config(&self.folder.write("root.pem", &root), &[&TLS13])
    }

    /// What it has said.
    fn log(&self) -> String {
        let lines = self.processes.iter().flat_map(Process::access);
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// As in Debian's example.
const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// Replicas that share a store, behind the names `one.test` and `two.test`.
struct Site {
    store: PathBuf,
    _folder: Folder,
    backend: Backend,
    /// More keys of `[acme]`.
    keys: String,
    hosts: Vec<&'static str>,
}

impl Site {
    fn new(hosts: &[&'static str], keys: &str) -> Site {
        let folder = Folder::new();
        Site {
            store: folder.path().join("store"),
            _folder: folder,
            backend: Backend::start("one"),
            keys: keys.to_owned(),
            hosts: hosts.to_vec(),
        }
    }

    /// A replica. `ports`: of its listeners, http and https.
    fn replica(&self, authority: &Authority, ports: (u16, u16)) -> Server {
        let routes = self.hosts.iter().map(|host| {
            format!("[[route]]\nhost = \"{host}\"\nlistener = [\"https\"]\nservice = \"one\"\n")
        });
        Server::in_process(&format!(
            r#"
            workers = 1

            [admin]
            address = "127.0.0.1:0"

            [acme]
            directory = "https://127.0.0.1:{}/dir"
            ca = "{}"
            contact = ["mailto:somebody@example.com"]
            accept_terms = true
            store = "{}"
            {}

            [[listener]]
            name = "http"
            address = "127.0.0.1:{}"
            protocol = "http"
            redirect = "https"

            [[listener]]
            name = "https"
            address = "127.0.0.1:{}"
            protocol = "https"
            acme = true

            [[service]]
            name = "one"
            discover = {{ static = ["{}"] }}

            {}
            "#,
            authority.ports.api,
            authority.certificate.ca.display(),
            self.store.display(),
            self.keys,
            ports.0,
            ports.1,
            self.backend.address,
            routes.collect::<String>(),
        ))
    }

    /// The one that the authority asks.
    fn asked(&self, authority: &Authority) -> Server {
        self.replica(authority, (authority.ports.http, authority.ports.tls))
    }
}

/// The certificate that a client is shown, if it trusts it.
fn shown(
    server: &Server,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Option<CertificateDer<'static>> {
    let client = Client::tls(server.addresses[1], client, name).ok()?;
    let session = client.session().expect("it speaks TLS");
    Some(session.peer_certificates()?[0].clone())
}

fn await_shown(
    server: &Server,
    authority: &Authority,
    client: &Arc<ClientConfig>,
    name: &str,
) -> CertificateDer<'static> {
    let begun = Instant::now();
    loop {
        if let Some(shown) = shown(server, client, name) {
            return shown;
        }
        let late = begun.elapsed() > PATIENCE;
        assert!(!late, "no certificate for {name}: {}", authority.log());
        pause(Duration::from_millis(50));
    }
}

/// The value of a series on the metrics page.
fn metric(server: &Server, series: &str) -> f64 {
    let value = server.metric(series);
    value.unwrap_or_else(|| panic!("there is no {series}"))
}

fn orders(server: &Server, result: &str) -> f64 {
    let series = format!("evenkeel_acme_orders_total{{result=\"{result}\"}}");
    metric(server, &series)
}

/// Kind and text of the events about orders, oldest first.
fn told(server: &Server) -> Vec<(String, String)> {
    let address = server.admin.expect("there is a control listener");
    let answer = Client::plain(address).get(&address.to_string(), "/api/v1/events");
    let body = answer.expect("it answers").body;
    let events: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
    let field = |event: &serde_json::Value, name: &str| event[name].as_str().map(str::to_owned);
    let events = events["events"].as_array().expect("a list").iter();
    let events = events.filter_map(|event| field(event, "kind").zip(field(event, "text")));
    events
        .filter(|(kind, _)| kind.starts_with("acme_"))
        .collect()
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Ports that are free, for programs that cannot say which they took: below those that the kernel gives
/// to whoever asks for any, so that nobody else gets them meanwhile.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id();
            let port = 12_000 + (next % 20_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

fn there() -> bool {
    require("pebble") && require("pebble-challtestsrv")
}

/// Modes of all that is below a folder.
fn modes(folder: &Path) -> BTreeSet<(bool, u32)> {
    let mut modes = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("it is there") {
        let entry = entry.expect("it can be read");
        let about = entry.metadata().expect("it is there");
        modes.insert((about.is_dir(), about.permissions().mode() & 0o777));
        if about.is_dir() {
            modes.extend(self::modes(&entry.path()));
        }
    }
    modes
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn obtained_by_tls_and_kept_over_a_restart() {
    if !there() {
        return;
    }
    let authority = Authority::started();
    let site = Site::new(&["one.test", "two.test"], "challenges = [\"tls-alpn-01\"]");
    let client = authority.client();
    let server = site.asked(&authority);
    let one = await_shown(&server, &authority, &client, "one.test");
    let two = await_shown(&server, &authority, &client, "two.test");
    assert_ne!(one, two);
    let mut connected = Client::tls(server.addresses[1], &client, "one.test").expect("it trusts");
    let answer = connected.get("one.test", "/").expect("it is answered");
    assert_eq!(answer.status(), 200);
    assert_eq!(orders(&server, "issued"), 2.0);
    // Nothing but folders of 0700 and files of 0600.
    assert_eq!(
        modes(&site.store),
        BTreeSet::from([(false, 0o600), (true, 0o700)])
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    wait_until("it is known when they are renewed", || {
        let due = metric(
            &server,
            "evenkeel_acme_renewal_timestamp_seconds{name=\"one.test\"}",
        );
        (55.0..=60.0).contains(&((due - now) / 86_400.0))
    });
    drop((connected, server));

    let server = site.asked(&authority);
    let shown = shown(&server, &client, "one.test");
    assert_eq!(shown, Some(one), "from the first handshake on");
    pause(Duration::from_secs(2));
    assert_eq!(orders(&server, "issued"), 0.0);
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn obtained_over_http_with_an_account_that_belongs_to_another() {
    if !there() {
        return;
    }
    let mut authority = Authority::stopped();
    authority.bound = true;
    authority.start();
    let key = authority.folder.write("eab.key", &format!("{EAB_KEY}\n"));
    let site = Site::new(
        &["one.test"],
        &format!(
            "challenges = [\"http-01\"]\neab = {{ kid = \"kid-1\", key_file = \"{}\" }}",
            key.display()
        ),
    );
    let server = site.asked(&authority);
    await_shown(&server, &authority, &authority.client(), "one.test");
    // What is no token of ours is redirected as ever.
    let mut plain = Client::plain(server.addresses[0]);
    let other = plain.get("one.test", "/.well-known/acme-challenge/other");
    assert_eq!(other.expect("it is answered").status(), 308);
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn renewed_at_two_thirds_of_the_life_without_a_failed_handshake() {
    if !there() {
        return;
    }
    let mut authority = Authority::stopped();
    authority.life = 45;
    authority.start();
    let site = Site::new(&["one.test"], "");
    let client = authority.client();
    let server = site.asked(&authority);
    let first = await_shown(&server, &authority, &client, "one.test");
    let begun = Instant::now();
    loop {
        let now = shown(&server, &client, "one.test");
        if now.expect("a handshake at any time") != first {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {}", authority.log());
        pause(Duration::from_millis(20));
    }
    assert!(begun.elapsed() > Duration::from_secs(20), "far too early");
    assert_eq!(orders(&server, "issued"), 2.0);
    let from = format!("from https://127.0.0.1:{}/dir", authority.ports.api);
    let said = |kind: &str, done: &str| {
        let text = format!("a certificate for one.test was {done} {from}");
        (kind.to_owned(), text)
    };
    let expected = [
        said("acme_obtained", "obtained"),
        said("acme_renewed", "renewed"),
    ];
    wait_until("both are events", || {
        // An order that all nonces of were rejected is one, too.
        let mut told = told(&server);
        told.retain(|(kind, _)| kind != "acme_failed");
        told == expected
    });
}

/// RFC 9773: asked about the certificate that is there, the authority says that its time has come; the
/// next order says which one it replaces.
#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn renewed_when_the_authority_suggests_it() {
    if !there() || !require("openssl") {
        return;
    }
    let mut authority = Authority::stopped();
    // A certificate is left alone for half of its life, whatever is suggested.
    authority.life = 30;
    authority.start();
    let client = authority.client();
    let pebble = authority.ports.api;
    let suggesting = Suggesting::before(pebble, &authority.certificate);
    authority.ports.api = suggesting.port;
    let site = Site::new(&["one.test"], "");
    let server = site.asked(&authority);
    let first = await_shown(&server, &authority, &client, "one.test");
    let begun = Instant::now();
    while shown(&server, &client, "one.test").expect("a handshake at any time") == first {
        assert!(begun.elapsed() < PATIENCE, "never: {}", authority.log());
        pause(Duration::from_millis(50));
    }
    let seen = suggesting.seen();
    let id = seen.asked.first().expect("it was asked");
    assert_eq!(named(id), issuer_and_serial(&authority.folder, &first));
    // Those before it are the first one, as often as its nonces were rejected.
    let replaces = seen.orders.iter().flatten().next();
    assert_eq!(replaces, Some(id), "{:?}", seen.orders);
    assert_eq!(seen.orders[0], None, "{:?}", seen.orders);
}

/// Key identifier and serial number in an identifier of RFC 9773 §4.1.
fn named(id: &str) -> (String, String) {
    let hex = |part: &str| {
        let bytes = base64url(part).into_iter();
        bytes.map(|byte| format!("{byte:02X}")).collect::<String>()
    };
    let (issuer, serial) = id.split_once('.').expect("it has two parts");
    (hex(issuer), hex(serial))
}

/// The same as openssl reads them off the certificate.
fn issuer_and_serial(folder: &Folder, certificate: &CertificateDer<'_>) -> (String, String) {
    let file = folder.path().join("shown.der");
    fs::write(&file, certificate).expect("the folder can be written");
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-inform", "der", "-noout", "-serial", "-ext"]);
    openssl.arg("authorityKeyIdentifier").arg("-in").arg(file);
    let said = openssl.output().expect("it is installed");
    let said = String::from_utf8(said.stdout).expect("it is text");
    let mut lines = said.lines();
    let serial = lines.find_map(|line| line.strip_prefix("serial="));
    let serial = serial.expect("it has one").to_owned();
    let issuer = said.lines().last().expect("it has one").trim();
    let issuer = issuer.trim_start_matches("keyid:").replace(':', "");
    (issuer, serial)
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn an_authority_that_is_down_holds_nothing_up() {
    if !there() || !require("curl") {
        return;
    }
    let mut authority = Authority::stopped();
    let site = Site::new(&["one.test"], "");
    let server = site.asked(&authority);
    let probe = server.probe.expect("there is a probe listener");
    wait_until("it is ready", || {
        let answer = Client::plain(probe).get("localhost", "/readyz");
        answer.expect("it answers").status() == 200
    });
    // Who does not ask who that is, is served.
    let insecure = Command::new("curl")
        .args(["-skS", "--max-time", "10", "--resolve"])
        .arg(format!("one.test:{}:127.0.0.1", authority.ports.tls))
        .arg(format!("https://one.test:{}/", authority.ports.tls))
        .output();
    let insecure = insecure.expect("curl is there");
    assert!(insecure.status.success(), "{insecure:?}");
    wait_until("it has tried", || orders(&server, "unreachable") > 0.0);
    wait_until("that is an event", || !told(&server).is_empty());
    let (kind, text) = told(&server).remove(0);
    assert_eq!(kind, "acme_failed");
    let why = "no certificate for one.test: ";
    assert!(text.starts_with(why) && text.contains("next at "), "{text}");
    authority.start();
    await_shown(&server, &authority, &authority.client(), "one.test");
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn replicas_make_one_order_and_answer_for_each_other() {
    if !there() {
        return;
    }
    let authority = Authority::started();
    let site = Site::new(&["one.test"], "challenges = [\"tls-alpn-01\"]");
    let client = authority.client();
    let [http, tls] = free_ports();
    // Nobody asks this one, which orders.
    let orderer = site.replica(&authority, (http, tls));
    let challenges = site
        .store
        .join(format!("127.0.0.1_{}_dir/challenges", authority.ports.api));
    wait_until("it has ordered", || {
        fs::read_dir(&challenges).is_ok_and(|mut open| open.next().is_some())
    });
    let answerer = site.asked(&authority);
    let one = await_shown(&orderer, &authority, &client, "one.test");
    let other = await_shown(&answerer, &authority, &client, "one.test");
    assert_eq!(one, other);
    let issued = orders(&orderer, "issued") + orders(&answerer, "issued");
    assert_eq!(issued, 1.0);
    assert_eq!(orders(&answerer, "refused"), 0.0);
}

#[test]
#[ignore = "an authority takes its time: .ci/run runs it"]
fn a_wildcard_is_proven_by_dns() {
    if !there() || !require("named") {
        return;
    }
    let names = NameServer::start(Kind::Bind);
    let mut authority = Authority::stopped();
    authority.names = Some(names.address);
    authority.start();
    let site = Site::new(
        &["*.svc.test"],
        &format!(
            "dns = {{ server = \"{}\", key_file = \"{}\", wait = \"100ms\" }}",
            names.address,
            names.key_file().display()
        ),
    );
    let server = site.asked(&authority);
    await_shown(&server, &authority, &authority.client(), "any.svc.test");
    // Nothing is left in the zone.
    let left = names.ask(
        "_acme-challenge.svc.test",
        hickory_proto::rr::RecordType::TXT,
    );
    assert!(left.expect("it answers").answers.is_empty());
}
