//! `evenkeel completions` and `evenkeel man`: shells and groff take what they are given.

use std::fs;
use std::process::{Command, Output};

mod support;

use support::require;

fn evenkeel(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).output().expect("it runs")
}

/// What it printed; it must have gone well and without a complaint.
fn said(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The script for a shell, in a folder of its own.
fn script(shell: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("completions");
    fs::write(&file, said(evenkeel(&["completions", shell]))).expect("writable");
    let file = file.to_str().expect("UTF-8").to_owned();
    (folder, file)
}

#[test]
fn bash_completes() {
    if !require("bash") {
        return;
    }
    let (_folder, file) = script("bash");
    said(
        Command::new("bash")
            .args(["-n", &file])
            .output()
            .expect("it runs"),
    );
    // As readline calls the function, for the word that is being typed.
    let complete = |words: &[&str]| {
        let ask = r#"source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            _evenkeel "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", ask, "bash", &file]).args(words);
        let answer = said(bash.output().expect("it runs"));
        answer.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["evenkeel", "che"]), ["check"]);
    assert_eq!(complete(&["evenkeel", "config", "s"]), ["schema"]);
    assert_eq!(
        complete(&["evenkeel", "completions", ""]),
        ["-h", "--help", "bash", "zsh", "fish"]
    );
    assert!(complete(&["evenkeel", "run", "--"]).contains(&"--set".to_owned()));
}

#[test]
fn zsh_takes_the_script() {
    if require("zsh") {
        let (_folder, file) = script("zsh");
        said(
            Command::new("zsh")
                .args(["-n", &file])
                .output()
                .expect("it runs"),
        );
    }
}

#[test]
fn fish_completes() {
    if !require("fish") {
        return;
    }
    let (folder, file) = script("fish");
    let ask = format!("source {file}; complete -C 'evenkeel che'");
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", &ask])
        .env("HOME", folder.path());
    let answer = said(fish.output().expect("it runs"));
    assert!(answer.starts_with("check\t"), "{answer}");
}

#[test]
fn manual_pages_are_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    said(evenkeel(&["man", "--out", out]));
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
    assert_eq!(page("evenkeel.1"), said(evenkeel(&["man"])));
    assert_eq!(
        page("evenkeel-config-schema.1"),
        said(evenkeel(&["man", "config", "schema"]))
    );
    // Every command has one.
    let help = said(evenkeel(&["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut looked_at = 0;
    for line in commands.take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().expect("a command");
        // What is indented further goes on about the one above.
        if line.starts_with("   ") || name == "help" {
            continue;
        }
        page(&format!("evenkeel-{name}.1"));
        looked_at += 1;
    }
    assert!(looked_at > 10, "{help}");

    let wrong = evenkeel(&["man", "confg"]);
    assert_eq!(wrong.status.code(), Some(1));

    if !require("groff") {
        return;
    }
    for entry in fs::read_dir(folder.path()).expect("readable") {
        let page = entry.expect("readable").path();
        let mut groff = Command::new("groff");
        // Every warning, and no output.
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page);
        said(groff.output().expect("it runs"));
    }
}
