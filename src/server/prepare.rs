//! Everything of a generation of the configuration that can fail, made aside: sockets, certificates,
//! keys. Nothing that runs is changed here, so an error leaves everything as it was.
//!
//! Called at the start, and by a reload on a thread where it may block.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;

use crate::balance::affinity::Affinity;
use crate::config::{self, Config, Listener, Protocol, Sticky};
use crate::events::ListenerId;
use crate::listener;
use crate::listener::inherited::Inherited;
use crate::proxy::worker::{Listened, Serviced, Shared};
use crate::published::Published;
use crate::tls::certificates::CertificateSet;
use crate::tls::challenges::Challenges;
use crate::tls::client::{BackEnd, Loader};
use crate::tls::server::{self as front, FrontEnd, Held, front_end};
use crate::upstream::establish::Layering;

/// Listening sockets, in the order of the configuration.
pub type Sockets = Vec<Arc<TcpListener>>;

/// A secret of this process, for cookies that have no key file.
pub type OwnKey = [u8; 32];

/// Where authorities are answered that validate a name, the same in all generations.
pub type Challenging = Arc<Published<Challenges>>;

/// What was in force when something is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The generation.
    pub shared: &'a Shared,
    /// Only files have changed that it names: certificates whose files do not load stay as they are.
    pub is_same_configuration: bool,
}

impl Before<'_> {
    fn held(self, set: &CertificateSet) -> Held<'_> {
        match self.is_same_configuration {
            true => Held::All(set),
            false => Held::Ordered(set),
        }
    }
}

/// What is ready to take over.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Of each listener.
    pub listeners: Vec<Listened>,
    /// Of each listener: the same where it listens already. Held as long as it is to listen.
    pub sockets: Sockets,
    /// Of each service.
    pub services: Vec<Draft>,
    /// Certificates for listeners whose TLS goes on.
    renewals: Vec<(Arc<Published<CertificateSet>>, CertificateSet)>,
}

/// A service that is to be.
#[derive(Debug)]
pub struct Draft {
    /// Its backends are those of a service that is there: nothing that makes them differs.
    pub kept: Option<Serviced>,
    /// Its cookie.
    pub affinity: Option<Arc<Affinity>>,
    /// What lies between TCP and HTTP on connections to its backends.
    pub layering: Layering,
}

impl Prepared {
    /// Prepares `config`. `before`: what is in force; `inherited`: sockets that were
    /// handed to this process.
    pub fn new(
        config: Config,
        before: Option<Before<'_>>,
        own: &OwnKey,
        inherited: &Inherited,
        challenges: &Challenging,
    ) -> anyhow::Result<Prepared> {
        let config = Arc::new(config);
        let mut renewals = Vec::new();
        let listen = |listener| listened(listener, before, inherited, challenges, &mut renewals);
        let listeners = config.listeners.iter().map(listen);
        let listeners = listeners.collect::<anyhow::Result<Vec<_>>>()?;
        let (listeners, sockets) = listeners.into_iter().unzip();
        let mut loader = Loader::default();
        let shared = before.map(|before| before.shared);
        let draft = |service| draft(service, shared, own, &mut loader);
        let services = config.services.iter().map(draft);
        let services = services.collect::<anyhow::Result<_>>()?;
        Ok(Prepared {
            config,
            listeners,
            sockets,
            services,
            renewals,
        })
    }

    /// The next handshakes of listeners that go on have the new certificates.
    pub fn renew_certificates(&mut self) {
        for (certificates, set) in self.renewals.drain(..) {
            certificates.publish(set);
        }
    }
}

/// Where each of them listens.
pub fn addresses(sockets: &Sockets) -> std::io::Result<Vec<SocketAddr>> {
    sockets.iter().map(|socket| socket.local_addr()).collect()
}

fn listened(
    listener: &Listener,
    in_force: Option<Before<'_>>,
    inherited: &Inherited,
    challenges: &Challenging,
    renewals: &mut Vec<(Arc<Published<CertificateSet>>, CertificateSet)>,
) -> anyhow::Result<(Listened, Arc<TcpListener>)> {
    let known = in_force.and_then(|in_force| {
        let Shared {
            config, listeners, ..
        } = in_force.shared;
        let mut known = config.listeners.iter().zip(listeners);
        let (before, known) = known.find(|(known, _)| is_same_place(known, listener))?;
        Some((in_force, before, known, known.socket.upgrade()?))
    });
    let name = || format!("listener {}", listener.name);
    let Some((in_force, before, known, socket)) = known else {
        let socket = listener::listen(inherited, &listener.name, listener.address)
            .with_context(|| format!("{}: cannot listen on {}", name(), listener.address))?;
        let tls = match &listener.protocol {
            Protocol::Https(tls) => Some(front_end_of(tls, listener, challenges, Held::Nothing)?),
            Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
        };
        let socket = Arc::new(socket);
        let listened = Listened {
            id: ListenerId::unused(),
            socket: Arc::downgrade(&socket),
            tls,
        };
        return Ok((listened, socket));
    };
    let (tls, judged_alike) = match (&listener.protocol, &before.protocol, &known.tls) {
        (Protocol::Https(tls), Protocol::Https(old), Some(front_end)) => {
            let alike = tls.client_certificates == old.client_certificates
                && front::judges(tls) == front_end.judges;
            let offers_alike =
                listener.http2 == before.http2 && tls.acme.is_empty() == old.acme.is_empty();
            let set = front_end.certificates.load();
            let held = in_force.held(&set);
            if alike && tls.min_version == old.min_version && offers_alike {
                // The keys of its tickets live on.
                let set = front::certificates(tls, held).with_context(name)?;
                renewals.push((Arc::clone(&front_end.certificates), set));
                (Some(front_end.clone()), true)
            } else {
                (Some(front_end_of(tls, listener, challenges, held)?), alike)
            }
        }
        (Protocol::Https(tls), ..) => {
            let made = front_end_of(tls, listener, challenges, Held::Nothing)?;
            (Some(made), false)
        }
        (Protocol::Http | Protocol::Tcp | Protocol::Tls, ..) => (None, true),
    };
    let speaks = |listener: &Listener| std::mem::discriminant(&listener.protocol);
    let promises_the_same = judged_alike
        && speaks(listener) == speaks(before)
        && listener.proxy_protocol == before.proxy_protocol;
    let listened = Listened {
        // What clients have shown under other terms counts for nothing under these.
        id: match promises_the_same {
            true => known.id,
            false => ListenerId::unused(),
        },
        socket: Arc::downgrade(&socket),
        tls,
    };
    Ok((listened, socket))
}

fn front_end_of(
    tls: &config::TlsFrontEnd,
    listener: &Listener,
    challenges: &Challenging,
    held: Held<'_>,
) -> anyhow::Result<FrontEnd> {
    let made = front_end(tls, listener.http2, challenges, held);
    made.with_context(|| format!("listener {}", listener.name))
}

/// Do both listen on the same socket? Of those that leave the port to the system, the name says.
fn is_same_place(a: &Listener, b: &Listener) -> bool {
    a.address == b.address && (a.address.port() != 0 || a.name == b.name)
}

fn draft(
    service: &config::Service,
    before: Option<&Shared>,
    own: &OwnKey,
    loader: &mut Loader,
) -> anyhow::Result<Draft> {
    let affinity = affinity(service, own)?;
    let tls = service.tls.as_ref().map(|terms| loader.load(terms));
    let layering = Layering {
        header: service.proxy_header.map(Into::into),
        tls: tls
            .transpose()
            .with_context(|| format!("service {}", service.name))?,
        h2: service.upstream.protocol.is_h2(),
    };
    let known = before.and_then(|before| {
        let mut known = before.config.services.iter().zip(&before.services);
        known.find(|(known, _)| known.name == service.name)
    });
    let kept = known.filter(|(known, serviced)| {
        let both = |a: &Option<Arc<BackEnd>>, b: &Option<Arc<BackEnd>>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is_same(b),
            _ => false,
        };
        let cookies = match (&affinity, &serviced.affinity) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is_same(b),
            _ => false,
        };
        let layers = &serviced.layering;
        cookies
            && known.discover == service.discover
            && known.in_flight == service.in_flight
            && (layers.header, layers.h2) == (layering.header, layering.h2)
            && both(&layers.tls, &layering.tls)
    });
    Ok(Draft {
        kept: kept.map(|(_, serviced)| serviced.clone()),
        affinity,
        layering,
    })
}

/// The cookie of a service, if it has one.
fn affinity(service: &config::Service, own: &OwnKey) -> anyhow::Result<Option<Arc<Affinity>>> {
    let Some(sticky) = &service.sticky else {
        return Ok(None);
    };
    let key = match &sticky.key_file {
        Some(path) => Sticky::key(path)
            .with_context(|| format!("service {}: cannot use {}", service.name, path.display()))?,
        None => own.to_vec(),
    };
    let affinity = Affinity::new(Arc::clone(&service.name), sticky, &key);
    Ok(Some(Arc::new(affinity)))
}
