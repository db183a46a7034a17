//! For how long a registration holds, and what restarts do to it.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::signatures::{add, ask, code, exchange, remove_all, signed, unix_now};
use crate::support::{pause, wait_until};
use crate::zone::ZoneServer;

const HERE: (ResponseCode, usize) = (ResponseCode::NoError, 1);
const GONE: (ResponseCode, usize) = (ResponseCode::NXDomain, 0);
const UNKNOWN: (ResponseCode, usize) = (ResponseCode::ServFail, 0);

/// Registers an address with this lease; the lease that was granted.
fn register(server: &ZoneServer, owner: &str, lease: Option<u32>) -> Option<u32> {
    let key = server.key("k.key");
    let request = signed(&key, vec![add(owner, 1)], lease, unix_now());
    let answer = exchange(server, &request);
    assert_eq!(code(&answer), ResponseCode::NoError);
    let answer = Message::from_vec(&answer).expect("a message");
    let edns = answer.edns.expect("EDNS is answered with EDNS");
    match edns.option(EdnsCode::UL)? {
        EdnsOption::Unknown(2, octets) => {
            let octets = octets.as_slice().try_into().expect("four octets");
            Some(u32::from_be_bytes(octets))
        }
        other => panic!("{other:?}"),
    }
}

fn as_usual(server: &ZoneServer) {
    wait_until("it answers as usual", || server.logged("answers as usual"));
}

#[test]
fn granted_renewed_and_run_out() {
    let server = ZoneServer::with_key("3s", &[]);
    assert_eq!(
        register(&server, "keeps.svc.test.", None),
        None,
        "no lease was asked for"
    );
    assert_eq!(
        register(&server, "short.svc.test.", Some(1)),
        Some(2),
        "the shortest"
    );
    as_usual(&server);
    assert_eq!(
        register(&server, "long.svc.test.", Some(86_400)),
        Some(3),
        "the longest"
    );
    let begun = Instant::now();
    assert_eq!(register(&server, "renewed.svc.test.", Some(3)), Some(3));
    let mut left_at = None;
    wait_until("the other's lease runs out", || {
        // As its registrar would: long before the lease ends.
        register(&server, "renewed.svc.test.", Some(3));
        assert_eq!(ask(&server, "renewed.svc.test.", RecordType::A), HERE);
        pause(Duration::from_millis(100));
        let gone = ask(&server, "long.svc.test.", RecordType::A) == GONE;
        left_at = gone.then(|| begun.elapsed());
        gone
    });
    let left_at = left_at.expect("waited for");
    assert!(left_at > Duration::from_millis(2500), "{left_at:?}");
    wait_until("and so does the short one", || {
        ask(&server, "short.svc.test.", RecordType::A) == GONE
    });
    assert_eq!(
        ask(&server, "keeps.svc.test.", RecordType::A),
        HERE,
        "until it is removed"
    );
    wait_until("the log says so", || server.logged("its lease ran out"));
}

#[test]
fn a_process_that_did_not_run_takes_nobodys_lease() {
    let server = ZoneServer::with_key("3s", &[]);
    as_usual(&server);
    register(&server, "x.svc.test.", Some(3));
    server.signal(Signal::STOP);
    pause(Duration::from_secs(4));
    server.signal(Signal::CONT);
    wait_until("it notices", || server.logged("did not run for a while"));
    assert_eq!(ask(&server, "x.svc.test.", RecordType::A), HERE);
    wait_until("then the lease runs out as usual", || {
        ask(&server, "x.svc.test.", RecordType::A) == GONE
    });
}

#[test]
fn a_restart_without_a_stored_zone_says_nothing_for_one_lease() {
    let mut server = ZoneServer::with_key("2s", &[]);
    as_usual(&server);
    register(&server, "x.svc.test.", Some(2));
    assert_eq!(ask(&server, "x.svc.test.", RecordType::A), HERE);
    server.crash_and_restart();
    assert_eq!(
        ask(&server, "x.svc.test.", RecordType::A),
        UNKNOWN,
        "nobody has registered"
    );
    assert_eq!(
        ask(&server, "other.svc.test.", RecordType::A),
        UNKNOWN,
        "nor who else there was"
    );
    assert_eq!(
        ask(&server, "svc.test.", RecordType::SOA),
        HERE,
        "else nobody could register"
    );
    let below = ask(&server, "_http._tcp.x.svc.test.", RecordType::SOA);
    assert_eq!(below, (ResponseCode::NoError, 0), "which zone it is in");
    assert_eq!(
        ask(&server, "x.example.", RecordType::A),
        (ResponseCode::Refused, 0)
    );
    while !server.logged("answers as usual") {
        register(&server, "x.svc.test.", Some(2));
        let answer = ask(&server, "x.svc.test.", RecordType::A);
        assert!([UNKNOWN, HERE].contains(&answer), "{answer:?}");
        pause(Duration::from_millis(50));
    }
    assert_eq!(ask(&server, "x.svc.test.", RecordType::A), HERE);
    assert_eq!(ask(&server, "other.svc.test.", RecordType::A), GONE);
}

#[test]
fn a_stored_zone_is_there_at_once() {
    let mut server = ZoneServer::with_key("2s", &["--state", "zone.state"]);
    as_usual(&server);
    register(&server, "leased.svc.test.", Some(2));
    register(&server, "keeps.svc.test.", None);
    register(&server, "removed.svc.test.", None);
    let key = server.key("k.key");
    let removal = signed(
        &key,
        vec![remove_all("removed.svc.test.")],
        None,
        unix_now(),
    );
    assert_eq!(code(&exchange(&server, &removal)), ResponseCode::NoError);
    // Whoever has an answer has it on disk: a crash loses nothing.
    server.crash_and_restart();
    assert_eq!(ask(&server, "leased.svc.test.", RecordType::A), HERE);
    assert_eq!(ask(&server, "keeps.svc.test.", RecordType::A), HERE);
    assert_eq!(ask(&server, "removed.svc.test.", RecordType::A), GONE);
    wait_until("the lease began anew, and runs out", || {
        ask(&server, "leased.svc.test.", RecordType::A) == GONE
    });
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    assert_eq!(ask(&server, "leased.svc.test.", RecordType::A), GONE);
    assert_eq!(ask(&server, "keeps.svc.test.", RecordType::A), HERE);
}

#[test]
fn a_restart_before_everybody_has_registered_goes_on_where_it_was() {
    let mut server = ZoneServer::with_key("3s", &["--state", "zone.state"]);
    register(&server, "x.svc.test.", Some(3));
    server.crash_and_restart();
    assert_eq!(
        ask(&server, "x.svc.test.", RecordType::A),
        UNKNOWN,
        "what is stored is not all"
    );
    let stored = server.path("zone.state");
    wait_until("what is stored is all", || {
        std::fs::read_to_string(&stored).is_ok_and(|text| !text.contains("recovering"))
    });
    server.crash_and_restart();
    let answer = ask(&server, "nobody.svc.test.", RecordType::A);
    assert_eq!(answer, GONE, "now it is");
}

#[test]
fn what_is_no_stored_zone_is_left_alone() {
    let mut server = ZoneServer::with_key("2s", &["--state", "zone.state"]);
    server.kill();
    std::fs::write(server.path("zone.state"), "# my notes\n").expect("written");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args([
            "dns",
            "--zone",
            "svc.test",
            "--listen",
            "127.0.0.1:0",
            "--state",
            "zone.state",
        ])
        .current_dir(server.folder())
        .output()
        .expect("the program runs");
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("zone.state:1: not a stored zone"), "{said}");
    let kept = std::fs::read_to_string(server.path("zone.state")).expect("still there");
    assert_eq!(kept, "# my notes\n");
}

#[test]
fn names_are_read_back_as_they_were_stored() {
    let mut server = ZoneServer::with_key("2s", &["--state", "zone.state"]);
    // hickory shows the first as what it stands for, and escapes the second.
    let names = ["xn--mnchen-3ya.svc.test.", "-a.svc.test.", "_x-1.svc.test."];
    for owner in names {
        register(&server, owner, None);
    }
    wait_until("what is stored is all", || {
        std::fs::read_to_string(server.path("zone.state"))
            .is_ok_and(|text| !text.contains("recovering"))
    });
    server.crash_and_restart();
    for owner in names {
        assert_eq!(ask(&server, owner, RecordType::A), HERE, "{owner}");
    }
}

#[test]
fn a_file_that_was_cut_is_not_taken_for_a_zone() {
    let mut server = ZoneServer::with_key("2s", &["--state", "zone.state"]);
    register(&server, "a.svc.test.", Some(2));
    register(&server, "b.svc.test.", Some(2));
    server.kill();
    let whole = std::fs::read_to_string(server.path("zone.state")).expect("stored");
    for length in 0..whole.len() {
        std::fs::write(server.path("zone.state"), &whole[..length]).expect("written");
        // Starting a process for each would take minutes; every tenth, and all of the last lines.
        if length % 10 != 0 && length + 40 < whole.len() {
            continue;
        }
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args([
                "dns",
                "--zone",
                "svc.test",
                "--key",
                "k.key",
                "--state",
                "zone.state",
            ])
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(server.folder())
            .output()
            .expect("the program runs");
        assert_eq!(
            run.status.code(),
            Some(1),
            "{length} of {} bytes",
            whole.len()
        );
    }
    std::fs::write(server.path("zone.state"), &whole).expect("written");
    server.restart();
}

#[test]
fn a_shorter_longest_lease_takes_nobodys_registration() {
    let mut server = ZoneServer::with_key("6s", &["--state", "zone.state"]);
    register(&server, "x.svc.test.", Some(6));
    as_usual(&server);
    register(&server, "x.svc.test.", Some(6));
    server.kill();
    let file = server.path("zone.state");
    let stored = std::fs::read_to_string(&file).expect("stored");
    std::fs::write(&file, stored.replace("; serial", "; recovering\n; serial")).expect("written");
    let begun = Instant::now();
    server.restart_with_max_lease("2s");
    wait_until("it says for how long", || {
        server.logged("answers SERVFAIL for 6s")
    });
    as_usual(&server);
    assert!(begun.elapsed() > Duration::from_secs(4));
}
