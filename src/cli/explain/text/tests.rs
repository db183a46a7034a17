use super::*;
use crate::admin::explain::answer::{
    Kind, Listener, NextPick, Preference, RequestAsked, SnapshotOf, TierOf, TierState, Withdrawn,
};

fn named(label: &str, why: &str) -> Named {
    Named {
        label: label.to_owned(),
        why: why.to_owned(),
    }
}

fn candidate(n: u8, priority: u16, why: &str) -> Candidate {
    Candidate {
        id: format!("web/10.0.0.{n}:8080"),
        target: "web.test".to_owned(),
        priority,
        weight: 10,
        share: 0.5,
        in_flight: 3,
        state: "up".to_owned(),
        reason: None,
        out_for_seconds: None,
        pickable: why == "it can be picked",
        why: why.to_owned(),
        chance: None,
    }
}

fn explanation() -> Explanation {
    Explanation {
        request: RequestAsked {
            method: "GET".to_owned(),
            url: "https://shop.test/cart".to_owned(),
            client: Some("192.0.2.7".to_owned()),
        },
        listener: Some(Listener {
            name: "public".to_owned(),
            why: "https on port 443".to_owned(),
        }),
        route: Some(named("shop", "its path is the longest of those that match")),
        routes_lost: vec![
            named("admin", "it is on another listener"),
            named("any", "it matches, but its path is shorter"),
        ],
        service: Some("web".to_owned()),
        strategy: Some("weighted".to_owned()),
        snapshot: Some(SnapshotOf {
            number: 17,
            age_seconds: Some(252.3),
        }),
        preferences: vec![Preference {
            kind: "cookie".to_owned(),
            of: "at".to_owned(),
            leads_to: vec!["web/10.0.0.2:8080".to_owned()],
            why: "that one cannot be had, so the schedule chooses: down for 12s: its checks find \
                  nobody who accepts"
                .to_owned(),
        }],
        tier: Some(TierOf {
            priority: 0,
            why: "the first one".to_owned(),
        }),
        tiers: vec![
            TierState {
                priority: 0,
                pickable: 1,
                backends: 2,
                part: Some(0.7),
            },
            TierState {
                priority: 5,
                pickable: 1,
                backends: 1,
                part: Some(0.3),
            },
        ],
        backends: vec![
            candidate(1, 0, "it can be picked"),
            candidate(2, 0, "down for 12s: its checks find nobody who accepts"),
            candidate(3, 5, "it can be picked"),
        ],
        withdrawn: vec![Withdrawn {
            id: "web/10.0.0.4:8080".to_owned(),
            since_seconds: 7.25,
            in_flight: 1,
        }],
        next: vec![
            NextPick {
                worker: 0,
                backend: Some("web/10.0.0.1:8080".to_owned()),
                priority: Some(0),
                why: "the first one".to_owned(),
            },
            NextPick {
                worker: 1,
                backend: None,
                priority: None,
                why: "it has not answered within 1 s".to_owned(),
            },
        ],
        kind: Kind::Forwarded,
        status: None,
        outcome: "goes to web/10.0.0.1:8080".to_owned(),
    }
}

#[test]
fn a_page_for_a_person() {
    let expected = "\
GET https://shop.test/cart from 192.0.2.7

          goes to web/10.0.0.1:8080

listener  public: https on port 443
route     shop: its path is the longest of those that match
          not any: it matches, but its path is shorter
          not admin: it is on another listener
service   web (weighted), snapshot 17, 4m 12s old
cookie    at leads to web/10.0.0.2:8080: that one cannot be had, so the schedule chooses: down for
          12s: its checks find nobody who accepts
tier      0: the first one
          0: 1 of 2 can be picked, takes 70.0 %
          5: 1 of 1 can be picked, takes 30.0 %
next      worker 0: web/10.0.0.1:8080 (tier 0: the first one)
          worker 1: it has not answered within 1 s

  backend             tier weight    share in flight
+ web/10.0.0.1:8080      0     10   50.0 %         3
- web/10.0.0.2:8080      0     10   50.0 %         3
      down for 12s: its checks find nobody who accepts
+ web/10.0.0.3:8080      5     10   50.0 %         3
  web/10.0.0.4:8080: withdrawn 7.2 s ago, 1 in flight
";
    assert_eq!(written(&explanation()), expected);
}

#[test]
fn no_line_is_too_long_and_no_list() {
    let mut long = explanation();
    long.backends = (0..200)
        .map(|n| candidate(n, 0, &"why ".repeat(40)))
        .collect();
    for one in &mut long.backends {
        one.chance = Some(0.005);
    }
    long.routes_lost = (0..200)
        .map(|n| named(&format!("route-{n}"), &"because ".repeat(30)))
        .collect();
    long.next[0].why = "word ".repeat(60);
    let text = written(&long);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
        assert_eq!(line, line.trim_end());
    }
    assert!(text.contains("… and 188 more"));
    assert!(text.contains("… and 160 more"));
}
