//! What DNS can do wrong, under traffic: one row for each fault.
//!
//! Every row has a balancer of its own (the real binary), a DNS server that lies on command, three
//! backends that keep books, and clients that never stop asking, over TLS in every other row. It
//! begins with the backends `a` and `b`; then the fault; then DNS is well again and lists `b` and
//! `c`. Shown for each: no request fails while a backend of the last good set lives; the right
//! backends are in use during the fault and after it; that the records are stale, or why one is
//! not used, can be read off the metrics and the log; by the books of both sides no POST is lost
//! and none arrives twice.

#[path = "support/dns.rs"]
mod dns;
#[path = "support/ledger.rs"]
mod ledger;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep};

use dns::{DnsServer, Reply, address, address_reply, cname, cname_reply, srv};
use ledger::{Keep, Ledger};
use support::server::{Certificate, Folder, Server};
use traffic::{Record, Target, Traffic};

/// The name that is watched.
const NAME: &str = "_http._tcp.web.test";

/// The fixed ticker of all rows: a row has to see several questions.
const INTERVAL: Duration = Duration::from_millis(200);

/// Requests in a row that tell who is in use. Two or three backends of equal weight take turns.
const WINDOW: usize = 30;

/// Rows at once: what two cores can serve without a test of patience.
const AT_ONCE: usize = 8;

/// Backends, and their host names.
const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

struct Row {
    /// The fault, and what must come of it.
    rule: &'static str,
    /// Name servers: the fault is the first one's unless it says otherwise.
    servers: usize,
    /// Makes DNS do it.
    fault: fn(&mut Stage),
    /// Who is in use while it lasts. Nobody: every request is answered with 503.
    during: &'static [usize],
    /// Is it said that what is in use is old?
    stale: bool,
    /// What the log must say about it.
    says: &'static str,
    /// Who may be in use for a moment besides, before the fault is taken for one.
    briefly: &'static [usize],
    /// Before nobody is in use any more, so many intervals must pass.
    believed_after: u32,
    /// It is there from the start: nobody was ever known.
    down_at_start: bool,
    /// The name servers listen on TCP too.
    tcp: bool,
    /// Its traffic has no POST.
    repeatable: bool,
}

impl Row {
    const fn new(rule: &'static str, fault: fn(&mut Stage), during: &'static [usize]) -> Row {
        Row {
            rule,
            servers: 1,
            fault,
            during,
            stale: false,
            says: "",
            briefly: &[],
            believed_after: 0,
            down_at_start: false,
            tcp: true,
            repeatable: false,
        }
    }

    /// It fails to answer: the last good set stays.
    const fn failure(rule: &'static str, fault: fn(&mut Stage), says: &'static str) -> Row {
        Row {
            stale: true,
            says,
            ..Row::new(rule, fault, &[A, B])
        }
    }

    const fn says(self, says: &'static str) -> Row {
        Row { says, ..self }
    }

    const fn briefly(self, briefly: &'static [usize]) -> Row {
        Row { briefly, ..self }
    }

    const fn believed_after(self, believed_after: u32) -> Row {
        Row {
            believed_after,
            ..self
        }
    }

    const fn down_at_start(self) -> Row {
        Row {
            during: &[],
            down_at_start: true,
            ..self
        }
    }

    /// Backends die: whoever got a request that may not be repeated is not to be asked again.
    const fn repeatable(self, during: &'static [usize]) -> Row {
        Row {
            repeatable: true,
            during,
            ..self
        }
    }

    const fn without_tcp(self) -> Row {
        Row { tcp: false, ..self }
    }

    const fn two_servers(self) -> Row {
        Row { servers: 2, ..self }
    }
}

const ROWS: &[Row] = &[
    Row::failure(
        "SERVFAIL keeps the last good set",
        |s| s.dns().only(Reply::Code(ResponseCode::ServFail)),
        "what is known stays",
    ),
    Row::failure(
        "REFUSED keeps the last good set",
        |s| s.dns().only(Reply::Code(ResponseCode::Refused)),
        "what is known stays",
    ),
    Row::failure(
        "a time-out keeps the last good set",
        |s| s.dns().only(Reply::Silence),
        "did not answer in time",
    ),
    Row::failure(
        "nobody at the server's port keeps the last good set",
        |s| s.servers[0] = None,
        "what is known stays",
    ),
    Row::failure(
        "a referral is no answer",
        |s| s.dns().only(Reply::Referral),
        "referred to other servers",
    ),
    Row::new(
        "a truncated answer is fetched over TCP (RFC 7766 section 5)",
        |s| {
            let whole = s.set(&[B, C]);
            s.srv(Reply::Truncated(Some(Box::new(whole))));
        },
        &[B, C],
    ),
    Row::failure(
        "truncated, and TCP closes: the last good set stays",
        |s| s.srv(Reply::Truncated(None)),
        "truncated its answer, and over TCP",
    ),
    Row::failure(
        "truncated, and TCP is refused: the last good set stays",
        |s| s.srv(Reply::Truncated(None)),
        "truncated its answer, and over TCP",
    )
    .without_tcp(),
    Row::new(
        "NXDOMAIN once is not believed",
        |s| s.next(vec![Reply::NxDomain(Some(0))]),
        &[A, B],
    )
    .says("this is number 1"),
    Row::new(
        "NXDOMAIN twice is not believed",
        |s| s.next(vec![Reply::NxDomain(Some(0)); 2]),
        &[A, B],
    )
    .says("this is number 2"),
    Row::new(
        "NXDOMAIN and NODATA twice, with records between, are not believed",
        |s| {
            let well = s.set(&[A, B]);
            let gone = [Reply::NxDomain(Some(0)), Reply::NoData(Some(0))];
            let [x, d] = gone;
            s.next(vec![x.clone(), d.clone(), well, d, x]);
        },
        &[A, B],
    )
    .says("this is number 2"),
    Row::new(
        "NXDOMAIN three times is believed (RFC 2308 section 2.1)",
        |s| s.dns().only(Reply::NxDomain(Some(0))),
        &[],
    )
    .says("nobody is there")
    .believed_after(2),
    Row::new(
        "NODATA three times is believed (RFC 2308 section 2.2)",
        |s| s.dns().only(Reply::NoData(Some(0))),
        &[],
    )
    .says("nobody is there")
    .believed_after(2),
    Row::new(
        "the target `.` is believed at once (RFC 2782)",
        |s| {
            let answers = vec![srv(NAME, 0, (0, 0, 0, "."))];
            s.srv(Reply::Records {
                answers,
                additionals: Vec::new(),
            });
        },
        &[],
    )
    .says("says that the service is not offered"),
    Row::new(
        "a record with port 0 is left out",
        |s| {
            let mut set = s.set(&[B, C]);
            add_record(&mut set, srv(NAME, 0, (0, 1, 0, HOSTS[A])));
            s.srv(set);
        },
        &[B, C],
    )
    .says("its port is 0"),
    Row::new(
        "a record whose target is an address is left out",
        |s| {
            let port = s.ledger.port(A);
            let mut set = s.set(&[B, C]);
            add_record(&mut set, srv(NAME, 0, (0, 1, port, "127.0.0.1")));
            s.srv(set);
        },
        &[B, C],
    )
    .says("not a host name"),
    Row::failure(
        "garbage is no answer",
        |s| s.dns().only(Reply::Garbage(vec![0xa5; 700])),
        "what is known stays",
    ),
    Row::failure(
        "the right id and then garbage is no answer",
        |s| s.dns().only(Reply::BrokenBody),
        "what is known stays",
    ),
    Row::new(
        "garbage before the answer is passed over",
        |s| {
            let garbage = [vec![], vec![0xff; 3], vec![0xa5; 700]].map(Reply::Garbage);
            let mut packets = garbage.to_vec();
            packets.push(s.set(&[B, C]));
            s.srv(Reply::Several(packets));
        },
        &[B, C],
    ),
    Row::failure(
        "an answer under another id is not believed",
        |s| {
            let forged = s.set(&[C]);
            s.srv(Reply::WrongId(Box::new(forged)));
        },
        "what is known stays",
    ),
    Row::new(
        "an answer under another id does not keep the right one out",
        |s| {
            let forged = Reply::WrongId(Box::new(s.set(&[A])));
            let right = s.set(&[B, C]);
            s.srv(Reply::Several(vec![forged.clone(), forged, right]));
        },
        &[B, C],
    ),
    Row::failure(
        "an answer to another question is not believed",
        |s| {
            let forged = s.set(&[C]);
            s.srv(Reply::OtherQuestion(Box::new(forged)));
        },
        "what is known stays",
    ),
    Row::new(
        "a chain of CNAMEs is followed, question by question",
        |s| {
            s.srv(cname_reply(NAME, 0, "one.test"));
            let dns = s.dns();
            dns.on(
                "one.test",
                RecordType::SRV,
                cname_reply("one.test", 0, "two.test"),
            );
            dns.on("two.test", RecordType::SRV, s.set_at("two.test", &[B, C]));
        },
        &[B, C],
    ),
    Row::new(
        "a chain of CNAMEs with its end in one answer is followed",
        |s| {
            let mut set = s.set_at("two.test", &[B, C]);
            add_record(&mut set, cname("one.test", 0, "two.test"));
            add_record(&mut set, cname(NAME, 0, "one.test"));
            s.srv(set);
        },
        &[B, C],
    ),
    Row::failure(
        "a CNAME loop is no answer",
        |s| {
            s.srv(cname_reply(NAME, 0, "one.test"));
            s.dns().on(
                "one.test",
                RecordType::SRV,
                cname_reply("one.test", 0, NAME),
            );
        },
        "CNAME loop",
    ),
    Row::new(
        "500 records are all in use",
        |s| {
            let (mut answers, mut additionals) = (Vec::new(), Vec::new());
            for n in 0..500 {
                let target = format!("t{n}.test");
                answers.push(srv(NAME, 0, (0, 1, s.ledger.port(n % 3), &target)));
                additionals.push(address(&target, 0, "127.0.0.1"));
            }
            s.endpoints = Some(500);
            s.srv(Reply::Records {
                answers,
                additionals,
            });
        },
        &[A, B, C],
    ),
    Row::new(
        "a target without glue is asked for",
        |s| {
            let mut set = s.set(&[B, C]);
            drop_glue(&mut set, HOSTS[C]);
            s.srv(set);
            s.dns().on(
                HOSTS[C],
                RecordType::A,
                address_reply(HOSTS[C], 0, &["127.0.0.1"]),
            );
        },
        &[B, C],
    ),
    Row::new(
        "a target that never resolved waits alone",
        |s| {
            let mut set = s.set(&[B, C]);
            drop_glue(&mut set, HOSTS[C]);
            s.srv(set);
            s.dns()
                .on(HOSTS[C], RecordType::A, Reply::Code(ResponseCode::ServFail));
        },
        &[B],
    )
    .says("waits for an address"),
    Row::new(
        "a target that no longer resolves keeps its addresses",
        |s| {
            let mut set = s.set(&[A, B]);
            drop_glue(&mut set, HOSTS[A]);
            s.srv(set);
            s.dns().on(HOSTS[A], RecordType::A, Reply::Silence);
        },
        &[A, B],
    )
    .says("keeps its last addresses"),
    Row::new(
        "an answer that loses most backends is not believed once",
        |s| s.next(vec![s.set(&[C])]),
        &[A, B],
    )
    .says("believed after 2 in a row")
    .briefly(&[C]),
    Row::new(
        "when the first server is silent, the second is asked",
        |s| {
            s.dns().only(Reply::Silence);
            s.well(1, &[B, C]);
        },
        &[B, C],
    )
    .two_servers(),
    Row::new(
        "when the first server refuses, the second is asked",
        |s| {
            s.dns().only(Reply::Code(ResponseCode::Refused));
            s.well(1, &[B, C]);
        },
        &[B, C],
    )
    .two_servers(),
    Row::new(
        "when the first server is gone, the second is asked",
        |s| {
            s.servers[0] = None;
            s.well(1, &[B, C]);
        },
        &[B, C],
    )
    .two_servers(),
    Row::failure(
        "SERVFAIL, and one of two backends dies: the other serves",
        |s| {
            s.dns().only(Reply::Code(ResponseCode::ServFail));
            s.ledger.kill(A);
        },
        "what is known stays",
    )
    .repeatable(&[B]),
    // The next NXDOMAIN would count in half a minute.
    Row::new(
        "NXDOMAIN is not believed, and one of two backends dies: it leaves",
        |s| {
            s.dns().only(Reply::NxDomain(Some(30)));
            s.ledger.kill(A);
        },
        &[B],
    )
    .says("does not list it, and a connect to")
    .repeatable(&[B]),
    Row::failure(
        "a start without DNS waits for it",
        |s| s.servers[0] = None,
        "no answer",
    )
    .down_at_start(),
    Row::failure(
        "a start with DNS that fails waits for it",
        |s| s.dns().only(Reply::Code(ResponseCode::ServFail)),
        "no answer",
    )
    .down_at_start(),
];

#[test]
fn no_dns_fault_fails_a_request_while_a_backend_lives() {
    let only = std::env::var("ROW").unwrap_or_default();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.rule.contains(&only)).collect();
    assert!(!rows.is_empty(), "no row's rule contains {only:?}");
    let folder = Folder::new();
    let certificate = folder.certificate("dev", &["localhost"]);
    let waiting = Mutex::new(rows.iter().enumerate());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((number, row)) = support::lock(&waiting).next() else {
                        return;
                    };
                    let certificate = (number % 2 == 0).then_some(&certificate);
                    // In a thread of its own, named after the rule for the sake of the report.
                    let played = std::thread::Builder::new()
                        .name(row.rule.to_owned())
                        .spawn_scoped(scope, move || on_a_runtime(play(row, certificate)));
                    if played.expect("a thread").join().is_err() {
                        support::lock(&failed).push(row.rule);
                    }
                }
            });
        }
    });
    let failed = support::lock(&failed);
    assert!(
        failed.is_empty(),
        "{} rows failed: {failed:#?}",
        failed.len()
    );
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work);
}

/// What a row plays with.
struct Stage {
    servers: Vec<Option<DnsServer>>,
    addresses: Vec<SocketAddr>,
    ledger: Ledger,
    /// So many endpoints must be known while the fault lasts.
    endpoints: Option<usize>,
}

impl Stage {
    async fn new(row: &Row) -> Stage {
        let mut stage = Stage {
            servers: Vec::new(),
            addresses: Vec::new(),
            ledger: Ledger::start(&["a", "b", "c"], Keep::Arrivals),
            endpoints: None,
        };
        for _ in 0..row.servers {
            let server = match row.tcp {
                true => DnsServer::start().await,
                false => DnsServer::without_tcp().await,
            };
            stage.addresses.push(server.address());
            stage.servers.push(Some(server));
        }
        stage
    }

    /// The first name server.
    fn dns(&self) -> &DnsServer {
        self.servers[0].as_ref().expect("it is there")
    }

    /// What it says about the name.
    fn srv(&self, reply: Reply) {
        self.dns().on(NAME, RecordType::SRV, reply);
    }

    /// What it says to the next questions, before it goes on as before.
    fn next(&self, replies: Vec<Reply>) {
        self.dns().next(NAME, RecordType::SRV, replies);
    }

    /// These backends with equal weights, and their addresses.
    fn set(&self, backends: &[usize]) -> Reply {
        self.set_at(NAME, backends)
    }

    fn set_at(&self, name: &str, backends: &[usize]) -> Reply {
        let record = |b: &usize| srv(name, 0, (0, 1, self.ledger.port(*b), HOSTS[*b]));
        Reply::Records {
            answers: backends.iter().map(record).collect(),
            additionals: backends
                .iter()
                .map(|b| address(HOSTS[*b], 0, "127.0.0.1"))
                .collect(),
        }
    }

    /// A server is well, and lists these backends.
    fn well(&self, server: usize, backends: &[usize]) {
        let dns = self.servers[server].as_ref().expect("it is there");
        dns.only(Reply::NxDomain(None));
        dns.on(NAME, RecordType::SRV, self.set(backends));
    }

    /// Every server is there and well.
    async fn heal(&mut self, backends: &[usize]) {
        for server in 0..self.servers.len() {
            if self.servers[server].is_none() {
                let back = DnsServer::at(self.addresses[server]).await;
                self.servers[server] = Some(back);
            }
            self.well(server, backends);
        }
    }

    /// Questions for the name so far; `None`: there is nobody to count them.
    fn questions(&self) -> Option<usize> {
        let servers = self.servers.iter();
        servers
            .map(|dns| Some(dns.as_ref()?.count(NAME, RecordType::SRV)))
            .sum()
    }
}

fn add_record(reply: &mut Reply, record: hickory_proto::rr::Record) {
    match reply {
        Reply::Records { answers, .. } => answers.insert(0, record),
        _ => panic!("no records to add to"),
    }
}

fn drop_glue(reply: &mut Reply, host: &str) {
    let host = dns::absolute(host);
    match reply {
        Reply::Records { additionals, .. } => additionals.retain(|r| r.name != host),
        _ => panic!("no records to drop from"),
    }
}

async fn play(row: &Row, certificate: Option<&Certificate>) {
    let mut stage = Stage::new(row).await;
    for server in 0..row.servers {
        stage.well(server, &[A, B]);
    }
    if row.down_at_start {
        (row.fault)(&mut stage);
    }
    let servers: Vec<_> = stage.addresses.iter().map(|a| format!("\"{a}\"")).collect();
    let listener = match certificate {
        None => "protocol = \"http\"".to_owned(),
        Some(c) => format!("protocol = \"https\"\ncertificates = [{}]", c.entry()),
    };
    let mut server = Server::binary(&format!(
        r#"
workers = 1
[dns]
servers = [{}]
interval = "{}ms"
timeout = "500ms"
retries = 0
[log]
access = "off"
[[listener]]
address = "127.0.0.1:0"
{listener}
[[service]]
name = "web"
discover = {{ srv = "{NAME}" }}
[[route]]
service = "web"
"#,
        servers.join(", "),
        INTERVAL.as_millis(),
    ));
    let probe = server.probe.expect("it has a probe listener");
    let target = match certificate {
        None => Target::plain(server.address()),
        Some(c) => Target::tls(server.address(), &c.ca),
    };
    // The first ones may come before DNS was asked: they may fail, and count for the books only.
    let mut books = Vec::new();
    if !row.down_at_start {
        let first = Traffic::start("first", &target, 1, Duration::from_millis(5));
        until(row, &mut server, "served by a and b", |_| {
            served_by(&first, &[A, B])
        })
        .await;
        books = first.stop().await;
    }

    let pause = Duration::from_millis(30);
    let traffic = match row.repeatable {
        false => Traffic::start("steady", &target, 2, pause),
        true => Traffic::repeatable(&target, 2, pause),
    };
    let logged = server.process().log().len();
    let asked = stage.questions();
    let fault = Instant::now();
    if row.down_at_start {
        let (status, unmet) = get(probe, "/readyz");
        assert_eq!(status, 503, "ready although nobody answered: {unmet}");
    } else {
        (row.fault)(&mut stage);
    }

    // The fault is noticed, and has been met a few times.
    let noticed = |log: &[String]| {
        let since = if row.down_at_start { 0 } else { logged };
        log[since..].iter().any(|line| line.contains(row.says))
    };
    until(row, &mut server, "said in the log", |log| noticed(log)).await;
    // Failures are met ever less often, by the back-off.
    let questions = if row.stale { 4 } else { 8 };
    until(row, &mut server, "asked again", |_| {
        let now = stage.questions().zip(asked);
        now.is_none_or(|(now, asked)| now >= asked + questions)
    })
    .await;
    until(
        row,
        &mut server,
        "the right backends during the fault",
        |_| served_by(&traffic, row.during),
    )
    .await;
    until(
        row,
        &mut server,
        "the metrics say whether it is stale",
        |_| metric(probe, "evenkeel_dns_stale") == Some(f64::from(u8::from(row.stale))),
    )
    .await;
    if let Some(endpoints) = stage.endpoints {
        let known = metric(probe, "evenkeel_dns_endpoints");
        assert_eq!(known, Some(endpoints as f64));
    }

    let healed = Instant::now();
    stage.heal(&[B, C]).await;
    until(row, &mut server, "b and c when it is over", |_| {
        served_by(&traffic, &[B, C])
    })
    .await;
    until(row, &mut server, "no longer stale", |_| {
        metric(probe, "evenkeel_dns_stale") == Some(0.0)
    })
    .await;
    assert_eq!(get(probe, "/readyz").0, 200);
    let over = Instant::now();
    println!("{}: over after {:.1?}", row.rule, healed.elapsed());

    sleep(INTERVAL).await;
    let records = traffic.stop().await;
    for record in &records {
        judge(row, record, (fault, healed, over));
    }
    books.extend(records);
    audit(&stage.ledger, &books);
}

/// Was this request answered as it had to be?
fn judge(row: &Row, record: &Record, (fault, healed, over): (Instant, Instant, Instant)) {
    if row.during.is_empty() && record.outcome == Ok(503) {
        let believed = fault + row.believed_after * INTERVAL;
        assert!(
            record.done >= believed,
            "too early: {record:?} for {fault:?}"
        );
        assert!(record.sent <= over, "too late: {record:?}");
        return;
    }
    assert!(!record.failed(), "{record:?}");
    let backend = record.backend.as_deref();
    let of = |backends: &[usize]| backends.iter().any(|b| backend == Some(&HOSTS[*b][..1]));
    let known = !row.down_at_start && of(&[A, B]);
    let healing = record.done >= healed && of(&[B, C]);
    assert!(
        known || of(row.during) || of(row.briefly) || healing,
        "somebody who should not be known: {record:?}"
    );
}

/// The books of both sides agree.
fn audit(ledger: &Ledger, records: &[Record]) {
    let posts = records
        .iter()
        .filter_map(|r| Some((r.id.clone()?, r.failed())));
    let (unknown, confirmed): (Vec<_>, Vec<_>) = posts.partition(|(_, failed)| *failed);
    let ids = |posts: Vec<(String, bool)>| posts.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ledger.damaged(), Vec::<String>::new());
    ledger
        .audit(&ids(confirmed), &ids(unknown))
        .expect_agreement();
}

/// Were the latest requests answered by exactly these backends? By nobody: each with a 503.
fn served_by(traffic: &Traffic, backends: &[usize]) -> bool {
    let records = traffic.records();
    let Some(window) = records.len().checked_sub(WINDOW) else {
        return false;
    };
    let window = &records[window..];
    if backends.is_empty() {
        return window.iter().all(|r| r.outcome == Ok(503));
    }
    let seen: BTreeSet<_> = window.iter().filter_map(|r| r.backend.as_deref()).collect();
    let wanted: BTreeSet<_> = backends.iter().map(|b| &HOSTS[*b][..1]).collect();
    window.iter().all(|r| !r.failed()) && seen == wanted
}

/// Waits until it is so; `condition` is given the log.
async fn until(row: &Row, server: &mut Server, what: &str, condition: impl Fn(&[String]) -> bool) {
    let begun = Instant::now();
    loop {
        let log = server.process().log();
        if condition(&log) {
            return;
        }
        assert!(
            begun.elapsed() < support::PATIENCE,
            "{}: never: {what}; the log: {log:#?}",
            row.rule
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// The value of a series of the watched name.
fn metric(probe: SocketAddr, series: &str) -> Option<f64> {
    let (status, text) = get(probe, "/metrics");
    assert_eq!(status, 200, "{text}");
    let wanted = format!("{series}{{name=\"{NAME}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted))?;
    line.trim().parse().ok()
}

/// Status and what follows the status line, from the probe listener.
fn get(probe: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(probe).expect("it listens");
    let patience = Some(support::PATIENCE);
    stream.set_read_timeout(patience).expect("it is not zero");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status line"), text)
}
