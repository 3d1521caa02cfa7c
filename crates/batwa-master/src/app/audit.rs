//! The audit: who did what, from where, to what, and how it ended. Append-only and hash-chained.
//!
//! Use cases write their own lines. What they do not, `http/audit.rs` does: no write and no refusal goes by
//! without a line.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use batwa_api::{Timestamp, id::AgentId, operation::Operation, tunnel::Refused, user::AuditEntry};
use tokio::time::Instant;

use super::{
    App, Error,
    auth::{Caller, Source, Via},
};
use crate::store::audit::{AuditPage, NewAuditEntry};

/// Who did it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor<'a> {
    /// An account, by its session or token.
    Caller(&'a Caller),
    /// An account that is just signing in.
    User(&'a str),
    /// An agent, by its key or by none.
    Agent(&'a AgentId),
    /// An agent, of itself, by what people have it do.
    Upkeep(&'a AgentId),
    /// Somebody at the master's own machine, with access to its state folder.
    Console,
    /// Nobody that is known.
    Anonymous,
}

impl Actor<'_> {
    fn name(&self) -> String {
        match self {
            Self::Caller(caller) => caller.name.to_string(),
            Self::User(name) => (*name).to_owned(),
            Self::Agent(id) | Self::Upkeep(id) => format!("agent:{id}"),
            Self::Console => "console".to_owned(),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }

    fn via(&self) -> &'static str {
        match self {
            Self::Caller(caller) => match caller.via {
                Via::Session(_) => "session",
                Via::Token(_) => "token",
            },
            Self::User(_) => "password",
            Self::Agent(_) => "agent_key",
            Self::Upkeep(_) => "settings",
            Self::Console => "console",
            Self::Anonymous => "none",
        }
    }
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

    /// Writes a line for what somebody did.
    pub(crate) async fn audit_by(
        &self,
        actor: Actor<'_>,
        source: &Source,
        record: Record,
    ) -> Result<(), Error> {
        source.audited.store(true, Ordering::Relaxed);
        let entry = NewAuditEntry {
            at: Timestamp::now(),
            actor: actor.name(),
            via: actor.via(),
            address: source.address.to_string(),
            action: printable(&record.action),
            target: printable(&record.target),
            result: record.outcome.as_str(),
            detail: record.detail.as_deref().map(printable),
            request_id: source.request_id.to_string(),
        };
        Ok(self.store().append_audit(entry).await?)
    }

    /// Writes a line for a refusal of somebody unknown, unless one like it was written a moment ago: a
    /// stranger with a loop must not be able to fill the disk.
    pub(crate) async fn audit_refusal(&self, source: &Source, action: String) -> Result<(), Error> {
        let Some(unwritten) = self
            .0
            .refusals
            .note(source.address, &action, Instant::now())
        else {
            return Ok(());
        };
        let record = Record {
            outcome: Outcome::Refused,
            detail: (unwritten > 0).then(|| format!("and {unwritten} more before it")),
            ..Record::ok(action, "")
        };
        self.audit_by(Actor::Anonymous, source, record).await
    }

    /// Writes a line for an agent that dialled in and was refused; as [`Self::audit_refusal`], one a minute for each
    /// address and reason.
    pub(crate) async fn audit_refused_agent(
        &self,
        source: &Source,
        action: &str,
        agent: &AgentId,
        refused: &Refused,
    ) -> Result<(), Error> {
        let reason = format!("{action} {:?}", refused.code);
        let now = Instant::now();
        if self.0.refusals.note(source.address, &reason, now).is_none() {
            return Ok(());
        }
        let record = Record {
            outcome: Outcome::Refused,
            detail: Some(refused.detail.clone()),
            ..Record::ok(action, agent.as_str())
        };
        self.audit_by(Actor::Anonymous, source, record).await
    }

    /// Writes a line for what an agent did about a VM by itself, because of the VM's settings.
    pub(crate) async fn audit_by_itself(&self, operation: &Operation) -> Result<(), Error> {
        let source = Source::new(Ipv4Addr::LOCALHOST.into(), "".into());
        let reason = operation.requested_by.as_deref().unwrap_or_default();
        let record = Record {
            detail: Some(format!("{reason}; operation {}", operation.id)),
            ..Record::ok(
                format!("vm.{}", operation.kind),
                format!("{}/{}", operation.agent_id, operation.subject.name()),
            )
        };
        self.audit_by(Actor::Upkeep(&operation.agent_id), &source, record)
            .await
    }

    /// Lines of the audit, the newest first: those before line `before`.
    pub(crate) async fn audit_entries(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, Error> {
        let page = AuditPage {
            before: before.unwrap_or(i64::MAX),
            limit: i64::from(limit),
        };
        Ok(self.store().audit_page(page).await?)
    }
}

/// A text of somebody else's as one line that every database and terminal takes.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// One line a minute for each stranger and what they are refused.
const REFUSAL_WINDOW: Duration = Duration::from_secs(60);

/// Strangers remembered; when there are more, all are forgotten and have one line each again.
const MAX_STRANGERS: usize = 4096;

/// Refusals of strangers that were written lately.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    lately: Mutex<HashMap<(IpAddr, String), Refusal>>,
}

#[derive(Debug, Default)]
struct Refusal {
    written: Option<Instant>,
    unwritten: u64,
}

impl Refusals {
    /// Whether this one is to be written, and how many were not since the last like it.
    fn note(&self, address: IpAddr, action: &str, now: Instant) -> Option<u64> {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.len() >= MAX_STRANGERS {
            lately.clear();
        }
        let refusal = lately.entry((address, action.to_owned())).or_default();
        if refusal
            .written
            .is_some_and(|at| now.duration_since(at) < REFUSAL_WINDOW)
        {
            refusal.unwritten += 1;
            return None;
        }
        refusal.written = Some(now);
        Some(std::mem::take(&mut refusal.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stranger_with_a_loop_has_one_line_a_minute() {
        let refusals = Refusals::default();
        let note = |address: &str, action: &str| {
            refusals.note(address.parse().unwrap(), action, Instant::now())
        };
        assert_eq!(note("192.0.2.1", "GET /api/v1/vms"), Some(0));
        for _ in 0..999 {
            assert_eq!(note("192.0.2.1", "GET /api/v1/vms"), None);
        }
        assert_eq!(
            note("192.0.2.2", "GET /api/v1/vms"),
            Some(0),
            "another stranger"
        );
        assert_eq!(
            note("192.0.2.1", "GET /api/v1/users"),
            Some(0),
            "another path"
        );
        tokio::time::advance(REFUSAL_WINDOW).await;
        assert_eq!(note("192.0.2.1", "GET /api/v1/vms"), Some(999));
    }
}
