//! A request as a span of a trace: when it begins, and when it is over.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::connection::Serving;
use crate::config::Scheme;
use crate::http::head::{Method, RequestHead, Version};
use crate::http::headers::Known;
use crate::telemetry::spans::{Begun, Span, kept};

impl Serving<'_> {
    /// Decides whether the request is recorded. If it is, whatever is behind us belongs below its
    /// span: `traceparent` says so from now on.
    pub(super) fn begin_span(&mut self) -> Option<Box<Begun>> {
        let tracer = self.worker.shared.tracer.as_ref()?;
        let fields = &mut self.head.fields;
        // Of a list in several fields the span has the first; all are passed on.
        let state = fields.named("tracestate").next();
        let begun = tracer.begin(fields.first(Known::Traceparent), state)?;
        fields.retain(|field| field.known != Known::Traceparent);
        let parent = begun.traceparent();
        fields.push_known(Known::Traceparent, b"Traceparent", parent.as_bytes());
        Some(begun)
    }

    /// A request that is recorded is over.
    pub(super) fn end_span(&self, account: &Account, head: Option<&RequestHead>, took: Duration) {
        let (Some(tracer), Some(begun), Some(head)) =
            (&self.worker.shared.tracer, &account.span, head)
        else {
            return;
        };
        let service = account.service.map(|index| self.worker.service(index));
        tracer.end(Span {
            begun: Begun::clone(begun),
            took,
            method: (head.method != Method::Other).then(|| head.method.name()),
            scheme: match self.scheme(&head.fields) {
                Scheme::Https => "https",
                Scheme::Http => "http",
            },
            host: kept(head.host.as_bytes()),
            port: head.port,
            path: kept(account.path.as_deref().unwrap_or(&head.path)),
            version: match head.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
                Version::Http2 => "2",
            },
            status: account.status,
            failure: account.failure.map(|meaning| meaning.reason),
            route: account.route.clone(),
            service: service.map(|service| Arc::clone(&service.name)),
            backend: account.backend.as_ref().map(|b| (*b.address).into()),
            retries: account.attempts.saturating_sub(1),
            client: self.client(&head.fields),
            request_id: account.request_id,
        });
    }
}
