use super::by_hand::{Change, Refused};
use super::picker::{NoBackend, Picker};
use super::service::Service;
use super::testing::{Fixture, endpoint, found, number, tier, tiers};
use super::wish::Wish;
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::discovery::Offer;
use crate::upstream::standing::{Reason, State};

impl Fixture {
    fn set(&mut self, number: u32, change: Change) {
        let address = endpoint(number).socket();
        let set = self.service.set_by_hand(address, change, self.now);
        assert_eq!(set.expect("it is listed").len(), 1);
    }
}

#[test]
fn an_overridden_weight_gives_its_exact_share_until_it_is_taken_back() {
    let mut fixture = Fixture::weighted(&[1, 1, 2], 3);
    fixture.count(4_000);
    fixture.set(1, Change::Weigh(Some(5)));
    // The first round settles what was carried over.
    fixture.count(8);
    assert_eq!(
        fixture.count(8_000),
        [(1, 5_000), (2, 1_000), (3, 2_000)].into()
    );
    // Records come and go: it holds.
    fixture.apply(&tier(&[9, 1, 2, 8]));
    fixture.count(16);
    let expected = [(1, 5_000), (2, 1_000), (3, 2_000), (4, 8_000)].into();
    assert_eq!(fixture.count(16_000), expected);
    fixture.set(1, Change::Weigh(None));
    fixture.count(20);
    let expected = [(1, 9_000), (2, 1_000), (3, 2_000), (4, 8_000)].into();
    assert_eq!(fixture.count(20_000), expected);
}

#[test]
fn what_is_said_of_one_address_is_not_shared_with_others_of_its_target() {
    let offer = Offer::Endpoints([found(1, 0, 6, 3), found(2, 0, 2, 1)].into());
    let mut fixture = Fixture::new(&offer, Strategy::Weighted, 5);
    assert_eq!(fixture.count(4_000), [(1, 2_000), (2, 2_000)].into());
    fixture.set(1, Change::Weigh(Some(6)));
    fixture.count(8);
    assert_eq!(fixture.count(8_000), [(1, 6_000), (2, 2_000)].into());
}

#[test]
fn a_drained_backend_gets_nothing_and_the_others_their_exact_shares() {
    for strategy in [
        Strategy::Weighted,
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::Random,
        Strategy::TwoChoices,
        Strategy::Cycle,
    ] {
        let mut fixture = Fixture::new(&tier(&[4, 1, 1]), strategy, 7);
        fixture.count(100);
        fixture.set(1, Change::Drain);
        let count = fixture.count(1_000);
        assert_eq!(
            count.keys().copied().collect::<Vec<_>>(),
            [2, 3],
            "{strategy:?}"
        );
        if matches!(strategy, Strategy::Weighted | Strategy::Cycle) {
            assert_eq!(count, [(2, 500), (3, 500)].into());
        }
        // It stays so through changes of the records, its own included.
        fixture.apply(&tier(&[8, 1]));
        assert_eq!(fixture.count(10), [(2, 10)].into(), "{strategy:?}");
        fixture.apply(&Offer::Endpoints([found(2, 0, 1, 1)].into()));
        fixture.apply(&tier(&[4, 1]));
        assert_eq!(fixture.count(10), [(2, 10)].into(), "{strategy:?}");
        fixture.set(1, Change::Undrain);
        assert!(fixture.count(1_000)[&1] >= 450, "{strategy:?}");
    }
}

#[test]
fn the_last_of_a_tier_can_be_drained_and_the_next_tier_serves() {
    let mut fixture = Fixture::new(&tiers(&[(1, 0, 1), (2, 9, 1)]), Strategy::Weighted, 7);
    fixture.set(1, Change::Drain);
    assert_eq!(fixture.count(10), [(2, 10)].into());
    fixture.set(2, Change::Drain);
    let picked = fixture.picker.pick(Wish::at(fixture.now));
    assert_eq!(picked.err(), Some(NoBackend::Drained));
    let snapshot = fixture.service.snapshot().load();
    let listed = snapshot
        .listed()
        .map(|(priority, member)| (priority, number(&member.backend)));
    assert_eq!(listed.collect::<Vec<_>>(), [(0, 1), (9, 2)]);
    fixture.set(1, Change::Undrain);
    assert_eq!(fixture.count(10), [(1, 10)].into());
}

#[test]
fn not_even_a_last_resort_is_one_that_is_drained() {
    let mut fixture = Fixture::weighted(&[1, 1], 7);
    fixture.set(1, Change::Drain);
    fixture.backend(2).set_down(Reason::CheckConnect);
    assert_eq!(fixture.count(10), [(2, 10)].into());
}

#[test]
fn its_state_is_shown_and_its_weight_as_recorded_beside_the_one_that_counts() {
    let mut fixture = Fixture::weighted(&[3], 7);
    let backend = fixture.backend(1);
    fixture.set(1, Change::Weigh(Some(9)));
    fixture.set(1, Change::Drain);
    assert_eq!(backend.state(fixture.now), (State::Drained, Reason::ByHand));
    let snapshot = fixture.service.snapshot().load();
    let (_, member) = snapshot.listed().next().expect("it is listed");
    assert_eq!((member.weight, member.recorded), (9, 3));
}

#[test]
fn nobody_is_there_to_be_set() {
    let mut service = Service::new("web".into());
    service.apply(&tier(&[1]));
    let mut reader = service.snapshot().reader();
    let set = service.set_by_hand(endpoint(2).socket(), Change::Drain, Millis(1));
    assert_eq!(set.err(), Some(Refused::Unknown));
    let address = endpoint(1).socket();
    let set = service.set_by_hand(address, Change::Undrain, Millis(1));
    assert!(
        set.is_ok() && !reader.refresh(),
        "nothing differs: not published"
    );
}

#[test]
fn what_is_taken_over_holds_for_those_who_are_listed() {
    let [mut old, mut new] = [(); 2].map(|()| Service::new("web".into()));
    for service in [&mut old, &mut new] {
        service.apply(&tier(&[1, 1]));
    }
    let mut reader = new.snapshot().reader();
    let weighed = old.set_by_hand(endpoint(1).socket(), Change::Weigh(Some(7)), Millis(1));
    let drained = old.set_by_hand(endpoint(2).socket(), Change::Drain, Millis(1));
    assert!(weighed.is_ok() && drained.is_ok());
    new.take_over(old.by_hand().clone(), Millis(2));
    assert!(reader.refresh(), "it is published");
    let told = |service: &Service| {
        let snapshot = service.snapshot().load();
        let listed = snapshot.listed();
        let told = listed.map(|(_, m)| (m.weight, m.backend.state(Millis(2))));
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(&new), told(&old));
    assert_eq!(told(&new)[0].0, 7);
    assert_eq!(told(&new)[1].1, (State::Drained, Reason::ByHand));
    new.take_over(old.by_hand().clone(), Millis(2));
    assert!(!reader.refresh(), "nothing differs: not published");
}

#[test]
fn one_that_comes_back_by_hand_begins_with_little_where_others_can_take_the_rest() {
    let terms = super::service::Terms {
        rises: true,
        ..Default::default()
    };
    let mut service = Service::on("web".into(), terms);
    let now = Millis(1_000);
    service.apply_at(&tier(&[1, 1]), now);
    let address = |n| endpoint(n).socket();
    let whole = std::time::Duration::from_secs(10);
    let back = service.set_by_hand(address(1), Change::Drain, now).unwrap();
    service
        .set_by_hand(address(1), Change::Undrain, now)
        .unwrap();
    assert!(back[0].part(now, whole).is_some());
    // Nobody else is there.
    service.set_by_hand(address(2), Change::Drain, now).unwrap();
    service.set_by_hand(address(1), Change::Drain, now).unwrap();
    service
        .set_by_hand(address(1), Change::Undrain, now)
        .unwrap();
    assert!(back[0].part(now, whole).is_none());
    let balancing = Balancing::default();
    let mut picker = Picker::new(service.snapshot().reader(), &balancing, 1);
    assert!(picker.pick(Wish::at(now)).is_ok());
}
