//! Reads the validity period out of a certificate (RFC 5280 §4.1.2.5), and out of a revocation list.
//!
//! webpki checks the period but does not tell it.

use std::time::SystemTime;

use super::der::{INTEGER, SEQUENCE, behind_issuer, element};
use crate::telemetry::date::Civil;

/// From when until when a certificate is valid, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// notBefore.
    pub not_before: SystemTime,
    /// notAfter.
    pub not_after: SystemTime,
}

/// The validity period of a DER certificate.
pub fn validity(der: &[u8]) -> Option<Validity> {
    let (period, _) = element(behind_issuer(der)?, SEQUENCE)?;
    let (not_before, period) = time(period)?;
    let (not_after, _) = time(period)?;
    Some(Validity {
        not_before,
        not_after,
    })
}

/// Until when a DER certificate revocation list is to be renewed (RFC 5280 §5.1.2.5).
pub fn next_update(der: &[u8]) -> Option<SystemTime> {
    let (list, _) = element(der, SEQUENCE)?;
    let (mut tbs, _) = element(list, SEQUENCE)?;
    if tbs.first() == Some(&INTEGER) {
        (_, tbs) = element(tbs, INTEGER)?; // version
    }
    let (_, tbs) = element(tbs, SEQUENCE)?; // signature
    let (_, tbs) = element(tbs, SEQUENCE)?; // issuer
    let (_this_update, tbs) = time(tbs)?;
    Some(time(tbs)?.0)
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// UTCTime until 2049, GeneralizedTime from 2050 (§4.1.2.5.1, §4.1.2.5.2); always `Z`, always
/// with seconds.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (year, digits, rest) = match *der.first()? {
        UTC_TIME => {
            let (text, rest) = element(der, UTC_TIME)?;
            let two = number(text.get(..2)?)?;
            let century = if two < 50 { 2000 } else { 1900 };
            (century + i64::from(two), text.get(2..)?, rest)
        }
        GENERALIZED_TIME => {
            let (text, rest) = element(der, GENERALIZED_TIME)?;
            (i64::from(number(text.get(..4)?)?), text.get(4..)?, rest)
        }
        _ => return None,
    };
    let [m1, m0, d1, d0, h1, h0, i1, i0, s1, s0, b'Z'] = *digits else {
        return None;
    };
    let civil = Civil {
        year,
        month: number(&[m1, m0])? as u8,
        day: number(&[d1, d0])? as u8,
        hour: number(&[h1, h0])? as u8,
        minute: number(&[i1, i0])? as u8,
        second: number(&[s1, s0])? as u8,
    };
    Some((civil.to_system_time()?, rest))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, d| {
        d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i64) -> SystemTime {
        Civil {
            year,
            month: 3,
            day: 4,
            hour: 0,
            minute: 0,
            second: 0,
        }
        .to_system_time()
        .unwrap()
    }

    /// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after it.
    #[test]
    fn reads_both_kinds_of_time() {
        for (from, until) in [(1999, 2049), (2020, 2050), (2049, 2051), (2051, 4000)] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 3, 4);
            params.not_after = rcgen::date_time_ymd(until, 3, 4);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(
                validity(certificate.der()),
                Some(Validity {
                    not_before: at(from.into()),
                    not_after: at(until.into()),
                }),
                "{from} to {until}"
            );
        }
    }

    #[test]
    fn a_list_is_to_be_renewed() {
        use rcgen::{CertificateParams, CertificateRevocationListParams, Issuer, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        for (from, until) in [(2020, 2049), (2020, 2050)] {
            let list = CertificateRevocationListParams {
                this_update: rcgen::date_time_ymd(from, 3, 4),
                next_update: rcgen::date_time_ymd(until, 3, 4),
                crl_number: 1_u64.into(),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&issuer).unwrap();
            let der: &[u8] = list.der();
            assert_eq!(next_update(der), Some(at(until.into())), "{until}");
            for end in 0..der.len() {
                assert_eq!(next_update(&der[..end]), None, "cut at {end}");
            }
        }
    }

    #[test]
    fn a_certificate_cut_anywhere_before_the_period_ends_gives_none() {
        let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let der: &[u8] = certificate.cert.der();
        assert!(validity(der).is_some());
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None, "cut at {end}");
        }
    }
}
