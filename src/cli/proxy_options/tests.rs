//! Flags to configuration, one row per form of `--to`.

use clap::Parser as _;

use super::*;
use crate::config::{Config, Discover, HostPattern, Protocol};

#[derive(clap::Parser)]
struct Typed {
    #[command(flatten)]
    args: Args,
}

fn load(line: &str) -> Result<Config, String> {
    let words = std::iter::once("evenkeel").chain(line.split_whitespace());
    let args = Typed::try_parse_from(words)
        .map_err(|e| e.to_string())?
        .args;
    let loaded = args
        .loader()
        .and_then(Loader::load)
        .map_err(|e| e.to_string())?;
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    Ok(loaded.config)
}

#[test]
fn each_form_of_to() {
    for (line, expected) in [
        (
            "--from :8080 --to srv://_http._tcp.web --resolver 127.0.0.1:8600 --resolver ::1",
            "SRV _http._tcp.web by [127.0.0.1:8600, [::1]:53]",
        ),
        ("--from :8080 --to a://web:8080", "A web 8080 by []"),
        (
            "--from :8080 --to a://web.example.:80/",
            "A web.example. 80 by []",
        ),
        (
            "--from :8080 --to http://10.0.0.7:8080/",
            "10.0.0.7:8080 0 1",
        ),
        (
            "--from 127.0.0.1:0 --to 10.0.0.7:8080 --to [::1]:81",
            "10.0.0.7:8080 0 1, [::1]:81 0 1",
        ),
    ] {
        let config = load(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let found = match &config.services[0].discover {
            Discover::Srv { name, lookup } => format!("SRV {name} by {:?}", lookup.servers),
            Discover::Address { name, port, lookup } => {
                format!("A {name} {port} by {:?}", lookup.servers)
            }
            Discover::Static(list) => {
                let each = list
                    .iter()
                    .map(|e| format!("{} {} {}", e.address, e.priority, e.weight));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        assert_eq!(found, expected, "{line}");
        assert!(
            matches!(config.listeners[0].protocol, Protocol::Http),
            "{line}"
        );
        assert_eq!(config.routes[0].host, HostPattern::Any);
        assert_eq!(&*config.routes[0].path, "/");
    }
}

#[test]
fn a_certificate_makes_it_https() {
    let config = load("--from :8443 --to 10.0.0.7:80 --cert a.pem --key a.key").unwrap();
    let Protocol::Https(tls) = &config.listeners[0].protocol else {
        panic!("plain http");
    };
    assert_eq!(tls.certificates[0].cert, std::path::PathBuf::from("a.pem"));
    assert_eq!(tls.certificates[0].key, std::path::PathBuf::from("a.key"));
}

#[test]
fn settings_go_over_the_flags() {
    let config = load("--from :8080 --to 10.0.0.7:80 --set service.proxy.strategy=cycle").unwrap();
    assert_eq!(
        config.services[0].balancing.strategy,
        crate::config::Strategy::Cycle
    );
}

#[test]
fn backends_speak_what_the_scheme_or_the_flag_says() {
    use crate::config::UpstreamProtocol::{H2, H2c, Http, Https};
    for (line, expected) in [
        ("--to 10.0.0.7:80", Http),
        ("--to http://10.0.0.7:80", Http),
        ("--to https://10.0.0.7:80 --to https://10.0.0.8:80", Https),
        ("--to h2c://10.0.0.7:80", H2c),
        ("--to h2://10.0.0.7:80", H2),
        ("--to srv://web --upstream h2c", H2c),
    ] {
        let config = load(&format!("--from :8080 {line}")).expect(line);
        assert_eq!(config.services[0].upstream.protocol, expected, "{line}");
    }
}

#[test]
fn mistakes_are_shown_in_the_flag() {
    for (line, message) in [
        ("--from 8080 --to 10.0.0.7:80", "--from:1:1"),
        ("--from :8080 --to srv://a..b", "an empty label"),
        ("--from :8080 --to srv://", "this is empty"),
        ("--from :8080 --to a://web", "has no port"),
        ("--from :8080 --to a://web:x", "`x` is not a number"),
        (
            "--from :8080 --to a://web:0",
            "0 is not between 1 and 65535",
        ),
        ("--from :8080 --to srv://a --upstream grpc", "`grpc`"),
        (
            "--from :8080 --to http://web:80",
            "a name is looked up with",
        ),
        (
            "--from :8080 --to https://10.0.0.7:80 --to h2c://10.0.0.8:80",
            "all backends speak the same",
        ),
        ("--from :8080 --to ftp://10.0.0.7:80", "`ftp` is not known"),
        ("--from :8080 --to srv://a --to srv://b", "stands alone"),
        ("--from :8080 --to 10.0.0.7:80 --cert a.pem", "--key"),
        ("--from :8080", "--to"),
        (
            "--from :8080 --to 10.0.0.7:80 --set log.levle=debug",
            "did you mean `level`?",
        ),
    ] {
        let error = load(line).expect_err(line);
        assert!(error.contains(message), "{line}\n{error}");
    }
}
