//! Making a VM, and seeing it through when Multipass lets go of it half-way.
//!
//! A launch ends well, or leaves nothing behind, or leaves a VM that runs and only was not seen to become ready.
//! One that is cut off, with its client or with the daemon, is remembered until its VM is found, finished or
//! removed.

use batwa_api::{
    name::VmName,
    operation::Stage,
    vm::{VmSpec, VmState},
};
use tokio::time::{Instant, sleep};

use super::{
    Multipass,
    actions::{Reporter, Watched},
    call::{Call, Launch, UserDataFrom},
    goal::Goal,
    knowledge::Work,
    output::native_image,
    user_data,
};
use crate::driver::{DriverError, Progress};

impl Multipass {
    pub(super) async fn launch(
        &self,
        vm: &VmName,
        spec: &VmSpec,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.check_spec(vm, spec)?;
        let document = user_data::document(spec.cloud_init.as_deref(), &spec.ssh_keys)?;
        progress.stage(Stage::ResolvingImage);
        if self.knowledge.cut_off(vm).is_some() {
            // Asked again after it was cut off: the daemon may still be at it.
            if self.appeared(vm).await?.is_some() {
                return self.finish_late(vm, progress).await;
            }
        }
        if self.listed(vm).await?.is_some() {
            return Err(DriverError::NameTaken(vm.clone()));
        }
        self.check_primary(vm).await?;

        let call = Call::Launch(Launch {
            vm,
            image: native_image(&spec.image),
            cpus: spec.cpus,
            memory: spec.memory,
            disk: spec.disk,
            user_data: match document {
                Some(_) => UserDataFrom::Stdin,
                None => UserDataFrom::Nowhere,
            },
            networks: &spec.networks,
        });
        let admission = self.daemon.admit(&call).await?;
        let mark = self.knowledge.mark(vm, Work::Launch);
        self.knowledge.learn_spec(vm, spec);
        let mut report = Reporter::new(progress, Stage::Booting);
        let result = admission
            .run(&call, document.as_deref(), |bytes| report.take(bytes))
            .await;
        match result {
            Ok(_) => {
                mark.finish();
                self.confirm(vm, Goal::Running).await
            }
            // Refused before anything was made; the VM of that name is another's.
            Err(error @ (DriverError::NameTaken(_) | DriverError::Invalid { .. })) => {
                mark.finish();
                Err(error)
            }
            Err(
                error @ (DriverError::Timeout(_) | DriverError::Missing(_) | DriverError::Stuck(_)),
            ) => {
                progress.late();
                progress.log(error.to_string());
                progress.message("Multipass has let go of the launch: watching the VM");
                let result = self.outlive(vm, error, progress).await;
                match &result {
                    // While the daemon is away, whether there is a VM is not known.
                    Err(DriverError::Missing(_) | DriverError::Stuck(_)) => drop(mark),
                    _ => mark.finish(),
                }
                result
            }
            Err(error) => {
                let result = self.clean_up(vm, progress).await;
                match result {
                    Ok(()) => mark.finish(),
                    Err(trouble) => progress.log(format!(
                        "cannot remove what is left of VM `{vm}`: {trouble}"
                    )),
                }
                Err(error)
            }
        }
    }

    /// Sees a launch through that Multipass has given up, or whose daemon has gone away.
    async fn outlive(
        &self,
        vm: &VmName,
        error: DriverError,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        // The daemon, if it went away, gets its time to come back before the VM gets its own.
        let limits = self.settings.limits;
        let given_up = Instant::now();
        let watched = loop {
            match self.watch(vm, Goal::Running, limits.comeback).await {
                // A launch cut off early may still show its VM.
                Watched::Vanished if given_up.elapsed() < limits.appear => {
                    sleep(limits.poll).await;
                }
                watched => break watched,
            }
        };
        match watched {
            Watched::Reached => Ok(()),
            Watched::Blind(_) => Err(error),
            Watched::Vanished => Err(DriverError::Failed {
                detail: format!("VM `{vm}` was not made: {error}"),
                hint: None,
                log: Vec::new(),
            }),
            Watched::Not(VmState::Starting | VmState::Unknown | VmState::Restarting) => {
                self.finish_late(vm, progress).await
            }
            Watched::Not(state) => {
                self.clean_up(vm, progress).await?;
                Err(DriverError::failed(format!(
                    "VM `{vm}` was {state} when its launch was given up: {error}"
                )))
            }
        }
    }

    /// Watches a VM that is being made without a client of ours.
    async fn finish_late(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        progress.stage(Stage::Booting);
        let watched = self
            .watch(vm, Goal::Running, self.settings.limits.late)
            .await;
        match watched {
            Watched::Reached => {
                self.knowledge.settle_cut_off(vm);
                Ok(())
            }
            Watched::Blind(error) => Err(error),
            Watched::Vanished => {
                self.knowledge.settle_cut_off(vm);
                Err(DriverError::failed(format!(
                    "VM `{vm}` vanished while it was being made"
                )))
            }
            Watched::Not(state) => {
                self.knowledge.settle_cut_off(vm);
                Err(DriverError::Failed {
                    detail: format!(
                        "VM `{vm}` was made, but Multipass saw no end of its boot and calls it {state}: it stays for you to look at"
                    ),
                    hint: Some("stop it with force and start it, or delete it".to_owned()),
                    log: Vec::new(),
                })
            }
        }
    }

    /// Removes what a failed launch left.
    async fn clean_up(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        if self.listed(vm).await?.is_none() {
            return Ok(());
        }
        progress.stage(Stage::CleaningUp);
        self.remove(vm, progress).await
    }
}
