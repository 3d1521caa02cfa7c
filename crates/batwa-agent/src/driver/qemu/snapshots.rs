//! Snapshots and sizes of VMs that are off. Each goes to its end once begun, which takes a moment: cut off by the
//! agent's death, it is settled by whoever has the next turn at the disk.

use batwa_api::{
    name::{SnapshotName, VmName},
    operation::Stage,
    size::ByteSize,
    vm::ResizeOptions,
};

use super::{
    disk,
    history::{Kept, Size, Unsettled},
    record::Record,
    space,
    vms::Vms,
};
use crate::driver::{DriverError, Progress};

impl Vms {
    /// Keeps the disk as it is now.
    pub(super) async fn snapshot(
        &self,
        name: &VmName,
        snapshot: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let offline = self.offline(name).await?;
        let what = format!("take a snapshot of VM `{name}`");
        space::require(offline.vm.dir.path(), ByteSize::bytes(0), &what)?;
        progress.stage(Stage::TakingSnapshot);
        let (snapshot, comment) = (snapshot.clone(), comment.to_owned());
        self.to_the_end(async move {
            offline.settle().await?;
            let record = offline.record();
            if record.history.find(&snapshot).is_some() {
                return Err(DriverError::SnapshotTaken {
                    vm: record.name,
                    snapshot,
                });
            }
            let kept = Kept::new(snapshot, &comment, record.size());
            let (layer, tag) = (offline.vm.dir.layer(), kept.tag().to_owned());
            let enter = |record: &mut Record| record.history.add(kept);
            offline.change(layer.keep(&tag), enter).await
        })
        .await?;
        self.changed();
        Ok(())
    }

    /// Goes back to a snapshot.
    pub(super) async fn restore(
        &self,
        name: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let offline = self.offline(name).await?;
        progress.stage(Stage::Restoring);
        let snapshot = snapshot.clone();
        self.to_the_end(async move {
            // One that goes back elsewhere need not be finished first.
            if offline.record().unsettled == Some(Unsettled::Compare) {
                offline.settle().await?;
            }
            offline.go_back(&snapshot).await
        })
        .await?;
        self.changed();
        Ok(())
    }

    /// Removes a snapshot.
    pub(super) async fn delete_snapshot(
        &self,
        name: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let offline = self.offline(name).await?;
        progress.stage(Stage::DeletingSnapshot);
        let snapshot = snapshot.clone();
        self.to_the_end(async move {
            offline.settle().await?;
            let record = offline.record();
            let Some(kept) = record.history.find(&snapshot) else {
                return Ok(());
            };
            let layer = offline.vm.dir.layer();
            let remove = |record: &mut Record| record.history.remove(&snapshot);
            offline.change(layer.forget(kept.tag()), remove).await
        })
        .await?;
        self.changed();
        Ok(())
    }

    /// Changes a VM's size.
    pub(super) async fn resize(
        &self,
        name: &VmName,
        options: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let offline = self.offline(name).await?;
        progress.stage(Stage::Resizing);
        let options = *options;
        self.to_the_end(async move {
            offline.settle().await?;
            let record = offline.record();
            let next = resized(record.size(), &options)?;
            if next.disk == record.disk {
                return offline.vm.update(|record| record.set_size(next));
            }
            let what = format!("grow the disk of VM `{}`", record.name);
            space::require(offline.vm.dir.path(), ByteSize::bytes(0), &what)?;
            let layer = offline.vm.dir.layer();
            let enter = |record: &mut Record| record.set_size(next);
            offline.change(layer.grow(next.disk), enter).await
        })
        .await?;
        self.changed();
        Ok(())
    }
}

/// The size that `now` becomes.
fn resized(now: Size, options: &ResizeOptions) -> Result<Size, DriverError> {
    let disk = options.disk.unwrap_or(now.disk);
    if disk::in_file(disk) < disk::in_file(now.disk) {
        return Err(DriverError::Invalid {
            field: "disk",
            message: format!(
                "{disk} is less than the {} it has: a disk only grows",
                now.disk
            ),
        });
    }
    Ok(Size {
        cpus: options.cpus.unwrap_or(now.cpus),
        memory: options.memory.unwrap_or(now.memory),
        disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_a_disk_only_grows() {
        let now = Size {
            cpus: 1,
            memory: ByteSize::mib(256),
            disk: ByteSize::gib(2),
        };
        let nothing = ResizeOptions::default();
        assert_eq!(resized(now, &nothing).unwrap(), now);
        let grown = ResizeOptions {
            cpus: Some(2),
            disk: Some(ByteSize::gib(3)),
            ..nothing
        };
        let expected = Size {
            cpus: 2,
            disk: ByteSize::gib(3),
            ..now
        };
        assert_eq!(resized(now, &grown).unwrap(), expected);
        let shrunk = ResizeOptions {
            disk: Some(ByteSize::gib(1)),
            ..nothing
        };
        let refused = resized(now, &shrunk).unwrap_err();
        assert!(matches!(
            refused,
            DriverError::Invalid { field: "disk", .. }
        ));
    }
}
