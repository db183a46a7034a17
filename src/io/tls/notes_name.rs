//! What a client names in SNI, for those who have to pass it on.

use std::sync::{Arc, OnceLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Hands out another's certificates, and remembers for which name.
#[derive(Debug)]
pub(super) struct NotesName {
    certificates: Arc<dyn ResolvesServerCert>,
    name: OnceLock<Box<str>>,
}

impl NotesName {
    /// Over these certificates.
    pub(super) fn over(certificates: Arc<dyn ResolvesServerCert>) -> Arc<NotesName> {
        Arc::new(NotesName {
            certificates,
            name: OnceLock::new(),
        })
    }

    /// What the client named, if it did.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.get().map(|name| &**name)
    }
}

impl ResolvesServerCert for NotesName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // After a HelloRetryRequest it is the same.
            let _ = self.name.set(name.into());
        }
        self.certificates.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.certificates.only_raw_public_keys()
    }
}
