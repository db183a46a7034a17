use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;

fn wanted(pass_whole: bool) -> ClientCertificates {
    ClientCertificates {
        ca: "clients.pem".into(),
        crl: None,
        mode: ClientCertificateMode::Required,
        pass_whole,
    }
}

/// Valid from 2020 to 2040.
fn certificate(common_name: &str) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    made.der().to_vec()
}

fn at(year: u64) -> SystemTime {
    // Whole years of 365 days: near enough.
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 365 * 86_400)
}

#[test]
fn what_is_said_of_one() {
    let der = certificate("client, one");
    let said = ClientCertificate::of(&der, &wanted(true), at(2030)).unwrap();
    assert_eq!(said.subject(), r"CN=client\, one");
    let digest = digest::digest(&digest::SHA256, &der);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(said.fingerprint(), hex);
    let field = said.whole().unwrap();
    let inside = field.strip_prefix(':').and_then(|f| f.strip_suffix(':'));
    assert_eq!(BASE64.decode(inside.unwrap().as_bytes()).unwrap(), der);
    let less = ClientCertificate::of(&der, &wanted(false), at(2030)).unwrap();
    assert_eq!(less.whole(), None);
}

#[test]
fn what_is_not_taken() {
    let der = certificate("client");
    let large = certificate(&"c".repeat(MOST));
    let long = certificate(&"\n".repeat(1_500));
    for (rule, der, year, expected) in [
        ("valid", &der, 2030, None),
        ("not valid yet", &der, 2019, Some(Unusable::Expired)),
        (
            "expired since the session began",
            &der,
            2041,
            Some(Unusable::Expired),
        ),
        (
            "too large for a field",
            &large,
            2030,
            Some(Unusable::TooLarge),
        ),
        (
            "a subject too long for a field",
            &long,
            2030,
            Some(Unusable::Subject),
        ),
    ] {
        let found = ClientCertificate::of(der, &wanted(true), at(year));
        assert_eq!(found.err(), expected, "{rule}");
    }
}
