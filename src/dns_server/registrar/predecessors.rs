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

/// Those of the `others` that go in the update in which ours comes: each one of our target and
/// port with another weight or priority.
pub(super) fn replaced(registration: &Registration, others: &[SRV]) -> Vec<SRV> {
    let own = registration.srv();
    let replaced = neighbours(&own, others).filter(|srv| srv.port == own.port);
    replaced.cloned().collect()
}

/// Those of the `others` that nobody else will remove, where the server knows no leases: each one
/// of our target with another port on which nobody listens at `address`, our own. It may also be a
/// second backend on this host that does not listen yet: its next renewal brings it back. So this
/// is for the start alone, for whoever comes after us is likely not to listen yet.
pub(super) async fn abandoned(
    registration: &Registration,
    others: &[SRV],
    address: IpAddr,
) -> Vec<SRV> {
    let own = registration.srv();
    let mut gone = Vec::new();
    if !over_tcp(&registration.name) {
        return gone;
    }
    let elsewhere = neighbours(&own, others).filter(|srv| srv.port != own.port);
    for srv in elsewhere.take(NEIGHBOURS) {
        if nobody_listens((address, srv.port).into()).await {
            gone.push(srv.clone());
        }
    }
    gone
}

/// Those of our target.
fn neighbours<'a>(own: &'a SRV, others: &'a [SRV]) -> impl Iterator<Item = &'a SRV> {
    let of_target = move |srv: &&SRV| srv.target == own.target && *srv != own;
    others.iter().filter(of_target)
}

/// `_service._tcp` (RFC 2782).
pub(super) fn over_tcp(name: &Name) -> bool {
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
        let (tcp, udp) = ("_http._TCP.svc.test", "_dns._udp.svc.test");
        let rows = [
            // Which, under which name, is replaced, is abandoned.
            ("ours", own.clone(), tcp, false, false),
            (
                "another weight",
                srv(2, 8080, "B1.svc.test"),
                tcp,
                true,
                false,
            ),
            ("another target", srv(2, dead, b2), tcp, false, false),
            ("a dead port", srv(1, dead, b1), tcp, false, true),
            ("a live port", srv(1, alive, b1), tcp, false, false),
            ("a dead port of UDP", srv(1, dead, b1), udp, false, false),
            ("no protocol", srv(1, dead, b1), "svc.test", false, false),
        ];
        for (row, other, of, is_replaced, is_abandoned) in rows {
            let registration = Registration::new(name(of), 8080.try_into().unwrap(), name(b1));
            let others = [other];
            let replaced = replaced(&registration, &others);
            assert_eq!(!replaced.is_empty(), is_replaced, "{row}");
            let abandoned = abandoned(&registration, &others, Ipv4Addr::LOCALHOST.into()).await;
            assert_eq!(!abandoned.is_empty(), is_abandoned, "{row}");
        }
    }
}
