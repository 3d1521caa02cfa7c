//! A VM that is off, held so: whoever touches its disk has the turn, and nobody starts it meanwhile.
//!
//! What changes the disk file is written down before and taken back after, so that the next who has the turn finds
//! what was cut off, and settles it first.

use std::sync::Arc;

use batwa_api::name::{SnapshotName, VmName};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::{
    history::Unsettled,
    record::{Phase, Record},
    vms::{Vm, Vms},
};
use crate::driver::DriverError;

/// The turn at the disk of a VM that is off.
pub(super) struct Offline {
    pub(super) vm: Arc<Vm>,
    _turn: OwnedMutexGuard<()>,
}

impl Vms {
    /// Takes the turn at a VM's disk, and settles what was cut off there.
    ///
    /// # Errors
    /// [`DriverError::NotFound`]; [`DriverError::IllegalState`] when it is not off.
    pub(super) async fn offline(&self, name: &VmName) -> Result<Offline, DriverError> {
        let vm = self.get(name)?;
        let offline = Offline::of(&vm).await;
        offline.check()?;
        Ok(offline)
    }
}

impl Offline {
    /// Takes the turn, whatever the VM does.
    pub(super) async fn of(vm: &Arc<Vm>) -> Self {
        Self {
            vm: Arc::clone(vm),
            _turn: Arc::clone(&vm.disk_turn).lock_owned().await,
        }
    }

    /// Takes the turn if nobody has it.
    pub(super) fn at_once(vm: &Arc<Vm>) -> Option<Self> {
        let turn = Arc::clone(&vm.disk_turn).try_lock_owned().ok()?;
        Some(Self {
            vm: Arc::clone(vm),
            _turn: turn,
        })
    }

    pub(super) fn record(&self) -> Record {
        self.vm.record()
    }

    fn check(&self) -> Result<(), DriverError> {
        let record = self.record();
        let state = match record.phase {
            Phase::Making => "half made: purge it",
            Phase::Trashed => "in the trash: recover it first",
            Phase::Suspended => "suspended: start and stop it first",
            Phase::Made if self.vm.process().is_some() => "running: stop it first",
            Phase::Made => return Ok(()),
        };
        Err(DriverError::IllegalState(format!(
            "VM `{}` is {state}",
            record.name
        )))
    }

    /// Does `work` with the disk file and enters it by `done`. A failure leaves the record as it was.
    pub(super) async fn change(
        &self,
        work: impl Future<Output = Result<(), DriverError>>,
        done: impl FnOnce(&mut Record),
    ) -> Result<(), DriverError> {
        self.begin(Unsettled::Compare)?;
        let worked = async {
            work.await?;
            self.done(done)
        };
        let worked = worked.await;
        if worked.is_err() {
            // Should this fail too, whoever has the next turn does it.
            let _ = self.settle().await;
        }
        worked
    }

    /// Makes the disk what a snapshot was. What is cut off has to be gone through with: see [`Self::settle`].
    pub(super) async fn go_back(&self, name: &SnapshotName) -> Result<(), DriverError> {
        let record = self.record();
        let kept = record
            .history
            .find(name)
            .ok_or_else(|| DriverError::NoSnapshot {
                vm: record.name.clone(),
                snapshot: name.clone(),
            })?;
        let again = record.unsettled.is_some();
        self.begin(Unsettled::GoingBack(name.clone()))?;
        let layer = self.vm.dir.layer();
        layer.go_back(kept.tag()).await?;
        if again {
            layer.repair().await?;
        }
        self.done(|record| {
            record.set_size(kept.size);
            record.history.went_back(name);
        })
    }

    /// Finishes, or takes back, what a call that was cut off had begun with the disk file.
    ///
    /// # Errors
    /// Where that fails too, as it does while the file system is full. It is to be tried again then.
    pub(super) async fn settle(&self) -> Result<(), DriverError> {
        let record = self.record();
        match &record.unsettled {
            None => Ok(()),
            Some(Unsettled::GoingBack(name)) => self.go_back(name).await,
            Some(Unsettled::Compare) => self.compare(&record).await,
        }
    }

    async fn compare(&self, record: &Record) -> Result<(), DriverError> {
        let layer = self.vm.dir.layer();
        let content = layer.content().await?;
        let differences = record.history.differences(&content.tags);
        for tag in &differences.stray {
            layer.forget(tag).await?;
        }
        layer.repair().await?;
        for name in &differences.lost {
            warn!(vm.name = %record.name, "VM `{}`: snapshot `{name}` is gone from its disk file", record.name);
        }
        self.done(|record| {
            for name in &differences.lost {
                record.history.remove(name);
            }
            record.adopt_disk(content.size);
        })
    }

    fn begin(&self, unsettled: Unsettled) -> Result<(), DriverError> {
        self.vm.update(|record| record.unsettled = Some(unsettled))
    }

    fn done(&self, change: impl FnOnce(&mut Record)) -> Result<(), DriverError> {
        self.vm.update(|record| {
            change(record);
            record.unsettled = None;
        })
    }
}
