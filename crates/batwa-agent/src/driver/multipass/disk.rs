//! What touches the disk of a VM that is off: snapshots, clones and sizes.
//!
//! No state tells whether such work is done, so each call comes with its [`Proof`]: what can be seen of it then. That
//! decides where Multipass did not say how the call ended; where it said no, only that is believed.

use std::fmt;

use batwa_api::{
    name::{SnapshotName, VmName},
    operation::Stage,
    size::ByteSize,
    vm::{ResizeOptions, Snapshot, VmState},
};
use tokio::time::{Instant, sleep};

use super::{
    Multipass,
    actions::{Reporter, Watched, in_trash},
    call::{Call, NewSize, NewSnapshot},
    daemon::Admission,
    goal::Goal,
    knowledge::Work,
    output,
};
use crate::driver::{DriverError, Progress};

/// What shows that a call has done its work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Proof<'a> {
    /// The VM has the snapshot.
    Kept(&'a VmName, &'a SnapshotName),
    /// The VM has no such snapshot.
    Forgotten(&'a VmName, &'a SnapshotName),
    /// There is such a VM.
    Made(&'a VmName),
    /// The VM has this size.
    Sized(&'a VmName, NewSize),
    /// The VM sees something there.
    Mounted(&'a VmName, &'a str),
    /// The VM sees nothing there, or nothing anywhere.
    Unmounted(&'a VmName, Option<&'a str>),
}

impl fmt::Display for Proof<'_> {
    /// What is the matter where it is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(vm, snapshot) => write!(f, "VM `{vm}` has no snapshot `{snapshot}`"),
            Self::Forgotten(vm, snapshot) => {
                write!(f, "VM `{vm}` still has its snapshot `{snapshot}`")
            }
            Self::Made(vm) => write!(f, "there is no VM `{vm}`"),
            Self::Sized(vm, size) => write!(f, "VM `{vm}` has not got its new {}", size.setting()),
            Self::Mounted(vm, target) => write!(f, "VM `{vm}` has no mount at {target}"),
            Self::Unmounted(vm, Some(target)) => {
                write!(f, "VM `{vm}` still has its mount at {target}")
            }
            Self::Unmounted(vm, None) => write!(f, "VM `{vm}` still has mounts"),
        }
    }
}

impl Multipass {
    pub(super) async fn take_snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::TakingSnapshot);
        self.off(vm).await?;
        if self.has_snapshot(vm, name).await? {
            let (vm, snapshot) = (vm.clone(), name.clone());
            return Err(DriverError::SnapshotTaken { vm, snapshot });
        }
        let call = Call::Snapshot(NewSnapshot { vm, name, comment });
        let admission = self.daemon.admit(&call).await?;
        let proof = Proof::Kept(vm, name);
        self.change(admission, &call, proof, Stage::TakingSnapshot, progress)
            .await
    }

    pub(super) async fn go_back(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Restoring);
        self.off(vm).await?;
        if !self.has_snapshot(vm, name).await? {
            let (vm, snapshot) = (vm.clone(), name.clone());
            return Err(DriverError::NoSnapshot { vm, snapshot });
        }
        let call = Call::Restore(vm, name);
        let admission = self.daemon.admit(&call).await?;
        let mut result = run(admission, &call, Stage::Restoring, progress).await;
        if let Err(error @ (DriverError::Missing(_) | DriverError::Stuck(_))) = &result {
            tell_lost(error, progress);
            let comeback = self.settings.limits.comeback;
            if let Watched::Reached = self.watch(vm, Goal::Stopped, comeback).await {
                // Nothing shows whether it was done. Going back twice ends where going back once does.
                progress.message("going back once more, as the first time was cut off");
                let admission = self.daemon.admit(&call).await?;
                result = run(admission, &call, Stage::Restoring, progress).await;
            }
        }
        // The size goes back too.
        self.knowledge.doubt_sizes(vm);
        result
    }

    pub(super) async fn remove_snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::DeletingSnapshot);
        self.off(vm).await?;
        if !self.has_snapshot(vm, name).await? {
            return Ok(());
        }
        let call = Call::DeleteSnapshot(vm, name);
        let admission = self.daemon.admit(&call).await?;
        let proof = Proof::Forgotten(vm, name);
        self.change(admission, &call, proof, Stage::DeletingSnapshot, progress)
            .await
    }

    pub(super) async fn copy_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        if let Some(snapshot) = snapshot {
            return Err(DriverError::Unsupported(format!(
                "Multipass clones a VM as it is now, not as it was: restore snapshot `{snapshot}` first, then clone"
            )));
        }
        if let Err(error) = VmName::parse_new(target.as_str()) {
            return Err(DriverError::Invalid {
                field: "name",
                message: error.to_string(),
            });
        }
        progress.stage(Stage::Cloning);
        self.off(vm).await?;
        if self.knowledge.cut_off(target).is_some() && self.appeared(target).await?.is_some() {
            // Asked again after it was cut off: the daemon has finished it without us.
            self.knowledge.settle_cut_off(target);
            return Ok(());
        }
        if self.listed(target).await?.is_some() {
            return Err(DriverError::NameTaken(target.clone()));
        }
        self.check_primary(target).await?;
        let call = Call::Clone(vm, target);
        let admission = self.daemon.admit(&call).await?;
        let mark = self.knowledge.mark(target, Work::Clone);
        let proof = Proof::Made(target);
        let result = self
            .change(admission, &call, proof, Stage::Cloning, progress)
            .await;
        match &result {
            // While the daemon is away, whether there is a VM is not known.
            Err(DriverError::Missing(_) | DriverError::Stuck(_)) => drop(mark),
            _ => mark.finish(),
        }
        result
    }

    pub(super) async fn set_size(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Resizing);
        self.off(vm).await?;
        let now = self.ask_sizes(vm).await?;
        if let (Some(disk), Some(has)) = (size.disk, now.disk)
            && is_less(disk, has)
        {
            return Err(DriverError::Invalid {
                field: "disk",
                message: format!("VM `{vm}` has a disk of {has}: a disk only grows"),
            });
        }
        // The disk first: it is what may be refused, and then nothing is half done.
        let steps = [
            size.disk
                .filter(|_| size.disk != now.disk)
                .map(NewSize::Disk),
            size.memory
                .filter(|_| size.memory != now.memory)
                .map(NewSize::Memory),
            size.cpus
                .filter(|_| size.cpus != now.cpus)
                .map(NewSize::Cpus),
        ];
        for step in steps.into_iter().flatten() {
            let call = Call::Set(vm, step);
            let admission = self.daemon.admit(&call).await?;
            let proof = Proof::Sized(vm, step);
            self.change(admission, &call, proof, Stage::Resizing, progress)
                .await?;
            self.knowledge.learn_size(vm, step);
        }
        Ok(())
    }

    /// The VM's snapshots as they are now, which are kept in mind.
    pub(super) async fn ask_snapshots(&self, vm: &VmName) -> Result<Vec<Snapshot>, DriverError> {
        let stdout = self.daemon.ask(&Call::Snapshots(vm)).await?;
        let snapshots = output::snapshots(&stdout, vm)
            .map_err(|error| DriverError::failed(error.to_string()))?;
        self.knowledge.learn_snapshots(vm, snapshots.clone());
        Ok(snapshots)
    }

    async fn has_snapshot(&self, vm: &VmName, name: &SnapshotName) -> Result<bool, DriverError> {
        let snapshots = self.ask_snapshots(vm).await?;
        Ok(snapshots.iter().any(|kept| kept.name == *name))
    }

    /// Refuses unless the VM is off.
    async fn off(&self, vm: &VmName) -> Result<(), DriverError> {
        match self.existing(vm).await?.state {
            VmState::Stopped => Ok(()),
            VmState::Deleted => Err(in_trash(vm)),
            state => Err(DriverError::IllegalState(format!(
                "VM `{vm}` is {state}: stop it first"
            ))),
        }
    }

    /// Makes a call and looks what came of it.
    pub(super) async fn change(
        &self,
        admission: Admission<'_>,
        call: &Call<'_>,
        proof: Proof<'_>,
        stage: Stage,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let error = match run(admission, call, stage, progress).await {
            Ok(()) => {
                return match self.is_seen(proof).await {
                    Ok(false) => Err(DriverError::failed(format!(
                        "Multipass reported success, but {proof}"
                    ))),
                    // Who cannot look has to believe.
                    Ok(true) | Err(_) => Ok(()),
                };
            }
            Err(error @ (DriverError::Missing(_) | DriverError::Stuck(_))) => error,
            Err(error) => return Err(error),
        };
        tell_lost(&error, progress);
        let limits = self.settings.limits;
        let began = Instant::now();
        loop {
            match self.is_seen(proof).await {
                Ok(true) => return Ok(()),
                // A daemon that answers has ended what it was at, but it may have been asked too late to hear of it.
                Ok(false) if began.elapsed() >= limits.settle => {
                    return Err(DriverError::Failed {
                        detail: format!("Multipass went away in the middle of `{call}`: {proof}"),
                        hint: Some("it answers again: ask for it once more".to_owned()),
                        log: vec![error.to_string()],
                    });
                }
                Err(_) if began.elapsed() >= limits.comeback => return Err(error),
                Ok(false) | Err(_) => sleep(limits.poll).await,
            }
        }
    }

    /// Whether a call's work is done, by what Multipass says now.
    async fn is_seen(&self, proof: Proof<'_>) -> Result<bool, DriverError> {
        match proof {
            Proof::Kept(vm, snapshot) => self.has_snapshot(vm, snapshot).await,
            Proof::Forgotten(vm, snapshot) => Ok(!self.has_snapshot(vm, snapshot).await?),
            Proof::Made(vm) => Ok(self.listed(vm).await?.is_some()),
            Proof::Mounted(vm, target) => {
                let mounts = self.ask_mounts(vm).await?;
                Ok(mounts.iter().any(|mount| mount.target == target))
            }
            Proof::Unmounted(vm, target) => {
                let mounts = self.ask_mounts(vm).await?;
                let is_meant = |there: &str| target.is_none_or(|target| there == target);
                Ok(!mounts.iter().any(|mount| is_meant(&mount.target)))
            }
            Proof::Sized(vm, size) => {
                let stdout = self.daemon.ask(&Call::Get(vm, size.setting())).await?;
                Ok(output::setting(&stdout).is_some_and(|shown| is_shown_as(size, &shown)))
            }
        }
    }
}

/// Makes a call that changes something, and tells how far it is.
async fn run(
    admission: Admission<'_>,
    call: &Call<'_>,
    stage: Stage,
    progress: &Progress,
) -> Result<(), DriverError> {
    let mut report = Reporter::new(progress, stage);
    let run = admission.run(call, None, |bytes| report.take(bytes));
    run.await.map(drop)
}

fn tell_lost(error: &DriverError, progress: &Progress) {
    progress.late();
    progress.log(error.to_string());
    progress.message("Multipass went away in the middle: looking what became of it");
}

/// Whether a disk is to be smaller than one of which only a rounded size may be known.
fn is_less(wanted: ByteSize, has: ByteSize) -> bool {
    wanted < has && !output::is_near(wanted, has)
}

/// Whether what `get` shows, rounded for people, may stand for this size.
fn is_shown_as(size: NewSize, shown: &str) -> bool {
    match size {
        NewSize::Cpus(cpus) => shown.parse() == Ok(cpus),
        NewSize::Memory(bytes) | NewSize::Disk(bytes) => {
            output::size(shown, Some(bytes)) == Some(bytes)
        }
    }
}
