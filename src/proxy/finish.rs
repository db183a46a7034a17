//! The end of a request: it is counted, logged, and now and then kept as a sample.
//!
//! Called by `request.rs` once for each request, however it ended.

use std::time::{Duration, SystemTime};

use super::account::Account;
use super::connection::Serving;
use super::failure::Side;
use super::{explain, grpc};
use crate::http::head::{RequestHead, Version};
use crate::http::headers::Known;
use crate::telemetry::access::{Broken, Record};

impl Serving<'_> {
    /// The request is over: accounts for it.
    pub(super) fn finish(&self, account: &Account, head: Option<&RequestHead>) {
        let metrics = &self.worker.metrics;
        let method = head.map_or("OTHER", |h| h.method.name());
        let took = account.begun.elapsed();
        metrics.request(account.service, method, account.status, took);
        metrics.bytes(account.service, account.received, account.sent);
        if let (Some(service), Some(status)) = (account.service, account.grpc_status) {
            metrics.grpc_call(service, grpc::name(status));
        }
        match (account.failure, account.service) {
            (Some(meaning), _) if meaning.side == Side::Downstream => {
                metrics.downstream_error(meaning.reason);
            }
            (Some(meaning), Some(service)) => metrics.request_failed(service, meaning.reason),
            _ => {}
        }
        if self.worker.access.is_on() {
            self.log(account, head, took);
        }
        if account.span.is_some() {
            self.end_span(account, head, took);
        }
        if self.worker.samples() {
            let sample = explain::sample(account, head, self.worker, self.peer.listener, took);
            self.worker.shared.samples.put(self.worker.index, sample);
        }
    }

    fn log(&self, account: &Account, head: Option<&RequestHead>, took: Duration) {
        // A request that was not understood leaves only what is certain of it.
        let nothing = RequestHead::default();
        let head = head.unwrap_or(&nothing);
        let service = account.service.map(|s| &*self.worker.service(s).name);
        self.worker.access.record(&Record {
            ended: SystemTime::now(),
            client: self.client,
            client_port: self.peer.address.port(),
            tls: self.peer.tls,
            client_cert: self
                .peer
                .certificate
                .as_deref()
                .map(|shown| shown.subject()),
            listener: &self.listener().name,
            route: account.route.as_deref(),
            service,
            backend: account.backend.as_ref().map(|b| &*b.address),
            attempts: account.attempts,
            method: &head.method_text,
            host: &head.authority,
            path: account.path.as_deref().unwrap_or(&head.path),
            query: &head.query,
            protocol: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            status: account.status,
            grpc_status: account.grpc_status.map(grpc::name),
            received: account.received,
            sent: account.sent,
            broken: account.failure.map(|meaning| Broken {
                side: meaning.side.name(),
                phase: meaning.reason,
            }),
            request_id: &account.request_id,
            traceparent: head.fields.first(Known::Traceparent),
            referer: head.fields.first(Known::Referer),
            user_agent: head.fields.first(Known::UserAgent),
            connect: account.connect,
            first_byte: account.first_byte,
            total: took,
        });
    }
}
