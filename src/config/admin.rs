//! `[admin]`: the table as it is written, and what it becomes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::diagnostics::{Problem, Problems};
use super::names;
use super::read::{At, table};
use super::scalar::BindOrOff;
use super::source::{Files, Sources, Span};

/// Where this process is asked how it is, and told what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The control listener.
    pub address: Place<SocketAddr>,
    /// The Unix socket.
    pub socket: Place<PathBuf>,
    /// Where the token is that changes over TCP need; `None`: one is made at the start.
    pub token_file: Option<PathBuf>,
    /// Names by which it may be asked besides its own address and those of loopback, lower case.
    pub hosts: Vec<Box<str>>,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<T> {
    /// Nowhere.
    Off,
    /// Where it usually is; if that cannot be, the process does without.
    Usual,
    /// There, or the process does not start.
    At(T),
}

/// Where the control listener usually is.
pub const USUAL_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

impl Default for Admin {
    fn default() -> Self {
        Admin {
            address: Place::Usual,
            socket: Place::Usual,
            token_file: None,
            hosts: Vec::new(),
        }
    }
}

impl Admin {
    /// Where the control listener is to be, if it is to be.
    pub fn wanted_address(&self) -> Option<SocketAddr> {
        match self.address {
            Place::Off => None,
            Place::Usual => Some(USUAL_ADDRESS),
            Place::At(address) => Some(address),
        }
    }
}

table! {
    /// `[admin]`
    pub struct AdminTable = "[admin]" {
        "address" => address: At<BindOrOff>,
        "socket" => socket: At<String>,
        "token_file" => token_file: At<String>,
        "hosts" => hosts: Vec<At<String>>,
    }
    later []
    elsewhere {
        "token" => "secrets are always files: token_file = \"path\"",
    }
}

/// The shortest token that is one: 128 bits in hex have 32 characters.
const SHORTEST_TOKEN: usize = 16;

/// A path of a Unix socket has to fit `sockaddr_un` with its final zero.
const LONGEST_SOCKET: usize = 107;

/// Builds it. The second: the address that was written, with its place.
pub(super) fn build(
    raw: &AdminTable,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> (Admin, Option<(SocketAddr, Span)>) {
    let written = raw.address.as_ref();
    let written = written.and_then(|at| Some((at.value.0?, at.span)));
    let address = match (&raw.address, written) {
        (None, _) => Place::Usual,
        (Some(_), None) => Place::Off,
        (Some(_), Some((address, _))) => Place::At(address),
    };
    if let Some((address, span)) = written
        && !address.ip().is_loopback()
    {
        let title = "the control listener can be reached from other machines, and speaks no TLS";
        problems.push(Problem::warning(span, title).help(
            "everything needs the token there, which whoever can listen in on the network sees: \
             keep it on 127.0.0.1, or on a network of your own",
        ));
    }
    let admin = Admin {
        address,
        socket: raw
            .socket
            .as_ref()
            .map_or(Place::Usual, |at| socket(at, sources, problems)),
        token_file: raw.token_file.as_ref().map(|at| {
            let path = sources.resolve(at.span, &at.value);
            if files == Files::Opened
                && let Err(error) = token(&path)
            {
                problems.error(at.span, format!("cannot use {}: {error}", path.display()));
            }
            path
        }),
        hosts: raw
            .hosts
            .iter()
            .flatten()
            .filter_map(|at| host(at, problems))
            .collect(),
    };
    (admin, written)
}

/// Reads the token in a file: its one line.
pub fn token(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Error, Read as _};
    let mut text = String::new();
    crate::io::files::open(path)?
        .take(4096)
        .read_to_string(&mut text)?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN {
        return Err(Error::other(format!(
            "a token has {SHORTEST_TOKEN} characters at least"
        )));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::other(
            "a token is one line of visible ASCII characters",
        ));
    }
    Ok(token.to_owned())
}

fn socket(at: &At<String>, sources: &Sources, problems: &mut Problems) -> Place<PathBuf> {
    if at.value == "off" {
        return Place::Off;
    }
    let path = sources.resolve(at.span, &at.value);
    if at.value.is_empty() {
        problems.error(at.span, "the path is empty");
    } else if path.as_os_str().len() > LONGEST_SOCKET {
        let title = format!("{} is longer than {LONGEST_SOCKET} bytes", path.display());
        problems.push(Problem::error(at.span, title).help("sockets have short paths"));
    }
    Place::At(path)
}

fn host(at: &At<String>, problems: &mut Problems) -> Option<Box<str>> {
    let name = at.value.to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Some(bare.into());
    }
    match names::check(name.as_bytes()) {
        Ok(()) => Some(name.trim_end_matches('.').into()),
        Err(why) => {
            let help = "names of hosts without a port, such as \"balancer.internal\"";
            problems.push(Problem::error(at.span, why).help(help));
            None
        }
    }
}
