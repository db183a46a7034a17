//! A name server for 500 backends in 3 tiers, whose weights change every second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use evenkeel::dns_server::{self, SrvData, Zone};

pub const SERVICE: &str = "_http._tcp.web.compare.test";

/// Backends of the zone.
pub const BACKENDS: u16 = 500;

/// Tiers, by priority 0, 10, 20.
const TIERS: u16 = 3;

const ORIGIN: &str = "compare.test";
const TTL: Duration = Duration::from_secs(1);

/// All of them, each an address of its own in 127/8.
pub fn backends(port: u16) -> Vec<SocketAddr> {
    (0..BACKENDS)
        .map(|n| SocketAddr::new(address(n), port))
        .collect()
}

/// Serves the zone, until it is ended. `port` is that of the backends.
pub fn serve(at: SocketAddr, port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let zone = Zone::new(ORIGIN)?;
        for n in 0..BACKENDS {
            zone.set_addresses(&target(n), Duration::from_secs(60), &[address(n)])?;
        }
        zone.set_srv(SERVICE, TTL, &records(0, port))?;
        let (udp, tcp) = dns_server::bind(at).await?;
        let _server = dns_server::serve(udp, tcp, zone.clone())?;
        let mut ticks = tokio::time::interval(TTL);
        for change in 1.. {
            ticks.tick().await;
            zone.set_srv(SERVICE, TTL, &records(change, port))?;
        }
        Ok(())
    })
}

/// The records after so many changes: each weight moves on, from 10 to 99 steps of 256 (HAProxy sees no smaller ones).
fn records(change: u32, port: u16) -> Vec<SrvData> {
    let record = |n: u16| {
        let weight = 256 * (10 + (u32::from(n) * 7 + change * 13) % 90);
        let weight = u16::try_from(weight).unwrap_or(u16::MAX);
        SrvData::new(n % TIERS * 10, weight, port, &target(n))
    };
    (0..BACKENDS).map(record).collect()
}

fn target(n: u16) -> String {
    format!("b{n}.{ORIGIN}")
}

fn address(n: u16) -> IpAddr {
    let (network, host) = (n / 250, n % 250 + 1);
    let part = |value: u16| u8::try_from(value).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 9, part(network), part(host)))
}
