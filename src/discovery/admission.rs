//! Which addresses may be endpoints, whatever DNS says: it may be forged or mistaken.
//!
//! Pure. `srv.rs` asks it for every address; what the configuration lists itself (`static`) does
//! not come by here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// The rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    own: Vec<SocketAddr>,
    allowed: Vec<IpNet>,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request would come back to us, for ever.
    #[error("it is one of our own listeners")]
    Own,
    /// Cloud metadata services live there.
    #[error("it is link-local, and `[dns] allow` does not list it")]
    LinkLocal,
    /// Not an address of a host.
    #[error("it is a multicast or broadcast address, and `[dns] allow` does not list it")]
    Multicast,
    /// Not an address of a host.
    #[error("it is the unspecified address, and `[dns] allow` does not list it")]
    Unspecified,
    /// A DNS server elsewhere has no say in what is on this host.
    #[error(
        "it is a loopback address from a DNS server that is not on loopback, and `[dns] allow` does not list it"
    )]
    Loopback,
}

impl Admission {
    /// `own`: where this process listens (an unspecified address stands for all of this host's);
    /// `allowed`: networks that are let in although they are refused by default.
    pub fn new(own: Vec<SocketAddr>, allowed: Vec<IpNet>) -> Admission {
        Admission { own, allowed }
    }

    /// May `endpoint` be used, said by a server that is on loopback or not? `is_local` tells
    /// whether an address is one of this host's; it is asked only when the port is one that a
    /// listener of ours has on all addresses.
    pub fn judge(
        &self,
        endpoint: SocketAddr,
        server_on_loopback: bool,
        is_local: &dyn Fn(IpAddr) -> bool,
    ) -> Result<(), Refusal> {
        let address = endpoint.ip().to_canonical();
        let ours = |own: &SocketAddr| {
            let listener = own.ip().to_canonical();
            own.port() == endpoint.port()
                && (listener == address
                    || listener.is_unspecified()
                        && (address.is_loopback() || address.is_unspecified() || is_local(address)))
        };
        if self.own.iter().any(ours) {
            return Err(Refusal::Own);
        }
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if link_local {
            Err(Refusal::LinkLocal)
        } else if address.is_multicast() || broadcast {
            Err(Refusal::Multicast)
        } else if address.is_unspecified() {
            Err(Refusal::Unspecified)
        } else if address.is_loopback() && !server_on_loopback {
            Err(Refusal::Loopback)
        } else {
            Ok(())
        }
    }
}

/// Is this one of the host's own addresses? The kernel is asked which source address it would
/// use to get there: for an address of its own, that address. No packet is sent.
pub fn is_local(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // The port is of no consequence; 9 is "discard".
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        use Refusal::*;
        let rules = Admission::new(
            ["0.0.0.0:8443", "192.0.2.1:9902", "[::]:8080"]
                .map(|a| a.parse().unwrap())
                .to_vec(),
            ["169.254.7.0/24", "127.0.5.0/24", "fe80::/64"]
                .map(|n| n.parse().unwrap())
                .to_vec(),
        );
        let is_local = |address: IpAddr| address == "10.0.0.1".parse::<IpAddr>().unwrap();
        let table: &[(&str, &str, bool, Result<(), Refusal>)] = &[
            ("an ordinary address", "10.0.0.2:80", false, Ok(())),
            ("ours, as written", "192.0.2.1:9902", false, Err(Own)),
            (
                "ours, as a mapped address",
                "[::ffff:192.0.2.1]:9902",
                false,
                Err(Own),
            ),
            ("our address, another port", "192.0.2.1:9903", false, Ok(())),
            (
                "a wildcard listener, this host",
                "10.0.0.1:8443",
                false,
                Err(Own),
            ),
            (
                "a wildcard listener, another host",
                "10.0.0.2:8443",
                false,
                Ok(()),
            ),
            (
                "a wildcard listener, loopback",
                "127.0.0.1:8443",
                true,
                Err(Own),
            ),
            (
                "an IPv6 wildcard takes IPv4 too",
                "127.0.0.1:8080",
                true,
                Err(Own),
            ),
            ("ours, although listed", "127.0.5.1:8443", false, Err(Own)),
            ("metadata", "169.254.169.254:80", false, Err(LinkLocal)),
            (
                "metadata, mapped",
                "[::ffff:169.254.169.254]:80",
                false,
                Err(LinkLocal),
            ),
            ("link-local, listed", "169.254.7.9:80", false, Ok(())),
            (
                "link-local, IPv6",
                "[fe80:0:0:1::1]:80",
                false,
                Err(LinkLocal),
            ),
            ("link-local, IPv6, listed", "[fe80::1]:80", false, Ok(())),
            ("multicast", "224.0.0.1:80", false, Err(Multicast)),
            ("multicast, IPv6", "[ff02::1]:80", false, Err(Multicast)),
            ("broadcast", "255.255.255.255:80", false, Err(Multicast)),
            ("unspecified", "0.0.0.0:80", true, Err(Unspecified)),
            ("unspecified, IPv6", "[::]:80", true, Err(Unspecified)),
            ("loopback from afar", "127.0.0.1:80", false, Err(Loopback)),
            ("loopback from loopback", "127.0.0.1:80", true, Ok(())),
            ("loopback, listed", "127.0.5.9:80", false, Ok(())),
            (
                "loopback, IPv6, from afar",
                "[::1]:80",
                false,
                Err(Loopback),
            ),
        ];
        for (rule, endpoint, on_loopback, expected) in table {
            let verdict = rules.judge(endpoint.parse().unwrap(), *on_loopback, &is_local);
            assert_eq!(verdict, *expected, "{rule}: {endpoint}");
        }
    }

    #[test]
    fn the_kernel_knows_its_addresses() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.77".parse().unwrap()));
    }
}
