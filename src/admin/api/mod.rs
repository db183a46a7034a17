//! The JSON API of the control listener: which path is what, one file per resource.
//!
//! It reads what the workers and the control thread share, and changes nothing itself: what is asked
//! for goes as a [`Command`] to whoever can do it. `docs/openapi.json` describes every route; a test
//! holds the two together.

mod actions;
mod backends;
mod certs;
mod config;
mod dns;
mod events;
mod explain;
mod services;
mod status;
mod stream;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::history::History;
use super::model::{Problem, ProblemDetail};
use super::state::State;
use crate::clock::Millis;
use crate::discovery::watch::Watches;
use crate::events::command::Command;
use crate::events::journal::Journal;
use crate::proxy::worker::Shared;
use crate::telemetry::date::Rfc3339;
pub use stream::EventStream;

/// What the API reads, and where it passes commands on. Lives on the control thread.
#[derive(Debug)]
pub struct Desk {
    pub(super) state: Rc<State>,
    pub(super) watches: Watches,
    pub(super) journal: Arc<Journal>,
    pub(super) history: Rc<RefCell<History>>,
    commands: mpsc::Sender<Command>,
    /// Tells this process apart from the one before it.
    boot: Box<str>,
    started: SystemTime,
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    /// An object, or an array of them.
    Json(StatusCode, Bytes),
    /// Events, for as long as the client takes them.
    Stream(EventStream),
}

/// Who asks, in words: where a request comes from, as far as that is known. In its extensions.
#[derive(Debug, Clone)]
pub struct Asker(pub Arc<str>);

/// What comes after `?`, decoded.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Why a request is not answered as it wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// One word that does not change with the wording.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The method that would do.
    pub allow: Option<&'static str>,
}

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Status,
    Services,
    Backends,
    Dns,
    Events,
    Config,
    Certs,
    Explain,
    Samples,
    Reload,
    Drain,
    Undrain,
    Refresh,
    DrainBackend,
    UndrainBackend,
    WeighBackend,
    LogLevel,
    SetLogLevel,
}

/// Every route, as the OpenAPI file writes it.
const ROUTES: &[(Method, &str, Resource)] = &[
    (Method::GET, "/api/v1/status", Resource::Status),
    (Method::GET, "/api/v1/services", Resource::Services),
    (Method::GET, "/api/v1/backends", Resource::Backends),
    (Method::GET, "/api/v1/dns", Resource::Dns),
    (Method::GET, "/api/v1/events", Resource::Events),
    (Method::GET, "/api/v1/config", Resource::Config),
    (Method::GET, "/api/v1/certs", Resource::Certs),
    (Method::GET, "/api/v1/explain", Resource::Explain),
    (Method::GET, "/api/v1/explain/samples", Resource::Samples),
    (Method::GET, "/api/v1/log", Resource::LogLevel),
    (Method::POST, "/api/v1/log", Resource::SetLogLevel),
    (Method::POST, "/api/v1/reload", Resource::Reload),
    (Method::POST, "/api/v1/drain", Resource::Drain),
    (Method::POST, "/api/v1/undrain", Resource::Undrain),
    (Method::POST, "/api/v1/dns/refresh", Resource::Refresh),
    (
        Method::POST,
        "/api/v1/backends/{id}/drain",
        Resource::DrainBackend,
    ),
    (
        Method::POST,
        "/api/v1/backends/{id}/undrain",
        Resource::UndrainBackend,
    ),
    (
        Method::POST,
        "/api/v1/backends/{id}/weight",
        Resource::WeighBackend,
    ),
];

/// Method and path of every route, `{id}` standing for any id.
pub fn routes() -> impl Iterator<Item = (&'static Method, &'static str)> {
    ROUTES.iter().map(|(method, path, _)| (method, *path))
}

/// A route that a request found.
#[derive(Debug)]
pub struct Found {
    resource: Resource,
    id: String,
}

/// Whoever carries commands out does so at once, but for a reload, which warms new services.
const COMMAND: Duration = Duration::from_secs(5);

/// So long for a reload: its own waits add up to 4 s, and it reads files.
const RELOAD: Duration = Duration::from_secs(30);

impl Found {
    /// The route for a method and a path; an error says whether another method would do.
    pub fn by(method: &Method, path: &str) -> Result<Found, Refusal> {
        let mut allowed = Vec::new();
        // Whoever may look may look at the head.
        let asked = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        for (method, route, resource) in ROUTES {
            let Some(id) = id_in(route, path) else {
                continue;
            };
            if method != asked {
                allowed.push(method.as_str());
                continue;
            }
            let id =
                decoded(id).ok_or_else(|| Refusal::bad("the id is not percent-encoded UTF-8"))?;
            let resource = *resource;
            return Ok(Found { resource, id });
        }
        Err(match allowed.first() {
            Some(method) => Refusal {
                allow: Some(method),
                ..Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    format!("{method}, please"),
                )
            },
            None => Refusal::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such thing; docs/openapi.json says what there is",
            ),
        })
    }
}

/// What stands for `{id}` in a path; empty where the route has none. `None`: it is another path.
fn id_in<'p>(route: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = route.split_once("{id}") else {
        return (route == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty()).then_some(id)
}

impl Desk {
    /// Of this process.
    pub fn new(
        state: Rc<State>,
        watches: Watches,
        journal: Arc<Journal>,
        history: Rc<RefCell<History>>,
        commands: mpsc::Sender<Command>,
    ) -> Desk {
        Desk {
            state,
            watches,
            journal,
            history,
            commands,
            boot: format!("{:08x}", fastrand::u32(..)).into(),
            started: SystemTime::now(),
        }
    }

    /// Answers a request that was let in.
    pub async fn answer(
        &self,
        found: Found,
        request: &Parts,
        body: &[u8],
    ) -> Result<Reply, Refusal> {
        let query = Query::of(request.uri.query().unwrap_or_default())?;
        match found.resource {
            Resource::Status => json(&self.status()),
            Resource::Services => json(&self.services(query.get("service"))?),
            Resource::Backends => json(&self.backends(query.get("service"))?),
            Resource::Dns => json(&self.dns(query.get("name"))?),
            Resource::Events => self.events(&query, &request.headers),
            Resource::Config => json(&self.config()),
            Resource::Certs => json(&self.certs()),
            Resource::Explain => self.explain(&query).await,
            Resource::Samples => self.samples(),
            Resource::Reload => self.reload().await,
            Resource::Drain => self.drain().await,
            Resource::Undrain => self.undrain().await,
            Resource::Refresh => self.refresh(body).await,
            Resource::DrainBackend => self.drain_backend(&found.id).await,
            Resource::UndrainBackend => self.undrain_backend(&found.id).await,
            Resource::WeighBackend => self.weigh_backend(&found.id, body).await,
            Resource::LogLevel => self.log_level(),
            Resource::SetLogLevel => self.set_log_level(body, Asker::of(request)).await,
        }
    }

    /// The generation of the configuration that is in force.
    fn shared(&self) -> Arc<Shared> {
        self.state.generations.load()
    }
}

impl Asker {
    fn of(request: &Parts) -> Arc<str> {
        match request.extensions.get::<Asker>() {
            Some(Asker(words)) => Arc::clone(words),
            None => "somebody".into(),
        }
    }
}

impl Query {
    fn of(text: &str) -> Result<Query, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part: &str| decoded(&part.replace('+', " "));
            text(name).zip(text(value))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        pairs
            .map(Query)
            .ok_or_else(|| Refusal::bad("the query is not percent-encoded UTF-8"))
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of that name.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| Refusal::bad(format!("`{name}` is a number")))
    }
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Refusal {
        Refusal {
            status,
            code,
            message: message.into(),
            allow: None,
        }
    }

    pub(super) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    fn unknown(what: &str, name: &str) -> Refusal {
        let message = format!("there is no {what} `{name}`");
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn busy(message: &str) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// As it is answered.
    pub fn body(&self) -> Bytes {
        let problem = Problem {
            error: ProblemDetail {
                code: self.code.to_owned(),
                message: self.message.clone(),
            },
        };
        written(&problem)
    }
}

fn json(value: &impl Serialize) -> Result<Reply, Refusal> {
    Ok(Reply::Json(StatusCode::OK, written(value)))
}

/// Types of the model have string keys and no maps of anything else, so they can always be written.
fn written(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Undoes percent-encoding. `None`: it is none, or no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

fn date(time: SystemTime) -> String {
    Rfc3339::millis(time).to_string()
}

/// That moment on the clock on the wall.
fn wall(moment: Millis) -> SystemTime {
    SystemTime::now() - Millis::now().since(moment)
}

/// Days until then; less than zero: it is over.
fn days_until(time: SystemTime) -> f64 {
    let days = |time: Duration| time.as_secs_f64() / 86_400.0;
    match time.duration_since(SystemTime::now()) {
        Ok(left) => days(left),
        Err(over) => -days(over.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_route_and_ids_may_have_slashes() {
        let found = |method: Method, path: &str| {
            let found = Found::by(&method, path);
            found
                .map(|found| (found.resource, found.id))
                .map_err(|refusal| refusal.status.as_u16())
        };
        let id = |resource, id: &str| Ok((resource, id.to_owned()));
        let (get, post) = (|| Method::GET, || Method::POST);
        assert_eq!(found(get(), "/api/v1/status"), id(Resource::Status, ""));
        assert_eq!(
            found(Method::HEAD, "/api/v1/status"),
            id(Resource::Status, "")
        );
        assert_eq!(found(post(), "/api/v1/status"), Err(405));
        assert_eq!(found(get(), "/api/v1/drain"), Err(405));
        assert_eq!(found(Method::PUT, "/api/v1/drain"), Err(405));
        assert_eq!(found(get(), "/api/v1/statuses"), Err(404));
        assert_eq!(found(get(), "/api/v1/status/"), Err(404));
        let drain = "/api/v1/backends/web%2F10.0.0.7%3A80/drain";
        assert_eq!(
            found(post(), drain),
            id(Resource::DrainBackend, "web/10.0.0.7:80")
        );
        let plain = "/api/v1/backends/web/[::1]:80/weight";
        assert_eq!(
            found(post(), plain),
            id(Resource::WeighBackend, "web/[::1]:80")
        );
        assert_eq!(found(post(), "/api/v1/backends//drain"), Err(404));
        assert_eq!(found(post(), "/api/v1/backends/drain"), Err(404));
        assert_eq!(found(post(), "/api/v1/backends/a%2/drain"), Err(400));
        assert_eq!(found(post(), "/api/v1/backends/a%ff/drain"), Err(400));
    }

    #[test]
    fn a_query_is_decoded() {
        let query = Query::of("a=1&header=X-A%3A+b&header=c&d").unwrap();
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("header"), Some("X-A: b"), "the first of them");
        assert_eq!((query.get("d"), query.get("e")), (Some(""), None));
        assert!(Query::of("a=%zz").is_err());
    }
}
