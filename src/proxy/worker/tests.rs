//! When a worker says that a burst is over, and whom it closes for want of memory.

use super::crowd::{BURST, BURST_CODERS, LEAST_IDLE};
use super::fixture::Workers;
use super::*;
use crate::events::Event;
use crate::memory::budget::Look;
use crate::memory::level::Level;
use crate::proxy::limits::Refused;

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
fn a_burst_is_over_when_coders_have_become_noticeably_fewer() {
    for (before, after, expected) in [
        (BURST_CODERS, 0, true),
        (BURST_CODERS - 1, 0, false),
        (8 * BURST_CODERS, 7 * BURST_CODERS, false),
    ] {
        let (worker, mut told) = Workers::new(1).only();
        let coders = &worker.crowd.coders;
        (0..before).for_each(|_| coders.rise());
        worker.tick(0);
        assert!(told.try_recv().is_err(), "{before}: they are all there");
        (after..before).for_each(|_| coders.fall());
        worker.tick(0);
        assert_eq!(told.try_recv().is_ok(), expected, "{before}, {after}");
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

#[test]
fn a_share_of_the_idle_goes_in_each_round() {
    let (worker, _told) = Workers::new(1).only();
    let _connections = open(&worker, 80);
    let pressure = &worker.shared.limits.pressure;
    let look = |used| pressure.update(Some(Look { used, budget: 100 }));
    let shed = |idle| (0..80).filter(|_| worker.sheds(|| idle)).count();
    let (long, short) = (Duration::from_secs(10), LEAST_IDLE / 2);
    for (rule, used, idle, expected) in [
        ("there is enough", 50, long, 0),
        ("an eighth", 85, long, 10),
        ("and again in the next round", 84, long, 10),
        ("nobody who may be about to ask", 84, short, 0),
        ("half when it runs out", 95, long, 40),
        ("there is enough again", 50, long, 0),
    ] {
        look(used);
        worker.shed();
        assert_eq!(shed(idle), expected, "{rule}");
        worker.shed();
        assert_eq!(shed(long), 0, "{rule}: once in a round");
    }
}

#[test]
fn nobody_is_taken_in_when_memory_runs_out() {
    let (worker, _told) = Workers::new(1).only();
    let limits = &worker.shared.limits;
    let taken_in = |used| {
        limits.pressure.update(Some(Look { used, budget: 100 }));
        let seat = worker.shared.seating.seat(0);
        OpenConnection::open(&worker, seat, 0, [127, 0, 0, 1].into()).err()
    };
    for (used, expected) in [
        (94, None),
        (95, Some(Refused::Memory)),
        (90, Some(Refused::Memory)),
        (89, None),
    ] {
        assert_eq!(taken_in(used), expected, "{used} %");
    }
    limits.pressure.update(Some(Look {
        used: 99,
        budget: 100,
    }));
    limits.pressure.update(None);
    assert_eq!(limits.pressure.level(), Level::Fine, "nobody knows");
    assert!(limits.pressure.sample().is_none());
}
