//! Why a registration does not come about.

use crate::dns_server::client::Failure;
use crate::dns_server::key::KeyError;

/// Everything that a later try may find mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// There is no key (yet).
    #[error("{}", key_words(.0))]
    Key(KeyError),
    /// The server's name leads nowhere.
    #[error("{0}")]
    Server(String),
    /// The server did not do it.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Trouble {
    /// A short name for the kind of trouble.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Trouble::Key(error) if error.is_missing() => "key missing",
            Trouble::Key(_) => "key",
            Trouble::Server(_) => "server",
            Trouble::Failure(failure) => failure.label(),
        }
    }

    /// Part of every start in which things come up in any order.
    pub(super) fn is_expected(&self) -> bool {
        matches!(self, Trouble::Key(error) if error.is_missing())
    }
}

fn key_words(error: &KeyError) -> String {
    match error {
        KeyError::Io { path, .. } if error.is_missing() => {
            format!("waiting for the key file {}", path.display())
        }
        other => other.to_string(),
    }
}
