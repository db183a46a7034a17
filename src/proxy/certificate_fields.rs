//! The fields in which a backend is told of the certificate that its client showed.
//!
//! `forward` calls this behind all that is removed: what a client says itself is gone by then.

use crate::http::headers::{Field, Fields, is_about_client_certificate};
use crate::tls::client_certificates::ClientCertificate;

/// What there is to say where clients are asked for a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The one that was shown and verified.
    pub shown: Option<&'a ClientCertificate>,
}

/// Sets the fields. `trusted`: those that are there come from a proxy that is believed. It may speak
/// of the certificate of its own client, so if it says anything, that stands alone.
pub fn push(fields: &mut Fields, asked: Asked<'_>, trusted: bool) {
    if trusted && fields.iter().any(is_about_certificate) {
        return;
    }
    let Some(shown) = asked.shown else {
        return fields.push(VERIFIED, b"NONE");
    };
    fields.push(VERIFIED, b"SUCCESS");
    if !shown.subject().is_empty() {
        fields.push(b"X-Client-Cert-Subject", shown.subject().as_bytes());
    }
    fields.push(b"X-Client-Cert-Fingerprint", shown.fingerprint().as_bytes());
    if let Some(whole) = shown.whole() {
        fields.push(b"Client-Cert", whole.as_bytes());
    }
}

fn is_about_certificate(field: Field<'_>) -> bool {
    // Envoy's name; it is among those that `X-Forwarded-` begins.
    const ENVOY: &[u8] = b"x-forwarded-client-cert";
    is_about_client_certificate(field.name) || field.name.eq_ignore_ascii_case(ENVOY)
}

const VERIFIED: &[u8] = b"X-Client-Cert-Verified";
