//! `[acme]`: certificates that are ordered, and for which names.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::build::{missing, values};
use super::diagnostics::{Problem, Problems};
use super::read::{At, choice, table};
use super::scalar::{NameServer, Positive};
use super::source::{Files, Sources};
use super::{
    CertificateFiles, ClientCertificateMode, HostPattern, Listener, Protocol, Route, raw, state_dir,
};

/// An authority that certificates are ordered from, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Address of its directory.
    pub directory: Box<str>,
    /// PEM file of those who vouch for the authority's own server; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Whom it may write to, as URIs.
    pub contact: Vec<Box<str>>,
    /// Folder for the account, certificates and keys, which replicas may share.
    pub store: PathBuf,
    /// An account elsewhere that the one here belongs to.
    pub eab: Option<ExternalAccount>,
    /// How names are proven, the first one first. Never empty.
    pub challenges: Vec<AcmeChallenge>,
    /// Where proofs by DNS go. There if `challenges` has [`AcmeChallenge::Dns`].
    pub dns: Option<AcmeDns>,
}

/// External account binding (RFC 8555 §7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// What the authority calls the key.
    pub kid: Box<str>,
    /// The key, in base64url.
    pub key_file: PathBuf,
}

/// Dynamic updates (RFC 2136) for proofs by DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeDns {
    /// The name server that takes them.
    pub server: SocketAddr,
    /// The key for it (TSIG).
    pub key_file: PathBuf,
    /// How long it takes until all name servers of the zone have the record.
    pub wait: Duration,
}

/// How a name is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// `tls-alpn-01` (RFC 8737): in a handshake, on port 443.
    Tls,
    /// `http-01` (RFC 8555 §8.3): over plain HTTP, on port 80.
    Http,
    /// `dns-01` (RFC 8555 §8.4): by a record.
    Dns,
}

/// A certificate that is ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AcmeCertificate {
    /// For this name; of a wildcard with the star.
    pub name: Arc<str>,
    /// Where it goes, with its key.
    pub file: PathBuf,
}

impl Acme {
    /// The folder of this authority within the store.
    pub fn folder(&self) -> PathBuf {
        let name = self.directory.trim_start_matches("https://");
        self.store.join(as_file_name(name))
    }

    /// How this name can be proven, the first one first. A wildcard only by DNS.
    pub fn challenges_for(&self, name: &str) -> impl Iterator<Item = AcmeChallenge> {
        let wildcard = name.starts_with("*.");
        let challenges = self.challenges.iter().copied();
        challenges.filter(move |challenge| !wildcard || *challenge == AcmeChallenge::Dns)
    }

    fn certificate(&self, name: String) -> AcmeCertificate {
        let file = format!("{}.pem", as_file_name(&name));
        AcmeCertificate {
            name: name.into(),
            file: self.folder().join("certificates").join(file),
        }
    }
}

impl AcmeCertificate {
    /// Chain and key lie in one file.
    pub fn files(&self) -> CertificateFiles {
        CertificateFiles {
            cert: self.file.clone(),
            key: self.file.clone(),
        }
    }
}

impl AcmeChallenge {
    /// As RFC 8555 and 8737 call it.
    pub fn name(self) -> &'static str {
        match self {
            AcmeChallenge::Tls => "tls-alpn-01",
            AcmeChallenge::Http => "http-01",
            AcmeChallenge::Dns => "dns-01",
        }
    }
}

table! {
    /// `[acme]`
    pub struct RawAcme = "[acme]" {
        "directory" => directory: At<String>,
        "ca" => ca: At<String>,
        "contact" => contact: Vec<At<String>>,
        "accept_terms" => accept_terms: At<bool>,
        "store" => store: At<String>,
        "eab" => eab: RawEab,
        "challenges" => challenges: Vec<At<AcmeChallenge>>,
        "dns" => dns: RawAcmeDns,
    }
    required ["accept_terms", "store"]
    later []
    elsewhere {
        "email" => "contact = [\"mailto:you@example.com\"]",
        "domains" => "names are those of the routes: [[route]] host = \"…\"",
    }
}

table! {
    /// `eab` of `[acme]`.
    pub struct RawEab = "eab" {
        "kid" => kid: At<String>,
        "key_file" => key_file: At<String>,
    }
    required ["kid", "key_file"]
    later []
    elsewhere {
        "key" => "secrets are always files: key_file = \"path\"",
    }
}

table! {
    /// `dns` of `[acme]`.
    pub struct RawAcmeDns = "dns" {
        "server" => server: At<NameServer>,
        "key_file" => key_file: At<String>,
        "wait" => wait: At<Positive>,
    }
    required ["server", "key_file"]
    later []
}

choice! {
    AcmeChallenge = "\"tls-alpn-01\", \"http-01\" or \"dns-01\"" {
        "tls-alpn-01" => AcmeChallenge::Tls,
        "http-01" => AcmeChallenge::Http,
        "dns-01" => AcmeChallenge::Dns,
    }
    later []
}

/// Let's Encrypt, and where it lets people try.
const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Secondary name servers are notified at once, as a rule.
const DNS_WAIT: Duration = Duration::from_secs(5);

/// `None`: a problem was recorded.
pub(super) fn build(
    raw: &RawAcme,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<Acme> {
    let before = problems.count();
    match &raw.accept_terms {
        Some(at) if at.value => {}
        Some(at) => problems.error(at.span, "without its terms there is no certificate"),
        None => {
            let help = "accept_terms = true says that you agree to the terms of the authority";
            missing(&raw.present, "accept_terms", raw.span, help, problems);
        }
    }
    if raw.store.is_none() {
        let help = "store = \"path\": a folder for the account, certificates and keys, which replicas share";
        missing(&raw.present, "store", raw.span, help, problems);
    }
    let directory = match raw.directory.as_ref().map(|at| (at.span, &*at.value)) {
        None | Some((_, "production")) => PRODUCTION,
        Some((_, "staging")) => STAGING,
        Some((_, url)) if is_https(url) => url,
        Some((span, other)) => {
            problems.push(
                Problem::error(span, format!("`{other}` is not the directory of an authority"))
                    .help("write \"production\" or \"staging\" for Let's Encrypt, or the https:// address of another one"),
            );
            PRODUCTION
        }
    };
    for contact in raw.contact.iter().flatten() {
        if !contact.value.contains(':') {
            problems.push(
                Problem::error(contact.span, format!("`{}` is not a URI", contact.value))
                    .help(format!("write \"mailto:{}\"", contact.value)),
            );
        }
    }
    let mut path_of = |at: &At<String>| -> PathBuf {
        let path = sources.resolve(at.span, &at.value);
        if files == Files::Opened
            && let Err(error) = crate::io::files::open(&path)
        {
            problems.error(at.span, format!("cannot read {}: {error}", path.display()));
        }
        path
    };
    let ca = raw.ca.as_ref().map(&mut path_of);
    let eab_key = raw.eab.as_ref().and_then(|raw| raw.key_file.as_ref());
    let eab_key = eab_key.map(&mut path_of);
    let dns_key = raw.dns.as_ref().and_then(|raw| raw.key_file.as_ref());
    let dns_key = dns_key.map(path_of);
    let eab = raw.eab.as_ref().and_then(|raw| {
        if raw.kid.is_none() {
            let help = "what the authority calls the key";
            missing(&raw.present, "kid", raw.span, help, problems);
        }
        if raw.key_file.is_none() {
            let help = "a file with the key, in base64url as the authority shows it";
            missing(&raw.present, "key_file", raw.span, help, problems);
        }
        Some(ExternalAccount {
            kid: raw.kid.as_ref()?.value.as_str().into(),
            key_file: eab_key?,
        })
    });
    let dns = raw.dns.as_ref().and_then(|raw| {
        if raw.server.is_none() {
            let help = "the name server that takes updates, as \"IP:PORT\"";
            missing(&raw.present, "server", raw.span, help, problems);
        }
        if raw.key_file.is_none() {
            let help = "a file with the key for updates (TSIG)";
            missing(&raw.present, "key_file", raw.span, help, problems);
        }
        Some(AcmeDns {
            server: raw.server.as_ref()?.value.0,
            key_file: dns_key?,
            wait: raw.wait.as_ref().map_or(DNS_WAIT, |at| at.value.0),
        })
    });
    let challenges = challenges(raw, problems);
    let store = raw
        .store
        .as_ref()
        .map(|at| state_dir::path(at, files, sources, problems));
    if problems.count() > before {
        return None;
    }
    Some(Acme {
        directory: directory.into(),
        ca,
        contact: values(raw.contact.clone())
            .into_iter()
            .map(String::into)
            .collect(),
        store: store?,
        eab,
        challenges,
        dns,
    })
}

fn challenges(raw: &RawAcme, problems: &mut Problems) -> Vec<AcmeChallenge> {
    let Some(given) = &raw.challenges else {
        return match raw.dns {
            Some(_) => vec![AcmeChallenge::Dns, AcmeChallenge::Tls, AcmeChallenge::Http],
            None => vec![AcmeChallenge::Tls, AcmeChallenge::Http],
        };
    };
    if let (true, Some(span)) = (given.is_empty(), raw.key("challenges")) {
        problems.error(span, "without a challenge nothing can be proven");
    }
    let by_dns = given.iter().find(|at| at.value == AcmeChallenge::Dns);
    match (by_dns, &raw.dns) {
        (Some(at), None) => problems.push(
            Problem::error(at.span, "`dns-01` needs a name server that takes updates")
                .help("dns = { server = \"IP:PORT\", key_file = \"path\" }"),
        ),
        (None, Some(dns)) => problems.push(
            Problem::error(dns.span, "`dns` has no effect without `dns-01`")
                .help("challenges = [\"dns-01\"]"),
        ),
        _ => {}
    }
    given.iter().map(|at| at.value).collect()
}

/// Gives listeners that want it the certificates for the names of the routes that lead there.
pub(super) fn name_certificates(
    acme: Option<(&Acme, &RawAcme)>,
    raw: &[raw::Listener],
    listeners: &mut [Listener],
    routes: &[Route],
    problems: &mut Problems,
) {
    let mut wanted = false;
    for (index, (raw, listener)) in raw.iter().zip(listeners).enumerate() {
        let Protocol::Https(tls) = &mut listener.protocol else {
            continue;
        };
        let Some(at) = raw.acme.as_ref().filter(|at| at.value) else {
            continue;
        };
        wanted = true;
        let Some((acme, _)) = acme else {
            continue;
        };
        let required = tls
            .client_certificates
            .as_ref()
            .is_some_and(|wanted| wanted.mode == ClientCertificateMode::Required);
        if required && acme.challenges == [AcmeChallenge::Tls] {
            problems.push(
                Problem::error(
                    at.span,
                    "`tls-alpn-01` cannot be answered where clients must show certificates",
                )
                .help("an authority shows none: use http-01 or dns-01 (`challenges` of [acme])"),
            );
        }
        let leading = routes
            .iter()
            .filter(|route| route.listeners.is_empty() || route.listeners.contains(&index));
        for route in leading {
            let name = match &route.host {
                HostPattern::Exact(name) => name.to_string(),
                HostPattern::Wildcard(parent) => format!("*.{parent}"),
                HostPattern::Any => continue,
            };
            let provable = acme.challenges_for(&name).next().is_some();
            if !provable || is_address(&name) {
                let title = format!("no certificate is ordered for {name}");
                let help = match provable {
                    true => "certificates are for names",
                    false => {
                        "a wildcard is proven by DNS only: challenges = [\"dns-01\"] in [acme]"
                    }
                };
                problems.push(Problem::warning(at.span, title).help(help));
                continue;
            }
            tls.acme.insert(acme.certificate(name));
        }
        if tls.acme.is_empty() {
            problems.push(
                Problem::error(at.span, "no route names a host to order a certificate for")
                    .help("[[route]] host = \"shop.example.com\""),
            );
        }
    }
    if let (Some((_, raw)), false) = (acme, wanted) {
        problems.push(
            Problem::warning(raw.span, "no listener uses this")
                .help("acme = true at a listener with protocol = \"https\""),
        );
    }
}

/// Says what is wrong with `acme` of a listener.
pub(super) fn check_listener(raw: &raw::Listener, is_there: bool, problems: &mut Problems) {
    let Some(at) = raw.acme.as_ref().filter(|at| at.value) else {
        return;
    };
    // On others it has no effect, and that is said already.
    let speaks = raw.protocol.as_ref().map(|at| at.value);
    if !is_there && matches!(speaks, None | Some(raw::ListenerProtocol::Https)) {
        problems.push(
            Problem::error(at.span, "`acme` of a listener needs [acme]")
                .help("[acme] with accept_terms = true and store = \"path\""),
        );
    }
}

fn is_https(url: &str) -> bool {
    let parsed = url.parse::<http::Uri>();
    parsed.is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

fn is_address(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
}

/// What is no letter, digit, dot or hyphen becomes an underscore: `*` and `/` above all.
fn as_file_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let safe = name.chars().map(|c| if allowed(c) { c } else { '_' });
    let safe: String = safe.collect();
    match Path::new(&safe).file_name() {
        Some(_) if !safe.starts_with('.') => safe,
        _ => format!("_{safe}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_and_name_has_a_place_of_its_own() {
        let acme = Acme {
            directory: "https://127.0.0.1:14000/dir".into(),
            ca: None,
            contact: Vec::new(),
            store: "/store".into(),
            eab: None,
            challenges: vec![AcmeChallenge::Tls, AcmeChallenge::Dns],
            dns: None,
        };
        for (name, file, ways) in [
            ("a.example", "a.example.pem", 2),
            ("*.a.example", "_.a.example.pem", 1),
        ] {
            let folder = Path::new("/store/127.0.0.1_14000_dir/certificates");
            assert_eq!(acme.certificate(name.into()).file, folder.join(file));
            assert_eq!(acme.challenges_for(name).count(), ways, "{name}");
        }
    }
}
