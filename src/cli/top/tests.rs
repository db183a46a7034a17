//! What keys do, and what is on the screen after it, on a terminal of letters.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::draw::{Palette, draw};
use super::screen::{Command, Mode, Outcome, Screen, View};

fn backend(name: &str, priority: u16, state: &str, reason: Value) -> Value {
    let port = 8000 + u32::from(name.as_bytes()[0]);
    json!({
        "id": format!("web/10.0.0.7:{port}"), "number": 1, "service": "web",
        "target": format!("{name}.web.test."), "address": format!("10.0.0.7:{port}"),
        "priority": priority, "weight": {"srv": 10, "override": null, "effective": 10},
        "split": 1, "share": {"configured": 0.5, "measured": 0.493}, "state": state,
        "reason": reason,
        "detail": format!("10.0.0.7:{port} is {state}: failures, 5 in a row"), "since": null,
        "out_for_seconds": if state == "ejected" { json!(8.0) } else { Value::Null },
        "drained": state == "drained", "last_check": null, "check_failures": 0,
        "ejections": {"failures": 0, "success_rate": 0}, "in_flight": 3, "requests": 1000,
        "requests_per_second": 190.5
    })
}

fn view(backends: &[Value]) -> View {
    let sample = json!({
        "at": "2026-11-28T10:00:00.000Z", "requests_per_second": 412.0, "errors_per_second": 0.0,
        "p50_ms": 1.25, "p99_ms": 7.5, "in_flight": 6, "open_connections": 40, "backends": 2,
        "healthy": 1
    });
    let status = json!({
        "version": "0.1.0", "boot": "b", "now": "2026-11-28T10:00:00Z",
        "started_at": "2026-11-28T09:00:00Z", "uptime_seconds": 3600.0, "state": "ready",
        "ready": true, "unmet": [],
        "drain": {"phase": "serving", "by": null, "since": null, "accepting": true},
        "workers": [],
        "configuration": {"file": null, "generation": 1, "loaded_at": "2026-11-28T09:00:00Z",
                          "last_reload": null},
        "listeners": [],
        "certificate": {"not_after": "2027-01-08T10:00:00Z", "days_left": 41.6, "listener": "l"},
        "sample": sample, "history": {"interval_seconds": 1.0, "samples": [sample]},
        "memory": null
    });
    let services = json!([{
        "name": "web", "discover": {"kind": "srv", "name": "_http._tcp.web.test."},
        "strategy": "weighted", "sticky": false, "upstream": "http", "routes": ["*"],
        "answered": true, "snapshot": {"number": 1, "changed_at": null}, "healthy": 1, "total": 2,
        "in_flight": 6, "queue": null, "requests": 2000, "errors": 0,
        "requests_per_second": 412.0, "p50_ms": 1.25, "p99_ms": 7.5,
        "tiers": [{"priority": 0, "serving": true, "part": 1.0, "last_resort": false, "backends": backends}]
    }]);
    let events = json!([{
        "number": 0, "at": "2026-11-28T09:59:58Z", "kind": "backend_ejected",
        "severity": "warning", "service": "web", "backend": "web/10.0.0.7:8098", "name": null,
        "text": "5 failures in a row"
    }]);
    let read = "the fixture is as the API says";
    View {
        status: serde_json::from_value(status).expect(read),
        services: serde_json::from_value(services).expect(read),
        dns: Vec::new(),
        events: serde_json::from_value(events).expect(read),
    }
}

fn usual() -> Screen {
    let mut screen = Screen::new();
    let backends = [
        backend("a1", 0, "up", Value::Null),
        backend("b1", 0, "ejected", json!("failures")),
    ];
    screen.take(view(&backends), Instant::now());
    screen
}

fn press(screen: &mut Screen, keys: &str) -> Outcome {
    let mut outcome = Outcome::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        outcome = screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    outcome
}

/// What is to be read at that size.
fn seen(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("letters only");
    let draw = terminal.draw(|frame| draw(frame, screen, Palette::Plain, Instant::now()));
    draw.expect("letters only");
    terminal.backend().to_string()
}

#[test]
fn at_80_by_24_everything_is_there() {
    let seen = seen(&usual(), 80, 24);
    for part in [
        "evenkeel 0.1.0  ● ready  up 1h00m  cert 41d",
        "req/s 412",
        "p99 7.5ms",
        "up 1/2",
        "▾ web  weighted  1/2 up  412 req/s",
        "tier 0 serving",
        "● a1 10.0.0.7:8097",
        "50.0%  49.3%     10      3     190",
        "✗ b1 10.0.0.7:8098",
        "ejected ",
        "      failures in a row: 5 in a row; for another 8s",
        "09:59:58 backend ejected web/10.0.0.7:8098: 5 failures in a row",
        "q quit",
    ] {
        assert!(seen.contains(part), "{part:?} is missing in\n{seen}");
    }
}

#[test]
fn a_tier_says_what_it_takes() {
    let rows = [
        (true, 1.0, false, "tier 0 serving "),
        (true, 0.25, false, "tier 0 serving 25.0% of requests"),
        (
            true,
            1.0,
            true,
            "tier 0 nobody can serve; tried all the same",
        ),
        (false, 0.0, false, "tier 0 nobody can serve "),
    ];
    for (serving, part, last_resort, words) in rows {
        let mut screen = usual();
        let mut view = view(&[backend("a1", 0, "up", Value::Null)]);
        let tier = &mut view.services[0].tiers[0];
        (tier.serving, tier.part, tier.last_resort) = (serving, part, last_resort);
        screen.take(view, Instant::now());
        let seen = seen(&screen, 80, 24);
        assert!(seen.contains(words), "{words:?} is missing in\n{seen}");
    }
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut screen = usual();
    for mode in [Mode::Browse, Mode::Help] {
        screen.mode = mode;
        for (width, height) in [(1, 1), (10, 3), (40, 8), (99, 24), (100, 24), (300, 100)] {
            seen(&screen, width, height);
        }
    }
    assert!(seen(&screen, 300, 100).contains("Keys"));
}

#[test]
fn a_drain_is_asked_about_and_taken_back() {
    let mut screen = usual();
    assert_eq!(
        press(&mut screen, "d"),
        Outcome::Nothing,
        "a service is none"
    );
    assert_eq!(screen.mode, Mode::Browse);
    let drain = || Outcome::Do(Command::Drain("web/10.0.0.7:8097".to_owned()));
    press(&mut screen, "jd");
    assert!(seen(&screen, 80, 24).contains("Give web/10.0.0.7:8097 no new request?"));
    assert_eq!(press(&mut screen, "x"), Outcome::Nothing);
    assert_eq!(press(&mut screen, "n"), Outcome::Nothing);
    assert_eq!(press(&mut screen, "y"), Outcome::Nothing, "it was a no");
    assert_eq!(press(&mut screen, "dy"), drain());
    let drained = backend("a1", 0, "drained", json!("by_hand"));
    screen.take(view(&[drained]), Instant::now());
    let undrain = Command::Undrain("web/10.0.0.7:8097".to_owned());
    assert_eq!(press(&mut screen, "dy"), Outcome::Do(undrain));
}

#[test]
fn a_weight_is_typed() {
    let mut screen = usual();
    let weight = |n| Outcome::Do(Command::Weight("web/10.0.0.7:8097".to_owned(), n));
    press(&mut screen, "j");
    assert_eq!(press(&mut screen, "w12\x083\n"), weight(Some(13)));
    assert_eq!(press(&mut screen, "w\n"), weight(None));
    assert_eq!(
        press(&mut screen, "w99999\n"),
        Outcome::Nothing,
        "too large"
    );
    assert_eq!(
        press(&mut screen, "q7\n"),
        weight(Some(7)),
        "still asked for"
    );
    assert_eq!(press(&mut screen, "w7\x1b"), Outcome::Nothing);
    assert_eq!(screen.mode, Mode::Browse);
}

#[test]
fn enter_folds_a_service_and_unfolds_a_backend() {
    let mut screen = usual();
    press(&mut screen, "\n");
    let folded = seen(&screen, 80, 24);
    assert!(folded.contains("▸ web"), "{folded}");
    assert!(!folded.contains("● a1"), "{folded}");
    press(&mut screen, "\nj\n");
    assert!(seen(&screen, 120, 24).contains("a1.web.test.; no check"));
}

#[test]
fn the_selection_stays_with_a_backend_and_moves_on_when_it_is_gone() {
    let mut screen = usual();
    press(&mut screen, "jj");
    let joined = backend("c1", 0, "up", Value::Null);
    let failed = backend("b1", 0, "down", json!("check_timeout"));
    screen.take(view(&[joined.clone(), failed]), Instant::now());
    let selected = |screen: &Screen| {
        let rows = screen.rows();
        let row = rows.iter().find(|row| screen.is_selected(row));
        format!("{:?}", row.and_then(|row| row.place()))
    };
    assert!(selected(&screen).contains("10.0.0.7:8098"));
    screen.take(view(&[joined]), Instant::now());
    assert!(
        selected(&screen).contains("Service"),
        "{}",
        selected(&screen)
    );
}

#[test]
fn what_is_selected_far_below_is_seen() {
    let backends: Vec<Value> = (b'A'..=b'z')
        .map(|letter| backend(&format!("{}x", char::from(letter)), 0, "up", Value::Null))
        .collect();
    let mut screen = Screen::new();
    screen.take(view(&backends), Instant::now());
    press(&mut screen, "G");
    assert!(
        seen(&screen, 80, 24).contains("● zx "),
        "{}",
        seen(&screen, 80, 24)
    );
    press(&mut screen, "g");
    assert!(seen(&screen, 80, 24).contains("▾ web"));
}

#[test]
fn old_data_are_called_old() {
    let mut screen = usual();
    let long_ago = Instant::now() - Duration::from_secs(12);
    let fresh = seen(&screen, 80, 24);
    assert!(!fresh.contains("these data are"), "{fresh}");
    let backends = [backend("a1", 0, "up", Value::Null)];
    screen.take(view(&backends), long_ago);
    screen.trouble = Some("connection refused".to_owned());
    let old = seen(&screen, 80, 24);
    assert!(old.contains("these data are 12s old"), "{old}");
    assert!(old.contains("▲ connection refused"), "{old}");
}

#[test]
fn before_the_first_answer_the_trouble_is_shown() {
    let mut screen = Screen::new();
    assert!(seen(&screen, 80, 24).contains("asking"));
    screen.trouble = Some("nobody listens at /run/evenkeel/control.sock".to_owned());
    assert!(seen(&screen, 80, 24).contains("nobody listens"));
    assert_eq!(press(&mut screen, "q"), Outcome::Quit);
}

/// The terminal is given back before a panic is told: else it would be lost with the screen.
#[test]
fn a_panic_gives_the_terminal_back() {
    const MARK: &str = "EVENKEEL_TEST_PANICS_IN_TOP";
    if std::env::var_os(MARK).is_some() {
        let mut terminal = ratatui::try_init().expect("it runs in tmux");
        let drawn = terminal.draw(|frame| frame.render_widget("what was there", frame.area()));
        drawn.expect("it runs in tmux");
        panic!("on purpose");
    }
    let tmux = |arguments: &[&str]| {
        let socket = format!("evenkeel-panic-{}", std::process::id());
        let mut command = std::process::Command::new("tmux");
        command
            .args(["-L", &socket, "-f", "/dev/null"])
            .args(arguments)
            .output()
    };
    if tmux(&["-V"]).is_err() {
        let promised = std::env::var_os("EVENKEEL_REQUIRE_TOOLS").is_some();
        assert!(!promised, "tmux is not installed");
        return;
    }
    let own = std::env::current_exe().expect("it runs");
    let command = format!(
        "{MARK}=1 {} --exact cli::top::tests::a_panic_gives_the_terminal_back --nocapture; \
         stty -a; echo over; exec cat",
        own.display()
    );
    let started = tmux(&["new-session", "-d", "-x", "100", "-y", "50", &command]);
    assert!(started.expect("it was there").status.success());
    let begun = Instant::now();
    let seen = loop {
        let seen = tmux(&["capture-pane", "-p"]).expect("it was there").stdout;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        if seen.contains("over\n") || begun.elapsed() > Duration::from_secs(20) {
            break seen;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    // What runs in it ends with it.
    let _ = tmux(&["kill-server"]);
    assert!(seen.contains("on purpose"), "{seen}");
    assert!(!seen.contains("what was there"), "{seen}");
    assert!(
        seen.contains(" icanon") && seen.contains(" echo "),
        "{seen}"
    );
}
