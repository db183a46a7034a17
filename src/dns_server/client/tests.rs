//! The client against servers that are made up here. Real ones are in `tests/register.rs`.

use hickory_proto::rr::TSigResponseContext;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, make_tsig_record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

use super::*;

const NOW: u64 = 2_000_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn key() -> Key {
    Key::generate(name("web")).unwrap()
}

fn update() -> Update {
    let mut update = Update::new(name("svc.test"));
    update.delete(
        name("web.svc.test"),
        RData::SRV(SRV::new(0, 1, 8080, name("h.svc.test"))),
    );
    update.delete_set(name("h.svc.test"), RecordType::A);
    let address = RData::A(A::new(192, 0, 2, 1));
    update.add(Record::from_rdata(name("h.svc.test"), 2, address));
    update.lease(Duration::from_secs(30));
    update
}

/// Answers every UDP request with all the packets that `answers` makes of it and its number.
struct Fake {
    address: SocketAddr,
    task: AbortHandle,
}

impl Fake {
    async fn start(mut answers: impl FnMut(&[u8], usize) -> Vec<Vec<u8>> + Send + 'static) -> Fake {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            for nth in 0.. {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                for answer in answers(&buffer[..length], nth) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Fake {
            address,
            task: task.abort_handle(),
        }
    }

    fn client(&self, key: &Key) -> Client {
        Client::new(self.address, key.clone())
            .with_clock(now)
            .with_patience(Duration::from_millis(700))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn response(request: &[u8], code: ResponseCode) -> Message {
    let request = Message::from_vec(request).unwrap();
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.response_code = code;
    response.add_queries(request.queries);
    response
}

fn unsigned(request: &[u8], code: ResponseCode) -> Vec<u8> {
    response(request, code).to_vec().unwrap()
}

/// As a server that has the key answers, at that time.
fn signed(key: &Key, request: &[u8], mut response: Message, seconds: u64) -> Vec<u8> {
    let request = Message::from_vec(request).unwrap();
    let mac = request.signature.unwrap().data.mac;
    let id = request.metadata.id;
    let context = TSigResponseContext::new(id, seconds, key.signer(), mac, None);
    let record = context.sign(&response.to_vec().unwrap()).unwrap();
    response.set_signature(record);
    response.to_vec().unwrap()
}

/// With a TSIG record that carries an error.
fn with_error(key: &Key, request: &[u8], error: TsigError, other: &[u8]) -> Vec<u8> {
    let mut response = response(request, ResponseCode::NotAuth);
    let tsig = TSIG::new(
        TsigAlgorithm::HmacSha256,
        NOW,
        300,
        Vec::new(),
        response.metadata.id,
        Some(error),
        other.to_vec(),
    );
    response.set_signature(Box::new(make_tsig_record(key.name().clone(), tsig)));
    response.to_vec().unwrap()
}

#[test]
fn an_update_on_the_wire() {
    let key = key();
    let (bytes, mac) = update().encode(&key, NOW).unwrap();
    let tsig = key.verify(&bytes, None).unwrap();
    assert_eq!((tsig.time, tsig.mac), (NOW, mac));

    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.op_code, OpCode::Update);
    assert!(!message.metadata.recursion_desired);
    let zone = &message.queries[0];
    assert_eq!(zone.name(), &name("svc.test"));
    assert_eq!(zone.query_type(), RecordType::SOA);
    assert_eq!(
        lease::of(message.edns.as_ref()),
        Some(Duration::from_secs(30))
    );
    assert!(message.answers.is_empty(), "no prerequisites");

    // The update section, octet for octet: RFC 2136 sections 2.5.1, 2.5.2 and 2.5.4.
    let at = |octets: &[u8]| {
        bytes
            .windows(octets.len())
            .position(|window| window == octets)
    };
    let delete = [0, 33, 0, 254, 0, 0, 0, 0, 0];
    let delete_set = [0, 1, 0, 255, 0, 0, 0, 0, 0, 0];
    let add = [0, 1, 0, 1, 0, 0, 0, 2, 0, 4, 192, 0, 2, 1];
    let order = [at(&delete), at(&delete_set), at(&add)];
    assert!(order.iter().all(Option::is_some), "{bytes:x?}");
    assert!(order.is_sorted(), "{order:?}");
}

#[tokio::test]
async fn answers_to_an_update() {
    use ResponseCode::*;
    let known = key();
    let stranger = key();
    type Answers = Box<dyn FnMut(&[u8], usize) -> Vec<Vec<u8>> + Send>;
    let k = known.clone();
    let done: Answers =
        Box::new(move |request, _| vec![signed(&k, request, response(request, NoError), NOW)]);
    let k = known.clone();
    let granted: Answers = Box::new(move |request, _| {
        let mut response = response(request, NoError);
        let mut edns = edns();
        lease::put(&mut edns, Duration::from_secs(20));
        response.set_edns(edns);
        vec![signed(&k, request, response, NOW + 299)]
    });
    let k = known.clone();
    let forged_first: Answers = Box::new(move |request, _| {
        let mut other = unsigned(request, NoError);
        other[0] ^= 1;
        vec![
            b"not DNS".to_vec(),
            other,
            unsigned(request, NoError),
            signed(&k, request, response(request, NoError), NOW),
        ]
    });
    let k = known.clone();
    let late: Answers = Box::new(move |request, nth| match nth {
        0 => Vec::new(),
        _ => vec![signed(&k, request, response(request, NoError), NOW)],
    });
    let k = known.clone();
    let old: Answers = Box::new(move |request, _| {
        vec![signed(&k, request, response(request, NoError), NOW - 301)]
    });
    let k = known.clone();
    let refused: Answers =
        Box::new(move |request, _| vec![signed(&k, request, response(request, Refused), NOW)]);
    let k = known.clone();
    let bad_key: Answers =
        Box::new(move |request, _| vec![with_error(&k, request, TsigError::BadKey, &[])]);
    let k = known.clone();
    let bad_signature: Answers =
        Box::new(move |request, _| vec![with_error(&k, request, TsigError::BadSig, &[])]);
    let k = known.clone();
    let bad_time: Answers = Box::new(move |request, _| {
        let theirs = (NOW + 754).to_be_bytes();
        vec![with_error(&k, request, TsigError::BadTime, &theirs[2..])]
    });
    let k = known.clone();
    let bad_time_untold: Answers =
        Box::new(move |request, _| vec![with_error(&k, request, TsigError::BadTime, &[])]);
    let accepted = |lease| Ok(Accepted { lease });
    let rows: Vec<(&str, Answers, Result<Accepted, &str>)> = vec![
        ("done, no lease", done, accepted(None)),
        (
            "a lease is granted",
            granted,
            accepted(Some(Duration::from_secs(20))),
        ),
        ("forgeries before the answer", forged_first, accepted(None)),
        ("the first packet is lost", late, accepted(None)),
        (
            "unsigned",
            Box::new(|request, _| vec![unsigned(request, NoError)]),
            Err("cannot be believed: it is not signed"),
        ),
        (
            "signed with another secret",
            Box::new(move |request, _| {
                vec![signed(&stranger, request, response(request, NoError), NOW)]
            }),
            Err("cannot be believed: its signature is wrong"),
        ),
        (
            "signed at another time",
            old,
            Err("cannot be believed: its signature is wrong"),
        ),
        (
            "nobody",
            Box::new(|_, _| Vec::new()),
            Err("does not answer"),
        ),
        (
            "REFUSED",
            refused,
            Err("REFUSED: the key \"web\" may not change these names of svc.test. at "),
        ),
        (
            "BADKEY",
            bad_key,
            Err("does not know the key \"web\" (hmac-sha256)"),
        ),
        (
            "BADSIG",
            bad_signature,
            Err("has another secret for the key \"web\""),
        ),
        ("BADTIME", bad_time, Err("differ by 12m 34s")),
        (
            "BADTIME without a time",
            bad_time_untold,
            Err("differ by minutes"),
        ),
        (
            "NOTAUTH",
            Box::new(|request, _| vec![unsigned(request, NotAuth)]),
            Err("is not authoritative for svc.test."),
        ),
        (
            "NOTZONE",
            Box::new(|request, _| vec![unsigned(request, NotZone)]),
            Err("lies outside of svc.test."),
        ),
        (
            "NOTIMP",
            Box::new(|request, _| vec![unsigned(request, NotImp)]),
            Err("takes no updates"),
        ),
    ];
    let mut tests = JoinSet::new();
    for (row, answers, expected) in rows {
        let known = known.clone();
        tests.spawn(async move {
            let server = Fake::start(answers).await;
            let outcome = server.client(&known).update(&update()).await;
            match (outcome, expected) {
                (Ok(accepted), Ok(expected)) => assert_eq!(accepted, expected, "{row}"),
                (Err(failure), Err(words)) => {
                    let said = failure.to_string();
                    assert!(said.contains(words), "{row}: {said}");
                    assert!(said.contains(&server.address.to_string()), "{row}: {said}");
                }
                (outcome, _) => panic!("{row}: {outcome:?}"),
            }
        });
    }
    tests.join_all().await;
}

#[tokio::test]
async fn a_repetition_is_the_same_octet_for_octet() {
    let key = key();
    let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
    let server = Fake::start(move |request, _| {
        sent.send(request.to_vec()).unwrap();
        Vec::new()
    })
    .await;
    let failure = server.client(&key).update(&update()).await.unwrap_err();
    assert!(matches!(failure, Failure::Silence { .. }), "{failure}");
    let first = received.recv().await.unwrap();
    for _ in 0..2 {
        assert_eq!(received.recv().await.unwrap(), first);
    }
}

#[tokio::test]
async fn what_is_too_large_goes_over_tcp() {
    let key = key();
    let (udp, tcp) = crate::dns_server::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = udp.local_addr().unwrap();
    let signer = key.clone();
    let server = tokio::spawn(async move {
        for large in [true, false] {
            if !large {
                let mut buffer = [0; 2048];
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                let mut cut = response(&buffer[..length], ResponseCode::NoError);
                cut.metadata.truncation = true;
                udp.send_to(&cut.to_vec().unwrap(), from).await.unwrap();
            }
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            assert_eq!(length > 1232, large);
            let mut request = vec![0; length.into()];
            stream.read_exact(&mut request).await.unwrap();
            let response = response(&request, ResponseCode::NoError);
            let answer = signed(&signer, &request, response, NOW);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    let client = Client::new(address, key).with_clock(now);
    let mut large = update();
    for host in 0..100 {
        large.delete_set(name(&format!("host-{host}.svc.test")), RecordType::A);
    }
    client.update(&large).await.unwrap();
    client.update(&update()).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn nothing_listens() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let client = Client::new(address, key());
    let failure = client.update(&update()).await.unwrap_err();
    assert!(matches!(failure, Failure::Network { .. }), "{failure}");
    let local = client.local_address().await.unwrap();
    assert_eq!(local, address.ip());
}

#[tokio::test]
async fn the_zone_is_found_by_its_soa() {
    use ResponseCode::*;
    let soa = |zone: &str| {
        let data = SOA::new(name("ns"), name("root"), 1, 1, 1, 1, 1);
        Record::from_rdata(name(zone), 1, RData::SOA(data))
    };
    // What each server says of each name; all of them know svc.test.
    type Says = Box<dyn Fn(&str, &mut Message) + Send>;
    let rows: Vec<(&str, Says, Result<&str, &str>)> = vec![
        (
            "in the authority section (BIND, Knot)",
            Box::new(move |_, answer| {
                answer.metadata.response_code = NXDomain;
                answer.add_authority(soa("Svc.test"));
            }),
            Ok("svc.test."),
        ),
        (
            "fails for names until registrations are back",
            Box::new(move |asked, answer| match asked {
                "svc.test." => {
                    answer.add_answer(soa("svc.test"));
                }
                _ => answer.metadata.response_code = ServFail,
            }),
            Ok("svc.test."),
        ),
        (
            "a zone that does not hold the name",
            Box::new(move |_, answer| {
                answer.add_authority(soa("other.test"));
            }),
            Err("has no zone that holds _http._tcp.web.svc.test. (NOERROR)"),
        ),
        (
            "one that resolves for others",
            Box::new(move |_, answer| {
                answer.add_authority(soa("."));
            }),
            Err("has no zone"),
        ),
        (
            "one that wants nothing of us",
            Box::new(move |_, answer| answer.metadata.response_code = Refused),
            Err("(REFUSED)"),
        ),
    ];
    for (row, says, expected) in rows {
        let server = Fake::start(move |request, _| {
            let mut answer = response(request, NoError);
            let asked = answer.queries[0].name().to_string();
            says(&asked, &mut answer);
            vec![answer.to_vec().unwrap()]
        })
        .await;
        let found = server
            .client(&key())
            .zone_of(&name("_http._tcp.web.svc.test"))
            .await;
        match (found, expected) {
            (Ok(zone), Ok(expected)) => assert_eq!(zone.to_string(), expected, "{row}"),
            (Err(failure), Err(words)) => {
                assert!(failure.to_string().contains(words), "{row}: {failure}");
            }
            (found, _) => panic!("{row}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn srv_records_of_a_server() {
    let srv = SRV::new(0, 1, 8080, name("h.svc.test"));
    let data = srv.clone();
    let server = Fake::start(move |request, nth| {
        let mut answer = response(request, ResponseCode::NoError);
        match nth {
            0 => {
                for owner in ["web.svc.test", "other.svc.test"] {
                    let data = RData::SRV(data.clone());
                    answer.add_answer(Record::from_rdata(name(owner), 1, data));
                }
            }
            1 => answer.metadata.response_code = ResponseCode::NXDomain,
            _ => answer.metadata.response_code = ResponseCode::ServFail,
        }
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let client = server.client(&key());
    let asked = name("web.svc.test");
    assert_eq!(client.srv(&asked).await.unwrap(), [srv]);
    assert_eq!(client.srv(&asked).await.unwrap(), []);
    let failure = client.srv(&asked).await.unwrap_err();
    assert!(
        failure.to_string().starts_with("SERVFAIL from "),
        "{failure}"
    );
}

proptest::proptest! {
    /// Whatever a peer makes of an answer, it is not believed to be another one.
    #[test]
    fn a_damaged_answer(
        changes in proptest::collection::vec((0_usize..300, proptest::num::u8::ANY), 1..4),
        length in 0_usize..300,
    ) {
        let key = key();
        let update = update();
        let (request, mac) = update.encode(&key, NOW).unwrap();
        let mut granted = response(&request, ResponseCode::NoError);
        let mut edns = edns();
        lease::put(&mut edns, Duration::from_secs(20));
        granted.set_edns(edns);
        let whole = signed(&key, &request, granted, NOW);
        let mut damaged = whole.clone();
        for (at, octet) in changes {
            let at = at % whole.len();
            damaged[at] = octet;
        }
        damaged.truncate(length.max(whole.len() / 2));
        let server = "127.0.0.1:53".parse().unwrap();
        let client = Client::new(server, key).with_clock(now);
        let judge = |bytes: &[u8]| client.judge(&update, &request, &mac, NOW, bytes);
        let lease = Some(Duration::from_secs(20));
        assert!(matches!(judge(&whole), Verdict::Done(Ok(accepted)) if accepted.lease == lease));
        if let Verdict::Done(Ok(accepted)) = judge(&damaged) {
            // Names mean the same in upper case.
            proptest::prop_assert!(damaged.eq_ignore_ascii_case(&whole));
            proptest::prop_assert_eq!(accepted.lease, lease);
        }
    }
}
