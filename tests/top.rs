//! `evenkeel top` in a real terminal, tmux's: what is on it, what keys do, and that it is given back.

mod support;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use support::backend::Backend;
use support::client::Client;
use support::server::{Folder, Server};
use support::{require, wait_until};

/// A terminal; ends with its value.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `evenkeel top` in one of 80 by 24, and says how it ended and how the terminal is.
    fn top(folder: &Folder, environment: &str) -> Terminal {
        let place = folder.path().display();
        let binary = env!("CARGO_BIN_EXE_evenkeel");
        // A shell that says its number becomes the program.
        let inner =
            format!("echo $$ > {place}/pid; exec {binary} top --socket {place}/control.sock");
        let command = format!(
            "echo before; {environment} sh -c '{inner}'; echo exit $?; stty -a; echo over; exec cat"
        );
        // A server of tmux's that ends is not in the way of the next one.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = format!("evenkeel-{}-{number}", std::process::id());
        let terminal = Terminal { socket };
        let started = terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &command]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(arguments);
        command.output().expect("tmux is there")
    }

    fn press(&self, keys: &[&str]) {
        let sent = self.tmux(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{sent:?}");
    }

    /// What is to be read, with colours or without.
    fn screen(&self, colours: &[&str]) -> String {
        let seen = self.tmux(&[&["capture-pane", "-p"], colours].concat());
        String::from_utf8_lossy(&seen.stdout).into_owned()
    }

    fn shows(&self, parts: &[&str]) {
        let mut seen = String::new();
        let mut shown = || {
            seen = self.screen(&[]);
            parts.iter().all(|part| seen.contains(part))
        };
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("it is on the screen", &mut shown);
        }));
        assert!(waited.is_ok(), "not all of {parts:?} is in\n{seen}");
    }

    /// It has ended with 0, and the terminal is as it was.
    fn is_given_back(&self) {
        self.shows(&["before", "exit 0", " icanon", " echo ", "over"]);
        assert!(!self.screen(&[]).contains("EVENTS"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

struct Play {
    folder: Folder,
    backends: [Backend; 3],
    server: Server,
}

impl Play {
    fn new() -> Option<Play> {
        if !require("tmux") {
            return None;
        }
        let folder = Folder::new();
        let mut backends = ["one", "two", "standby"].map(Backend::start);
        // As they are listed.
        backends[..2].sort_by_key(|backend| backend.address);
        let [one, two, standby] = backends.each_ref().map(|backend| backend.address);
        let server = Server::binary(&format!(
            "workers = 1\n[admin]\naddress = \"off\"\nsocket = \"{}/control.sock\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[service]]\nname = \"web\"\ndiscover = {{ static = [\
             {{ address = \"{one}\", weight = 3 }}, {{ address = \"{two}\", weight = 1 }}, \
             {{ address = \"{standby}\", priority = 10 }}] }}\n\
             [[route]]\nservice = \"web\"\n",
            folder.path().display()
        ));
        Some(Play {
            folder,
            backends,
            server,
        })
    }

    fn request(&self, times: usize) {
        let mut client = Client::plain(self.server.address());
        for _ in 0..times {
            let response = client.get("localhost", "/").expect("it answers");
            assert_eq!(response.status(), 200);
        }
    }

    fn pid(&self) -> rustix::process::Pid {
        let text = std::fs::read_to_string(self.folder.path().join("pid")).expect("it said so");
        let number = text.trim().parse().ok();
        number
            .and_then(rustix::process::Pid::from_raw)
            .expect("a number")
    }
}

#[test]
fn everything_is_there_and_keys_work() {
    let Some(play) = Play::new() else {
        return;
    };
    let [one, two, standby] = play.backends.each_ref().map(|b| b.address.to_string());
    let terminal = Terminal::top(&play.folder, "");
    terminal.shows(&[
        "● ready",
        "▾ web  weighted  3/3 up",
        "tier 0 serving",
        "tier 10 standby",
    ]);
    terminal.shows(&[&one, &two, &standby, "75.0%", "25.0%", "started", "? help"]);
    // What is measured comes with the traffic.
    play.request(40);
    terminal.shows(&["75.0%  75.0%", "25.0%  25.0%"]);

    terminal.press(&["?"]);
    terminal.shows(&["Keys", "passed over"]);
    terminal.press(&["x", "Down", "d"]);
    let question = format!("Give web/{one} no new request?");
    terminal.shows(&["Drain", &question, "has started"]);
    terminal.press(&["n", "d", "y"]);
    terminal.shows(&[
        "○",
        "drained by hand",
        "2/3 up",
        "is drained",
        "backend drained",
    ]);
    let had = play.backends[0].requests();
    play.request(10);
    assert_eq!(play.backends[0].requests(), had, "it gets nothing");
    terminal.press(&["d", "y"]);
    terminal.shows(&["3/3 up", "is not drained any more"]);

    terminal.press(&["w"]);
    terminal.shows(&["Weight", "Enter sets it"]);
    terminal.press(&["9", "Enter"]);
    terminal.shows(&["9!", "90.0%", "has weight 9 by hand"]);
    terminal.press(&["w", "Enter"]);
    terminal.shows(&["75.0%", "has weight 3 as DNS says"]);

    // Unfolded, and wider: there is room for bars.
    terminal.press(&["Enter"]);
    terminal.shows(&["no check, 0 failed ever"]);
    terminal.tmux(&["resize-window", "-x", "120", "-y", "30"]);
    terminal.shows(&["████", "EVENTS", "weight cleared", "? help"]);
    println!("{}", terminal.screen(&[]));
    terminal.press(&["q"]);
    terminal.is_given_back();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    use rustix::process::Signal;
    let Some(play) = Play::new() else {
        return;
    };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let terminal = Terminal::top(&play.folder, "");
        terminal.shows(&["● ready", "▾ web"]);
        rustix::process::kill_process(play.pid(), signal).expect("it runs");
        terminal.is_given_back();
    }
}

#[test]
fn there_are_colours_unless_they_are_not_wanted() {
    let Some(play) = Play::new() else {
        return;
    };
    // SGR 30 to 37 are colours, and so is 38;5;N; 39 is none.
    let coloured = |screen: &str| (30..39).any(|n| screen.contains(&format!("\x1b[{n}")));
    let terminal = Terminal::top(&play.folder, "");
    terminal.shows(&["● ready", "▾ web"]);
    let seen = terminal.screen(&["-e"]);
    assert!(coloured(&seen), "{seen:?}");
    drop(terminal);
    let terminal = Terminal::top(&play.folder, "NO_COLOR=1");
    terminal.shows(&["● ready", "▾ web"]);
    let seen = terminal.screen(&["-e"]);
    assert!(!coloured(&seen), "{seen:?}");
}

#[test]
fn it_says_when_the_process_is_gone() {
    let Some(mut play) = Play::new() else {
        return;
    };
    let terminal = Terminal::top(&play.folder, "");
    terminal.shows(&["● ready", "▾ web"]);
    play.server.process().kill();
    terminal.shows(&["these data are", "no instance is listening"]);
}

#[test]
fn without_a_terminal_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("top")
        .output();
    let output = output.expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("top needs a terminal (docker exec -it)"),
        "{said}"
    );
}
