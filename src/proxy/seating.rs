//! Which worker a client's connection goes to.
//!
//! Workers accept from the same sockets, and whoever wakes first takes what is there: a burst of
//! connections would all be his, and those that live long would stay with him. So whoever accepts
//! looks at how many connections each worker has, and hands a connection over when he has
//! noticeably more than the one with the fewest. A connection lives and dies where it was seated.
//!
//! Made by `server`, which gives each worker its receiving end; used by `listener`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::events::ListenerId;

/// Connections that may wait for a worker to take them over: as many as one turn of a busy worker
/// brings. More means that it does not turn, and then whoever accepted them keeps them.
const WAITING: usize = 64;

/// How many connections each worker has, and the way to each.
#[derive(Debug)]
pub struct Seating {
    desks: Box<[Desk]>,
}

/// On a cache line of its own: each is written mostly by one worker.
#[derive(Debug)]
#[repr(align(64))]
struct Desk {
    /// Connections seated there, those on the way to it included. Written by whoever seats one and
    /// by the worker when one ends. Relaxed: a number to compare, it orders nothing.
    taken: AtomicUsize,
    arrivals: mpsc::Sender<Arrival>,
}

/// An accepted connection on its way to another worker.
#[derive(Debug)]
pub struct Arrival {
    /// The connection, out of the hands of any runtime.
    pub stream: std::net::TcpStream,
    /// The client.
    pub address: SocketAddr,
    /// The listener that it came to.
    pub listener: ListenerId,
    /// Its seat at the worker that it is on its way to.
    pub seat: Seat,
}

/// Counts a connection at a worker until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seating: Arc<Seating>,
    worker: usize,
}

impl Seating {
    /// Nobody is seated yet. The receiving ends are in the order of the workers.
    pub fn new(workers: usize) -> (Arc<Seating>, Vec<mpsc::Receiver<Arrival>>) {
        let (desks, ends) = (0..workers)
            .map(|_| {
                let (arrivals, end) = mpsc::channel(WAITING);
                let taken = AtomicUsize::new(0);
                (Desk { taken, arrivals }, end)
            })
            .unzip::<_, _, Vec<_>, _>();
        let desks = desks.into();
        (Arc::new(Seating { desks }), ends)
    }

    /// A seat for a connection that worker `own` accepted: there, or where there are noticeably
    /// fewer. O(workers).
    pub fn choose(self: &Arc<Self>, own: usize) -> Seat {
        let counts = self
            .desks
            .iter()
            .map(|desk| match desk.arrivals.is_closed() {
                // It has ended, or is about to.
                true => usize::MAX,
                false => desk.taken.load(Ordering::Relaxed),
            });
        self.seat(better(counts, own).unwrap_or(own))
    }

    /// A seat at that worker.
    pub fn seat(self: &Arc<Self>, worker: usize) -> Seat {
        self.desks[worker].taken.fetch_add(1, Ordering::Relaxed);
        Seat {
            seating: Arc::clone(self),
            worker,
        }
    }
}

impl Arrival {
    /// Sends it to the worker of its seat; gives it back if that one takes nothing more.
    pub fn send(self) -> Result<(), Arrival> {
        let seating = Arc::clone(&self.seat.seating);
        let sent = seating.desks[self.seat.worker].arrivals.try_send(self);
        sent.map_err(mpsc::error::TrySendError::into_inner)
    }
}

impl Seat {
    /// The worker.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seating.desks[self.worker]
            .taken
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker with the fewest connections, if a move from `own` there is worth its cost: handing
/// one over takes a few microseconds, so a difference of one, or of an eighth, is let be.
fn better(counts: impl Iterator<Item = usize> + Clone, own: usize) -> Option<usize> {
    let here = counts.clone().nth(own)?;
    let (least, count) = counts.enumerate().min_by_key(|(_, count)| *count)?;
    (here > count.saturating_add(1 + count / 8)).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_handed_over_where_it_pays() {
        for (rule, counts, own, expected) in [
            ("alone", &[9][..], 0, None),
            ("all are empty", &[0, 0], 1, None),
            ("one more is let be", &[1, 0], 0, None),
            ("two more are not", &[2, 0], 0, Some(1)),
            ("whoever has fewest does not hand over", &[7, 0], 1, None),
            ("to whom has fewest", &[9, 3, 1, 2], 0, Some(2)),
            ("the first of several", &[9, 1, 1], 0, Some(1)),
            ("an eighth is let be", &[1126, 1000], 0, None),
            ("more than an eighth is not", &[1127, 1000], 0, Some(1)),
        ] {
            assert_eq!(better(counts.iter().copied(), own), expected, "{rule}");
        }
    }

    #[test]
    fn a_burst_accepted_by_one_worker_is_shared_out() {
        let (seating, _ends) = Seating::new(4);
        let seats: Vec<_> = (0..400).map(|_| seating.choose(0)).collect();
        for worker in 0..4 {
            let count = seats.iter().filter(|seat| seat.worker() == worker).count();
            assert!((85..=115).contains(&count), "worker {worker} has {count}");
        }
        drop(seats);
        assert!(
            seating
                .desks
                .iter()
                .all(|desk| desk.taken.load(Ordering::Relaxed) == 0)
        );
    }

    #[tokio::test]
    async fn what_a_worker_does_not_take_comes_back() {
        let (seating, mut ends) = Seating::new(1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let came_to = ListenerId::unused();
        let arrival = || Arrival {
            stream: std::net::TcpStream::connect(address).expect("somebody listens"),
            address,
            listener: came_to,
            seat: seating.seat(0),
        };
        arrival().send().expect("there is room");
        let taken = ends[0].recv().await.expect("it was sent");
        assert_eq!((taken.listener, taken.seat.worker()), (came_to, 0));
        let _room = seating.desks[0].arrivals.reserve_many(WAITING).await;
        assert!(arrival().send().is_err(), "as many wait as may");
        ends[0].close();
        assert!(arrival().send().is_err(), "it takes nothing more");
    }
}
