//! `evenkeel cert`: certificates for development.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Subcommand;

use crate::telemetry::date::Rfc3339;
use crate::tls::certificates::Certificate;
use crate::tls::dev::{self, DevFiles, Existing, Found};

/// Arguments of `evenkeel cert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority and a certificate of it, to try things out with
    Dev(DevArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evenkeel cert dev
  evenkeel cert dev --name shop.test --name '*.shop.test' --force

Before the balancer in docker-compose.yml, as the user that the folder belongs to:
  certs:
    command: [cert, dev, --out=/certs, --if-missing]
    user: \"1000:1000\"
    volumes: [\"./certs:/certs\"]")]
struct DevArgs {
    /// Folder to write ca.pem, dev.pem and dev.key to
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    out: PathBuf,
    /// Host name, *.wildcard or IP address to name; may be repeated
    #[arg(long, value_name = "NAME", default_values = dev::DEFAULT_NAMES)]
    name: Vec<String>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    /// Change nothing if a certificate for these names is there that holds for another day, or one
    /// that was made elsewhere. One made here that has other names or ends sooner is replaced
    #[arg(long, conflicts_with = "force")]
    if_missing: bool,
}

/// Carries out `evenkeel cert`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Dev(args) => make_dev(&args),
    }
}

fn make_dev(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let files = DevFiles::within(&args.out);
    let existing = match (args.force, args.if_missing) {
        (true, _) => Existing::Replace,
        (false, false) => Existing::Keep,
        (false, true) => match look(&files, args)? {
            Some(existing) => existing,
            None => return Ok(ExitCode::SUCCESS),
        },
    };
    let made = dev::self_signed(&args.name).context("cannot make a certificate")?;
    files
        .write(&made, existing)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow::anyhow!("{error}; --force replaces it"),
            _ => explain(&error, error.kind(), &args.out),
        })?;
    let DevFiles { ca, cert, key } = files;
    println!(
        "{}  for {}, a year long",
        cert.display(),
        args.name.join(", ")
    );
    println!("{}  its key", key.display());
    println!("{}  what clients trust (curl --cacert {0})", ca.display());
    Ok(ExitCode::SUCCESS)
}

/// For `--if-missing`: what to do with files that are there; `None` if all is well.
fn look(files: &DevFiles, args: &DevArgs) -> anyhow::Result<Option<Existing>> {
    let now = SystemTime::now();
    let found = files
        .find(&args.name, now)
        .map_err(|error| match refused(&error) {
            Some(kind) => explain(&error, kind, &args.out),
            None => anyhow::anyhow!("{error}; --force replaces what is there"),
        })?;
    let cert = files.cert.display();
    let until = |certificate: &Certificate| Rfc3339::seconds(certificate.validity().not_after);
    Ok(match found {
        Found::Nothing => Some(Existing::Replace),
        Found::Unusable(why) => {
            println!("{cert}  is made anew: {why}");
            Some(Existing::Replace)
        }
        Found::Usable(certificate) => {
            println!("{cert}  is there, valid until {}", until(&certificate));
            None
        }
        Found::Foreign(certificate) => {
            println!("{cert}  is there and was made elsewhere: left as it is");
            for warning in certificate.warnings(now) {
                eprintln!("evenkeel: {warning}");
            }
            None
        }
    })
}

/// The system's "no" at the bottom of an error, if that is what it is.
fn refused(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind()).filter(|kind| *kind == io::ErrorKind::PermissionDenied);
        }
        cause = error.source();
    }
    None
}

/// Says who was refused, and how that is mended: the folder of a container is somebody else's as a
/// rule.
fn explain(error: &dyn Error, kind: io::ErrorKind, folder: &Path) -> anyhow::Error {
    match kind {
        io::ErrorKind::PermissionDenied => {}
        io::ErrorKind::ReadOnlyFilesystem => {
            return anyhow::anyhow!("{error}: mount it without `ro`");
        }
        _ => return anyhow::anyhow!("{error}"),
    }
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let there = folder.ancestors().find_map(|path| {
        // The last ancestor of a relative path is empty.
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        Some((path, path.metadata().ok()?))
    });
    let Some((path, owner)) = there else {
        return anyhow::anyhow!("{error}: this runs as user {user}");
    };
    let (owner, its_group) = (owner.uid(), owner.gid());
    let (path, folder) = (path.display(), folder.display());
    // What Docker made is not to be had by running as root.
    let as_owner = match owner {
        0 => String::new(),
        _ => format!("\nor run as its owner: in docker-compose.yml, user: \"{owner}:{its_group}\""),
    };
    anyhow::anyhow!(
        "{error}\n\
         This runs as user {user} (group {group}); {path} belongs to user {owner} (group {its_group}).\n\
         Make the folder this user's: mkdir -p {folder} && sudo chown -R {user}:{group} {folder}\
         {as_owner}\n\
         (A folder that is missing when it is to be mounted, Docker makes as root: make it before.)"
    )
}
