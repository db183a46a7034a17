//! Idle connections to backends, kept by one worker: last in, first out.
//!
//! A connection is looked at before it is stored, before it is used and at every sweep: one on
//! which bytes wait that nobody asked for, or the end, is dropped. Of those that have been idle for a
//! second, so many are kept per backend as the service says: a hundred that are idle in this moment
//! may be wanted in the next, and connecting anew costs more than the request. A connection that is idle
//! for longer than the service allows goes.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{Backend, BackendId};
use crate::clock::Millis;
use crate::id_map::IdMap;
use crate::io::duplex::Duplex;
use crate::telemetry::metrics::Level;

/// One worker's idle connections.
#[derive(Debug)]
pub struct Pool {
    kept: IdMap<BackendId, Kept>,
    /// For a scrape too.
    count: Arc<Level>,
    /// To all backends together.
    most: usize,
}

#[derive(Debug)]
struct Kept {
    backend: Arc<Backend>,
    /// The one used last is last.
    idle: Vec<Idle>,
    /// Of those that have been idle for a while.
    limit: usize,
}

#[derive(Debug)]
struct Idle {
    io: Duplex,
    since: Millis,
    expires: Millis,
}

impl Pool {
    /// Empty; it keeps `most` connections, to all backends together, and tells `count` how many.
    pub fn new(most: usize, count: Arc<Level>) -> Pool {
        Pool {
            kept: IdMap::default(),
            count,
            most,
        }
    }

    /// Drops some: descriptors are needed. False: there was none.
    pub fn shed(&mut self) -> bool {
        let mut left = SHED;
        self.kept.retain(|_, kept| {
            let some = kept.idle.len().min(left);
            // Those that were idle for longest.
            kept.idle.drain(..some);
            left -= some;
            !kept.idle.is_empty()
        });
        self.count.set(self.count.now() - (SHED - left));
        left < SHED
    }

    /// An idle connection to `backend`, the one used last, if it has been idle for at most
    /// `max_age` and is still sound.
    pub fn take(&mut self, backend: BackendId, max_age: Duration, now: Millis) -> Option<Duplex> {
        let idle = &mut self.kept.get_mut(&backend)?.idle;
        while let Some(last) = idle.last() {
            if now.since(last.since) > max_age || now >= last.expires {
                // Those below are older still; the sweep takes them.
                return None;
            }
            let connection = idle.pop()?;
            self.count.end();
            if connection.io.is_quiet() {
                connection.io.rests(false);
                return Some(connection.io);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless it is unsound. At the next sweep no more than
    /// `limit` are left of those to this backend that were not used in the last second.
    pub fn put(
        &mut self,
        backend: &Arc<Backend>,
        io: Duplex,
        keep: Duration,
        limit: usize,
        now: Millis,
    ) {
        if limit == 0 || self.most == 0 || backend.withdrawn() || !io.is_quiet() {
            return;
        }
        if self.count.now() >= self.most {
            self.shed();
        }
        let kept = self.kept.entry(backend.id).or_insert_with(|| Kept {
            backend: Arc::clone(backend),
            idle: Vec::new(),
            limit,
        });
        kept.limit = limit;
        io.rests(true);
        kept.idle.push(Idle {
            io,
            since: now,
            expires: now.after(keep),
        });
        self.count.begin();
    }

    /// Drops what has expired, what has become unsound, and every connection to a backend that
    /// discovery has withdrawn.
    pub fn sweep(&mut self, now: Millis) {
        self.kept.retain(|_, kept| {
            if kept.backend.withdrawn() {
                kept.idle.clear();
            }
            let mut surplus = kept.idle.len().saturating_sub(kept.limit);
            // Those that were idle for longest come first.
            kept.idle.retain(|i| {
                let is_surplus = surplus > 0 && now.since(i.since) >= LATELY;
                surplus -= usize::from(is_surplus);
                !is_surplus && now < i.expires && i.io.is_quiet()
            });
            !kept.idle.is_empty()
        });
        let count = self.kept.values().map(|kept| kept.idle.len()).sum();
        self.count.set(count);
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.count.now()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whoever was used since then may be wanted again at once.
const LATELY: Duration = Duration::from_secs(1);

/// So many go at once where descriptors are needed: each that goes may be wanted again.
const SHED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::transport::Transport;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    const A: BackendId = BackendId(1);

    fn backend() -> Arc<Backend> {
        let endpoint = crate::discovery::Endpoint {
            target: "a".into(),
            address: [127, 0, 0, 1].into(),
            port: 1,
        };
        Backend::new(A, "web".into(), endpoint)
    }

    const KEEP: Duration = Duration::from_secs(4);

    async fn pair() -> (Duplex, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let ours = ours.expect("somebody listens");
        (
            Duplex::new(Transport::Plain(ours)),
            theirs.expect("somebody connects").0,
        )
    }

    #[tokio::test]
    async fn last_in_is_first_out_and_so_many_stay() {
        let (mut pool, backend) = (Pool::new(100, Arc::default()), backend());
        let mut peers = Vec::new();
        for at in [1, 2, 3, 1500] {
            let (io, peer) = pair().await;
            peers.push(peer);
            pool.put(&backend, io, KEEP, 2, Millis(at));
        }
        pool.sweep(Millis(900));
        assert_eq!(pool.len(), 4, "they may be wanted again");
        pool.sweep(Millis(1600));
        assert_eq!(pool.len(), 2);
        let long = Duration::from_secs(2);
        assert!(pool.take(A, Duration::from_secs(1), Millis(1610)).is_some());
        assert!(pool.take(A, Duration::from_secs(1), Millis(1610)).is_none());
        assert!(pool.take(A, long, Millis(1610)).is_some(), "the older one");
        assert!(pool.take(A, long, Millis(1610)).is_none());
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn an_old_connection_is_not_given_out() {
        let (mut pool, backend) = (Pool::new(100, Arc::default()), backend());
        let (io, _peer) = pair().await;
        pool.put(&backend, io, KEEP, 2, Millis(1));
        assert!(pool.take(A, Duration::from_secs(1), Millis(1500)).is_none());
        assert_eq!(pool.len(), 1, "somebody less particular may have it");
        pool.sweep(Millis(4100));
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn stray_bytes_and_closure_end_a_pooled_connection() {
        for stray in [&b"HTTP/1.1 200 OK\r\n"[..], b""] {
            let (mut pool, backend) = (Pool::new(100, Arc::default()), backend());
            let (io, mut peer) = pair().await;
            pool.put(&backend, io, KEEP, 2, Millis(1));
            peer.write_all(stray).await.expect("the other end is open");
            if stray.is_empty() {
                drop(peer);
            }
            // The reactor needs a turn to hear of it.
            for _ in 0..100 {
                tokio::task::yield_now().await;
                pool.sweep(Millis(2));
            }
            assert!(pool.take(A, KEEP, Millis(2)).is_none(), "{stray:?}");
        }
    }

    #[tokio::test]
    async fn a_task_whose_turn_is_over_is_not_given_a_closed_connection() {
        use tokio::task::coop;
        let (mut pool, backend) = (Pool::new(100, Arc::default()), backend());
        let (io, peer) = pair().await;
        pool.put(&backend, io, KEEP, 2, Millis(1));
        drop(peer);
        // The reactor needs a turn to hear of it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        while coop::has_budget_remaining() {
            coop::consume_budget().await;
        }
        assert!(pool.take(A, KEEP, Millis(2)).is_none());
    }

    #[tokio::test]
    async fn connections_to_a_removed_backend_go() {
        let (mut pool, backend) = (Pool::new(100, Arc::default()), backend());
        let (io, _peer) = pair().await;
        pool.put(&backend, io, KEEP, 2, Millis(1));
        backend.set_withdrawn(true);
        pool.sweep(Millis(2));
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn all_backends_together_have_so_many_and_no_more() {
        let mut pool = Pool::new(20, Arc::default());
        let mut peers = Vec::new();
        for at in 1..=50 {
            let (io, peer) = pair().await;
            peers.push(peer);
            let id = BackendId(at);
            let endpoint = backend().endpoint.clone();
            let backend = Backend::new(id, "web".into(), endpoint);
            pool.put(&backend, io, KEEP, 2, Millis(at));
            assert!(pool.len() <= 20);
        }
        while pool.shed() {}
        assert!(pool.is_empty());
    }
}
