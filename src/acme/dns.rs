//! The proof by DNS (RFC 8555 §8.4): a TXT record that a dynamic update puts into the zone, and takes
//! out again.

use std::str::FromStr;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record};

use crate::config::AcmeDns;
use crate::dns_server::client::{Client, Failure, Update};
use crate::dns_server::key::{Key, KeyError};

/// Seconds for which resolvers may keep the record: it is new each time.
const TTL: u32 = 1;

/// A record that is in the zone.
#[derive(Debug)]
pub struct Proof {
    client: Client,
    zone: Name,
    name: Name,
    value: RData,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProofError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Update(#[from] Failure),
    #[error("not a name for DNS: {0}")]
    Name(#[from] ProtoError),
}

impl Proof {
    /// Puts it there. `name`: what is to be proven, of a wildcard what follows the star.
    pub async fn put(dns: &AcmeDns, name: &str, value: String) -> Result<Proof, ProofError> {
        let key = Key::read(&dns.key_file)?.key;
        let client = Client::new(dns.server, key);
        let name = Name::from_str(&format!("_acme-challenge.{name}."))?;
        let zone = client.zone_of(&name).await?;
        let value = RData::TXT(TXT::new(vec![value]));
        let mut update = Update::new(zone.clone());
        update.add(Record::from_rdata(name.clone(), TTL, value.clone()));
        client.update(&update).await?;
        Ok(Proof {
            client,
            zone,
            name,
            value,
        })
    }

    /// Takes it out again.
    pub async fn withdraw(self) -> Result<(), ProofError> {
        let mut update = Update::new(self.zone);
        update.delete(self.name, self.value);
        self.client.update(&update).await?;
        Ok(())
    }
}
