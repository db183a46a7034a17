//! What the system says about name resolution: servers, search list and `ndots` of resolv.conf,
//! and the hosts file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::answers::{Addresses, Negative, OneFamily};

/// Where the system keeps its resolver configuration.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the system keeps names that it knows without DNS.
const HOSTS: &str = "/etc/hosts";

/// How long an entry of the hosts file is believed: containers get new ones while they run.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// Dots that a name needs to be tried as it is before the search list, unless resolv.conf says
/// otherwise (resolv.conf(5)).
const NDOTS: usize = 1;

/// Servers and search list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// In order of preference.
    pub addresses: Vec<SocketAddr>,
    /// Suffixes for names without a final dot.
    pub search: Vec<Name>,
    /// A name with fewer dots goes through the search list first.
    pub ndots: usize,
    /// A hosts file that is asked for addresses before the servers.
    pub hosts_file: Option<PathBuf>,
}

impl Servers {
    /// Servers that the configuration names. The system's search list and hosts
    /// file do not go with them.
    pub fn given(addresses: &[SocketAddr]) -> Servers {
        Servers {
            addresses: addresses.to_vec(),
            search: Vec::new(),
            ndots: NDOTS,
            hosts_file: None,
        }
    }

    /// Those of a file in the format of resolv.conf(5), read now. `timeout`, `attempts`, `rotate`
    /// and `edns0` in it are ignored: these are our own decisions.
    pub fn read(path: &Path) -> Result<Servers, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (config, options) =
            parse_resolv_conf(text).map_err(|error| format!("{}: {error}", path.display()))?;
        // hickory leaves each server's port at 53, which is what the format means.
        let addresses = config.name_servers.iter();
        Ok(Servers {
            addresses: addresses.map(|s| SocketAddr::new(s.ip, 53)).collect(),
            search: config.search,
            ndots: options.ndots,
            hosts_file: Some(HOSTS.into()),
        })
    }

    /// What the hosts file says about `name`, read now; `None`: nothing, ask DNS. As in glibc, a
    /// name that it has in one family only has no address of the other.
    pub(super) fn hosts(&self, name: &str) -> Option<Addresses> {
        let text = std::fs::read_to_string(self.hosts_file.as_ref()?).ok()?;
        let name = name.trim_end_matches('.');
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address: IpAddr = words.next()?.parse().ok()?;
            words
                .any(|n| n.eq_ignore_ascii_case(name))
                .then_some(address)
        });
        let (v4, v6): (Vec<_>, Vec<_>) = lines.partition(IpAddr::is_ipv4);
        if v4.is_empty() && v6.is_empty() {
            return None;
        }
        // This host itself says so.
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let family = |mut addresses: Vec<IpAddr>| {
            addresses.sort_unstable();
            addresses.dedup();
            match addresses.is_empty() {
                true => OneFamily::Nothing(Negative {
                    name_exists: true,
                    ttl: Some(HOSTS_TTL),
                    server,
                }),
                false => OneFamily::Found {
                    addresses,
                    ttl: HOSTS_TTL,
                    server,
                    glue: false,
                },
            }
        };
        Some(Addresses {
            v4: family(v4),
            v6: family(v6),
        })
    }

    /// Absolute names to ask for, in order, for `name` as somebody wrote it: a final dot means
    /// that it is absolute already. At most one per suffix and the name itself.
    pub fn candidates(&self, name: &str) -> Result<Vec<Name>, BadName> {
        let bad = |reason: String| BadName {
            name: name.to_owned(),
            reason,
        };
        if !name.is_ascii() {
            return Err(bad("write it in its ASCII form (xn--…)".to_owned()));
        }
        let mut written = Name::from_ascii(name).map_err(|error| bad(error.to_string()))?;
        if written.is_root() || written.is_empty() || name.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        let absolute = written.is_fqdn();
        written.set_fqdn(false);
        let dots = usize::from(written.num_labels()).saturating_sub(1);
        let mut itself = written.clone();
        itself.set_fqdn(true);
        if absolute || self.search.is_empty() {
            return Ok(vec![itself]);
        }
        // A suffix that makes the name too long simply cannot match.
        let suffixes = self.search.iter();
        let mut names: Vec<_> = suffixes
            .filter_map(|suffix| {
                let mut name = written.clone().append_domain(suffix).ok()?;
                name.set_fqdn(true);
                Some(name)
            })
            .collect();
        if dots >= self.ndots {
            names.insert(0, itself);
        } else {
            names.push(itself);
        }
        Ok(names)
    }
}

/// A name that DNS cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a DNS name: {reason}")]
pub struct BadName {
    name: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(names: &[Name]) -> Vec<String> {
        names.iter().map(|n| n.to_ascii()).collect()
    }

    #[test]
    fn candidates_follow_resolv_conf() {
        let k8s = Servers {
            addresses: vec![],
            search: ["default.svc.cluster.local", "cluster.local."]
                .map(|s| Name::from_ascii(s).unwrap())
                .to_vec(),
            ndots: 5,
            hosts_file: None,
        };
        let plain = Servers {
            ndots: 1,
            ..k8s.clone()
        };
        let none = Servers::given(&[]);
        let table: &[(&str, &Servers, &str, &[&str])] = &[
            (
                "few dots: the search list goes first",
                &k8s,
                "_http._tcp.web",
                &[
                    "_http._tcp.web.default.svc.cluster.local.",
                    "_http._tcp.web.cluster.local.",
                    "_http._tcp.web.",
                ],
            ),
            (
                "enough dots: the name itself goes first",
                &plain,
                "web.example",
                &[
                    "web.example.",
                    "web.example.default.svc.cluster.local.",
                    "web.example.cluster.local.",
                ],
            ),
            ("a final dot skips the list", &k8s, "web.", &["web."]),
            ("no list", &none, "web", &["web."]),
        ];
        for (rule, servers, name, expected) in table {
            let names = servers.candidates(name).unwrap();
            assert_eq!(written(&names), *expected, "{rule}");
        }
    }

    #[test]
    fn the_hosts_file_is_asked_before_dns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let text = "127.0.0.1 localhost\n::1 localhost # comment db\n\
                    10.0.0.9\tDB db.example\n# 10.0.0.8 web\nnonsense web\n";
        std::fs::write(&path, text).unwrap();
        let servers = Servers {
            hosts_file: Some(path),
            ..Servers::default()
        };
        let shown = |name: &str| {
            let of = |family: &OneFamily| match family {
                OneFamily::Found { addresses, .. } => addresses.clone(),
                _ => Vec::new(),
            };
            let addresses = servers.hosts(name)?;
            let all = [of(&addresses.v4), of(&addresses.v6)].concat();
            Some(
                all.iter()
                    .map(IpAddr::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(shown("localhost").as_deref(), Some("127.0.0.1 ::1"));
        assert_eq!(shown("db").as_deref(), Some("10.0.0.9"));
        assert_eq!(shown("Db.Example.").as_deref(), Some("10.0.0.9"));
        assert_eq!(shown("web"), None);
        assert!(Servers::given(&[]).hosts("localhost").is_none());
    }

    #[test]
    fn names_that_cannot_be_asked_for() {
        let servers = Servers::given(&[]);
        let long = "a".repeat(64);
        for name in ["", ".", "a..b", "bücher.example", &long] {
            assert!(servers.candidates(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn resolv_conf_is_read_as_resolv_conf_5_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(
            &path,
            "search a.example b.example\nnameserver 192.0.2.1\nnameserver ::1\noptions ndots:3\n",
        )
        .unwrap();
        let servers = Servers::read(&path).unwrap();
        let expected: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers.addresses, expected);
        assert_eq!(servers.ndots, 3);
        assert_eq!(written(&servers.search), ["a.example", "b.example"]);
        assert!(Servers::read(&dir.path().join("none")).is_err());
    }
}
