//! What is wrong with a name and its records, in words that say what to do. Pure.
//!
//! The traps are those that people report: names without a port in front, ports without a name,
//! the search list, virtual addresses, servers that have no SRV at all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::look::{Findings, Look};
use crate::discovery::answers::{
    Answer, Failure, LookupError, Negative, OneFamily, SrvAnswer, SrvRecord, Target, Transport,
};
use crate::discovery::srv::declined;

/// Records that AWS Cloud Map shows at most.
const CLOUD_MAP: usize = 8;

/// Records of one kind that are listed at most.
const LISTED: usize = 8;

/// The resolver that Docker puts into each container.
const DOCKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// What there is to say, most important first: one line each.
pub(crate) fn remarks(findings: &Findings) -> Vec<String> {
    let mut out = Vec::new();
    for look in &findings.looks {
        if let Err(error) = &look.srv {
            out.push(match findings.looks.len() {
                1 => unanswered(error),
                _ => format!("{}: {}", look.server, unanswered(error)),
            });
        }
    }
    let Some(look) = findings.first() else {
        if findings.looks.is_empty() {
            out.push("there is no name server to ask".to_owned());
        }
        return out;
    };
    match &look.srv {
        Ok(Answer::Found(answer)) => records(&mut out, look, answer),
        Ok(Answer::Nothing(negative)) => nothing(&mut out, findings, look, negative),
        Err(_) => {}
    }
    differences(&mut out, findings, look);
    out
}

fn unanswered(error: &LookupError) -> String {
    let hint = match error {
        LookupError::Servers(failures) => match failures.first() {
            Some((_, Failure::Timeout | Failure::Network(_))) => {
                " (is a DNS server listening there, and does nothing drop the packets?)"
            }
            Some((_, Failure::Code(code))) if code.to_string().contains("Refused") => {
                " (it serves neither this zone nor us)"
            }
            Some((_, Failure::Truncated(_))) => {
                " (large answers need TCP: open the port for it as well)"
            }
            _ => "",
        },
        _ => "",
    };
    format!("{error}{hint}")
}

fn nothing(out: &mut Vec<String>, findings: &Findings, look: &Look, negative: &Negative) {
    let name = findings.name.trim_end_matches('.');
    let server = look.server;
    out.push(match negative.name_exists {
        true => format!("{name} exists, but has no SRV records (NODATA), says {server}"),
        false => format!("{name} does not exist (NXDOMAIN), says {server}"),
    });
    let candidates = findings.servers.candidates(&findings.name);
    let candidates = candidates.unwrap_or_default();
    if candidates.len() > 1 {
        let tried: Vec<_> = candidates.iter().map(|c| c.to_ascii()).collect();
        out.push(format!(
            "the search list of resolv.conf made these of it: {}; a final dot asks for {name} alone",
            tried.join(", ")
        ));
    } else if !findings.from_system
        && !findings.name.ends_with('.')
        && name.matches('.').count() < 3
    {
        out.push(
            "servers that are named here get the name as it is: the search list of resolv.conf does not go with them"
                .to_owned(),
        );
    }
    if !look.itself.is_empty() {
        let addresses: Vec<_> = look
            .itself
            .iter()
            .take(LISTED)
            .map(IpAddr::to_string)
            .collect();
        out.push(format!(
            "it has addresses, though ({}): discover = {{ a = \"{name}\", port = … }} uses those",
            addresses.join(", ")
        ));
    }
    if look.server.ip() == DOCKER {
        out.push(
            "Docker's own DNS has no SRV records at all: discover = { a = \"SERVICE\", port = … } finds every replica"
                .to_owned(),
        );
    }
    let labels: Vec<_> = name.split('.').collect();
    let named = labels.len() > 2 && labels[0].starts_with('_') && labels[1].starts_with('_');
    let kubernetes = labels.contains(&"svc");
    if !named && !name.ends_with(".consul") {
        out.push(format!(
            "SRV names begin with a port and a protocol: _http._tcp.{}",
            name.trim_start_matches('_')
        ));
    } else if kubernetes {
        let port = labels[0].trim_start_matches('_');
        out.push(format!(
            "Kubernetes has this name only when the Service has a port with `name: {port}` (a port without a name has no SRV records) and at least one endpoint is ready"
        ));
    }
}

fn records(out: &mut Vec<String>, look: &Look, answer: &SrvAnswer) {
    if look.assembled.endpoints.is_empty() && !declined(&answer.records) {
        out.push("no endpoint can be used".to_owned());
    }
    let rejected = look.assembled.rejected.iter();
    let rejected = rejected.map(|r| format!("record `{}` is not used: {}", r.record, r.reason));
    some(out, rejected.collect(), "records are not used");
    let waiting = look.assembled.waiting.iter().map(|target| {
        let reason = look.targets.get(target).map(|addresses| {
            let families = [&addresses.v4, &addresses.v6];
            let failed = families.into_iter().find_map(|family| match family {
                OneFamily::Failed(error) => Some(error.to_string()),
                _ => None,
            });
            failed.unwrap_or_else(|| "there are neither A nor AAAA records".to_owned())
        });
        format!(
            "target {target} has no address: {}",
            reason.unwrap_or_default()
        )
    });
    some(out, waiting.collect(), "targets have no address");
    weights(out, look.records());
    rotation(out, look, answer);
    match &answer.origin.transport {
        Transport::Udp | Transport::Whole => {}
        transport => out.push(transport.to_string()),
    }
    match answer.origin.ttl.as_secs() {
        0 => out.push("the TTL is 0: it is asked again every second".to_owned()),
        ttl @ 31.. => out.push(format!(
            "the TTL is {ttl} s: it is asked again every 30 s all the same, but caches on the way keep changes from us for longer"
        )),
        _ => {}
    }
    virtual_address(out, answer);
}

/// A part of what there is, another one each time; or perhaps.
fn rotation(out: &mut Vec<String>, look: &Look, answer: &SrvAnswer) {
    let consul = answer.origin.name.split('.').any(|label| label == "consul");
    if let Some(polls) = look.rotating() {
        out.push(polls.remark());
        if consul || polls.shown == 3 {
            out.push(
                "Consul shows three to a question without EDNS, and a resolver on the way may have taken that off: with `dns_config { enable_truncate = true }` it says that it left others out, and Evenkeel gets them over TCP"
                    .to_owned(),
            );
        } else if polls.shown == CLOUD_MAP {
            out.push("AWS Cloud Map shows eight at most".to_owned());
        }
    } else if answer.records.len() == CLOUD_MAP && !answer.origin.ttl.is_zero() {
        let ttl = humantime::format_duration(answer.origin.ttl);
        out.push(format!(
            "AWS Cloud Map shows eight at most, and a cache on the way gives the same ones for {ttl}: with `--polls 5 --every {}` it is seen whether there are more",
            ttl.to_string().replace(' ', "")
        ));
    }
}

/// Kubernetes gives a Service that is not headless one record, to its virtual address.
fn virtual_address(out: &mut Vec<String>, answer: &SrvAnswer) {
    let [record] = &answer.records[..] else {
        return;
    };
    let Target::Host(target) = &record.target else {
        return;
    };
    let owner = answer.origin.aliases.last().unwrap_or(&answer.origin.name);
    let service = owner.splitn(3, '.').nth(2);
    if owner.contains(".svc.") && service == Some(target) {
        out.push(
            "this is the virtual address of a Service, not its pods: with `clusterIP: None` DNS lists the pods, and their shares can be exact"
                .to_owned(),
        );
    }
}

fn weights(out: &mut Vec<String>, records: &[SrvRecord]) {
    let priorities: BTreeSet<_> = records.iter().map(|r| r.priority).collect();
    for priority in priorities {
        let tier = records.iter().filter(|r| r.priority == priority);
        let zeros = tier.clone().filter(|r| r.weight == 0).count();
        let all = tier.count();
        if zeros == 0 || declined(records) {
            continue;
        }
        out.push(match zeros == all {
            true if all == 1 => continue,
            true => format!("priority {priority}: all weights are 0, so the shares are equal"),
            false => format!(
                "priority {priority}: {zeros} of {all} weights are 0, which is a small share (1/256 of the mean weight) and not none"
            ),
        });
    }
}

/// Only the first server that answers counts, so what others say matters when it fails.
fn differences(out: &mut Vec<String>, findings: &Findings, first: &Look) {
    let members = |look: &Look| -> BTreeSet<String> {
        let records = look.answer().map(|a| &a.records[..]).unwrap_or_default();
        records.iter().map(SrvRecord::to_string).collect()
    };
    let known = members(first);
    for look in findings.looks.iter().filter(|l| l.srv.is_ok()) {
        // Answers that rotate always differ, but not from none at all.
        let rotates = [first, look].iter().any(|look| look.rotating().is_some());
        if rotates && look.answer().is_some() {
            continue;
        }
        let other = members(look);
        if other == known {
            continue;
        }
        let list = |set: Vec<&String>| match set.len() {
            0 => "nothing".to_owned(),
            n if n > LISTED => format!("{n} records"),
            _ => set
                .into_iter()
                .map(|r| format!("`{r}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        out.push(format!(
            "{} and {} differ: only the first has {}, only the second has {}",
            first.server,
            look.server,
            list(known.difference(&other).collect()),
            list(other.difference(&known).collect()),
        ));
    }
}

/// A few of them, or how many there are.
fn some(out: &mut Vec<String>, lines: Vec<String>, what: &str) {
    let all = lines.len();
    out.extend(lines.into_iter().take(LISTED));
    if all > LISTED {
        out.push(format!("and so on: {all} {what}"));
    }
}
