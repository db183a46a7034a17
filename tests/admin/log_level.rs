//! The level of the log, asked for and set while the process runs.

use serde_json::{Value, json};

use crate::cli::{evenkeel, text};
use crate::schema::Contract;
use crate::site::{Site, TOKEN};
use crate::support::wait_until;

const PATH: &str = "/api/v1/log";

/// The answer to another level, checked against its description.
fn set(site: &Site, contract: &Contract, level: &str) -> (u16, Value) {
    let (status, value) = site.post(PATH, Some(&json!({ "level": level }).to_string()));
    contract.check("POST", PATH, status, &value);
    (status, value)
}

fn level(site: &Site) -> Value {
    site.get(PATH)["level"].clone()
}

#[test]
fn another_level_holds_at_once_and_after_a_reload() {
    let mut site = Site::process();
    let contract = Contract::read();
    contract.check("GET", PATH, 200, &site.get(PATH));
    let before = level(&site);
    let detail = |site: &mut Site| {
        let log = site.server.process().log();
        log.iter().filter(|line| line.contains("DEBUG")).count()
    };
    assert_eq!(detail(&mut site), 0);
    let answer = set(&site, &contract, "debug");
    let expected = json!({ "level": "debug", "before": before });
    assert_eq!(answer, (200, expected));
    wait_until("there is more in the log", || {
        // One that is no HTTP, which is said at `debug`.
        let mut client = crate::support::client::Client::plain(site.address());
        client.send("\0\r\n\r\n");
        let _ = client.response();
        detail(&mut site) > 0
    });

    let (_, reloaded) = site.post("/api/v1/reload", None);
    assert_eq!(reloaded["outcome"], "applied", "{reloaded}");
    assert_eq!(reloaded["at_next_start"], json!([]));
    assert_eq!(level(&site), "debug", "a reload leaves it as it is");

    let events = site.get("/api/v1/events");
    let events = events["events"].as_array().expect("a list");
    let told = events.iter().find(|event| event["kind"] == "log_level_set");
    let told = told.expect("it is an event")["text"].as_str();
    let before = before.as_str().unwrap_or_default();
    let expected = format!("log level debug, it was {before}: asked for by 127.0.0.1");
    assert_eq!(told, Some(&*expected));
    wait_until("the log says so", || {
        let log = site.server.process().log();
        log.iter().any(|line| line.contains(&expected))
    });
}

#[test]
fn what_is_no_filter_is_refused_and_changes_nothing() {
    let site = Site::process();
    let contract = Contract::read();
    let before = level(&site);
    let long = format!("{}info", "evenkeel=debug,".repeat(100));
    for (filter, why) in [
        ("debgu", "\"debgu\" is no level"),
        (
            "evenkeel=loud",
            "\"evenkeel=loud\" is no level and no filter",
        ),
        ("info\nevenkeel=debug", "a filter is one line"),
        (&long, "of 1024 bytes at most"),
    ] {
        let (status, answer) = set(&site, &contract, filter);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(why), "{status} {answer}");
        assert_eq!(level(&site), before);
    }
    let body = Some(r#"{"level":"debug"}"#);
    assert_eq!(site.ask("POST", PATH, &[], body).status(), 401);
    let put = site.ask("PUT", PATH, &[("authorization", TOKEN)], body);
    assert_eq!(put.status(), 405);
    assert_eq!(level(&site), before);
}

#[test]
fn by_the_command() {
    let site = Site::process();
    let before = level(&site).as_str().map(str::to_owned).expect("a level");
    let run = |arguments: &[&str]| text(&evenkeel(&site, arguments));
    let (code, out, _) = run(&["log-level"]);
    assert_eq!((code, out), (Some(0), format!("{before}\n")));
    let filter = "warn,evenkeel::discovery=trace";
    let (code, out, _) = run(&["log-level", filter]);
    assert_eq!(
        (code, out),
        (Some(0), format!("{filter}, it was {before}\n"))
    );
    assert_eq!(level(&site), filter);
    let (code, _, error) = run(&["log-level", "loud"]);
    let expected =
        "evenkeel: log level: \"loud\" is no level; of a target all is said by `loud=trace`\n";
    assert_eq!((code, error.as_str()), (Some(1), expected));
    let (_, events, _) = run(&["events"]);
    let user = rustix::process::getuid().as_raw();
    let by = format!("asked for by user {user} at the control socket");
    assert!(events.contains(&by), "{events}");
}
