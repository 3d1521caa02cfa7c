//! Operations: accepted, written down, brought to their agent, followed, settled after a restart.
//!
//! The row is in the store before anything is sent, and `PUT /operations/{id}` may be sent again, so a cut at any
//! point leaves an operation that its agent knows, or one that can be shown never to have begun. The agent's
//! journal decides, never a timer alone. Agents from before v1 have no journal: `old.rs`.

mod kept;
pub(crate) mod old;
mod settle;

use std::{sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    id::{AgentId, OperationId},
    list::OperationList,
    name::VmName,
    operation::{
        LogLine, Operation, OperationError, OperationKind, OperationRequest, OperationState,
        StartOperation, Subject,
    },
    problem::{Problem, ProblemCode},
};
use sha2::{Digest, Sha256};

use self::kept::GivenUp;
use super::{
    App, Error,
    agents::unknown,
    audit::{Outcome, Record},
    auth::{Caller, Right},
};
use crate::{
    client::ClientError,
    fleet::{
        contact::Contact,
        operations::{Heard, Sending},
        query::MAX_LIMIT,
        row::About,
    },
    store::operations::{Accepted, Idempotency, NewOperation, OperationQuery},
};

/// How long a caller's key names its operation.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest such key.
const MAX_KEY: usize = 255;
/// How often it is tried at once.
const SEND_TRIES: u32 = 3;
/// Between two tries.
const SEND_PAUSE: Duration = Duration::from_millis(500);

/// What a caller wants done.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// On which agent.
    pub(crate) agent: AgentId,
    /// With what.
    pub(crate) subject: Subject,
    /// What.
    pub(crate) request: OperationRequest,
    /// How it is to reach its machine.
    pub(crate) delivery: Delivery,
}

impl Ask {
    /// The VM, of what is done with one.
    pub(super) fn vm(&self) -> Result<&VmName, Error> {
        self.subject
            .vm()
            .ok_or_else(|| Error::invalid("vm", format!("{} is for a VM", self.request.kind())))
    }
}

/// How an operation is to reach its machine.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The caller's `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// How long it is kept for a machine that is offline; refused there when absent.
    pub(crate) keep_for: Option<Duration>,
    /// What the caller sent, where the request is made of more than that: a repetition is known by it.
    pub(crate) body: Option<Vec<u8>>,
}

/// What a request needs beyond the right to manage VMs: whatever touches the machine itself has a right of its own.
fn needed(request: &OperationRequest) -> Right {
    match request {
        OperationRequest::Mount(_) | OperationRequest::Umount(_) => Right::Host,
        OperationRequest::Create { spec } if is_file(&spec.image) || !spec.networks.is_empty() => {
            Right::Host
        }
        _ => Right::Manage,
    }
}

/// Whether an image is a file of the machine, by its name.
fn is_file(image: &str) -> bool {
    image
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

impl Delivery {
    /// Now or not at all.
    pub(crate) fn at_once() -> Self {
        Self {
            key: None,
            keep_for: None,
            body: None,
        }
    }
}

impl App {
    /// Does what `ask` says: the operation, accepted by its agent or on the way to it.
    ///
    /// `preflight` refuses what cannot work; it is not asked about a request that was accepted before.
    pub(super) async fn start_operation(
        &self,
        caller: &Caller,
        ask: Ask,
        preflight: impl FnOnce(&Self, &Ask) -> Result<(), Error>,
    ) -> Result<Operation, Error> {
        caller.require(Right::Manage)?;
        caller.require(needed(&ask.request))?;
        let keys_since = Timestamp::now() - IDEMPOTENCY;
        let idempotency = idempotency(caller, &ask)?;
        if let Some(known) = &idempotency
            && let Some(accepted) = self.store().operation_by_key(known, keys_since).await?
        {
            return self.accepted_before(accepted).await;
        }
        let (contact, checked) = match (self.online(&ask.agent), ask.delivery.keep_for) {
            (Ok(contact), _) => (Some(contact), preflight(self, &ask)),
            (Err(error), Some(_)) if self.may_come_online(&ask.agent) => {
                tracing::debug!("an operation is kept: {error}");
                (None, self.check_to_keep(&ask))
            }
            (Err(error), _) => return Err(error),
        };
        if let Err(error) = checked {
            let record = Record {
                outcome: Outcome::Failed,
                detail: Some(error.to_string()),
                ..Record::ok(action_name(&ask), target(&ask))
            };
            self.audit(caller, record).await?;
            return Err(error);
        }
        let mut operation = new_operation(caller, &ask);
        if contact.is_none() {
            operation.waits_until = ask
                .delivery
                .keep_for
                .and_then(|keep| operation.created_at.checked_add(keep).ok());
        }
        let new = NewOperation {
            operation: operation.clone(),
            request: StartOperation {
                subject: ask.subject.clone(),
                request: ask.request.clone(),
                requested_by: operation.requested_by.clone(),
            },
            idempotency,
        };
        match self.store().insert_operation(&new, keys_since).await? {
            Accepted::New => {}
            accepted => return self.accepted_before(accepted).await,
        }
        self.fleet().add_operation(operation.clone());
        if let Some((vm, about)) = self.about_new(&caller.name, &ask.agent, &new.request) {
            self.fleet().put_about(&ask.agent, &vm, about);
        }
        let id = operation.id;
        let record = Record {
            detail: Some(format!("operation {id}")),
            ..Record::ok(action_name(&ask), target(&ask))
        };
        let Some(contact) = contact else {
            self.say_that_it_waits(operation);
            self.audit(caller, record).await?;
            return self.operation(id).await;
        };
        // A caller that hangs up cancels nothing: the rest runs as a task of the master.
        let app = self.clone();
        let legacy = self.is_legacy(&ask.agent);
        let sent = self.tasks().spawn(async move {
            if legacy {
                app.begin_old(&contact, operation, new.request);
                Ok(())
            } else {
                app.send(&contact, id, &new.request).await
            }
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                let record = Record {
                    outcome: Outcome::Failed,
                    detail: Some(refusal.to_string()),
                    ..record
                };
                self.audit(caller, record).await?;
                return Err(refusal);
            }
            // The master stops: the row is there, and is settled when it starts again.
            Err(_) => return Err(Error::Unavailable("the master is stopping")),
        }
        self.audit(caller, record).await?;
        self.operation(id).await
    }

    /// The VM that is to be made, if one is, with what `account` wrote about it, for when its agent tells of it.
    pub(super) fn about_new(
        &self,
        account: &str,
        agent: &AgentId,
        start: &StartOperation,
    ) -> Option<(VmName, About)> {
        let vm = start.subject.vm()?;
        match &start.request {
            OperationRequest::Create { spec } => Some((vm.clone(), About::of_new(spec, account))),
            OperationRequest::Clone(options) => {
                let row = self.fleet().row(agent, vm)?;
                Some((options.name.clone(), row.about.for_clone()))
            }
            _ => None,
        }
    }

    /// The contact of an agent that is online.
    pub(super) fn online(&self, agent: &AgentId) -> Result<Arc<Contact>, Error> {
        if agent.is_local() && !self.fleet().has_local_agent() {
            return Err(no_local_agent());
        }
        let (status, message) = self
            .fleet()
            .read(|state| {
                let entry = state.agents.get(agent)?;
                Some((entry.standing.status, entry.standing.message.clone()))
            })
            .ok_or_else(|| unknown(agent))?;
        match (status, self.fleet().contact(agent)) {
            (AgentStatus::Online, Some(contact)) => Ok(contact),
            (status, _) => Err(offline(agent, status, message.as_deref())),
        }
    }

    /// Refuses a call for an agent that is not online, before its VMs are looked at.
    pub(crate) fn online_for_old(&self, agent: &AgentId) -> Result<(), Error> {
        self.online(agent).map(drop)
    }

    /// Refuses what is meant for the machine of a master that runs no VMs.
    pub(crate) fn require_local_agent(&self) -> Result<(), Error> {
        if self.fleet().has_local_agent() {
            Ok(())
        } else {
            Err(no_local_agent())
        }
    }

    /// The contact of an agent that is online and speaks only the old paths.
    pub(crate) fn old_agent_online(&self, agent: &AgentId) -> Option<Arc<Contact>> {
        self.online(agent).ok().filter(|_| self.is_legacy(agent))
    }

    pub(super) fn is_legacy(&self, agent: &AgentId) -> bool {
        self.fleet()
            .read(|state| state.agents.get(agent).is_some_and(|entry| entry.legacy))
    }

    async fn accepted_before(&self, accepted: Accepted) -> Result<Operation, Error> {
        match accepted {
            Accepted::Known(id) => self.operation(id).await,
            Accepted::New | Accepted::KeyOfAnother => {
                Err(Error::Problem(Box::new(Problem::invalid_fields(vec![
                    batwa_api::problem::FieldError::new(
                        "Idempotency-Key",
                        "this key came with another request before: use a fresh key for each request",
                    ),
                ]))))
            }
        }
    }

    /// Brings an operation to its agent. An error is the agent's refusal: nothing happened then.
    async fn send(
        &self,
        contact: &Contact,
        id: OperationId,
        request: &StartOperation,
    ) -> Result<(), Error> {
        self.fleet().sending(id, Sending::Now);
        let result = self.try_to_send(contact, id, request).await;
        self.fleet().sending(id, Sending::NotNow);
        match result {
            Ok(operation) => {
                self.fleet()
                    .hear_operation(&contact.id, operation, Heard::AsChange);
                Ok(())
            }
            Err(error) if error.is_transient() => {
                // The agent may have it or not. Its journal says so as soon as it is reached again.
                tracing::warn!(
                    "operation {id} is not confirmed by agent `{}`: {}",
                    contact.id,
                    error.describe()
                );
                if let Some(operation) = self.fleet().operation(id) {
                    let waiting = Operation {
                        message: Some("waiting for the machine's answer".to_owned()),
                        ..operation
                    };
                    self.fleet()
                        .hear_operation(&contact.id, waiting, Heard::AsChange);
                }
                Ok(())
            }
            Err(error) => {
                self.fleet().drop_operation(id);
                let made = match &request.request {
                    OperationRequest::Create { .. } => request.subject.vm(),
                    other => other.target(),
                };
                if let Some(made) = made {
                    self.fleet().break_promise(&contact.id, made);
                }
                self.store().delete_operation(id).await?;
                Err(agent_error(&contact.id, error))
            }
        }
    }

    async fn try_to_send(
        &self,
        contact: &Contact,
        id: OperationId,
        request: &StartOperation,
    ) -> Result<Operation, ClientError> {
        let mut tries = 1;
        loop {
            match contact.client.start_operation(id, request).await {
                Err(error) if error.is_transient() && tries < SEND_TRIES => {
                    tries += 1;
                    tokio::time::sleep(SEND_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// One operation.
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Operation, Error> {
        if let Some(operation) = self.fleet().operation(id) {
            return Ok(operation);
        }
        self.store()
            .operation(id)
            .await?
            .ok_or_else(|| Error::NotFound(format!("operation `{id}`")))
    }

    /// One operation, once it is finished or after `patience`.
    pub(crate) async fn wait_for_operation(
        &self,
        id: OperationId,
        patience: Duration,
    ) -> Result<Operation, Error> {
        let stopping = self.stopping().cancelled();
        let waited = tokio::select! {
            () = stopping => self.fleet().operation(id),
            waited = self.fleet().wait_for_operation(id, patience) => waited,
        };
        match waited {
            Some(operation) => Ok(operation),
            None => self.operation(id).await,
        }
    }

    /// One page of operations.
    pub(crate) async fn list_operations(
        &self,
        mut query: OperationQuery,
    ) -> Result<OperationList, Error> {
        query.limit = query.limit.clamp(1, MAX_LIMIT);
        let mut items = self.store().list_operations(&query).await?;
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next_cursor = more
            .then(|| items.last().map(|operation| operation.id.to_string()))
            .flatten();
        // The store lags behind by moments, and does not keep progress.
        for operation in &mut items {
            if let Some(live) = self.fleet().operation(operation.id) {
                *operation = live;
            }
        }
        items
            .retain(|operation| query.states.is_empty() || query.states.contains(&operation.state));
        let counts = self.store().count_operations(&query).await?;
        Ok(OperationList {
            items,
            next_cursor,
            counts,
        })
    }

    /// Asks for an operation to be cancelled; how it ends is its agent's to say.
    pub(crate) async fn cancel_operation(
        &self,
        caller: &Caller,
        id: OperationId,
    ) -> Result<Operation, Error> {
        caller.require(Right::Manage)?;
        let operation = self.operation(id).await?;
        if operation.state.is_finished() {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::IllegalState,
                format!("operation `{id}` is {} already", operation.state.as_str()),
            ))));
        }
        let target = operation.place();
        let record = Record {
            detail: Some(format!("operation {id}")),
            ..Record::ok("operation.cancel", target)
        };
        if operation.waits_until.is_some() {
            self.audit(caller, record).await?;
            return self.give_up(operation, GivenUp::Cancelled).await;
        }
        let contact = self.online(&operation.agent_id)?;
        if self.is_legacy(&operation.agent_id) {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "agent `{}` is of the old kind and cannot cancel anything",
                    operation.agent_id
                ),
            ))));
        }
        contact
            .client
            .cancel_operation(id)
            .await
            .map_err(|error| agent_error(&contact.id, error))?;
        self.audit(caller, record).await?;
        if let Ok(heard) = contact.client.operation(id).await {
            self.fleet()
                .hear_operation(&contact.id, heard, Heard::AsChange);
        }
        self.operation(id).await
    }

    /// Asks for the same again as an operation that failed or was cancelled.
    pub(crate) async fn retry_operation(
        &self,
        caller: &Caller,
        id: OperationId,
        delivery: Delivery,
    ) -> Result<Operation, Error> {
        caller.require(Right::Manage)?;
        let operation = self.operation(id).await?;
        let refuse = |detail: String| {
            Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::IllegalState,
                detail,
            ))))
        };
        match operation.state {
            OperationState::Failed | OperationState::Cancelled => {}
            state => {
                return refuse(format!(
                    "operation `{id}` is {}: only one that failed or was cancelled is asked for again",
                    state.as_str()
                ));
            }
        }
        let Some(StartOperation {
            subject, request, ..
        }) = self.store().operation_request(id).await?
        else {
            return refuse(format!(
                "what operation `{id}` was asked is not kept, as it held user-data or came from elsewhere: ask anew"
            ));
        };
        let preflight = match request {
            OperationRequest::Create { .. } => Self::check_create,
            OperationRequest::PullImage(_) => Self::check_pull,
            _ => Self::check_action,
        };
        let ask = Ask {
            agent: operation.agent_id,
            subject,
            request,
            delivery,
        };
        self.start_operation(caller, ask, preflight).await
    }

    /// What an operation's driver printed.
    pub(crate) async fn operation_log(&self, id: OperationId) -> Result<Vec<LogLine>, Error> {
        let operation = self.operation(id).await?;
        if !self.is_legacy(&operation.agent_id) {
            let asked = match self.online(&operation.agent_id) {
                Ok(contact) => contact
                    .client
                    .operation_log(id)
                    .await
                    .map_err(|error| (error.is_not_found(), agent_error(&contact.id, error))),
                Err(error) => Err((false, error)),
            };
            match asked {
                Ok(log) => return Ok(log),
                // What the error kept of it is better than nothing.
                Err((gone, error)) if !gone && operation.error.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        let at = operation.finished_at.unwrap_or(operation.created_at);
        let error = operation.error.into_iter();
        Ok(error
            .flat_map(|error| error.log)
            .map(|text| LogLine { at, text })
            .collect())
    }
}

fn new_operation(caller: &Caller, ask: &Ask) -> Operation {
    Operation {
        requested_by: Some(caller.name.to_string()),
        requested_from: Some(caller.source.address.to_string()),
        ..Operation::new(
            OperationId::new(),
            ask.agent.clone(),
            ask.subject.clone(),
            &ask.request,
            Timestamp::now(),
        )
    }
}

fn idempotency(caller: &Caller, ask: &Ask) -> Result<Option<Idempotency>, Error> {
    let Some(key) = &ask.delivery.key else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(
            "Idempotency-Key",
            "a key has 1 to 255 printable ASCII characters without spaces",
        ));
    }
    let body = match (&ask.subject, &ask.delivery.body) {
        (Subject::Vm(vm), Some(sent)) => serde_json::to_vec(&(&ask.agent, vm, sent)),
        (Subject::Vm(vm), None) => serde_json::to_vec(&(&ask.agent, vm, &ask.request)),
        (Subject::Image(image), _) => {
            serde_json::to_vec(&(&ask.agent, "image", image, &ask.request))
        }
    };
    let body = body.map_err(Error::internal)?;
    Ok(Some(Idempotency {
        key: format!("{}:{key}", caller.user_id),
        body_hash: Sha256::digest(body).to_vec(),
    }))
}

fn action_name(ask: &Ask) -> String {
    match ask.request.kind() {
        OperationKind::PullImage => "image.pull".to_owned(),
        kind => format!("vm.{kind}"),
    }
}

fn target(ask: &Ask) -> String {
    format!("{}/{}", ask.agent, ask.subject.name())
}

/// What a failed call to an agent means to whoever asked for it.
pub(super) fn agent_error(agent: &AgentId, error: ClientError) -> Error {
    let words = App::agent_words(agent);
    Error::Problem(Box::new(match error {
        ClientError::Refused(problem) => match problem.code {
            // The agent does not know the master's key, or the master's caller: neither is the caller's fault.
            ProblemCode::Unauthenticated | ProblemCode::Forbidden | ProblemCode::Internal => {
                Problem::new(
                    ProblemCode::AgentFailed,
                    format!("{words} refused: {}", problem.detail),
                )
            }
            _ => *problem,
        },
        ClientError::Connect(_) | ClientError::Http(_) => Problem::new(
            ProblemCode::AgentOffline,
            format!("{words} cannot be reached: {}", error.describe()),
        ),
        ClientError::Timeout(_) => Problem::new(
            ProblemCode::Timeout,
            format!("{words} does not answer: {}", error.describe()),
        ),
        ClientError::Status { .. } | ClientError::TooLarge | ClientError::Garbage(_) => {
            Problem::new(
                ProblemCode::AgentFailed,
                format!("{words} failed: {}", error.describe()),
            )
        }
    }))
}

/// An agent is not online.
pub(super) fn offline(agent: &AgentId, status: AgentStatus, message: Option<&str>) -> Error {
    let status = match status {
        AgentStatus::Pending => "waiting for approval",
        AgentStatus::Error => "not answering as it should",
        AgentStatus::Offline | AgentStatus::Online => "offline",
        AgentStatus::Revoked => "revoked",
    };
    let mut detail = format!("{} is {status}", App::agent_words(agent));
    if let Some(message) = message {
        detail.push_str(": ");
        detail.push_str(message);
    }
    Error::Problem(Box::new(Problem::new(ProblemCode::AgentOffline, detail)))
}

/// This master has no agent in its process.
pub(super) fn no_local_agent() -> Error {
    Error::Problem(Box::new(Problem::new(
        ProblemCode::NotFound,
        "this master runs no VMs itself",
    )))
}

/// Whether a finished operation did what was asked; otherwise why not, as a failed call says it.
pub(crate) fn outcome(operation: &Operation) -> Result<(), Error> {
    match operation.state {
        OperationState::Succeeded => Ok(()),
        OperationState::Failed => Err(Error::Problem(Box::new(
            operation.error.as_ref().map_or_else(
                || {
                    Problem::new(
                        ProblemCode::AgentFailed,
                        format!("{} of {} failed", operation.kind, operation.subject),
                    )
                },
                OperationError::to_problem,
            ),
        ))),
        OperationState::Cancelled => Err(Error::Conflict(format!(
            "{} of {} was cancelled",
            operation.kind, operation.subject
        ))),
        OperationState::Queued | OperationState::Running => {
            Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Timeout,
                format!(
                    "{} of {} takes longer than we wait; operation {} goes on",
                    operation.kind, operation.subject, operation.id
                ),
            ))))
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn an_unfinished_operation_is_named_when_nobody_waits_any_longer() {
        let running = Operation {
            state: OperationState::Running,
            ..Operation::new(
                OperationId::new(),
                AgentId::parse("lab").unwrap(),
                VmName::parse("web").unwrap(),
                &OperationRequest::Start,
                Timestamp::now(),
            )
        };
        let error = outcome(&running).unwrap_err();
        assert_eq!(error.code(), ProblemCode::Timeout);
        assert!(error.to_string().contains(&running.id.to_string()));
    }
}
