//! Operations that are under way, and those that ended lately: who waits for one waits here.
//!
//! The agent is the authority; a finished operation never changes again, whatever an agent says later.

use std::{collections::BTreeSet, time::Duration};

use batwa_api::{
    Timestamp,
    event::Event,
    id::{AgentId, OperationId},
    name::VmName,
    operation::{Operation, OperationKind, OperationState},
    vm::AgentReason,
};
use tokio::{sync::watch, time::timeout};

use super::{Fleet, state::Gone};

/// Finished operations kept in memory; the store has all.
const FINISHED_KEPT: usize = 1000;
/// Most operations of one agent that are taken from its word alone.
const MAX_PER_AGENT: usize = 10_000;

/// One operation in memory.
pub(super) struct Live {
    operation: watch::Sender<Operation>,
    /// Whether the store lacks its newest word.
    unsaved: bool,
    /// Whether this process is about to bring it to the agent: the agent not knowing it says nothing then.
    sending: bool,
}

/// How an agent's word on an operation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// In a snapshot: finished ones may be long known.
    InSnapshot,
    /// As a change, or as the answer to a question.
    AsChange,
    /// It is the master's own: the agent has not got it.
    FromMaster,
}

impl Fleet {
    /// Takes an operation that the store holds unfinished. Followers hear of it with its agent's first word.
    pub(crate) fn add_operation(&self, operation: Operation) {
        let id = operation.id;
        let live = Live {
            operation: watch::Sender::new(operation),
            unsaved: false,
            sending: false,
        };
        let mut operations = self.operations.lock().expect("no holder panics");
        operations.entry(id).or_insert(live);
    }

    /// Forgets an operation that its agent refused: nothing happened.
    pub(crate) fn drop_operation(&self, id: OperationId) {
        let mut operations = self.operations.lock().expect("no holder panics");
        operations.remove(&id);
    }

    /// Whether something is under way or waits for a VM.
    pub(crate) fn has_operation_for(&self, agent: &AgentId, vm: &VmName) -> bool {
        self.any_unfinished(|operation| operation.agent_id == *agent && operation.vm() == Some(vm))
    }

    /// Whether a VM with this name is being made.
    pub(crate) fn is_being_created(&self, agent: &AgentId, vm: &VmName) -> bool {
        self.any_unfinished(|operation| operation.agent_id == *agent && made(operation) == Some(vm))
    }

    /// The VMs of an agent whose end an operation explains: one that is under way, or of those that the agent tells of.
    pub(crate) fn explained(&self, agent: &AgentId, told: &[Operation]) -> BTreeSet<VmName> {
        // What a create or a clone made goes again when it is cut off.
        let gone = |operation: &Operation| match operation.kind {
            OperationKind::Create | OperationKind::Delete | OperationKind::Purge => {
                operation.vm().cloned()
            }
            _ => operation.target.clone(),
        };
        let operations = self.operations.lock().expect("no holder panics");
        let live = operations.values().filter_map(|live| {
            let operation = live.operation.borrow();
            let counts = operation.agent_id == *agent && !operation.state.is_finished();
            counts.then(|| gone(&operation)).flatten()
        });
        live.chain(told.iter().filter_map(gone)).collect()
    }

    /// Whether an operation is why a VM is not there any more.
    pub(crate) fn why_gone(&self, agent: &AgentId, vm: &VmName) -> Gone {
        match self.explained(agent, &[]).contains(vm) {
            true => Gone::Asked,
            false => Gone::Unexplained,
        }
    }

    fn any_unfinished(&self, wanted: impl Fn(&Operation) -> bool) -> bool {
        let operations = self.operations.lock().expect("no holder panics");
        operations.values().any(|live| {
            let operation = live.operation.borrow();
            !operation.state.is_finished() && wanted(&operation)
        })
    }

    /// One operation, while it is in memory.
    pub(crate) fn operation(&self, id: OperationId) -> Option<Operation> {
        let operations = self.operations.lock().expect("no holder panics");
        operations
            .get(&id)
            .map(|live| live.operation.borrow().clone())
    }

    /// Operations that wait for a machine to come online, and since `now` in vain.
    pub(crate) fn operations_in_vain(&self, now: Timestamp) -> Vec<Operation> {
        let operations = self.operations.lock().expect("no holder panics");
        operations
            .values()
            .filter(|live| !live.sending)
            .map(|live| live.operation.borrow().clone())
            .filter(|operation| {
                !operation.state.is_finished()
                    && operation.waits_until.is_some_and(|until| until <= now)
            })
            .collect()
    }

    /// Operations of an agent that are not finished and that nobody is bringing to it right now.
    pub(crate) fn unsettled_operations(&self, agent: &AgentId) -> Vec<Operation> {
        let operations = self.operations.lock().expect("no holder panics");
        operations
            .values()
            .filter(|live| !live.sending)
            .map(|live| live.operation.borrow().clone())
            .filter(|operation| operation.agent_id == *agent && !operation.state.is_finished())
            .collect()
    }

    /// Says whether an operation is being brought to its agent just now.
    pub(crate) fn sending(&self, id: OperationId, sending: Sending) {
        let mut operations = self.operations.lock().expect("no holder panics");
        if let Some(live) = operations.get_mut(&id) {
            live.sending = sending == Sending::Now;
        }
    }

    /// Takes what `agent` says of an operation.
    pub(crate) fn hear_operation(&self, agent: &AgentId, mut operation: Operation, heard: Heard) {
        operation.agent_id = agent.clone();
        let mut operations = self.operations.lock().expect("no holder panics");
        match operations.get_mut(&operation.id) {
            Some(live) => {
                let known = live.operation.borrow().clone();
                if known.agent_id != *agent || known.state.is_finished() {
                    return;
                }
                // What the master wrote down first stays: it knows better than any agent who asked.
                operation.requested_by = known.requested_by.clone();
                operation.requested_from = known.requested_from.clone();
                operation.waits_until = known.waits_until.filter(|_| heard == Heard::FromMaster);
                operation.target = known.target.clone();
                operation.created_at = known.created_at;
                operation.kind = known.kind;
                operation.subject = known.subject.clone();
                if known == operation {
                    return;
                }
                live.unsaved |= known.state != operation.state || known.stage != operation.stage;
                live.operation.send_replace(operation.clone());
            }
            None => {
                // Nobody here asked for it, so that this is the first that is heard of it.
                let by_itself = operation
                    .requested_by
                    .as_deref()
                    .and_then(AgentReason::parse);
                let finished = operation.state.is_finished();
                if finished && heard == Heard::InSnapshot && by_itself.is_none() {
                    return;
                }
                let of_agent = operations
                    .values()
                    .filter(|live| live.operation.borrow().agent_id == *agent)
                    .count();
                if of_agent >= MAX_PER_AGENT {
                    return;
                }
                operation.requested_by = by_itself.map(|reason| reason.requested_by().to_owned());
                operation.requested_from = None;
                operation.waits_until = None;
                operations.insert(
                    operation.id,
                    Live {
                        operation: watch::Sender::new(operation.clone()),
                        unsaved: true,
                        sending: false,
                    },
                );
            }
        }
        self.events.publish(Event::Operation {
            operation: operation.clone(),
        });
        drop(operations);
        self.unsaved.notify_one();
        let failed = matches!(
            operation.state,
            OperationState::Failed | OperationState::Cancelled
        );
        if failed && let Some(made) = made(&operation) {
            self.break_promise(agent, made);
        }
    }

    /// Waits until an operation is finished, at most for `patience`; answers with how it is then.
    pub(crate) async fn wait_for_operation(
        &self,
        id: OperationId,
        patience: Duration,
    ) -> Option<Operation> {
        let mut receiver = {
            let operations = self.operations.lock().expect("no holder panics");
            operations.get(&id)?.operation.subscribe()
        };
        let finished = timeout(
            patience,
            receiver.wait_for(|operation| operation.state.is_finished()),
        )
        .await
        .ok()
        .and_then(Result::ok)
        .map(|operation| operation.clone());
        Some(finished.unwrap_or_else(|| receiver.borrow().clone()))
    }

    /// Operations whose newest word the store lacks.
    pub(crate) fn unsaved_operations(&self) -> Vec<Operation> {
        let mut operations = self.operations.lock().expect("no holder panics");
        operations
            .values_mut()
            .filter_map(|live| {
                std::mem::take(&mut live.unsaved).then(|| live.operation.borrow().clone())
            })
            .collect()
    }

    /// Says that the store could not take these after all.
    pub(crate) fn still_unsaved(&self, ids: &[OperationId]) {
        let mut operations = self.operations.lock().expect("no holder panics");
        for id in ids {
            if let Some(live) = operations.get_mut(id) {
                live.unsaved = true;
            }
        }
    }

    /// Forgets the oldest of the finished operations that the store has.
    pub(crate) fn forget_finished_operations(&self) {
        let mut operations = self.operations.lock().expect("no holder panics");
        let finished: BTreeSet<OperationId> = operations
            .iter()
            .filter(|(_, live)| !live.unsaved && live.operation.borrow().state.is_finished())
            .map(|(id, _)| *id)
            .collect();
        let too_many = finished.len().saturating_sub(FINISHED_KEPT);
        // Ids sort by the time they were made.
        for id in finished.into_iter().take(too_many) {
            operations.remove(&id);
        }
    }
}

/// The VM that an operation makes.
fn made(operation: &Operation) -> Option<&VmName> {
    match operation.kind {
        OperationKind::Create => operation.vm(),
        _ => operation.target.as_ref(),
    }
}

/// Whether an operation is being brought to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It is, by a task of this process.
    Now,
    /// It was, or nobody tries.
    NotNow,
}
