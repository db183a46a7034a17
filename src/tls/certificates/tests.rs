use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::tls::dev;

const ALL: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

fn written(folder: &TempDir, name: &str, names: &[&str], key: &KeyPair) -> CertificateFiles {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(key);
    files(
        folder,
        name,
        &certificate.unwrap().pem(),
        &key.serialize_pem(),
    )
}

fn files(folder: &TempDir, name: &str, cert: &str, key: &str) -> CertificateFiles {
    let files = CertificateFiles {
        cert: folder.path().join(format!("{name}.pem")),
        key: folder.path().join(format!("{name}.key")),
    };
    fs::write(&files.cert, cert).unwrap();
    fs::write(&files.key, key).unwrap();
    files
}

fn set(folder: &TempDir, names: &[&[&str]]) -> CertificateSet {
    let files: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, names)| written(folder, &n.to_string(), names, &KeyPair::generate().unwrap()))
        .collect();
    CertificateSet::load(&files).unwrap()
}

fn index_of(set: &CertificateSet, sni: Option<&str>) -> usize {
    let chosen = set.choose(sni, ALL) as *const Certificate;
    set.certificates
        .iter()
        .position(|c| std::ptr::eq(c, chosen))
        .unwrap()
}

#[test]
fn choice_by_sni() {
    let folder = TempDir::new().unwrap();
    let set = set(
        &folder,
        &[
            &["default.example"],
            &["shop.example", "*.shop.example"],
            &["exact.shop.example"],
            &["*.Mixed.Example"],
            &["shop.example"],
        ],
    );
    for (rule, sni, expected) in [
        ("no SNI: the first", None, 0),
        ("unknown name: the first", Some("other.example"), 0),
        ("exact name", Some("default.example"), 0),
        (
            "exact name, first of two certificates",
            Some("shop.example"),
            1,
        ),
        (
            "wildcard for one label (RFC 9525 §6.3)",
            Some("a.shop.example"),
            1,
        ),
        (
            "a wildcard is no two labels (RFC 9525 §6.3)",
            Some("a.b.shop.example"),
            0,
        ),
        (
            "an exact name goes before a wildcard",
            Some("exact.shop.example"),
            2,
        ),
        (
            "case does not matter (RFC 9525 §6.3)",
            Some("SHOP.example"),
            1,
        ),
        (
            "case of the certificate does not matter",
            Some("x.mixed.example"),
            3,
        ),
        (
            "a wildcard does not cover its parent",
            Some("mixed.example"),
            0,
        ),
        (
            "a final dot does not matter",
            Some("exact.shop.example."),
            2,
        ),
    ] {
        assert_eq!(index_of(&set, sni), expected, "{rule}");
    }
}

#[test]
fn among_equal_names_the_first_one_that_the_client_can_verify() {
    let folder = TempDir::new().unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let p256 = KeyPair::generate().unwrap();
    let set = CertificateSet::load(&[
        written(&folder, "ed", &["a.example"], &ed25519),
        written(&folder, "p256", &["a.example"], &p256),
    ])
    .unwrap();
    for (schemes, expected) in [
        (ALL, "ed.pem"),
        (&[SignatureScheme::ECDSA_NISTP256_SHA256], "p256.pem"),
        (&[SignatureScheme::RSA_PSS_SHA256], "ed.pem"),
    ] {
        let chosen = set.choose(Some("a.example"), schemes);
        assert!(chosen.files().cert.ends_with(expected), "{schemes:?}");
    }
}

#[test]
fn what_is_wrong_is_said_with_the_file() {
    let folder = TempDir::new().unwrap();
    let made = dev::self_signed(&["a.example".to_owned()]).unwrap();
    let other = dev::self_signed(&["a.example".to_owned()]).unwrap();
    let encrypted = made.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let damaged = made.cert.replacen("MII", "MIJ", 1);
    let cut = &made.cert[..made.cert.len() / 2];
    let rubbish_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (name, cert, key, expected) in [
        ("empty", "", &*made.key, "empty.pem: no certificate in it"),
        ("text", "hello", &made.key, "text.pem: no certificate in it"),
        (
            "swapped",
            &made.key,
            &made.cert,
            "swapped.pem: no certificate in it, but a private key: are cert and key swapped?",
        ),
        (
            "twice",
            &made.cert,
            &made.cert,
            "twice.key: no private key in it, but a certificate: are cert and key swapped?",
        ),
        (
            "keyless",
            &made.cert,
            "",
            "keyless.key: no private key in it",
        ),
        (
            "locked",
            &made.cert,
            &encrypted,
            "locked.key: no private key in it, but an encrypted one: decrypt it first",
        ),
        (
            "other",
            &made.cert,
            &other.key,
            "other.key: the key does not match the first certificate of ",
        ),
        (
            "wrong-order",
            &format!("{}{}", made.ca, made.cert),
            &made.key,
            "does not match",
        ),
        (
            "damaged",
            &damaged,
            &made.key,
            "damaged.pem: the first certificate cannot be",
        ),
        ("cut", cut, &made.key, "cut.pem: not a valid PEM file: "),
        (
            "rubbish",
            &made.cert,
            rubbish_key,
            "rubbish.key: the private key cannot be used: ",
        ),
    ] {
        let message = load(&files(&folder, name, cert, key))
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }

    let absent = CertificateFiles {
        cert: folder.path().join("absent.pem"),
        key: folder.path().join("absent.key"),
    };
    let message = load(&absent).unwrap_err().to_string();
    assert!(
        message.contains("absent.pem: cannot be read: No such file"),
        "{message}"
    );

    let large = files(&folder, "large", &" ".repeat(MAX_FILE as usize + 1), "");
    assert!(matches!(
        load(&large),
        Err(CertificateError::TooLarge { .. })
    ));
    assert!(matches!(
        CertificateSet::load(&[]),
        Err(CertificateError::Empty)
    ));
}

#[test]
fn chain_and_key_may_share_a_file_and_a_key_may_be_of_any_kind() {
    let folder = TempDir::new().unwrap();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let two = written(&folder, "two", &["A.example", "*.b.example"], &key);
        let both = [&two.key, &two.cert]
            .map(|f| fs::read_to_string(f).unwrap())
            .concat();
        fs::write(&two.cert, both).unwrap();
        let one = CertificateFiles {
            key: two.cert.clone(),
            cert: two.cert,
        };
        let loaded = load(&one).unwrap();
        assert_eq!(loaded.names(), ["a.example".into(), "*.b.example".into()]);
        assert_eq!(loaded.warnings(SystemTime::now()), []);
    }
}

#[test]
fn outside_its_period_it_is_loaded_with_a_warning() {
    let folder = TempDir::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 2, 3);
    params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    let certificate = params.self_signed(&key).unwrap();
    let loaded = load(&files(
        &folder,
        "old",
        &certificate.pem(),
        &key.serialize_pem(),
    ))
    .unwrap();
    let texts = |now| {
        let warnings = loaded.warnings(now);
        warnings
            .iter()
            .map(|w| w.to_string())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let Validity {
        not_before,
        not_after,
    } = loaded.validity();
    let second = std::time::Duration::from_secs(1);
    assert!(texts(not_after + second).contains("old.pem: expired on 2002-03-04T00:00:00Z"));
    assert!(texts(not_before - second).contains("old.pem: not valid before 2001-02-03T00:00:00Z"));
    assert!(!texts(not_after).contains("expired"));
    assert!(!texts(not_before).contains("not valid"));
    assert!(texts(not_before).contains("old.pem: names no host"));
}
