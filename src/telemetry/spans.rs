//! What traces tell of requests: one span each, if it is recorded.
//!
//! A worker decides when a request begins ([`Tracer::begin`]) and hands over what became of it
//! ([`Tracer::end`]), on a bounded queue that it never waits for. Whoever exports (`otel`, behind the
//! Cargo feature of that name) takes them from the other end. Without an exporter there is no
//! [`Tracer`], and a request costs one look.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::traceparent::Traceparent;

/// Spans that wait, as many as OpenTelemetry's own processors keep: with the longest texts 4 MiB.
const QUEUE: usize = 2048;

/// A longer path, name or list of states is cut off, or left out: they are the client's, and wait in
/// memory.
const LONGEST_TEXT: usize = 512;

/// The workers' end.
#[derive(Debug)]
pub struct Tracer {
    /// Share of requests that are recorded where nobody above has decided: 0 to 1.
    ratio: f64,
    queue: Sender<Span>,
    /// What became of spans. Relaxed: each stands for itself.
    pub counts: Counts,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// The collector took them.
    pub exported: AtomicU64,
    /// It did not.
    pub failed: AtomicU64,
    /// There was no room for them.
    pub dropped: AtomicU64,
}

/// A request that is recorded, while it goes on.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The trace's id.
    pub trace: u128,
    /// The span's own.
    pub id: u64,
    /// The span above, if there is one.
    pub parent: Option<u64>,
    /// What other systems have said of the trace (`tracestate`).
    pub state: Option<Box<str>>,
    /// When it began.
    pub at: SystemTime,
}

/// A request that is over.
#[derive(Debug, Clone)]
pub struct Span {
    /// Where it belongs, and when it began.
    pub begun: Begun,
    /// How long it took.
    pub took: Duration,
    /// Its method, if it is a known one.
    pub method: Option<&'static str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host that was asked for, and its port if it was named.
    pub host: Box<str>,
    /// See `host`.
    pub port: Option<u16>,
    /// Its path, without the query.
    pub path: Box<str>,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// Status the client got; 0: none.
    pub status: u16,
    /// How it failed, if it did: as the metrics call it.
    pub failure: Option<&'static str>,
    /// Label of its route.
    pub route: Option<Arc<str>>,
    /// Name of its service.
    pub service: Option<Arc<str>>,
    /// Address of the backend of the last attempt.
    pub backend: Option<Arc<str>>,
    /// Attempts after the first.
    pub retries: u32,
    /// Address of the client.
    pub client: IpAddr,
    /// As the access log has it.
    pub request_id: [u8; 32],
}

impl Tracer {
    /// One that records `ratio` (0 to 1) of the requests of which nobody has decided yet, and the end
    /// from which their spans are taken.
    pub fn new(ratio: f64) -> (Arc<Tracer>, Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let tracer = Tracer {
            ratio,
            queue,
            counts: Counts::default(),
        };
        (Arc::new(tracer), spans)
    }

    /// Decides about a request that begins: as whoever sent it has, or by chance. `traceparent` and
    /// `tracestate`: as they came.
    pub fn begin(
        &self,
        traceparent: Option<&[u8]>,
        tracestate: Option<&[u8]>,
    ) -> Option<Box<Begun>> {
        let above = traceparent.and_then(Traceparent::parse);
        let recorded = match &above {
            Some(above) => above.is_sampled(),
            None => fastrand::f64() < self.ratio,
        };
        if !recorded {
            return None;
        }
        let state = tracestate.filter(|state| above.is_some() && state.len() <= LONGEST_TEXT);
        let above = above.map(|above| above.ids());
        Some(Box::new(Begun {
            trace: above.map_or_else(|| fastrand::u128(1..), |(trace, _)| trace),
            id: fastrand::u64(1..),
            parent: above.map(|(_, parent)| parent),
            state: state
                .and_then(|state| str::from_utf8(state).ok())
                .map(Into::into),
            at: SystemTime::now(),
        }))
    }

    /// A request is over. Where there is no room for its span, it is counted and lost.
    pub fn end(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Counts {
    /// How many spans ended how.
    pub fn results(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("exported", read(&self.exported)),
            ("failed", read(&self.failed)),
            ("dropped", read(&self.dropped)),
        ]
    }
}

impl Begun {
    /// The `traceparent` for whatever is below.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace, self.id)
    }
}

/// What a client sent, as far as it is kept.
pub fn kept(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST_TEXT)]);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOVE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    fn span(begun: &Begun) -> Span {
        Span {
            begun: begun.clone(),
            took: Duration::ZERO,
            method: None,
            scheme: "http",
            host: "a".into(),
            port: None,
            path: "/".into(),
            version: "1.1",
            status: 200,
            failure: None,
            route: None,
            service: None,
            backend: None,
            retries: 0,
            client: [127, 0, 0, 1].into(),
            request_id: [b'0'; 32],
        }
    }

    #[test]
    fn whoever_is_above_decides_else_chance() {
        for (rule, ratio, parent, recorded) in [
            ("sampled above", 0.0, Some(format!("{ABOVE}1")), true),
            (
                "with another flag (level 2: random)",
                0.0,
                Some(format!("{ABOVE}3")),
                true,
            ),
            ("not sampled above", 1.0, Some(format!("{ABOVE}0")), false),
            (
                "not sampled, with another flag",
                1.0,
                Some(format!("{ABOVE}2")),
                false,
            ),
            ("nobody above, all", 1.0, None, true),
            ("nobody above, none", 0.0, None, false),
            (
                "nonsense is nobody",
                1.0,
                Some("00-1-2-01".to_owned()),
                true,
            ),
            (
                "nonsense is nobody, none",
                0.0,
                Some("00-1-2-01".to_owned()),
                false,
            ),
        ] {
            let (tracer, _spans) = Tracer::new(ratio);
            let begun = tracer.begin(parent.as_deref().map(str::as_bytes), Some(b"a=1"));
            assert_eq!(begun.is_some(), recorded, "{rule}");
            let Some(begun) = begun else { continue };
            let below = begun.traceparent();
            let below = Traceparent::parse(below.as_bytes()).expect(rule);
            assert!(below.is_sampled(), "{rule}");
            assert_eq!(below.ids(), (begun.trace, begun.id), "{rule}");
            let above = parent
                .as_deref()
                .and_then(|p| Traceparent::parse(p.as_bytes()));
            assert_eq!(begun.parent, above.map(|above| above.ids().1), "{rule}");
            assert_eq!(begun.state.is_some(), above.is_some(), "{rule}");
            if let Some(above) = above {
                assert_eq!(begun.trace, above.ids().0, "{rule}");
            }
        }
    }

    #[test]
    fn a_share_is_recorded() {
        let (tracer, _spans) = Tracer::new(0.25);
        let recorded = (0..10_000).filter(|_| tracer.begin(None, None).is_some());
        // Eleven standard deviations to either side.
        assert!((2_000..3_000).contains(&recorded.count()));
    }

    #[test]
    fn what_has_no_room_is_counted_and_lost() {
        let (tracer, mut spans) = Tracer::new(1.0);
        let begun = tracer.begin(None, None).expect("all are recorded");
        (0..QUEUE + 3).for_each(|_| tracer.end(span(&begun)));
        assert_eq!(tracer.counts.results()[2], ("dropped", 3));
        assert!(spans.try_recv().is_ok());
        tracer.end(span(&begun));
        assert_eq!(tracer.counts.results()[2], ("dropped", 3));
    }

    #[test]
    fn what_clients_send_is_cut() {
        assert_eq!(kept(&[b'a'; 2 * LONGEST_TEXT]).len(), LONGEST_TEXT);
        assert_eq!(&*kept("aé".as_bytes()), "aé");
    }
}
