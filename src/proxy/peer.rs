//! Who a client's connection belongs to, and where it arrived.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::limits::origin;
use crate::config::Config;
use crate::http::headers::Fields;
use crate::tls::client_certificates::ClientCertificate;

/// Who a connection belongs to.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address: that of the connection, or the one that a PROXY header gave.
    pub address: SocketAddr,
    /// That is the address of a proxy which does not know its client's: it stands for nobody who is
    /// trusted.
    pub is_unknown: bool,
    /// The listener that accepted it.
    pub listener: usize,
    /// TLS version, if it came over TLS.
    pub tls: Option<&'static str>,
    /// Where it arrived, if it has many requests under way, none of which has the connection itself.
    pub arrival: Option<Rc<ArrivedAt>>,
    /// How many of its responses are being coded, if it has many requests under way.
    pub coding: Option<Rc<Cell<usize>>>,
    /// The certificate that the client showed, verified. Few listeners ask for one.
    pub certificate: Option<Rc<ClientCertificate>>,
}

impl Peer {
    /// Whose request it is that came from there with these fields. What a proxy says that does not know
    /// its client is not believed.
    pub fn client(&self, fields: &Fields, config: &Config) -> IpAddr {
        let address = self.address.ip();
        match self.is_unknown {
            true => address,
            false => origin::client(address, fields, config),
        }
    }
}

/// Where a connection of HTTP/2 arrived, for backends that are told so.
#[derive(Debug)]
pub struct ArrivedAt {
    /// Our address.
    pub address: SocketAddr,
    /// What the client named in SNI.
    pub name: Option<Box<str>>,
}
