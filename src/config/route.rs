//! Which request goes to which service.

use std::sync::Arc;

use super::{Access, Auth, Conditions, HeaderEdits, Mirror, Rewrite, Target};

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// How messages and logs call it: its name, or what it matches.
    pub label: Arc<str>,
    /// Indexes into [`super::Config::listeners`]; empty: all that can see what it asks for, but not those of
    /// layer 4 that another route names (see [`super::Config::layer4_routes`]).
    pub listeners: Vec<usize>,
    /// Which hosts.
    pub host: HostPattern,
    /// Path prefix of whole segments, normalised, `/` for any.
    pub path: Box<str>,
    /// What else a request must be like.
    pub conditions: Conditions,
    /// The client must offer one of these (ALPN); empty: whatever it offers. None is listed twice.
    pub alpn: Vec<Box<str>>,
    /// Whose requests, or connections, it takes on; `None`: everybody's.
    pub access: Option<Access>,
    /// By which path requests go on; `None`: by their own.
    pub rewrite: Option<Rewrite>,
    /// What is done to the fields of its requests, after what its service does; `None`: nothing.
    pub request_headers: Option<HeaderEdits>,
    /// The same of responses.
    pub response_headers: Option<HeaderEdits>,
    /// Who says whether its requests may go on; `None`: nobody.
    pub auth: Option<Auth>,
    /// Who gets a copy of a share of its requests; `None`: nobody.
    pub mirror: Option<Mirror>,
    /// Where it leads.
    pub target: Target,
}

impl Route {
    /// Does it let some in only?
    pub fn is_guarded(&self) -> bool {
        self.access.is_some() || self.auth.is_some()
    }

    /// Does it do anything that takes requests?
    pub(super) fn acts_on_requests(&self) -> bool {
        self.rewrite.is_some()
            || self.request_headers.is_some()
            || self.response_headers.is_some()
            || self.auth.is_some()
            || self.mirror.is_some()
            || matches!(self.target, Target::Redirect(_))
    }
}

/// Host of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Absent in the file.
    Any,
    /// `*.example.com`, kept as `example.com`: one or more labels in front of it.
    Wildcard(Box<str>),
    /// Lower case, no port, no final dot.
    Exact(Box<str>),
}
