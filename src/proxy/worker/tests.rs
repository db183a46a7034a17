//! When a worker says that a burst is over.

use super::fixture::Workers;
use super::*;

fn open(worker: &Rc<Worker>, count: usize) -> Vec<OpenConnection> {
    let one = |_| {
        let seat = worker.shared.seating.seat(0);
        OpenConnection::open(worker, seat, 0, [127, 0, 0, 1].into()).expect("there is room")
    };
    (0..count).map(one).collect()
}

#[test]
fn a_burst_is_over_when_connections_have_become_noticeably_fewer() {
    for (rule, before, after, expected) in [
        ("all of them", BURST, 0, true),
        ("fewer than are worth the while", BURST - 1, 0, false),
        ("a quarter", 4 * BURST, 3 * BURST, true),
        ("less than a quarter", 8 * BURST, 7 * BURST, false),
        ("none", BURST, BURST, false),
    ] {
        let (worker, mut told) = Workers::new(1).only();
        let mut connections = open(&worker, before);
        worker.tick(0);
        assert!(told.try_recv().is_err(), "{rule}: they are all there");
        connections.truncate(after);
        worker.tick(0);
        assert_eq!(told.try_recv().is_ok(), expected, "{rule}");
        worker.tick(0);
        assert!(told.try_recv().is_err(), "{rule}: it is said once");
    }
}

#[test]
fn a_burst_is_over_once_although_runners_go_at_the_same_tick() {
    let (worker, mut told) = Workers::new(1).only();
    drop(open(&worker, BURST));
    worker.tick(BURST);
    assert!(told.try_recv().is_ok());
    worker.tick(0);
    assert!(told.try_recv().is_err());
}

#[test]
fn what_the_queue_has_no_room_for_is_said_later() {
    let (worker, mut told) = Workers::new(1).only();
    let wait = Event::BurstOver;
    worker.shared.events.try_send(wait).expect("there is room");
    worker.tick(BURST);
    assert!(told.try_recv().is_ok(), "what was there before");
    assert!(told.try_recv().is_err());
    worker.tick(0);
    assert!(told.try_recv().is_ok());
}
