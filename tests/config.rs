//! Files that must load and files that must fail, each with the whole text that it must give.
//!
//! `zone-valid` and `zone-invalid` are the same for the files of `evenkeel dns`.
//!
//! `tests/config/valid/*` load; a `.txt` beside one holds its warnings, without one there are
//! none. `tests/config/invalid/*` fail, with the text in the `.txt` beside them. After a change of
//! wording, `EVENKEEL_BLESS=1 cargo test --test config` writes the texts; read the diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel::config::{self, Config, Discover, Format, Loader, Protocol};

/// The files of one folder, sorted, the texts beside them left out.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new("tests/config").join(folder))
        .expect("the folder is in the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_none_or(|e| e != "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Compares with the text beside `file`, or writes it.
fn compare(file: &Path, text: &str, wrong: &mut Vec<String>) {
    let beside = PathBuf::from(format!("{}.txt", file.display()));
    // Lines end where their text ends, so that editors leave the files alone.
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let text = text.join("\n");
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        if text.is_empty() {
            // There may have been none.
            let _ = fs::remove_file(&beside);
        } else {
            fs::write(
                &beside,
                text + "
",
            )
            .expect("writable");
        }
        return;
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    if expected.trim_end() != text {
        wrong.push(format!(
            "{}\n--- expected\n{expected}--- found\n{text}\n",
            file.display()
        ));
    }
}

#[test]
fn valid_files_load() {
    let mut wrong = Vec::new();
    for file in files("valid") {
        match Loader::file(&file).load() {
            Ok(loaded) => compare(&file, &loaded.warnings.to_string(), &mut wrong),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn invalid_files_fail_with_their_message() {
    let mut wrong = Vec::new();
    for file in files("invalid") {
        match Loader::file(&file).open_files().load() {
            Ok(_) => wrong.push(format!("{} loads", file.display())),
            Err(error) => compare(&file, &error.to_string(), &mut wrong),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn zones_load_or_fail_with_their_message() {
    let mut wrong = Vec::new();
    for file in files("zone-valid") {
        match Loader::file(&file).load_zone() {
            Ok(config) => compare(&file, &format!("{config:#?}"), &mut wrong),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    for file in files("zone-invalid") {
        match Loader::file(&file).load_zone() {
            Ok(_) => wrong.push(format!("{} loads", file.display())),
            Err(error) => compare(&file, &error.to_string(), &mut wrong),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is written in one format means the same in the others.
#[test]
fn formats_agree() {
    let load = |ending| {
        let path = format!("tests/config/valid/full.{ending}");
        let loaded = Loader::file(path).load().unwrap_or_else(|e| panic!("{e}"));
        // How it was written is what differs.
        let config = Config {
            written: Default::default(),
            ..loaded.config
        };
        format!("{config:#?}")
    };
    let toml = load("toml");
    assert_eq!(toml, load("yaml"));
    assert_eq!(toml, load("json"));
}

#[test]
fn every_key_is_documented() {
    documented("src/config/keys.md", config::keys());
    documented("src/config/zone_keys.md", config::zone_keys());
}

/// Each key has a row in the tables of `page`, and each row is a key.
fn documented(page: &str, keys: Vec<(String, &'static str)>) {
    let page = fs::read_to_string(page).expect("the page is in the repository");
    let keys: Vec<String> = keys.into_iter().map(|(key, _)| key).collect();
    let rows = rows(&page);
    let rows: Vec<&str> = rows.iter().map(|(key, _)| *key).collect();
    for key in &keys {
        // The tables of a service are those of [dns] and [defaults], where they have no rows of their own.
        let elsewhere = key.strip_prefix("service.").map(|own| match own {
            own if own.starts_with("dns.") => own.to_owned(),
            own => format!("defaults.{own}"),
        });
        let inside = key.matches('.').count() > 1;
        let elsewhere = elsewhere.filter(|_| inside);
        let found = rows.contains(&key.as_str());
        assert!(
            found || elsewhere.is_some_and(|key| rows.contains(&key.as_str())),
            "no row for `{key}`"
        );
    }
    for row in rows {
        assert!(keys.iter().any(|k| k == row), "`{row}` is no key");
    }
}

/// Keys and defaults of the tables of a page.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(" |").map(str::trim).collect();
            (cells[0].trim_matches('`'), cells[2])
        })
        .collect()
}

/// What the reference calls a default is what the program does without the key: said aloud, it changes
/// nothing.
#[test]
fn defaults_said_aloud_change_nothing() {
    let page = fs::read_to_string("src/config/keys.md").expect("it is in the repository");
    let with = |table: &str, setting: &str| {
        let mut file = SMALL.to_owned();
        match file.find(&format!("[[{table}]]")) {
            Some(at) => file.insert_str(at + table.len() + 4, &format!("\n{setting}")),
            None => file.push_str(&format!("\n[{table}]\n{setting}")),
        }
        let config = text(&file).load().ok()?.config;
        let written = Default::default();
        Some(format!("{:#?}", Config { written, ..config }))
    };
    let mut tried = BTreeSet::new();
    for (key, default) in rows(&page) {
        let Some((table, own)) = key.split_once('.').filter(|(_, own)| !own.contains('.')) else {
            continue;
        };
        let value = match default {
            "off" => "\"off\"",
            default => default.trim_matches('`'),
        };
        // What can't be written so is said in words, or wants a key beside it.
        if let Some(config) = with(table, &format!("{own} = {value}")) {
            // That it was said is what decides there: what is said has to be had.
            if key != "admin.address" {
                assert!(Some(config) == with(table, ""), "`{key}` is not {default}");
            }
            tried.insert(key);
        }
    }
    for key in [
        "listener.http2",
        "service.upstream",
        "defaults.retries",
        "dns.max_ttl",
        "drain.streams",
    ] {
        assert!(tried.contains(key), "{key}: {tried:#?}");
    }
    assert!(tried.len() > 55, "{tried:#?}");
}

fn text(text: &str) -> Loader {
    Loader::text(text, Format::Toml)
}

const SMALL: &str = r#"
    [[listener]]
    name = "edge"
    address = "127.0.0.1:0"
    protocol = "http"
    [[service]]
    name = "web-1"
    discover = { a = "web", port = 8080 }
    [[route]]
    service = "web-1"
"#;

/// Defaults as the documentation gives them.
#[test]
fn defaults() {
    let config = config::from_toml_str(SMALL).unwrap();
    let seconds = Duration::from_secs;
    let down = &config.downstream;
    assert_eq!(down.header_timeout, seconds(10));
    assert_eq!(down.handshake_timeout, seconds(10));
    assert_eq!(down.keep_alive, seconds(75));
    assert_eq!((down.header_bytes, down.header_fields), (32 * 1024, 100));
    assert!(down.max_connections.get() <= 65_536);
    assert_eq!(down.max_connections_per_client, None);
    assert_eq!(config.memory, config::MemoryLimit::Group);
    assert!(!down.reject_encoded_slash && !down.allow_underscores && !down.forwarded);
    let service = &config.services[0];
    assert_eq!(service.balancing.strategy, config::Strategy::Weighted);
    assert_eq!(service.max_body, None);
    assert_eq!(service.rate_limit, None);
    assert_eq!(service.upgrade, [Box::from("websocket")]);
    let up = &service.upstream;
    assert_eq!(up.connect_timeout, seconds(1));
    assert_eq!(up.response_timeout, seconds(60));
    assert_eq!(up.body_timeout, seconds(30));
    assert_eq!(up.stream_idle, seconds(300));
    assert_eq!((up.stall_timeout, up.min_rate), (seconds(30), 240));
    assert_eq!(up.tunnel_idle, seconds(3600));
    assert_eq!((up.keep_alive, up.max_idle), (seconds(4), 64));
    assert_eq!(
        (
            up.retries,
            up.retry_budget_percent,
            up.retry_budget_per_second
        ),
        (1, 20, 10)
    );
    let Discover::Address { lookup, .. } = &service.discover else {
        panic!("not an address lookup");
    };
    assert_eq!((lookup.timeout, lookup.retries), (seconds(1), 1));
    assert_eq!((lookup.min_ttl, lookup.max_ttl), (seconds(1), seconds(30)));
    assert_eq!((lookup.absent_after, lookup.shrink_guard), (3, 2));
    assert_eq!(
        (lookup.max_endpoints, lookup.family),
        (4096, config::Family::Auto)
    );
    assert_eq!(lookup.interval, None);
    assert!(lookup.servers.is_empty());
    assert_eq!(config.probe, Some(([127, 0, 0, 1], 9902).into()));
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.access, config::AccessFormat::Json);
    assert_eq!(config.drain.wait, seconds(5));
    assert_eq!(config.drain.requests, seconds(30));
    assert_eq!(config.drain.streams, seconds(300));
}

/// Defaults < file < environment < flags.
#[test]
fn order_of_precedence() {
    let file = format!("{SMALL}\n[log]\nlevel = \"warn\"\n");
    let variable = ("EVENKEEL_LOG__LEVEL".to_owned(), "debug".to_owned());
    let level = |loader: Loader| loader.load().unwrap().config.log.level;
    assert_eq!(level(text(SMALL)), "info");
    assert_eq!(level(text(&file)), "warn");
    assert_eq!(level(text(&file).environment([variable.clone()])), "debug");
    assert_eq!(
        level(text(&file).set("log.level=trace").environment([variable])),
        "trace"
    );
}

#[test]
fn settings_over_a_file() {
    type Find = fn(&Config) -> String;
    let strategy: Find = |c| format!("{:?}", c.services[0].balancing.strategy);
    let rows: &[(&str, &str, Find, &str)] = &[
        ("a number", "workers=3", |c| c.workers.to_string(), "3"),
        (
            "a duration",
            "drain.wait=0s",
            |c| format!("{:?}", c.drain.wait),
            "0ns",
        ),
        (
            "a truth value",
            "http.forwarded=true",
            |c| c.downstream.forwarded.to_string(),
            "true",
        ),
        (
            "a size",
            "defaults.max_body=1MiB",
            |c| format!("{:?}", c.services[0].max_body),
            "Some(1048576)",
        ),
        (
            "a fraction",
            "service.0.spill=1.5",
            |c| format!("{:?}", c.services[0].balancing.spill),
            "Some(1.5)",
        ),
        (
            "a truth value that stands for a number",
            "defaults.spill=true",
            |c| format!("{:?}", c.services[0].balancing.spill),
            "Some(1.4)",
        ),
        ("by number", "service.0.strategy=cycle", strategy, "Cycle"),
        ("by name", "service.web-1.strategy=cycle", strategy, "Cycle"),
        (
            "by quoted name",
            "service.\"web-1\".strategy=cycle",
            strategy,
            "Cycle",
        ),
        (
            "a list",
            "trusted_proxies=10.0.0.0/8, ::1",
            |c| format!("{:?}", c.trusted_proxies),
            "[10.0.0.0/8, ::1/128]",
        ),
        (
            "a list as in TOML",
            "trusted_proxies=[\"10.0.0.0/8\"]",
            |c| format!("{:?}", c.trusted_proxies),
            "[10.0.0.0/8]",
        ),
        (
            "a table as in TOML",
            "service.0.discover={ srv = \"_a._tcp.b\" }",
            |c| {
                matches!(&c.services[0].discover, Discover::Srv { name, .. } if &**name == "_a._tcp.b").to_string()
            },
            "true",
        ),
        (
            "a member more",
            "listener.1={ address = \":0\", protocol = \"http\" }",
            |c| c.listeners.len().to_string(),
            "2",
        ),
        (
            "an equals sign in the value",
            "route.0.headers={ x = \"a=b\" }",
            |c| format!("{:?}", c.routes[0].conditions.headers[0].1),
            "Value(\"a=b\")",
        ),
        (
            "no size",
            "limits.memory=off",
            |c| format!("{:?}", c.memory),
            "Off",
        ),
        (
            "off",
            "probe.address=off",
            |c| format!("{:?}", c.probe),
            "None",
        ),
    ];
    for (rule, flag, find, expected) in rows {
        let loaded = text(SMALL)
            .set(*flag)
            .load()
            .unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert_eq!(find(&loaded.config), *expected, "{rule}");
    }
}

#[test]
fn variables() {
    let load = |name: &str, value: &str| {
        text(SMALL)
            .environment([(name.to_owned(), value.to_owned())])
            .load()
    };
    let loaded = load("EVENKEEL_SERVICE__WEB_1__STRATEGY", "cycle").unwrap();
    assert_eq!(
        loaded.config.services[0].balancing.strategy,
        config::Strategy::Cycle
    );
    assert_eq!(
        load("EVENKEEL_WORKERS", "7").unwrap().config.workers.get(),
        7
    );
    // What Kubernetes sets when a Service is called `evenkeel`.
    for (name, value) in [
        ("EVENKEEL_PORT", "tcp://10.0.0.1:443"),
        ("EVENKEEL_PORT_8443_TCP_ADDR", "10.0.0.1"),
        ("EVENKEEL_SERVICE_HOST", "10.0.0.1"),
        ("EVENKEEL_SERVICE_PORT_HTTPS", "8443"),
        ("EVENKEEL_CONFIG", "x.toml"),
        ("PATH", "/bin"),
    ] {
        let loaded = load(name, value).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(loaded.warnings.is_empty(), "{name}: {}", loaded.warnings);
    }
    let warned = load("EVENKEEL_LOG_LEVEL", "debug").unwrap();
    assert_eq!(warned.config.log.level, "info");
    let warning = warned.warnings.to_string();
    assert!(
        warning.contains("did you mean `EVENKEEL_LOG__LEVEL`?"),
        "{warning}"
    );
}

#[test]
fn mistakes_in_variables_and_flags_are_shown_where_they_are() {
    for (flag, expected) in [
        ("log.level", "expected key=value"),
        ("log..level=x", "a key is empty"),
        ("log.levle=debug", "--set:1:5"),
        ("log.levle=debug", "did you mean `level`?"),
        ("log.level=loud=x=y=z[", "is no level and no filter"),
        ("log.level=inof", "\"inof\" is no level"),
        ("log.level=\",\"", "says nothing"),
        ("drain.wait=5", "`5` has no unit"),
        ("workers=0", "0 is not between 1 and 1024"),
        ("workers=many", "`many` is not a number"),
        ("service.wbe-1.strategy=cycle", "did you mean `web-1`?"),
        ("service.7.strategy=cycle", "this list has 1 members"),
        ("log.level.x=1", "expected text, found a table"),
        ("listener.0.address.x=1", "what is set here is text"),
        ("trusted_proxies=10.0.0.0/8,nowhere", "--set:1:28"),
        ("trusted_proxies=[\"x\"", "--set:1"),
    ] {
        let error = text(SMALL).set(flag).load().expect_err(flag).to_string();
        assert!(error.contains(expected), "{flag}\n{error}");
    }
    let variable = ("EVENKEEL_LOG__LEVLE".to_owned(), "debug".to_owned());
    let error = text(SMALL)
        .environment([variable])
        .load()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("environment:1:15") && error.contains("did you mean `level`?"),
        "{error}"
    );
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    fs::write(
        &file,
        "[[listener]]\naddress = ':0'\nprotocol = 'https'\n\
         certificates = { cert = 'certs/a.pem', key = '/run/a.key' }\n",
    )
    .unwrap();
    let config = config::load(&file).unwrap();
    let Protocol::Https(tls) = &config.listeners[0].protocol else {
        panic!("not https");
    };
    assert_eq!(tls.certificates[0].cert, folder.path().join("certs/a.pem"));
    assert_eq!(tls.certificates[0].key, Path::new("/run/a.key"));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Loader::file(folder.path().join("none.toml")).load();
    assert!(missing.unwrap_err().to_string().contains("No such file"));
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, b"a = 1\n\xff\n").unwrap();
    let error = Loader::file(&binary).load().unwrap_err().to_string();
    assert!(error.contains("is not UTF-8 in line 2"), "{error}");
}

/// Ten thousand routes are read and looked up without a noticeable wait.
#[test]
fn ten_thousand_routes() {
    let mut file = String::from(SMALL);
    for i in 0..10_000 {
        file += &format!(
            "[[route]]\nhost = 'h{i}.example.com'\npath = '/p{}'\nservice = 'web-1'\n",
            i % 7
        );
    }
    let config = config::from_toml_str(&file).unwrap();
    let router = evenkeel::router::Router::new(&config);
    let found = router.route(evenkeel::router::Request {
        listener: 0,
        method: b"GET",
        host: "h9999.example.com",
        path: b"/p3/x",
        query: b"",
        fields: &Default::default(),
    });
    assert_eq!(&*found.unwrap().label, "h9999.example.com/p3");
}

/// The command itself: exit codes, and which of the two outputs says what.
#[test]
fn check_says_ok_or_all_that_is_wrong() {
    let check = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .arg("check")
            .args(arguments)
            .env_remove("EVENKEEL_CONFIG")
            .env_remove("EVENKEEL_BLESS")
            .output()
            .expect("the binary starts")
    };
    let good = check(&["tests/config/valid/static.toml"]);
    assert_eq!(good.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("ok: "));
    assert!(good.stderr.is_empty());

    let bad = check(&["tests/config/invalid/unknown-key.toml"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(bad.stdout.is_empty());
    let text = fs::read_to_string("tests/config/invalid/unknown-key.toml.txt").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&bad.stderr).trim_end(),
        text.trim_end()
    );

    assert_eq!(check(&["--no-such-flag"]).status.code(), Some(2));
}

/// A third of the descriptors that the process may have, not of those it was started with.
#[test]
fn connections_follow_the_hard_limit_of_descriptors() {
    let check = format!(
        "ulimit -Sn 64 && ulimit -Hn 3000 && exec {} check tests/config/valid/static.toml",
        env!("CARGO_BIN_EXE_evenkeel"),
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &check])
        .output();
    let text = String::from_utf8(output.expect("a shell").stdout).expect("UTF-8");
    assert!(text.contains("at most 1000 connections"), "{text}");
}

/// Damaged files load or are refused, in words that can be drawn: nothing panics.
#[test]
fn damaged_files() {
    use proptest::prelude::*;
    let whole: Vec<(Format, String)> = [
        (Format::Toml, "toml"),
        (Format::Yaml, "yaml"),
        (Format::Json, "json"),
    ]
    .map(|(format, ending)| {
        let path = format!("tests/config/valid/full.{ending}");
        (format, fs::read_to_string(path).expect("readable"))
    })
    .into();
    let damage = (
        any::<prop::sample::Index>(),
        0..20_usize,
        "[\\PC\n\t\0\"\\[\\]{}=:,.#-]{0,6}",
    );
    let runner = (0..3_usize, prop::collection::vec(damage, 1..4));
    proptest!(ProptestConfig::with_cases(400), |((which, damages) in runner)| {
        let (format, text) = &whole[which];
        let mut text = text.clone();
        for (at, length, instead) in damages {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &instead);
        }
        if let Err(diagnostic) = Loader::text(text, *format).load() {
            prop_assert!(diagnostic.to_string().starts_with("error: "));
        }
    });
}
