//! Records that ours takes the place of: what a predecessor of this backend has left behind.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::SRV;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Registration;

/// Records of our target with other ports that are looked after at most.
const NEIGHBOURS: usize = 8;

/// For a neighbour on this host to take a connection.
const PATIENCE: Duration = Duration::from_millis(300);

/// Those of the `others` that go when ours comes. That is each one of our target and port. One of
/// our target with another port may be a second backend on this host, or what was left by a
/// predecessor: when we begin (`first`), it goes if nobody listens there. Later it stays: whoever
/// came after us may not listen yet.
pub(super) async fn predecessors(
    registration: &Registration,
    others: Vec<SRV>,
    addresses: &[IpAddr],
    first: bool,
) -> Vec<SRV> {
    let own = registration.srv();
    let others = others
        .into_iter()
        .filter(|srv| srv.target == own.target && *srv != own);
    let (mut gone, neighbours): (Vec<_>, Vec<_>) = others.partition(|srv| srv.port == own.port);
    let Some(address) = addresses.first().filter(|_| first) else {
        return gone;
    };
    if over_tcp(&registration.name) {
        for srv in neighbours.into_iter().take(NEIGHBOURS) {
            if nobody_listens((*address, srv.port).into()).await {
                gone.push(srv);
            }
        }
    }
    gone
}

/// `_service._tcp` (RFC 2782).
fn over_tcp(name: &Name) -> bool {
    let protocol = name.iter().nth(1);
    protocol.is_some_and(|label| label.eq_ignore_ascii_case(b"_tcp"))
}

async fn nobody_listens(address: SocketAddr) -> bool {
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::super::absolute;
    use super::*;

    #[tokio::test]
    async fn who_goes() {
        let name = |text: &str| absolute(text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap().port();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = closed.local_addr().unwrap().port();
        drop(closed);
        let srv = |weight, port, target: &str| SRV::new(0, weight, port, name(target));
        let (b1, b2) = ("b1.svc.test", "b2.svc.test");
        let own = srv(1, 8080, b1);
        let rows = [
            ("ours", own.clone(), "_http._tcp.svc.test", true, false),
            (
                "another weight",
                srv(2, 8080, "B1.svc.test"),
                "_http._tcp.svc.test",
                false,
                true,
            ),
            (
                "another target",
                srv(2, 8080, b2),
                "_http._tcp.svc.test",
                true,
                false,
            ),
            (
                "a dead port",
                srv(1, dead, b1),
                "_http._TCP.svc.test",
                true,
                true,
            ),
            (
                "a dead port, later",
                srv(1, dead, b1),
                "_http._tcp.svc.test",
                false,
                false,
            ),
            (
                "a live port",
                srv(1, alive, b1),
                "_http._tcp.svc.test",
                true,
                false,
            ),
            (
                "a dead port of UDP",
                srv(1, dead, b1),
                "_dns._udp.svc.test",
                true,
                false,
            ),
            ("no protocol", srv(1, dead, b1), "svc.test", true, false),
        ];
        let here = [Ipv4Addr::LOCALHOST.into()];
        for (row, other, of, first, goes) in rows {
            let registration = Registration::new(name(of), 8080.try_into().unwrap(), name(b1));
            let gone = predecessors(&registration, vec![other.clone()], &here, first).await;
            assert_eq!(gone.contains(&other), goes, "{row}");
        }
    }
}
