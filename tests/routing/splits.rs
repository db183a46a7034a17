//! Routes that lead to several services.

use crate::support::backend::{Backend, nobody};
use crate::support::client::Client;
use crate::support::server::{Folder, Server};
use crate::{BOTH, Lines, Over, config, get, metric};

/// `n` requests over one connection: which service each went to.
fn asked(server: &Server, over: Over, n: u32) -> Vec<String> {
    match over {
        Over::H1 => {
            let mut client = Client::plain(server.address());
            let ask = |_| {
                let answer = client.get("a.test", "/").expect("an answer");
                answer.field("x-backend").unwrap_or("none").to_owned()
            };
            (0..n).map(ask).collect()
        }
        Over::H2 => {
            let mut peer = crate::frames::Peer::connect(server.address());
            let ask = |number: u32| {
                let stream = 2 * number + 1;
                peer.send(crate::frames::get(stream, "/"));
                peer.over(stream)
                    .field("x-backend")
                    .unwrap_or_else(|| "none".into())
            };
            (0..n).map(ask).collect()
        }
    }
}

fn count(of: &[String], name: &str) -> usize {
    of.iter().filter(|n| *n == name).count()
}

#[test]
fn each_service_has_its_exact_share() {
    let backends = ["a", "b", "c"].map(|name| (name, Backend::start(name)));
    let named: Vec<(&str, &Backend)> = backends.iter().map(|(name, b)| (*name, b)).collect();
    let server = Server::in_process(&config(
        &named,
        r#"
        [[route]]
        service = [
          { service = "a", weight = 7 },
          { service = "b", weight = 2 },
          { service = "c", weight = 1 },
        ]
        "#,
    ));
    let mut all = Vec::new();
    for over in BOTH {
        all.extend(asked(&server, over, 100));
    }
    for (name, share) in [("a", 7), ("b", 2), ("c", 1)] {
        let off = count(&all, name).abs_diff(20 * share);
        assert!(off <= 1, "{name}: {} of {}", count(&all, name), all.len());
        // Nor are they bunched.
        for part in all.chunks(50) {
            assert!(
                count(part, name).abs_diff(5 * share) <= 2,
                "{name}: {part:?}"
            );
        }
        let series =
            format!("evenkeel_requests_total{{service=\"{name}\",method=\"GET\",code=\"200\"}}");
        let counted = metric(&server, &series);
        assert_eq!(counted, Some(count(&all, name) as f64), "{series}");
    }
}

/// What a new version fails at is its own, and seen as often as it happens.
#[test]
fn a_request_stays_with_its_service() {
    let backend = Backend::start("a");
    let log = Lines::default();
    let text = config(
        &[("a", &backend)],
        &format!(
            "[[service]]\nname = \"b\"\nretries = 3\ndiscover = {{ static = [\"{}\", \"{}\"] }}\n\
             [[service]]\nname = \"off\"\ndiscover = {{ static = \"{}\" }}\n\
             [[route]]\nservice = [{{ service = \"a\", weight = 3 }}, \
             {{ service = \"b\", weight = 1 }}, {{ service = \"off\", weight = 0 }}]\n",
            nobody(),
            nobody(),
            nobody(),
        ),
    );
    let server = Server::logging(&text, log.clone());
    for over in BOTH {
        let mut failed = 0;
        for _ in 0..40 {
            let answer = get("/").ask(over, server.address());
            failed += usize::from(answer.status == 503);
            assert_eq!(
                answer.status == 200,
                answer.backend() == Some("a"),
                "{answer:?}"
            );
        }
        assert!(failed.abs_diff(10) <= 1, "{failed} {over:?}");
    }
    crate::support::wait_until("all are logged", || log.text().lines().count() == 80);
    let text = log.text();
    let failed = text
        .lines()
        .filter(|line| line.contains("\"service\":\"b\""));
    assert!(failed.clone().count().abs_diff(20) <= 1, "{text}");
    assert!(
        failed.clone().all(|line| line.contains("\"status\":503")),
        "{text}"
    );
    assert!(!text.contains("\"service\":\"off\""), "{text}");
}

#[test]
fn connections_are_dealt_out_too() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let server = Server::in_process(&config(
        &[("a", &a), ("b", &b)],
        r#"
        [[listener]]
        name = "raw"
        address = "127.0.0.1:0"
        protocol = "tcp"
        [[route]]
        listener = "raw"
        service = [{ service = "a", weight = 1 }, { service = "b", weight = 1 }]
        "#,
    ));
    for _ in 0..10 {
        let mut client = Client::plain(server.addresses[1]);
        assert_eq!(client.get("a.test", "/").expect("an answer").status(), 200);
    }
    assert_eq!((a.connections(), b.connections()), (5, 5));
}

/// One request for each configuration: if each reload began anew, chance alone would decide.
#[test]
fn shares_stay_exact_through_reloads() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let folder = Folder::new();
    let text = config(
        &[("a", &a), ("b", &b)],
        "[[route]]\nservice = [{ service = \"a\", weight = 3 }, { service = \"b\", weight = 1 }]\n",
    );
    let file = folder.write("evenkeel.toml", &text);
    let mut server = Server::from_file(&file);
    let mut all = Vec::new();
    for round in 0..20 {
        // Another service comes and goes, in front of the others.
        let extra = "[[service]]\nname = \"x\"\ndiscover = { static = \"127.0.0.1:1\" }\n";
        let text = match round % 2 {
            0 => text.replacen("[[service]]", &format!("{extra}[[service]]"), 1),
            _ => text.clone(),
        };
        folder.write("evenkeel.toml", &text);
        server.reload();
        all.push(
            get("/")
                .ask(Over::H1, server.address())
                .backend()
                .map(str::to_owned),
        );
    }
    let to_b = all
        .iter()
        .filter(|name| name.as_deref() == Some("b"))
        .count();
    assert!(to_b.abs_diff(5) <= 1, "{all:?}");
}
