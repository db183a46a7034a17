//! The control listener of this process: where it listens, who it lets in, and who carries out what it
//! asks for. On the control thread, but for the binding.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::reload::Request;
use super::services::Services;
use super::systemd::Doors;
use crate::admin::api::Desk;
use crate::admin::control::{self, Door};
use crate::admin::guard::Guard;
use crate::admin::history::{self, History};
use crate::admin::runtime_dir;
use crate::admin::state::State;
use crate::admin::token::Token;
use crate::clock::Millis;
use crate::config::{self, Place, USUAL_ADDRESS};
use crate::events::command::{Change, Command, Refused};
use crate::events::journal::{Journal, Kind, What};
use crate::listener;
use crate::listener::inherited::Inherited;
use crate::proxy::worker::Shared;
use crate::published::Published;
use crate::telemetry::logging::{self, LoggingError};

/// Commands that wait; one more is refused.
const COMMANDS: usize = 16;

/// The ways in, open.
#[derive(Debug, Default)]
pub struct Entrances {
    tcp: Option<(TcpListener, Guard)>,
    socket: Option<UnixListener>,
    /// What is left in the file system, to be taken away at the end.
    pub left: Left,
}

/// Files of this process that go with it.
#[derive(Debug, Default)]
pub struct Left(Vec<(PathBuf, Option<Identity>)>);

/// Which file it is, whatever it is called: device and number.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Left {
    fn push(&mut self, path: PathBuf) {
        let which = identity(&path);
        self.0.push((path, which));
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        for (path, which) in &self.0 {
            // The next process may have put its own there.
            if identity(path) == *which {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Entrances {
    /// Opens them. What was asked for and cannot be had is an error, what is only usual a warning.
    pub fn open(config: &config::Admin, inherited: &Inherited) -> anyhow::Result<Entrances> {
        let mut entrances = Entrances::default();
        let (socket, asked) = match &config.socket {
            Place::Off => (None, false),
            Place::At(path) => (Some(Ok(path.clone())), true),
            Place::Usual => {
                let folder = runtime_dir::usable();
                (
                    Some(folder.map(|folder| runtime_dir::socket_in(&folder))),
                    false,
                )
            }
        };
        if let Some(path) = socket {
            let listened = path.and_then(|path| {
                let listener = runtime_dir::listen(&path);
                let listener = listener.map_err(|error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                });
                Ok((listener?, path))
            });
            match listened {
                Ok((listener, path)) => {
                    tracing::info!(path = %path.display(), "control socket");
                    entrances.socket = Some(listener);
                    entrances.left.push(path);
                }
                Err(error) if asked => {
                    return Err(error).context("admin.socket: cannot listen on it");
                }
                Err(error) => tracing::warn!(
                    %error,
                    "no control socket: another place is --set admin.socket=PATH, none is \
                     --set admin.socket=off"
                ),
            }
        }
        let bound = match config.address {
            Place::Off => return Ok(entrances),
            Place::At(address) => {
                let bound = listener::listen(inherited, "admin", address);
                bound.with_context(|| format!("control listener: cannot listen on {address}"))?
            }
            Place::Usual => match listener::listen(inherited, "admin", USUAL_ADDRESS) {
                Ok(bound) => bound,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        address = %USUAL_ADDRESS,
                        "no control listener: another address is --set admin.address=IP:PORT, none \
                         is --set admin.address=off"
                    );
                    return Ok(entrances);
                }
            },
        };
        let address = bound.local_addr()?;
        let guard = Guard::Network {
            token: entrances.token(config, address)?,
            loopback: address.ip().is_loopback(),
            hosts: config.hosts.clone(),
        };
        tracing::info!(%address, "control listening");
        entrances.tcp = Some((bound, guard));
        Ok(entrances)
    }

    /// Where the control listener listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok())
    }

    fn token(&mut self, config: &config::Admin, address: SocketAddr) -> anyhow::Result<Token> {
        if let Some(path) = &config.token_file {
            let token = config::token(path);
            let token = token.with_context(|| format!("admin.token_file: {}", path.display()))?;
            return Ok(Token::new(token));
        }
        let token = Token::random().context("cannot make a token for the control listener")?;
        let left = runtime_dir::usable().and_then(|folder| {
            let path = runtime_dir::token_in(&folder, address.port());
            token.leave(&path)?;
            Ok(path)
        });
        match left {
            Ok(path) => {
                tracing::info!(file = %path.display(), "what changes over TCP need is in this file");
                self.left.push(path);
            }
            Err(error) => tracing::warn!(
                %error,
                "nobody can change anything over TCP, as the token cannot be left in a file: \
                 admin.token_file gives one"
            ),
        }
        Ok(token)
    }
}

/// Who carries commands out.
pub struct Steward {
    pub(super) published: Arc<Published<Shared>>,
    pub(super) services: Rc<Services>,
    pub(super) reloads: mpsc::UnboundedSender<Request>,
    pub(super) journal: Arc<Journal>,
}

/// Starts what belongs to the control listener on the present runtime.
pub fn start(
    entrances: Entrances,
    state: &Rc<State>,
    steward: Steward,
    doors: &mut Doors,
) -> std::io::Result<Left> {
    let Entrances { tcp, socket, left } = entrances;
    if tcp.is_none() && socket.is_none() {
        return Ok(left);
    }
    let (commands, asked) = mpsc::channel(COMMANDS);
    let history: Rc<RefCell<History>> = Rc::default();
    let journal = Arc::clone(&steward.journal);
    let watching = history::watch(Rc::clone(&history), Rc::clone(state), Arc::clone(&journal));
    spawn_local(watching);
    let watches = steward.services.watches().clone();
    let desk = Rc::new(Desk::new(
        Rc::clone(state),
        watches,
        journal,
        history,
        commands,
    ));
    if let Some((listener, guard)) = tcp {
        let door = Door::Tcp(tokio::net::TcpListener::from_std(listener)?);
        let task = spawn_local(control::serve(door, guard, Rc::clone(&desk)));
        doors.tasks.push(task);
    }
    if let Some(listener) = socket {
        listener.set_nonblocking(true)?;
        let door = Door::Unix(tokio::net::UnixListener::from_std(listener)?);
        let task = spawn_local(control::serve(door, Guard::FileMode, Rc::clone(&desk)));
        doors.tasks.push(task);
    }
    spawn_local(steward.obey(asked));
    Ok(left)
}

impl Steward {
    /// Carries commands out, for as long as the runtime lives.
    async fn obey(self, mut asked: mpsc::Receiver<Command>) {
        while let Some(command) = asked.recv().await {
            // Who asked may be gone: what was asked for is done all the same.
            match command {
                Command::Reload(reply) => drop(self.reloads.send(Some(reply))),
                Command::Drain(reply) => drop(reply.send(self.drain())),
                Command::Undrain(reply) => drop(reply.send(self.undrain())),
                Command::Refresh(name, reply) => self.refresh(name.as_deref(), reply),
                Command::LogLevel { level, by, reply } => {
                    let _ = reply.send(self.set_log_level(&level, &by));
                }
                Command::Backend {
                    service,
                    address,
                    change,
                    reply,
                } => drop(reply.send(self.set_by_hand(&service, address, change))),
            }
        }
    }

    fn drain(&self) -> Result<(), Refused> {
        let drain = Arc::clone(&self.published.load().drain);
        let already = drain.is_by_hand();
        match drain.announce(Millis::now()) {
            true if already => Ok(()),
            true => {
                let text = "not ready any more, still accepting: asked for by the control API";
                self.say(What::new(Kind::DrainBegun, text));
                Ok(())
            }
            false => Err(Refused::Ending),
        }
    }

    fn undrain(&self) -> Result<(), Refused> {
        let drain = Arc::clone(&self.published.load().drain);
        if drain.take_back() {
            let text = "ready again: asked for by the control API";
            self.say(What::new(Kind::DrainTakenBack, text));
            return Ok(());
        }
        Err(match drain.since() {
            Some(_) => Refused::Ending,
            None => Refused::NotDraining,
        })
    }

    fn refresh(&self, name: Option<&str>, reply: oneshot::Sender<Vec<Arc<str>>>) {
        let names = self.services.watches().refresh(name);
        if !names.is_empty() {
            let text = match name {
                Some(name) => format!("{name} is looked up: asked for by the control API"),
                None => "all names are looked up: asked for by the control API".to_owned(),
            };
            self.say(What {
                name: name.map(Into::into),
                ..What::new(Kind::RefreshAsked, text)
            });
        }
        let _ = reply.send(names);
    }

    fn set_log_level(&self, level: &str, by: &str) -> Result<String, LoggingError> {
        let before = logging::set_level(level)?;
        let text = format!("log level {level}, it was {before}: asked for by {by}");
        self.say(What::new(Kind::LogLevelSet, text));
        Ok(before)
    }

    fn set_by_hand(
        &self,
        service: &str,
        address: SocketAddr,
        change: Change,
    ) -> Result<(), Refused> {
        let shared = self.published.load();
        let mut services = shared.config.services.iter().zip(&shared.services);
        let found = services.find(|(config, _)| *config.name == *service);
        let (config, serviced) = found.ok_or(Refused::Unknown)?;
        self.services.set_by_hand(serviced.id, address, change)?;
        let (kind, text) = match change {
            Change::Drain => (
                Kind::BackendDrained,
                format!("{address} is drained by hand"),
            ),
            Change::Undrain => (
                Kind::BackendUndrained,
                format!("{address} is no longer drained by hand"),
            ),
            Change::Weigh(Some(weight)) => (
                Kind::WeightSet,
                format!("{address} has weight {weight} by hand"),
            ),
            Change::Weigh(None) => (
                Kind::WeightCleared,
                format!("{address} has the weight of its record again"),
            ),
        };
        self.say(What {
            service: Some(Arc::clone(&config.name)),
            backend: Some(address.to_string().into()),
            ..What::new(kind, text)
        });
        Ok(())
    }

    fn say(&self, what: What) {
        tracing::info!(service = what.service.as_deref(), "control: {}", what.text);
        self.journal.record(what);
    }
}

impl std::fmt::Debug for Steward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steward").finish_non_exhaustive()
    }
}
