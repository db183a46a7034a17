//! The zone over real sockets, asked with hickory's own messages.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;

const TTL: Duration = Duration::from_secs(7);

async fn started(zone: &Zone) -> Handle {
    let (udp, tcp) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    serve(udp, tcp, zone.clone()).unwrap()
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

async fn udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bytes = question.to_vec().unwrap();
    socket.send_to(&bytes, server).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let wait = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer));
    let length = wait.await.expect("no answer").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn tcp(server: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = question.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

fn web(members: u8) -> Zone {
    let zone = Zone::new("t.test").unwrap();
    for n in 1..=members {
        let target = format!("b{n}.t.test");
        let address = IpAddr::from([10, 0, 0, n]);
        zone.set_addresses(&target, TTL, &[address]).unwrap();
        let record = SrvData::new(0, n.into(), 80, &target);
        zone.add_srv("_http._tcp.web.t.test", TTL, record).unwrap();
    }
    zone
}

#[tokio::test]
async fn glue_for_every_target() {
    let zone = web(3);
    zone.set_addresses(
        "b3.t.test.",
        TTL,
        &["10.0.0.3".parse().unwrap(), "fd00::3".parse().unwrap()],
    )
    .unwrap();
    let server = started(&zone).await;
    let question = question("_HTTP._tcp.Web.t.test.", RecordType::SRV, Some(1232));
    let answer = udp(server.address(), &question).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative && !answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 3);
    assert!(answer.answers.iter().all(|r| r.ttl == 7));
    assert_eq!(answer.additionals.len(), 4);
    assert!(answer.edns.is_some());
}

#[tokio::test]
async fn sizes() {
    let zone = web(60);
    let server = started(&zone).await;
    let name = "_http._tcp.web.t.test.";
    let table = [
        ("no EDNS: 512 octets (RFC 1035 4.2.1)", None, 512, true),
        ("a payload that is too small", Some(1232), 1232, true),
        (
            "more than we ever send in one datagram",
            Some(4096),
            1232,
            true,
        ),
    ];
    for (rule, payload, at_most, truncated) in table {
        let answer = udp(server.address(), &question(name, RecordType::SRV, payload)).await;
        assert!(answer.to_vec().unwrap().len() <= at_most, "{rule}");
        assert_eq!(answer.metadata.truncation, truncated, "{rule}");
    }
    let whole = tcp(
        server.address(),
        &question(name, RecordType::SRV, Some(1232)),
    )
    .await;
    assert_eq!((whole.answers.len(), whole.additionals.len()), (60, 60));
    assert!(!whole.metadata.truncation);
}

#[tokio::test]
async fn glue_that_does_not_fit_is_no_truncation() {
    // RFC 2181 section 9.
    let zone = web(32);
    let server = started(&zone).await;
    let question = question("_http._tcp.web.t.test.", RecordType::SRV, Some(1232));
    let answer = udp(server.address(), &question).await;
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 32);
    assert!(
        (1..32).contains(&answer.additionals.len()),
        "{}",
        answer.additionals.len()
    );
}

#[tokio::test]
async fn glue_that_does_not_fit_into_any_message_is_no_truncation_either() {
    let zone = Zone::new("t.test").unwrap();
    let (service, ttl) = ("_http._tcp.web.t.test", TTL);
    let target = |n: u16| format!("b{n}.{}.t.test", "x".repeat(20));
    let records: Vec<_> = (0..1200)
        .map(|n| SrvData::new(0, n, 80, &target(n)))
        .collect();
    zone.set_srv(service, ttl, &records).unwrap();
    for n in 0_u16..1200 {
        let [high, low] = n.to_be_bytes();
        zone.set_addresses(&target(n), ttl, &[IpAddr::from([10, 0, high, low])])
            .unwrap();
    }
    let server = started(&zone).await;
    let ask = question("_http._tcp.web.t.test.", RecordType::SRV, Some(1232));
    let whole = tcp(server.address(), &ask).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 1200);
    assert!((2..1200).contains(&whole.additionals.len()));
    let cut = udp(server.address(), &ask).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
}

#[tokio::test]
async fn negative_answers_carry_the_soa() {
    let zone = web(1);
    zone.set_negative_ttl(Duration::from_secs(2));
    let server = started(&zone).await;
    let table = [
        (
            "a name that is not there",
            "nix.t.test.",
            RecordType::SRV,
            ResponseCode::NXDomain,
            1,
        ),
        (
            "another type",
            "b1.t.test.",
            RecordType::AAAA,
            ResponseCode::NoError,
            1,
        ),
        (
            "a name with names below (RFC 8020)",
            "_tcp.web.t.test.",
            RecordType::SRV,
            ResponseCode::NoError,
            1,
        ),
        (
            "another zone",
            "example.",
            RecordType::A,
            ResponseCode::Refused,
            0,
        ),
    ];
    for (rule, name, kind, code, soas) in table {
        let answer = udp(server.address(), &question(name, kind, Some(1232))).await;
        assert_eq!(answer.metadata.response_code, code, "{rule}");
        assert!(answer.answers.is_empty(), "{rule}");
        assert_eq!(answer.authorities.len(), soas, "{rule}");
        for record in &answer.authorities {
            let RData::SOA(soa) = &record.data else {
                panic!("{rule}: {record}");
            };
            assert_eq!((record.ttl, soa.minimum), (2, 2), "{rule}");
            // Both names in full: a pointer inside of the data would be one to elsewhere.
            assert_eq!(soa.mname.to_ascii(), "ns.t.test.", "{rule}");
            assert_eq!(soa.rname.to_ascii(), "hostmaster.t.test.", "{rule}");
        }
    }
}

#[tokio::test]
async fn changes_are_live() {
    let zone = web(2);
    let server = started(&zone).await;
    let name = "_http._tcp.web.t.test";
    let ask = question("_http._tcp.web.t.test.", RecordType::SRV, Some(1232));
    let weights = async |zone: &Zone| {
        let before = zone.serial();
        let answer = udp(server.address(), &ask).await;
        assert_eq!(zone.serial(), before);
        let of = |record: &hickory_proto::rr::Record| match &record.data {
            RData::SRV(srv) => srv.weight,
            _ => panic!("{record}"),
        };
        answer.answers.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(weights(&zone).await, [1, 2]);
    zone.add_srv(name, TTL, SrvData::new(0, 9, 80, "B1.t.test."))
        .unwrap();
    assert_eq!(weights(&zone).await, [2, 9]);
    assert!(zone.remove_srv(name, "b2.t.test", 80).unwrap());
    assert!(!zone.remove_srv(name, "b2.t.test", 80).unwrap());
    assert_eq!(weights(&zone).await, [9]);
    zone.set_srv(name, TTL, &[SrvData::new(0, 0, 0, ".")])
        .unwrap();
    assert_eq!(weights(&zone).await, [0]);
    zone.set_srv(name, TTL, &[]).unwrap();
    assert_eq!(weights(&zone).await, Vec::<u16>::new());
}

#[tokio::test]
async fn an_alias_is_followed_inside_the_zone() {
    let zone = web(1);
    zone.set_alias("_http._tcp.old.t.test", TTL, "_http._tcp.web.t.test")
        .unwrap();
    zone.set_alias("loop.t.test", TTL, "loop.t.test").unwrap();
    let server = started(&zone).await;
    let old = question("_http._tcp.old.t.test.", RecordType::SRV, Some(1232));
    let answer = udp(server.address(), &old).await;
    let kinds: Vec<_> = answer.answers.iter().map(|r| r.record_type()).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::SRV]);
    let endless = question("loop.t.test.", RecordType::A, Some(1232));
    let answer = udp(server.address(), &endless).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn names_of_other_zones_are_not_taken() {
    let zone = Zone::new("t.test").unwrap();
    let outside = zone.set_addresses("a.example", TTL, &[]);
    assert!(matches!(outside, Err(ZoneError::Outside { .. })));
    assert!(matches!(
        zone.remove_name("a..b"),
        Err(ZoneError::BadName { .. })
    ));
}

#[tokio::test]
async fn questions_in_a_heap_are_not_repeated() {
    let server = started(&web(1)).await;
    let mut ask = question(&format!("{}.t.test.", "x".repeat(60)), RecordType::A, None);
    let one = ask.queries[0].clone();
    ask.add_queries(vec![one; 30]);
    // Compressed, they take six octets each.
    assert!(ask.to_vec().unwrap().len() < 300);
    let answer = udp(server.address(), &ask).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(answer.to_vec().unwrap().len(), 12);
}
