//! Leaves the versions of the compiler and of the TLS libraries for `evenkeel version`.

use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    for (variable, value) in [
        ("EVENKEEL_RUSTC", compiler()),
        ("EVENKEEL_TARGET", env::var("TARGET").ok()),
        ("EVENKEEL_RUSTLS", locked(&lock, "rustls")),
        ("EVENKEEL_AWS_LC_RS", locked(&lock, "aws-lc-rs")),
    ] {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        println!("cargo::rustc-env={variable}={value}");
    }
}

/// As in `rustc 1.95.0 (f2d3ce0bd 2026-03-21)`.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?)
        .arg("--version")
        .output()
        .ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The locked version of a package that is in the lock file once.
fn locked(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = \"")?;
    Some(version.trim_end_matches('"').to_owned())
}
