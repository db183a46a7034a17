//! One name server: a question goes out over UDP, once more over TCP when the answer was cut or may
//! have been (`cut.rs`), and comes back as records, as a negative answer, or as the reason why it is neither.
//!
//! Drives hickory-resolver's pool with a single server and a single transport in it, below its
//! `Resolver`: that one mistakes CNAME → SRV for NODATA, walks the search list past time-outs and
//! answers some names by itself. Which server is asked next is the business of `resolver.rs`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::Instant;

use super::cut::{Cuts, Question, Transport};

/// The largest UDP answer that is asked for: fits an Ethernet frame over IPv6 without fragments
/// (DNS flag day 2020, RFC 9715).
const PAYLOAD: u16 = 1232;

/// The largest UDP answer without EDNS (RFC 1035 section 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;

/// So long after a server did not answer at all, the others are asked before it.
const SULK: Duration = Duration::from_secs(30);

/// A server and what is remembered of it.
pub(super) struct NameServer {
    /// Where it is.
    pub(super) address: SocketAddr,
    udp: NameServerPool<TokioRuntimeProvider>,
    tcp: NameServerPool<TokioRuntimeProvider>,
    timeout: Duration,
    tries: u8,
    /// When it last gave no answer at all. Only read to order servers, so a plain lock does.
    silent_since: Mutex<Option<Instant>>,
    /// Answers that were cut, or may have been. Only held to look and to note.
    cuts: Mutex<Cuts>,
}

/// A message, and its octets on the wire.
struct Received {
    message: Message,
    size: usize,
}

/// Does a question carry EDNS? Over UDP it makes room; over TCP there is room enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extended {
    Yes,
    No,
}

/// What a server said.
#[derive(Debug)]
pub(super) enum Reply {
    /// An answer section with the records asked for, or an alias (CNAME) for the name.
    Answer {
        /// The whole message.
        message: Box<Message>,
        /// How it came.
        transport: Transport,
    },
    /// There is nothing of that kind.
    Negative {
        /// The name exists, without records of that type (NODATA, RFC 2308 section 2.2).
        name_exists: bool,
        /// How long that may be believed; `None` without an SOA record.
        ttl: Option<Duration>,
    },
}

/// Why a server's reply is no answer. The next server is asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// An error code: SERVFAIL, REFUSED and other such.
    #[error("answered {0}")]
    Code(ResponseCode),
    /// Nothing came in time.
    #[error("did not answer in time")]
    Timeout,
    /// The answer did not fit UDP, and TCP did not give it either.
    #[error("truncated its answer, and over TCP: {0}")]
    Truncated(Box<Failure>),
    /// The transport failed.
    #[error("could not be reached: {0}")]
    Network(#[source] NetError),
    /// What came is not a DNS answer to the question.
    #[error("sent something malformed: {0}")]
    Malformed(#[source] NetError),
    /// The answer section holds nothing that has to do with the question.
    #[error("answered another question")]
    Unrelated,
    /// It names other servers instead of answering (RFC 2308 section 2.2: not NODATA).
    #[error("referred to other servers: it does not resolve for us")]
    Referral,
}

impl Failure {
    /// The `result` label of the lookup counter.
    pub fn label(&self) -> &'static str {
        match self {
            Failure::Code(ResponseCode::ServFail) => "servfail",
            Failure::Code(ResponseCode::Refused) => "refused",
            Failure::Code(_) | Failure::Referral => "error",
            Failure::Timeout => "timeout",
            Failure::Truncated(_) => "truncated",
            Failure::Network(_) => "network",
            Failure::Malformed(_) | Failure::Unrelated => "malformed",
        }
    }

    /// No sign of life: worth another try, and worth asking others first for a while.
    fn is_silence(&self) -> bool {
        matches!(self, Failure::Timeout | Failure::Network(_))
    }
}

impl NameServer {
    /// A server at `address`; each try waits for `timeout`, and there are `retries` more of them
    /// after one that brought no sign of life.
    pub(super) fn new(address: SocketAddr, timeout: Duration, retries: u8) -> NameServer {
        NameServer {
            address,
            udp: pool(address, ConnectionConfig::udp(), timeout),
            tcp: pool(address, ConnectionConfig::tcp(), timeout),
            timeout,
            tries: retries.saturating_add(1),
            silent_since: Mutex::new(None),
            cuts: Mutex::default(),
        }
    }

    /// Did it lately give no sign of life?
    pub(super) fn sulks(&self, now: Instant) -> bool {
        let since = *self.silent_since();
        since.is_some_and(|since| now.duration_since(since) < SULK)
    }

    /// Asks for the records of `qtype` at `name`, which must be absolute. Takes at most two
    /// time-outs (UDP, TCP) a try. Cancel-safe: dropping it forgets the question.
    pub(super) async fn ask(&self, name: &Name, qtype: RecordType) -> Result<Reply, Failure> {
        let mut outcome = Err(Failure::Timeout);
        for _ in 0..self.tries {
            outcome = self.ask_once(name, qtype).await;
            if !matches!(&outcome, Err(failure) if failure.is_silence()) {
                break;
            }
        }
        *self.silent_since() = match &outcome {
            Err(failure) if failure.is_silence() => Some(Instant::now()),
            _ => None,
        };
        outcome
    }

    async fn ask_once(&self, name: &Name, qtype: RecordType) -> Result<Reply, Failure> {
        let question = (name.clone(), qtype);
        let mut tcp_failed = None;
        if self.cuts().is_cut(&question) {
            match self.ask_over_tcp(&question).await {
                Ok(reply) => return Ok(reply),
                // UDP tells whether the server is there at all, and perhaps it shows all by now.
                Err(failure) => tcp_failed = Some(failure),
            }
        }
        let mut payload = PAYLOAD;
        let mut answer = self.send(&self.udp, name, qtype, Extended::Yes).await;
        if let Err(NetError::Dns(DnsError::ResponseCode(
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS,
        ))) = answer
        {
            // RFC 6891 section 6.2.2: so says a server that knows no EDNS.
            payload = PLAIN_PAYLOAD;
            answer = self.send(&self.udp, name, qtype, Extended::No).await;
        }
        let received = match answer {
            Ok(received) => received,
            Err(NetError::Truncated) => {
                let reply = match tcp_failed {
                    Some(failure) => Err(failure),
                    None => self.ask_over_tcp(&question).await,
                };
                return reply.map(truncated).map_err(untold);
            }
            Err(error) => return negative(error),
        };
        let sizes = (received.size, payload.into());
        let suspect = self
            .cuts()
            .over_udp(&question, &received.message, sizes, Instant::now());
        match tcp_failed {
            Some(failure) if self.cuts().is_cut(&question) => return Err(untold(failure)),
            None if suspect => match self.ask_over_tcp(&question).await {
                Ok(answer @ Reply::Answer { .. }) => return Ok(answer),
                // That there is nothing is not believed of a server that has just shown something.
                Ok(Reply::Negative { .. }) => {
                    let why = "shows nothing".to_owned();
                    self.cuts().failed(&question, why, Instant::now());
                }
                Err(failure) => {
                    let why = failure.to_string();
                    self.cuts().failed(&question, why, Instant::now());
                }
            },
            _ => {}
        }
        let transport = self.cuts().transport(&question);
        reply(received.message, name, qtype, transport)
    }

    async fn ask_over_tcp(&self, question: &Question) -> Result<Reply, Failure> {
        let (name, qtype) = question;
        match self.send(&self.tcp, name, *qtype, Extended::No).await {
            Ok(Received { message, size }) => {
                let mut reply = reply(message, name, *qtype, Transport::Whole)?;
                if let Reply::Answer { message, transport } = &mut reply {
                    let sizes = (size, PAYLOAD.into());
                    *transport = self.cuts().over_tcp(question, message, sizes);
                }
                Ok(reply)
            }
            Err(error) => negative(error),
        }
    }

    async fn send(
        &self,
        pool: &NameServerPool<TokioRuntimeProvider>,
        name: &Name,
        qtype: RecordType,
        extended: Extended,
    ) -> Result<Received, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = extended == Extended::Yes;
        options.edns_payload_len = PAYLOAD;
        let query = Query::query(name.clone(), qtype);
        let answer = pool.lookup(query, options).first_answer();
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map(|response| Received {
                size: response.as_buffer().len(),
                message: response.into_message(),
            }),
            Err(_) => Err(NetError::Timeout),
        }
    }

    fn cuts(&self) -> MutexGuard<'_, Cuts> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for NameServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NameServer").field(&self.address).finish()
    }
}

fn pool(
    address: SocketAddr,
    mut transport: ConnectionConfig,
    timeout: Duration,
) -> NameServerPool<TokioRuntimeProvider> {
    transport.port = address.port();
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.edns0 = true;
    options.edns_payload_len = PAYLOAD;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    let server = NameServerConfig::new(address.ip(), true, vec![transport]);
    NameServerPool::from_config(
        [server],
        Arc::new(PoolContext::new(options, NO_TLS)),
        TokioRuntimeProvider::default(),
    )
}

/// hickory is built without TLS here, so its configuration is empty.
const NO_TLS: TlsConfig = TlsConfig {};

/// Makes sure that a message with an answer section speaks of the question.
fn reply(
    message: Message,
    name: &Name,
    qtype: RecordType,
    transport: Transport,
) -> Result<Reply, Failure> {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(Failure::Code(code)),
    }
    let about = |record: &hickory_resolver::proto::rr::Record| {
        record.name == *name
            && record.dns_class == DNSClass::IN
            && [qtype, RecordType::CNAME].contains(&record.record_type())
    };
    if !message.answers.iter().any(about) {
        return Err(Failure::Unrelated);
    }
    Ok(Reply::Answer {
        message: Box::new(message),
        transport,
    })
}

/// It came over TCP since the one over UDP had TC set.
fn truncated(mut reply: Reply) -> Reply {
    if let Reply::Answer { transport, .. } = &mut reply {
        *transport = Transport::Truncated;
    }
    reply
}

/// UDP gave a part, and TCP failed.
fn untold(failure: Failure) -> Failure {
    match failure {
        code @ Failure::Code(_) => code,
        other => Failure::Truncated(Box::new(other)),
    }
}

/// Tells negative answers, which hickory hands over as errors, from failures.
fn negative(error: NetError) -> Result<Reply, Failure> {
    Err(match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            if none.soa.is_none() && none.ns.is_some() {
                return Err(Failure::Referral);
            }
            return Ok(Reply::Negative {
                name_exists: none.response_code != ResponseCode::NXDomain,
                ttl: none.negative_ttl.map(|s| Duration::from_secs(s.into())),
            });
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Failure::Code(code),
        NetError::Timeout => Failure::Timeout,
        NetError::Proto(_) | NetError::ForeignClassRecord { .. } => Failure::Malformed(error),
        NetError::Truncated => Failure::Truncated(Box::new(Failure::Unrelated)),
        other => Failure::Network(other),
    })
}
