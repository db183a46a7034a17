//! Which answers are asked for over TCP, one row each.

use std::str::FromStr;

use hickory_resolver::proto::op::OpCode;
use hickory_resolver::proto::rr::rdata::A;

use super::*;

const PAYLOAD: usize = 1232;

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn question() -> Question {
    (name("_http._tcp.web.test."), RecordType::SRV)
}

/// Of these members with such a weight, each with its address.
fn message(members: &[u16], weight: u16) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    for port in members {
        let target = name("b.test.");
        let srv = RData::SRV(SRV::new(0, weight, *port, target.clone()));
        message.add_answer(Record::from_rdata(question().0, 1, srv));
        if message.additionals.is_empty() {
            let address = RData::A(A::new(10, 0, 0, 1));
            message.add_additional(Record::from_rdata(target, 1, address));
        }
    }
    message
}

/// An answer over UDP, so many octets below the payload; whether TCP is asked.
fn udp(cuts: &mut Cuts, members: &[u16], room: usize, now: Instant) -> bool {
    let sizes = (PAYLOAD - room, PAYLOAD);
    cuts.over_udp(&question(), &message(members, 1), sizes, now)
}

fn tcp(cuts: &mut Cuts, members: &[u16], size: usize) -> Transport {
    cuts.over_tcp(&question(), &message(members, 1), (size, PAYLOAD))
}

#[test]
fn the_room_that_is_left_makes_an_answer_suspect() {
    let now = Instant::now();
    // Owner 21, type to length 10, six numbers, target 8; its address: 8, 10 and 4.
    let largest = 21 + 10 + 6 + 8 + 8 + 10 + 4;
    for (room, expected) in [
        (0, true),
        (largest + SLACK - 1, true),
        (largest + SLACK, false),
        (PAYLOAD - 100, false),
    ] {
        let mut cuts = Cuts::default();
        assert_eq!(udp(&mut cuts, &[1, 2], room, now), expected, "{room}");
    }
    let mut cuts = Cuts::default();
    let sizes = (500, 512);
    assert!(cuts.over_udp(&question(), &message(&[1], 1), sizes, now));
}

#[test]
fn a_server_that_gives_everything_is_asked_once_a_change() {
    let (mut cuts, now) = (Cuts::default(), Instant::now());
    // (rule, members over UDP, are they asked for over TCP?)
    for (rule, members, asked) in [
        ("the first answer", &[1, 2, 3][..], true),
        ("the same", &[1, 2, 3], false),
        ("in another order", &[3, 1, 2], false),
        ("more", &[1, 2, 3, 4], false),
        ("somebody is missing", &[1, 2, 4], true),
        ("and still is", &[1, 2, 4], false),
    ] {
        assert_eq!(udp(&mut cuts, members, 0, now), asked, "{rule}");
        if asked {
            assert_eq!(tcp(&mut cuts, members, PAYLOAD), Transport::Whole, "{rule}");
        }
    }
    let sizes = (PAYLOAD, PAYLOAD);
    let heavier = message(&[1, 2, 4], 9);
    assert!(!cuts.over_udp(&question(), &heavier, sizes, now), "weights");
    assert!(!udp(&mut cuts, &[1], 600, now), "there is room");
    assert!(
        udp(&mut cuts, &[1, 2], 0, now),
        "after that it is the first"
    );
}

#[test]
fn what_tcp_has_more_of_is_asked_over_tcp_until_it_fits() {
    let (mut cuts, now) = (Cuts::default(), Instant::now());
    assert!(udp(&mut cuts, &[1, 2], 0, now));
    let cut = |all| Transport::Cut { shown: 2, all };
    assert_eq!(tcp(&mut cuts, &[1, 2, 3, 4], 2000), cut(4));
    assert!(cuts.is_cut(&question()));
    assert_eq!(tcp(&mut cuts, &[1, 2, 3], 1300), cut(3));
    assert!(cuts.is_cut(&question()), "it does not fit");
    tcp(&mut cuts, &[1, 2], PAYLOAD);
    assert!(cuts.is_cut(&question()), "it just fits");
    assert_eq!(tcp(&mut cuts, &[1], 600), Transport::Whole);
    assert!(!cuts.is_cut(&question()));
}

#[test]
fn when_tcp_fails_it_is_left_alone_for_a_while() {
    let (mut cuts, now) = (Cuts::default(), Instant::now());
    assert!(udp(&mut cuts, &[1, 2], 0, now));
    cuts.failed(&question(), "is not there".to_owned(), now);
    let unchecked = Transport::Unchecked("is not there".to_owned());
    assert_eq!(cuts.transport(&question()), unchecked);
    assert!(!udp(&mut cuts, &[1, 3], 0, now + PAUSE / 2));
    assert!(udp(&mut cuts, &[1, 4], 0, now + PAUSE));
    assert_eq!(tcp(&mut cuts, &[1, 4], PAYLOAD), Transport::Whole);
    assert_eq!(cuts.transport(&question()), Transport::Udp);
}

#[test]
fn what_is_remembered_has_a_bound() {
    let (mut cuts, now) = (Cuts::default(), Instant::now());
    for n in 0..=MAX_QUESTIONS {
        let question = (name(&format!("b{n}.test.")), RecordType::SRV);
        let sizes = (PAYLOAD, PAYLOAD);
        let asked = cuts.over_udp(&question, &message(&[1], 1), sizes, now);
        assert_eq!(asked, n < MAX_QUESTIONS);
    }
}
