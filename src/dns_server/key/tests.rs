//! Tests of TSIG keys.

use hickory_proto::op::Query;

use super::*;

/// 32 bytes, with slashes in their base64.
const SECRET_TEXT: &str = "//////////////////////////////////////////8=";

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

#[test]
fn files_that_hold_a_key() {
    let key = |algorithm: &str, secret: &str| {
        format!("key \"web\" {{ algorithm {algorithm}; secret \"{secret}\"; }};")
    };
    let plain = key("hmac-sha256", SECRET_TEXT);
    let rows = [
        ("tsig-keygen", plain.clone(), "hmac-sha256"),
        ("sha384", key("hmac-sha384", SECRET_TEXT), "hmac-sha384"),
        ("sha512", key("hmac-sha512", SECRET_TEXT), "hmac-sha512"),
        ("upper case", key("HMAC-SHA256", SECRET_TEXT), "hmac-sha256"),
        ("final dot", key("hmac-sha256.", SECRET_TEXT), "hmac-sha256"),
        (
            "quoted algorithm",
            key("\"hmac-sha256\"", SECRET_TEXT),
            "hmac-sha256",
        ),
        (
            "name in upper case, no quotes, the other order",
            format!("key WEB. {{ secret \"{SECRET_TEXT}\"; algorithm hmac-sha256; }};"),
            "hmac-sha256",
        ),
        (
            "lines and comments",
            format!(
                "# one\n// two\n/* three\n * four */ key web\n{{\n\talgorithm hmac-sha256; // five\n\
                 \tsecret \"{SECRET_TEXT}\"; /* six */\n}};\n# end"
            ),
            "hmac-sha256",
        ),
        (
            "no white space",
            format!("key web{{algorithm hmac-sha256;secret \"{SECRET_TEXT}\";}};"),
            "hmac-sha256",
        ),
        ("windows", plain.replace(' ', "\r\n"), "hmac-sha256"),
        (
            "one line, as nsupdate -y takes it",
            format!("hmac-sha256:web:{SECRET_TEXT}\n"),
            "hmac-sha256",
        ),
        (
            "one line and a comment",
            format!("# mine\nhmac-sha512:web.:{SECRET_TEXT}"),
            "hmac-sha512",
        ),
    ];
    for (row, text, algorithm) in rows {
        let key = Key::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{row}: {e:?}"));
        assert_eq!(key.name().to_string(), "web.", "{row}");
        assert_eq!(key.algorithm().to_string(), algorithm, "{row}");
        assert_eq!(BASE64.encode(key.signer().key()), SECRET_TEXT, "{row}");
        assert_eq!(key.signer().fudge(), 300, "{row}");
    }
}

#[test]
fn files_that_hold_none() {
    let good = format!("key web {{ algorithm hmac-sha256; secret \"{SECRET_TEXT}\"; }};\n");
    let rows = [
        ("empty", String::new(), 1, "but the file ends"),
        (
            "only a comment",
            "# nothing\n".into(),
            2,
            "but the file ends",
        ),
        (
            "another statement",
            "options { };".into(),
            1,
            "found `options`",
        ),
        (
            "no brace",
            "key web\nalgorithm".into(),
            2,
            "expected `{`, found `algorithm`",
        ),
        (
            "md5",
            "key web {\n  algorithm hmac-md5;\n".into(),
            2,
            "`hmac-md5` is not taken: hmac-sha256, hmac-sha384 or hmac-sha512",
        ),
        (
            "no base64",
            "key web {\n algorithm hmac-sha256;\n secret \"a secret\"; };".into(),
            3,
            "the secret is not base64",
        ),
        (
            "short",
            "hmac-sha256:web:c2hvcnQ=".into(),
            1,
            "a secret of 5 bytes is too short: at least 16",
        ),
        (
            "no secret",
            "key web { algorithm hmac-sha256;\n };".into(),
            2,
            "the key has no secret",
        ),
        (
            "no algorithm",
            format!("key web {{ secret \"{SECRET_TEXT}\"; }};"),
            1,
            "the key has no algorithm",
        ),
        (
            "twice",
            "key web { algorithm hmac-sha256;\nalgorithm hmac-sha256; };".into(),
            2,
            "each once",
        ),
        (
            "no semicolon",
            good.replace("; }", " }"),
            1,
            "expected `;`, found `}`",
        ),
        (
            "no last semicolon",
            good.replace("};", "}"),
            2,
            "expected `;`, but the file ends",
        ),
        ("two keys", good.repeat(2), 2, "one key to a file"),
        (
            "open quote",
            "key \"web { \n".into(),
            1,
            "a quote that does not end",
        ),
        ("open comment", "\n/* key".into(), 2, "without its `*/`"),
        (
            "two parts",
            format!("web:{SECRET_TEXT}"),
            1,
            "expected `hmac-sha256:name:base64`",
        ),
        (
            "no name",
            format!("hmac-sha256::{SECRET_TEXT}"),
            1,
            "it is empty",
        ),
        (
            "root",
            format!("hmac-sha256:.:{SECRET_TEXT}"),
            1,
            "it is empty",
        ),
        (
            "bad name",
            format!("hmac-sha256:a..b:{SECRET_TEXT}"),
            1,
            "is no name for a key",
        ),
    ];
    for (row, text, line, problem) in rows {
        let error = Key::parse(text.as_bytes()).expect_err(row);
        assert_eq!(error.line, line, "{row}: {error:?}");
        assert!(error.problem.contains(problem), "{row}: {error:?}");
        assert!(!error.problem.contains("////"), "{row} tells: {error:?}");
    }
    let binary = Key::parse(b"key\n\xff").expect_err("no text");
    assert_eq!((binary.line, &*binary.problem), (2, "not a text file"));
}

#[test]
fn a_key_is_read_back_as_it_was_written() {
    let key = Key::generate(name("Web.Svc")).unwrap();
    let again = Key::parse(key.to_text().as_bytes()).unwrap();
    assert_eq!(again.name().to_string(), "web.svc.");
    assert_eq!(again.signer().key(), key.signer().key());
    assert_eq!(again.signer().key().len(), 32);
    let other = Key::generate(name("web.svc")).unwrap();
    assert_ne!(again.signer().key(), other.signer().key());
}

#[test]
fn debug_shows_no_secret() {
    let key = Key::parse(format!("hmac-sha256:web:{SECRET_TEXT}").as_bytes()).unwrap();
    let shown = format!("{key:?}");
    assert!(
        shown.contains("web.") && shown.contains("hmac-sha256"),
        "{shown}"
    );
    assert!(!shown.contains("255") && !shown.contains("//"), "{shown}");
}

#[test]
fn of_several_makers_one_wins_and_all_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/web.key");
    let start = std::sync::Barrier::new(8);
    let keys: Vec<_> = std::thread::scope(|scope| {
        let make = || {
            start.wait();
            Key::create(&path, name("web")).unwrap()
        };
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        makers.into_iter().map(|m| m.join().unwrap()).collect()
    });
    for file in &keys {
        assert_eq!(file.key.signer().key(), keys[0].key.signer().key());
        assert!(!file.exposed);
    }
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(entries, 1, "nothing is left beside it");
}

#[test]
fn files_say_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.key");
    assert!(Key::read(&path).unwrap_err().is_missing());
    fs::write(&path, "\nkey web;").unwrap();
    let error = Key::read(&path).unwrap_err();
    assert!(!error.is_missing());
    let place = format!("{}:2: expected `{{`", path.display());
    assert!(error.to_string().starts_with(&place), "{error}");
    assert!(
        Key::create(&path, name("web")).is_err(),
        "it stays as it is"
    );

    fs::write(&path, format!("hmac-sha256:web:{SECRET_TEXT}")).unwrap();
    for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Key::read(&path).unwrap().exposed, exposed, "{mode:o}");
    }
}

#[test]
fn a_message_is_from_whoever_has_the_key() {
    let key = Key::generate(name("web")).unwrap();
    let mut message = Message::query();
    message.add_query(Query::new());
    let unsigned = message.to_vec().unwrap();
    assert_eq!(key.verify(&unsigned, None), Err(VerifyError::Unsigned));
    let (record, _) = key.signer().sign_message(&message, 1_000).unwrap();
    let mac = record.data.mac.clone();
    message.set_signature(record);
    let signed = message.to_vec().unwrap();

    let tsig = key.verify(&signed, None).unwrap();
    assert_eq!((tsig.time, tsig.fudge), (1_000, 300));
    let as_response = key.verify(&signed, Some(&mac));
    assert_eq!(as_response, Err(VerifyError::BadSignature));
    let same_name = Key::generate(name("web")).unwrap();
    let forged = same_name.verify(&signed, None);
    assert_eq!(forged, Err(VerifyError::BadSignature));
    let other = Key::generate(name("other")).unwrap();
    assert_eq!(other.verify(&signed, None), Err(VerifyError::OtherKey));
    for byte in 0..signed.len() {
        let mut changed = signed.clone();
        changed[byte] ^= 1;
        // The identifier is not covered: forwarders change it (RFC 8945 section 4.3.1).
        assert_eq!(key.verify(&changed, None).is_ok(), byte < 2, "byte {byte}");
        assert!(key.verify(&signed[..byte], None).is_err(), "cut at {byte}");
    }
}
