//! Spans to a collector, by OTLP over HTTP. Behind the Cargo feature `otel`.
//!
//! A thread of its own takes spans from the workers' queue (`telemetry::spans`), in batches, and hands
//! them to opentelemetry-otlp, which knows the format, and the variables of the environment that
//! OpenTelemetry has defined for it. What the SDK has for batches is not used: it does not say how many
//! spans it has dropped. Whatever the collector does, workers never wait for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::Builder;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::config::{Traces, Trust};
use crate::errand;
use crate::telemetry::spans::{Span, Tracer};
use crate::tls::client::Loader;

/// Spans of one request to the collector, as many as OpenTelemetry's own processors send.
const BATCH: usize = 512;

/// After the first span of a batch others are waited for so long.
const GATHER: Duration = Duration::from_millis(200);

/// From the lookup of the collector's name to the end of its response. With what is tried again,
/// an export ends within 10 s (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const DEADLINE: Duration = Duration::from_secs(5);

/// Variables of the environment that say where the collector is.
const VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// The thread that exports.
pub struct Exporter {
    tracer: Arc<Tracer>,
    stop: oneshot::Sender<()>,
    /// Never sent to: it closes when the thread ends.
    done: mpsc::Receiver<()>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExporterError {
    #[error("traces: {0}")]
    Build(#[from] ExporterBuildError),
    #[error("cannot start a thread for traces: {0}")]
    Thread(#[from] std::io::Error),
}

impl Exporter {
    /// Starts the thread, if the configuration or the environment says that requests are traced.
    pub fn start(config: Option<&Traces>) -> Result<Option<Exporter>, ExporterError> {
        let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if config.is_none() && !VARIABLES.iter().any(named) {
            return Ok(None);
        }
        let config = config.cloned().unwrap_or_default();
        let mut builder = SpanExporter::builder()
            .with_http()
            .with_http_client(Errands);
        if let Some(endpoint) = &config.endpoint {
            let endpoint = endpoint.trim_end_matches('/');
            builder = builder.with_endpoint(format!("{endpoint}/v1/traces"));
        }
        let mut exporter = builder.build()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("evenkeel");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        exporter.set_resource(&resource.with_attribute(version).build());

        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (tracer, spans) = Tracer::new(config.ratio);
        let (stop, stopped) = oneshot::channel();
        let (alive, done) = mpsc::channel();
        let told = Arc::clone(&tracer);
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || {
            let _alive: mpsc::Sender<()> = alive;
            runtime.block_on(export_all(spans, &exporter, stopped, &told));
            // A lookup of a name that never ends holds nobody up.
            runtime.shutdown_background();
        })?;
        Ok(Some(Exporter { tracer, stop, done }))
    }

    /// What workers hand spans to.
    pub fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// Exports what is left, and waits for that at most for `patience`. The workers must have ended.
    /// True if all was exported, or refused.
    pub fn finish(self, patience: Duration) -> bool {
        // It fails only when the thread has gone.
        let _ = self.stop.send(());
        self.done.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// Exports until it is stopped, then what is left.
async fn export_all(
    mut spans: Receiver<Span>,
    exporter: &SpanExporter,
    mut stopped: oneshot::Receiver<()>,
    tracer: &Tracer,
) {
    let mut outcome = Outcome::default();
    let mut batch = Vec::with_capacity(BATCH);
    let mut is_stopped = false;
    while !is_stopped {
        tokio::select! {
            _ = spans.recv_many(&mut batch, BATCH) => {
                tokio::select! {
                    () = sleep(GATHER) => {}
                    _ = &mut stopped => is_stopped = true,
                }
            }
            _ = &mut stopped => is_stopped = true,
        }
        while batch.len() < BATCH
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        outcome.export(&mut batch, exporter, tracer).await;
    }
    spans.close();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        outcome.export(&mut batch, exporter, tracer).await;
    }
}

/// How the last export ended, so that it is said once.
#[derive(Debug, Default)]
struct Outcome {
    failing: bool,
}

impl Outcome {
    async fn export(&mut self, batch: &mut Vec<Span>, exporter: &SpanExporter, tracer: &Tracer) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let exported: OTelSdkResult = exporter.export(batch.drain(..).map(data).collect()).await;
        let counter = match &exported {
            Ok(()) => &tracer.counts.exported,
            Err(_) => &tracer.counts.failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
        match (&exported, self.failing) {
            (Err(error), false) => {
                tracing::warn!(%error, "traces: the collector does not take them")
            }
            (Ok(()), true) => tracing::info!("traces: the collector takes them again"),
            _ => {}
        }
        self.failing = exported.is_err();
    }
}

/// A span as OpenTelemetry has it, by its conventions for servers of HTTP.
fn data(span: Span) -> SpanData {
    let begun = &span.begun;
    // What is no list of states is left out (W3C Trace Context §3.3).
    let state = begun.state.as_deref().and_then(|state| state.parse().ok());
    let context = SpanContext::new(
        TraceId::from(begun.trace),
        SpanId::from(begun.id),
        TraceFlags::SAMPLED,
        false,
        state.unwrap_or_default(),
    );
    let method = span.method.unwrap_or("HTTP");
    let name = match &span.route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let is_ours = span.status >= 500 || (span.status == 0 && span.failure.is_some());
    SpanData {
        span_context: context,
        parent_span_id: begun.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: begun.parent.is_some(),
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: begun.at,
        end_time: begun.at + span.took,
        attributes: attributes(&span),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: match is_ours {
            true => Status::error(span.failure.unwrap_or_default()),
            false => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("evenkeel")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let text = |text: &str| text.to_owned();
    let mut attributes = vec![
        KeyValue::new("http.request.method", span.method.unwrap_or("_OTHER")),
        KeyValue::new("url.scheme", span.scheme),
        KeyValue::new("url.path", text(&span.path)),
        KeyValue::new("server.address", text(&span.host)),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", span.version),
        KeyValue::new("client.address", span.client.to_string()),
        KeyValue::new("evenkeel.retries", i64::from(span.retries)),
        KeyValue::new(
            "evenkeel.request_id",
            String::from_utf8_lossy(&span.request_id).into_owned(),
        ),
    ];
    let numbers = [
        ("server.port", span.port),
        (
            "http.response.status_code",
            Some(span.status).filter(|status| *status > 0),
        ),
    ];
    for (key, number) in numbers {
        attributes.extend(number.map(|number| KeyValue::new(key, i64::from(number))));
    }
    let texts = [
        ("http.route", &span.route),
        ("evenkeel.service", &span.service),
        ("evenkeel.backend", &span.backend),
    ];
    for (key, value) in texts {
        attributes.extend(
            value
                .as_deref()
                .map(|value| KeyValue::new(key, text(value))),
        );
    }
    let status = span.status.to_string();
    let error = span.failure.or((span.status >= 500).then_some(&status));
    attributes.extend(error.map(|error| KeyValue::new("error.type", text(error))));
    attributes
}

/// The way to the collector: a connection for each batch.
#[derive(Debug)]
struct Errands;

impl HttpClient for Errands {
    // As `async_trait` has it, which the trait is written with.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let tls = match request.uri().scheme_str() {
                Some("https") => Some(tls()?),
                _ => None,
            };
            let exchange = errand::run(tls.as_ref(), request.map(Full::new));
            let (parts, body) = timeout(DEADLINE, exchange).await??;
            Ok(Response::from_parts(parts, body))
        })
    }
}

/// To collectors that the system's authorities vouch for, read anew for each batch: they change.
fn tls() -> Result<TlsConnector, HttpError> {
    let roots = Loader::default().authorities(&Trust::System)?;
    Ok(errand::connector(roots)?)
}
