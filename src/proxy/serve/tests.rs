//! As many runners as requests at once, and no more for long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::io::transport::Transport;
use crate::proxy::peer::Peer;
use crate::proxy::worker::OpenConnection;
use crate::proxy::worker::fixture::Workers;

/// Against tests that hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections of one worker, with the clients' ends.
struct Site {
    runners: Rc<Runners>,
    served: Vec<Serve>,
    clients: Vec<TcpStream>,
}

impl Site {
    async fn start(count: usize) -> Site {
        let (worker, _told) = Workers::new(1).only();
        let runners = Runners::new(Rc::clone(&worker.deadlines));
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let (mut served, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (ours, address) = ours.expect("it comes");
            let peer = Peer {
                address,
                listener: 0,
                tls: None,
                certificate: None,
                arrival: None,
                coding: None,
                is_unknown: false,
            };
            let seat = worker.shared.seating.seat(0);
            let open = OpenConnection::open(&worker, seat, 0, address.ip());
            let open = open.expect("there is room");
            let transport = Transport::Plain(ours);
            let connection = Connection::new(Rc::clone(&worker), transport, peer, open);
            served.push(Serve::new(connection, Rc::clone(&runners)));
            clients.push(theirs.expect("it listens"));
        }
        Site {
            runners,
            served,
            clients,
        }
    }

    /// So many of the clients send this.
    async fn send(&mut self, count: usize, bytes: &[u8]) {
        for client in &mut self.clients[..count] {
            client.write_all(bytes).await.expect("it is open");
        }
    }

    /// Serves them all until so many have a runner.
    async fn busy(&mut self, wanted: usize) {
        let served = &mut self.served;
        let serving = poll_fn(|cx| {
            for serve in &mut *served {
                let going = Pin::new(serve).poll(cx);
                assert!(going.is_pending(), "a connection has ended");
            }
            let busy = served.iter().filter(|s| matches!(s.now, Now::Busy(_)));
            match busy.count() == wanted {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let done = tokio::time::timeout(PATIENCE, serving).await;
        done.unwrap_or_else(|_| panic!("never were {wanted} under way"));
    }
}

#[tokio::test]
async fn runners_follow_the_requests_at_once() {
    const COUNT: usize = 100;
    let mut site = Site::start(COUNT).await;
    for round in 0..3 {
        // Half a head holds a runner.
        site.send(COUNT, b"GET /nowhere HTTP/1.1\r\n").await;
        site.busy(COUNT).await;
        let idle = site.runners.idle.borrow().len();
        assert_eq!(idle, 0, "all that there are are used, {round}");
        site.send(COUNT, b"Host: a\r\n\r\n").await;
        site.busy(0).await;
        for client in &mut site.clients {
            let mut response = [0; 1024];
            let n = client.read(&mut response).await.expect("it is open");
            let response = String::from_utf8_lossy(&response[..n]);
            assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
        }
        let idle = site.runners.idle.borrow().len();
        assert_eq!(idle, COUNT, "they are kept for the next, {round}");
        assert_eq!(site.runners.trim(), 0, "all were needed, {round}");
    }
    // Fewer take from those, and what they leave goes.
    for round in 0..2 {
        site.send(10, b"GET /nowhere HTTP/1.1\r\n").await;
        site.busy(10).await;
        let idle = site.runners.idle.borrow().len();
        site.send(10, b"Host: a\r\n\r\n").await;
        site.busy(0).await;
        let gone = site.runners.trim();
        match round {
            0 => assert_eq!(idle, COUNT - 10),
            _ => assert!(idle < 10, "{idle} that nobody needs"),
        }
        assert_eq!(gone > 50, round == 0, "{gone} went, {round}");
    }
}
