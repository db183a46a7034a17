//! Where the server is: an address, or a name that the system's name servers know.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::{Family, Lookup};
use crate::discovery::answers::{Addresses, OneFamily};
use crate::discovery::resolver::Resolver;

/// Where DNS servers listen (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// For finding the address of a name, all servers and the search list included.
const PATIENCE: Duration = Duration::from_secs(10);

/// `10.0.0.5`, `[2001:db8::5]:5300`, `dns` or `dns:5300`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// An address.
    At(SocketAddr),
    /// A name to be resolved.
    Named {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What is neither an address nor a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an address or a name, and a port unless it is 53: 10.0.0.5, dns:5300, [2001:db8::5]:53")]
pub struct BadServer;

impl FromStr for ServerAddress {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<ServerAddress, BadServer> {
        if let Ok(address) = text.parse() {
            return Ok(ServerAddress::At(address));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(ServerAddress::At((ip, PORT).into()));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| BadServer)?),
            None => (text, PORT),
        };
        let in_host = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // A name that ends in a number is an address with a mistake in it.
        let last = host.trim_end_matches('.').rsplit('.').next();
        let numeric = last.is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if port == 0 || numeric || !host.chars().all(in_host) {
            return Err(BadServer);
        }
        Ok(ServerAddress::Named {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::At(address) => address.fmt(f),
            ServerAddress::Named { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl ServerAddress {
    /// Its addresses, at least one, or why there are none. Reads resolv.conf and the hosts file
    /// each time, for containers get new ones. Takes ten seconds at most; cancel-safe.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let (host, port) = match self {
            ServerAddress::At(address) => return Ok(vec![*address]),
            ServerAddress::Named { host, port } => (host, *port),
        };
        let resolver = Resolver::new(
            host.as_str().into(),
            &Lookup::to(&[]),
            Arc::default(),
            Arc::default(),
        )
        .map_err(|error| error.to_string())?;
        let found = timeout(PATIENCE, resolver.addresses(host, Family::Auto)).await;
        let Addresses { v4, v6 } = found.map_err(|_| format!("{host} is not resolved in time"))?;
        let mut addresses = Vec::new();
        let mut why = format!("{host} has no address");
        for family in [v4, v6] {
            match family {
                OneFamily::Found { addresses: all, .. } => {
                    addresses.extend(all.into_iter().map(|ip| SocketAddr::new(ip, port)));
                }
                OneFamily::Failed(error) => why = format!("{host} is not resolved: {error}"),
                OneFamily::Nothing(_) | OneFamily::NotAsked => {}
            }
        }
        match addresses.is_empty() {
            true => Err(why),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        let at = |text: &str| ServerAddress::At(text.parse().unwrap());
        let named = |host: &str, port| ServerAddress::Named {
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            ("10.0.0.5", at("10.0.0.5:53")),
            ("10.0.0.5:5300", at("10.0.0.5:5300")),
            ("::1", at("[::1]:53")),
            ("[::1]", at("[::1]:53")),
            ("[::1]:5300", at("[::1]:5300")),
            ("dns", named("dns", 53)),
            ("dns_1:5300", named("dns_1", 5300)),
            ("ns.example.test.", named("ns.example.test.", 53)),
        ] {
            let parsed: ServerAddress = text.parse().unwrap();
            assert_eq!(parsed, expected, "{text}");
        }
        for text in [
            "",
            ":53",
            "dns:",
            "dns:0",
            "dns:dns",
            "10.0.0",
            "10.0.0.256:53",
            "a b",
            "dns:70000",
            "http://dns",
            "[::1",
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(BadServer), "{text}");
        }
    }

    #[tokio::test]
    async fn the_hosts_file_is_asked_first() {
        let server: ServerAddress = "localhost:5300".parse().unwrap();
        let addresses = server.resolve().await.unwrap();
        assert!(
            addresses
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 5300)
        );
    }
}
