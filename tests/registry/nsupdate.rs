//! Conformance, as BIND's `nsupdate` sees it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::require;
use crate::zone::ZoneServer;

const ZONE: &str = r#"
zone = "svc.test"
max_lease = "2s"
[[key]]
file = "web.key"
names = ["_http._tcp.web", "*.web"]
[[key]]
file = "admin.key"
"#;

/// What nsupdate says to these lines; empty if it is content.
fn nsupdate(server: SocketAddr, options: &[&str], lines: &[&str]) -> String {
    let mut child = Command::new("nsupdate")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsupdate starts");
    let mut input = child.stdin.take().expect("it is piped");
    writeln!(
        input,
        "server {} {}\nzone svc.test",
        server.ip(),
        server.port()
    )
    .expect("it reads");
    for line in lines {
        writeln!(input, "{line}").expect("it reads");
    }
    writeln!(input, "send").expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("nsupdate ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text").trim().to_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

/// What dig finds, in one line.
fn dig(server: SocketAddr, question: &[&str]) -> String {
    let port = server.port().to_string();
    let output = Command::new("dig")
        .args(["@127.0.0.1", "-p", &port, "+short", "+norecurse"])
        .args(question)
        .output()
        .expect("dig starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join(" | ")
}

const WEB: &str = "_http._tcp.web.svc.test";

#[test]
fn conformance() {
    for tool in ["nsupdate", "dig"] {
        if !require(tool) {
            return;
        }
    }
    let server = ZoneServer::configured(ZONE);
    crate::support::wait_until("it answers as usual", || server.logged("answers as usual"));
    let at = server.address;
    let key = |file: &str| server.path(file).display().to_string();
    let (admin, web) = (key("admin.key"), key("web.key"));
    let as_admin = ["-k", admin.as_str()];
    let as_web = ["-k", web.as_str()];
    let over_tcp = ["-v", "-k", admin.as_str()];
    let text = std::fs::read_to_string(&admin).expect("made");
    let secret = text.split('"').nth(3).expect("a secret");
    let other_name = format!("hmac-sha256:nobody:{secret}");
    let other_algorithm = format!("hmac-sha512:admin:{secret}");
    let other_secret = format!("hmac-sha256:admin:{}=", "A".repeat(43));

    // Rule, options, lines, what nsupdate says, and what b1 and web have afterwards.
    type Row<'a> = (
        &'a str,
        &'a [&'a str],
        &'a [&'a str],
        &'a str,
        &'a str,
        &'a str,
    );
    let table: &[Row<'_>] = &[
        (
            "add, UDP",
            &as_admin,
            &["add b1.web.svc.test 5 A 10.0.0.1"],
            "",
            "10.0.0.1",
            "",
        ),
        (
            "add, TCP",
            &over_tcp,
            &["add b1.web.svc.test 5 A 10.0.0.2"],
            "",
            "10.0.0.1 | 10.0.0.2",
            "",
        ),
        (
            "several names in one message",
            &as_admin,
            &[
                "add _http._tcp.web.svc.test 5 SRV 0 1 80 b1.web.svc.test",
                "add b1.web.svc.test 5 A 10.0.0.3",
            ],
            "",
            "10.0.0.1 | 10.0.0.2 | 10.0.0.3",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "delete one",
            &as_admin,
            &["del b1.web.svc.test A 10.0.0.3"],
            "",
            "10.0.0.1 | 10.0.0.2",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "delete what is not there",
            &as_admin,
            &["del b1.web.svc.test A 10.0.0.9"],
            "",
            "10.0.0.1 | 10.0.0.2",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "replace in one message",
            &as_admin,
            &["del b1.web.svc.test A", "add b1.web.svc.test 5 A 10.0.0.7"],
            "",
            "10.0.0.7",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "a prerequisite that holds: the name is in use",
            &as_admin,
            &[
                "prereq yxdomain b1.web.svc.test",
                "add b1.web.svc.test 5 A 10.0.0.8",
            ],
            "",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "one that does not",
            &as_admin,
            &["prereq yxdomain nix.svc.test", "del b1.web.svc.test"],
            "update failed: NXDOMAIN",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "the name is not in use, but is",
            &as_admin,
            &["prereq nxdomain b1.web.svc.test", "del b1.web.svc.test"],
            "update failed: YXDOMAIN",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "the set exists, but does not",
            &as_admin,
            &["prereq yxrrset b1.web.svc.test AAAA", "del b1.web.svc.test"],
            "update failed: NXRRSET",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "the set does not exist, but does",
            &as_admin,
            &["prereq nxrrset b1.web.svc.test A", "del b1.web.svc.test"],
            "update failed: YXRRSET",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "the set is this, but is not",
            &as_admin,
            &[
                "prereq yxrrset b1.web.svc.test A 10.0.0.7",
                "del b1.web.svc.test",
            ],
            "update failed: NXRRSET",
            "10.0.0.7 | 10.0.0.8",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "the set is this: compare and set",
            &as_admin,
            &[
                "prereq yxrrset b1.web.svc.test A 10.0.0.8",
                "prereq yxrrset b1.web.svc.test A 10.0.0.7",
                "del b1.web.svc.test A",
                "add b1.web.svc.test 5 A 10.0.0.1",
            ],
            "",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "no key",
            &[],
            &["del b1.web.svc.test"],
            "update failed: REFUSED",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "another secret",
            &["-y", &other_secret],
            &["del b1.web.svc.test"],
            "; TSIG error with server: tsig indicates error\nupdate failed: NOTAUTH(BADSIG)",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "a key of another name",
            &["-y", &other_name],
            &["del b1.web.svc.test"],
            "; TSIG error with server: tsig indicates error\nupdate failed: NOTAUTH(BADKEY)",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "a key of another algorithm",
            &["-y", &other_algorithm],
            &["del b1.web.svc.test"],
            "; TSIG error with server: tsig indicates error\nupdate failed: NOTAUTH(BADKEY)",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test.",
        ),
        (
            "a key for this name",
            &as_web,
            &["add _http._tcp.web.svc.test 5 SRV 0 2 81 b1.web.svc.test"],
            "",
            "10.0.0.1",
            "0 1 80 b1.web.svc.test. | 0 2 81 b1.web.svc.test.",
        ),
        (
            "and for names below it",
            &as_web,
            &["add b1.web.svc.test 5 A 10.0.0.2"],
            "",
            "10.0.0.1 | 10.0.0.2",
            "0 1 80 b1.web.svc.test. | 0 2 81 b1.web.svc.test.",
        ),
        (
            "a key for another name",
            &as_web,
            &["add _http._tcp.shop.svc.test 5 SRV 0 1 80 b1.web.svc.test"],
            "update failed: REFUSED",
            "10.0.0.1 | 10.0.0.2",
            "0 1 80 b1.web.svc.test. | 0 2 81 b1.web.svc.test.",
        ),
        (
            "all or nothing: the last one is not allowed",
            &as_web,
            &["del b1.web.svc.test", "del web.svc.test"],
            "update failed: REFUSED",
            "10.0.0.1 | 10.0.0.2",
            "0 1 80 b1.web.svc.test. | 0 2 81 b1.web.svc.test.",
        ),
        (
            "delete a set",
            &as_admin,
            &["del _http._tcp.web.svc.test SRV"],
            "",
            "10.0.0.1 | 10.0.0.2",
            "",
        ),
        (
            "delete a name",
            &as_admin,
            &["del b1.web.svc.test"],
            "",
            "",
            "",
        ),
    ];
    for (rule, options, lines, said, b1, web) in table {
        let lines: Vec<String> = lines
            .iter()
            .map(|line| match line.starts_with("prereq") {
                true => (*line).to_owned(),
                false => format!("update {line}"),
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(nsupdate(at, options, &lines), *said, "{rule}");
        assert_eq!(dig(at, &["b1.web.svc.test", "A"]), *b1, "{rule}");
        assert_eq!(dig(at, &[WEB, "SRV"]), *web, "{rule}");
        // A signed question gets a signed answer, which dig checks.
        assert_eq!(dig(at, &["-k", &admin, WEB, "SRV"]), *web, "{rule}");
    }
}

#[test]
fn a_hundred_records_in_one_message_and_back() {
    for tool in ["nsupdate", "dig"] {
        if !require(tool) {
            return;
        }
    }
    let server = ZoneServer::with_key("2s", &[]);
    let key = server.path("k.key").display().to_string();
    let lines: Vec<String> = (0..100)
        .map(|n| format!("update add {WEB} 5 SRV 0 {n} 80 b{n}.web.svc.test"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(nsupdate(server.address, &["-k", &key], &lines), "");
    crate::support::wait_until("it answers as usual", || server.logged("answers as usual"));
    let found = dig(server.address, &[WEB, "SRV"]);
    assert_eq!(
        found.matches(" | ").count(),
        99,
        "over UDP it is truncated, over TCP whole"
    );
}
