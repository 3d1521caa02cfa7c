//! What is done with VMs: each action looks at the state first, acts, and looks again.
//!
//! ```text
//!            look            call             judge by state
//!  asked ──► already so? ──► multipass … ──► reached? ──► done
//!              │  not yet possible:            │ gave up, or the daemon went away:
//!              └─ wait for the boot            └─ watch on; reached now is done, late
//! ```

use std::time::Duration;

use batwa_api::{name::VmName, operation::Stage, vm::VmState};
use tokio::time::{Instant, sleep};

use super::{
    Multipass,
    call::Call,
    goal::{Goal, Verdict},
    knowledge::Work,
    nameable,
    output::{Listed, Shutdown},
    spinner::Spinner,
};
use crate::driver::{DriverError, Progress, StopMode};

/// Where watching a VM ended.
pub(super) enum Watched {
    /// The goal is reached.
    Reached,
    /// The VM is in a state that does not lead there, or still on its way when the time was over.
    Not(VmState),
    /// The VM is not there.
    Vanished,
    /// Nothing could be learnt: the daemon did not answer.
    Blind(DriverError),
}

impl Multipass {
    pub(super) async fn power_on(
        &self,
        vm: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Starting);
        let listed = self.existing(vm).await?;
        match listed.state {
            VmState::Running if listed.shutdown == Shutdown::None => Ok(()),
            VmState::Deleted => Err(in_trash(vm)),
            // It boots, or Multipass has lost sight of it: in either case a start would only wait.
            VmState::Unknown => self.await_boot(vm, progress).await.map(drop),
            _ => {
                self.act(
                    &Call::Start(vm),
                    vm,
                    Goal::Running,
                    Stage::Starting,
                    progress,
                )
                .await
            }
        }
    }

    pub(super) async fn power_off(
        &self,
        vm: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Stopping);
        let listed = self.existing(vm).await?;
        match (listed.state, mode) {
            (VmState::Stopped, _) => return Ok(()),
            (VmState::Deleted, _) => return Err(in_trash(vm)),
            (VmState::Suspended, StopMode::Graceful) => {
                return Err(DriverError::IllegalState(format!(
                    "VM `{vm}` is suspended: resume it first, or stop it with force"
                )));
            }
            // A VM that boots does not hear its power button, and the daemon would hang for five minutes.
            (state, StopMode::Graceful) if is_booting(state) => {
                let booted = self.await_boot(vm, progress).await;
                if self.existing(vm).await?.state == VmState::Stopped {
                    return Ok(());
                }
                booted?;
                progress.stage(Stage::Stopping);
            }
            _ => {}
        }
        self.act(
            &Call::Stop(vm, mode),
            vm,
            Goal::Stopped,
            Stage::Stopping,
            progress,
        )
        .await
    }

    pub(super) async fn reboot(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        progress.stage(Stage::Restarting);
        let listed = self.existing(vm).await?;
        match listed.state {
            VmState::Running => {}
            VmState::Deleted => return Err(in_trash(vm)),
            // A reboot that is under way already, ours from before perhaps, is the one that was asked for.
            VmState::Restarting => return self.await_boot(vm, progress).await.map(drop),
            state if is_booting(state) => {
                self.await_boot(vm, progress).await?;
                progress.stage(Stage::Restarting);
            }
            // Multipass' own words for this mislead: it says that the VM runs.
            state => return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}"))),
        }
        self.act(
            &Call::Restart(vm),
            vm,
            Goal::Running,
            Stage::Restarting,
            progress,
        )
        .await
    }

    pub(super) async fn write_to_disk(
        &self,
        vm: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Suspending);
        let listed = self.existing(vm).await?;
        match listed.state {
            VmState::Suspended => return Ok(()),
            VmState::Deleted => return Err(in_trash(vm)),
            // Multipass does nothing here and calls it success.
            VmState::Stopped => {
                return Err(DriverError::IllegalState(format!("VM `{vm}` is stopped")));
            }
            state if is_booting(state) => {
                self.await_boot(vm, progress).await?;
                progress.stage(Stage::Suspending);
            }
            _ => {}
        }
        self.act(
            &Call::Suspend(vm),
            vm,
            Goal::Suspended,
            Stage::Suspending,
            progress,
        )
        .await
    }

    pub(super) async fn trash(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        progress.stage(Stage::Deleting);
        let listed = self.existing(vm).await?;
        if listed.state == VmState::Deleted {
            return Ok(());
        }
        if is_booting(listed.state) {
            // Refused or unheard otherwise; the VM is to go anyway.
            let force = Call::Stop(vm, StopMode::Forced);
            self.act(&force, vm, Goal::Stopped, Stage::Stopping, progress)
                .await?;
            progress.stage(Stage::Deleting);
        }
        self.act(
            &Call::Delete(vm),
            vm,
            Goal::Trashed,
            Stage::Deleting,
            progress,
        )
        .await
    }

    pub(super) async fn untrash(
        &self,
        vm: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Recovering);
        if self.existing(vm).await?.state != VmState::Deleted {
            return Ok(());
        }
        self.act(
            &Call::Recover(vm),
            vm,
            Goal::Recovered,
            Stage::Recovering,
            progress,
        )
        .await
    }

    pub(super) async fn remove(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        if nameable(vm).is_err() {
            return Ok(());
        }
        progress.stage(Stage::Deleting);
        if self.appeared(vm).await?.is_none() {
            self.knowledge.settle_cut_off(vm);
            return Ok(());
        }
        let result = self
            .act(&Call::Purge(vm), vm, Goal::Gone, Stage::Deleting, progress)
            .await;
        match result {
            Ok(()) | Err(DriverError::NotFound(_)) => {
                self.knowledge.settle_cut_off(vm);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The VM as listed; one whose launch or clone was cut off just now gets its time to appear, and the daemon, which
    /// may still be copying its disk, its time to answer.
    pub(super) async fn appeared(&self, vm: &VmName) -> Result<Option<Listed>, DriverError> {
        let limits = self.settings.limits;
        loop {
            let listed = self.listed(vm).await;
            let ago = self.knowledge.cut_off(vm);
            match (listed, ago) {
                (Ok(None), Some(ago)) if ago < limits.appear => {}
                (Err(DriverError::Stuck(_)), Some(ago)) if ago < limits.comeback => {}
                (listed, _) => return listed,
            }
            sleep(limits.poll).await;
        }
    }

    /// Makes a call and judges by the VM's state what came of it.
    async fn act(
        &self,
        call: &Call<'_>,
        vm: &VmName,
        goal: Goal,
        stage: Stage,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let limits = self.settings.limits;
        let mark = (goal == Goal::Running).then(|| self.knowledge.mark(vm, Work::Boot));
        let admission = self.daemon.admit(call).await?;
        let mut report = Reporter::new(progress, stage);
        let result = admission.run(call, None, |bytes| report.take(bytes)).await;
        let error = match result {
            Ok(_) => {
                drop(mark);
                return self.confirm(vm, goal).await;
            }
            Err(error) => error,
        };
        let patience = match &error {
            DriverError::Timeout(_) => limits.late,
            DriverError::Missing(_) | DriverError::Stuck(_) => limits.comeback,
            // Somebody else may have done it meanwhile: one look tells.
            _ => Duration::ZERO,
        };
        if !patience.is_zero() {
            progress.late();
            progress.log(error.to_string());
            progress.message("Multipass has let go of it: watching the VM");
        }
        match (self.watch(vm, goal, patience).await, error) {
            (Watched::Reached, _) => Ok(()),
            (Watched::Vanished, _) => Err(DriverError::NotFound(vm.clone())),
            (Watched::Not(VmState::Unknown), DriverError::Timeout(text)) => {
                Err(DriverError::Failed {
                    detail: text,
                    hint: Some(
                        "Multipass has lost sight of the VM: stop it with force, then start it"
                            .to_owned(),
                    ),
                    log: Vec::new(),
                })
            }
            (Watched::Not(_) | Watched::Blind(_), error) => Err(error),
        }
    }

    /// Looks whether the state bears out a success that Multipass reported.
    pub(super) async fn confirm(&self, vm: &VmName, goal: Goal) -> Result<(), DriverError> {
        match self.watch(vm, goal, self.settings.limits.settle).await {
            // Who cannot look has to believe.
            Watched::Reached | Watched::Blind(_) => Ok(()),
            Watched::Vanished => Err(DriverError::NotFound(vm.clone())),
            Watched::Not(state) => Err(DriverError::failed(format!(
                "Multipass reported success, but VM `{vm}` is {state}"
            ))),
        }
    }

    /// Waits until a VM that boots is up, or off again.
    async fn await_boot(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        progress.message("waiting for the VM to finish booting");
        let mark = self.knowledge.mark(vm, Work::Boot);
        let watched = self
            .watch(vm, Goal::Running, self.settings.limits.late)
            .await;
        drop(mark);
        match watched {
            Watched::Reached => Ok(()),
            Watched::Vanished => Err(DriverError::NotFound(vm.clone())),
            Watched::Blind(error) => Err(error),
            Watched::Not(state) => Err(DriverError::IllegalState(format!(
                "VM `{vm}` is {state} and has not come up: stop it with force, then start it"
            ))),
        }
    }

    /// Looks at a VM until `goal` is reached or cannot be, at most for `patience`, and once at least. A daemon
    /// that does not answer meanwhile is asked again.
    pub(super) async fn watch(&self, vm: &VmName, goal: Goal, patience: Duration) -> Watched {
        let until = Instant::now() + patience;
        loop {
            let seen = match self.listed(vm).await {
                Ok(listed) => match goal.judge(listed.as_ref()) {
                    Verdict::Reached => return Watched::Reached,
                    Verdict::Vanished => return Watched::Vanished,
                    verdict => {
                        let state = listed.map_or(VmState::Unknown, |listed| listed.state);
                        if verdict == Verdict::Hopeless {
                            return Watched::Not(state);
                        }
                        Watched::Not(state)
                    }
                },
                Err(error) => Watched::Blind(error),
            };
            if Instant::now() >= until {
                return seen;
            }
            sleep(self.settings.limits.poll).await;
        }
    }
}

fn is_booting(state: VmState) -> bool {
    matches!(
        state,
        VmState::Starting | VmState::Restarting | VmState::Unknown | VmState::Suspending
    )
}

pub(super) fn in_trash(vm: &VmName) -> DriverError {
    DriverError::IllegalState(format!("VM `{vm}` is in the trash: recover it first"))
}

/// Tells an operation what the spinner says.
pub(super) struct Reporter<'a> {
    progress: &'a Progress,
    spinner: Spinner,
    stage: Option<Stage>,
    /// What `Starting` means in this call.
    starting: Stage,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(progress: &'a Progress, starting: Stage) -> Self {
        Self {
            progress,
            spinner: Spinner::default(),
            stage: None,
            starting,
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for step in self.spinner.feed(bytes) {
            let stage = step.stage.map(|stage| match stage {
                Stage::Booting => self.starting,
                stage => stage,
            });
            if let Some(stage) = stage
                && self.stage != Some(stage)
            {
                self.stage = Some(stage);
                self.progress.stage(stage);
            }
            match step.percent {
                Some(percent) => self.progress.percent(percent),
                None => {
                    self.progress.message(&*step.text);
                    self.progress.log(step.text);
                }
            }
        }
    }
}
