use super::*;
use crate::balance::service::Service;
use crate::config::from_toml_str;
use crate::discovery::{Discovered, Endpoint, Offer};
use crate::events::{ListenerId, ServiceId};
use crate::proxy::drain::Drain;
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::Seating;
use crate::proxy::worker::{Listened, Serviced};
use crate::router::Router;
use crate::telemetry::metrics::Names;
use crate::tls::reload::CertificateWatch;
use crate::upstream::establish::Layering;
use tokio::sync::mpsc;

/// A process with two services that have heard nothing, and two workers that just turned.
pub(in crate::admin) struct Process {
    pub state: State,
    pub services: Vec<Service>,
}

pub(in crate::admin) fn process(started: Millis) -> Process {
    let config = from_toml_str(
        r#"
        [[listener]]
        name = "front"
        address = "127.0.0.1:8080"
        protocol = "http"

        [[service]]
        name = "a"
        discover = { static = ["127.0.0.1:9001"] }

        [[service]]
        name = "b"
        discover = { static = ["127.0.0.1:9002"] }

        [[route]]
        service = "a"
        "#,
    );
    let config = Arc::new(config.unwrap());
    let names: Vec<_> = config
        .services
        .iter()
        .map(|s| Arc::clone(&s.name))
        .collect();
    let services: Vec<_> = names.iter().cloned().map(Service::new).collect();
    let names = Names {
        services: names,
        listeners: vec!["front".into()],
    };
    let serviced = |service: &Service| Serviced {
        id: ServiceId::unused(),
        snapshot: Arc::clone(service.snapshot()),
        gate: None,
        affinity: None,
        layering: Layering::default(),
    };
    let shared = Shared {
        generation: 1,
        router: Arc::new(Router::new(&config)),
        names: Arc::new(names),
        services: services.iter().map(serviced).collect(),
        listeners: vec![Listened {
            id: ListenerId::unused(),
            socket: std::sync::Weak::new(),
            tls: None,
        }],
        drain: Drain::new(),
        events: mpsc::channel(1).0,
        limits: Limits::new(Arc::clone(&config)),
        seating: Seating::new(1).0,
        questions: Questions::new(1),
        samples: Samples::new(1),
        challenges: Published::new(Default::default()),
        tracer: None,
        config,
    };
    let sign = |_| {
        let sign = Sign::new();
        sign.heartbeat.store(started.0, Ordering::Relaxed);
        sign
    };
    let acme = Rc::new(Acme::new(Arc::clone(&shared.challenges), Arc::default()));
    let state = State {
        started,
        metrics: Metrics::new(Arc::clone(&shared.names)),
        generations: Published::new(shared),
        signs: (0..2).map(sign).collect(),
        certificate_watch: Rc::new(
            CertificateWatch::start(mpsc::channel(1).0, Arc::default()).unwrap(),
        ),
        acme,
        discovery: Arc::default(),
        access_lines_dropped: Arc::default(),
        reloads: Rc::default(),
        journal: Arc::default(),
        occupancy: Default::default(),
    };
    Process { state, services }
}

fn backend() -> Offer {
    let endpoint = Endpoint {
        target: "one".into(),
        address: "127.0.0.1".parse().unwrap(),
        port: 9001,
    };
    Offer::Endpoints(
        [Discovered {
            endpoint,
            priority: 10,
            weight: 5,
            split: 1,
        }]
        .into(),
    )
}

const START: Millis = Millis(1_000);

fn after(seconds: u64) -> Millis {
    START.after(Duration::from_secs(seconds))
}

#[test]
fn ready_when_every_service_has_its_first_answer() {
    let mut process = process(START);
    let no_answer = |name: &str| Unmet::NoAnswer(name.into());
    assert_eq!(
        process.state.unmet(after(1)),
        [no_answer("a"), no_answer("b")]
    );
    process.services[0].apply(&backend());
    assert_eq!(process.state.unmet(after(1)), [no_answer("b")]);
    process.services[1].apply(&Offer::Absent);
    assert_eq!(
        process.state.unmet(after(1)),
        [],
        "a negative answer counts"
    );
}

#[test]
fn ready_after_ten_seconds_whatever_dns_says() {
    let process = process(START);
    assert_eq!(process.state.unmet(after(9)).len(), 2);
    assert_eq!(process.state.unmet(after(10)), []);
}

#[test]
fn once_ready_only_a_drain_makes_it_unready() {
    let mut process = process(START);
    process.services[0].apply(&backend());
    process.services[1].apply(&backend());
    assert_eq!(process.state.unmet(after(1)), []);
    process.services[0].apply(&Offer::Absent);
    process.services[1].apply(&Offer::Pending);
    assert_eq!(process.state.unmet(after(2)), []);
    process
        .state
        .generations
        .load()
        .drain
        .advance(Phase::Announced);
    assert_eq!(process.state.unmet(after(3)), [Unmet::Draining]);
}

#[test]
fn a_worker_that_has_not_turned_for_ten_seconds_is_stuck() {
    let process = process(START);
    assert_eq!(process.state.stuck(after(10)), []);
    process.state.signs[0]
        .heartbeat
        .store(after(5).0, Ordering::Relaxed);
    let stuck = Stuck {
        worker: 1,
        quiet: Duration::from_secs(11),
    };
    assert_eq!(process.state.stuck(after(11)), [stuck]);
    assert_eq!(stuck.to_string(), "worker 1 has not turned for 11 s");
}

#[test]
fn a_scrape_shows_what_there_is_at_that_moment() {
    let mut process = process(START);
    process.services[0].apply(&backend());
    let shard = process.state.metrics.shard();
    let snapshot = process.state.generations.load().services[0].snapshot.load();
    let backend = snapshot.backends().next().unwrap();
    let _under_way = backend.begin();
    shard.attempt(backend.id.0, None, || labels(backend));
    backend.connect_failed(after(1));
    let client = "192.0.2.1".parse().unwrap();
    let _open = [(); 7].map(|()| {
        process
            .state
            .generations
            .load()
            .limits
            .admit(client)
            .unwrap()
    });

    let page = process.state.scrape(after(1));
    for line in [
        r#"evenkeel_backend_requests_total{service="a",backend="127.0.0.1:9001"} 1"#,
        r#"evenkeel_backend_up{service="a",backend="127.0.0.1:9001"} 0.0"#,
        r#"evenkeel_backend_weight{service="a",backend="127.0.0.1:9001"} 5.0"#,
        r#"evenkeel_backend_priority{service="a",backend="127.0.0.1:9001"} 10.0"#,
        r#"evenkeel_backend_in_flight{service="a",backend="127.0.0.1:9001"} 1.0"#,
        r#"evenkeel_bounded{of="client_connections"} 7.0"#,
        r#"evenkeel_service_backends_up{service="a"} 0.0"#,
        "evenkeel_stuck_workers 0.0",
        "evenkeel_draining 0.0",
        r#"evenkeel_dns_lookup_duration_seconds_bucket{le="+Inf"} 0"#,
    ] {
        assert!(page.lines().any(|l| l == line), "{line} on:\n{page}");
    }

    process.services[0].apply(&Offer::Absent);
    let page = process.state.scrape(after(2));
    assert!(!page.contains("evenkeel_backend_up{"), "it is gone");
    assert!(
        page.contains("evenkeel_backend_requests_total{"),
        "its counts stay for a while"
    );
    process.state.sweep(after(600));
    let page = process.state.scrape(after(600));
    assert!(
        !page.contains("evenkeel_backend_requests_total{"),
        "but not for ever"
    );
    assert!(page.contains("evenkeel_stuck_workers 2.0"), "{page}");
}
