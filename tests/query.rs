//! `evenkeel query` as a program: what it prints and how it exits, against a DNS server that
//! misbehaves on command.

#[path = "support/dns.rs"]
mod dns;

use std::net::SocketAddr;
use std::process::Command;

use dns::{DnsServer, Reply, address, address_reply, cname, cut, part_of, srv, srv_reply};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

const NAME: &str = "_http._tcp.web.test";

/// Exit code and standard output.
async fn query(name: &str, servers: &[SocketAddr]) -> (Option<i32>, String) {
    query_with(name, servers, &[]).await
}

async fn query_with(
    name: &str,
    servers: &[SocketAddr],
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["query", name, "--timeout", "300ms"]);
    command.args(arguments);
    for server in servers {
        command.args(["--resolver", &server.to_string()]);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{stderr}");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("text"),
    )
}

#[tokio::test]
async fn tiers_shares_and_where_each_address_comes_from() {
    let server = DnsServer::start().await;
    let reply = srv_reply(
        NAME,
        5,
        &[
            (10, 40, 9003, "b3.test", &["10.0.0.3"]),
            (0, 30, 9001, "b1.test", &["10.0.0.1"]),
            (0, 20, 9002, "b2.test", &[]),
        ],
    );
    server.on(NAME, RecordType::SRV, reply);
    let two = address_reply("b2.test", 7, &["10.0.0.2", "10.0.0.22"]);
    server.on("b2.test", RecordType::A, two);
    let (code, out) = query(NAME, &[server.address()]).await;
    let expected = format!(
        "\
_http._tcp.web.test  SRV, TTL 5s, 3 records, from {}
  priority 0
    60.00 %  10.0.0.1:9001  b1.test, weight 30, glue, TTL 5s
    20.00 %  10.0.0.2:9002  b2.test, weight 20, looked up, TTL 7s
    20.00 %  10.0.0.22:9002  b2.test, weight 20, looked up, TTL 7s
  priority 10, when nobody above can serve
   100.00 %  10.0.0.3:9003  b3.test, weight 40, glue, TTL 5s
",
        server.address()
    );
    assert_eq!((code, out.as_str()), (Some(0), expected.as_str()));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words() {
    let one = |port, target, addresses| srv_reply(NAME, 5, &[(0, 1, port, target, addresses)]);
    let alias = Reply::Records {
        answers: vec![
            cname(NAME, 5, "_http._tcp.real.test"),
            srv("_http._tcp.real.test", 5, (0, 1, 80, "b1.test")),
        ],
        additionals: vec![address("b1.test", 5, "10.0.0.1")],
    };
    let weights = srv_reply(
        NAME,
        0,
        &[
            (0, 0, 80, "b1.test", &["10.0.0.1"]),
            (0, 0, 80, "b2.test", &["10.0.0.2"]),
            (1, 0, 80, "b3.test", &["10.0.0.3"]),
            (1, 9, 80, "b4.test", &["10.0.0.4"]),
        ],
    );
    let cut = Reply::Truncated(Some(Box::new(one(80, "b1.test", &["10.0.0.1"]))));
    let service = srv_reply(
        "_http._tcp.web.default.svc.cluster.local",
        60,
        &[(0, 100, 80, "web.default.svc.cluster.local", &["10.96.0.7"])],
    );
    let kubernetes = "_http._tcp.web.default.svc.cluster.local";
    let negative = Reply::NxDomain(Some(5));
    // (rule, name, reply, exit code, what it must say)
    type Row<'a> = (&'a str, &'a str, Reply, i32, &'a [&'a str]);
    let table: Vec<Row> = vec![
        (
            "NXDOMAIN",
            NAME,
            negative.clone(),
            1,
            &["does not exist (NXDOMAIN)"],
        ),
        (
            "NODATA",
            NAME,
            Reply::NoData(Some(5)),
            1,
            &["no SRV records (NODATA)"],
        ),
        (
            "no port in front",
            "web.test",
            negative.clone(),
            1,
            &["begin with a port and a protocol: _http._tcp.web.test"],
        ),
        (
            "the search list does not go with --resolver",
            "_http._tcp.web",
            negative.clone(),
            1,
            &["search list of resolv.conf does not go with them"],
        ),
        (
            "Kubernetes: a port without a name",
            kubernetes,
            negative,
            1,
            &["a port with `name: http`", "at least one endpoint is ready"],
        ),
        (
            "Kubernetes: a virtual address",
            kubernetes,
            service,
            0,
            &[
                "virtual address of a Service",
                "clusterIP: None",
                "TTL is 60 s",
            ],
        ),
        (
            "port 0",
            NAME,
            one(0, "b1.test", &[]),
            1,
            &["its port is 0", "no endpoint can be used"],
        ),
        (
            "an address as target",
            NAME,
            one(80, "10.0.0.1", &[]),
            1,
            &["not a host name"],
        ),
        ("`.`", NAME, one(0, ".", &[]), 1, &["decidedly not offered"]),
        (
            "a target without an address",
            NAME,
            one(80, "nix.test", &[]),
            1,
            &["target nix.test has no address"],
        ),
        (
            "metadata",
            NAME,
            one(80, "b.test", &["169.254.169.254"]),
            1,
            &["link-local"],
        ),
        (
            "an alias",
            NAME,
            alias,
            0,
            &["alias (CNAME) of _http._tcp.real.test", "100.00 %"],
        ),
        (
            "zero weights, TTL 0",
            NAME,
            weights,
            0,
            &[
                "50.00 %",
                "priority 0: all weights are 0",
                "priority 1: 1 of 2 weights are 0",
                "TTL is 0",
            ],
        ),
        ("truncated", NAME, cut, 0, &["came over TCP"]),
        (
            "truncated, TCP closes",
            NAME,
            Reply::Truncated(None),
            1,
            &["open the port for it"],
        ),
        (
            "SERVFAIL",
            NAME,
            Reply::Code(ResponseCode::ServFail),
            1,
            &["answered Server Failure"],
        ),
        (
            "REFUSED",
            NAME,
            Reply::Code(ResponseCode::Refused),
            1,
            &["serves neither this zone nor us"],
        ),
        (
            "silence",
            NAME,
            Reply::Silence,
            1,
            &["is a DNS server listening there"],
        ),
    ];
    for (rule, name, reply, code, words) in table {
        let server = DnsServer::start().await;
        server.on(name, RecordType::SRV, reply);
        let (exit, out) = query(name, &[server.address()]).await;
        assert_eq!(exit, Some(code), "{rule}:\n{out}");
        for word in words {
            assert!(out.contains(word), "{rule}: `{word}` is missing in\n{out}");
        }
    }
}

#[tokio::test]
async fn a_name_with_addresses_only_says_how_to_use_them() {
    let server = DnsServer::start().await;
    server.on("web.test", RecordType::SRV, Reply::NoData(Some(5)));
    server.on(
        "web.test",
        RecordType::A,
        address_reply("web.test", 5, &["10.0.0.1"]),
    );
    let (code, out) = query("web.test", &[server.address()]).await;
    assert_eq!(code, Some(1));
    assert!(
        out.contains("discover = { a = \"web.test\", port = … }"),
        "{out}"
    );
}

#[tokio::test]
async fn servers_that_differ_are_told_apart() {
    let (first, second, third) = (
        DnsServer::start().await,
        DnsServer::start().await,
        DnsServer::start().await,
    );
    first.only(Reply::Silence);
    second.on(
        NAME,
        RecordType::SRV,
        srv_reply(NAME, 5, &[(0, 1, 80, "b1.test", &["10.0.0.1"])]),
    );
    third.on(
        NAME,
        RecordType::SRV,
        srv_reply(NAME, 5, &[(0, 1, 80, "b2.test", &["10.0.0.2"])]),
    );
    let servers = [first.address(), second.address(), third.address()];
    let (code, out) = query(NAME, &servers).await;
    assert_eq!(code, Some(0), "{out}");
    for word in [
        "did not answer in time",
        "differ: only the first has `0 1 80 b1.test`, only the second has `0 1 80 b2.test`",
    ] {
        assert!(out.contains(word), "`{word}` is missing in\n{out}");
    }
}

/// A server that shows `shown` of `all`, another part each time.
async fn rotating(shown: usize, all: usize, ttl: u32) -> DnsServer {
    let server = DnsServer::start().await;
    let set = move || {
        let host = |n| format!("b{n}.test");
        let glue = |n| vec![address(&host(n), ttl, &format!("10.0.0.{n}"))];
        let record = |n| srv(NAME, ttl, (1, 1, 80, &host(n)));
        (1..=all).map(|n| (record(n), glue(n))).collect()
    };
    server.on(NAME, RecordType::SRV, part_of(set, shown, 11));
    server
}

#[tokio::test]
async fn a_server_that_shows_a_part_is_seen_through() {
    let server = rotating(3, 20, 0).await;
    let (code, out) = query(NAME, &[server.address()]).await;
    assert_eq!(code, Some(0));
    assert_eq!(server.count(NAME, RecordType::SRV), 5);
    let shares = out.matches(", weight 1, glue").count();
    for words in [
        format!("{NAME}  SRV, TTL 0s, 3 of at least {shares} records, from"),
        format!("shows 3 of at least {shares} records, others each time (5 answers)"),
        "one leaves when".to_owned(),
        "enable_truncate = true".to_owned(),
    ] {
        assert!(out.contains(&words), "`{words}` is missing in\n{out}");
    }

    // More questions show more.
    let polls = ["--polls", "120", "--every", "1ms"];
    let (_, out) = query_with(NAME, &[server.address()], &polls).await;
    let words = "shows 3 of at least 20 records, others each time (120 answers)";
    assert!(out.contains(words), "{out}");
    assert!(out.contains("one leaves when 86 answers"), "{out}");
    assert!(out.contains("   5.00 %"), "{out}");

    // And a single one shows a single one.
    let before = server.count(NAME, RecordType::SRV);
    let (_, out) = query_with(NAME, &[server.address()], &["--polls", "1"]).await;
    assert_eq!(server.count(NAME, RecordType::SRV), before + 1);
    assert!(out.contains("3 records, from"), "{out}");
    assert!(!out.contains("rotate"), "{out}");
}

#[tokio::test]
async fn a_set_that_changes_once_is_not_taken_for_a_part() {
    let server = rotating(3, 3, 5).await;
    let before = [
        (0, 1, 80, "old.test", &["10.0.1.1"][..]),
        (0, 1, 80, "b2.test", &["10.0.0.2"][..]),
        (0, 1, 80, "b3.test", &["10.0.0.3"][..]),
    ];
    let before = srv_reply(NAME, 5, &before);
    server.next(NAME, RecordType::SRV, vec![before.clone(), before]);
    let (code, out) = query(NAME, &[server.address()]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("3 records, from"), "{out}");
    assert!(!out.contains("rotate"), "{out}");
}

#[tokio::test]
async fn eight_records_from_a_cache_may_be_a_part() {
    let server = rotating(8, 8, 10).await;
    let (_, out) = query(NAME, &[server.address()]).await;
    assert!(out.contains("with `--polls 5 --every 10s`"), "{out}");
    let server = rotating(8, 40, 10).await;
    let (_, out) = query(NAME, &[server.address()]).await;
    assert!(out.contains("the server shows 8 of at least"), "{out}");
    assert!(out.contains("AWS Cloud Map shows eight at most\n"), "{out}");
}

#[tokio::test]
async fn servers_that_rotate_are_not_compared() {
    let (first, second) = (rotating(3, 20, 0).await, rotating(3, 20, 0).await);
    let servers = [first.address(), second.address()];
    let (_, out) = query(NAME, &servers).await;
    assert!(!out.contains("differ"), "{out}");
    second.on(NAME, RecordType::SRV, Reply::NxDomain(Some(0)));
    let (_, out) = query(NAME, &servers).await;
    assert!(out.contains("differ"), "but not when one has none\n{out}");
}

#[tokio::test]
async fn an_answer_that_is_cut_silently_is_seen_through() {
    let server = DnsServer::start().await;
    let set = || {
        let host = |n| format!("b{n:03}.test");
        let record = |n| srv(NAME, 5, (1, 1, 80, &host(n)));
        let glue = |n| vec![address(&host(n), 5, &format!("10.0.0.{n}"))];
        (1..=40).map(|n| (record(n), glue(n))).collect()
    };
    server.on(NAME, RecordType::SRV, cut(set));
    let (code, out) = query(NAME, &[server.address()]).await;
    assert_eq!(code, Some(0));
    for words in [
        "40 records, from",
        "over UDP the server shows 26 of 40 records and does not say that it cuts",
        "is asked over TCP from now on",
    ] {
        assert!(out.contains(words), "`{words}` is missing in\n{out}");
    }
    assert!(!out.contains("rotate"), "{out}");
    assert_eq!(server.by_transport(NAME, RecordType::SRV).0, 1);
}

/// In a container, /etc/resolv.conf is Docker's, and the configuration names somebody else.
#[tokio::test]
async fn without_a_resolver_those_of_the_configuration_are_asked() {
    let [one, other] = [DnsServer::start().await, DnsServer::start().await];
    let records = [(0, 1, 9001, "b1.test", &["10.0.0.1"][..])];
    one.on(NAME, RecordType::SRV, srv_reply(NAME, 5, &records));
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[dns]\nservers = [\"{}\"]\n[[listener]]\naddress = \"127.0.0.1:1\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"b\"\ndiscover = {{ srv = \"b.test.\" }}\ndns = {{ servers = [\"{}\"] }}\n\
         [[service]]\nname = \"a\"\ndiscover = {{ srv = \"{NAME}.\" }}\n\
         [[route]]\nservice = \"a\"\n[[route]]\npath = \"/b\"\nservice = \"b\"\n",
        one.address(),
        other.address(),
    );
    std::fs::write(folder.path().join("evenkeel.toml"), text).expect("writable");
    let asked = |name: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(["query", name, "--timeout", "300ms"]);
        command
            .current_dir(folder.path())
            .env_remove("EVENKEEL_CONFIG");
        async move {
            let run = tokio::task::spawn_blocking(move || command.output());
            let output = run.await.unwrap().expect("the program runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    let out = asked(NAME).await;
    assert!(out.contains(&format!("from {}", one.address())), "{out}");
    let out = asked("none.test").await;
    let expected = format!("(NXDOMAIN), says {}", other.address());
    assert!(out.contains(&expected), "{out}");
}
