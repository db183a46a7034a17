//! Where clients come in: sockets and the accept loop.
//!
//! One socket per address, given to every worker as a duplicated descriptor, so that no queue is
//! lost when a worker goes and a second instance on the same port is refused. `entrance` says what
//! becomes of an accepted connection.

pub mod entrance;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use entrance::Entrance;

use crate::proxy::drain::Phase;
use crate::upstream::connect::{is_exhaustion, notice_dead_peers};

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;

/// After an accept that failed for want of descriptors or memory: time for others to close some.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Binds a listening socket. An IPv6 wildcard takes IPv4 as well, or stands for the IPv4 one on a
/// host without IPv6.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    if address.is_ipv6() && address.ip().is_unspecified() {
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        return bind_one(address).or_else(|e| {
            match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => bind_one(v4),
                _ => Err(e),
            }
        });
    }
    bind_one(address)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Not SO_REUSEPORT: two instances on one port are a mistake that has to show.
    socket.set_reuse_address(true)?;
    // Once here instead of six system calls for each accepted connection.
    notice_dead_peers((&socket).into())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener as a worker is given it.
#[derive(Debug)]
pub struct Listening {
    /// Index in the configuration.
    pub index: usize,
    /// The worker's own descriptor of the shared socket.
    pub socket: std::net::TcpListener,
}

/// Accepts until a drain closes the listener; then takes what the kernel has completed already.
pub async fn accept(entrance: Rc<Entrance>, listening: Listening) -> io::Result<()> {
    let Listening { index, socket } = listening;
    let socket = TcpListener::from_std(socket)?;
    let worker = &entrance.worker;
    let timer = worker.deadlines.timer();
    loop {
        let accepted = poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending if worker.shared.drain.phase() >= Phase::Closing => Poll::Ready(None),
            // The timer is never set: it is there to be woken when the phase changes.
            Poll::Pending => timer.poll_expired(cx).map(|_| None),
        })
        .await;
        match accepted {
            None => {
                return take_the_rest(socket, |stream, address| {
                    entrance.welcome(stream, address, index);
                });
            }
            Some(Ok((stream, address))) => entrance.welcome(stream, address, index),
            Some(Err(e)) if is_exhaustion(&e) => {
                tracing::warn!(error = %e, "accept failed; waiting for descriptors");
                tokio::time::sleep(EXHAUSTED).await;
            }
            // The client was gone before we looked.
            Some(Err(e)) => tracing::debug!(error = %e, "accept failed"),
        }
    }
}

/// Takes the connections that the kernel has completed, and closes the socket. The kernel itself
/// is asked: what the runtime knows of the socket may be older, and it ends a task's turn after
/// so many connections.
fn take_the_rest(socket: TcpListener, admit: impl Fn(TcpStream, SocketAddr)) -> io::Result<()> {
    let socket = socket.into_std()?;
    // Whoever connects meanwhile could keep us here for ever.
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((stream, address)) => {
                stream.set_nonblocking(true)?;
                admit(TcpStream::from_std(stream)?, address);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if is_exhaustion(&e) => return Err(e),
            // The client was gone before we looked.
            Err(e) => tracing::debug!(error = %e, "accept failed"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;
    use crate::proxy::drain::Drain;
    use crate::proxy::seating::Seating;
    use crate::proxy::worker::{Shared, Worker};
    use crate::router::Router;
    use crate::telemetry::access::AccessLog;
    use crate::telemetry::metrics::Metrics;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    const ROOM: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
        [limits]\nmax_connections = 1000\n";

    /// Workers with one plain listener, its socket, and what they are handed over by.
    fn workers(count: usize) -> (Vec<Rc<Entrance>>, std::net::TcpListener, Vec<Arrivals>) {
        workers_with(count, None)
    }

    /// The same, with TLS if there is a configuration for it.
    fn workers_with(
        count: usize,
        tls: Option<Arc<ServerConfig>>,
    ) -> (Vec<Rc<Entrance>>, std::net::TcpListener, Vec<Arrivals>) {
        let config = Arc::new(from_toml_str(ROOM).expect("it is right"));
        let socket = bind(config.listeners[0].address).expect("loopback has ports");
        let (seating, arrivals) = Seating::new(count);
        let shared = Shared {
            router: Arc::new(Router::new(&config)),
            snapshots: Vec::new(),
            drain: Drain::new(),
            events: tokio::sync::mpsc::channel(1).0,
            open: Arc::default(),
            seating,
            config,
        };
        let metrics = Metrics::new(Vec::new(), vec!["front".into()]);
        let entrances = (0..count).map(|index| {
            let shared = shared.clone();
            let worker = Worker::new(index, shared, metrics.shard(), AccessLog::off());
            Entrance::new(worker, vec![tls.clone()])
        });
        (entrances.collect(), socket, arrivals)
    }

    type Arrivals = tokio::sync::mpsc::Receiver<crate::proxy::seating::Arrival>;

    fn connect(to: &std::net::TcpListener, count: usize) -> Vec<std::net::TcpStream> {
        let address = to.local_addr().expect("it is bound");
        let connect = |_| std::net::TcpStream::connect(address).expect("the backlog has room");
        (0..count).map(connect).collect()
    }

    #[test]
    fn what_is_accepted_notices_dead_peers() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = bind(address.parse().expect("it is right")).expect("loopback has ports");
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
        let (entrances, socket, _arrivals) = workers(2);
        // More than tokio lets a task take in one turn.
        let clients = connect(&socket, 200);
        let entrance = Rc::clone(&entrances[0]);
        let worker = &entrances[0].worker;
        worker.shared.drain.advance(Phase::Closing);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(accept(entrance, Listening { index: 0, socket }))
            .await
            .expect("nothing fails");
        // The other worker may be gone: it is handed nothing.
        assert_eq!(worker.connections.get(), clients.len());
    }

    #[tokio::test]
    async fn what_one_worker_accepts_is_shared_with_another() {
        let (entrances, socket, mut arrivals) = workers(2);
        let clients = connect(&socket, 200);
        let local = tokio::task::LocalSet::new();
        let [first, second] = [&entrances[0], &entrances[1]];
        let accepting = accept(Rc::clone(first), Listening { index: 0, socket });
        let taking = Rc::clone(second).take_arrivals(arrivals.remove(1));
        let (accepting, taking) = (local.spawn_local(accepting), local.spawn_local(taking));
        let counts = || [first, second].map(|entrance| entrance.worker.connections.get());
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
        first.worker.shared.drain.advance(Phase::Closing);
        for entrance in &entrances {
            entrance.worker.deadlines.wake_all();
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

    /// What both ends are configured with.
    fn tls() -> (Arc<ServerConfig>, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("the name is sound");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let certificate = made.cert.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("they belong together");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("it is a certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client).into())
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
        let (server, connector) = tls();
        for turns in [None, Some(0), Some(1), Some(2), Some(3), Some(5), Some(8)] {
            let (entrances, socket, arrivals) = workers_with(2, Some(Arc::clone(&server)));
            let clients = connect(&socket, 150);
            let all = clients.len();
            let local = tokio::task::LocalSet::new();
            let other = socket.try_clone().expect("there are descriptors");
            let mut doors = Vec::new();
            for (entrance, arrivals) in entrances.iter().zip(arrivals) {
                doors.push(local.spawn_local(Rc::clone(entrance).take_arrivals(arrivals)));
            }
            let accepting = [(&entrances[0], socket), (&entrances[1], other)];
            let accepting = accepting.map(|(entrance, socket)| {
                let listening = Listening { index: 0, socket };
                local.spawn_local(accept(Rc::clone(entrance), listening))
            });
            let drain = &entrances[0].worker.shared.drain;
            let close = || {
                drain.advance(Phase::Closing);
                for entrance in &entrances {
                    entrance.worker.deadlines.wake_all();
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
                let counts = [0, 1].map(|n: usize| entrances[n].worker.connections.get());
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
}
