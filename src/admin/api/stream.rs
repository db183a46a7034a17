//! Events as they happen, as server-sent events (WHATWG HTML §9.2).
//!
//! Nothing is queued for a reader: it is given what the journal has from the number on that it has got
//! to, whenever its connection has room. Who is too slow misses entries, is told so, and is dropped by
//! the connection's own deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::admin::model::{Event, Missed, Sample};
use crate::events::journal::Journal;
use crate::telemetry::metrics::Tally;

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes.
    Now,
    /// With this number.
    From(u64),
    /// With everything; what the reader had is of another process, or of no number.
    Anew,
}

/// One reader's stream.
pub struct EventStream(Pin<Box<dyn Stream<Item = Bytes>>>);

/// Entries that are given at once at most.
const BATCH: usize = 64;

/// A comment in so much silence keeps proxies from closing the connection, and finds out that the
/// reader has gone.
const SILENCE: Duration = Duration::from_secs(15);

/// After a broken connection a browser comes back after so many milliseconds.
const RETRY: &str = "retry: 2000\n\n";

struct Reader {
    journal: Arc<Journal>,
    boot: Box<str>,
    next: u64,
    news: watch::Receiver<u64>,
    samples: Option<watch::Receiver<Option<Arc<Sample>>>>,
    said: Instant,
    /// What is said first.
    opening: Option<String>,
    _place: Place,
}

/// Counts a stream as open until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Tally>);

impl Place {
    /// `None`: all are taken.
    pub fn among(streams: &Arc<Tally>, bound: usize) -> Option<Place> {
        let entered = streams.enter(bound);
        entered.then(|| Place(Arc::clone(streams)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Start {
    /// After the event with this id, which is of this process or of another.
    pub fn after(id: &str, boot: &str) -> Start {
        let number = id.split_once('.').filter(|(of, _)| *of == boot);
        match number.and_then(|(_, number)| number.parse::<u64>().ok()) {
            Some(number) => Start::From(number.saturating_add(1)),
            None => Start::Anew,
        }
    }
}

impl EventStream {
    /// A stream; it holds `place`.
    pub fn new(
        journal: Arc<Journal>,
        boot: Box<str>,
        start: Start,
        samples: Option<watch::Receiver<Option<Arc<Sample>>>>,
        place: Place,
    ) -> EventStream {
        let mut opening = RETRY.to_owned();
        let (first, newest) = journal.bounds();
        let next = match start {
            Start::Now => newest,
            // A number that nobody has had yet is one of another process.
            Start::From(number) if number <= newest => number,
            Start::From(_) | Start::Anew => {
                opening.push_str(&missed(Some(first), &boot));
                first
            }
        };
        let reader = Reader {
            news: journal.news(),
            journal,
            boot,
            next,
            samples,
            said: Instant::now(),
            opening: Some(opening),
            _place: place,
        };
        EventStream(Box::pin(unfold(reader, Reader::turn)))
    }

    /// The next piece of text. Never ends.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventStream")
    }
}

impl Reader {
    async fn turn(mut self) -> Option<(Bytes, Reader)> {
        let mut text = self.opening.take().unwrap_or_default();
        while text.is_empty() {
            self.news.mark_unchanged();
            text = self.due();
            if !text.is_empty() {
                break;
            }
            let samples = self.samples.as_mut();
            tokio::select! {
                // The journal and the history live as long as this runtime.
                Ok(()) = self.news.changed() => {}
                Ok(()) = changed(samples) => text = self.sampled(),
                () = sleep_until(self.said + SILENCE) => ": still here\n\n".clone_into(&mut text),
            }
        }
        self.said = Instant::now();
        Some((text.into(), self))
    }

    /// What the journal has for it.
    fn due(&mut self) -> String {
        let mut text = String::new();
        let entries = self.journal.since(self.next, BATCH);
        let Some(first) = entries.first() else {
            return text;
        };
        if first.number > self.next {
            text.push_str(&missed(Some(first.number), &self.boot));
        }
        for entry in entries {
            let number = entry.number;
            self.next = number + 1;
            let data = data(&Event::from(entry));
            text.push_str(&format!(
                "id: {}.{number}\nevent: event\n{data}\n",
                self.boot
            ));
        }
        text
    }

    fn sampled(&mut self) -> String {
        let newest = self
            .samples
            .as_mut()
            .and_then(|samples| samples.borrow_and_update().clone());
        newest.map_or_else(String::new, |sample| {
            format!("event: sample\n{}\n", data(&*sample))
        })
    }
}

async fn changed(
    samples: Option<&mut watch::Receiver<Option<Arc<Sample>>>>,
) -> Result<(), watch::error::RecvError> {
    match samples {
        Some(samples) => samples.changed().await,
        None => std::future::pending().await,
    }
}

fn missed(first: Option<u64>, boot: &str) -> String {
    let boot = boot.to_owned();
    format!("event: missed\n{}\n", data(&Missed { first, boot }))
}

/// JSON has no line breaks, so it is one line.
fn data(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    format!("data: {json}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::journal::{CAPACITY, Kind, What};
    use std::future::poll_fn;

    fn write(journal: &Journal) {
        journal.record(What::new(Kind::Started, "two\nlines"));
    }

    async fn next(stream: &mut EventStream) -> String {
        let bytes = poll_fn(|cx| stream.poll_next(cx))
            .await
            .expect("it never ends");
        String::from_utf8(bytes.to_vec()).expect("it is text")
    }

    fn stream(journal: &Arc<Journal>, start: Start) -> (EventStream, Arc<Tally>) {
        let streams = Arc::default();
        let place = Place::among(&streams, 2).expect("there is room");
        let (journal, boot) = (Arc::clone(journal), "b".into());
        (EventStream::new(journal, boot, start, None, place), streams)
    }

    fn ids(text: &str) -> Vec<&str> {
        text.lines()
            .filter_map(|line| line.strip_prefix("id: b."))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_after_the_last_id_and_then_with_what_comes() {
        let journal = Arc::<Journal>::default();
        (0..3).for_each(|_| write(&journal));
        let (mut stream, streams) = stream(&journal, Start::after("b.0", "b"));
        assert_eq!(streams.now(), 1);
        assert_eq!(next(&mut stream).await, RETRY);
        let text = next(&mut stream).await;
        assert_eq!(ids(&text), ["1", "2"]);
        assert!(
            text.contains(r#""text":"two\nlines"}"#),
            "one line of data: {text}"
        );
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            write(&journal);
        };
        let (text, ()) = tokio::join!(next(&mut stream), later);
        assert_eq!(ids(&text), ["3"]);
        assert_eq!(next(&mut stream).await, ": still here\n\n");
        drop(stream);
        assert_eq!(streams.now(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_had_any_more_is_said() {
        let journal = Arc::<Journal>::default();
        (0..CAPACITY + 5).for_each(|_| write(&journal));
        let (mut slow, _) = stream(&journal, Start::From(1));
        next(&mut slow).await;
        let text = next(&mut slow).await;
        assert!(
            text.starts_with("event: missed\ndata: {\"first\":5,\"boot\":\"b\"}\n\nid: b.5\n"),
            "{text}"
        );
        assert_eq!(ids(&text).len(), BATCH);
        for id in ["a.7", "7", "b.x", "b.999999"] {
            let (mut other, _) = stream(&journal, Start::after(id, "b"));
            assert!(next(&mut other).await.contains("event: missed"), "{id}");
            assert_eq!(ids(&next(&mut other).await)[0], "5", "{id}");
        }
    }
}
