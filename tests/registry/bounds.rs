//! What strangers can use up.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::signatures::{ZONE, ask, name, started};
use crate::support::PATIENCE;
use crate::zone::ZoneServer;

fn question() -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(name(ZONE), RecordType::SOA));
    message.to_vec().expect("written")
}

fn framed(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes()[..], octets].concat()
}

fn ask_over_tcp(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&framed(&question()))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut octets = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut octets)?;
    Ok(octets)
}

fn connect(server: &ZoneServer) -> TcpStream {
    TcpStream::connect(server.address).expect("connected")
}

#[test]
fn connections_that_are_held_open_keep_nobody_out() {
    let server = started();
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&server);
        assert!(
            ask_over_tcp(&mut stream).is_ok(),
            "connection {}",
            held.len()
        );
        held.push(stream);
    }
    // Of one address the latest 64 are open, the others were closed for them.
    let open = held
        .iter_mut()
        .rev()
        .take(60)
        .all(|s| ask_over_tcp(s).is_ok());
    assert!(open, "those that speak stay");
    let mut first = held.remove(0);
    assert!(ask_over_tcp(&mut first).is_err(), "the quietest made room");
}

/// A question under a long name, signed with a key that nobody has: pointers in it are names in
/// full in the answer.
fn signed_with_pointers() -> Vec<u8> {
    let mut octets = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for _ in 0..3 {
        octets.push(63);
        octets.extend([b'x'; 63]);
    }
    octets.extend([50]);
    octets.extend([b'x'; 50]);
    octets.extend([0, 0, 1, 0, 1]);
    // TSIG under the question's name, its algorithm called the same.
    octets.extend([0xc0, 12, 0, 250, 0, 255, 0, 0, 0, 0, 0, 18, 0xc0, 12]);
    octets.extend([0, 0, 0, 0, 0, 1, 1, 44, 0, 0, 0, 7, 0, 0, 0, 0]);
    octets
}

#[test]
fn a_forged_address_gets_little_more_than_was_sent() {
    let server = started();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server.address).expect("connected");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    let request = signed_with_pointers();
    let (mut received, mut largest, mut smallest) = (0, 0, usize::MAX);
    let mut buffer = [0; 2048];
    let begun = tokio::time::Instant::now();
    let rounds = 5_000;
    for _ in 0..rounds {
        socket.send(&request).expect("sent");
        if let Ok(length) = socket.recv(&mut buffer) {
            received += length;
            largest = largest.max(length);
            smallest = smallest.min(length);
        }
    }
    let gained = received.saturating_sub(rounds * request.len());
    let allowed = (1 << 20) as f64 + begun.elapsed().as_secs_f64() * 128.0 * 1024.0;
    println!(
        "{} octets each got {largest} at most, {smallest} at least",
        request.len()
    );
    assert!(largest > request.len(), "else this shows nothing");
    assert!(
        (gained as f64) < allowed,
        "{gained} octets more than were sent"
    );
    assert!(
        smallest <= 12 || (gained as f64) < 1048576.0,
        "at last a header alone"
    );
}

#[test]
fn pointers_to_pointers_are_not_followed() {
    let server = started();
    // An update with a chain of pointers in an opaque record, and names that begin at its end.
    let mut octets = vec![0, 7, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    octets.extend(b"\x03svc\x04test\0\0\x06\0\x01");
    let begin = octets.len();
    octets.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0]);
    let chain = 7_000_u16;
    octets.extend((2 * chain).to_be_bytes());
    let mut to = 12_u16;
    for _ in 0..chain {
        let here = octets.len() as u16;
        octets.extend((0xc000 | to).to_be_bytes());
        to = here;
    }
    let mut records = 1_u16;
    while octets.len() < 60_000 {
        octets.extend((0xc000 | to).to_be_bytes());
        octets.extend([0, 1, 0, 255, 0, 0, 0, 0, 0, 0]);
        records += 1;
    }
    octets[8..10].copy_from_slice(&records.to_be_bytes());
    assert!(begin > 12);
    let mut stream = connect(&server);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    for _ in 0..20 {
        stream.write_all(&framed(&octets)).expect("sent");
        let mut answer = [0; 14];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[5] & 0x0f, 1, "FORMERR");
    }
    assert!(!server.logged("did not run for a while"));
    assert_eq!(
        ask(&server, ZONE, RecordType::SOA),
        (ResponseCode::NoError, 1)
    );
}
