//! TLS to backends, and what is sent in front of it: the tables as they are written, and what they
//! become.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::build::certificate_files;
use super::diagnostics::{Problem, Problems};
use super::raw;
use super::read::{At, Refusal, Scalar, table};
use super::schema;
use super::source::{Files, Sources};
use super::{CertificateFiles, TlsVersion, names};

/// TLS to the backends of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// Who has to vouch for a backend.
    pub trust: Trust,
    /// Who a backend has to prove to be, and what it is sent as SNI; `None`: its own name, as
    /// discovery has it. A DNS name or an address.
    pub name: Option<Box<str>>,
    /// What we prove ourselves with, where a backend asks for it.
    pub certificate: Option<CertificateFiles>,
    /// Lowest version (1.2).
    pub min_version: TlsVersion,
}

/// Who has to vouch for a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// One of the authorities that this system trusts.
    System,
    /// One of those in this PEM file.
    Authorities(PathBuf),
    /// Nobody: anybody can be the backend.
    Nobody,
}

/// In which version of the PROXY protocol backends are told who their client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProxyHeader {
    V1,
    V2,
}

impl Scalar for ProxyHeader {
    const EXPECTS: &'static str = "\"v1\" or \"v2\"";

    fn schema() -> serde_json::Value {
        schema::words(&["v1", "v2"])
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        match text {
            "v1" => Ok(ProxyHeader::V1),
            "v2" => Ok(ProxyHeader::V2),
            _ => Err(Refusal::kind().help("version 1 is a line of text, version 2 binary: \"v2\" unless a backend knows only the older one")),
        }
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(match n {
            1 | 2 => Refusal::kind().help(format!("write \"v{n}\"")),
            _ => Refusal::kind(),
        })
    }

    fn from_bool(sends: bool) -> Result<Self, Refusal> {
        Err(match sends {
            true => Refusal::kind().help("say which version backends expect: \"v2\", or \"v1\""),
            false => Refusal::kind().help("leave `proxy_protocol` out: none is sent then"),
        })
    }
}

table! {
    /// `tls` of a service.
    pub(super) struct TlsTable = "tls" {
        "ca" => ca: At<String>,
        "name" => name: At<String>,
        "certificate" => certificate: raw::Certificate,
        "min_version" => min_version: At<TlsVersion>,
        "insecure" => insecure: At<bool>,
    }
    later []
    elsewhere {
        "ca_file" => "it is `ca`: tls = { ca = \"authority.pem\" }",
        "cert" => "it belongs into `certificate`: certificate = { cert = \"…\", key = \"…\" }",
        "key" => "it belongs into `certificate`: certificate = { cert = \"…\", key = \"…\" }",
        "sni" => "it is `name`, which is verified too",
        "timeout" => "it is `tls_timeout`, beside `connect_timeout`",
    }
}

/// Says what is wrong with that of a service, or of `[defaults]`.
pub(super) fn check(
    raw: Option<&TlsTable>,
    (files, sources): (Files, &Sources),
    problems: &mut Problems,
) {
    let Some(raw) = raw else { return };
    if let Some(at) = &raw.name {
        let name = at.value.as_str();
        if name.parse::<IpAddr>().is_err()
            && let Err(why) = names::check(name.as_bytes())
        {
            problems.push(
                Problem::error(at.span, why)
                    .help("`name` is the name in the backends' certificates, without a port"),
            );
        }
    }
    if let Some(at) = &raw.ca
        && files == Files::Opened
    {
        let path = sources.resolve(at.span, &at.value);
        if let Err(error) = crate::io::files::open(&path) {
            problems.error(at.span, format!("cannot read {}: {error}", path.display()));
        }
    }
    if let Some(certificate) = &raw.certificate {
        certificate_files(certificate, "", files, sources, problems);
    }
    if let Some(insecure) = raw.insecure.as_ref().filter(|at| at.value) {
        match raw.key("ca") {
            Some(ca) => problems.push(
                Problem::error(insecure.span, "`insecure` and `ca` exclude each other")
                    .and(ca, "")
                    .help("an insecure service looks at nobody's signature"),
            ),
            None => problems.push(
                Problem::warning(insecure.span, "anybody can pretend to be a backend")
                    .help("certificates of backends are not verified; trust an authority of your own with ca = \"file.pem\""),
            ),
        }
    }
}

/// Builds that of a service. `None`: it speaks to its backends without TLS.
pub(super) fn build(
    own: &raw::Service,
    defaults: &raw::Defaults,
    (files, sources): (Files, &Sources),
    problems: &mut Problems,
) -> Option<Arc<BackendTls>> {
    check(own.tls.as_ref(), (files, sources), problems);
    let protocol = own
        .upstream
        .as_ref()
        .map_or_else(Default::default, |at| at.value);
    if let (Some(span), true) = (own.key("proxy_protocol"), protocol.is_h2()) {
        problems.push(
            Problem::error(span, "`proxy_protocol` cannot be said over HTTP/2")
                .help("its connections carry the requests of many clients; X-Forwarded-For says whose each is"),
        );
    }
    if own.upstream.is_none() && own.key("upstream").is_some() {
        // That it is no protocol has been said.
        return None;
    }
    if !protocol.is_tls() {
        for key in ["tls", "tls_timeout"] {
            if let Some(span) = own.key(key) {
                problems.push(
                    Problem::error(span, format!("`{key}` has no effect without TLS"))
                        .help("write upstream = \"https\", or \"h2\""),
                );
            }
        }
        return None;
    }
    let raw = own.tls.as_ref().or(defaults.tls.as_ref());
    let raw = raw.cloned().unwrap_or_default();
    let insecure = raw.insecure.is_some_and(|at| at.value);
    let trust = match raw.ca {
        _ if insecure => Trust::Nobody,
        Some(at) => Trust::Authorities(sources.resolve(at.span, &at.value)),
        None => Trust::System,
    };
    let certificate = raw.certificate.and_then(|entry| {
        // What is wrong with it has been said.
        let (cert, key) = (entry.cert?, entry.key?);
        Some(CertificateFiles {
            cert: sources.resolve(cert.span, &cert.value),
            key: sources.resolve(key.span, &key.value),
        })
    });
    let name = |at: At<String>| at.value.trim_end_matches('.').to_ascii_lowercase();
    Some(Arc::new(BackendTls {
        trust,
        name: raw.name.map(|at| name(at).into()),
        certificate,
        min_version: raw.min_version.map_or(TlsVersion::Tls12, |at| at.value),
    }))
}
