//! Which certificates a generation of the configuration wants watched.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::Protocol;
use crate::proxy::worker::Shared;
use crate::tls::reload::{CertificateWatch, Watched};

/// Who looks after certificates while everything runs.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Takes up those that are replaced on disk.
    pub watch: Rc<CertificateWatch>,
}

impl Certificates {
    /// From now on those of this generation are looked after.
    pub fn follow(&self, shared: &Shared) {
        self.watch.set(watched(shared));
    }
}

fn watched(shared: &Shared) -> Vec<Watched> {
    let listeners = shared.config.listeners.iter().zip(&shared.listeners);
    let watched = listeners.filter_map(|(listener, listened)| match &listener.protocol {
        Protocol::Https(tls) => Some(Watched {
            listener: Arc::clone(&listener.name),
            files: tls.certificates.clone(),
            published: Arc::clone(&listened.tls.as_ref()?.certificates),
        }),
        Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
    });
    watched.collect()
}
