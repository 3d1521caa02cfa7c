//! Runs one operation: waits for its turn at the driver, does it, and finds out how it ended.

use std::{sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    name::VmName,
    operation::{OperationError, OperationKind, OperationRequest, OperationState, Stage},
    vm::VmState,
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    Operations, error_of,
    queue::is_done,
    record::Record,
    settle::{Decision, Outcome, judge, settle},
};
use crate::{
    driver::{Driver, DriverError, Progress, StopMode},
    vms::{Busy, Running},
};

/// How long removing a cancelled or failed create's leftovers may take.
const CLEAN_UP_DEADLINE: Duration = Duration::from_secs(120);
/// How often a VM that comes up without us is looked at.
const AWAIT_POLL: Duration = Duration::from_secs(2);

/// How an operation ended.
enum End {
    Succeeded {
        late: bool,
    },
    Failed(OperationError),
    Cancelled,
    /// The agent stops; the journal knows where to go on.
    Interrupted,
}

impl Operations {
    /// Runs an operation to its end and shows it. Returns false when the agent stops instead.
    pub(super) async fn run(&self, record: &Arc<Record>) -> bool {
        let vm = record.operation().vm;
        let end = self.run_to_end(&vm, record).await;
        if matches!(end, End::Interrupted) {
            return false;
        }
        // The VM first: whoever hears of the operation's end finds its effect in the list.
        if !matches!(end, End::Cancelled) || record.operation().started_at.is_some() {
            if let Err(error) = self.inventory.ask(record.driver, &vm).await {
                warn!(vm.name = %vm, "cannot see VM `{vm}` after an operation: {error}");
            }
            self.inventory.poke(record.driver);
        }
        let mut busy = self.busy_with(&vm, None);
        let id = record.operation().id;
        busy.operations.retain(|other| *other != id);
        self.inventory.set_busy(&vm, busy);
        // Out of the queue before its end is shown: a command sent in answer to that end is judged by what is
        // observed, not by what this one was expected to do.
        if let Some(queue) = self.book().queues.get_mut(&vm) {
            queue.finish(id);
        }
        self.finish(record, end).await;
        true
    }

    async fn run_to_end(&self, vm: &VmName, record: &Arc<Record>) -> End {
        let kind = record.request.kind();
        let driver = match self.inventory.driver(record.driver) {
            Ok(driver) => driver,
            Err(error) => return End::Failed(error_of(&error)),
        };
        let turns = self.turns(record.driver, kind);
        let _turn = tokio::select! {
            () = record.cancel.cancelled() => return End::Cancelled,
            () = self.stop.cancelled() => return End::Interrupted,
            turn = turns.acquire_owned() => turn,
        };
        if let Some(end) = self.wait_before_stop(vm, record).await {
            return end;
        }
        record.change(|operation| {
            operation.state = OperationState::Running;
            operation.started_at.get_or_insert_with(Timestamp::now);
        });
        if let Err(error) = record.persist(&self.journal).await {
            return End::Failed(cannot_journal(&error));
        }
        let now = Running {
            kind,
            driver: record.driver,
            spec: match &record.request {
                OperationRequest::Create { spec } => Some(spec.clone()),
                _ => None,
            },
            shutdown_at: None,
        };
        self.inventory.set_busy(vm, self.busy_with(vm, Some(now)));
        self.picture.set_operation(record.operation());
        info!(operation.id = %record.operation().id, "{kind} VM `{vm}`");

        let deadline = match kind {
            OperationKind::Create => self.limits.create_deadline,
            _ => self.limits.operation_deadline,
        };
        let progress = record.progress(&self.picture);
        let work = async {
            let work = self.work(vm, record, &driver, &progress);
            timeout(deadline, work).await.unwrap_or_else(|_| {
                Err(DriverError::Timeout(format!(
                    "cannot {kind} VM `{vm}`: not done after {} minutes",
                    deadline.as_secs() / 60
                )))
            })
        };
        let result = tokio::select! {
            biased;
            () = record.cancel.cancelled() => None,
            () = self.stop.cancelled() => return End::Interrupted,
            result = work => Some(result),
        };
        match result {
            None => self.cancelled(vm, record, &driver).await,
            Some(Ok(())) => End::Succeeded {
                late: record.is_late(),
            },
            Some(Err(error)) => self.failed(vm, record, &driver, &error).await,
        }
    }

    /// `stop --time`: the VM goes on and shows when it will stop. `None` when the time has come.
    async fn wait_before_stop(&self, vm: &VmName, record: &Arc<Record>) -> Option<End> {
        let OperationRequest::Stop(options) = &record.request else {
            return None;
        };
        let wait = Duration::from_secs(options.after_s.filter(|seconds| *seconds > 0)?);
        let at = jiff::SignedDuration::try_from(wait)
            .ok()
            .and_then(|wait| record.operation().created_at.checked_add(wait).ok())?;
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        let now = Running {
            kind: OperationKind::Stop,
            driver: record.driver,
            spec: None,
            shutdown_at: Some(at),
        };
        self.inventory.set_busy(vm, self.busy_with(vm, Some(now)));
        record.change(|operation| operation.message = Some(format!("stops at {at:.0}")));
        self.picture.set_operation(record.operation());
        tokio::select! {
            () = record.cancel.cancelled() => Some(End::Cancelled),
            () = self.stop.cancelled() => Some(End::Interrupted),
            () = sleep(left) => None,
        }
    }

    /// What is to be done, settled first where it was cut off or has become pointless meanwhile.
    async fn work(
        &self,
        vm: &VmName,
        record: &Arc<Record>,
        driver: &Arc<dyn Driver>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let kind = record.request.kind();
        let decision = if record.interrupted {
            self.wait_until_listed(record).await;
            let observed = self.inventory.ask(record.driver, vm).await?;
            let decision = settle(kind, OperationState::Running, observed);
            record.note(&format!(
                "the agent was restarted; the VM is {}: {decision:?}",
                observed.map_or("not there", VmState::as_str)
            ));
            decision
        } else {
            let observed = self.inventory.find(vm).map(|(_, state)| state);
            if observed.is_some_and(|state| is_done(kind, state)) {
                Decision::Succeed
            } else {
                Decision::Run(kind)
            }
        };
        match decision {
            Decision::Keep | Decision::Succeed => Ok(()),
            Decision::Fail(reason) => Err(DriverError::failed(format!(
                "cannot {kind} VM `{vm}`: {reason}"
            ))),
            Decision::AwaitRunning => self.await_running(vm, record, progress).await,
            Decision::Run(step) => perform(step, vm, &record.request, driver, progress).await,
        }
    }

    /// A driver that hangs at the start says nothing of its VMs; nothing can be settled before it does.
    async fn wait_until_listed(&self, record: &Record) {
        while !self.inventory.has_listed(record.driver) {
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn await_running(
        &self,
        vm: &VmName,
        record: &Record,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Booting);
        loop {
            match self.inventory.ask(record.driver, vm).await? {
                Some(VmState::Running) => return Ok(()),
                Some(VmState::Unknown | VmState::Starting | VmState::Restarting) => {}
                Some(state) => {
                    return Err(DriverError::failed(format!(
                        "VM `{vm}` did not come up: it is {state}"
                    )));
                }
                None => return Err(DriverError::failed(format!("VM `{vm}` is gone"))),
            }
            sleep(AWAIT_POLL).await;
        }
    }

    /// The work was dropped at somebody's request: nothing half-made stays.
    async fn cancelled(&self, vm: &VmName, record: &Arc<Record>, driver: &Arc<dyn Driver>) -> End {
        if record.request.kind() != OperationKind::Create {
            return End::Cancelled;
        }
        match self.clean_up(vm, record, driver).await {
            Ok(()) => End::Cancelled,
            Err(error) => {
                let mut error = error_of(&error);
                error.detail = format!(
                    "cancelled, but what was made of VM `{vm}` is still there: {}",
                    error.detail
                );
                error.hint = Some("purge it".to_owned());
                End::Failed(error)
            }
        }
    }

    async fn clean_up(
        &self,
        vm: &VmName,
        record: &Arc<Record>,
        driver: &Arc<dyn Driver>,
    ) -> Result<(), DriverError> {
        record.change(|operation| {
            operation.stage = Some(Stage::CleaningUp);
            operation.progress = None;
            operation.message = Some("removing what was made".to_owned());
        });
        self.picture.set_operation(record.operation());
        let progress = Progress::ignored();
        timeout(CLEAN_UP_DEADLINE, driver.purge(vm, &progress))
            .await
            .unwrap_or_else(|_| Err(DriverError::Stuck("the driver does not answer".to_owned())))
    }

    /// The driver reported a failure: its state of the VM decides, not its word.
    async fn failed(
        &self,
        vm: &VmName,
        record: &Arc<Record>,
        driver: &Arc<dyn Driver>,
        error: &DriverError,
    ) -> End {
        let kind = record.request.kind();
        let observed = self.inventory.ask(record.driver, vm).await.ok();
        if judge(kind, error, observed) == Outcome::SucceededLate {
            record.note(&format!("succeeded although the driver said: {error}"));
            return End::Succeeded { late: true };
        }
        // We cut it off, so the driver could not clean up after itself.
        let ours = matches!(error, DriverError::Timeout(_));
        if kind == OperationKind::Create
            && ours
            && observed != Some(Some(VmState::Running))
            && let Err(left) = self.clean_up(vm, record, driver).await
        {
            record.note(&format!("cannot remove what was made: {left}"));
        }
        End::Failed(error_of(error))
    }

    async fn finish(&self, record: &Arc<Record>, end: End) {
        record.change(|operation| {
            operation.finished_at = Some(Timestamp::now());
            match end {
                End::Succeeded { late } => {
                    operation.state = OperationState::Succeeded;
                    operation.late = late;
                    operation.stage = None;
                    operation.progress = None;
                    operation.message = None;
                }
                End::Failed(error) => {
                    operation.state = OperationState::Failed;
                    operation.error = Some(error);
                }
                End::Cancelled | End::Interrupted => {
                    operation.state = OperationState::Cancelled;
                    operation.message = None;
                }
            }
        });
        let operation = record.operation();
        let kind = operation.kind;
        let vm = operation.vm.clone();
        match &operation.error {
            Some(error) => {
                warn!(operation.id = %operation.id, "cannot {kind} VM `{vm}`: {}", error.detail)
            }
            None => {
                info!(operation.id = %operation.id, "{kind} VM `{vm}`: {}", operation.state.as_str())
            }
        }
        if let Err(error) = record.persist(&self.journal).await {
            // Settled anew after a restart; until then what is shown is right.
            warn!(operation.id = %operation.id, "cannot write down how an operation ended: {error}");
        }
        self.show(record);
    }
}

/// Calls the driver.
async fn perform(
    kind: OperationKind,
    vm: &VmName,
    request: &OperationRequest,
    driver: &Arc<dyn Driver>,
    progress: &Progress,
) -> Result<(), DriverError> {
    match (kind, request) {
        (OperationKind::Create, OperationRequest::Create { spec }) => {
            driver.create(vm, spec, progress).await
        }
        (OperationKind::Create, _) => Err(DriverError::failed("a create without a spec")),
        (OperationKind::Start | OperationKind::Resume, _) => driver.start(vm, progress).await,
        (OperationKind::Stop, request) => {
            let forced = matches!(request, OperationRequest::Stop(options) if options.force);
            let mode = if forced {
                StopMode::Forced
            } else {
                StopMode::Graceful
            };
            driver.stop(vm, mode, progress).await
        }
        (OperationKind::Restart, _) => driver.restart(vm, progress).await,
        (OperationKind::Suspend, _) => driver.suspend(vm, progress).await,
        (OperationKind::Delete, _) => driver.delete(vm, progress).await,
        (OperationKind::Recover, _) => driver.recover(vm, progress).await,
        (OperationKind::Purge, _) => driver.purge(vm, progress).await,
    }
}

fn cannot_journal(error: &std::io::Error) -> OperationError {
    OperationError {
        code: batwa_api::problem::ProblemCode::Internal,
        detail: format!("cannot write the operation down: {error}"),
        hint: Some("see whether the agent's disk is full".to_owned()),
        field: None,
        log: Vec::new(),
    }
}

impl Operations {
    /// What our operations do to a VM, for the inventory.
    pub(super) fn busy_with(&self, vm: &VmName, running: Option<Running>) -> Busy {
        Busy {
            operations: self.queued_for(vm),
            running,
        }
    }
}
