//! One message in, one message out: sizes, EDNS (RFC 6891), truncation (RFC 2181), signatures.
//!
//! `sockets.rs` calls it with the octets as they came. What is asked goes to the zone, what is to
//! be changed to the registry. Never waits: where an answer must not leave before the disk has it,
//! [`Reply::durable_at`] says so.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use tokio::time::Instant;

use super::lease;
use super::message::{HEADER, Outgoing};
use super::quota::Surplus;
use super::records::Answer;
use super::registry::Registry;
use super::signature::{Sender, Signing, unix_now};
use super::skim;
use super::zone::Zone;

/// Answers for a zone.
#[derive(Debug)]
pub(super) struct Responder {
    zone: Zone,
    /// `None`: nobody may change it.
    pub(super) registry: Option<Registry>,
    /// Held for one look.
    surplus: Mutex<Surplus>,
}

/// What a message came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) octets: Vec<u8>,
    /// Not before the zone's changes up to this one are on disk.
    pub(super) durable_at: Option<u64>,
}

/// A message and how it came.
struct Asked<'a> {
    request: &'a Message,
    octets: &'a [u8],
    client: IpAddr,
    /// Octets that the answer may have.
    limit: usize,
    now: Instant,
}

impl Responder {
    pub(super) fn new(zone: Zone, registry: Option<Registry>) -> Arc<Responder> {
        Arc::new(Responder {
            zone,
            registry,
            surplus: Mutex::default(),
        })
    }

    /// The reply to a message, if it deserves one.
    pub(super) fn reply(
        &self,
        octets: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Reply> {
        // An answer to an answer could go on for ever.
        let flags = octets.get(2)?;
        if octets.len() < HEADER || flags & 0x80 != 0 {
            return None;
        }
        let now = Instant::now();
        let decoded = skim::is_sound(octets).then(|| Message::from_vec(octets));
        let Some(Ok(request)) = decoded else {
            return Some(Reply {
                octets: header_alone(octets, ResponseCode::FormErr),
                durable_at: None,
            });
        };
        let limit = match transport {
            Transport::Udp => payload(&request),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let asked = Asked {
            request: &request,
            octets,
            client: client.ip(),
            limit,
            now,
        };
        let (mut answer, durable_at, signing) = self.answer(&asked);
        let room = limit.saturating_sub(signing.as_ref().map_or(0, Signing::room));
        let mut whole = answer.write(room)?;
        if let Some(signing) = signing {
            signing.sign(&mut whole)?;
        }
        let more = whole.len().saturating_sub(octets.len());
        if transport == Transport::Udp && !self.may_send(client.ip(), more, now) {
            whole = header_alone(octets, answer.metadata.response_code);
            whole[2] |= TRUNCATED;
        }
        Some(Reply {
            octets: whole,
            durable_at,
        })
    }

    /// Waits until a reply may leave; false: it has to be another one.
    pub(super) async fn durable(&self, generation: u64) -> bool {
        match &self.registry {
            Some(registry) => registry.durable(generation).await,
            None => true,
        }
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.zone.read().recovering
    }

    fn may_send(&self, client: IpAddr, more: usize, now: Instant) -> bool {
        let mut surplus = self.surplus.lock().unwrap_or_else(PoisonError::into_inner);
        surplus.allows(client, more, now)
    }

    fn answer(&self, asked: &Asked<'_>) -> (Outgoing, Option<u64>, Option<Signing>) {
        let Asked {
            request,
            octets,
            client,
            limit,
            now,
        } = *asked;
        let mut answer = empty(request);
        let keys = self.registry.as_ref().map_or(&[][..], Registry::keys);
        let (sender, signing) = match Sender::of(octets, request, keys, unix_now()) {
            Sender::Anonymous => (None, None),
            Sender::Known { nth, signing } => (Some(nth), Some(signing)),
            Sender::Unproven { why, signing } => {
                answer.metadata.response_code = ResponseCode::NotAuth;
                if let Some(registry) = &self.registry {
                    registry.refuse(ResponseCode::NotAuth, client, None, why, now);
                }
                return (answer, None, Some(signing));
            }
        };
        let mut durable_at = None;
        answer.metadata.response_code = match request.metadata.op_code {
            _ if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) => {
                ResponseCode::BADVERS
            }
            OpCode::Query => self.query(request, limit, &mut answer),
            OpCode::Update => match (&self.registry, sender, &signing) {
                (Some(registry), Some(nth), Some(signing)) => {
                    let outcome = registry.update(request, nth, signing, client, now);
                    if let (Some(lease), Some(edns)) = (outcome.lease, &mut answer.edns) {
                        lease::put(edns, lease);
                    }
                    durable_at = outcome.durable_at;
                    outcome.code
                }
                (Some(registry), ..) => {
                    let code = ResponseCode::Refused;
                    registry
                        .refuse(code, client, None, "it is not signed", now)
                        .code
                }
                (None, ..) => ResponseCode::Refused,
            },
            _ => ResponseCode::NotImp,
        };
        (answer, durable_at, signing)
    }

    fn query(&self, request: &Message, limit: usize, answer: &mut Outgoing) -> ResponseCode {
        let [question] = request.queries.as_slice() else {
            return ResponseCode::FormErr;
        };
        let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&question.query_type());
        if question.query_class() != DNSClass::IN || transfer {
            return ResponseCode::Refused;
        }
        let name = question.name().to_lowercase();
        let found = self.zone.answer(&name, question.query_type(), limit);
        let Answer {
            code,
            authoritative,
            answers,
            truncated,
            soa,
            glue,
        } = found;
        answer.metadata.authoritative = authoritative;
        answer.metadata.truncation = truncated;
        answer.answers = answers;
        answer.authority = soa;
        answer.glue = glue;
        code
    }
}

/// An answer to `request` in which nothing is said yet.
fn empty(request: &Message) -> Outgoing {
    let ours = |_: &Edns| {
        let mut edns = Edns::new();
        edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
        edns
    };
    Outgoing {
        metadata: Metadata::response_from_request(&request.metadata),
        // Several names that point to each other are short in a question and long in an answer.
        queries: match request.queries.as_slice() {
            [one] => vec![one.clone()],
            _ => Vec::new(),
        },
        answers: Vec::new(),
        authority: Vec::new(),
        glue: Vec::new(),
        edns: request.edns.as_ref().map(ours),
    }
}

/// What the client can take in one datagram, and we send.
fn payload(request: &Message) -> usize {
    let payload = request
        .edns
        .as_ref()
        .map_or(CLASSIC_PAYLOAD, Edns::max_payload);
    payload
        .clamp(CLASSIC_PAYLOAD, DEFAULT_MAX_PAYLOAD_LEN)
        .into()
}

/// A header alone with this code: no longer than whatever it answers.
fn header_alone(octets: &[u8], code: ResponseCode) -> Vec<u8> {
    let id = u16::from_be_bytes([octets[0], octets[1]]);
    let op_code = OpCode::from_u8((octets[2] >> 3) & 0x0f);
    let mut answer = Message::response(id, op_code);
    answer.metadata.response_code = code;
    answer.to_vec().unwrap_or_default()
}

/// In the third octet of a header: come again over TCP.
const TRUNCATED: u8 = 0x02;

/// What a client without EDNS can take over UDP (RFC 1035 section 4.2.1).
const CLASSIC_PAYLOAD: u16 = 512;
