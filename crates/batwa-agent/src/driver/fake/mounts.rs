//! Mounts of fake VMs: told, and nothing else. A fake VM's programs see the whole machine anyway.
//!
//! As with QEMU a running VM comes to see a folder at its next start, so that pages and tests meet that too.

use batwa_api::{
    name::VmName,
    operation::{OperationKind, Stage},
    vm::{MAX_MOUNTS, Mount, MountOptions, MountState, VmState},
};

use super::{FakeDriver, FakeVm, Step};
use crate::driver::{DriverError, Progress};

impl FakeVm {
    /// What a start does to its mounts.
    pub(super) fn plug_mounts(&mut self) {
        for mount in &mut self.mounts {
            mount.state = MountState::Mounted;
            mount.message = None;
        }
    }
}

impl FakeDriver {
    pub(super) async fn take_in_folder(
        &self,
        vm: &VmName,
        options: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let steps = [Step(Stage::Mounting, None)];
        self.run(OperationKind::Mount, vm, &steps, progress).await?;
        self.change(|vms| {
            let fake = vms
                .get_mut(vm)
                .ok_or_else(|| DriverError::NotFound(vm.clone()))?;
            if let Some(there) = fake
                .mounts
                .iter()
                .find(|mount| mount.target == options.target)
            {
                return if there.source == options.source {
                    Ok(())
                } else {
                    Err(DriverError::Invalid {
                        field: "target",
                        message: format!(
                            "{} is mounted at {} already: `umount` that first",
                            there.source, there.target
                        ),
                    })
                };
            }
            if fake.mounts.len() >= MAX_MOUNTS {
                return Err(DriverError::too_many_mounts(vm));
            }
            let runs = fake.state == VmState::Running;
            fake.mounts.push(Mount {
                source: options.source.clone(),
                target: options.target.clone(),
                read_only: options.read_only,
                kind: options.kind,
                state: if runs {
                    MountState::AtNextStart
                } else {
                    MountState::Mounted
                },
                message: None,
            });
            Ok(())
        })?
    }

    pub(super) async fn take_out_folder(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let steps = [Step(Stage::Unmounting, None)];
        self.run(OperationKind::Umount, vm, &steps, progress)
            .await?;
        self.change(|vms| {
            if let Some(fake) = vms.get_mut(vm) {
                fake.mounts
                    .retain(|mount| target.is_some_and(|target| mount.target != target));
            }
        })
    }
}
