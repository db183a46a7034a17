use std::time::Duration;

use super::*;
use crate::balance::picker::Picker;
use crate::balance::service::{Service, Terms};
use crate::balance::testing::{endpoint, number, tiers};
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::upstream::backend::BackendId;
use crate::upstream::gate::Gate;
use crate::upstream::standing::Reason;

fn affinity(service: &str, sticky: &Sticky, secret: &[u8]) -> Affinity {
    Affinity::new(service.into(), sticky, secret)
}

fn usual() -> Affinity {
    affinity("web", &Sticky::default(), &[7; 32])
}

fn backend(number: u32) -> Arc<Backend> {
    Backend::new(BackendId::unused(), "web".into(), endpoint(number))
}

#[test]
fn tokens_are_of_one_backend_one_service_and_one_key() {
    let token = usual().token(&endpoint(1));
    assert_eq!(usual().token(&endpoint(1)), token, "another replica");
    let port = Endpoint {
        port: 81,
        ..endpoint(1)
    };
    for (rule, other) in [
        ("backend", usual().token(&endpoint(2))),
        ("port", usual().token(&port)),
        (
            "service",
            affinity("api", &Sticky::default(), &[7; 32]).token(&endpoint(1)),
        ),
        (
            "key",
            affinity("web", &Sticky::default(), &[8; 32]).token(&endpoint(1)),
        ),
    ] {
        assert_ne!(other, token, "{rule}");
    }
}

#[test]
fn cookies_by_rule() {
    let named = Sticky {
        cookie: Some("at".into()),
        max_age: Some(Duration::from_secs(3_600)),
        ..Sticky::default()
    };
    let named = affinity("web", &named, &[7; 32]);
    let backend = backend(1);
    let cookie = named.set_cookie(&backend, None, true).expect("it has none");
    let value = cookie.strip_prefix("at=").and_then(|c| c.split(';').next());
    let value = value.expect("the name that was given");
    assert_eq!(
        cookie,
        format!("at={value}; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600")
    );
    assert_eq!(value.len(), 22);
    let token = Token::parse(value.as_bytes());
    assert_eq!(token, Some(named.token(&backend.endpoint)));
    assert_eq!(named.set_cookie(&backend, token, true), None, "it has it");
    let other = Some(named.token(&endpoint(2)));
    assert_eq!(named.set_cookie(&backend, other, true), Some(cookie));

    let plain = usual().set_cookie(&backend, None, false).expect("none");
    assert!(
        plain.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{plain}"
    );
    assert!(plain.starts_with("evenkeel_"), "{plain}");
    let api = affinity("api", &Sticky::default(), &[7; 32]);
    assert_ne!(usual().name(), api.name(), "two services on one host");
}

#[test]
fn what_is_no_token() {
    for value in [
        "",
        "AAAA",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAA+",
        "AAAAAAAAAAAAAAAAAAAAAB",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(Token::parse(value.as_bytes()), None, "{value}");
    }
    assert_eq!(Token::parse(&[b'A'; 22]), Some(Token([0; 16])));
}

/// `b1` to `b3` in the first tier, `b4` behind; two requests each at most.
struct Fixture {
    service: Service,
    affinity: Arc<Affinity>,
    picker: Picker,
}

impl Fixture {
    fn new(strategy: Strategy) -> Fixture {
        let affinity = Arc::new(usual());
        let two = std::num::NonZeroU32::new(2);
        let mut service = Service::on(
            "web".into(),
            Terms {
                affinity: Some(Arc::clone(&affinity)),
                gate: Some(Gate::new(two, None, 9, Duration::from_secs(1))),
                ..Terms::default()
            },
        );
        service.apply_at(&all(), NOW);
        let balancing = Balancing {
            strategy,
            ..Balancing::default()
        };
        Fixture {
            picker: Picker::new(service.snapshot().reader(), &balancing, 7),
            service,
            affinity,
        }
    }

    fn backend(&self, wanted: u32) -> Arc<Backend> {
        let snapshot = self.service.snapshot().load();
        let found = snapshot.backends().find(|b| number(b) == wanted);
        Arc::clone(found.expect("it is listed"))
    }

    /// Who serves a client that was with that backend.
    fn back_to(&mut self, number: u32) -> u32 {
        self.back_to_without(number, &[])
    }

    fn back_to_without(&mut self, number: u32, excluded: &[BackendId]) -> u32 {
        let wish = Wish {
            token: Some(self.affinity.token(&endpoint(number))),
            excluded,
            ..Wish::at(NOW)
        };
        let pick = self.picker.pick(wish).expect("somebody");
        self::number(pick.backend())
    }
}

fn all() -> crate::discovery::Offer {
    tiers(&[(1, 0, 5), (2, 0, 5), (3, 0, 5), (4, 9, 5)])
}

const NOW: Millis = Millis(1_000);

#[test]
fn a_client_is_led_back_whatever_the_strategy() {
    for strategy in [
        Strategy::Weighted,
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::Random,
        Strategy::TwoChoices,
        Strategy::Hash,
        Strategy::Cycle,
    ] {
        let mut fixture = Fixture::new(strategy);
        for number in [1, 2, 3, 4] {
            for _ in 0..10 {
                assert_eq!(fixture.back_to(number), number, "{strategy:?}");
            }
        }
    }
}

#[test]
fn whose_backend_cannot_be_had_is_sent_elsewhere() {
    let mut fixture = Fixture::new(Strategy::Weighted);
    let b2 = fixture.backend(2);
    assert_ne!(fixture.back_to_without(2, &[b2.id]), 2, "tried");
    b2.set_down(Reason::CheckTimeout);
    assert_ne!(fixture.back_to(2), 2, "out");
    b2.set_down(Reason::None);
    let full = [b2.begin(), b2.begin()];
    assert_ne!(fixture.back_to(2), 2, "full");
    drop(full);
    assert_eq!(fixture.back_to(2), 2);
    fixture
        .service
        .apply_at(&tiers(&[(1, 0, 5), (3, 0, 5), (4, 9, 5)]), NOW);
    assert_ne!(fixture.back_to(2), 2, "gone");
    fixture.service.apply_at(&all(), NOW);
    assert_eq!(fixture.back_to(2), 2, "and back, with other weights or not");
    assert_ne!(fixture.back_to(77), 77, "never heard of");
}
