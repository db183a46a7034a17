//! What changes something: each is a command to the control thread, and its reply.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::backends::{Lines, parsed};
use super::services::named;
use super::{COMMAND, Desk, RELOAD, Refusal, Reply, json, written};
use crate::admin::model::{
    Changed, LogLevel, LogLevelRequest, LogLevelSet, RefreshRequest, Refreshed, Reload,
    WeightRequest,
};
use crate::events::command::{self, Change, Command};
use crate::telemetry::logging::{self, LoggingError};

impl Desk {
    pub(super) async fn reload(&self) -> Result<Reply, Refusal> {
        let reloaded = self.ask(RELOAD, Command::Reload).await?;
        let status = match reloaded.error {
            None => StatusCode::OK,
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Ok(Reply::Json(status, written(&Reload::from(&reloaded))))
    }

    pub(super) async fn drain(&self) -> Result<Reply, Refusal> {
        self.ask(COMMAND, Command::Drain).await??;
        json(&self.drain_state())
    }

    pub(super) async fn undrain(&self) -> Result<Reply, Refusal> {
        self.ask(COMMAND, Command::Undrain).await??;
        json(&self.drain_state())
    }

    pub(super) async fn refresh(&self, body: &[u8]) -> Result<Reply, Refusal> {
        let RefreshRequest { name } = match body.is_empty() {
            true => RefreshRequest::default(),
            false => read(body)?,
        };
        let asked = name.clone().map(Into::into);
        let names = self
            .ask(COMMAND, |reply| Command::Refresh(asked, reply))
            .await?;
        if let (Some(name), true) = (name, names.is_empty()) {
            return Err(Refusal::unknown("name", &name));
        }
        let names = names.iter().map(ToString::to_string).collect();
        json(&Refreshed { names })
    }

    pub(super) async fn drain_backend(&self, id: &str) -> Result<Reply, Refusal> {
        self.change(id, Change::Drain).await
    }

    pub(super) async fn undrain_backend(&self, id: &str) -> Result<Reply, Refusal> {
        self.change(id, Change::Undrain).await
    }

    pub(super) async fn weigh_backend(&self, id: &str, body: &[u8]) -> Result<Reply, Refusal> {
        let WeightRequest { weight } = read(body)?;
        self.change(id, Change::Weigh(weight)).await
    }

    pub(super) fn log_level(&self) -> Result<Reply, Refusal> {
        json(&LogLevel {
            level: logging::level()?,
        })
    }

    pub(super) async fn set_log_level(&self, body: &[u8], by: Arc<str>) -> Result<Reply, Refusal> {
        let LogLevelRequest { level } = read(body)?;
        let command = |reply| Command::LogLevel {
            level: level.as_str().into(),
            by,
            reply,
        };
        let before = self.ask(COMMAND, command).await??;
        json(&LogLevelSet {
            level: level.trim().to_owned(),
            before,
        })
    }

    async fn change(&self, id: &str, change: Change) -> Result<Reply, Refusal> {
        let (service, address) = parsed(id)?;
        let command = |reply| Command::Backend {
            service: service.into(),
            address,
            change,
            reply,
        };
        self.ask(COMMAND, command).await??;
        let (shared, lines) = (self.shared(), Lines::of(&self.journal));
        let services = named(&shared, Some(service))?;
        let mut there = services.flat_map(|(_, c, serviced)| self.backends_of(c, serviced, &lines));
        let backend =
            there.find(|backend| backend.id == id || backend.address == address.to_string());
        let backend = backend.ok_or_else(|| Refusal::unknown("backend", id))?;
        json(&Changed { backend })
    }

    /// Passes a command on and waits for the reply.
    async fn ask<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.try_send(command(reply));
        sent.map_err(|_| Refusal::busy("too many commands at once, or the process ends"))?;
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Refusal::busy("the process ends")),
            Err(_) => Err(Refusal::busy("it is still under way: see /api/v1/status")),
        }
    }
}

impl From<command::Refused> for Refusal {
    fn from(refused: command::Refused) -> Refusal {
        let (status, code) = match refused {
            command::Refused::Unknown => (StatusCode::NOT_FOUND, "not_found"),
            command::Refused::TooMany => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            command::Refused::Ending | command::Refused::NotDraining => {
                (StatusCode::CONFLICT, "conflict")
            }
        };
        Refusal::new(status, code, refused.to_string())
    }
}

impl From<LoggingError> for Refusal {
    fn from(error: LoggingError) -> Refusal {
        match error {
            LoggingError::Filter { .. }
            | LoggingError::Word { .. }
            | LoggingError::Nothing { .. }
            | LoggingError::Form => Refusal::bad(error.to_string()),
            LoggingError::Twice(_) | LoggingError::NotYet | LoggingError::Gone(_) => {
                Refusal::busy(&error.to_string())
            }
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("the body: {error}")))
}
