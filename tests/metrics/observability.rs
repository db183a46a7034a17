//! What `deploy/observability` asks for is there: every query of its rules and of its dashboard is put
//! to a Prometheus that scrapes a server of which everything can be said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::prometheus::Prometheus;
use crate::promql::{Names, names};
use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::{Folder, Server};
use crate::support::{require, wait_until};

/// Each name on a metrics page, with the labels that its series have.
type Families = BTreeMap<String, BTreeSet<String>>;

/// A query, and where it stands.
struct Query {
    place: String,
    text: String,
    /// Labels that texts beside it mention.
    mentioned: BTreeSet<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn docs(name: &str) -> String {
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name),
    )
}

fn dashboard() -> Value {
    let text = read(&folder().join("grafana/dashboards/evenkeel.json"));
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The words that stand between these marks.
fn between(text: &str, open: &str, close: &str) -> BTreeSet<String> {
    let parts = text.split(open).skip(1);
    let inner = parts.filter_map(|part| part.split_once(close));
    inner.map(|(word, _)| word.trim().to_owned()).collect()
}

/// What Grafana puts in for its variables, when all of each are chosen.
fn filled_in(query: &str) -> String {
    let filled = query
        .replace("$__rate_interval", "5s")
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$service", ".*");
    assert!(!filled.contains('$'), "an unknown variable: {query}");
    filled
}

fn of_dashboard() -> Vec<Query> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            queries.push(Query {
                place: format!("panel {} {}", panel["title"], target["refId"]),
                text: filled_in(text(&target["expr"])),
                mentioned: between(text(&target["legendFormat"]), "{{", "}}"),
            });
        }
    }
    for variable in list(&dashboard["templating"]["list"]) {
        let asked = text(&variable["query"]["query"]);
        if let Some((of, label)) = asked
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
        {
            queries.push(Query {
                place: format!("variable {}", variable["name"]),
                text: format!("count by ({label}) ({})", filled_in(of)),
                mentioned: BTreeSet::new(),
            });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        if let Some(query) = annotation["expr"].as_str() {
            queries.push(Query {
                place: format!("annotation {}", annotation["name"]),
                text: filled_in(query),
                mentioned: BTreeSet::new(),
            });
        }
    }
    queries
}

/// Those of docs/metrics.md: one after each blank line, under a comment or not.
fn of_docs() -> Vec<Query> {
    let page = docs("metrics.md");
    let blocks = between(&page, "```promql\n", "```");
    let paragraphs = blocks.iter().flat_map(|block| block.split("\n\n"));
    let mut queries = Vec::new();
    for paragraph in paragraphs {
        for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
            match queries.last_mut() {
                // What is indented goes on.
                Some(Query { text, .. }) if line.starts_with(' ') => text.push_str(line),
                _ => queries.push(Query {
                    place: "docs/metrics.md".to_owned(),
                    text: line.to_owned(),
                    mentioned: BTreeSet::new(),
                }),
            }
        }
    }
    assert!(queries.len() > 10, "they are found");
    queries
}

/// As Prometheus has read them.
fn rules(prometheus: &Prometheus) -> Vec<Value> {
    let answer = prometheus.get("/api/v1/rules");
    let groups = list(&answer["data"]["groups"]).iter();
    groups
        .flat_map(|group| list(&group["rules"]).to_vec())
        .collect()
}

fn of_rule(rule: &Value) -> Query {
    let texts = rule["annotations"].to_string();
    let mentioned = between(&texts, "$labels.", " ");
    let word = |label: String| label.trim_end_matches("}}").to_owned();
    Query {
        place: format!("rule {}", rule["name"]),
        text: text(&rule["query"]).to_owned(),
        mentioned: mentioned.into_iter().map(word).collect(),
    }
}

/// What the query asks for and nobody has.
fn unknown(query: &Query, families: &Families) -> Vec<String> {
    let Names {
        metrics,
        grouping,
        made,
    } = names(&query.text);
    let mut wrong = Vec::new();
    let mut labels = made;
    // What Prometheus adds to each series.
    labels.extend(["job", "instance"].map(str::to_owned));
    for (metric, compared) in metrics {
        let Some(has) = families.get(&metric) else {
            wrong.push(format!("{}: there is no {metric}", query.place));
            continue;
        };
        labels.extend(has.iter().cloned());
        for label in compared {
            if !has.contains(&label) && label != "job" && label != "instance" {
                wrong.push(format!("{}: {metric} has no label {label}", query.place));
            }
        }
    }
    for label in grouping.union(&query.mentioned) {
        if !labels.contains(label) {
            wrong.push(format!(
                "{}: nothing there has a label {label}",
                query.place
            ));
        }
    }
    wrong
}

/// The names and labels of all series on a page.
fn families(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        for (name, labels) in names(line).metrics {
            families.entry(name).or_default().extend(labels);
        }
    }
    families
}

fn page(server: &Server) -> String {
    let probe = server.probe.expect("there is a probe listener");
    let page = Client::plain(probe).get("probe", "/metrics");
    page.expect("it answers").text()
}

/// A server that has done everything that a dashboard could ask for.
struct Everything {
    server: Server,
    _backends: [Backend; 3],
    _folder: Folder,
}

fn everything(name_server: SocketAddr) -> Everything {
    let backends = ["a", "b", "c"].map(Backend::start);
    let [good, long, grpc] = &backends;
    let body = "the same again and again, ".repeat(400);
    long.usually(vec![
        Step::Request,
        Step::send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )),
    ]);
    grpc.usually(vec![
        Step::Request,
        Step::send(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\n\
             Content-Length: 0\r\n\r\n",
        ),
    ]);
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let entry = certificate.entry();
    let store = folder.path().join("acme");
    let (good, long, grpc) = (good.address, long.address, grpc.address);
    let file = folder.write(
        "evenkeel.toml",
        &format!(
            r#"
            workers = 2
            [limits]
            memory = "8GiB"
            max_connections_per_client = 8
            [dns]
            servers = ["{name_server}"]
            [acme]
            directory = "https://{}/dir"
            accept_terms = true
            store = "{}"
            [[listener]]
            name = "web"
            address = "127.0.0.1:0"
            protocol = "http"
            [[listener]]
            name = "secure"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{entry}]
            acme = true
            [[listener]]
            name = "pass"
            address = "127.0.0.1:0"
            protocol = "tcp"
            [[service]]
            name = "shop"
            discover = {{ static = ["{good}", "{}"] }}
            max_in_flight = 10
            adaptive = true
            health = {{ tcp = true, interval = "200ms", fall = 1 }}
            [[service]]
            name = "long"
            discover = {{ static = ["{long}"] }}
            compress = "on"
            [[service]]
            name = "calls"
            discover = {{ static = ["{grpc}"] }}
            [[service]]
            name = "named"
            discover = {{ srv = "{}" }}
            [[route]]
            host = "shop.test"
            service = "shop"
            mirror = {{ service = "long", percent = 100 }}
            [[route]]
            host = "long.test"
            service = "long"
            [[route]]
            host = "calls.test"
            service = "calls"
            [[route]]
            host = "named.test"
            service = "named"
            [[route]]
            listener = "pass"
            service = "shop"
            "#,
            nobody(),
            store.display(),
            nobody(),
            crate::SRV,
        ),
    );
    let mut server = Server::from_file(&file);
    server.reload();
    let [web, secure, pass] = server.addresses[..] else {
        panic!("three listeners");
    };
    let _ = Client::plain(pass).get("any.test", "/");
    let config = crate::tls_config(&certificate.ca, &[&crate::TLS13]);
    // The second one resumes the first one's session.
    for _ in 0..2 {
        let mut client = Client::tls(secure, &config, "localhost").expect("a handshake");
        let _ = client.get("shop.test", "/");
    }
    for _ in 0..5 {
        for host in ["shop.test", "long.test", "named.test", "nowhere.test"] {
            let _ = Client::plain(web).get(host, "/");
            let _ = Client::plain(web).get(host, "/%00");
        }
    }
    for request in [
        "GET / HTTP/1.1\r\nHost: long.test\r\nAccept-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: calls.test\r\nTE: trailers\r\nContent-Type: application/grpc\r\n\
         Content-Length: 0\r\n\r\n",
    ] {
        let mut client = Client::plain(web);
        client.send(request);
        client.response().expect("it is answered");
    }
    // One more than a client may have.
    let clients: Vec<Client> = (0..9).map(|_| Client::plain(web)).collect();
    wait_until("one was refused", || {
        page(&server).contains("evenkeel_refused_connections_total{")
    });
    drop(clients);
    Everything {
        server,
        _backends: backends,
        _folder: folder,
    }
}

/// Of recording rules, and of what Prometheus makes itself.
fn add_made_by_prometheus(families: &mut Families, rules: &[Value]) {
    let mut add = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        families.insert(name.to_owned(), labels);
    };
    add("up", &[]);
    add(
        "ALERTS",
        &["alertname", "alertstate", "severity", "service"],
    );
    for rule in rules.iter().filter(|rule| rule["type"] == "recording") {
        add(text(&rule["name"]), &["service"]);
    }
}

#[tokio::test]
async fn every_query_asks_for_what_there_is() {
    if !require("prometheus") {
        return;
    }
    let name_server = crate::name_server().await;
    let address = name_server.address();
    let look = tokio::task::spawn_blocking(move || {
        let everything = everything(address);
        let server = &everything.server;
        let probe = server.probe.expect("there is a probe listener");
        let folder = folder();
        let prometheus = Prometheus::scraping(
            probe,
            &format!(
                "rule_files: ['{0}/recording.yml', '{0}/alerts.yml']",
                folder.display()
            ),
        );
        wait_until("all rules were evaluated", || {
            let rules = rules(&prometheus);
            let done = |rule: &Value| !text(&rule["lastEvaluation"]).starts_with("0001");
            rules.len() > 20 && rules.iter().all(done)
        });
        let rules = rules(&prometheus);
        for rule in &rules {
            assert_eq!(rule["health"], "ok", "{rule:#}");
        }
        let mut families = families(&page(server));
        add_made_by_prometheus(&mut families, &rules);
        let mut to_look_at = of_dashboard();
        to_look_at.extend(of_docs());
        let of_rules: Vec<Query> = rules.iter().map(of_rule).collect();
        let all = to_look_at.iter().chain(&of_rules);
        let wrong: Vec<String> = all.flat_map(|query| unknown(query, &families)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        // That this finds what is wrong.
        for (query, complaint) in [
            (
                "sum(evenkeel_request_total)",
                "there is no evenkeel_request_total",
            ),
            (
                "evenkeel_backend_up{name=\"x\"}",
                "evenkeel_backend_up has no label name",
            ),
            (
                "sum by (qtyp) (evenkeel_dns_lookups_total)",
                "has a label qtyp",
            ),
        ] {
            let query = Query {
                place: "here".to_owned(),
                text: query.to_owned(),
                mentioned: BTreeSet::new(),
            };
            let wrong = unknown(&query, &families);
            assert!(wrong[0].ends_with(complaint), "{wrong:?}");
        }
        for query in &to_look_at {
            // Whether something has happened is not the question, only whether it would be seen.
            let asked = query.text.strip_suffix(" > 0").unwrap_or(&query.text);
            if query.place.starts_with("annotation") {
                prometheus.ask(asked);
                continue;
            }
            let mut found = Vec::new();
            wait_until(&format!("{}: {asked}", query.place), || {
                found = prometheus.ask(asked);
                !found.is_empty()
            });
            let has = |label: &String| found.iter().any(|f| f["metric"].get(label).is_some());
            let lacks: Vec<_> = query.mentioned.iter().filter(|l| !has(l)).collect();
            assert!(
                lacks.is_empty(),
                "{}: no {lacks:?} in its answer",
                query.place
            );
        }
    });
    look.await.expect("no panic");
}

/// What a heading of Markdown is linked by.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Who is called at night reads what is in an alert, and nothing else at first.
#[tokio::test]
async fn every_alert_says_what_to_do_and_is_tried() {
    if !require("prometheus") {
        return;
    }
    let look = tokio::task::spawn_blocking(|| {
        let server = Server::in_process(
            "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n",
        );
        let probe = server.probe.expect("there is a probe listener");
        let folder = folder();
        let prometheus = Prometheus::scraping(
            probe,
            &format!("rule_files: ['{}/alerts.yml']", folder.display()),
        );
        let tests = read(&folder.join("alerts_test.yml"));
        let explained = docs("metrics.md");
        let rules = rules(&prometheus);
        assert!(rules.len() > 20, "{rules:#?}");
        for rule in rules {
            let name = text(&rule["name"]);
            let severity = text(&rule["labels"]["severity"]);
            assert!(
                ["critical", "warning", "info"].contains(&severity),
                "{name}: {severity}"
            );
            for annotation in ["summary", "description"] {
                let said = text(&rule["annotations"][annotation]);
                assert!(said.len() > 20, "{name}: {annotation}: {said:?}");
            }
            let link = text(&rule["annotations"]["runbook_url"]);
            let (page, part) = link.split_once('#').expect("it names a part of a page");
            assert_eq!(page, "docs/troubleshooting.md", "{name}");
            // A checkout may be without that page; a page without that part is a mistake.
            if let Ok(page) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)) {
                let mut headings = page.lines().filter(|line| line.starts_with('#'));
                let there = headings.any(|line| anchor(line) == part);
                assert!(there, "{name}: {link} leads nowhere");
            }
            assert!(
                explained.contains(&format!("`{name}`")),
                "{name} is not in docs/metrics.md"
            );
            // Looked at when it fires, and when it does not.
            let asked = format!("- expr: ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}\n");
            let looks: Vec<&str> = tests.split(&asked).skip(1).collect();
            let fires = |look: &&str| {
                let line = look.lines().nth(1).expect("what is expected follows");
                line.trim() == "exp_samples:"
            };
            let fires = looks.iter().filter(|look| fires(look)).count();
            assert!(
                fires > 0 && fires < looks.len(),
                "{name}: fires {fires} of {}",
                looks.len()
            );
        }
    });
    look.await.expect("no panic");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "evenkeel");
    let variables: Vec<&str> = list(&dashboard["templating"]["list"])
        .iter()
        .map(|variable| text(&variable["name"]))
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "service"]);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(
            !title.is_empty() && ids.insert(panel["id"].as_u64()),
            "{panel:#}"
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| {
            let side = panel["gridPos"][side].as_u64();
            side.expect("it has a place")
        });
        assert!(x + w <= 24, "{title} is wider than the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(
                taken.insert(place),
                "{title} lies on another one at {place:?}"
            );
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            text(&panel["description"]).len() > 10,
            "{title} is not explained"
        );
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title}: no unit"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let mut references = BTreeSet::new();
        assert!(
            !list(&panel["targets"]).is_empty(),
            "{title} asks for nothing"
        );
        for target in list(&panel["targets"]) {
            assert!(references.insert(text(&target["refId"])), "{title}");
            assert!(
                !text(&target["legendFormat"]).is_empty(),
                "{title}: no legend"
            );
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

/// The page of the metrics has them all.
#[tokio::test]
async fn every_series_is_explained() {
    let name_server = crate::name_server().await;
    let address = name_server.address();
    let look = tokio::task::spawn_blocking(move || {
        let everything = everything(address);
        let page = page(&everything.server);
        let explained = docs("metrics.md");
        let explained: BTreeSet<&str> = explained.split('`').skip(1).step_by(2).collect();
        for line in page.lines() {
            let Some(declared) = line.strip_prefix("# TYPE evenkeel_") else {
                continue;
            };
            let (name, _) = declared.split_once(' ').expect("a type follows");
            assert!(explained.contains(name), "{name} is not in docs/metrics.md");
        }
    });
    look.await.expect("no panic");
}
