//! What `nsupdate` cannot be made to send: a clock that is off, a recorded message, half a MAC.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evenkeel::dns_server::key::Key;
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::support::PATIENCE;
use crate::zone::ZoneServer;

pub const ZONE: &str = "svc.test.";

/// Any octets but the dot, as they are.
pub fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).expect("a name")
}

pub fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

pub fn add(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 5, RData::A(A::new(10, 0, 0, last)))
}

pub fn remove_all(owner: &str) -> Record {
    let mut record = Record::from_rdata(name(owner), 0, RData::Update0(RecordType::ANY));
    record.dns_class = DNSClass::ANY;
    record
}

/// An update of these records, signed at this time; the lease in seconds.
pub fn signed(key: &Key, records: Vec<Record>, lease: Option<u32>, time: u64) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.add_query(Query::query(name(ZONE), RecordType::SOA));
    message.insert_authorities(records);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    if let Some(lease) = lease {
        let octets = lease.to_be_bytes().to_vec();
        edns.options_mut().insert(EdnsOption::Unknown(2, octets));
    }
    message.set_edns(edns);
    let (signature, _) = key.signer().sign_message(&message, time).expect("signed");
    message.set_signature(signature);
    message.to_vec().expect("written")
}

/// Sends octets in one datagram, again if it is lost; the octets of the answer.
pub fn exchange(server: &ZoneServer, octets: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server.address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE / 10)).expect("set");
    let mut buffer = vec![0; 65_535];
    for _ in 0..10 {
        socket.send(octets).expect("sent");
        if let Ok(length) = socket.recv(&mut buffer) {
            buffer.truncate(length);
            return buffer;
        }
    }
    panic!("no answer: {:#?}", server.log());
}

pub fn code(answer: &[u8]) -> ResponseCode {
    Message::from_vec(answer)
        .expect("a message")
        .metadata
        .response_code
}

/// What a question gets: code and number of answers.
pub fn ask(server: &ZoneServer, owner: &str, kind: RecordType) -> (ResponseCode, usize) {
    let mut message = Message::query();
    message.add_query(Query::query(name(owner), kind));
    let answer = exchange(server, &message.to_vec().expect("written"));
    let answer = Message::from_vec(&answer).expect("a message");
    (answer.metadata.response_code, answer.answers.len())
}

pub fn started() -> ZoneServer {
    ZoneServer::with_key("2s", &[])
}

#[test]
fn clocks_that_differ() {
    let server = started();
    let key = server.key("k.key");
    let now = unix_now();
    let table = [
        ("now", now, None),
        ("four minutes behind", now - 240, None),
        ("four minutes ahead", now + 240, None),
        ("six minutes behind", now - 360, Some(TsigError::BadTime)),
        ("six minutes ahead", now + 360, Some(TsigError::BadTime)),
        ("1970", 1, Some(TsigError::BadTime)),
        ("the end of time", (1 << 48) - 1, Some(TsigError::BadTime)),
    ];
    for (rule, time, error) in table {
        let request = signed(&key, vec![add("x.svc.test.", 1)], None, time);
        let sent = Message::from_vec(&request).expect("a message");
        let mac = sent.signature.expect("signed").data.mac;
        let octets = exchange(&server, &request);
        let answer = Message::from_vec(&octets).expect("a message");
        let tsig = &answer.signature.as_ref().expect("signed").data;
        assert_eq!(tsig.error.filter(|e| u16::from(*e) != 0), error, "{rule}");
        key.verify(&octets, Some(&mac))
            .expect("the answer is signed");
        if error.is_some() {
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NotAuth,
                "{rule}"
            );
            // RFC 8945 section 5.2.3.
            assert_eq!(tsig.time, time, "{rule}");
            let other: [u8; 6] = tsig.other.as_slice().try_into().expect("48 bits");
            let theirs = other.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            assert!(theirs.abs_diff(now) < 60, "{rule}: {theirs}");
        } else {
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NoError,
                "{rule}"
            );
        }
    }
}

#[test]
fn a_recorded_update_has_no_effect() {
    let server = started();
    let key = server.key("k.key");
    let now = unix_now();
    let adds = signed(&key, vec![add("x.svc.test.", 1)], None, now);
    assert_eq!(code(&exchange(&server, &adds)), ResponseCode::NoError);
    let removes = signed(&key, vec![remove_all("x.svc.test.")], None, now);
    assert_eq!(code(&exchange(&server, &removes)), ResponseCode::NoError);
    // The same datagram once more: as a client sends it whose answer was lost.
    assert_eq!(code(&exchange(&server, &adds)), ResponseCode::NoError);
    crate::support::wait_until("it answers as usual", || server.logged("answers as usual"));
    assert_eq!(
        ask(&server, "x.svc.test.", RecordType::A),
        (ResponseCode::NXDomain, 0)
    );
}

#[test]
fn a_mac_that_is_cut_short_or_changed() {
    let server = started();
    let key = server.key("k.key");
    let whole = signed(&key, vec![add("x.svc.test.", 1)], None, unix_now());
    let mut message = Message::from_vec(&whole).expect("a message");
    let mut signature = message.take_signature().expect("signed");
    signature.data.mac.truncate(16);
    message.set_signature(signature);
    let short = message.to_vec().expect("written");
    assert_eq!(code(&exchange(&server, &short)), ResponseCode::NotAuth);
    // Each octet of the message is covered, in one way or another.
    for place in 12..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        let answer = exchange(&server, &changed);
        assert_ne!(code(&answer), ResponseCode::NoError, "octet {place}");
    }
    assert_eq!(code(&exchange(&server, &whole)), ResponseCode::NoError);
}

#[test]
fn what_is_no_message_ends_nothing() {
    let server = started();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server.address).expect("connected");
    for length in 0..64 {
        for fill in [0, 0x7f, 0x80, 0xff] {
            let _ = socket.send(&vec![fill; length]);
        }
    }
    // An answer to nothing gets none (it could go on for ever); everything else is answered.
    let mut answer_ = Message::response(7, OpCode::Query)
        .to_vec()
        .expect("written");
    answer_.extend_from_slice(b"junk");
    let _ = socket.send(&answer_);
    assert_eq!(
        ask(&server, ZONE, RecordType::SOA),
        (ResponseCode::NoError, 1)
    );
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("set");
    let mut buffer = [0; 512];
    while let Ok(length) = socket.recv(&mut buffer) {
        assert!(length <= 64, "no answer is larger than what was sent");
    }
}
