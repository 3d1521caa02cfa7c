//! Operations on agents from before v1: the master makes their blocking calls itself, and judges by the VM's state.
//!
//! Such an agent answers late, or says that it timed out although the VM comes up: what its list shows counts.

use std::{sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    legacy::CreateVm,
    operation::{
        Operation, OperationError, OperationKind, OperationRequest, OperationState, Stage,
        StartOperation,
    },
    problem::ProblemCode,
    vm::VmState,
};
use tokio::time::Instant;

use super::{App, Error, agent_error};
use crate::{
    client::{ClientError, legacy::OldAction},
    fleet::{
        contact::Contact,
        operations::{Heard, Sending},
    },
};

/// How long one blocking call may take: an image may have to come over a slow line first.
const CALL_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How long the VM's state is watched after the call ended.
const JUDGE_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(1500);

/// How the blocking call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The agent says that it is done.
    Done,
    /// The agent says that it failed.
    Failed,
    /// Nobody knows: the master restarted, or the connection broke.
    Lost,
}

/// What the VM's state says about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Succeeded,
    Failed,
    Wait,
}

/// Judges by the VM's state.
fn judge(kind: OperationKind, answer: Answer, observed: Option<VmState>) -> Verdict {
    use OperationKind::{
        Clone, Create, Delete, DeleteSnapshot, Mount, PullImage, Purge, Recover, Resize, Restart,
        Restore, Resume, Snapshot, Start, Stop, Suspend, Umount,
    };
    use VmState::{
        Creating, Deleted, Error, Restarting, Running, Starting, Stopped, Stopping, Suspended,
        Suspending, Unknown,
    };
    match (kind, observed) {
        (Purge | Delete, None | Some(Deleted)) => Verdict::Succeeded,
        (Purge | Delete, Some(_)) if answer == Answer::Failed => Verdict::Failed,
        (Purge | Delete, Some(_)) => Verdict::Wait,

        // A VM that is not listed yet may still come while nobody knows how the call ended.
        (Create, None) if answer == Answer::Lost => Verdict::Wait,
        (_, None) => Verdict::Failed,

        (Restart, Some(Running)) if answer == Answer::Failed => Verdict::Failed,
        (Create | Start | Resume | Restart, Some(Running)) => Verdict::Succeeded,
        (Create | Start | Resume | Restart, Some(Creating | Starting | Restarting | Unknown)) => {
            Verdict::Wait
        }
        (Create | Start | Resume | Restart, Some(_)) if answer == Answer::Done => Verdict::Wait,
        (Create | Start | Resume | Restart, Some(_)) => Verdict::Failed,

        (Stop, Some(Stopped | Suspended)) => Verdict::Succeeded,
        (Stop, Some(Running)) if answer == Answer::Failed => Verdict::Failed,
        (Stop, Some(Deleted | Error)) => Verdict::Failed,
        (Stop, Some(_)) => Verdict::Wait,

        (Suspend, Some(Suspended)) | (Recover, Some(Stopped)) => Verdict::Succeeded,
        (Suspend, Some(Suspending | Stopping)) => Verdict::Wait,
        // An agent of the old kind does none of these.
        (
            Suspend | Recover | Snapshot | Restore | DeleteSnapshot | Clone | Resize | Mount
            | Umount | PullImage,
            Some(_),
        ) => Verdict::Failed,
    }
}

impl App {
    /// Begins an operation on an old agent.
    pub(super) fn begin_old(
        &self,
        contact: &Arc<Contact>,
        operation: Operation,
        request: StartOperation,
    ) {
        self.fleet().sending(operation.id, Sending::Now);
        let app = self.clone();
        let contact = contact.clone();
        self.tasks().spawn(async move {
            let id = operation.id;
            let work = async {
                let (answer, detail) = app.call_old(&contact, &operation, &request).await;
                app.judge_old(&contact, id, answer, detail).await
            };
            tokio::select! {
                // The row stays unfinished, and is settled by the VM's state after the restart.
                () = app.stopping().cancelled() => {}
                () = work => {}
            }
            app.fleet().sending(id, Sending::NotNow);
        });
    }

    /// Settles an operation that the master left open when it stopped.
    pub(super) async fn settle_old(
        &self,
        contact: &Contact,
        operation: Operation,
    ) -> Result<(), Error> {
        let id = operation.id;
        self.fleet().sending(id, Sending::Now);
        self.judge_old(
            contact,
            id,
            Answer::Lost,
            "the master restarted while the machine was at it".to_owned(),
        )
        .await;
        self.fleet().sending(id, Sending::NotNow);
        Ok(())
    }

    /// Makes the blocking call; the agent is asked for nothing else meanwhile.
    async fn call_old(
        &self,
        contact: &Contact,
        operation: &Operation,
        request: &StartOperation,
    ) -> (Answer, String) {
        let _turn = contact.turn.lock().await;
        let now = Timestamp::now();
        self.say(contact, operation.id, |operation| {
            operation.state = OperationState::Running;
            operation.started_at = Some(now);
            operation.stage = Some(stage(operation.kind));
        });
        let Some(vm) = request.subject.vm() else {
            let why = "an agent of the old kind knows nothing of images".to_owned();
            return (Answer::Failed, why);
        };
        let client = &contact.client;
        let act = |action| client.old_action(vm, action, CALL_DEADLINE);
        let called = match &request.request {
            OperationRequest::Create { spec } => {
                let create = CreateVm {
                    name: vm.to_string(),
                    cpus: spec.cpus,
                    memory: spec.memory,
                    disk: spec.disk,
                    image: spec.image.clone(),
                    agent_id: None,
                };
                client.old_create(&create, CALL_DEADLINE).await
            }
            OperationRequest::Start | OperationRequest::Resume => act(OldAction::Start).await,
            OperationRequest::Stop(_) => act(OldAction::Stop).await,
            OperationRequest::Restart => match act(OldAction::Stop).await {
                Ok(()) => act(OldAction::Start).await,
                Err(error) => Err(error),
            },
            OperationRequest::Delete | OperationRequest::Purge => act(OldAction::Delete).await,
            OperationRequest::Suspend
            | OperationRequest::Recover
            | OperationRequest::Snapshot(_)
            | OperationRequest::Restore(_)
            | OperationRequest::DeleteSnapshot { .. }
            | OperationRequest::Clone(_)
            | OperationRequest::Resize(_)
            | OperationRequest::Mount(_)
            | OperationRequest::Umount(_)
            | OperationRequest::PullImage(_) => Err(ClientError::Garbage(
                "an agent of the old kind cannot do this".to_owned(),
            )),
        };
        match called {
            Ok(()) => (Answer::Done, String::new()),
            Err(error) if error.is_transient() => (Answer::Lost, error.describe()),
            Err(ClientError::Status { detail, .. }) if !detail.is_empty() => {
                (Answer::Failed, detail)
            }
            Err(error) => (Answer::Failed, error.describe()),
        }
    }

    /// Looks at the VM until its state tells how the operation ended.
    async fn judge_old(
        &self,
        contact: &Contact,
        id: batwa_api::id::OperationId,
        answer: Answer,
        detail: String,
    ) {
        let Some(operation) = self.fleet().operation(id) else {
            return;
        };
        let deadline = Instant::now() + JUDGE_DEADLINE;
        loop {
            let looked = {
                let _turn = contact.turn.lock().await;
                self.fleet().refresh_old(contact).await
            };
            let verdict = match looked {
                Ok(()) => {
                    let observed = operation
                        .vm()
                        .and_then(|vm| self.fleet().vm(&contact.id, vm))
                        .map(|found| found.vm.vm.state);
                    judge(operation.kind, answer, observed)
                }
                Err(_) => Verdict::Wait,
            };
            let now = Timestamp::now();
            match verdict {
                Verdict::Succeeded => {
                    return self.say(contact, id, |operation| {
                        operation.state = OperationState::Succeeded;
                        operation.finished_at = Some(now);
                        operation.late = answer == Answer::Failed;
                    });
                }
                Verdict::Failed => {
                    return self.say_failed(contact, id, ProblemCode::AgentFailed, &detail);
                }
                Verdict::Wait if Instant::now() >= deadline => {
                    let waited = format!(
                        "the VM did not come into the expected state within {} min. {detail}",
                        JUDGE_DEADLINE.as_secs() / 60
                    );
                    return self.say_failed(contact, id, ProblemCode::Timeout, &waited);
                }
                Verdict::Wait => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    fn say_failed(
        &self,
        contact: &Contact,
        id: batwa_api::id::OperationId,
        code: ProblemCode,
        detail: &str,
    ) {
        self.say(contact, id, |operation| {
            operation.state = OperationState::Failed;
            operation.finished_at = Some(Timestamp::now());
            let detail = if detail.is_empty() {
                "the VM is not in the state that was asked for".to_owned()
            } else {
                detail.to_owned()
            };
            operation.error = Some(OperationError {
                code,
                detail: format!("cannot {} {}: {detail}", operation.kind, operation.subject),
                hint: None,
                field: None,
                log: Vec::new(),
            });
        });
    }

    /// Changes what is known of an operation that the master itself carries out.
    fn say(
        &self,
        contact: &Contact,
        id: batwa_api::id::OperationId,
        change: impl FnOnce(&mut Operation),
    ) {
        if let Some(mut operation) = self.fleet().operation(id) {
            change(&mut operation);
            self.fleet()
                .hear_operation(&contact.id, operation, Heard::AsChange);
        }
    }

    /// What an old agent says of one VM, in Multipass' own words.
    pub(crate) async fn old_info(
        &self,
        contact: &Contact,
        vm: &batwa_api::name::VmName,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
        let _turn = contact
            .turn
            .try_lock()
            .map_err(|_| Error::Unavailable("the machine is busy"))?;
        contact
            .client
            .old_info(vm)
            .await
            .map_err(|error| agent_error(&contact.id, error))
    }
}

fn stage(kind: OperationKind) -> Stage {
    match kind {
        OperationKind::Create => Stage::Preparing,
        OperationKind::Start | OperationKind::Resume => Stage::Starting,
        OperationKind::Stop => Stage::Stopping,
        OperationKind::Restart => Stage::Restarting,
        OperationKind::Suspend => Stage::Suspending,
        OperationKind::Recover => Stage::Recovering,
        OperationKind::Delete | OperationKind::Purge => Stage::Deleting,
        OperationKind::Snapshot => Stage::TakingSnapshot,
        OperationKind::Restore => Stage::Restoring,
        OperationKind::DeleteSnapshot => Stage::DeletingSnapshot,
        OperationKind::Clone => Stage::Cloning,
        OperationKind::Resize => Stage::Resizing,
        OperationKind::Mount => Stage::Mounting,
        OperationKind::Umount => Stage::Unmounting,
        OperationKind::PullImage => Stage::ResolvingImage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_operations_are_judged_by_the_state_of_their_vm() {
        use Answer::{Done, Failed, Lost};
        use OperationKind::{Create, Purge, Restart, Start, Stop};
        use VmState::{Running, Starting, Stopped, Unknown};
        for (kind, answer, observed, expected) in [
            // Multipass said "timed out", and the VM came up.
            (Create, Failed, Some(Running), Verdict::Succeeded),
            (Create, Failed, Some(Starting), Verdict::Wait),
            (Create, Failed, Some(Unknown), Verdict::Wait),
            (Create, Failed, Some(Stopped), Verdict::Failed),
            (Create, Failed, None, Verdict::Failed),
            (Create, Done, Some(Running), Verdict::Succeeded),
            // The master restarted before the VM was listed.
            (Create, Lost, None, Verdict::Wait),
            (Create, Lost, Some(Running), Verdict::Succeeded),
            (Start, Done, Some(Running), Verdict::Succeeded),
            (Start, Lost, Some(Stopped), Verdict::Failed),
            (Start, Failed, Some(Stopped), Verdict::Failed),
            (Start, Done, None, Verdict::Failed),
            (Restart, Failed, Some(Running), Verdict::Failed),
            (Stop, Failed, Some(Stopped), Verdict::Succeeded),
            (Stop, Failed, Some(Running), Verdict::Failed),
            (Stop, Done, Some(Running), Verdict::Wait),
            (Purge, Failed, None, Verdict::Succeeded),
            (Purge, Failed, Some(Running), Verdict::Failed),
            (Purge, Lost, Some(Running), Verdict::Wait),
        ] {
            assert_eq!(
                judge(kind, answer, observed),
                expected,
                "{kind} {answer:?} {observed:?}"
            );
        }
    }

    #[test]
    fn every_verdict_on_a_call_that_succeeded_lets_time_pass_before_it_fails() {
        for kind in [
            OperationKind::Create,
            OperationKind::Start,
            OperationKind::Stop,
        ] {
            for state in VmState::ALL {
                let verdict = judge(kind, Answer::Done, Some(state));
                let lost = matches!(state, VmState::Deleted | VmState::Error);
                assert!(
                    verdict != Verdict::Failed || lost,
                    "{kind} with a VM that is {state}"
                );
            }
        }
    }
}
