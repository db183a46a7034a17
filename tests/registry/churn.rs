//! A thousand registrations that are renewed, die and are replaced at random.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType, TSigner};
use tokio::time::Instant;

use crate::signatures::{ZONE, name, unix_now};
use crate::support::{PATIENCE, pause, wait_until};
use crate::zone::ZoneServer;

const WEB: &str = "_http._tcp.web.svc.test.";

const REGISTRATIONS: usize = 1000;

/// Granted to everybody, in seconds.
const LEASE: u32 = 8;

/// What is allowed for the allocator's moods.
const SLACK: u64 = 3 << 20;

fn target(id: usize) -> String {
    format!("b{id}.web.svc.test.")
}

/// What `evenkeel register` sends: its SRV record, and the address in place of what there was.
fn registration(id: usize, signer: &TSigner) -> Vec<u8> {
    let srv = SRV::new(0, 1, 8080, name(&target(id)));
    let mut clear = Record::from_rdata(name(&target(id)), 0, RData::Update0(RecordType::A));
    clear.dns_class = DNSClass::ANY;
    let address = RData::A(A::new(10, 0, (id >> 8) as u8, id as u8));
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.add_query(Query::query(name(ZONE), RecordType::SOA));
    message.insert_authorities(vec![
        Record::from_rdata(name(WEB), 1, RData::SRV(srv)),
        clear,
        Record::from_rdata(name(&target(id)), 1, address),
    ]);
    let mut edns = Edns::new();
    let lease = LEASE.to_be_bytes().to_vec();
    edns.options_mut().insert(EdnsOption::Unknown(2, lease));
    message.set_edns(edns);
    let (signature, _) = signer.sign_message(&message, unix_now()).expect("signed");
    message.set_signature(signature);
    message.to_vec().expect("written")
}

/// Everybody renews once, a few at a time.
fn renew(server: &ZoneServer, living: &BTreeSet<usize>, signer: &TSigner) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server.address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut buffer = [0; 2048];
    let living: Vec<usize> = living.iter().copied().collect();
    for some in living.chunks(16) {
        for id in some {
            socket.send(&registration(*id, signer)).expect("sent");
        }
        for _ in some {
            let length = socket.recv(&mut buffer).expect("an answer");
            let answer = Message::from_vec(&buffer[..length]).expect("a message");
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        }
    }
}

/// The registrations that the zone holds, asked over TCP.
fn held(server: &ZoneServer) -> BTreeSet<usize> {
    let mut message = Message::query();
    message.add_query(Query::query(name(WEB), RecordType::SRV));
    let octets = message.to_vec().expect("written");
    let mut stream = TcpStream::connect(server.address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let length = (octets.len() as u16).to_be_bytes();
    stream
        .write_all(&[&length[..], &octets].concat())
        .expect("sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut octets = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut octets).expect("an answer");
    let answer = Message::from_vec(&octets).expect("a message");
    assert!(!answer.metadata.truncation, "it fits into one message");
    let id = |record: &Record| -> usize {
        let RData::SRV(srv) = &record.data else {
            panic!("{record}");
        };
        let label = srv.target.to_ascii();
        let digits = label
            .split('.')
            .next()
            .and_then(|label| label.strip_prefix('b'));
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("one of ours")
    };
    answer.answers.iter().map(id).collect()
}

#[test]
fn exactly_the_living_are_held_and_memory_is_flat() {
    let server = ZoneServer::configured(&format!(
        "zone = \"svc.test\"\nmax_lease = \"{LEASE}s\"\nupdates_per_second = 100000\n\
         [[key]]\nfile = \"k.key\"\n"
    ));
    // With signatures that hold for a moment only, what is remembered of them is small.
    let key = server.key("k.key").signer();
    let (secret, algorithm) = (key.key().to_vec(), key.algorithm().clone());
    let signer = TSigner::new(secret, algorithm, key.signer_name().clone(), 1).expect("sound");
    let mut random = fastrand::Rng::with_seed(2136);
    let mut living: BTreeSet<usize> = (0..REGISTRATIONS).collect();
    let mut next = REGISTRATIONS;
    let mut resident = Vec::new();
    let mut updates = 0;
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(12) {
        let at = Instant::now();
        renew(&server, &living, &signer);
        updates += living.len();
        round += 1;
        resident.push(server.resident());
        // Some die without a word; as many others take their places.
        for _ in 0..REGISTRATIONS / 20 {
            let all: Vec<usize> = living.iter().copied().collect();
            if let Some(dead) = random.choice(all) {
                living.remove(&dead);
            }
            living.insert(next);
            next += 1;
        }
        pause(Duration::from_millis(700).saturating_sub(at.elapsed()));
    }
    wait_until("it answers as usual", || server.logged("answers as usual"));
    // Nobody is born any more; the living renew until the last of the dead is gone.
    wait_until("exactly the living are held", || {
        renew(&server, &living, &signer);
        updates += living.len();
        let held = held(&server);
        assert!(
            held.is_superset(&living),
            "no renewed one is missing at any time"
        );
        pause(Duration::from_millis(500));
        held == living
    });
    let settled = resident[resident.len() / 2];
    let last = server.resident();
    println!(
        "{updates} updates in {round} rounds of {REGISTRATIONS}, {} died; resident after the first \
         round {:.1} MiB, half-way {:.1}, at the end {:.1}",
        next - REGISTRATIONS,
        mib(resident[0]),
        mib(settled),
        mib(last)
    );
    assert!(last <= settled + SLACK, "{} to {} bytes", settled, last);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
