//! The commands that ask and tell a running instance.

use std::process::Output;

use serde_json::Value;
use tokio::time::Instant;

use crate::site::Site;
use crate::support::server::{Folder, Process, binary, output};
use crate::support::wait_until;

/// Runs a command about that instance, over its socket.
pub fn evenkeel(site: &Site, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(arguments).arg("--socket").arg(site.socket());
    output(&mut command)
}

pub fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A reader that goes is no error, a full disk is one; neither is a panic.
#[test]
fn output_that_nobody_takes() {
    let site = Site::start();
    let gone = || std::process::Stdio::from(std::io::pipe().expect("a pipe").1);
    for words in [
        &["status"][..],
        &["explain", "http://shop.example/"],
        &["drain"],
        &["undrain"],
    ] {
        let run = |out: std::process::Stdio| {
            let mut command = binary();
            command.args(words).arg("--socket").arg(site.socket());
            text(&command.stdout(out).output().expect("the program runs"))
        };
        let (code, _, said) = run(gone());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        let full = std::fs::File::create("/dev/full").expect("every Linux has it");
        let (code, _, said) = run(full.into());
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}

/// Whoever answers: what it says is shown, and nothing more.
#[test]
fn what_steers_a_terminal_is_escaped() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let body = r#"{"error":{"code":"x","message":"no\u001b]0;yours\u0007\u202eway"}}"#;
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the command comes");
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it asks");
            asked.push(byte[0]);
        }
        let head = format!(
            "HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all((head + body).as_bytes())
            .expect("it listens");
    });
    let mut command = binary();
    command.args(["drain", "--admin", &format!("http://{address}")]);
    let (code, _, said) = text(&output(&mut command));
    answers.join().expect("it answered");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no\\u{1b}]0;yours\\u{7}\\u{202e}way"),
        "{said:?}"
    );
    assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
}

#[test]
fn status_says_what_is_there_and_waits() {
    let site = Site::start();
    let id = |n: usize| format!("web/{}", site.backends[n].address);
    let (code, table, _) = text(&evenkeel(&site, &["status"]));
    assert_eq!(code, Some(0));
    assert!(
        table.contains("service web (static, weighted): 3 of 3 healthy\n"),
        "{table}"
    );
    let line = |table: &str, n: usize| {
        let line = table.lines().find(|line| line.contains(&id(n)));
        let line = line.expect("it is listed");
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line(&table, 0)[1..5], ["0", "3", "75.0", "%"], "{table}");

    let (code, json, _) = text(&evenkeel(
        &site,
        &["status", "-o", "json", "--wait", "healthy=3"],
    ));
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(
        (code, &json["services"][0]["healthy"]),
        (Some(0), &3.into())
    );

    let (code, out, _) = text(&evenkeel(&site, &["drain", "--backend", &id(0)]));
    assert_eq!(
        (code, out),
        (Some(0), format!("{}: drained, 0 under way\n", id(0)))
    );
    let (code, table, error) = text(&evenkeel(
        &site,
        &["status", "--wait", "healthy=3", "--timeout", "300ms"],
    ));
    assert_eq!(code, Some(1));
    assert_eq!(error, "evenkeel: that did not come true within 300ms\n");
    assert_eq!(line(&table, 0)[6..], ["0", "drained", "by_hand"], "{table}");
    let (code, out, _) = text(&evenkeel(&site, &["undrain", "--backend", &id(0)]));
    assert_eq!((code, out), (Some(0), format!("{}: up\n", id(0))));
}

#[test]
fn weights_are_set_and_taken_back() {
    let site = Site::start();
    let id = format!("web/{}", site.backends[1].address);
    let (code, out, _) = text(&evenkeel(&site, &["weight", &id, "9"]));
    assert_eq!(
        (code, out),
        (
            Some(0),
            format!("{id}: weight 9 (its record says 1), 75.0 %\n")
        )
    );
    let (code, out, _) = text(&evenkeel(&site, &["weight", &id, "auto"]));
    assert_eq!(
        (code, out),
        (
            Some(0),
            format!("{id}: weight 1 as its record says, 25.0 %\n")
        )
    );
    assert_eq!(
        evenkeel(&site, &["weight", &id, "65536"]).status.code(),
        Some(2)
    );
    let (code, _, error) = text(&evenkeel(&site, &["weight", "web/10.0.0.1:1", "1"]));
    assert_eq!(
        (code, error.as_str()),
        (Some(1), "evenkeel: there is no such backend\n")
    );
}

#[test]
fn a_drain_waits_and_is_taken_back() {
    let site = Site::start();
    let begun = Instant::now();
    let (code, out, _) = text(&evenkeel(&site, &["drain", "--wait", "300ms"]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "announced: not ready, still accepting\n")
    );
    assert!(begun.elapsed().as_millis() >= 300);
    let (_, table, _) = text(&evenkeel(&site, &["status"]));
    assert!(table.contains(": draining, up"), "{table}");
    assert!(table.contains("  not ready: draining\n"), "{table}");
    let (code, out, _) = text(&evenkeel(&site, &["undrain"]));
    assert_eq!((code, out.as_str()), (Some(0), "serving\n"));
    let (code, _, error) = text(&evenkeel(&site, &["undrain"]));
    assert_eq!(
        (code, error.as_str()),
        (Some(1), "evenkeel: it is not draining\n")
    );
}

#[test]
fn a_reload_is_in_effect_or_says_why_not() {
    let site = Site::start();
    let file = site.folder.path().join("evenkeel.toml");
    let text_of_file = std::fs::read_to_string(&file).expect("it is there");
    let (code, out, _) = text(&evenkeel(&site, &["reload"]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "generation 2 of the configuration is in effect\n")
    );
    std::fs::write(&file, text_of_file.replace("weight = 3", "wait = 3"))
        .expect("it can be written");
    let (code, _, error) = text(&evenkeel(&site, &["reload"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("unknown key `wait`"), "{error}");
    assert!(
        error.ends_with("evenkeel: not reloaded, generation 2 stays\n"),
        "{error}"
    );
    let (_, events, _) = text(&evenkeel(&site, &["events"]));
    let kinds: Vec<_> = events
        .lines()
        .filter_map(|line| line.split_whitespace().find(|w| w.starts_with("reload")))
        .collect();
    assert_eq!(kinds, ["reloaded", "reload_refused"], "{events}");
}

#[test]
fn events_are_followed() {
    let site = Site::start();
    let mut command = binary();
    command
        .args(["events", "--follow", "-o", "json", "--socket"])
        .arg(site.socket());
    let mut follower = Process::spawn(&mut command);
    let kinds = |follower: &Process| -> Vec<String> {
        let lines = follower.access().into_iter();
        let events = lines.map(|line| serde_json::from_str::<Value>(&line).expect("it is JSON"));
        events
            .map(|event| event["kind"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    wait_until("it says what was there", || {
        kinds(&follower).contains(&"started".to_owned())
    });
    site.post("/api/v1/drain", None);
    wait_until("it says what comes", || {
        kinds(&follower).contains(&"drain_begun".to_owned())
    });
    follower.signal(rustix::process::Signal::TERM);
    assert_eq!(follower.exit_code(crate::support::PATIENCE), Some(0));
}

#[test]
fn over_tcp_the_token_is_in_its_file() {
    let site = Site::start();
    let admin = format!("http://{}", site.address());
    let run = |more: &[&str]| {
        let mut command = binary();
        command
            .env("EVENKEEL_ADMIN", &admin)
            .arg("drain")
            .args(more);
        text(&output(&mut command))
    };
    let (code, _, error) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("the token is in the file that the log names"),
        "{error}"
    );
    let file = site.token_file().display().to_string();
    assert_eq!(run(&["--token-file", &file]).0, Some(0));
}

/// As in a container: nothing is named but the configuration, which the process was started with.
#[test]
fn it_is_found_by_the_configuration() {
    let site = Site::start();
    let file = site.folder.path().join("evenkeel.toml");
    let mut command = binary();
    command.arg("status").env("EVENKEEL_CONFIG", &file);
    let (code, table, error) = text(&output(&mut command));
    assert_eq!(code, Some(0), "{error}");
    assert!(table.starts_with("evenkeel "), "{table}");
}

#[test]
fn where_nobody_is_it_says_what_to_look_at() {
    let folder = Folder::new();
    let socket = folder.path().join("none.sock");
    let mut command = binary();
    command.arg("status").arg("--socket").arg(&socket);
    let (code, _, error) = text(&output(&mut command));
    assert_eq!(code, Some(1));
    let expected = format!(
        "evenkeel: no instance is listening at {}; does it run, and is admin.socket or admin.address \
         set? --socket or --admin says where it is\n",
        socket.display()
    );
    assert_eq!(error, expected);
}

/// Where nothing is said, the socket and the token are in the folder that systemd, or whoever
/// started it, gave.
#[test]
fn what_is_usual_is_found_where_it_usually_is() {
    let site = Site::start();
    let folder = Folder::new();
    let runtime = folder.path().join("run");
    let toml = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [\"{}\"] }}\n\
         [[route]]\nservice = \"web\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        site.backends[0].address
    );
    let mut server =
        crate::support::server::Server::binary_with("RUNTIME_DIRECTORY", &runtime, &toml);
    let mut command = binary();
    command.args(["drain"]).env("RUNTIME_DIRECTORY", &runtime);
    // The file that is there has a mistake: whoever runs does not go by it.
    folder.write("evenkeel.toml", "[[listener");
    command.current_dir(folder.path());
    assert_eq!(text(&output(&mut command)).0, Some(0));
    // Nor when it says where the control listener is.
    let mistaken = format!(
        "nonsense = 1\n[admin]\nsocket = \"off\"\naddress = \"{}\"\n",
        server.admin.expect("it listens")
    );
    folder.write("evenkeel.toml", &mistaken);
    let mut command = binary();
    command.arg("undrain").current_dir(folder.path());
    command.env("RUNTIME_DIRECTORY", &runtime);
    let (code, _, error) = text(&output(&mut command));
    assert_eq!(code, Some(0), "{error}");
    server.drain();
    server.process().exit_code(crate::support::PATIENCE);
    let left = std::fs::read_dir(&runtime).expect("it was made").count();
    assert_eq!(left, 0, "socket and token go with the process");
}
