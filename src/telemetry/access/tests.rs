use std::sync::{Condvar, Mutex};
use std::time::UNIX_EPOCH;

use super::format::trace_id;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn record() -> Record<'static> {
    Record {
        ended: UNIX_EPOCH + Duration::from_millis(1_234_567_890_007),
        client: "192.0.2.7",
        client_port: 50_000,
        tls: Some("1.3"),
        client_cert: None,
        listener: "front",
        route: Some("shop/api"),
        service: Some("web"),
        backend: Some("[2001:db8::1]:8080"),
        attempts: 2,
        method: b"GET",
        host: b"shop.example",
        path: b"/a\"b",
        query: b"?token=1",
        protocol: "HTTP/1.1",
        status: 200,
        received: 120,
        sent: 4_567,
        broken: None,
        grpc_status: None,
        request_id: b"r-1",
        traceparent: Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        referer: Some(b"https://a.example/x?secret=2#y"),
        user_agent: Some(b"curl/8\n"),
        connect: Some(Duration::from_micros(250)),
        first_byte: Some(Duration::from_micros(1_500)),
        total: Duration::from_micros(2_000),
    }
}

/// The lines that come out of a log of that kind.
fn lines(format: AccessFormat, query: bool, records: &[Record<'_>]) -> String {
    let out = Out::default();
    let writer = AccessWriter::start(format, query, out.clone()).unwrap();
    let log = writer.log();
    records.iter().for_each(|record| log.record(record));
    drop(log);
    assert!(writer.finish(PATIENCE));
    out.text()
}

#[derive(Clone, Default)]
struct Out(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    written: Vec<u8>,
    /// Writes wait while it is set.
    stuck: bool,
    broken: bool,
}

impl Out {
    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = self.0.0.lock().unwrap();
        let mut state = self.0.1.wait_while(state, |state| state.stuck).unwrap();
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn json() {
    let expected = concat!(
        r#"{"time":"2009-02-13T23:31:30.007Z","client":"192.0.2.7:50000","tls":"1.3","#,
        r#""listener":"front","route":"shop/api","service":"web","#,
        r#""backend":"[2001:db8::1]:8080","attempts":2,"method":"GET","host":"shop.example","#,
        r#""path":"/a\"b","protocol":"HTTP/1.1","status":200,"received":120,"sent":4567,"#,
        r#""end":"complete","request_id":"r-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
        r#""referer":"https://a.example/x","user_agent":"curl/8\u000a","#,
        r#""connect_ms":0.250,"first_byte_ms":1.500,"total_ms":2.000}"#,
        "\n"
    );
    assert_eq!(lines(AccessFormat::Json, false, &[record()]), expected);
}

#[test]
fn json_leaves_out_what_there_is_not() {
    let bare = Record {
        tls: None,
        route: None,
        service: None,
        backend: None,
        attempts: 0,
        method: b"",
        host: b"",
        path: b"",
        query: b"",
        status: 408,
        broken: Some(Broken {
            side: "downstream",
            phase: "request_head",
        }),
        traceparent: Some(b"nonsense"),
        referer: None,
        user_agent: None,
        connect: None,
        first_byte: None,
        ..record()
    };
    let line = lines(AccessFormat::Json, true, &[bare]);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
    let names: Vec<_> = object.keys().map(String::as_str).collect();
    let mut expected = [
        "time",
        "client",
        "listener",
        "attempts",
        "method",
        "host",
        "path",
        "protocol",
        "status",
        "received",
        "sent",
        "end",
        "phase",
        "request_id",
        "total_ms",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(object["end"], "downstream");
    assert_eq!(object["phase"], "request_head");
}

#[test]
fn combined() {
    let expected = concat!(
        r#"192.0.2.7 - - [13/Feb/2009:23:31:30 +0000] "GET /a\"b HTTP/1.1" 200 4567 "#,
        r#""https://a.example/x" "curl/8\x0a""#,
        "\n"
    );
    assert_eq!(lines(AccessFormat::Combined, false, &[record()]), expected);
    let bare = Record {
        referer: None,
        user_agent: None,
        ..record()
    };
    assert!(lines(AccessFormat::Combined, false, &[bare]).ends_with("200 4567 \"-\" \"-\"\n"));
}

#[test]
fn queries_appear_only_when_asked_for() {
    for format in [AccessFormat::Json, AccessFormat::Combined] {
        let without = lines(format, false, &[record()]);
        assert!(
            !without.contains("token") && !without.contains("secret"),
            "{without}"
        );
        let with = lines(format, true, &[record()]);
        assert!(
            with.contains("?token=1") && with.contains("x?secret=2#y"),
            "{with}"
        );
    }
}

#[test]
fn off_writes_nothing() {
    assert_eq!(lines(AccessFormat::Off, true, &[record()]), "");
    assert!(!AccessLog::off().is_on());
    AccessLog::off().record(&record());
}

#[test]
fn time_moves_with_the_second() {
    let later = |millis| Record {
        ended: record().ended + Duration::from_millis(millis),
        ..record()
    };
    let text = lines(
        AccessFormat::Json,
        false,
        &[record(), later(992), later(993), later(60_000)],
    );
    let times: Vec<_> = text.lines().map(|line| &line[26..33]).collect();
    assert_eq!(times, ["30.007Z", "30.999Z", "31.000Z", "30.007Z"]);
}

#[test]
fn nothing_is_lost_between_the_workers_and_the_end() {
    let out = Out::default();
    let writer = AccessWriter::start(AccessFormat::Json, false, out.clone()).unwrap();
    let dropped = writer.dropped();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let log = writer.log();
            thread::spawn(move || {
                for n in 0..1_000 {
                    log.record(&record());
                    if n % 300 == 0 {
                        log.flush();
                    }
                }
            })
        })
        .collect();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    assert!(writer.finish(PATIENCE));
    let text = out.text();
    assert_eq!(text.lines().count(), 3_000);
    let parsed = |line| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(text.lines().all(parsed), "no two lines are mixed");
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn when_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits() {
    let out = Out::default();
    out.set(|state| state.stuck = true);
    let writer = AccessWriter::start(AccessFormat::Json, false, out.clone()).unwrap();
    let dropped = writer.dropped();
    let log = writer.log();
    const LINES: u64 = 20_000;
    for _ in 0..LINES {
        log.record(&record());
    }
    log.flush();
    let lost = dropped.load(Ordering::Relaxed);
    assert!(lost > LINES / 2, "{lost} of {LINES} lost");
    out.set(|state| state.stuck = false);
    drop(log);
    assert!(writer.finish(PATIENCE));
    assert_eq!(out.text().lines().count() as u64 + lost, LINES);
}

#[test]
fn the_end_waits_for_a_stuck_reader_only_so_long() {
    let out = Out::default();
    out.set(|state| state.stuck = true);
    let writer = AccessWriter::start(AccessFormat::Json, false, out.clone()).unwrap();
    writer.log().record(&record());
    assert!(!writer.finish(Duration::from_millis(20)));
    out.set(|state| state.stuck = false);
}

#[test]
fn what_cannot_be_written_is_counted() {
    let out = Out::default();
    out.set(|state| state.broken = true);
    let writer = AccessWriter::start(AccessFormat::Combined, false, out.clone()).unwrap();
    let dropped = writer.dropped();
    let log = writer.log();
    log.record(&record());
    log.record(&record());
    drop(log);
    assert!(writer.finish(PATIENCE));
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
}

/// W3C Trace Context §3.2.2, §3.2.4.
#[test]
fn trace_ids() {
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let zeros = "0".repeat(32);
    for (rule, traceparent, valid) in [
        ("version 00", format!("00-{ID}-{PARENT}-01"), true),
        (
            "version 00 has nothing after its flags",
            format!("00-{ID}-{PARENT}-01-x"),
            false,
        ),
        (
            "a later version may have",
            format!("01-{ID}-{PARENT}-01-x"),
            true,
        ),
        (
            "but only after a dash",
            format!("01-{ID}-{PARENT}-01x"),
            false,
        ),
        (
            "version ff is invalid",
            format!("ff-{ID}-{PARENT}-01"),
            false,
        ),
        (
            "upper case is invalid",
            format!("00-{}-{PARENT}-01", ID.to_uppercase()),
            false,
        ),
        (
            "no trace id of zeros",
            format!("00-{zeros}-{PARENT}-01"),
            false,
        ),
        (
            "no parent id of zeros",
            format!("00-{ID}-{}-01", &zeros[..16]),
            false,
        ),
        ("cut short", format!("00-{ID}-{PARENT}-0"), false),
        ("no dash", format!("00-{ID}_{PARENT}-01"), false),
        ("empty", String::new(), false),
    ] {
        let expected = valid.then_some(ID.as_bytes());
        assert_eq!(trace_id(traceparent.as_bytes()), expected, "{rule}");
    }
}
