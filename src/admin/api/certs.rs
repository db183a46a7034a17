//! `certs`: the certificates that are shown.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::{Desk, date, days_until};
use crate::admin::model::Certificate;

impl Desk {
    pub(super) fn certs(&self) -> Vec<Certificate> {
        let shared = self.shared();
        let listeners = shared.config.listeners.iter().zip(&shared.listeners);
        let sets = listeners.filter_map(|(config, listened)| {
            let set = listened.tls.as_ref()?.certificates.load();
            Some((config, set))
        });
        let mut all = Vec::new();
        for (listener, set) in sets {
            let certificates = set.certificates().iter().enumerate();
            all.extend(certificates.map(|(index, certificate)| {
                let (files, validity) = (certificate.files(), certificate.validity());
                Certificate {
                    listener: listener.name.to_string(),
                    default: index == 0,
                    cert: files.cert.display().to_string(),
                    key: files.key.display().to_string(),
                    names: certificate
                        .names()
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    not_before: date(validity.not_before),
                    not_after: date(validity.not_after),
                    days_left: days_until(validity.not_after),
                    fingerprint: HEXLOWER.encode(digest(&SHA256, certificate.leaf()).as_ref()),
                }
            }));
        }
        all
    }
}
