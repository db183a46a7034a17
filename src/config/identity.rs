//! What makes a client known: the PROXY protocol of a proxy in front, certificates that it shows.

use std::path::PathBuf;

use ipnet::IpNet;

use super::build::missing;
use super::diagnostics::{Problem, Problems};
use super::raw;
use super::read::{At, Refusal, Scalar, choice, table};
use super::source::{Files, Sources};
use super::{ClientCertificateMode, ClientCertificates};

table! {
    /// `client_certificates` of a listener.
    pub struct RawClientCertificates = "client_certificates" {
        "ca" => ca: At<String>,
        "crl" => crl: At<String>,
        "mode" => mode: At<ClientCertificateMode>,
        "pass_whole" => pass_whole: At<bool>,
    }
    required ["ca"]
    later []
    elsewhere {
        "ca_file" => "it is `ca`: client_certificates = { ca = \"clients.pem\" }",
        "crl_file" => "it is `crl`",
        "cert" => "the listener's own certificate belongs into `certificates`",
        "key" => "the listener's own certificate belongs into `certificates`",
    }
}

/// `proxy_protocol` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadsProxyHeader(pub bool);

impl Scalar for ReadsProxyHeader {
    const EXPECTS: &'static str = bool::EXPECTS;

    fn schema() -> serde_json::Value {
        bool::schema()
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Err(match text {
            "v1" | "v2" | "1" | "2" => {
                Refusal::kind().help("a listener reads both versions: proxy_protocol = true")
            }
            _ => Refusal::kind(),
        })
    }

    fn from_bool(reads: bool) -> Result<Self, Refusal> {
        Ok(ReadsProxyHeader(reads))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        match word.parse() {
            Ok(reads) => Ok(ReadsProxyHeader(reads)),
            Err(_) => Self::from_text(word),
        }
    }
}

choice! {
    ClientCertificateMode = "\"required\" or \"optional\"" {
        "required" => ClientCertificateMode::Required,
        "optional" => ClientCertificateMode::Optional,
    }
    later []
}

/// `None`: a problem was recorded.
pub(super) fn client_certificates(
    raw: &RawClientCertificates,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<ClientCertificates> {
    if raw.ca.is_none() {
        let help = "a PEM file with the authorities that issue clients' certificates";
        missing(&raw.present, "ca", raw.span, help, problems);
    }
    let mut path_of = |at: &At<String>| -> PathBuf {
        let path = sources.resolve(at.span, &at.value);
        if files == Files::Opened
            && let Err(error) = crate::io::files::open(&path)
        {
            let title = format!("cannot read {}: {error}", path.display());
            problems.error(at.span, title);
        }
        path
    };
    let ca = raw.ca.as_ref().map(&mut path_of);
    let crl = raw.crl.as_ref().map(path_of);
    let mode = raw.mode.as_ref().map(|at| at.value);
    Some(ClientCertificates {
        ca: ca?,
        crl,
        // Whoever asks for certificates and does not say how has most likely nobody else in mind.
        mode: mode.unwrap_or(ClientCertificateMode::Required),
        pass_whole: raw.pass_whole.as_ref().is_some_and(|at| at.value),
    })
}

/// Everybody would be told where backends are.
pub(super) fn check_audience(told: Option<&[At<IpNet>]>, problems: &mut Problems) {
    for at in told.unwrap_or_default() {
        if at.value.prefix_len() == 0 {
            problems.push(
                Problem::warning(
                    at.span,
                    "anybody can ask where backends are, and what ails them",
                )
                .help("list the addresses from which you debug"),
            );
        }
    }
}

/// With `proxy_protocol` and nobody to believe, every connection would be refused.
pub(super) fn check_trust(
    listeners: &[raw::Listener],
    trusted: Option<&[At<IpNet>]>,
    problems: &mut Problems,
) {
    if trusted.is_some_and(|trusted| !trusted.is_empty()) {
        return;
    }
    for listener in listeners {
        if let Some(at) = &listener.proxy_protocol
            && at.value.0
        {
            problems.push(
                Problem::error(at.span, "`proxy_protocol` without `trusted_proxies`").help(
                    "PROXY headers are taken from trusted peers only: \
                     trusted_proxies = [\"10.0.0.0/8\"] at the top of the file",
                ),
            );
        }
    }
}
