//! What an authority calls a certificate by (RFC 9773 §4.1): who issued it, and its serial number.

use super::der::{INTEGER, OBJECT_IDENTIFIER, SEQUENCE, any, behind_issuer, element};

/// `[0]`, constructed: the version of a certificate.
const VERSION: u8 = 0xa0;
/// `[3]`, constructed: its extensions.
const EXTENSIONS: u8 = 0xa3;
const OCTET_STRING: u8 = 0x04;
/// `[0]`, primitive: keyIdentifier.
const KEY_IDENTIFIER: u8 = 0x80;
/// id-ce-authorityKeyIdentifier, 2.5.29.35.
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];

/// The key identifier of the issuer (RFC 5280 §4.2.1.1) and the serial number, both as they are in a
/// DER certificate.
pub fn issued_by(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (mut tbs, _) = element(outer, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        (_, tbs) = element(tbs, VERSION)?;
    }
    let (serial, _) = element(tbs, INTEGER)?;
    let mut rest = behind_issuer(certificate)?;
    let extensions = loop {
        let (found, behind) = any(rest)?;
        if found.tag == EXTENSIONS {
            break found.content;
        }
        rest = behind;
    };
    let (mut list, _) = element(extensions, SEQUENCE)?;
    while !list.is_empty() {
        let (extension, behind) = element(list, SEQUENCE)?;
        list = behind;
        let (kind, mut value) = element(extension, OBJECT_IDENTIFIER)?;
        if kind != AUTHORITY_KEY_IDENTIFIER {
            continue;
        }
        // Perhaps whether it is critical, then what it is.
        while let Some((found, behind)) = any(value) {
            if found.tag == OCTET_STRING {
                let (identifier, _) = element(found.content, SEQUENCE)?;
                let (key, _) = element(identifier, KEY_IDENTIFIER)?;
                return Some((key, serial));
            }
            value = behind;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_and_serial_number_are_found() {
        use rcgen::{CertificateParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let mut leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        leaf.serial_number = Some(SerialNumber::from(vec![0x87, 0x65]));
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let made = leaf.signed_by(&key, &issuer).unwrap();
        // Encoded: a positive number has a zero in front.
        let expected = (&[7; 20][..], &[0, 0x87, 0x65][..]);
        assert_eq!(issued_by(made.der()), Some(expected));
        let own = leaf.self_signed(&key).unwrap();
        for end in 0..made.der().len() {
            assert_eq!(issued_by(&made.der()[..end]), None, "cut at {end}");
        }
        assert!(issued_by(own.der()).is_some());
        leaf.use_authority_key_identifier_extension = false;
        assert_eq!(issued_by(leaf.self_signed(&key).unwrap().der()), None);
    }
}
