//! What a registration needs to be told on the command line; `backend` takes the same.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hickory_proto::rr::Name;

use crate::dns_server::key::Key;
use crate::dns_server::registrar::{
    Registrar, Registration, ServerAddress, absolute, default_target,
};

/// Where and how to register.
#[derive(Debug, clap::Args)]
pub struct RegistrationOptions {
    /// DNS server that takes updates, by address or name; port 53 unless given
    #[arg(long, value_name = "HOST[:PORT]")]
    server: ServerAddress,
    /// File with the TSIG key, as tsig-keygen writes it; it may come later
    #[arg(long, value_name = "FILE")]
    tsig_file: PathBuf,
    /// Share of the requests, compared with others of the same priority
    #[arg(long, value_name = "N", default_value_t = 1)]
    weight: u16,
    /// Lower goes first; higher ones stand by
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u16,
    /// How long balancers may believe an answer, in whole seconds
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = ttl)]
    ttl: Duration,
    /// The server forgets what was not renewed for so long; it may grant less
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = lease)]
    lease: Duration,
    /// Zone to change; the server is asked unless given
    #[arg(long, value_name = "NAME", value_parser = absolute)]
    zone: Option<Name>,
    /// Host that the record points to: the name of this host, below NAME without its _labels,
    /// unless given. Its addresses are set with it if it lies in the zone
    #[arg(long, value_name = "HOST", value_parser = absolute)]
    target: Option<Name>,
    /// Address of that host; may be repeated. The one from which this host reaches the server
    /// unless given
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
}

impl RegistrationOptions {
    /// The TTL of the records.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Registers this address where none was given: that of a backend that listens on no other.
    pub fn address_unless_given(&mut self, address: IpAddr) {
        if self.address.is_empty() {
            self.address.push(address);
        }
    }

    /// What keeps `name` registered with `port`. A key file that is not there is waited for; one
    /// that holds no key is an error.
    pub fn registrar(&self, name: &Name, port: NonZeroU16) -> anyhow::Result<Registrar> {
        if let Err(error) = Key::read(&self.tsig_file)
            && !error.is_missing()
        {
            return Err(error.into());
        }
        if let Some(zone) = &self.zone
            && !zone.zone_of(name)
        {
            bail!("{name} does not lie in the zone {zone}");
        }
        let target = match &self.target {
            Some(target) => target.clone(),
            None => {
                let uname = rustix::system::uname();
                let host = uname.nodename().to_string_lossy();
                let target = default_target(&host, name).map_err(anyhow::Error::msg);
                target.context("no target for the record; --target gives one")?
            }
        };
        let registration = Registration {
            priority: self.priority,
            weight: self.weight,
            ttl: self.ttl,
            lease: self.lease,
            zone: self.zone.clone(),
            addresses: self.address.clone(),
            ..Registration::new(name.clone(), port, target)
        };
        Ok(Registrar::new(
            registration,
            self.server.clone(),
            &self.tsig_file,
        ))
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    // RFC 2181 section 8.
    seconds(text, 0, i32::MAX as u64)
}

fn lease(text: &str) -> Result<Duration, String> {
    seconds(text, 1, u32::MAX.into())
}

/// Both travel as whole seconds.
fn seconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.subsec_nanos() != 0 || !(least..=most).contains(&time.as_secs()) {
        return Err(format!("whole seconds, {least}s to {most}s"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds() {
        let time = |seconds| Ok(Duration::from_secs(seconds));
        assert_eq!(ttl("0s"), time(0));
        assert_eq!(ttl("2m"), time(120));
        assert_eq!(lease("30s"), time(30));
        assert!(ttl("1500ms").is_err());
        assert!(ttl("2147483648s").is_err());
        assert!(lease("0s").is_err());
        assert!(lease("soon").is_err());
    }
}
