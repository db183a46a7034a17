//! Another backend that has registered our target and port, as replicas do that are given one host
//! name: each registration puts one's address in the place of the other's. Nothing can be done
//! about it here, but somebody can be told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::rdata::SRV;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Registration;
use super::predecessors::over_tcp;

/// Addresses that are tried at most.
const ADDRESSES: usize = 8;

/// For a rival to take a connection. An address that nobody has any more says nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// The first of the `foreign` addresses of our target at which another backend listens on our
/// port. What stands in the zone is not enough to say so: a predecessor that was killed leaves
/// its record, and one that left may leave its address until that lapses. Takes [`PATIENCE`] at
/// most; cancel-safe.
pub(super) async fn rival(
    registration: &Registration,
    registered: &[SRV],
    foreign: &[IpAddr],
) -> Option<IpAddr> {
    let own = registration.srv();
    let same = |srv: &SRV| srv.target == own.target && srv.port == own.port;
    if !over_tcp(&registration.name) || !registered.iter().any(same) {
        return None;
    }
    let mut tries = JoinSet::new();
    for address in foreign.iter().take(ADDRESSES) {
        let there = SocketAddr::new(*address, own.port);
        tries.spawn(async move {
            let found = timeout(PATIENCE, other_listens(there)).await;
            matches!(found, Ok(Ok(true))).then(|| there.ip())
        });
    }
    while let Some(tried) = tries.join_next().await {
        if let Ok(Some(rival)) = tried {
            return Some(rival);
        }
    }
    None
}

/// Somebody takes connections there, and not this host, which may have been registered with
/// another of its addresses: it would connect from the very address that it connects to.
async fn other_listens(address: SocketAddr) -> io::Result<bool> {
    let stream = TcpStream::connect(address).await?;
    Ok(stream.local_addr()?.ip() != address.ip())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::absolute;
    use super::*;

    #[tokio::test]
    async fn who_is_a_rival() {
        // Connections to it come from 127.0.0.1, as if from another host.
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let itself = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let name = |text: &str| absolute(text).unwrap();
        let (tcp, udp) = ("_http._tcp.svc.test", "_http._udp.svc.test");
        let srv = |port, target| SRV::new(0, 9, port, name(target));
        let same = srv(port, "B1.svc.test");
        let rows = [
            ("listens", tcp, &same, "127.0.0.2", true),
            ("restarted, killed before", tcp, &same, "127.0.0.3", false),
            ("this host", tcp, &same, "127.0.0.1", false),
            (
                "another port",
                tcp,
                &srv(1, "b1.svc.test"),
                "127.0.0.2",
                false,
            ),
            (
                "another target",
                tcp,
                &srv(port, "b2.svc.test"),
                "127.0.0.2",
                false,
            ),
            ("not over TCP", udp, &same, "127.0.0.2", false),
        ];
        for (row, of, registered, foreign, is_rival) in rows {
            let ours = port.try_into().unwrap();
            let registration = Registration::new(name(of), ours, name("b1.svc.test"));
            let foreign = [foreign.parse().unwrap()];
            let found = rival(&registration, std::slice::from_ref(registered), &foreign).await;
            assert_eq!(found, is_rival.then_some(foreign[0]), "{row}");
        }
        drop(itself);
    }
}
