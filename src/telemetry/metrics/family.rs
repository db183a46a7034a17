//! Writes families of series, with whatever kind of value.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::HistogramTotals;

/// The page, family by family.
pub(super) struct Out<'a>(DescriptorEncoder<'a>);

/// A family under way.
pub(super) struct Family<'a>(MetricEncoder<'a>);

/// One series' value.
pub(super) enum Value<'a> {
    Count(u64),
    /// A counter that is not whole.
    Seconds(f64),
    Gauge(f64),
    Times(&'a HistogramTotals),
    /// A histogram of somebody else's: buckets that are not cumulative, and the sum.
    Buckets(&'a [(f64, u64)], f64),
}

impl<'a> Out<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Out(encoder)
    }

    /// Counters get their `_total`, and Info its `_info`, from the encoder.
    pub(super) fn family<'b>(
        &'b mut self,
        name: &'b str,
        help: &str,
        kind: MetricType,
    ) -> Result<Family<'b>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind).map(Family)
    }
}

impl Family<'_> {
    /// One of several series.
    pub(super) fn add(&mut self, labels: &impl EncodeLabelSet, value: Value<'_>) -> fmt::Result {
        write(&mut self.0.encode_family(labels)?, value)
    }

    /// What is in the labels is all there is to say.
    pub(super) fn info(&mut self, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0.encode_info(labels)
    }

    /// The only series, without labels.
    pub(super) fn only(&mut self, value: Value<'_>) -> fmt::Result {
        write(&mut self.0, value)
    }
}

fn write(series: &mut MetricEncoder<'_>, value: Value<'_>) -> fmt::Result {
    const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
    match value {
        Value::Count(count) => series.encode_counter(&count, NO_EXEMPLAR),
        Value::Seconds(seconds) => series.encode_counter(&seconds, NO_EXEMPLAR),
        Value::Gauge(value) => series.encode_gauge(&value),
        Value::Times(times) => series.encode_histogram::<NoLabelSet>(
            times.seconds(),
            times.count(),
            &times.buckets(),
            None,
        ),
        Value::Buckets(buckets, sum) => {
            let count = buckets.iter().map(|bucket| bucket.1).sum();
            series.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
        }
    }
}
