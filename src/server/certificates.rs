//! Which certificates a generation of the configuration wants watched, and ordered.

use std::rc::Rc;
use std::sync::Arc;

use crate::acme::{Acme, Plan};
use crate::config::{AcmeCertificate, Listener, Protocol, TlsFrontEnd};
use crate::proxy::worker::Shared;
use crate::tls::reload::{CertificateWatch, Judging, WatchList, Watched};
use crate::tls::server::{FrontEnd, judge_files, ordered};

/// Who looks after certificates while everything runs.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Takes up those that are replaced on disk.
    pub watch: Rc<CertificateWatch>,
    /// Orders those that are wanted.
    pub acme: Rc<Acme>,
}

impl Certificates {
    /// From now on those of this generation are looked after.
    pub fn follow(&self, shared: &Shared) {
        let ordered = |(_, tls, front): (_, &TlsFrontEnd, &FrontEnd)| {
            ordered(tls, &front.certificates.load())
        };
        let config = shared.config.acme.as_ref();
        self.acme.set(config.map(|config| Plan {
            config: config.clone(),
            certificates: fronts(shared).flat_map(ordered).collect(),
        }));
        let clients = fronts(shared).map(|(_, tls, front)| Judging {
            files: judge_files(tls).cloned().collect(),
            loaded: front.judges,
        });
        let tls = shared
            .services
            .iter()
            .filter_map(|s| s.layering.tls.as_ref());
        let backends = tls.map(|tls| {
            let (files, loaded) = tls.files();
            Judging { files, loaded }
        });
        self.watch.set(WatchList {
            listeners: fronts(shared).map(watched).collect(),
            judging: clients.chain(backends).collect(),
        });
    }
}

fn watched((listener, tls, front): (&Listener, &TlsFrontEnd, &FrontEnd)) -> Watched {
    let ordered = ordered(tls, &front.certificates.load());
    Watched {
        listener: Arc::clone(&listener.name),
        files: tls.certificates.clone(),
        ordered: ordered.iter().map(AcmeCertificate::files).collect(),
        published: Arc::clone(&front.certificates),
    }
}

/// The listeners that speak https.
fn fronts(shared: &Shared) -> impl Iterator<Item = (&Listener, &TlsFrontEnd, &FrontEnd)> {
    let listeners = shared.config.listeners.iter().zip(&shared.listeners);
    listeners.filter_map(|(listener, listened)| match &listener.protocol {
        Protocol::Https(tls) => Some((listener, tls, listened.tls.as_ref()?)),
        Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
    })
}
