//! What becomes of operations that a restart or a cut link left open: their agent's journal decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    id::AgentId,
    operation::{Operation, OperationError, OperationState, StartOperation, Subject},
    problem::ProblemCode,
};

use super::agent_error;
use crate::{
    app::{App, Error},
    fleet::{contact::Contact, operations::Heard},
};

/// How long an operation that its agent may not have got is still brought to it; later nobody expects it to begin.
const RESEND_WITHIN: Duration = Duration::from_secs(10 * 60);

impl App {
    /// Settles the unfinished operations of an agent that came online.
    pub(in crate::app) fn settle_operations(&self, agent: &AgentId) {
        let Some(contact) = self.fleet().contact(agent) else {
            return;
        };
        // Those for one VM in the order in which they were asked for: a stop that was kept comes before its start.
        let mut of_subjects: BTreeMap<Subject, Vec<Operation>> = BTreeMap::new();
        for operation in self.fleet().unsettled_operations(agent) {
            of_subjects
                .entry(operation.subject.clone())
                .or_default()
                .push(operation);
        }
        for mut operations in of_subjects.into_values() {
            operations.sort_by_key(|operation| operation.id);
            let app = self.clone();
            let contact = Arc::clone(&contact);
            self.tasks().spawn(async move {
                for operation in operations {
                    let settled = tokio::select! {
                        () = app.stopping().cancelled() => return,
                        settled = app.settle_one(&contact, operation) => settled,
                    };
                    if let Err(error) = settled {
                        tracing::warn!(
                            "an operation of agent `{}` is not settled yet: {error}",
                            contact.id
                        );
                        return;
                    }
                }
            });
        }
    }

    async fn settle_one(&self, contact: &Arc<Contact>, operation: Operation) -> Result<(), Error> {
        let legacy = self.is_legacy(&contact.id);
        if legacy && operation.waits_until.is_some() {
            return self.begin_kept_old(contact, operation).await;
        }
        if legacy {
            return self.settle_old(contact, operation).await;
        }
        self.settle(contact, operation).await
    }

    async fn settle(&self, contact: &Contact, operation: Operation) -> Result<(), Error> {
        let id = operation.id;
        match contact.client.operation(id).await {
            Ok(heard) => {
                self.fleet()
                    .hear_operation(&contact.id, heard, Heard::AsChange);
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                let request = self.store().operation_request(id).await?;
                match settle_unknown(&operation, request, Timestamp::now()) {
                    Unknown::Send(request) => {
                        let operation = self.no_longer_kept(operation).await?;
                        match self.send(contact, id, &request).await {
                            Ok(()) => Ok(()),
                            Err(refusal) => {
                                // The caller was told 202: the row must end, and say why.
                                let problem = refusal.to_problem();
                                self.fail(operation, problem.code, &problem.detail).await
                            }
                        }
                    }
                    Unknown::NeverBegan => {
                        self.fail(
                            operation,
                            ProblemCode::Unavailable,
                            "it never reached the machine, which has no record of it: nothing was done",
                        )
                        .await
                    }
                }
            }
            Err(error) => Err(agent_error(&contact.id, error)),
        }
    }

    /// Ends an operation that its agent cannot end.
    pub(super) async fn fail(
        &self,
        operation: Operation,
        code: ProblemCode,
        detail: &str,
    ) -> Result<(), Error> {
        let failed = Operation {
            state: OperationState::Failed,
            error: Some(OperationError {
                code,
                detail: format!("{} of {}: {detail}", operation.kind, operation.subject),
                hint: None,
                field: None,
                log: Vec::new(),
            }),
            ..operation
        };
        self.end(failed).await
    }

    /// Writes down and tells that an operation has ended, by the master's own decision.
    pub(super) async fn end(&self, operation: Operation) -> Result<(), Error> {
        let agent = operation.agent_id.clone();
        let ended = Operation {
            finished_at: Some(Timestamp::now()),
            message: None,
            waits_until: None,
            ..operation
        };
        self.store()
            .save_operations(std::slice::from_ref(&ended))
            .await?;
        if self.fleet().operation(ended.id).is_none() {
            self.fleet().add_operation(Operation {
                state: OperationState::Queued,
                ..ended.clone()
            });
        }
        self.fleet().hear_operation(&agent, ended, Heard::AsChange);
        Ok(())
    }
}

/// What to do about an operation of which its agent has no record.
#[derive(Debug, PartialEq)]
enum Unknown {
    /// Bring it to the agent now.
    Send(Box<StartOperation>),
    /// It never began, and nobody waits for it any more.
    NeverBegan,
}

fn settle_unknown(
    operation: &Operation,
    request: Option<StartOperation>,
    now: Timestamp,
) -> Unknown {
    let age = now.duration_since(operation.created_at).unsigned_abs();
    let kept = operation.waits_until.is_some_and(|until| until > now);
    match request {
        // Once the agent had begun, having no record of it means that its journal is gone: never begin again.
        Some(request)
            if operation.state == OperationState::Queued && (age < RESEND_WITHIN || kept) =>
        {
            Unknown::Send(Box::new(request))
        }
        _ => Unknown::NeverBegan,
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{id::OperationId, name::VmName, operation::OperationRequest};

    use super::*;

    fn operation(state: OperationState) -> Operation {
        Operation {
            state,
            ..Operation::new(
                OperationId::new(),
                AgentId::parse("lab").unwrap(),
                VmName::parse("web").unwrap(),
                &OperationRequest::Start,
                Timestamp::from_second(1_800_000_000).unwrap(),
            )
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn operations_unknown_to_their_agent_are_sent_again_only_while_fresh_and_never_begun() {
        let request = StartOperation {
            subject: VmName::parse("web").unwrap().into(),
            request: OperationRequest::Start,
            requested_by: None,
        };
        let queued = operation(OperationState::Queued);
        let kept = Operation {
            waits_until: Some(at(7200)),
            ..queued.clone()
        };
        let running = operation(OperationState::Running);
        let again = Unknown::Send(Box::new(request.clone()));
        for (operation, given, age, expected) in [
            (&queued, Some(request.clone()), 60, &again),
            (&queued, Some(request.clone()), 601, &Unknown::NeverBegan),
            (&kept, Some(request.clone()), 3600, &again),
            (&kept, Some(request.clone()), 7200, &Unknown::NeverBegan),
            (&queued, None, 60, &Unknown::NeverBegan),
            (&running, Some(request), 60, &Unknown::NeverBegan),
        ] {
            assert_eq!(
                settle_unknown(operation, given, at(age)),
                *expected,
                "{:?} after {age} s",
                operation.state
            );
        }
    }
}
