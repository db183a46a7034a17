use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::CertificateFiles;
use crate::tls::certificates;

fn names() -> Vec<String> {
    DEFAULT_NAMES.map(str::to_owned).to_vec()
}

#[test]
fn it_can_be_served_and_is_valid_now() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(&folder.path().join("new/folder"));
    files
        .write(&self_signed(&names()).unwrap(), Existing::Keep)
        .unwrap();
    let loaded = certificates::load(&CertificateFiles {
        cert: files.cert,
        key: files.key,
    })
    .unwrap();
    assert_eq!(loaded.names(), ["localhost".into()]);
    assert_eq!(loaded.warnings(SystemTime::now()), []);
}

#[test]
fn nothing_is_overwritten_unless_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(folder.path());
    let made = self_signed(&names()).unwrap();
    for in_the_way in [&files.ca, &files.cert, &files.key] {
        fs::write(in_the_way, "mine").unwrap();
        let error = files.write(&made, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(&*in_the_way.to_string_lossy()));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing else was written"
        );
        assert_eq!(fs::read_to_string(in_the_way).unwrap(), "mine");
        fs::remove_file(in_the_way).unwrap();
    }
    fs::write(&files.key, "mine, and readable by all").unwrap();
    files.write(&made, Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(&files.key).unwrap(), made.key);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    for (path, mode) in [
        (&files.key, 0o600),
        (&files.cert, 0o644),
        (&files.ca, 0o644),
    ] {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o077,
            mode & 0o077
        );
    }
}

/// As `certs` would be after so long.
fn found(files: &DevFiles, names: &[&str], days: u64) -> Found {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let now = SystemTime::now() + Duration::from_secs(days * 86_400);
    files.find(&names, now).unwrap()
}

#[test]
fn what_was_made_here_is_good_until_the_day_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(folder.path());
    let usable = |found| matches!(found, Found::Usable(_));
    let why = |found| match found {
        Found::Unusable(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(matches!(found(&files, &DEFAULT_NAMES, 0), Found::Nothing));
    let made = self_signed(&["Localhost".into(), "*.a.test".into(), "::1".into()]).unwrap();
    files.write(&made, Existing::Keep).unwrap();
    for (names, good) in [
        (&["localhost"][..], true),
        (&["LOCALHOST", "::1"], true),
        (&["*.a.test"], true),
        (&["b.a.test"], true),
        (&["a.test"], false),
        (&["*.test"], false),
        (&["localhost", "127.0.0.1"], false),
    ] {
        let found = found(&files, names, 0);
        match good {
            true => assert!(usable(found), "{names:?}"),
            false => assert_eq!(why(found), "it has other names", "{names:?}"),
        }
    }
    assert!(usable(found(&files, &["localhost"], 363)));
    let end = why(found(&files, &["localhost"], 365));
    assert_eq!(end, "it ends within a day, or has ended");

    // What a crash leaves, or somebody's clean-up.
    let other = self_signed(&names()).unwrap();
    for (file, text, words) in [
        (&files.key, Some(&other.key), "it does not go with its key"),
        (&files.key, None, "its key is missing"),
        (
            &files.ca,
            Some(&other.ca),
            "it does not go with its authority",
        ),
        (
            &files.ca,
            Some(&"x".into()),
            "it does not go with its authority",
        ),
        (&files.ca, None, "its authority is missing"),
    ] {
        match text {
            Some(text) => fs::write(file, text).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
        assert_eq!(why(found(&files, &["localhost"], 0)), words);
        files.write(&made, Existing::Replace).unwrap();
    }
    fs::remove_file(&files.key).unwrap();
    fs::remove_file(&files.cert).unwrap();
    assert!(matches!(found(&files, &["localhost"], 0), Found::Nothing));
}

#[test]
fn what_was_made_elsewhere_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(folder.path());
    let theirs = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
    let (cert, key) = (theirs.cert.pem(), theirs.signing_key.serialize_pem());
    fs::write(&files.cert, &cert).unwrap();
    fs::write(&files.key, &key).unwrap();
    for days in [0, 1_000_000] {
        let found = found(&files, &["localhost"], days);
        assert!(matches!(found, Found::Foreign(_)), "{found:?}");
    }
    let find = || files.find(&names(), SystemTime::now());
    for (cert, key, ca, words) in [
        (Some("x"), Some(&key), None, "no certificate in it"),
        (Some(&*cert), None, None, "dev.key: cannot be read"),
        (None, Some(&key), None, "dev.key is there without"),
        (None, None, Some(&cert), "ca.pem is there without"),
    ] {
        for (file, text) in [
            (&files.cert, cert),
            (&files.key, key.map(|k| &**k)),
            (&files.ca, ca.map(|c| &**c)),
        ] {
            let _ = fs::remove_file(file);
            if let Some(text) = text {
                fs::write(file, text).unwrap();
            }
        }
        let error = find().unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
