//! `evenkeel cert dev --if-missing` as a container starts it: again and again, and as a user whom
//! the folder does not belong to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Exit code, and what it said on both of its outputs.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the program runs");
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(both).expect("text");
    (output.status.code(), text)
}

fn cert(program: impl AsRef<Path>, folder: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(["cert", "dev", "--if-missing", "--out"]);
    command.arg(folder);
    command
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_evenkeel"))
}

/// Names and contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("it is there");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("it can be read").path();
            let name = path.file_name().expect("a file").to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("it can be read"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_second_start_changes_nothing_and_another_name_makes_it_anew() {
    let folder = TempDir::new().expect("a folder");
    let folder = &folder.path().join("certs");
    let (code, text) = run(&mut cert(program(), folder));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("dev.pem  for localhost"), "{text}");
    let made = files(folder);
    let names: Vec<_> = made.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["ca.pem", "dev.key", "dev.pem"]);

    let (code, text) = run(&mut cert(program(), folder));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("dev.pem  is there, valid until 20"), "{text}");
    assert_eq!(files(folder), made);

    let (code, text) = run(cert(program(), folder).args(["--name", "shop.test"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("made anew: it has other names"), "{text}");
    let anew = files(folder);
    assert_eq!(anew.len(), 3);
    assert!(anew.iter().zip(&made).all(|(new, old)| new.1 != old.1));

    // Without the flag it stays as careful as it was.
    let mut command = Command::new(program());
    let (code, text) = run(command.args(["cert", "dev", "--out"]).arg(folder));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--force replaces it"), "{text}");
    assert_eq!(files(folder), anew);

    let (code, text) = run(cert(program(), folder).arg("--force"));
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn what_was_made_elsewhere_stays() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let theirs = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).expect("a name");
    fs::write(folder.join("dev.pem"), theirs.cert.pem()).expect("it can be written");
    let key = theirs.signing_key.serialize_pem();
    fs::write(folder.join("dev.key"), key).expect("it can be written");
    let before = files(folder);
    let (code, text) = run(&mut cert(program(), folder));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("left as it is"), "{text}");
    assert_eq!(files(folder), before);

    fs::write(folder.join("dev.key"), "x").expect("it can be written");
    let before = files(folder);
    let (code, text) = run(&mut cert(program(), folder));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no private key in it"), "{text}");
    assert!(text.contains("--force replaces"), "{text}");
    assert_eq!(files(folder), before);
}

#[test]
fn who_may_not_write_is_told_who_he_is() {
    const STRANGER: u32 = 65_532;
    let folder = TempDir::new().expect("a folder");
    let us = folder.path().metadata().expect("it is there").uid();
    let certs = &folder.path().join("certs");
    fs::create_dir(certs).expect("it can be made");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    // Root may write anywhere, so it becomes somebody else, who must be able to find the program.
    let copy = folder.path().join("evenkeel");
    // By another process: what one that another test starts just now inherits of a file that we
    // write would keep the program from being run (ETXTBSY).
    let mut cp = Command::new("cp");
    let copied = cp.arg(program()).arg(&copy).status().expect("cp runs");
    assert!(copied.success(), "there is room");
    mode(folder.path(), 0o755);
    mode(&copy, 0o755);
    mode(certs, 0o555);
    if us == 0 {
        chown(certs, Some(1_000), None).expect("root may");
    }
    let owner = if us == 0 { 1_000 } else { us };
    let stranger = || {
        let mut command = cert(&copy, certs);
        if us == 0 {
            command.uid(STRANGER).gid(STRANGER);
        }
        command
    };
    let who = if us == 0 { STRANGER } else { us };
    let asked = |code, text: &str| {
        assert_eq!(code, Some(1), "{text}");
        let certs = certs.display();
        for said in [
            format!("{certs}/"),
            "Permission denied".to_owned(),
            format!("runs as user {who} "),
            format!("{certs} belongs to user {owner} "),
            format!("chown -R {who}:"),
            format!("user: \"{owner}:"),
        ] {
            assert!(text.contains(&said), "{said:?} is missing in {text}");
        }
    };
    let (code, text) = run(&mut stranger());
    asked(code, &text);
    assert_eq!(files(certs).len(), 0);

    // A key that only its owner can read is no use to another either.
    mode(certs, 0o755);
    let (code, text) = run(&mut cert(program(), certs));
    assert_eq!(code, Some(0), "{text}");
    let made = files(certs);
    let key = certs.join("dev.key");
    mode(&key, if us == 0 { 0o600 } else { 0o000 });
    let (code, text) = run(&mut stranger());
    asked(code, &text);
    mode(&key, 0o600);
    assert_eq!(files(certs), made);

    // To look is enough where there is nothing to do.
    mode(&key, 0o644);
    mode(certs, 0o555);
    let (code, text) = run(&mut stranger());
    assert_eq!(code, Some(0), "{text}");
    mode(certs, 0o755);
}
