//! Folders of this machine that Multipass' VMs see.
//!
//! The daemon, which is root, looks the folder up anew by the path that it is given, after us. We give it the path without
//! links of the folder that the policy allows, so what remains is somebody who changes the folders above it in just that
//! moment: roots are to be folders in which only who is trusted writes.

use batwa_api::{
    name::VmName,
    operation::Stage,
    vm::{MAX_MOUNTS, Mount, MountKind, MountOptions, VmState},
};

use super::{
    Multipass,
    actions::in_trash,
    call::{Call, NewMount},
    disk::Proof,
};
use crate::driver::{DriverError, Progress};

impl Multipass {
    pub(super) async fn mount_folder(
        &self,
        vm: &VmName,
        options: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Mounting);
        if options.read_only {
            return Err(DriverError::Invalid {
                field: "read_only",
                message: "Multipass lets a VM write in what it sees: leave `read_only` out"
                    .to_owned(),
            });
        }
        let folder = self.settings.policy.folder(&options.source, false)?;
        let source = folder
            .path()
            .ok()
            .and_then(|path| path.into_os_string().into_string().ok());
        let Some(source) = source else {
            return Err(DriverError::Invalid {
                field: "source",
                message: format!("the path of {} cannot be told to Multipass", options.source),
            });
        };
        match self.existing(vm).await?.state {
            VmState::Stopped => {}
            VmState::Running if options.kind != Some(MountKind::Native) => {}
            VmState::Running => {
                return Err(DriverError::IllegalState(format!(
                    "VM `{vm}` is running: stop it first for a native mount, or mount it the classic way"
                )));
            }
            VmState::Deleted => return Err(in_trash(vm)),
            state => {
                return Err(DriverError::IllegalState(format!(
                    "VM `{vm}` is {state}: a mount needs one that runs or is off"
                )));
            }
        }
        let mounts = self.ask_mounts(vm).await?;
        if let Some(there) = mounts.iter().find(|there| there.target == options.target) {
            return if there.source == source {
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
        if mounts.len() >= MAX_MOUNTS {
            return Err(DriverError::too_many_mounts(vm));
        }
        let call = Call::Mount(NewMount {
            vm,
            source: &source,
            target: &options.target,
            kind: options.kind,
        });
        let admission = self.daemon.admit(&call).await?;
        let proof = Proof::Mounted(vm, &options.target);
        self.change(admission, &call, proof, Stage::Mounting, progress)
            .await
    }

    pub(super) async fn take_folder_out(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        progress.stage(Stage::Unmounting);
        let mounts = self.ask_mounts(vm).await?;
        if !mounts
            .iter()
            .any(|mount| target.is_none_or(|target| mount.target == target))
        {
            return Ok(());
        }
        let call = Call::Umount(vm, target);
        let admission = self.daemon.admit(&call).await?;
        let proof = Proof::Unmounted(vm, target);
        self.change(admission, &call, proof, Stage::Unmounting, progress)
            .await
    }

    /// The VM's mounts as they are now, which are kept in mind.
    pub(super) async fn ask_mounts(&self, vm: &VmName) -> Result<Vec<Mount>, DriverError> {
        self.existing(vm).await?;
        self.ask_info(vm).await?;
        Ok(self.knowledge.mounts(vm))
    }
}
