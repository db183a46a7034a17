//! Who is taken in.

use super::*;
use crate::config::from_toml_str;
use crate::memory::budget::Look;

fn limits(text: &str) -> Arc<Limits> {
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    let config = from_toml_str(&format!("{text}\n{listener}"));
    Limits::new(Arc::new(config.expect("it is right")))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

#[test]
fn whoever_is_refused_is_not_counted() {
    let limits = limits("limits = { max_connections = 3, max_connections_per_client = 2 }");
    let [one, other] = ["192.0.2.1", "192.0.2.2"].map(address);
    let first = limits.admit(one).expect("there is room");
    let second = limits.admit(one).expect("there is room");
    for _ in 0..10 {
        assert_eq!(limits.admit(one).err(), Some(Refused::FullForClient));
    }
    let third = limits.admit(other).expect("one place is left");
    for _ in 0..10 {
        assert_eq!(limits.admit(other).err(), Some(Refused::Full));
    }
    drop([first, second, third]);
    for bound in limits.bounds() {
        assert_eq!(bound.now, 0, "{}", bound.what);
    }
}

#[test]
fn a_trusted_proxy_has_only_the_limit_of_all() {
    let limits = limits(
        "trusted_proxies = [\"10.0.0.0/8\"]\n\
         limits = { max_connections = 3, max_connections_per_client = 1 }",
    );
    let proxy = address("::ffff:10.0.0.1");
    let admitted = [(); 3].map(|()| limits.admit(proxy).expect("there is room"));
    assert_eq!(limits.admit(proxy).err(), Some(Refused::Full));
    assert_eq!(limits.bounds()[1].now, 0, "no client is counted");
    drop(admitted);
    assert_eq!(limits.bounds()[0].now, 0);
}

#[test]
fn coders_are_bounded_over_reloads_and_have_no_place_where_memory_runs_short() {
    let limits = limits("");
    let look = |used| {
        let look = Look {
            used,
            budget: 128 << 20,
        };
        limits.pressure.update(Some(look));
    };
    look(0);
    let renewed = limits.renewed(Arc::clone(&limits.config));
    let taken: Vec<_> = [&limits, &renewed]
        .into_iter()
        .cycle()
        .map_while(|limits| limits.coder(Coded::Content))
        .collect();
    assert_eq!(taken.len(), 16);
    let sample = renewed.bounds().pop().expect("it is the last");
    let levels = (sample.what, sample.now, sample.bound, sample.high_water);
    assert_eq!(levels, ("coders", 16, Some(16), Some(16)));
    drop(taken);
    for (used, expected) in [(115 << 20, false), (125 << 20, false), (1 << 20, true)] {
        look(used);
        assert_eq!(limits.coder(Coded::Content).is_some(), expected, "{used}");
    }
}
