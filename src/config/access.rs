//! `allow` and `deny`: which clients a listener or a route takes requests from, by their addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostics::{Problem, Problems};
use super::read::At;
use super::source::Span;

/// Which clients are taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// These alone; empty: all.
    pub allow: Vec<IpNet>,
    /// But not these.
    pub deny: Vec<IpNet>,
}

impl Access {
    /// Is a client at this address taken in? `None`: nobody knows where it is, and no list has it.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let Some(client) = client.map(|address| address.to_canonical()) else {
            return self.allow.is_empty();
        };
        let has = |list: &[IpNet]| list.iter().any(|net| net.contains(&client));
        !has(&self.deny) && (self.allow.is_empty() || has(&self.allow))
    }
}

/// Builds the lists; `None`: everybody is taken in. `keys`: where they were written.
pub(super) fn build(
    allow: Option<&[At<IpNet>]>,
    deny: Option<&[At<IpNet>]>,
    keys: impl Fn(&str) -> Option<Span>,
    problems: &mut Problems,
) -> Option<Access> {
    if let (Some([]), Some(span)) = (allow, keys("allow")) {
        problems.push(
            Problem::error(span, "nobody is allowed").help("leave `allow` out for everybody"),
        );
    }
    let (allow, deny) = (allow.unwrap_or_default(), deny.unwrap_or_default());
    for denied in deny {
        if let Some(at) = allow.iter().find(|at| denied.value.contains(&at.value)) {
            problems.push(
                Problem::error(at.span, format!("`deny` takes all of {} back", at.value))
                    .and(denied.span, "here")
                    .help("who is in both lists is denied"),
            );
        }
    }
    let values = |list: &[At<IpNet>]| list.iter().map(|at| at.value).collect();
    let access = Access {
        allow: values(allow),
        deny: values(deny),
    };
    (!access.allow.is_empty() || !access.deny.is_empty()).then_some(access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_admitted() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().expect("a range")).collect();
        for (rule, allow, deny, client, admitted) in [
            (
                "on the list",
                &["10.0.0.0/8"][..],
                &[][..],
                "10.1.2.3",
                true,
            ),
            ("not on it", &["10.0.0.0/8"], &[], "192.0.2.7", false),
            ("denied", &[], &["192.0.2.0/24"], "192.0.2.7", false),
            ("not denied", &[], &["192.0.2.0/24"], "10.1.2.3", true),
            (
                "deny goes before",
                &["10.0.0.0/8"],
                &["10.0.0.5/32"],
                "10.0.0.5",
                false,
            ),
            (
                "and takes no more",
                &["10.0.0.0/8"],
                &["10.0.0.5/32"],
                "10.0.0.6",
                true,
            ),
            (
                "mapped into IPv6",
                &["10.0.0.0/8"],
                &[],
                "::ffff:10.0.0.5",
                true,
            ),
            ("the other family", &["::/0"], &[], "10.0.0.5", false),
            (
                "unknown, with a list of who may",
                &["0.0.0.0/0"],
                &[],
                "",
                false,
            ),
            (
                "unknown, with a list of who may not",
                &[],
                &["0.0.0.0/0"],
                "",
                true,
            ),
        ] {
            let access = Access {
                allow: nets(allow),
                deny: nets(deny),
            };
            assert_eq!(access.admits(client.parse().ok()), admitted, "{rule}");
        }
    }
}
