//! A DNS server that does what the test says: answers in full or in part, refuses, stays silent,
//! cuts answers short, sends garbage or somebody else's answer. UDP and TCP on one loopback port.
//!
//! Messages are read and written with hickory-proto; everything else is plain sockets, so that
//! it can misbehave below the level of messages too. Used by the integration tests
//! (`#[path = "support/dns.rs"] mod dns;`); ends when it is dropped.

#![allow(dead_code)] // each test file uses a part of it

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a port that was free may be somebody else's.
const FREE: Duration = Duration::from_secs(20);

/// What a question gets.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These records; over UDP an answer that is too long for the client is cut (TC, empty).
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// A code and nothing else, e.g. SERVFAIL or REFUSED.
    Code(ResponseCode),
    /// NXDOMAIN, with an SOA of that TTL and minimum, or without one.
    NxDomain(Option<u32>),
    /// NOERROR without records, likewise.
    NoData(Option<u32>),
    /// NOERROR, no answer, but name servers to ask instead.
    Referral,
    /// No reply at all; a TCP connection is closed.
    Silence,
    /// Over UDP cut short; over TCP this, or a closed connection.
    Truncated(Option<Box<Reply>>),
    /// Over UDP as many of its records as fit, without TC, as Consul does; over TCP all.
    Cut(Box<Reply>),
    /// This over UDP; a TCP connection is closed.
    UdpOnly(Box<Reply>),
    /// Bytes that are no DNS message.
    Garbage(Vec<u8>),
    /// The right id, then bytes that are no DNS message.
    BrokenBody,
    /// FORMERR to a question with EDNS, this to one without (RFC 6891 section 6.2.2).
    NoEdns(Box<Reply>),
    /// The reply under another id.
    WrongId(Box<Reply>),
    /// The reply to another question.
    OtherQuestion(Box<Reply>),
    /// Over UDP one packet after the other; over TCP the last of them.
    Several(Vec<Reply>),
    /// Another one for each question.
    Each(Each),
}

/// Makes up a reply.
#[derive(Clone)]
pub struct Each(Arc<dyn Fn() -> Reply + Send + Sync>);

impl std::fmt::Debug for Each {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Each")
    }
}

/// A question as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub kind: RecordType,
    pub tcp: bool,
    /// UDP payload size of its EDNS record.
    pub payload: Option<u16>,
}

pub struct DnsServer {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    script: Mutex<HashMap<(String, RecordType), Reply>>,
    /// Goes before the script: one each for the next questions of that name and type.
    next: Mutex<HashMap<(String, RecordType), VecDeque<Reply>>>,
    /// For whatever the script does not mention; NXDOMAIN without SOA unless set.
    otherwise: Mutex<Option<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

impl DnsServer {
    /// On a free port of 127.0.0.1, UDP and TCP.
    pub async fn start() -> DnsServer {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
            let address = udp.local_addr().expect("bound");
            if let Ok(tcp) = TcpListener::bind(address).await {
                return DnsServer::on_sockets(udp, Some(tcp));
            }
        }
    }

    /// UDP only: a TCP connect is refused.
    pub async fn without_tcp() -> DnsServer {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        DnsServer::on_sockets(udp, None)
    }

    /// At that address, UDP and TCP. Its port may have gone to a connection of somebody else's
    /// meanwhile: then that has to end first.
    pub async fn at(address: SocketAddr) -> DnsServer {
        let begun = Instant::now();
        loop {
            // One without the other is given back.
            let udp = UdpSocket::bind(address).await;
            let tcp = TcpListener::bind(address).await;
            match (udp, tcp) {
                (Ok(udp), Ok(tcp)) => return DnsServer::on_sockets(udp, Some(tcp)),
                (udp, tcp) => assert!(begun.elapsed() < FREE, "{address}: {udp:?}, {tcp:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn on_sockets(udp: UdpSocket, tcp: Option<TcpListener>) -> DnsServer {
        let state = Arc::new(State::default());
        let address = udp.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&state)));
        if let Some(tcp) = tcp {
            tasks.spawn(serve_tcp(tcp, Arc::clone(&state)));
        }
        DnsServer {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, `name` and `kind` get `reply`.
    pub fn on(&self, name: &str, kind: RecordType, reply: Reply) {
        let key = (key(name), kind);
        self.state.script.lock().unwrap().insert(key, reply);
    }

    /// The next questions of `name` and `kind` get these, one each; then it is as before.
    pub fn next(&self, name: &str, kind: RecordType, replies: Vec<Reply>) {
        let key = (key(name), kind);
        self.state.next.lock().unwrap().insert(key, replies.into());
    }

    /// What everything else gets.
    pub fn otherwise(&self, reply: Reply) {
        *self.state.otherwise.lock().unwrap() = Some(reply);
    }

    /// Everything gets this and nothing else.
    pub fn only(&self, reply: Reply) {
        self.state.script.lock().unwrap().clear();
        self.otherwise(reply);
    }

    /// The questions so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How often that was asked so far over UDP, and over TCP.
    pub fn by_transport(&self, name: &str, kind: RecordType) -> (usize, usize) {
        let name = key(name);
        let seen = self.state.seen.lock().unwrap();
        let same = seen
            .iter()
            .filter(|seen| seen.name == name && seen.kind == kind);
        let tcp = same.clone().filter(|seen| seen.tcp).count();
        (same.count() - tcp, tcp)
    }

    /// How often that was asked so far, UDP and TCP together.
    pub fn count(&self, name: &str, kind: RecordType) -> usize {
        let name = key(name);
        let same = |seen: &&Seen| seen.name == name && seen.kind == kind;
        self.state.seen.lock().unwrap().iter().filter(same).count()
    }
}

/// An SRV reply: `(priority, weight, port, target, addresses that come along)`.
pub fn srv_reply(name: &str, ttl: u32, members: &[(u16, u16, u16, &str, &[&str])]) -> Reply {
    let mut answers = Vec::new();
    let mut additionals = Vec::new();
    for (priority, weight, port, target, addresses) in members {
        answers.push(srv(name, ttl, (*priority, *weight, *port, target)));
        additionals.extend(addresses.iter().map(|a| address(target, ttl, a)));
    }
    Reply::Records {
        answers,
        additionals,
    }
}

/// An A or AAAA reply.
pub fn address_reply(name: &str, ttl: u32, addresses: &[&str]) -> Reply {
    let answers = addresses.iter().map(|a| address(name, ttl, a)).collect();
    Reply::Records {
        answers,
        additionals: Vec::new(),
    }
}

/// The records that `set` gives at the moment of the question, at most `shown` of them, chosen at
/// random; with each the addresses that are given for its target. The same `seed`, the same
/// choices.
pub fn part_of(
    set: impl Fn() -> Vec<(Record, Vec<Record>)> + Send + Sync + 'static,
    shown: usize,
    seed: u64,
) -> Reply {
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    Reply::Each(Each(Arc::new(move || {
        let chosen = rng.lock().unwrap().choose_multiple(set(), shown);
        let (answers, additionals): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
        Reply::Records {
            answers,
            additionals: additionals.concat(),
        }
    })))
}

/// All records that `set` gives at the moment of the question, in another order each time, cut to
/// what fits UDP.
pub fn cut(set: impl Fn() -> Vec<(Record, Vec<Record>)> + Send + Sync + 'static) -> Reply {
    let rng = Mutex::new(fastrand::Rng::with_seed(5));
    let shuffled = Reply::Each(Each(Arc::new(move || {
        let mut set = set();
        rng.lock().unwrap().shuffle(&mut set);
        let (answers, additionals): (Vec<_>, Vec<_>) = set.into_iter().unzip();
        Reply::Records {
            answers,
            additionals: additionals.concat(),
        }
    })));
    Reply::Cut(Box::new(shuffled))
}

/// A reply that is one alias.
pub fn cname_reply(name: &str, ttl: u32, target: &str) -> Reply {
    Reply::Records {
        answers: vec![cname(name, ttl, target)],
        additionals: Vec::new(),
    }
}

pub fn srv(name: &str, ttl: u32, (p, w, port, target): (u16, u16, u16, &str)) -> Record {
    let data = RData::SRV(SRV::new(p, w, port, absolute(target)));
    Record::from_rdata(absolute(name), ttl, data)
}

pub fn address(name: &str, ttl: u32, address: &str) -> Record {
    let data = match address.parse().expect("an IP address") {
        IpAddr::V4(a) => RData::A(A(a)),
        IpAddr::V6(a) => RData::AAAA(AAAA(a)),
    };
    Record::from_rdata(absolute(name), ttl, data)
}

pub fn cname(name: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(absolute(name), ttl, RData::CNAME(CNAME(absolute(target))))
}

/// Any bytes between the dots, also such as no host can be called.
pub fn absolute(name: &str) -> Name {
    let labels = name.split('.').filter(|l| !l.is_empty());
    let mut name = Name::from_labels(labels.map(str::as_bytes)).expect("a DNS name");
    name.set_fqdn(true);
    name
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn serve_udp(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = vec![0; 65_535];
    // An ICMP error of an earlier reply shows up here; it concerns nobody.
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Ok(question) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        for bytes in state.react(&question, false) {
            let _ = socket.send_to(&bytes, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            connections.spawn(async move {
                let _ = serve_connection(stream, &state).await;
            });
        }
    }
}

async fn serve_connection(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await?;
        let Ok(question) = Message::from_vec(&buffer) else {
            return Ok(());
        };
        let Some(bytes) = state.react(&question, true).pop() else {
            return Ok(());
        };
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend(bytes);
        stream.write_all(&framed).await?;
    }
}

impl State {
    /// The packets that go back, in order.
    fn react(&self, question: &Message, tcp: bool) -> Vec<Vec<u8>> {
        let Some(query) = question.queries.first() else {
            return Vec::new();
        };
        let (name, kind) = (key(&query.name().to_ascii()), query.query_type());
        self.seen.lock().unwrap().push(Seen {
            name: name.clone(),
            kind,
            tcp,
            payload: question.edns.as_ref().map(|edns| edns.max_payload()),
        });
        let key = (name, kind);
        let mut next = self.next.lock().unwrap();
        let next = next.get_mut(&key).and_then(VecDeque::pop_front);
        let script = self.script.lock().unwrap();
        let otherwise = self.otherwise.lock().unwrap();
        let reply = next.as_ref().or(script.get(&key)).or(otherwise.as_ref());
        match reply.unwrap_or(&Reply::NxDomain(None)) {
            Reply::Several(replies) => replies
                .iter()
                .filter_map(|reply| bytes(question, reply, tcp))
                .collect(),
            reply => bytes(question, reply, tcp).into_iter().collect(),
        }
    }
}

fn bytes(question: &Message, reply: &Reply, tcp: bool) -> Option<Vec<u8>> {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata = Metadata::response_from_request(&question.metadata);
    message.metadata.recursion_available = true;
    message.add_queries(question.queries.iter().cloned());
    match reply {
        Reply::Records {
            answers,
            additionals,
        } => {
            message.add_answers(answers.iter().cloned());
            message.add_additionals(additionals.iter().cloned());
            let whole = message.to_vec().expect("encodable");
            let limit = question.edns.as_ref().map_or(512, |e| e.max_payload());
            if !tcp && whole.len() > limit.into() {
                return bytes(question, &Reply::Truncated(None), tcp);
            }
            return Some(whole);
        }
        Reply::Code(code) => message.metadata.response_code = *code,
        Reply::NxDomain(soa) => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authorities(soa.map(self::soa));
        }
        Reply::NoData(soa) => {
            message.add_authorities(soa.map(self::soa));
        }
        Reply::Referral => {
            let ns = RData::NS(NS(absolute("ns.example")));
            message.add_authority(Record::from_rdata(absolute("example"), 60, ns));
        }
        Reply::Silence => return None,
        Reply::Truncated(over_tcp) if tcp => return bytes(question, over_tcp.as_ref()?, tcp),
        Reply::Truncated(_) => message.metadata.truncation = true,
        Reply::Cut(whole) => {
            let mut part = match &**whole {
                Reply::Each(each) => (each.0)(),
                whole => whole.clone(),
            };
            let limit = question.edns.as_ref().map_or(512, |e| e.max_payload());
            loop {
                let whole = bytes(question, &part, true)?;
                if tcp || whole.len() <= limit.into() {
                    return Some(whole);
                }
                one_less(&mut part);
            }
        }
        Reply::UdpOnly(_) if tcp => return None,
        Reply::UdpOnly(reply) => return bytes(question, reply, tcp),
        Reply::Garbage(garbage) => return Some(garbage.clone()),
        Reply::BrokenBody => {
            let mut broken = message.to_vec().expect("encodable");
            broken.truncate(2);
            // Claims to hold answers, and ends inside the header's counts.
            broken.extend([0x81, 0x80, 0, 1, 0, 9]);
            return Some(broken);
        }
        Reply::NoEdns(_) if question.edns.is_some() => {
            message.metadata.response_code = ResponseCode::FormErr;
        }
        Reply::NoEdns(reply) => return bytes(question, reply, tcp),
        Reply::WrongId(reply) => {
            let mut whole = bytes(question, reply, tcp)?;
            whole[0] ^= 0x55;
            return Some(whole);
        }
        Reply::OtherQuestion(reply) => {
            let mut other = question.clone();
            other.queries = vec![Query::query(absolute("other.example"), RecordType::SRV)];
            return bytes(&other, reply, tcp);
        }
        Reply::Each(each) => return bytes(question, &(each.0)(), tcp),
        Reply::Several(_) => panic!("packets within packets"),
    }
    Some(message.to_vec().expect("encodable"))
}

/// Takes off the last record and what comes along for its target.
fn one_less(reply: &mut Reply) {
    let Reply::Records {
        answers,
        additionals,
    } = reply
    else {
        panic!("only records are cut");
    };
    if let Some(RData::SRV(srv)) = answers.pop().map(|record| record.data) {
        additionals.retain(|record| record.name != srv.target);
    }
}

fn soa(ttl: u32) -> Record {
    let (mname, rname) = (absolute("ns.test"), absolute("root.test"));
    let soa = SOA::new(mname, rname, 1, 3600, 600, 86_400, ttl);
    Record::from_rdata(absolute("test"), ttl, RData::SOA(soa))
}
