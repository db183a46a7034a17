//! What is told of a request: as JSON by the control API, and read back by `evenkeel explain`.
//!
//! `docs/openapi.json` describes the same; a field there is a field here.

use serde::{Deserialize, Serialize};

/// Where a request would go, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub request: RequestAsked,
    /// Where it would come in; `None`: nowhere.
    pub listener: Option<Listener>,
    /// The route that wins; `None`: there is none, or it is not looked for.
    pub route: Option<Named>,
    /// The others, in the order of the configuration.
    pub routes_lost: Vec<Named>,
    /// Its service.
    pub service: Option<String>,
    /// How the service chooses, as the configuration calls it.
    pub strategy: Option<String>,
    /// What the workers read.
    pub snapshot: Option<SnapshotOf>,
    /// What the request says about whom it wants: a cookie, a key.
    pub preferences: Vec<Preference>,
    /// The tier that serves.
    pub tier: Option<TierOf>,
    /// All tiers that there are.
    pub tiers: Vec<TierState>,
    /// The backends, tier by tier.
    pub backends: Vec<Candidate>,
    /// Those that were withdrawn lately: they get no new request.
    pub withdrawn: Vec<Withdrawn>,
    /// Who would be next, on each worker.
    pub next: Vec<NextPick>,
    /// What would be done.
    pub kind: Kind,
    /// The status that Evenkeel itself would answer with; `None`: a backend would answer, or nobody.
    pub status: Option<u16>,
    /// What would be done, in words.
    pub outcome: String,
}

/// What would be done with a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It goes to a backend.
    Forwarded,
    /// It waits in line for one.
    Queued,
    /// It is answered with a redirect.
    Redirected,
    /// It is refused, or comes to nobody.
    Refused,
    /// Nobody who would know has answered.
    #[default]
    Unknown,
}

impl Explanation {
    /// It is refused: with this status, or `None`, by closing the connection.
    pub(super) fn refuse(&mut self, status: Option<u16>, why: &str) {
        let how = status.map_or_else(|| "closed".to_owned(), |status| status.to_string());
        self.end(Kind::Refused, status, format!("{how}: {why}"));
    }

    /// It is redirected.
    pub(super) fn redirect(&mut self, status: u16, why: &str) {
        self.end(Kind::Redirected, Some(status), format!("{status}: {why}"));
    }

    /// What becomes of it.
    pub(super) fn end(&mut self, kind: Kind, status: Option<u16>, outcome: String) {
        self.kind = kind;
        self.status = status;
        self.outcome = outcome;
    }
}

/// What was asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAsked {
    /// Method.
    pub method: String,
    /// URL.
    pub url: String,
    /// Address of the client.
    pub client: Option<String>,
}

/// Where a request comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name.
    pub name: String,
    /// Why this one.
    pub why: String,
}

/// A route, with what speaks for it or against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name, or what it matches.
    pub label: String,
    /// Why it won, or lost.
    pub why: String,
}

/// The snapshot of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotOf {
    /// Counts the snapshots of the service.
    pub number: u64,
    /// Since it was made; `None`: there is none yet.
    pub age_seconds: Option<f64>,
}

/// What a request says about whom it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// `cookie` or `key`.
    pub kind: String,
    /// Of what: the name of the cookie, or what the key is made of.
    pub of: String,
    /// Where it leads, the first choice first; empty: nowhere.
    pub leads_to: Vec<String>,
    /// The same in words.
    pub why: String,
}

/// The tier that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierOf {
    /// Priority.
    pub priority: u16,
    /// Why this one.
    pub why: String,
}

/// A tier, and what it can take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierState {
    /// Priority.
    pub priority: u16,
    /// Backends that can be picked.
    pub pickable: usize,
    /// Backends in all.
    pub backends: usize,
    /// The part of all requests that it takes, where more than one tier does; `None`: the first that
    /// can serve takes all.
    pub part: Option<f64>,
}

/// A backend, and whether it can be picked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Id: service, address and port.
    pub id: String,
    /// What the record points to.
    pub target: String,
    /// Tier.
    pub priority: u16,
    /// The weight that counts.
    pub weight: u16,
    /// Its configured share.
    pub share: f64,
    /// Exchanges under way.
    pub in_flight: u32,
    /// As in the metrics.
    pub state: String,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Until it may be picked again; `None`: it can be, or nobody knows when.
    pub out_for_seconds: Option<f64>,
    /// It can be picked now.
    pub pickable: bool,
    /// Why, or why not, in words.
    pub why: String,
    /// With which probability it is next, where chance chooses; `None`: it does not, or it is another
    /// tier that serves.
    pub chance: Option<f64>,
}

/// A backend that discovery lists no more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Id.
    pub id: String,
    /// How long it has been gone.
    pub since_seconds: f64,
    /// Exchanges that it finishes.
    pub in_flight: u32,
}

/// Who would be next on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPick {
    /// Which worker.
    pub worker: usize,
    /// Id; `None`: nobody, or it is up to chance, or the worker did not answer.
    pub backend: Option<String>,
    /// Priority of its tier.
    pub priority: Option<u16>,
    /// Why, in words.
    pub why: String,
}

/// Requests that were kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// The latest first.
    pub samples: Vec<SampledRequest>,
}

/// A request that was kept to show why it went where it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledRequest {
    /// When it ended.
    pub at: String,
    /// X-Request-Id.
    pub request_id: Option<String>,
    /// Method.
    pub method: String,
    /// Host, without control characters.
    pub host: Option<String>,
    /// Path without the query.
    pub path: String,
    /// Listener.
    pub listener: String,
    /// Label of the route.
    pub route: Option<String>,
    /// Service.
    pub service: Option<String>,
    /// Id of the backend of the last attempt.
    pub backend: Option<String>,
    /// Its tier.
    pub priority: Option<u16>,
    /// Status; 0: the client had gone.
    pub status: u16,
    /// Attempts made.
    pub attempts: u32,
    /// How long the last attempt's connect took; `None`: a kept connection was used.
    pub connect_ms: Option<f64>,
    /// From its head to the first byte of the response.
    pub first_byte_ms: Option<f64>,
    /// In all.
    pub duration_ms: f64,
    /// In words, one step a line.
    pub why: Vec<String>,
}
