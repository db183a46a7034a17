//! Any octets as a DNS message to `evenkeel dns`, as they are and, if they are an update, signed:
//! what comes back is a message, the answer to that one, and no larger than it may be.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evenkeel::dns_server::key::Key;
use evenkeel::dns_server::{Bounds, Grant, Names, SrvData, Updates, Zone, without_sockets};
use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::Name;
use libfuzzer_sys::fuzz_target;

type Server = Box<dyn Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync>;

static SERVER: LazyLock<(Server, Key)> = LazyLock::new(|| {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let zone = Zone::new("t.").unwrap();
    for n in 0..60 {
        let (target, ttl) = (format!("b{n}.t."), Duration::from_secs(5));
        zone.add_srv("_a._b.t.", ttl, SrvData::new(0, n, 80, &target)).unwrap();
        zone.set_addresses(&target, ttl, &[[10, 0, 0, n as u8].into()]).unwrap();
    }
    zone.set_alias("c.t.", Duration::from_secs(5), "_a._b.t.").unwrap();
    let key = Key::generate(name("k.")).unwrap();
    let updates = Updates {
        grants: vec![Grant {
            key: key.clone(),
            names: vec![Names::Below(name("t."))],
        }],
        max_lease: Duration::from_secs(30),
        bounds: Bounds {
            names: 200,
            records: 500,
            ..Bounds::default()
        },
        rate: 1_000_000_000,
        state: None,
    };
    (Box::new(without_sockets(zone, updates).unwrap()), key)
});

fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else {
        return;
    };
    let (server, key) = &*SERVER;
    let over_tcp = first & 1 == 1;
    let parsed = Message::from_vec(octets);
    let mut signed = None;
    if let Ok(message) = &parsed
        && message.metadata.op_code == OpCode::Update
        && first & 2 == 2
    {
        let mut message = message.clone();
        message.take_signature();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if let Ok((signature, _)) = key.signer().sign_message(&message, now) {
            message.set_signature(signature);
            signed = message.to_vec().ok();
        }
    }
    let question = signed.as_deref().unwrap_or(octets);
    let Some(answer) = server(question, over_tcp) else {
        return;
    };
    assert_eq!(answer[..2], question[..2], "the id");
    assert!(answer[2] & 0x80 != 0, "an answer");
    let payload = match &parsed {
        Ok(message) => message.edns.as_ref().map_or(512, |edns| edns.max_payload()),
        Err(_) => 512,
    };
    if !over_tcp {
        // What the message repeats of a question has to be in it, however long that is.
        let limit = usize::from(payload.clamp(512, 1232)).max(question.len() + 400);
        assert!(answer.len() <= limit, "{} octets", answer.len());
    }
    Message::from_vec(&answer).expect("what is sent can be read");
});
