//! What a configuration amounts to, in a few lines.

use std::fmt::Write as _;

use super::count;
use crate::balance::shares::{Weight, shares};
use crate::config::{
    BackendTls, ClientCertificateMode, Config, Discover, HostPattern, Protocol, Route,
    StaticEndpoint, Strategy, Target, TlsVersion, Trust, UpstreamProtocol,
};

/// So many members of each kind are listed.
const LISTED: usize = 20;

/// `ok`, and what the configuration amounts to.
pub(super) fn of(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| {
        let speaks = match (&listener.protocol, listener.redirect) {
            (_, Some(redirect)) => format!("http, redirects to https ({})", redirect.status),
            (Protocol::Http, None) => "http".to_owned(),
            (Protocol::Tcp, None) => "tcp".to_owned(),
            (Protocol::Tls, None) => "tls, passed through".to_owned(),
            (Protocol::Https(tls), None) => format!(
                "https, TLS {} or later, {}{}{}",
                match tls.min_version {
                    TlsVersion::Tls12 => "1.2",
                    TlsVersion::Tls13 => "1.3",
                },
                count(tls.certificates.len(), "certificate"),
                match tls.acme.len() {
                    0 => String::new(),
                    n => format!(" and {n} ordered"),
                },
                match tls.client_certificates.as_ref().map(|wanted| wanted.mode) {
                    None => "",
                    Some(ClientCertificateMode::Required) => ", clients' certificates required",
                    Some(ClientCertificateMode::Optional) => ", clients' certificates optional",
                },
            ),
        };
        let proxied = match listener.proxy_protocol {
            true => ", behind PROXY headers",
            false => "",
        };
        match listener.name.parse::<std::net::SocketAddr>() {
            Ok(_) => format!("{} {speaks}{proxied}", listener.address),
            Err(_) => format!("{} {} {speaks}{proxied}", listener.name, listener.address),
        }
    });
    let services = config.services.iter().map(|service| {
        let from = match &service.discover {
            Discover::Srv { name, .. } => format!("SRV {name}"),
            Discover::Address { name, port, .. } => format!("A {name} port {port}"),
            Discover::Static(list) => statics(list),
        };
        let strategy = match service.balancing.strategy {
            Strategy::Weighted => String::new(),
            other => format!(", {}", other.name()),
        };
        let over = match service.upstream.protocol {
            UpstreamProtocol::Http => "",
            UpstreamProtocol::Https => ", https",
            UpstreamProtocol::H2c => ", HTTP/2",
            UpstreamProtocol::H2 => ", HTTP/2 over TLS",
        };
        let trust = match service.tls.as_deref() {
            Some(BackendTls {
                trust: Trust::Nobody,
                ..
            }) => " (anybody's certificate is taken)",
            _ => "",
        };
        format!("{}: {from}{over}{trust}{strategy}", service.name)
    });
    let name_of = |route: &Route| leads_to(config, &route.target);
    let routes: Vec<_> = config
        .routes
        .iter()
        .filter(|route| takes_requests(config, route))
        .map(|route| format!("{} → {}", route.label, name_of(route)))
        .collect();
    let layer4 = config.listeners.iter().enumerate();
    let layer4 = layer4.filter(|(_, listener)| listener.protocol.is_layer4());
    let layer4: Vec<_> = layer4
        .flat_map(|(index, listener)| {
            let its = config.layer4_routes(index);
            its.map(move |(_, route)| {
                let what = match listener.protocol {
                    Protocol::Tcp => "every connection".to_owned(),
                    _ => asked_for(route),
                };
                // Somebody who meant requests alone wants to know.
                let implicit = match route.listeners.is_empty() {
                    true => ", by a route that names no listener",
                    false => "",
                };
                format!("{}: {what} → {}{implicit}", listener.name, name_of(route))
            })
        })
        .collect();
    let mut text = format!(
        "ok: {}, {}, {}\n",
        count(config.listeners.len(), "listener"),
        count(config.services.len(), "service"),
        count(config.routes.len(), "route"),
    );
    list(&mut text, "listener", listeners);
    list(&mut text, "service", services);
    list(&mut text, "route", routes.into_iter());
    list(&mut text, "layer 4", layer4.into_iter());
    let limits = format!(
        "{} and at most {}",
        count(config.workers.get(), "worker"),
        count(config.downstream.max_connections.get(), "connection"),
    );
    list(&mut text, "limits", std::iter::once(limits));
    text
}

/// Where a route leads, in words.
fn leads_to(config: &Config, target: &Target) -> String {
    match target {
        Target::Service(index) => config.services[*index].name.to_string(),
        Target::Split(shares) => {
            let total: f64 = shares.iter().map(|share| f64::from(share.weight)).sum();
            let parts = shares.iter().map(|share| {
                let percent = 100.0 * f64::from(share.weight) / total;
                let name = &config.services[share.service].name;
                format!("{name} {:.4}", percent)
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_owned()
                    + " %"
            });
            parts.collect::<Vec<_>>().join(", ")
        }
        Target::Redirect(to) => format!("elsewhere ({})", to.status),
    }
}

fn list(text: &mut String, kind: &str, members: impl ExactSizeIterator<Item = String>) {
    let more = members.len().saturating_sub(LISTED);
    for member in members.take(LISTED) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {kind:<9}{member}");
    }
    if more > 0 {
        let _ = writeln!(text, "  {kind:<9}… and {more} more");
    }
}

/// Does a request come by this route?
fn takes_requests(config: &Config, route: &Route) -> bool {
    let by = |index: usize| !config.listeners[index].protocol.is_layer4();
    match route.listeners.is_empty() {
        true => (0..config.listeners.len()).any(by),
        false => route.listeners.iter().any(|index| by(*index)),
    }
}

/// What a route asks for of a TLS connection that is passed on.
fn asked_for(route: &Route) -> String {
    let host = match &route.host {
        HostPattern::Any => "any name".to_owned(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
        HostPattern::Exact(name) => name.to_string(),
    };
    match route.alpn.is_empty() {
        true => host,
        false => format!("{host} with {}", route.alpn.join(" or ")),
    }
}

/// Static backends: each with its share, tier after tier.
fn statics(list: &[StaticEndpoint]) -> String {
    let mut text = count(list.len(), "static backend");
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_by_key(|endpoint| endpoint.priority);
    if list.len() < 2 || list.len() > BACKENDS_LISTED {
        return text;
    }
    for (nth, tier) in sorted.chunk_by(|a, b| a.priority == b.priority).enumerate() {
        text.push_str(if nth == 0 { ": " } else { "; then " });
        let weights: Vec<_> = tier
            .iter()
            .map(|endpoint| Weight {
                weight: endpoint.weight,
                split: 1,
            })
            .collect();
        let members = tier.iter().zip(shares(&weights));
        let members: Vec<_> = members
            .map(|(endpoint, share)| format!("{} {:.1} %", endpoint.address, share * 100.0))
            .collect();
        text.push_str(&members.join(", "));
    }
    text
}

/// With more static backends than this only their number is told.
const BACKENDS_LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;

    #[test]
    fn shares_and_layer_4() {
        let config = from_toml_str(
            r#"
            workers = 1
            limits = { max_connections = 10 }
            [[listener]]
            name = "web"
            address = "127.0.0.1:8080"
            protocol = "http"
            [[listener]]
            name = "db"
            address = "127.0.0.1:5432"
            protocol = "tcp"
            [[listener]]
            name = "names"
            address = "127.0.0.1:8443"
            protocol = "tls"
            [[service]]
            name = "a"
            strategy = "least_connections"
            discover = { static = [
                { address = "10.0.0.9:80", priority = 10 },
                { address = "10.0.0.7:80", weight = 3 },
                { address = "10.0.0.8:80", weight = 1 },
            ] }
            [[service]]
            name = "b"
            discover = { static = "10.0.0.7:443" }
            [[route]]
            service = "a"
            [[route]]
            host = "shop.example"
            path = "/api"
            service = "a"
            [[route]]
            listener = "names"
            host = "*.example"
            alpn = ["h2", "http/1.1"]
            service = "b"
            "#,
        );
        let text = of(&config.expect("it loads"));
        let expected = "\
ok: 3 listeners, 2 services, 3 routes
  listener web 127.0.0.1:8080 http
  listener db 127.0.0.1:5432 tcp
  listener names 127.0.0.1:8443 tls, passed through
  service  a: 3 static backends: 10.0.0.7:80 75.0 %, 10.0.0.8:80 25.0 %; then 10.0.0.9:80 100.0 %, least_connections
  service  b: 1 static backend
  route    */ → a
  route    shop.example/api → a
  layer 4  db: every connection → a, by a route that names no listener
  layer 4  names: *.example with h2 or http/1.1 → b
  limits   1 worker and at most 10 connections
";
        assert_eq!(text, expected);
    }
}
