//! The running instance that a command is about: where it is, and one question to it.
//!
//! Over its Unix socket if there is one, which needs no token; else over its control listener, with the
//! token in its file. Within a container that is all there is to know: `docker exec NAME evenkeel
//! status`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::http::{self, Answer, Peer, Whole};
use super::run_options::ConfigurationOptions;
use super::url;
use crate::admin::model::Problem;
use crate::admin::runtime_dir::{believed, socket_in, token_in};
use crate::config::{Place, USUAL_ADDRESS, token};

/// Which instance.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which instance")]
pub struct InstanceOptions {
    /// Its control socket
    #[arg(long, value_name = "PATH", conflicts_with = "admin")]
    socket: Option<PathBuf>,
    /// Its control listener, or its socket; otherwise $EVENKEEL_ADMIN, what the configuration says, or
    /// where they usually are
    #[arg(long, value_name = "http://IP:PORT")]
    admin: Option<String>,
    /// The file with the token that changes over TCP need
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// An instance, found.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Tried in turn.
    ways: Vec<Way>,
    token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Socket(PathBuf),
    Tcp {
        addresses: Vec<SocketAddr>,
        host: String,
    },
}

/// An instance said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Declined {
    /// The status of the answer.
    pub status: u16,
    /// What it said.
    pub message: String,
    /// All that it said.
    pub body: Vec<u8>,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same of a reload, which reads files and waits for new services.
const RELOADING: Duration = Duration::from_secs(35);

/// A thousand backends take half a megabyte.
const LARGEST: usize = 256 << 20;

/// The variable that says where.
const VARIABLE: &str = "EVENKEEL_ADMIN";

impl InstanceOptions {
    /// The configuration that it was started with, if that is said.
    pub fn configuration(&self) -> &ConfigurationOptions {
        &self.configuration
    }

    /// Where the instance may be.
    pub fn find(&self) -> anyhow::Result<Instance> {
        let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let (mut ways, mut token_file) = (Vec::new(), self.token_file.clone());
        if let Some(path) = &self.socket {
            ways.push(Way::Socket(path.clone()));
        } else if let Some(text) = &self.admin {
            ways.push(Way::of(text).with_context(|| format!("--admin {text}"))?);
        } else if let Some(text) = variable {
            ways.push(Way::of(&text).with_context(|| format!("{VARIABLE}={text}"))?);
        } else {
            let found = self.configuration.management();
            ways = Way::all(found.admin.socket, found.admin.address);
            if found.guessed {
                // What was read of it first, then where an instance usually is.
                let usual = Way::all(Place::Usual, Place::Usual);
                let more = usual.into_iter().filter(|way| !ways.contains(way));
                let more: Vec<_> = more.collect();
                ways.extend(more);
            }
            token_file = token_file.or(found.admin.token_file);
        }
        if ways.is_empty() {
            bail!("the configuration switches the control listener and its socket off");
        }
        Ok(Instance { ways, token_file })
    }
}

impl Way {
    /// All that there are, by what `[admin]` says of the socket and of the listener.
    fn all(socket: Place<PathBuf>, address: Place<SocketAddr>) -> Vec<Way> {
        let mut ways = match socket {
            Place::Off => Vec::new(),
            Place::At(path) => vec![Way::Socket(path)],
            Place::Usual => {
                let sockets = believed().into_iter().map(|folder| socket_in(&folder));
                sockets.map(Way::Socket).collect()
            }
        };
        match address {
            Place::Off => {}
            Place::At(address) => ways.push(Way::at(address)),
            Place::Usual => ways.push(Way::at(USUAL_ADDRESS)),
        }
        ways
    }

    /// `http://IP:PORT`, `IP:PORT`, or a path.
    fn of(text: &str) -> anyhow::Result<Way> {
        let host = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        if let Some(addresses) = url::addresses(host, Some(USUAL_ADDRESS.port())) {
            let host = host.to_owned();
            return Ok(Way::Tcp { addresses, host });
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        match path.contains('/') && !path.contains("://") {
            true => Ok(Way::Socket(path.into())),
            false => bail!(
                "http://IP:PORT (plain HTTP, and an address or localhost), or the path of a socket"
            ),
        }
    }

    fn at(address: SocketAddr) -> Way {
        let addresses = super::health::reachable(address);
        Way::Tcp {
            host: addresses[0].to_string(),
            addresses,
        }
    }

    fn peer(&self) -> Peer {
        match self {
            Way::Socket(path) => Peer::Socket(path.clone()),
            Way::Tcp { addresses, .. } => Peer::Tcp(addresses.clone()),
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Socket(path) => write!(f, "{}", path.display()),
            Way::Tcp { host, .. } => write!(f, "http://{host}"),
        }
    }
}

impl Instance {
    /// What a path says.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask("GET", path, None, "application/json").await?;
        read(answer).await
    }

    /// What a change comes to.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<T> {
        let answer = self.ask("POST", path, body, "application/json").await?;
        read(answer).await
    }

    /// A stream of events.
    pub async fn follow(&self, path: &str) -> anyhow::Result<Answer> {
        let mut answer = self.ask("GET", path, None, "text/event-stream").await?;
        match answer.status() {
            200 => Ok(answer),
            status => {
                let body = answer.whole(LARGEST).await?;
                Err(declined(status, &body).into())
            }
        }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        accept: &str,
    ) -> anyhow::Result<Answer> {
        let mut tried = Vec::new();
        for way in &self.ways {
            let request = self.request(way, (method, path, accept), body.clone())?;
            let peer = way.peer();
            let patience = match path {
                "/api/v1/reload" => RELOADING,
                _ => PATIENCE,
            };
            match timeout(patience, http::ask(&peer, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_nobody(&error) => tried.push((way, error)),
                Ok(Err(error)) => return Err(error).with_context(|| way.to_string()),
                Err(_) => bail!("{way}: no answer within {patience:?}"),
            }
        }
        Err(nobody(&tried))
    }

    fn request(
        &self,
        way: &Way,
        (method, path, accept): (&str, &str, &str),
        body: Option<String>,
    ) -> anyhow::Result<Request<Whole>> {
        let host = match way {
            Way::Socket(_) => "localhost",
            Way::Tcp { host, .. } => host,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        request = request.header(ACCEPT, accept);
        if let Way::Tcp { addresses, .. } = way
            && let Some(token) = self.token(addresses[0].port())?
        {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Whole::default, Whole::of);
        request.body(body).context("it cannot be asked so")
    }

    /// The token: that of a file that was named has to be there, another one may be.
    fn token(&self, port: u16) -> anyhow::Result<Option<String>> {
        if let Some(path) = &self.token_file {
            let token = token(path).with_context(|| path.display().to_string())?;
            return Ok(Some(token));
        }
        let mut places = believed().into_iter().map(|folder| token_in(&folder, port));
        Ok(places.find_map(|path| token(&path).ok()))
    }
}

async fn read<T: DeserializeOwned>(mut answer: Answer) -> anyhow::Result<T> {
    let status = answer.status();
    let body = timeout(PATIENCE, answer.whole(LARGEST)).await;
    let body = body.map_err(|_| anyhow!("the answer does not end"))??;
    if !(200..300).contains(&status) {
        return Err(declined(status, &body).into());
    }
    serde_json::from_slice(&body).context("what answers is no Evenkeel of this version")
}

fn declined(status: u16, body: &[u8]) -> Declined {
    let problem = serde_json::from_slice::<Problem>(body);
    let message = match problem {
        Ok(problem) if status == 401 => {
            format!(
                "{} (or use --socket, which needs none)",
                problem.error.message
            )
        }
        Ok(problem) => problem.error.message,
        Err(_) => format!("what answers says {status}"),
    };
    Declined {
        status,
        message,
        body: body.to_owned(),
    }
}

/// Nobody listens there, so another way may do.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn nobody(tried: &[(&Way, io::Error)]) -> anyhow::Error {
    let places: Vec<_> = tried.iter().map(|(way, _)| way.to_string()).collect();
    anyhow!(
        "no instance is listening at {}; does it run, and is admin.socket or admin.address set? \
         --socket or --admin says where it is",
        places.join(", ")
    )
}

/// What runs until it is done, on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// A path of a backend's: ids have slashes and colons.
pub fn backend_path(id: &str, action: &str) -> String {
    format!("/api/v1/backends/{}/{action}", url::encoded(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_url_an_address_or_a_path() {
        let tcp = |host: &str, addresses: &[&str]| {
            Some(Way::Tcp {
                host: host.to_owned(),
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            })
        };
        let socket = |path: &str| Some(Way::Socket(path.into()));
        for (text, way) in [
            (
                "http://127.0.0.1:9901",
                tcp("127.0.0.1:9901", &["127.0.0.1:9901"]),
            ),
            ("http://10.0.0.7/", tcp("10.0.0.7", &["10.0.0.7:9901"])),
            (
                "localhost:1",
                tcp("localhost:1", &["127.0.0.1:1", "[::1]:1"]),
            ),
            ("/run/x.sock", socket("/run/x.sock")),
            ("unix:./x.sock", socket("./x.sock")),
            ("https://127.0.0.1:9901", None),
            ("balancer.internal", None),
        ] {
            assert_eq!(Way::of(text).ok(), way, "{text}");
        }
    }

    #[test]
    fn an_id_is_encoded() {
        let path = backend_path("web/[::1]:80", "drain");
        assert_eq!(path, "/api/v1/backends/web%2F%5B%3A%3A1%5D%3A80/drain");
    }

    #[test]
    fn where_nobody_is_the_error_says_where_and_what_to_do() {
        let way = Way::Socket(PathBuf::from("/nowhere"));
        let error = nobody(&[(&way, io::ErrorKind::NotFound.into())]).to_string();
        assert!(
            error.starts_with(
                "no instance is listening at /nowhere; does it run, and is admin.socket"
            )
        );
    }
}
