//! `events`: what happened, as a list or as a stream that goes on.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap};

use super::stream::{EventStream, Place, Start};
use super::{Desk, Query, Refusal, Reply, date, json};
use crate::admin::model::{Event, Events, backend_id};
use crate::admin::occupancy::STREAMS;
use crate::events::journal::{CAPACITY, Entry, Severity};

impl Desk {
    pub(super) fn events(&self, query: &Query, fields: &HeaderMap) -> Result<Reply, Refusal> {
        let since = query.number("since")?;
        let limit = query.number("limit")?.unwrap_or(CAPACITY as u64);
        let limit = usize::try_from(limit).unwrap_or(CAPACITY).min(CAPACITY);
        let mut accepts = fields
            .get_all(ACCEPT)
            .iter()
            .filter_map(|accept| accept.to_str().ok());
        if accepts.any(|accept| accept.contains("text/event-stream")) {
            return self.event_stream(query, fields, since);
        }
        let (first, next) = self.journal.bounds();
        let events = self.journal.since(since.unwrap_or(0), limit);
        json(&Events {
            boot: self.boot.to_string(),
            first,
            next,
            events: events.into_iter().map(Event::from).collect(),
        })
    }

    fn event_stream(
        &self,
        query: &Query,
        fields: &HeaderMap,
        since: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let Some(place) = Place::among(&self.state.occupancy.event_streams, STREAMS) else {
            let message = format!("{STREAMS} streams are open already");
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many",
                message,
            ));
        };
        let last = fields.get("last-event-id").and_then(|id| id.to_str().ok());
        let samples = match query.get("samples") {
            Some("true" | "1" | "") => Some(self.history.borrow().news()),
            _ => None,
        };
        let start = match (last, since) {
            (Some(last), _) => Start::after(last, &self.boot),
            (None, Some(number)) => Start::From(number),
            (None, None) => Start::Now,
        };
        let journal = std::sync::Arc::clone(&self.journal);
        Ok(Reply::Stream(EventStream::new(
            journal,
            self.boot.clone(),
            start,
            samples,
            place,
        )))
    }
}

impl From<Entry> for Event {
    fn from(entry: Entry) -> Event {
        let what = entry.what;
        let backend = what.service.as_ref().zip(what.backend.as_ref());
        Event {
            number: entry.number,
            at: date(entry.at),
            kind: what.kind.name().to_owned(),
            severity: match what.kind.severity() {
                Severity::Info => "info",
                Severity::Warning => "warning",
            }
            .to_owned(),
            backend: backend.map(|(service, address)| backend_id(service, address)),
            service: what.service.map(|service| service.to_string()),
            name: what.name.map(|name| name.to_string()),
            text: what.text,
        }
    }
}
