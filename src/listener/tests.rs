//! Connections that are accepted, shared out, and taken over when a drain begins.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::*;
use crate::io::tls::fixture;
use crate::proxy::seating::Arrival;
use crate::proxy::worker::fixture::Workers;
use crate::published::Published;
use crate::tls::certificates::CertificateSet;
use crate::tls::contents::Contents;
use crate::tls::server::FrontEnd;

/// Workers with one listener, its socket, and what they are handed connections by.
struct Site {
    entrances: Vec<Rc<Entrance>>,
    socket: Arc<std::net::TcpListener>,
    arrivals: Vec<mpsc::Receiver<Arrival>>,
}

impl Site {
    fn plain(workers: usize) -> Site {
        Site::new(workers, None)
    }

    fn new(workers: usize, tls: Option<Arc<ServerConfig>>) -> Site {
        let tls = tls.map(|config| FrontEnd {
            config,
            certificates: Published::new(CertificateSet::default()),
            judges: Contents::default(),
        });
        let Workers {
            workers,
            arrivals,
            socket,
            ..
        } = Workers::behind(workers, tls);
        Site {
            socket,
            entrances: workers.into_iter().map(Entrance::new).collect(),
            arrivals,
        }
    }
}

fn bind_loopback(address: &str) -> std::net::TcpListener {
    bind(address.parse().expect("it is right")).expect("loopback has ports")
}

fn connect(to: &std::net::TcpListener, count: usize) -> Vec<std::net::TcpStream> {
    let address = to.local_addr().expect("it is bound");
    let connect = |_| std::net::TcpStream::connect(address).expect("the backlog has room");
    (0..count).map(connect).collect()
}

#[test]
fn what_is_accepted_notices_dead_peers() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = bind_loopback(address);
        let _clients = connect(&listener, 1);
        let listening = socket2::SockRef::from(&listener);
        // It does not block, and the kernel may not be done.
        listener.set_nonblocking(false).expect("it is a socket");
        let (accepted, _) = listener.accept().expect("somebody connects");
        let accepted = socket2::SockRef::from(&accepted);
        for socket in [listening, accepted] {
            assert!(socket.tcp_nodelay().expect("it is TCP"));
            assert!(socket.keepalive().expect("it is a socket"));
            let seconds = |time: Duration| time.as_secs();
            let times = (
                socket.tcp_keepalive_time().map(seconds).ok(),
                socket.tcp_keepalive_interval().map(seconds).ok(),
                socket.tcp_keepalive_retries().ok(),
                socket.tcp_user_timeout().ok().flatten().map(seconds),
            );
            assert_eq!(times, (Some(30), Some(10), Some(3), Some(30)));
        }
    }
}

#[tokio::test]
async fn a_drain_takes_what_the_kernel_has_completed() {
    let Site {
        entrances,
        socket,
        arrivals: _arrivals,
    } = Site::plain(2);
    // More than tokio lets a task take in one turn.
    let clients = connect(&socket, 200);
    let entrance = Rc::clone(&entrances[0]);
    let worker = entrances[0].worker();
    worker.shared.drain.advance(Phase::Closing);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(accept(entrance, Rc::clone(&worker), 0))
        .await
        .expect("nothing fails");
    // The other worker may be gone: it is handed nothing.
    assert_eq!(worker.crowd.connections.get(), clients.len());
}

#[tokio::test]
async fn what_one_worker_accepts_is_shared_with_another() {
    let Site {
        entrances,
        socket,
        mut arrivals,
    } = Site::plain(2);
    let clients = connect(&socket, 200);
    let local = tokio::task::LocalSet::new();
    let [first, second] = [&entrances[0], &entrances[1]];
    let accepting = accept(Rc::clone(first), first.worker(), 0);
    let taking = Rc::clone(second).take_arrivals(arrivals.remove(1));
    let (accepting, taking) = (local.spawn_local(accepting), local.spawn_local(taking));
    let counts = || [first, second].map(|entrance| entrance.worker().crowd.connections.get());
    let shared_out = async {
        while counts().iter().sum::<usize>() < clients.len() {
            tokio::task::yield_now().await;
        }
    };
    local.run_until(shared_out).await;
    assert!(
        counts().iter().all(|n| (85..=115).contains(n)),
        "{:?}",
        counts()
    );
    first.worker().shared.drain.advance(Phase::Closing);
    for entrance in &entrances {
        entrance.worker().deadlines.wake_all();
    }
    let ended = local
        .run_until(async { (accepting.await, taking.await) })
        .await;
    assert!(matches!(ended, (Ok(Ok(())), Ok(()))), "{ended:?}");
    assert_eq!(
        counts().iter().sum::<usize>(),
        clients.len(),
        "none is lost"
    );
}

/// Makes the handshake and a request; the head of the response.
async fn ask(client: std::net::TcpStream, connector: TlsConnector) -> (String, impl Sized) {
    client.set_nonblocking(true).expect("it is a socket");
    let tcp = TcpStream::from_std(client).expect("it is a socket");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let mut tls = connector.connect(name, tcp).await.expect("it is TLS");
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    tls.write_all(request).await.expect("it is open");
    tls.flush().await.expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.expect("it is answered"));
    }
    (String::from_utf8(head).expect("it is text"), tls)
}

/// A burst of TLS clients, and a drain that begins at any moment of their being accepted and
/// handed over: each is served, at the worker that it is seated at.
#[tokio::test]
async fn whoever_was_connected_before_a_drain_is_served_over_tls() {
    let (server, client) = fixture::pair(rustls::DEFAULT_VERSIONS);
    let (server, connector) = (Arc::new(server), TlsConnector::from(Arc::new(client)));
    for turns in [None, Some(0), Some(1), Some(2), Some(3), Some(5), Some(8)] {
        let Site {
            entrances,
            socket,
            arrivals,
        } = Site::new(2, Some(Arc::clone(&server)));
        let clients = connect(&socket, 150);
        let all = clients.len();
        let local = tokio::task::LocalSet::new();
        let mut doors = Vec::new();
        for (entrance, arrivals) in entrances.iter().zip(arrivals) {
            doors.push(local.spawn_local(Rc::clone(entrance).take_arrivals(arrivals)));
        }
        let accepting = [0, 1].map(|n: usize| {
            let entrance = Rc::clone(&entrances[n]);
            let worker = entrance.worker();
            local.spawn_local(accept(entrance, worker, 0))
        });
        let drain = Arc::clone(&entrances[0].worker().shared.drain);
        let close = || {
            drain.advance(Phase::Closing);
            for entrance in &entrances {
                entrance.worker().deadlines.wake_all();
            }
        };
        let served = async {
            if let Some(turns) = turns {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                close();
            }
            let asking = clients.into_iter().map(|c| ask(c, connector.clone()));
            futures_util::future::join_all(asking).await
        };
        let served = tokio::time::timeout(Duration::from_secs(20), local.run_until(served));
        let served = served
            .await
            .unwrap_or_else(|_| panic!("not all are served: {turns:?}"));
        for (head, _) in &served {
            assert!(head.starts_with("HTTP/1.1 404 "), "{turns:?}: {head}");
            let told = head.contains("\r\nConnection: close\r\n");
            assert_eq!(told, turns.is_some(), "{turns:?}: {head}");
        }
        if turns.is_none() {
            let counts = [0, 1].map(|n: usize| entrances[n].worker().crowd.connections.get());
            assert_eq!(counts.iter().sum::<usize>(), all);
            assert!(counts.iter().all(|n| (60..=90).contains(n)), "{counts:?}");
            close();
        }
        let ended = async {
            for accepting in accepting {
                accepting.await.expect("no panic").expect("nothing fails");
            }
            for door in doors {
                door.await.expect("no panic");
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), local.run_until(ended));
        ended.await.expect("the doors close");
    }
}
