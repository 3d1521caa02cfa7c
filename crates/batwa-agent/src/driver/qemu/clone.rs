//! Another VM of one that is off: the same disk, another identity.

use std::sync::Arc;

use batwa_api::{
    name::{SnapshotName, VmName},
    operation::Stage,
    size::ByteSize,
};

use super::{
    create::Making,
    disk::Copy,
    images::Manifest,
    offline::Offline,
    record::{Phase, Record, file},
    seed::Disk,
    space,
    user_data::UserData,
    vms::{Vm, Vms},
};
use crate::driver::{DriverError, Progress};

impl Vms {
    /// Makes `target` of a VM that is off, or of one of its snapshots, and leaves it off.
    pub(super) async fn clone_vm(
        &self,
        name: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let source = self.offline(name).await?;
        source.settle().await?;
        let record = source.record();
        let kept = snapshot
            .map(|snapshot| {
                let kept = record.history.find(snapshot);
                kept.ok_or_else(|| DriverError::NoSnapshot {
                    vm: name.clone(),
                    snapshot: snapshot.clone(),
                })
            })
            .transpose()?;
        let size = kept.map_or(record.size(), |kept| kept.size);
        let mut needed = source.vm.dir.layer().taken();
        if size.disk > record.disk {
            // It is copied whole on the way.
            needed = ByteSize::bytes(needed.as_u64().saturating_mul(2));
        }
        space::require(self.root(), needed, &format!("clone VM `{name}`"))?;
        self.forget_half_made(target).await?;
        let copy = self.enter(record.cloned(target.clone(), size))?;
        let _making = Making::begin(&copy);
        self.changed();
        progress.stage(Stage::Cloning);
        let tag = kept.map(|kept| (kept.tag(), kept.size.disk));
        let made = tokio::select! {
            made = self.fill(&source, &copy, tag, progress) => made,
            () = copy.gone.cancelled() => Err(DriverError::failed(format!(
                "cannot clone VM `{name}`: VM `{target}` was purged meanwhile"
            ))),
        };
        if made.is_err() && !copy.gone.is_cancelled() {
            progress.stage(Stage::CleaningUp);
            self.purge(target, &Progress::ignored()).await?;
        }
        self.changed();
        made
    }

    /// Disk, keys and seed of a clone.
    async fn fill(
        &self,
        source: &Offline,
        copy: &Arc<Vm>,
        snapshot: Option<(&str, ByteSize)>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let record = copy.record();
        let base = self.images().dir_of(&record.manifest.id);
        let base = base.join(Manifest::DISK);
        let what = Copy {
            snapshot,
            base: record.manifest.disk.map(|format| (base.as_path(), format)),
        };
        let disk = copy.dir.file(file::DISK);
        let layer = source.vm.dir.layer();
        layer
            .copy(&disk, what, |percent| progress.percent(percent))
            .await?;
        // What the user gave has done its work on this disk already.
        // Who may sign in to the first one stands on the disk, and may sign in to the copy.
        copy.give_identity(&UserData::Empty, &[], Disk::Copied)?;
        copy.update(|record: &mut Record| record.phase = Phase::Made)
    }
}
