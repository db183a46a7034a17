//! What the demo plays with: a DNS zone, backends that come and go, and a real balancer before
//! them. All on loopback, all gone when it is dropped but for the balancer's threads, which
//! [`Stage::close`] ends.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::traffic::HOST;
use crate::admin::token::Token;
use crate::balance::shares::{self, Weight};
use crate::config;
use crate::dns_server::{self, Handle, SrvData, Zone};
use crate::sample::{self, Phase, Sample};
use crate::server::{self, Order, Running};
use crate::tls::dev::{DevFiles, Existing, self_signed};

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    zone: Zone,
    dns: Handle,
    players: Vec<Player>,
    balancer: Running,
    /// The authority of the balancer's certificate, in PEM.
    pub ca: String,
    folder: Folder,
}

/// A backend and what is known of it.
#[derive(Debug)]
pub struct Player {
    /// Its name.
    pub name: String,
    /// Its SRV priority.
    pub priority: u16,
    /// Its SRV weight.
    pub weight: u16,
    /// Does DNS list it?
    pub listed: bool,
    address: SocketAddr,
    /// While it answers.
    task: Option<JoinHandle<()>>,
}

impl Player {
    /// Does it answer?
    pub fn answers(&self) -> bool {
        self.task.is_some()
    }

    /// One that answers, and that DNS is about to list.
    async fn new(name: &str, priority: u16, weight: u16) -> anyhow::Result<Player> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Player {
            name: name.to_owned(),
            priority,
            weight,
            listed: true,
            address: listener.local_addr()?,
            task: Some(perform(name, listener)),
        })
    }

    fn register(&self, zone: &Zone) -> anyhow::Result<()> {
        zone.set_addresses(&self.target(), TTL, &[self.address.ip()])?;
        Ok(zone.add_srv(SERVICE, TTL, self.record())?)
    }

    fn target(&self) -> String {
        format!("{}.{ORIGIN}", self.name)
    }

    fn record(&self) -> SrvData {
        let port = self.address.port();
        SrvData::new(self.priority, self.weight, port, &self.target())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Stage {
    /// Builds it: backends and DNS first, then the balancer at `port` (0: any). When this returns
    /// the balancer says that it is ready, as an orchestrator would wait for it.
    pub async fn open(port: u16, cast: &[(&str, u16, u16)]) -> anyhow::Result<Stage> {
        let zone = Zone::new(ORIGIN)?;
        let mut players = Vec::new();
        for &(name, priority, weight) in cast {
            let player = Player::new(name, priority, weight).await?;
            player.register(&zone)?;
            players.push(player);
        }
        let (udp, tcp) = dns_server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .context("cannot open sockets for DNS")?;
        let dns = dns_server::serve(udp, tcp, zone.clone())?;

        let folder = Folder::new()?;
        let made = self_signed(&[HOST.into(), "127.0.0.1".into()])?;
        let files = DevFiles::within(&folder.0);
        files.write(&made, Existing::Keep)?;
        let (socket, token) = (folder.socket(), folder.token());
        Token::random()?.leave(&token)?;
        let config = configuration(port, dns.address(), &files, [&socket, &token]);
        let config = config::from_toml_str(&config)?;
        let balancer = server::start(config)
            .with_context(|| format!("port {port} may be taken; --port 0 takes a free one"))?;
        let probe = balancer.probe.context("the configuration has a probe")?;
        timeout(PATIENCE, ready(probe))
            .await
            .context("the balancer does not become ready")?;
        Ok(Stage {
            zone,
            dns,
            players,
            balancer,
            ca: made.ca,
            folder,
        })
    }

    /// Where the balancer listens.
    pub fn address(&self) -> SocketAddr {
        self.balancer.addresses[0]
    }

    /// Where the balancer answers probes.
    pub fn probe(&self) -> Option<SocketAddr> {
        self.balancer.probe
    }

    /// Where the dashboard is.
    pub fn dashboard(&self) -> Option<SocketAddr> {
        self.balancer.admin
    }

    /// The file with the token that changes from the dashboard need.
    pub fn token_file(&self) -> PathBuf {
        self.folder.token()
    }

    /// What commands ask.
    pub fn socket(&self) -> PathBuf {
        self.folder.socket()
    }

    /// Where DNS answers.
    pub fn dns(&self) -> SocketAddr {
        self.dns.address()
    }

    /// The file that curl is to trust.
    pub fn ca_file(&self) -> PathBuf {
        DevFiles::within(&self.folder.0).ca
    }

    /// Everybody, by name.
    pub fn players(&self) -> &[Player] {
        &self.players
    }

    /// A new backend: it begins to answer, then DNS lists it.
    pub async fn enter(&mut self, name: &str, priority: u16, weight: u16) -> anyhow::Result<()> {
        let player = Player::new(name, priority, weight).await?;
        player.register(&self.zone)?;
        self.players.push(player);
        Ok(())
    }

    /// DNS lists a backend again.
    pub fn list(&mut self, name: &str) -> anyhow::Result<()> {
        let player = named(&mut self.players, name);
        player.listed = true;
        player.register(&self.zone)
    }

    /// DNS lists it no longer; it goes on answering.
    pub fn delist(&mut self, name: &str) -> anyhow::Result<()> {
        let player = named(&mut self.players, name);
        player.listed = false;
        let port = player.address.port();
        self.zone.remove_srv(SERVICE, &player.target(), port)?;
        Ok(())
    }

    /// A backend dies: its socket and all its connections close. DNS still lists it.
    pub async fn kill(&mut self, name: &str) {
        if let Some(task) = named(&mut self.players, name).task.take() {
            task.abort();
            // It ends by the abort; then its sockets are closed.
            let _ = task.await;
        }
    }

    /// A backend that died answers again, at the same address.
    pub async fn revive(&mut self, name: &str) -> anyhow::Result<()> {
        let player = named(&mut self.players, name);
        if player.task.is_none() {
            let listener = TcpListener::bind(player.address).await?;
            player.task = Some(perform(name, listener));
        }
        Ok(())
    }

    /// Who should serve now and with which share: those of the lowest priority that are listed
    /// and answer, by weight.
    pub fn expected(&self) -> Vec<(&str, f64)> {
        let able = || self.players.iter().filter(|p| p.listed && p.answers());
        let first = able().map(|player| player.priority).min();
        let tier: Vec<_> = able().filter(|p| Some(p.priority) == first).collect();
        let weigh = |player: &&Player| Weight {
            weight: player.weight,
            split: 1,
        };
        let weights: Vec<_> = tier.iter().map(weigh).collect();
        let names = tier.iter().map(|player| player.name.as_str());
        names.zip(shares::shares(&weights)).collect()
    }

    /// Ends the balancer and waits for its threads.
    pub fn close(self) -> anyhow::Result<()> {
        // Nothing is under way any more, so nothing is cut.
        self.balancer.order(Order::Stop);
        self.balancer.wait()?;
        Ok(())
    }
}

/// Waits until `/readyz` at `probe` says 200.
async fn ready(probe: SocketAddr) {
    while !matches!(is_ready(probe).await, Ok(true)) {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn is_ready(probe: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(probe).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// Serves until the task is aborted: nobody takes leave here.
fn perform(name: &str, listener: TcpListener) -> JoinHandle<()> {
    let (_, phases) = watch::channel(Phase::Serving);
    let sample = Sample::new(name);
    tokio::spawn(async {
        sample::serve(listener, sample, phases).await;
    })
}

fn named<'a>(players: &'a mut [Player], name: &str) -> &'a mut Player {
    let mut players = players.iter_mut();
    players
        .find(|player| player.name == name)
        .expect("the script names who is in the cast")
}

fn configuration(
    port: u16,
    dns: SocketAddr,
    files: &DevFiles,
    [socket, token]: [&Path; 2],
) -> String {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:{port}"
        protocol = "https"
        certificates = [{{ cert = {}, key = {} }}]

        [[service]]
        name = "web"
        discover = {{ srv = "{SERVICE}." }}

        [[route]]
        service = "web"

        [dns]
        servers = ["{dns}"]

        [probe]
        address = "127.0.0.1:0"

        [admin]
        address = "127.0.0.1:0"
        socket = {}
        token_file = {}

        [log]
        access = "off"
        "#,
        quoted(&files.cert),
        quoted(&files.key),
        quoted(socket),
        quoted(token),
    )
}

/// A folder of our own for the certificate, the control socket and its token, readable by its owner
/// only, removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Folder> {
        let name = format!("evenkeel-demo-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Fails if somebody else's is there.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn token(&self) -> PathBuf {
        self.0.join("token")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is a certificate for localhost that nobody trusts.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The zone. RFC 6761 section 6.2: no such names exist outside.
pub const ORIGIN: &str = "demo.test";

/// The name that the balancer asks for.
pub const SERVICE: &str = "_http._tcp.web.demo.test";

/// For the balancer to become ready: it gives up waiting for DNS after 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// Of every record.
pub const TTL: Duration = Duration::from_secs(1);
