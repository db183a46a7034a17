use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::balance::affinity::Affinity;
use crate::balance::by_hand::Change;
use crate::balance::explain::Forecast;
use crate::balance::picker::Picker;
use crate::balance::service::{Service, Terms};
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::from_toml_str;
use crate::discovery::{Discovered, Endpoint, Offer};
use crate::proxy::explain::Way;
use crate::proxy::questions::Unanswered;
use crate::proxy::samples::Cut;
use crate::upstream::gate::Gate;
use crate::upstream::standing::Reason;

const LISTENERS: &str = r#"
    [[listener]]
    name = "plain"
    address = "127.0.0.1:80"
    protocol = "http"
    [[listener]]
    name = "inside"
    address = "127.0.0.1:8080"
    protocol = "http"
    [[listener]]
    name = "old"
    address = "127.0.0.1:81"
    protocol = "http"
    redirect = "https"
    [[listener]]
    name = "names"
    address = "127.0.0.1:8443"
    protocol = "tls"
    [[route]]
    name = "shop"
    host = "shop.test"
    path = "/cart"
    service = "web"
    [[route]]
    name = "tenant"
    listener = "inside"
    headers = { x-tenant = "acme" }
    service = "web"
    [[route]]
    name = "pass"
    listener = "names"
    host = "*.test"
    service = "web"
"#;

fn config(service: &str) -> Config {
    let text = format!(
        "{LISTENERS}\n[[service]]\nname = \"web\"\ndiscover = {{ static = [\"10.0.0.1:80\"] }}\n{service}"
    );
    from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"))
}

fn asked(url: &str, headers: &[&str], listener: Option<&str>) -> Asked {
    Asked {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: headers.iter().map(|h| (*h).to_owned()).collect(),
        client: None,
        listener: listener.map(str::to_owned),
    }
}

#[test]
fn listener_and_route_as_the_configuration_says() {
    let config = config("");
    type Row<'a> = (
        &'a str,
        &'a str,
        &'a [&'a str],
        Option<&'a str>,
        &'a str,
        Option<&'a str>,
        &'a str,
    );
    let rows: &[Row<'_>] = &[
        (
            "by port",
            "http://shop.test/cart/1?a=b",
            &[],
            None,
            "plain: http on port 80",
            Some("shop"),
            "",
        ),
        (
            "an explicit port",
            "http://x.test:8080/",
            &["X-Tenant: acme"],
            None,
            "inside: http on port 8080",
            Some("tenant"),
            "",
        ),
        (
            "no such port: the first, which is said",
            "http://shop.test:9999/cart",
            &[],
            None,
            "plain: the first of 3 that speak http, though not on port 9999",
            Some("shop"),
            "",
        ),
        (
            "the only one that speaks it",
            "tls://shop.test",
            &[],
            None,
            "names: the only one that speaks tls, though not on port 443",
            Some("pass"),
            "",
        ),
        (
            "by name",
            "http://shop.test/cart",
            &[],
            Some("inside"),
            "inside: it was named",
            Some("shop"),
            "",
        ),
        (
            "normalised as a request's",
            "http://SHOP.test./x/../%63art",
            &[],
            None,
            "plain: http on port 80",
            Some("shop"),
            "",
        ),
        (
            "a host in a header",
            "http://127.0.0.1/cart",
            &["Host: shop.test"],
            None,
            "plain: http on port 80",
            Some("shop"),
            "",
        ),
        (
            "nobody speaks it",
            "https://shop.test/",
            &[],
            None,
            "",
            None,
            "no listener speaks https",
        ),
        (
            "no route",
            "http://shop.test/carts",
            &[],
            None,
            "plain: http on port 80",
            None,
            "404: no route matches",
        ),
        (
            "a redirect",
            "http://shop.test:81/cart",
            &[],
            None,
            "old: http on port 81",
            None,
            "308: the listener redirects to https://shop.test",
        ),
        (
            "refused",
            "http://shop.test/%00",
            &[],
            None,
            "plain: http on port 80",
            None,
            "400: ",
        ),
    ];
    for (rule, url, headers, named, listener, route, outcome) in rows {
        let (explanation, routed) = self::route(&config, &asked(url, headers, *named))
            .unwrap_or_else(|e| panic!("{rule}: {e}"));
        let came = explanation
            .listener
            .map(|l| format!("{}: {}", l.name, l.why));
        assert_eq!(came.unwrap_or_default(), *listener, "{rule}");
        let label = explanation.route.as_ref().map(|r| r.label.as_str());
        assert_eq!(label, *route, "{rule}");
        assert_eq!(routed.is_some(), route.is_some(), "{rule}");
        assert!(
            explanation.outcome.starts_with(outcome),
            "{rule}: {}",
            explanation.outcome
        );
    }
}

#[test]
fn what_cannot_be_asked() {
    let config = config("");
    for (rule, url, headers, client, listener) in [
        ("no scheme", "shop.test/cart", None, None, None),
        ("another scheme", "ftp://shop.test/", None, None, None),
        ("a space", "http://shop.test/a b", None, None, None),
        ("a line feed", "http://shop.test/\r\nX: y", None, None, None),
        ("no port", "http://shop.test:99999/", None, None, None),
        (
            "no header",
            "http://shop.test/",
            Some("X-Tenant"),
            None,
            None,
        ),
        (
            "two headers in one",
            "http://shop.test/",
            Some("A: b\r\nC: d"),
            None,
            None,
        ),
        (
            "no address",
            "http://shop.test/",
            None,
            Some("office"),
            None,
        ),
        (
            "no such listener",
            "http://shop.test/",
            None,
            None,
            Some("front"),
        ),
    ] {
        let asked = Asked {
            headers: headers.into_iter().map(str::to_owned).collect(),
            client: client.map(str::to_owned),
            ..asked(url, &[], listener)
        };
        assert!(self::route(&config, &asked).is_err(), "{rule}");
    }
}

/// A service of 10.0.0.1 and so on, priorities as given, with one worker's schedule.
struct Served {
    config: Config,
    service: Service,
    picker: Picker,
}

fn served(priorities: &[u16], more: &str) -> Served {
    let config = config(more);
    let of = &config.services[0];
    let affinity = of.sticky.as_ref();
    let affinity = affinity.map(|sticky| Affinity::new("web".into(), sticky, &[7; 32]).into());
    let gate = of.in_flight;
    let terms = Terms {
        affinity,
        gate: gate.map(|l| Gate::new(l.per_backend, None, l.queue, l.timeout)),
        ..Terms::default()
    };
    let mut service = Service::on("web".into(), terms);
    service.apply(&offer(priorities));
    let picker = Picker::new(service.snapshot().reader(), &of.balancing, 3);
    Served {
        config,
        service,
        picker,
    }
}

fn offer(priorities: &[u16]) -> Offer {
    let found = |(&priority, n): (&u16, u8)| Discovered {
        endpoint: Endpoint {
            target: format!("b{n}").into(),
            address: [10, 0, 0, n].into(),
            port: 80,
        },
        priority,
        weight: 1,
        split: 1,
    };
    Offer::Endpoints(priorities.iter().zip(1..).map(found).collect())
}

impl Served {
    fn explain(&self, headers: &[&str]) -> Explanation {
        self.explain_with(headers, vec![Ok(self.picker.forecast())])
    }

    fn explain_with(
        &self,
        headers: &[&str],
        forecasts: Vec<Result<Forecast, Unanswered>>,
    ) -> Explanation {
        let asked = asked("http://shop.test/cart", headers, None);
        let (mut explanation, routed) = self::route(&self.config, &asked).expect("it can be asked");
        let known = Known {
            snapshot: self.service.snapshot().load(),
            affinity: self.service.affinity().map(|a| &**a),
            gate: self.service.gate().map(|g| &**g),
            forecasts,
        };
        let routed = routed.expect("it has a route");
        serve(&self.config, &routed, known, &mut explanation);
        let json = serde_json::to_string(&explanation).expect("it is plain data");
        let back: Explanation = serde_json::from_str(&json).expect("it is what was written");
        assert_eq!(back, explanation, "a client reads what was meant");
        explanation
    }

    fn backends(&self) -> Vec<Arc<crate::upstream::backend::Backend>> {
        let snapshot = self.service.snapshot().load();
        snapshot
            .listed()
            .map(|(_, m)| Arc::clone(&m.backend))
            .collect()
    }
}

#[test]
fn each_backend_and_why() {
    let mut served = served(&[0; 9], "max_in_flight = 1\nslow_start = \"10s\"");
    let now = Millis::now();
    let backends = served.backends();
    let [
        _,
        passed,
        ejected,
        due,
        trial,
        down,
        unchecked,
        full,
        rising,
    ] = &backends[..]
    else {
        panic!("nine are listed");
    };
    passed.connect_failed(now);
    ejected.eject(now.after(Duration::from_secs(60)), Reason::Failures);
    due.eject(Millis(1), Reason::SuccessRate);
    trial.eject(Millis(1), Reason::Failures);
    drop(trial.claim(now, crate::upstream::backend::Trial::Welcome));
    down.set_down(Reason::CheckTimeout);
    unchecked.set_down(Reason::Unchecked);
    let _under_way = full.begin();
    rising.rise(Some(now));
    let explanation = served.explain(&[]);
    let expected = [
        (1, "up", true, "it can be picked"),
        (2, "passed_over", false, "passed over for another "),
        (3, "ejected", false, "ejected for another "),
        (
            4,
            "ejected",
            true,
            "ejected: fewer attempts succeed than with the others; the next",
        ),
        (
            5,
            "trial",
            false,
            "ejected: too many attempts in a row failed; a request is finding out",
        ),
        (6, "down", false, "down for 0."),
        (7, "down", false, "it has not passed a check yet"),
        (8, "up", false, "full: 1 in flight"),
        (
            9,
            "up",
            true,
            "it can be picked; its share has grown to 10 %",
        ),
    ];
    assert_eq!(explanation.backends.len(), expected.len());
    for (candidate, (n, state, pickable, why)) in explanation.backends.iter().zip(expected) {
        assert_eq!(candidate.id, format!("web/10.0.0.{n}:80"));
        assert_eq!(
            (candidate.state.as_str(), candidate.pickable),
            (state, pickable),
            "{n}"
        );
        assert!(candidate.why.starts_with(why), "{n}: {}", candidate.why);
    }
    let tier = &explanation.tiers[0];
    assert_eq!((tier.pickable, tier.backends), (3, 9));

    let address = backends[0].endpoint.socket();
    served
        .service
        .set_by_hand(address, Change::Drain, now)
        .expect("it is listed");
    served.service.apply(&offer(&[0; 8]));
    let explanation = served.explain(&[]);
    let drained = explanation
        .backends
        .iter()
        .find(|b| b.id == "web/10.0.0.1:80");
    let drained = drained.expect("it is listed still");
    assert_eq!(
        (drained.state.as_str(), drained.pickable),
        ("drained", false)
    );
    assert_eq!(
        drained.why,
        "drained by hand: nothing but its cookies leads to it"
    );
    assert_eq!(explanation.withdrawn[0].id, "web/10.0.0.9:80");
    assert_eq!(explanation.snapshot.expect("there is one").number, 3);
}

#[test]
fn who_is_next_is_who_is_picked() {
    for strategy in [
        "weighted",
        "round_robin",
        "least_connections",
        "hash",
        "cycle",
    ] {
        let more = format!("strategy = \"{strategy}\"\nhash_by = \"header:x-tenant\"");
        let more = match strategy {
            "hash" => more,
            _ => format!("strategy = \"{strategy}\""),
        };
        let mut served = served(&[0, 0, 0, 5], &more);
        for tenant in 0..20 {
            let header = format!("X-Tenant: {tenant}");
            let explanation = served.explain(&[&header]);
            let text = tenant.to_string();
            let key = crate::balance::hash::key([text.as_bytes()]);
            let wish = Wish {
                key: (strategy == "hash").then_some(key),
                ..Wish::at(Millis::now())
            };
            let pick = served.picker.pick(wish).expect("somebody");
            let id = format!("web/{}", pick.backend().address);
            assert_eq!(
                explanation.next[0].backend.as_deref(),
                Some(&*id),
                "{strategy}"
            );
            assert_eq!(explanation.outcome, format!("goes to {id}"));
            if strategy == "hash" {
                let [preference] = &explanation.preferences[..] else {
                    panic!("one key");
                };
                assert_eq!(
                    (preference.of.as_str(), preference.leads_to.len()),
                    ("header x-tenant", 3)
                );
                assert_eq!(preference.leads_to[0], id);
            }
        }
    }
}

#[test]
fn chances_instead_of_a_name() {
    let served = served(&[0, 0, 5], "strategy = \"random\"");
    let explanation = served.explain(&[]);
    let chances: Vec<_> = explanation.backends.iter().map(|b| b.chance).collect();
    assert_eq!(chances, [Some(0.5), Some(0.5), None]);
    assert_eq!(explanation.next[0].backend, None);
    assert_eq!(explanation.outcome, "goes to a backend of tier 0 by chance");
}

#[test]
fn where_a_cookie_leads() {
    let served = served(&[0, 5], "sticky = \"cookie\"");
    let snapshot = served.service.snapshot().load();
    let affinity = served.service.affinity().expect("it is sticky");
    let standby = &snapshot.tiers[1].members[0].backend;
    let cookie = affinity
        .set_cookie(standby, None, false)
        .expect("the client has none");
    let cookie = cookie.split(';').next().expect("it has a value");
    let header = format!("Cookie: {cookie}");
    let explanation = served.explain(&[&header]);
    let preference = &explanation.preferences[0];
    assert_eq!(preference.leads_to, ["web/10.0.0.2:80"]);
    assert_eq!(explanation.outcome, "goes to web/10.0.0.2:80");
    let tier = explanation.tier.expect("one serves");
    assert_eq!(
        (tier.priority, tier.why.as_str()),
        (5, "the cookie leads into it")
    );

    standby.set_down(Reason::CheckConnect);
    let explanation = served.explain(&[&header]);
    let why = &explanation.preferences[0].why;
    assert!(
        why.starts_with("that one cannot be had, so the schedule chooses: down for"),
        "{why}"
    );
    assert_eq!(explanation.outcome, "goes to web/10.0.0.1:80");

    let explanation = served.explain(&[&format!("Cookie: {}=unknown", affinity.name())]);
    assert!(explanation.preferences[0].leads_to.is_empty());
}

#[test]
fn why_this_tier() {
    let served = served(&[0, 0, 5, 9], "spill = 1.0");
    let backends = served.backends();
    let tier = |of: &Explanation| of.tier.clone().expect("one serves");
    let parts = |of: &Explanation| of.tiers.iter().map(|t| t.part).collect::<Vec<_>>();
    assert_eq!(tier(&served.explain(&[])).why, "the first one");
    backends[0].set_down(Reason::CheckConnect);
    assert_eq!(
        parts(&served.explain(&[])),
        [Some(0.5), Some(0.5), Some(0.0)]
    );
    backends[1].set_down(Reason::CheckConnect);
    let second = tier(&served.explain(&[]));
    assert_eq!(second.priority, 5);
    backends[2..]
        .iter()
        .for_each(|b| b.set_down(Reason::CheckConnect));
    let panic = tier(&served.explain(&[]));
    assert_eq!(panic.why, "nobody can serve: tried as if all were well");
    assert_eq!(panic.priority, 0);
}

#[test]
fn what_is_said_where_nobody_is() {
    let mut served = served(&[0], "max_in_flight = 1\nmax_queue = 7");
    let backends = served.backends();
    let full = backends[0].begin();
    assert_eq!(
        served.explain(&[]).outcome,
        "waits in line, behind 0 of at most 7, for 5.0 s at most; then the next tier, or 503"
    );
    drop(full);
    let explanation = served.explain_with(&[], vec![Err(Unanswered::Late), Err(Unanswered::Gone)]);
    assert_eq!(explanation.outcome, "unknown: no worker has answered");
    assert_eq!(explanation.next[0].why, "it has not answered within 1 s");
    served.service.apply(&Offer::Absent);
    assert_eq!(served.explain(&[]).outcome, "503: no backend is registered");
}

#[test]
fn what_a_client_sent_is_shown_without_characters_that_steer() {
    let served = served(&[0], "");
    let sample = Sample {
        at: SystemTime::UNIX_EPOCH,
        request_id: [b'7'; 32],
        method: Cut::of(b"GET"),
        host: Cut::of(b"shop.test"),
        path: Cut::of("/a\x1b[2J\u{202e}z".as_bytes()),
        config: Arc::new(served.config.clone()),
        listener: 0,
        route: Some("shop".into()),
        service: Some(0),
        backend: Some(Arc::clone(&served.backends()[0])),
        way: Way::default(),
        failure: None,
        status: 200,
        attempts: 1,
        connect: None,
        first_byte: Some(Duration::from_micros(1_500)),
        total: Duration::from_millis(2),
    };
    let shown = sampled(&sample);
    assert_eq!(shown.path, "/a\u{fffd}[2J\u{fffd}z");
    assert_eq!(shown.at, "1970-01-01T00:00:00.000Z");
    assert_eq!(
        (shown.listener.as_str(), shown.service.as_deref()),
        ("plain", Some("web"))
    );
    assert_eq!(shown.why, ["route shop leads to service web"]);
    assert_eq!(shown.backend.as_deref(), Some("web/10.0.0.1:80"));
    assert_eq!((shown.first_byte_ms, shown.duration_ms), (Some(1.5), 2.0));
}
