//! Runs one operation: waits for its turn at the driver, does it, and finds out how it ended.

use std::{sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    name::{SnapshotName, VmName},
    operation::{
        Operation, OperationError, OperationKind, OperationRequest, OperationState, Stage, Subject,
    },
    vm::{RestoreOptions, VmState},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    Operations, error_of,
    queue::is_done,
    record::Record,
    settle::{Decision, Evidence, Outcome, Pause, evidence, judge, settle},
};
use crate::{
    driver::{Driver, DriverError, ObservedVm, Progress, StopMode},
    vms::{Busy, Running},
};

/// How long removing a cancelled or failed create's leftovers may take.
const CLEAN_UP_DEADLINE: Duration = Duration::from_secs(120);
/// How often a VM that comes up without us is looked at.
const AWAIT_POLL: Duration = Duration::from_secs(2);

/// How an operation ended.
pub(super) enum End {
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
    pub(super) async fn run(&self, vm: &VmName, record: &Arc<Record>) -> bool {
        let end = self.run_to_end(vm, record).await;
        if matches!(end, End::Interrupted) {
            return false;
        }
        if matches!(end, End::Succeeded { .. }) {
            self.upkeep.done(vm, &record.request).await;
        }
        // The VM first: whoever hears of the operation's end finds its effect in the list.
        if !matches!(end, End::Cancelled) || record.operation().started_at.is_some() {
            for vm in [vm].into_iter().chain(record.request.target()) {
                if let Err(error) = self.inventory.ask(record.driver, vm).await {
                    warn!(vm.name = %vm, "cannot see VM `{vm}` after an operation: {error}");
                }
            }
            self.inventory.poke(record.driver);
        }
        let is_create = matches!(record.request, OperationRequest::Create { .. });
        if is_create && !matches!(end, End::Succeeded { .. }) && self.inventory.find(vm).is_none() {
            self.upkeep.not_made(vm).await;
        }
        let mut busy = self.busy_with(vm, None);
        let id = record.operation().id;
        busy.operations.retain(|other| *other != id);
        self.inventory.set_busy(vm, busy);
        self.finish(record, end).await;
        true
    }

    async fn run_to_end(&self, vm: &VmName, record: &Arc<Record>) -> End {
        let kind = record.request.kind();
        let driver = match self.inventory.driver(record.driver) {
            Ok(driver) => driver,
            Err(error) => return End::Failed(error_of(&error)),
        };
        // Before its turn: a stop that waits for hours must not keep others from theirs.
        if let Some(end) = self.wait_before_stop(vm, record).await {
            return end;
        }
        let turns = self.turns(record.driver, kind);
        let _turn = tokio::select! {
            () = record.cancel.cancelled() => return End::Cancelled,
            () = self.stop.cancelled() => return End::Interrupted,
            turn = turns.take(record.operation().requested_by) => turn,
        };
        // Before it is written down as begun: a VM that is to be made has its settings, or is not begun with.
        if !record.interrupted
            && let Err(error) = self.upkeep.begins(vm, &record.request).await
        {
            return End::Failed(cannot_journal(&error));
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
                OperationRequest::Create { spec } => Some((**spec).clone()),
                _ => None,
            },
            shutdown_at: None,
        };
        self.inventory.set_busy(vm, self.busy_with(vm, Some(now)));
        self.picture.set_operation(record.operation());
        info!(operation.id = %record.operation().id, "{kind} VM `{vm}`");

        let deadline = self.limits.deadlines.of(kind);
        let progress = record.progress(&self.picture);
        let work = async {
            let work = self.work(vm, record, &driver, &progress);
            timeout(deadline, work).await.unwrap_or_else(|_| {
                Err(DriverError::Timeout(format!(
                    "cannot {kind} VM `{vm}`: not done after {}",
                    words(deadline)
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
        // It may have been protected while this waited.
        if !record.interrupted
            && let Some(refused) = self.refused_by_protection(vm, &record.request)
        {
            return Err(DriverError::IllegalState(refused.detail));
        }
        let decision = if record.interrupted {
            self.wait_until_listed(record).await;
            let seen = self.evidence(vm, record, driver).await?;
            let decision = settle(kind, OperationState::Running, record.pause(), seen);
            record.note(&format!(
                "the agent was restarted; the VM is {}: {decision:?}",
                seen.state.map_or("not there", VmState::as_str)
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
            Decision::Run(step) if step.needs_vm_off() => {
                self.while_off(vm, record, driver, progress).await
            }
            Decision::Run(step) => perform(step, vm, &record.request, driver, progress).await,
        }
    }

    /// What the driver now says of an operation's work.
    async fn evidence(
        &self,
        vm: &VmName,
        record: &Record,
        driver: &Arc<dyn Driver>,
    ) -> Result<Evidence, DriverError> {
        if !record.request.kind().needs_vm_off() {
            return Ok(self.inventory.ask(record.driver, vm).await?.into());
        }
        let vm = seen(driver.inspect(vm).await)?;
        let target = match record.request.target() {
            Some(target) => seen(driver.inspect(target).await)?,
            None => None,
        };
        Ok(evidence(&record.request, vm.as_ref(), target.as_ref()))
    }

    /// Does what touches the VM's disk; one that runs is stopped for that where it was asked for, and started again
    /// whatever came of the work.
    async fn while_off(
        &self,
        vm: &VmName,
        record: &Arc<Record>,
        driver: &Arc<dyn Driver>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let runs = self
            .inventory
            .ask(record.driver, vm)
            .await?
            .is_some_and(|state| state == VmState::Running);
        if runs && record.request.stops() {
            self.pause(record, Pause::Off).await?;
            driver.stop(vm, StopMode::Graceful, progress).await?;
        }
        let worked = perform(record.request.kind(), vm, &record.request, driver, progress).await;
        if record.pause() == Pause::None {
            return worked;
        }
        if worked.is_ok() {
            self.pause(record, Pause::WorkDone).await?;
        }
        let started = driver.start(vm, progress).await;
        worked.and(started)
    }

    async fn pause(&self, record: &Record, pause: Pause) -> Result<(), DriverError> {
        record
            .set_pause(pause, &self.journal)
            .await
            .map_err(|error| DriverError::Failed {
                detail: format!("cannot write the operation down: {error}"),
                hint: Some("see whether the agent's disk is full".to_owned()),
                log: Vec::new(),
            })
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
        self.start_again(vm, record, driver).await;
        let Some(made) = made_by(vm, record) else {
            return End::Cancelled;
        };
        match self.clean_up(made, record, driver).await {
            Ok(()) => End::Cancelled,
            Err(error) => {
                let mut error = error_of(&error);
                error.detail = format!(
                    "cancelled, but what was made of VM `{made}` is still there: {}",
                    error.detail
                );
                error.hint = Some("purge it".to_owned());
                End::Failed(error)
            }
        }
    }

    /// Starts a VM that was stopped for an operation which was cut off.
    async fn start_again(&self, vm: &VmName, record: &Arc<Record>, driver: &Arc<dyn Driver>) {
        if record.pause() == Pause::None {
            return;
        }
        let progress = record.progress(&self.picture);
        progress.message("starting the VM again, which was stopped for this");
        let starting = driver.start(vm, &progress);
        match timeout(self.limits.deadlines.of(OperationKind::Start), starting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => record.note(&format!("VM `{vm}` did not start again: {error}")),
            Err(_) => record.note(&format!("VM `{vm}` did not start again in time")),
        }
    }

    async fn clean_up(
        &self,
        vm: &VmName,
        record: &Arc<Record>,
        driver: &Arc<dyn Driver>,
    ) -> Result<(), DriverError> {
        record.change(|operation| {
            operation.enter(Stage::CleaningUp, Timestamp::now());
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
        if ours {
            self.start_again(vm, record, driver).await;
        }
        let came_up = kind == OperationKind::Create && observed == Some(Some(VmState::Running));
        if ours
            && !came_up
            && let Some(made) = made_by(vm, record)
            && let Err(left) = self.clean_up(made, record, driver).await
        {
            record.note(&format!("cannot remove what was made: {left}"));
        }
        End::Failed(error_of(error))
    }

    /// Takes an operation out of its queue, writes down how it ended, and shows that.
    pub(super) async fn finish(&self, record: &Arc<Record>, end: End) {
        let Operation { id, subject, .. } = record.operation();
        // Out of the queue before its end is shown: a command sent in answer to that end is judged by what is
        // observed, not by what this one was expected to do.
        if let Some(queue) = self.book().queues.get_mut(&subject) {
            queue.finish(id);
        }
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
        match &operation.error {
            Some(error) => {
                warn!(operation.id = %id, "cannot {kind} {subject}: {}", error.detail);
            }
            None => {
                info!(operation.id = %id, "{kind} {subject}: {}", operation.state.as_str());
            }
        }
        self.write_end(record).await;
        self.show(record);
    }
}

/// A time as people say it.
fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 120 => format!("{} minutes", seconds / 60),
        1 => "1 second".to_owned(),
        seconds => format!("{seconds} seconds"),
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
        (_, OperationRequest::Snapshot(options)) => {
            let name = chosen(options.name.as_ref())?;
            let comment = options.comment.as_deref().unwrap_or_default();
            driver.snapshot(vm, name, comment, progress).await
        }
        (_, OperationRequest::Restore(options)) => restore(vm, options, driver, progress).await,
        (_, OperationRequest::DeleteSnapshot { snapshot, .. }) => {
            driver.delete_snapshot(vm, snapshot, progress).await
        }
        (_, OperationRequest::Clone(options)) => {
            let snapshot = options.snapshot.as_ref();
            driver.clone_vm(vm, &options.name, snapshot, progress).await
        }
        (_, OperationRequest::Resize(size)) => driver.resize(vm, size, progress).await,
        (_, OperationRequest::Mount(mount)) => driver.mount(vm, mount, progress).await,
        (_, OperationRequest::Umount(options)) => {
            driver.umount(vm, options.target.as_deref(), progress).await
        }
        (kind, request) => Err(DriverError::failed(format!(
            "cannot {kind} VM `{vm}`: it was asked to {}",
            request.kind()
        ))),
    }
}

/// Goes back to a snapshot, having kept the disk as it is now. A call that was cut off between the two has kept it.
async fn restore(
    vm: &VmName,
    options: &RestoreOptions,
    driver: &Arc<dyn Driver>,
    progress: &Progress,
) -> Result<(), DriverError> {
    if !options.discard {
        let name = chosen(options.safety.as_ref())?;
        let comment = format!("before going back to {}", options.snapshot);
        match driver.snapshot(vm, name, &comment, progress).await {
            Ok(()) | Err(DriverError::SnapshotTaken { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    driver.restore(vm, &options.snapshot, progress).await
}

/// A name that was chosen when the operation was accepted.
fn chosen(name: Option<&SnapshotName>) -> Result<&SnapshotName, DriverError> {
    name.ok_or_else(|| DriverError::failed("an operation without the snapshot's name"))
}

/// The VM that an operation makes, and that is removed when it does not come to its end.
fn made_by<'a>(vm: &'a VmName, record: &'a Record) -> Option<&'a VmName> {
    match record.request {
        OperationRequest::Create { .. } => Some(vm),
        _ => record.request.target(),
    }
}

/// That a VM is not there is something seen too.
fn seen(observed: Result<ObservedVm, DriverError>) -> Result<Option<ObservedVm>, DriverError> {
    match observed {
        Ok(observed) => Ok(Some(observed)),
        Err(DriverError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn cannot_journal(error: &std::io::Error) -> OperationError {
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
            operations: self.queued_for(&Subject::Vm(vm.clone())),
            running,
        }
    }
}
