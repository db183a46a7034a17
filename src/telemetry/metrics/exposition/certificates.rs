//! What the page says of certificates.

use std::collections::BTreeSet;
use std::fmt;

use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::super::family::{Out, Value};
use super::{Page, unix_seconds};

impl Page {
    pub(super) fn certificates(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut family = out.family(
            "tls_cert_not_after_timestamp_seconds",
            "When a certificate expires",
            Gauge,
        )?;
        let mut seen = BTreeSet::new();
        for certificate in &self.live.certificates {
            if seen.insert((&certificate.listener, &certificate.file)) {
                let labels = [
                    ("listener", &*certificate.listener),
                    ("file", &*certificate.file),
                ];
                family.add(&labels, Value::Gauge(unix_seconds(certificate.not_after)))?;
            }
        }
        let files = self.live.certificate_files;
        let mut family = out.family(
            "tls_certificate_reloads",
            "Certificates whose files changed, by what became of them",
            Counter,
        )?;
        for (result, count) in [("replaced", files.replaced), ("refused", files.refused)] {
            family.add(&[("result", result)], Value::Count(count))?;
        }
        let mut family = out.family(
            "tls_certificates_unusable",
            "Certificates whose files cannot be used as they are now",
            Gauge,
        )?;
        family.only(Value::Gauge(files.unusable as f64))?;
        if let Some(acme) = &self.live.acme {
            let mut family = out.family(
                "acme_orders",
                "Certificates that were ordered, by what came of it",
                Counter,
            )?;
            for &(result, count) in &acme.orders {
                family.add(&[("result", result)], Value::Count(count))?;
            }
            let mut family = out.family(
                "acme_renewal_timestamp_seconds",
                "When the next certificate for a name is ordered",
                Gauge,
            )?;
            for (name, at) in &acme.renewals {
                let at = Value::Gauge(unix_seconds(*at));
                family.add(&[("name", &**name)], at)?;
            }
        }
        Ok(())
    }
}
