//! Connections to backends that serve one client only.

use std::sync::Arc;
use std::time::Duration;

use super::job::Job;
use crate::clock::Millis;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Known, list_members};
use crate::io::duplex::Duplex;
use crate::upstream::backend::Backend;

/// A kept connection to a backend that serves one client only, because the backend takes what
/// was said on it for the identity of whoever speaks (NTLM; Negotiate, RFC 4559).
#[derive(Debug)]
pub struct Pinned {
    pub(super) backend: Arc<Backend>,
    pub(super) io: Duplex,
    service: usize,
    why: WhyPinned,
    since: Millis,
}

/// Why a connection to a backend serves one client only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhyPinned {
    /// It is authenticated as that client: the next request goes there, whatever the schedule says.
    Authenticated,
    /// It began with who that client is (PROXY protocol): the schedule goes on as usual, and if it
    /// comes to this backend again, this is the connection.
    Introduced,
}

impl Pinned {
    pub(super) fn new(
        backend: Arc<Backend>,
        io: Duplex,
        service: usize,
        why: WhyPinned,
        since: Millis,
    ) -> Pinned {
        Pinned {
            backend,
            io,
            service,
            why,
            since,
        }
    }

    /// The two kinds apart.
    pub(super) fn by_kind(pinned: Option<Pinned>) -> (Option<Pinned>, Option<Pinned>) {
        match pinned {
            Some(pinned) if pinned.why == WhyPinned::Introduced => (None, Some(pinned)),
            pinned => (pinned, None),
        }
    }

    /// The connection, if it leads to that backend, has been idle for at most `max_age` and for
    /// less than it is kept.
    pub(super) fn to(
        self,
        backend: &Backend,
        (max_age, keep): (Duration, Duration),
        now: Millis,
    ) -> Option<Duplex> {
        let idle = now.since(self.since);
        let fits = self.backend.id == backend.id && idle <= max_age && idle < keep;
        fits.then_some(self.io)
    }

    pub(super) fn is_for(&self, service: usize) -> bool {
        self.service == service && !self.backend.withdrawn() && self.io.is_quiet()
    }
}

/// Why a connection to `backend` that is kept after this exchange has to serve this client only, if so.
/// `was_own`: it did before.
pub(super) fn why_pinned(
    backend: &Backend,
    was_own: bool,
    job: &Job<'_>,
    response: &ResponseHead,
) -> Option<WhyPinned> {
    if was_own || authenticates_connection(job.head, response) {
        return Some(WhyPinned::Authenticated);
    }
    let introduced = backend.layers.header.is_some() && job.limits.max_idle > 0;
    introduced.then_some(WhyPinned::Introduced)
}

/// Does an exchange authenticate its connection: a challenge of the backend, or credentials that
/// the client sent unasked? Challenges may stand in one field or in several (RFC 9110 §11.6.1).
fn authenticates_connection(request: &RequestHead, response: &ResponseHead) -> bool {
    let challenges = response.fields.all(Known::WwwAuthenticate);
    let credentials = request.fields.all(Known::Authorization);
    list_members(challenges.chain(credentials))
        .filter_map(|member| member.split(|b| *b == b' ').next())
        .any(|scheme| {
            scheme.eq_ignore_ascii_case(b"NTLM") || scheme.eq_ignore_ascii_case(b"Negotiate")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_authenticates_a_connection() {
        for (rule, credentials, challenges, expected) in [
            ("nothing", None, &[][..], false),
            ("a challenge", None, &["NTLM"], true),
            ("in any case", None, &["negotiate"], true),
            (
                "in a field of its own",
                None,
                &["Basic realm=\"a\"", "NTLM"],
                true,
            ),
            ("in a list", None, &["Basic realm=\"a\", Negotiate"], true),
            ("of another kind", None, &["Basic realm=\"NTLM\""], false),
            (
                "credentials sent unasked",
                Some("Negotiate YII="),
                &[],
                true,
            ),
            ("the same, NTLM", Some("NTLM TlRM"), &[], true),
            ("credentials of a request", Some("Bearer ntlm"), &[], false),
        ] {
            let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
            if let Some(value) = credentials {
                request.fields.push(b"Authorization", value.as_bytes());
            }
            for value in challenges {
                response.fields.push(b"WWW-Authenticate", value.as_bytes());
            }
            assert_eq!(
                authenticates_connection(&request, &response),
                expected,
                "{rule}"
            );
        }
    }
}
