//! A client for dynamic updates (RFC 2136), signed (RFC 8945) and with a lease (RFC 9664), and for
//! the few questions that go with them.
//!
//! Asks one server, and that one is authoritative; resolves nothing. An update is believed to be
//! done only when the answer is signed with the same key. `exchange.rs` sends and waits,
//! `failure.rs` puts what went wrong into words. Used by `registrar.rs`. Everything here is
//! cancel-safe in the sense that nothing is left behind here; an update whose answer was not
//! waited for may or may not have been carried out.

mod exchange;
mod failure;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::rdata::{A, AAAA, SRV, TSIG};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::key::{Key, VerifyError};
use super::lease;
use exchange::{Verdict, connected, exchange};
pub use failure::{Failure, Refusal};

/// For how long an answer is waited for before the request goes out again. A server on the same
/// network answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server that takes updates, and the key for it.
#[derive(Debug, Clone)]
pub struct Client {
    server: SocketAddr,
    key: Key,
    patience: Duration,
    clock: fn() -> SystemTime,
}

/// Changes of one zone, in their order, that are made all together or not at all, and on what
/// condition.
#[derive(Debug, Clone)]
pub struct Update {
    zone: Name,
    conditions: Vec<Record>,
    changes: Vec<Record>,
    lease: Option<Duration>,
}

/// An update that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// For how long the server keeps what was added; `None`: until somebody removes it.
    pub lease: Option<Duration>,
}

impl Update {
    /// No changes yet.
    pub fn new(zone: Name) -> Update {
        Update {
            zone,
            conditions: Vec::new(),
            changes: Vec::new(),
            lease: None,
        }
    }

    /// Adds a record; one with the same data is replaced (RFC 2136 section 2.5.1).
    pub fn add(&mut self, record: Record) {
        self.changes.push(record);
    }

    /// Deletes the record of this name with this data, if it is there (section 2.5.4).
    pub fn delete(&mut self, name: Name, data: RData) {
        let mut record = Record::from_rdata(name, 0, data);
        record.dns_class = DNSClass::NONE;
        self.changes.push(record);
    }

    /// Deletes all records of this name and type (section 2.5.2).
    pub fn delete_set(&mut self, name: Name, record_type: RecordType) {
        let mut record = Record::update0(name, 0, record_type);
        record.dns_class = DNSClass::ANY;
        self.changes.push(record);
    }

    /// Nothing is changed unless the name has exactly these addresses: [`Failure::is_condition`]
    /// then (sections 2.4.2 and 2.4.3).
    pub fn require_addresses(&mut self, name: &Name, addresses: &[IpAddr]) {
        for record_type in [RecordType::A, RecordType::AAAA] {
            let of_type = |data: &RData| data.record_type() == record_type;
            let data: Vec<_> = addresses.iter().copied().map(address).collect();
            let records = data.into_iter().filter(of_type);
            let mut records: Vec<_> = records
                .map(|data| Record::from_rdata(name.clone(), 0, data))
                .collect();
            if records.is_empty() {
                let mut none = Record::update0(name.clone(), 0, record_type);
                none.dns_class = DNSClass::NONE;
                records.push(none);
            }
            self.conditions.append(&mut records);
        }
    }

    /// Asks the server to forget what is added after this time, unless it is added again. A
    /// server that knows nothing of leases ignores it.
    pub fn lease(&mut self, lease: Duration) {
        self.lease = Some(lease);
    }

    /// The zone that is changed.
    pub fn zone(&self) -> &Name {
        &self.zone
    }

    /// What must be so, as it goes into the message.
    pub fn conditions(&self) -> &[Record] {
        &self.conditions
    }

    /// What is changed, as it goes into the message.
    pub fn changes(&self) -> &[Record] {
        &self.changes
    }

    /// Signed, as it goes out; with its MAC.
    fn encode(&self, key: &Key, seconds: u64) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let mut zone = Query::query(self.zone.clone(), RecordType::SOA);
        zone.set_query_class(DNSClass::IN);
        // For its identifier, which is random.
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.add_query(zone);
        message.add_answers(self.conditions.iter().cloned());
        message.add_authorities(self.changes.iter().cloned());
        let mut edns = edns();
        if let Some(lease) = self.lease {
            lease::put(&mut edns, lease);
        }
        message.set_edns(edns);
        let too_large = |_| Failure::Unsendable;
        let (signature, _) = key
            .signer()
            .sign_message(&message, seconds)
            .map_err(too_large)?;
        let mac = signature.data.mac.clone();
        message.set_signature(signature);
        Ok((message.to_vec().map_err(too_large)?, mac))
    }
}

impl Client {
    /// A client for this server.
    pub fn new(server: SocketAddr, key: Key) -> Client {
        Client {
            server,
            key,
            patience: PATIENCE,
            clock: SystemTime::now,
        }
    }

    /// The same by another clock. Signatures hold for five minutes on either side.
    pub fn with_clock(self, clock: fn() -> SystemTime) -> Client {
        Client { clock, ..self }
    }

    /// The same with another wait for an answer, before the request goes out again.
    pub fn with_patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// The address from which this host reaches the server, by the routing table.
    pub async fn local_address(&self) -> Result<IpAddr, Failure> {
        let server = self.server;
        let socket = connected(server).await;
        let address = socket.and_then(|socket| socket.local_addr());
        address
            .map(|address| address.ip())
            .map_err(|source| Failure::Network { server, source })
    }

    /// The server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Has an update carried out. Takes a few seconds at most; the same bytes are sent again when
    /// nothing comes back, so that a server can tell a repetition from a second update.
    pub async fn update(&self, update: &Update) -> Result<Accepted, Failure> {
        let seconds = self.seconds();
        let (request, mac) = update.encode(&self.key, seconds)?;
        let judge = |bytes: &[u8]| self.judge(update, &request, &mac, seconds, bytes);
        exchange(self.server, self.patience, &request, judge).await
    }

    /// The SRV records that the server has for a name; none if it has no such name.
    pub async fn srv(&self, name: &Name) -> Result<Vec<SRV>, Failure> {
        let found = self.records(name, RecordType::SRV).await?;
        let records = found.into_iter().filter_map(|data| match data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        Ok(records.collect())
    }

    /// The addresses that the server has for a name, of both families; none if it has no such
    /// name.
    pub async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, Failure> {
        let (v4, v6) = tokio::try_join!(
            self.records(name, RecordType::A),
            self.records(name, RecordType::AAAA)
        )?;
        let both = v4.into_iter().chain(v6);
        Ok(both.filter_map(|data| data.ip_addr()).collect())
    }

    async fn records(&self, name: &Name, record_type: RecordType) -> Result<Vec<RData>, Failure> {
        let answer = self.ask(name, record_type).await?;
        let code = answer.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            let server = self.server;
            return Err(Failure::Code { server, code });
        }
        let records = answer.answers.into_iter().filter(|r| r.name == *name);
        Ok(records.map(|record| record.data).collect())
    }

    /// The zone that holds `name`: that of the first SOA record that the server shows for the name
    /// or one above it. At most one question per label.
    pub async fn zone_of(&self, name: &Name) -> Result<Name, Failure> {
        let mut candidate = name.clone();
        let mut code = ResponseCode::NoError;
        while !candidate.is_root() {
            // A server that has just started fails for a name and knows the zone all the same.
            let answer = self.ask(&candidate, RecordType::SOA).await?;
            if answer.metadata.response_code != ResponseCode::NoError {
                code = answer.metadata.response_code;
            }
            let mut shown = answer.answers.iter().chain(&answer.authorities);
            let zone =
                shown.find(|r| r.record_type() == RecordType::SOA && r.name.zone_of(&candidate));
            // The root's is what a server shows that resolves for others.
            if let Some(zone) = zone.filter(|zone| !zone.name.is_root()) {
                let mut zone = zone.name.to_lowercase();
                zone.set_fqdn(true);
                return Ok(zone);
            }
            candidate = candidate.base_name();
        }
        Err(Failure::NoZone {
            server: self.server,
            name: name.clone(),
            code,
        })
    }

    async fn ask(&self, name: &Name, record_type: RecordType) -> Result<Message, Failure> {
        ask(self.server, self.patience, name, record_type).await
    }

    /// What an answer to an update says, if it is one.
    fn judge(
        &self,
        update: &Update,
        request: &[u8],
        mac: &[u8],
        seconds: u64,
        bytes: &[u8],
    ) -> Verdict<Accepted> {
        let Some(answer) = response_to(request, bytes) else {
            return Verdict::Ignore(None);
        };
        if answer.metadata.truncation {
            return Verdict::Truncated;
        }
        let code = answer.metadata.response_code;
        let tsig = answer.signature.as_ref().map(|record| &record.data);
        let verified = self.key.verify(bytes, Some(mac));
        // RFC 8945 section 5.2.3: an answer of another time is no answer to this. One that speaks
        // of BADTIME repeats ours.
        let verified = verified.and_then(|tsig| match on_time(&tsig, seconds) {
            true => Ok(()),
            false => Err(VerifyError::BadSignature),
        });
        match (code, verified) {
            (ResponseCode::NoError, Ok(())) => Verdict::Done(Ok(Accepted {
                lease: lease::of(answer.edns.as_ref()),
            })),
            (ResponseCode::NoError, Err(doubt)) => Verdict::Ignore(Some(doubt)),
            // Refusals come unsigned where the server lacks the key (section 5.3.2). Whoever
            // forges one gains no more than by dropping the packet.
            (code, _) => Verdict::Done(Err(Failure::Refused(Box::new(Refusal {
                code,
                tsig: tsig.and_then(|tsig| tsig.error),
                clocks_differ: tsig.and_then(|tsig| clocks_differ(tsig, seconds)),
                server: self.server,
                zone: update.zone.clone(),
                key: self.key.name().clone(),
                algorithm: self.key.algorithm().to_string(),
            })))),
        }
    }

    fn seconds(&self) -> u64 {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        // A clock from before 1970 is refused by the server, with words about it.
        since.map_or(0, |since| since.as_secs())
    }
}

/// Asks one server one question, over TCP where UDP has no room for the answer, whatever its code
/// is. `patience` is how long an answer is waited for before the question goes out again, twice.
/// Cancel-safe.
pub async fn ask(
    server: SocketAddr,
    patience: Duration,
    name: &Name,
    record_type: RecordType,
) -> Result<Message, Failure> {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), record_type));
    message.set_edns(edns());
    let request = message.to_vec().map_err(|_| Failure::Unsendable)?;
    let judge = |bytes: &[u8]| match response_to(&request, bytes) {
        Some(answer) if answer.queries != message.queries => Verdict::Ignore(None),
        Some(answer) if answer.metadata.truncation => Verdict::Truncated,
        Some(answer) => Verdict::Done(Ok(answer)),
        None => Verdict::Ignore(None),
    };
    exchange(server, patience, &request, judge).await
}

/// A record's data.
pub(super) fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// Without it, a server may cut its answer at 512 bytes.
fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
    edns
}

/// A message that answers the request, by its identifier and kind.
fn response_to(request: &[u8], bytes: &[u8]) -> Option<Message> {
    // Before anything else is read of it: strangers may send anything.
    if bytes.get(..2)? != request.get(..2)? {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let asked = (request.get(2)? >> 3) & 0b1111;
    let answers = message.metadata.message_type == MessageType::Response
        && u8::from(message.metadata.op_code) == asked;
    answers.then_some(message)
}

fn on_time(tsig: &TSIG, seconds: u64) -> bool {
    tsig.error == Some(TsigError::BadTime) || tsig.time.abs_diff(seconds) <= tsig.fudge.into()
}

/// By how much the server's clock is off ours, if it complains of that and says what it has
/// (section 5.2.3: six octets).
fn clocks_differ(tsig: &TSIG, seconds: u64) -> Option<Duration> {
    let octets: [u8; 6] = tsig.other.as_slice().try_into().ok()?;
    let mut theirs = [0; 8];
    theirs[2..].copy_from_slice(&octets);
    (tsig.error == Some(TsigError::BadTime))
        .then(|| Duration::from_secs(u64::from_be_bytes(theirs).abs_diff(seconds)))
}

#[cfg(test)]
mod tests;
