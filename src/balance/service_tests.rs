use super::*;
use crate::balance::testing::{endpoint, found, number, tier, tiers};
use crate::config::Strategy;
use crate::upstream::standing::State;

fn service() -> Service {
    Service::new("web".into())
}

/// Priority, and (target, weight, split) of each member.
type TierLayout = (u16, Vec<(String, u16, u16)>);

fn layout(service: &Service) -> Vec<TierLayout> {
    let snapshot = service.snapshot().load();
    let members = |tier: &Tier| {
        let all = tier.members.iter();
        all.map(|m| (m.backend.endpoint.target.to_string(), m.weight, m.split))
            .collect()
    };
    snapshot
        .tiers
        .iter()
        .map(|tier| (tier.priority, members(tier)))
        .collect()
}

fn backend(service: &Service, number: u32) -> Arc<Backend> {
    Arc::clone(&service.listed[&endpoint(number)].0)
}

#[test]
fn pending_is_no_answer() {
    let mut service = service();
    assert!(service.apply(&Offer::Pending).is_empty());
    assert!(!service.snapshot().load().answered);
}

#[test]
fn absent_is_an_answer() {
    let mut service = service();
    let mut reader = service.snapshot().reader();
    assert!(service.apply(&Offer::Absent).first);
    assert!(reader.refresh() && reader.current().answered);
    assert!(reader.current().tiers.is_empty());
    assert!(service.apply(&Offer::Absent).is_empty());
    assert!(!reader.refresh(), "nothing differs: not published");
}

#[test]
fn a_pending_after_an_answer_keeps_the_last_set() {
    let mut service = service();
    service.apply(&tier(&[1]));
    assert!(service.apply(&Offer::Pending).is_empty());
    assert_eq!(service.listed.len(), 1);
}

#[test]
fn tiers_by_priority_members_by_endpoint_whatever_the_order_of_records() {
    let mut service = service();
    service.apply(&tiers(&[(9, 20, 1), (3, 10, 5), (2, 20, 4), (1, 10, 7)]));
    let b = |n: u32| format!("b{n:06}");
    let expected = vec![
        (10, vec![(b(1), 7, 1), (b(3), 5, 1)]),
        (20, vec![(b(2), 4, 1), (b(9), 1, 1)]),
    ];
    assert_eq!(layout(&service), expected);
}

#[test]
fn the_order_of_records_means_nothing() {
    let mut service = service();
    service.apply(&tiers(&[(1, 0, 1), (2, 0, 2), (3, 1, 3)]));
    let mut reader = service.snapshot().reader();
    let changes = service.apply(&tiers(&[(3, 1, 3), (2, 0, 2), (1, 0, 1)]));
    assert!(changes.is_empty() && !reader.refresh());
}

#[test]
fn the_same_identity_keeps_the_same_backend() {
    let mut service = service();
    service.apply(&tier(&[1, 1]));
    let before = [backend(&service, 1), backend(&service, 2)];
    let in_flight = before[0].begin();
    let changes = service.apply(&tiers(&[(1, 7, 30), (2, 0, 1), (3, 0, 1)]));
    assert!(Arc::ptr_eq(&before[0], &backend(&service, 1)));
    assert!(Arc::ptr_eq(&before[1], &backend(&service, 2)));
    assert_eq!(backend(&service, 1).in_flight(), 1);
    drop(in_flight);

    let place = |priority, weight| Place {
        priority,
        weight,
        split: 1,
    };
    assert_eq!(changes.added.len(), 1);
    assert_eq!(changes.added[0].0.endpoint, endpoint(3));
    assert!(changes.removed.is_empty());
    let (changed, from, to) = &changes.changed[0];
    assert!(Arc::ptr_eq(changed, &before[0]));
    assert_eq!((*from, *to), (place(0, 1), place(7, 30)));
}

#[test]
fn another_port_or_address_is_another_backend() {
    let mut service = service();
    let mut records = [found(1, 0, 1, 1)];
    service.apply(&Offer::Endpoints(records.clone().into()));
    records[0].endpoint.port = 81;
    let changes = service.apply(&Offer::Endpoints(records.into()));
    assert_eq!((changes.added.len(), changes.removed.len()), (1, 1));
    assert_ne!(changes.added[0].0.id, changes.removed[0].id);
}

#[test]
fn a_removed_backend_that_comes_back_has_its_state() {
    let mut service = service();
    let start = Millis(1_000);
    service.apply_at(&tier(&[1, 1]), start);
    let old = backend(&service, 2);
    old.connect_failed(start);
    assert!(!old.withdrawn());
    let changes = service.apply_at(&tier(&[1]), start);
    assert!(Arc::ptr_eq(&changes.removed[0], &old) && old.withdrawn());

    let later = start.after(REMEMBERED_FOR - Duration::from_millis(1));
    let changes = service.apply_at(&tier(&[1, 1]), later);
    assert!(Arc::ptr_eq(&changes.added[0].0, &old) && !old.withdrawn());
    assert!(service.departed.is_empty());
}

#[test]
fn after_the_drain_it_is_a_new_backend() {
    let mut service = service();
    let start = Millis(1_000);
    service.apply_at(&tier(&[1, 1]), start);
    let old = backend(&service, 2);
    service.apply_at(&tier(&[1]), start);
    let later = start.after(REMEMBERED_FOR);
    service.apply_at(&tier(&[1]), later);
    service.apply_at(&tier(&[1, 1]), later);
    assert_ne!(backend(&service, 2).id, old.id);
}

#[test]
fn the_memory_of_removed_backends_is_bounded() {
    let mut service = service();
    for round in 0..3 {
        let many: Vec<_> = (0..3_000).map(|n| (round * 3_000 + n, 0, 1)).collect();
        service.apply_at(&tiers(&many), Millis(1 + u64::from(round)));
    }
    service.apply_at(&Offer::Absent, Millis(9));
    assert_eq!(service.departed.len(), REMEMBERED);
    // The newest are those that are kept.
    let newest = (6_000..9_000).all(|n| service.departed.contains_key(&endpoint(n)));
    assert!(newest);
}

#[test]
fn an_endpoint_listed_twice_stands_where_it_is_asked_first() {
    let mut service = service();
    let twice = [found(1, 5, 9, 1), found(1, 2, 3, 1), found(1, 2, 4, 0)];
    service.apply(&Offer::Endpoints(twice.into()));
    assert_eq!(layout(&service), vec![(2, vec![("b000001".into(), 4, 1)])]);
}

#[test]
fn status_shows_shares_and_state() {
    let mut service = service();
    service.apply(&tiers(&[(1, 0, 30), (2, 0, 10), (3, 5, 1)]));
    let now = Millis(50);
    backend(&service, 2).connect_failed(now);
    let guard = backend(&service, 3).begin();
    let status = service.snapshot().load().status(Strategy::Weighted, now);
    let shares: Vec<_> = status.iter().map(|s| s.share).collect();
    assert_eq!(shares, [0.75, 0.25, 1.0]);
    assert_eq!(status[1].state, (State::PassedOver, Reason::Connect));
    assert_eq!((status[2].in_flight, status[2].priority), (1, 5));
    drop(guard);
    let shares = |strategy| service.snapshot().load().shares(strategy);
    assert_eq!(shares(Strategy::RoundRobin), [0.5, 0.5, 1.0]);
    let cycle = shares(Strategy::Cycle).into_iter().zip([30.0, 10.0, 1.0]);
    cycle.for_each(|(got, weight)| assert!((got - weight / 41.0).abs() < 1e-9));
}

/// Any sequence of answers ends where its last one leads.
#[test]
fn any_sequence_converges_on_the_last_answer() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut service = service();
    for _ in 0..300 {
        let numbers = rng.choose_multiple(1..12u32, rng.clone().usize(1..11));
        let records: Vec<_> = numbers
            .into_iter()
            .map(|n| (n, rng.u16(..3), rng.u16(..)))
            .collect();
        service.apply(&tiers(&records));
        let mut fresh = self::service();
        fresh.apply(&tiers(&records));
        assert_eq!(layout(&service), layout(&fresh));
    }
}

#[test]
fn who_rises() {
    let terms = Terms {
        rises: true,
        ..Terms::default()
    };
    let mut service = Service::on("web".into(), terms);
    let now = Millis(1_000);
    let whole_after = Duration::from_secs(10);
    type Row<'a> = (&'a str, &'a [(u32, u16, u16)], &'a [u32]);
    let rows: &[Row<'_>] = &[
        ("nobody in the first answer", &[(1, 5, 1)], &[]),
        ("whoever joins others", &[(1, 5, 1), (2, 5, 1)], &[2]),
        ("not a tier behind", &[(1, 5, 1), (2, 5, 1), (3, 9, 1)], &[]),
        (
            "a tier in front",
            &[(1, 5, 1), (2, 5, 1), (3, 9, 1), (4, 0, 1), (5, 0, 1)],
            &[4, 5],
        ),
        ("nobody where all are new", &[(6, 5, 1), (7, 9, 1)], &[]),
    ];
    for (rule, records, expected) in rows {
        let changes = service.apply_at(&tiers(records), now);
        let rising: Vec<_> = changes
            .added
            .iter()
            .filter(|(backend, _)| backend.part(now, whole_after).is_some())
            .map(|(backend, _)| number(backend))
            .collect();
        assert_eq!(rising, *expected, "{rule}");
    }
}

#[test]
fn a_snapshot_has_a_number_and_tells_who_left_last() {
    let mut service = service();
    assert_eq!(service.snapshot().load().number, 0);
    let all: Vec<_> = (1..=30).map(|n| (n, 0, 1)).collect();
    service.apply_at(&tiers(&all), Millis(1_000));
    service.apply_at(&tiers(&all), Millis(2_000));
    let first = service.snapshot().load();
    assert_eq!(
        (first.number, first.made),
        (1, Millis(1_000)),
        "nothing changed"
    );
    service.apply_at(&tiers(&all[1..]), Millis(3_000));
    service.apply_at(&tiers(&all[20..]), Millis(4_000));
    let last = service.snapshot().load();
    assert_eq!((last.number, last.made), (3, Millis(4_000)));
    assert_eq!(last.withdrawn.len(), TOLD_OF);
    assert!(
        last.withdrawn
            .iter()
            .all(|(_, left)| *left == Millis(4_000))
    );
    service.apply_at(&tiers(&all), Millis(5_000));
    assert_eq!(service.snapshot().load().withdrawn.len(), 0, "all are back");
}
