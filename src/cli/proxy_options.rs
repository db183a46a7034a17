//! `evenkeel proxy`: one listener and one service from flags alone.
//!
//! The flags are put into the same tree that a file is read into, so what can be wrong with them
//! is found and shown by the same code.

use crate::config::{Diagnostic, Loaded, Loader};

/// Arguments of `proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What --to can be:
  srv://_http._tcp.web.example   SRV records of a name: priorities, weights and ports from DNS
  a://web:8080                   address records of a name, all at one port
  http://10.0.0.7:8080           an address; may be repeated, and the http:// left out;
                                 https://, h2c:// and h2:// speak these to it

Examples:
  evenkeel proxy --from :8080 --to srv://_http._tcp.web.service.consul --resolver 127.0.0.1:8600
  evenkeel proxy --from :8443 --cert certs/dev.pem --key certs/dev.key --to a://web:8080
  evenkeel proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002

Without --cert it speaks plain http. Everything else is as in a file: --set log.level=debug")]
pub struct Args {
    /// Where to listen: a port such as :8443, or an address and a port
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// Where the backends are; see below
    #[arg(long, value_name = "WHERE", required = true)]
    pub to: Vec<String>,
    /// Name server to ask instead of those of /etc/resolv.conf; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    pub resolver: Vec<String>,
    /// What backends speak that srv:// or a:// finds: http (unless given), https, h2c, h2
    #[arg(long, value_name = "PROTOCOL")]
    pub upstream: Option<String>,
    /// Certificate chain in PEM, leaf first: speak https
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<String>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<String>,
    /// Change one setting; a member of a list is called by its name or number
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Args {
    /// The configuration that these flags stand for, with the environment of this process.
    pub fn load(&self) -> Result<Loaded, Diagnostic> {
        self.loader()?.process_environment().load()
    }

    /// The configuration that they stand for, without the environment.
    pub fn loader(&self) -> Result<Loader, Diagnostic> {
        let whole = |loader: Loader, flag: &str, text: &str, path: &[&str]| {
            loader.argument(flag, text, 0..text.len(), path)
        };
        let mut loader = whole(
            Loader::arguments(),
            "--from",
            &self.from,
            &["listener", "0", "address"],
        );
        let protocol = if self.cert.is_some() { "https" } else { "http" };
        for (path, text) in [
            (["listener", "0", "protocol"], protocol),
            (["service", "0", "name"], SERVICE),
            (["route", "0", "service"], SERVICE),
        ] {
            loader = whole(loader, "proxy", text, &path);
        }
        for (flag, file, key) in [("--cert", &self.cert, "cert"), ("--key", &self.key, "key")] {
            if let Some(file) = file {
                let path = ["listener", "0", "certificates", "0", key];
                loader = whole(loader, flag, file, &path);
            }
        }
        for (i, server) in self.resolver.iter().enumerate() {
            let path = ["dns", "servers", &i.to_string()];
            loader = whole(loader, "--resolver", server, &path);
        }
        if let Some(upstream) = &self.upstream {
            let path = ["service", "0", "upstream"];
            loader = whole(loader, "--upstream", upstream, &path);
        }
        loader = self.discover(loader)?;
        Ok(self.set.iter().fold(loader, |l, flag| l.set(flag)))
    }

    fn discover(&self, mut loader: Loader) -> Result<Loader, Diagnostic> {
        const DISCOVER: [&str; 3] = ["service", "0", "discover"];
        let first = self.to.first().and_then(|to| to.split_once("://"));
        let first = first.map_or("", |(scheme, _)| scheme);
        for (i, to) in self.to.iter().enumerate() {
            let (scheme, rest) = match to.find("://") {
                Some(at) => (&to[..at], at + "://".len()),
                None => ("", 0),
            };
            // A final slash is what a URL copied from a browser has.
            let end = to.strip_suffix('/').map_or(to.len(), str::len).max(rest);
            let path = |key| [&DISCOVER[..], &[key]].concat();
            if matches!(scheme, "srv" | "a") && self.to.len() > 1 {
                return Err(Diagnostic::without_place(
                    format!("--to {to} stands alone: it is one of {} now", self.to.len()),
                    Some("only addresses can be repeated".into()),
                ));
            }
            loader = match scheme {
                "srv" => loader.argument("--to", to, rest..end, &path("srv")),
                "a" => {
                    let colon = to[rest..end].rfind(':').map(|at| rest + at);
                    let name = loader.argument("--to", to, rest..colon.unwrap_or(end), &path("a"));
                    match colon {
                        Some(colon) => name.argument("--to", to, colon + 1..end, &path("port")),
                        None => {
                            return Err(Diagnostic::without_place(
                                format!("--to {to} has no port"),
                                Some(format!("for example --to {to}:8080")),
                            ));
                        }
                    }
                }
                "http" | "https" | "h2c" | "h2" | "" => {
                    let index = i.to_string();
                    if scheme != first {
                        return Err(Diagnostic::without_place(
                            format!(
                                "--to {to}: all backends speak the same, and the first one `{first}`"
                            ),
                            None,
                        ));
                    }
                    if i == 0 && !scheme.is_empty() {
                        let upstream = ["service", "0", "upstream"];
                        loader = loader.argument("--to", to, 0..scheme.len(), &upstream);
                    }
                    loader.argument(
                        "--to",
                        to,
                        rest..end,
                        &[&path("static")[..], &[&index]].concat(),
                    )
                }
                other => {
                    return Err(Diagnostic::without_place(
                        format!("--to {to}: `{other}` is not known"),
                        Some(
                            "srv://NAME, a://NAME:PORT, IP:PORT, or http://, https://, h2c:// or \
                             h2://IP:PORT"
                                .into(),
                        ),
                    ));
                }
            };
        }
        Ok(loader)
    }
}

/// What logs and metrics call the one service.
const SERVICE: &str = "proxy";

#[cfg(test)]
mod tests;
