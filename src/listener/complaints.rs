//! Peers that are refused for who they are: whoever set this up wants to know, and a scan must not
//! fill the log. Each kind is said once in ten seconds by each worker; the metrics count them all.

use std::net::SocketAddr;

use crate::clock::Millis;
use crate::telemetry::seldom::Seldom;

/// When a worker last complained of what.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    proxies: Seldom,
    certificates: Seldom,
}

impl Complaints {
    /// A connection to a listener for PROXY headers, from a peer that is not trusted.
    pub(super) fn untrusted(&self, address: SocketAddr, listener: &str) {
        tracing::debug!(%address, "a PROXY header is expected, and not from this peer");
        if self.proxies.is_due(Millis::now()) {
            tracing::warn!(
                %address, listener,
                "refused: `proxy_protocol` is on and this peer is not in `trusted_proxies`"
            );
        }
    }

    /// A trusted peer that sends no header.
    pub(super) fn no_header(
        &self,
        address: SocketAddr,
        listener: &str,
        error: &dyn std::error::Error,
    ) {
        if self.proxies.is_due(Millis::now()) {
            tracing::warn!(
                %address, listener, %error,
                "refused: `proxy_protocol` is on and this trusted peer sends no PROXY header"
            );
        }
    }

    /// A handshake that fails because of the client's certificate, or because there is none.
    pub(super) fn client_certificate(
        &self,
        address: SocketAddr,
        listener: &str,
        error: &dyn std::error::Error,
    ) {
        if self.certificates.is_due(Millis::now()) {
            tracing::warn!(%address, listener, %error, "refused: the client's certificate");
        }
    }
}

/// Is it the client's certificate that a handshake failed for?
pub(super) fn is_about_certificate(failure: Option<&rustls::Error>) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    matches!(
        failure,
        Some(InvalidCertificate(_) | NoCertificatesPresented)
    )
}
