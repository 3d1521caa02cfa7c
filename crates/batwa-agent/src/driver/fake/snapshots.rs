//! Snapshots, clones and sizes of fake VMs. What a snapshot keeps is the VM's home folder, as that is all that a fake
//! VM has for a disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use batwa_api::{
    Timestamp,
    name::{SnapshotName, VmName},
    operation::{OperationKind, Stage},
    size::ByteSize,
    vm::{ResizeOptions, Snapshot, VmState},
};
use serde::{Deserialize, Serialize};

use super::{FakeDriver, FakeVm, Step};
use crate::driver::{DriverError, Progress, command::Command};

/// One snapshot of a fake VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FakeSnapshot {
    name: SnapshotName,
    comment: String,
    parent: Option<SnapshotName>,
    created_at: Timestamp,
    cpus: u32,
    memory: ByteSize,
    disk: ByteSize,
}

impl FakeVm {
    /// Its snapshots as the driver tells of them.
    pub(super) fn told_snapshots(&self) -> Vec<Snapshot> {
        self.snapshots
            .iter()
            .map(|kept| Snapshot {
                name: kept.name.clone(),
                comment: kept.comment.clone(),
                parent: kept.parent.clone(),
                created_at: Some(kept.created_at),
                disk: Some(kept.disk),
            })
            .collect()
    }

    fn find(&self, name: &SnapshotName) -> Option<&FakeSnapshot> {
        self.snapshots.iter().find(|kept| kept.name == *name)
    }
}

impl FakeDriver {
    pub(super) async fn take_snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let fake = self.off(vm)?;
        if fake.find(name).is_some() {
            return Err(DriverError::SnapshotTaken {
                vm: vm.clone(),
                snapshot: name.clone(),
            });
        }
        let steps = [Step(Stage::TakingSnapshot, None)];
        self.run(OperationKind::Snapshot, vm, &steps, progress)
            .await?;
        copy(&self.home(vm), &self.kept(vm, name)).await?;
        let kept = FakeSnapshot {
            name: name.clone(),
            comment: comment.to_owned(),
            parent: fake.came_from,
            created_at: Timestamp::now(),
            cpus: fake.cpus,
            memory: fake.memory,
            disk: fake.disk,
        };
        self.change_vm(vm, |fake| {
            fake.came_from = Some(name.clone());
            fake.snapshots.push(kept);
        })
    }

    pub(super) async fn go_back(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let fake = self.off(vm)?;
        let kept = fake
            .find(name)
            .cloned()
            .ok_or_else(|| no_snapshot(vm, name))?;
        let steps = [Step(Stage::Restoring, None)];
        self.run(OperationKind::Restore, vm, &steps, progress)
            .await?;
        copy(&self.kept(vm, name), &self.home(vm)).await?;
        self.change_vm(vm, |fake| {
            fake.cpus = kept.cpus;
            fake.memory = kept.memory;
            fake.disk = kept.disk;
            fake.came_from = Some(kept.name);
        })
    }

    pub(super) async fn remove_snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let fake = self.off(vm)?;
        let Some(kept) = fake.find(name).cloned() else {
            return Ok(());
        };
        let steps = [Step(Stage::DeletingSnapshot, None)];
        self.run(OperationKind::DeleteSnapshot, vm, &steps, progress)
            .await?;
        self.change_vm(vm, |fake| {
            fake.snapshots.retain(|other| other.name != *name);
            let orphans = fake.snapshots.iter_mut().map(|other| &mut other.parent);
            for parent in orphans.chain([&mut fake.came_from]) {
                if parent.as_ref() == Some(name) {
                    parent.clone_from(&kept.parent);
                }
            }
        })?;
        remove(&self.kept(vm, name))
    }

    pub(super) async fn copy_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let source = self.off(vm)?;
        let (from, size) = match snapshot {
            Some(name) => {
                let kept = source.find(name).ok_or_else(|| no_snapshot(vm, name))?;
                (self.kept(vm, name), (kept.cpus, kept.memory, kept.disk))
            }
            None => (self.home(vm), (source.cpus, source.memory, source.disk)),
        };
        let host = u16::try_from(self.vms().len() % 60_000).unwrap_or(0);
        self.change(|vms| match vms.get(target) {
            Some(there) if there.state != VmState::Creating => {
                Err(DriverError::NameTaken(target.clone()))
            }
            _ => {
                let (cpus, memory, disk) = size;
                let made = FakeVm {
                    state: VmState::Creating,
                    host,
                    cpus,
                    memory,
                    disk,
                    created_at: Timestamp::now(),
                    started_at: None,
                    before_trash: None,
                    snapshots: Vec::new(),
                    came_from: None,
                    mounts: Vec::new(),
                    networks: super::networks::of_clone(&source.networks),
                    crashed: false,
                    ..source.clone()
                };
                vms.insert(target.clone(), made);
                Ok(())
            }
        })??;
        let copied = async {
            let steps = [Step(Stage::Cloning, None)];
            self.run(OperationKind::Clone, vm, &steps, progress).await?;
            copy(&from, &self.home(target)).await
        };
        if let Err(error) = copied.await {
            self.change(|vms| vms.remove(target))?;
            return Err(error);
        }
        self.set_state(target, VmState::Stopped)
    }

    pub(super) async fn set_size(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let fake = self.off(vm)?;
        if size.disk.is_some_and(|disk| disk < fake.disk) {
            return Err(DriverError::Invalid {
                field: "disk",
                message: format!("VM `{vm}` has a disk of {}: a disk only grows", fake.disk),
            });
        }
        let steps = [Step(Stage::Resizing, None)];
        self.run(OperationKind::Resize, vm, &steps, progress)
            .await?;
        self.change_vm(vm, |fake| {
            fake.cpus = size.cpus.unwrap_or(fake.cpus);
            fake.memory = size.memory.unwrap_or(fake.memory);
            fake.disk = size.disk.unwrap_or(fake.disk);
        })
    }

    /// Removes all that was kept of a VM's past.
    pub(super) fn forget_snapshots(&self, vm: &VmName) -> Result<(), DriverError> {
        remove(&self.folder.join("snapshots").join(vm.as_str()))
    }

    /// The VM, if it is off.
    fn off(&self, vm: &VmName) -> Result<FakeVm, DriverError> {
        let fake = self
            .vms()
            .get(vm)
            .cloned()
            .ok_or_else(|| DriverError::NotFound(vm.clone()))?;
        if fake.state == VmState::Stopped {
            Ok(fake)
        } else {
            Err(DriverError::IllegalState(format!(
                "VM `{vm}` is {}: stop it first",
                fake.state
            )))
        }
    }

    fn change_vm(&self, vm: &VmName, change: impl FnOnce(&mut FakeVm)) -> Result<(), DriverError> {
        self.change(|vms| {
            vms.get_mut(vm)
                .map(change)
                .ok_or_else(|| DriverError::NotFound(vm.clone()))
        })?
    }

    fn kept(&self, vm: &VmName, snapshot: &SnapshotName) -> PathBuf {
        let of_vm = self.folder.join("snapshots").join(vm.as_str());
        of_vm.join(snapshot.as_str())
    }
}

fn no_snapshot(vm: &VmName, snapshot: &SnapshotName) -> DriverError {
    DriverError::NoSnapshot {
        vm: vm.clone(),
        snapshot: snapshot.clone(),
    }
}

/// Makes `to` what `from` is; a folder that does not exist is an empty one.
async fn copy(from: &Path, to: &Path) -> Result<(), DriverError> {
    let cannot = |error: io::Error| {
        DriverError::failed(format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        ))
    };
    remove(to)?;
    fs::create_dir_all(to).map_err(cannot)?;
    if from.exists() {
        Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(to)
            .run()
            .await
            .map_err(|error| DriverError::failed(error.to_string()))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), DriverError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DriverError::failed(format!(
            "cannot remove {}: {error}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}
