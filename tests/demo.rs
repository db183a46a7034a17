//! The demo as somebody meets it: the real binary, its output and its exit code.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("demo").args(arguments);
    command
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).expect("it prints text")
}

/// Ended when the test ends, however it ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ends_by_itself_with_every_request_answered() {
    let output = demo(&["--port", "0", "--for", "6s"])
        .output()
        .expect("it starts");
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for said in [
        "b4 joins in DNS with weight 40: first request to it after",
        "b1 stops answering, DNS still lists it: last request to it after",
        "b2 leaves DNS: last request to it after",
        " 0 failed; no share",
        "b1 down",
        "b2 gone",
        "s1 standby",
    ] {
        assert!(text.contains(said), "{said:?} is missing:\n{text}");
    }
    // The certificate's folder is gone.
    let (_, rest) = text.split_once("--cacert ").expect("a curl line");
    let (file, _) = rest.split_once(' ').expect("a path and a URL");
    assert!(
        !std::path::Path::new(file).exists(),
        "{file} is left behind"
    );
}

/// `| head`: whoever has seen enough is no reason to stop, or to panic.
#[test]
fn nobody_has_to_read_it() {
    let mut command = demo(&["--port", "0", "--for", "6s"]);
    let gone = std::io::pipe().expect("a pipe").1;
    let output = command.stdout(gone).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn says_so_when_the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = demo(&["--port", &port, "--for", "6s"])
        .output()
        .expect("it starts");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--port 0 takes a free one"), "{text}");
}

#[test]
fn a_play_that_is_too_short_is_a_usage_error() {
    let output = demo(&["--for", "1s"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

/// Without curl there is nothing to try; `EVENKEEL_REQUIRE_TOOLS` makes that a failure.
#[test]
fn the_curl_line_works_and_an_interrupt_ends_with_a_summary() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("EVENKEEL_REQUIRE_TOOLS").is_none(),
            "curl is not installed"
        );
        eprintln!("SKIPPED the_curl_line_works: curl is not installed");
        return;
    }
    let child = demo(&["--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut child = Ended(child);
    let mut output = BufReader::new(child.0.stdout.take().expect("piped"));
    let mut line = String::new();
    let mut dashboard = None;
    while !line.contains("curl ") {
        line.clear();
        assert!(output.read_line(&mut line).expect("text") > 0, "it ended");
        let url = line.trim().strip_prefix("dashboard ");
        dashboard = url.map(|url| url.trim().to_owned()).or(dashboard);
    }
    let page = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "10"])
        .arg(dashboard.expect("it says where the dashboard is"))
        .output()
        .expect("curl starts");
    assert!(
        text(&page).contains("<title>evenkeel</title>"),
        "{}",
        text(&page)
    );
    let (_, arguments) = line.split_once("curl ").expect("just seen");
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10"])
        .args(arguments.split_whitespace())
        .output()
        .expect("curl starts");
    assert!(curl.status.success(), "{}", text(&curl));
    assert!(
        text(&curl).contains("\n  \"backend\": \""),
        "{}",
        text(&curl)
    );

    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    let status = child.0.wait().expect("it ends");
    assert!(status.success(), "{rest}");
    // It says nothing of shares that it has not measured.
    let said = match rest.contains(" % (") {
        true => " 0 failed; no share was further than ",
        false => " 0 failed; it ended before a share was measured.",
    };
    assert!(rest.contains(said), "{rest}");
}
