//! What the page says of the program itself: its configuration, its logs, its version.

use std::fmt;

use prometheus_client::metrics::MetricType::{Counter, Gauge, Info};

use super::super::family::{Out, Value};
use super::{Page, truth, unix_seconds};

impl Page {
    pub(super) fn program(&self, out: &mut Out<'_>) -> fmt::Result {
        if let Some(spans) = &self.live.spans {
            let mut family = out.family(
                "trace_spans",
                "Spans of requests that were recorded, by what became of them",
                Counter,
            )?;
            for &(result, count) in spans {
                family.add(&[("result", result)], Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "access_log_dropped_lines",
            "Lines of the access log that were lost because nobody read them fast enough",
            Counter,
        )?;
        family.only(Value::Count(self.live.access_lines_dropped))?;
        let mut family = out.family(
            "rate_limit_evictions",
            "Clients whose requests were forgotten for want of room although they counted still",
            Counter,
        )?;
        family.only(Value::Count(self.live.rate_limit_forgiven))?;
        let mut family = out.family(
            "draining",
            "1: between the signal to drain and the end",
            Gauge,
        )?;
        family.only(Value::Gauge(truth(self.live.draining)))?;
        let mut family = out.family(
            "stuck_workers",
            "Workers that have not turned for so long that they are taken for stuck",
            Gauge,
        )?;
        family.only(Value::Gauge(self.live.stuck_workers as f64))?;
        let reloads = self.live.reloads;
        let mut family = out.family(
            "config_reloads",
            "Reloads of the configuration, by whether they put a new one in force",
            Counter,
        )?;
        for (result, count) in [("ok", reloads.succeeded), ("failed", reloads.failed)] {
            family.add(&[("result", result)], Value::Count(count))?;
        }
        let mut family = out.family(
            "config_generation",
            "The generation of the configuration that is in force, from 1",
            Gauge,
        )?;
        family.only(Value::Gauge(reloads.generation as f64))?;
        if let Some((at, succeeded)) = reloads.last {
            let mut family = out.family(
                "config_last_reload_timestamp_seconds",
                "When the last reload was done",
                Gauge,
            )?;
            family.only(Value::Gauge(unix_seconds(at)))?;
            let mut family = out.family(
                "config_last_reload_successful",
                "1: the last reload put a new configuration in force",
                Gauge,
            )?;
            family.only(Value::Gauge(truth(succeeded)))?;
        }
        let mut family = out.family("build", "Which program this is", Info)?;
        family.info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}
