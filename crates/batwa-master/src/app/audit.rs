//! The audit: who did what, from where, to what, and how it ended. Append-only and hash-chained.

use batwa_api::id::AgentId;

use super::{
    App, Error,
    auth::{Caller, Source},
};

/// Who did it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor<'a> {
    /// An account.
    Caller(&'a Caller),
    /// An agent, by its key or by none.
    Agent(&'a AgentId),
    /// Nobody that is known.
    Anonymous,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or accepted.
    Ok,
    /// The caller may not.
    Refused,
    /// It did not work.
    Failed,
}

impl Outcome {
    /// In the audit's words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// What: `vm.create`, `session.sign_in`.
    pub(crate) action: String,
    /// To what: `lab-2/web`.
    pub(crate) target: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What else there is to say.
    pub(crate) detail: Option<String>,
}

impl Record {
    /// `action` was done to `target`.
    pub(crate) fn ok(action: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            target: target.into(),
            outcome: Outcome::Ok,
            detail: None,
        }
    }
}

impl App {
    /// Writes a line for what `caller` did. Every write, sign-in, refusal and terminal has one.
    pub(crate) async fn audit(&self, caller: &Caller, record: Record) -> Result<(), Error> {
        self.audit_by(Actor::Caller(caller), &caller.source, record)
            .await
    }

    /// Writes a line for what somebody without an account did.
    pub(crate) async fn audit_by(
        &self,
        actor: Actor<'_>,
        source: &Source,
        record: Record,
    ) -> Result<(), Error> {
        source
            .audited
            .store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(
            ?actor,
            client.address = %source.address,
            request.id = %source.request_id,
            "{} {}: {}",
            record.action,
            record.target,
            record.outcome.as_str(),
        );
        Ok(())
    }
}
