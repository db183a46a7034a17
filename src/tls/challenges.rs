//! What a certificate authority asks for to see that a name is ours, and what it is answered (RFC 8555
//! §8.3, RFC 8737). Immutable: `acme` publishes another one when a challenge comes or goes.
//!
//! Asked by the handshake, for a validation by TLS, and by `proxy::request`, for one over plain HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

/// The protocol that a validation by TLS offers, and nothing else (RFC 8737 §4).
pub const ALPN: &[u8] = b"acme-tls/1";

/// Where a validation over HTTP looks (RFC 8555 §8.3).
const PLACE: &[u8] = b"/.well-known/acme-challenge/";

/// Challenges that are open.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Token to key authorization.
    tokens: HashMap<Box<str>, Box<str>>,
    /// Name to what a validation by TLS is shown.
    certificates: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Challenges {
    /// The token in a path is answered so.
    pub fn answer_over_http(&mut self, token: &str, key_authorization: &str) {
        self.tokens.insert(token.into(), key_authorization.into());
    }

    /// A validation of this name by TLS is answered so.
    pub fn answer_by_tls(
        &mut self,
        name: &str,
        key_authorization: &str,
    ) -> Result<(), rcgen::Error> {
        let digest = digest::digest(&digest::SHA256, key_authorization.as_bytes());
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        let identifier = CustomExtension::new_acme_identifier(digest.as_ref());
        params.custom_extensions.push(identifier);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = any_supported_type(&key).map_err(|_| rcgen::Error::RemoteKeyError)?;
        let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
        self.certificates.insert(name.into(), Arc::new(shown));
        Ok(())
    }

    /// The answer to a request for this path, if it is one of an authority that we know of.
    pub fn answer(&self, path: &[u8]) -> Option<&str> {
        let token = path.strip_prefix(PLACE)?;
        let token = std::str::from_utf8(token).ok()?;
        self.tokens.get(token).map(|answer| &**answer)
    }

    /// What a validation of this name is shown.
    pub(super) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.certificates.get(&*name).map(Arc::clone)
    }
}

/// Is this handshake a validation? It offers that one protocol and nothing else.
pub(super) fn is_validation(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| {
        offered.next().is_some_and(|protocol| protocol == ALPN) && offered.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_at_its_place_only() {
        let mut challenges = Challenges::default();
        challenges.answer_over_http("tok", "tok.thumb");
        for (path, answer) in [
            ("/.well-known/acme-challenge/tok", Some("tok.thumb")),
            ("/.well-known/acme-challenge/other", None),
            ("/.well-known/acme-challenge/tok/", None),
            ("/.well-known/acme-challenge/", None),
            ("/x/.well-known/acme-challenge/tok", None),
            ("/tok", None),
        ] {
            assert_eq!(challenges.answer(path.as_bytes()), answer, "{path}");
        }
    }

    #[test]
    fn a_validation_is_shown_the_certificate_of_its_name() {
        let mut challenges = Challenges::default();
        challenges.answer_by_tls("a.example", "tok.thumb").unwrap();
        let shown = challenges.certificate("A.example").unwrap();
        // RFC 8737 §3: id-pe-acmeIdentifier, critical, the digest in an octet string.
        let digest = digest::digest(&digest::SHA256, b"tok.thumb");
        let extension = [
            &[6, 8, 0x2b, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff, 4, 34, 4, 32][..],
            digest.as_ref(),
        ]
        .concat();
        assert!(memchr::memmem::find(&shown.cert[0], &extension).is_some());
        assert!(challenges.certificate("b.example").is_none());
    }
}
