//! Making VMs, and removing them whatever came of the making.

use std::sync::atomic::Ordering;

use batwa_api::{image::Image, name::VmName, operation::Stage, size::ByteSize, vm::VmSpec};

use super::{
    disk, files,
    images::Manifest,
    machine::{Accelerator, From},
    networks::KeptCard,
    process::Process,
    record::{Phase, Record, file},
    seed::Disk,
    space,
    user_data::UserData,
    vms::{Vm, Vms},
};
use crate::driver::{DriverError, Progress};

impl Vms {
    /// Refuses a spec that cannot work.
    pub(super) async fn check(
        &self,
        name: &VmName,
        spec: &VmSpec,
    ) -> Result<UserData, DriverError> {
        if self
            .find(name)
            .is_some_and(|vm| vm.record().phase != Phase::Making)
        {
            return Err(DriverError::NameTaken(name.clone()));
        }
        let user_data = UserData::parse(spec.cloud_init.as_deref())?;
        let image = self.images().describe(&spec.image).await?;
        check_image(spec, &user_data, &image)?;
        let to_come = image.download_size.filter(|_| !image.cached);
        let to_come = to_come.unwrap_or(ByteSize::bytes(0));
        space::require(self.root(), to_come, &format!("create VM `{name}`"))?;
        self.check_cards(&spec.networks).await?;
        Ok(user_data)
    }

    /// Makes a VM, starts it and waits until it is ready.
    pub(super) async fn create(
        &self,
        name: &VmName,
        spec: &VmSpec,
        accelerator: Accelerator,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let user_data = self.check(name, spec).await?;
        self.forget_half_made(name).await?;
        let (manifest, held) = self.images().ensure(&spec.image, progress).await?;
        check_disk(spec, &manifest)?;
        progress.stage(Stage::Preparing);
        let mut record = Record::new(
            name.clone(),
            spec.image.clone(),
            manifest,
            spec.cpus,
            spec.memory,
            spec.disk,
        );
        record.networks = spec.networks.iter().map(KeptCard::new).collect();
        let vm = self.enter(record)?;
        // From here on the VM itself keeps its image.
        drop(held);
        self.images().trim(&|| self.images_in_use());
        let _making = Making::begin(&vm);
        self.changed();
        let made = async {
            self.prepare(&vm, &user_data, &spec.ssh_keys).await?;
            vm.update(|record| record.phase = Phase::Made)?;
            self.power_on(&vm, From::Boot, accelerator, progress).await
        };
        if let Err(error) = made.await {
            progress.stage(Stage::CleaningUp);
            self.purge(name, &Progress::ignored()).await?;
            return Err(error);
        }
        let waited = self.wait_ready(&vm, accelerator, progress).await;
        if waited.is_err() && vm.process().is_none() {
            progress.stage(Stage::CleaningUp);
            self.purge(name, &Progress::ignored()).await?;
        }
        waited
    }

    /// Keys, seed and disk.
    async fn prepare(
        &self,
        vm: &Vm,
        user_data: &UserData,
        authorized: &[String],
    ) -> Result<(), DriverError> {
        vm.give_identity(user_data, authorized, Disk::New)?;
        let record = vm.record();
        let image = self.images().dir_of(&record.manifest.id);
        let base = image.join(Manifest::DISK);
        let base = record.manifest.disk.map(|format| (base.as_path(), format));
        disk::make(&vm.dir.file(file::DISK), record.disk, base).await
    }

    /// Removes what a call that was cut off left under a name that is to be used.
    ///
    /// # Errors
    /// [`DriverError::NameTaken`] when there is more than that.
    pub(super) async fn forget_half_made(&self, name: &VmName) -> Result<(), DriverError> {
        let Some(vm) = self.find(name) else {
            return Ok(());
        };
        if vm.record().phase != Phase::Making || vm.being_made.load(Ordering::Relaxed) {
            return Err(DriverError::NameTaken(name.clone()));
        }
        self.purge(name, &Progress::ignored()).await
    }

    /// Removes a VM for good, whatever its state.
    pub(super) async fn purge(
        &self,
        name: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let Some(vm) = self.find(name) else {
            return Ok(());
        };
        progress.stage(Stage::Deleting);
        vm.end_expected.store(true, Ordering::Relaxed);
        let instance = vm.record().instance;
        // The pid file may not be written yet, or be lost.
        while let Some(process) = vm.process().or_else(|| Process::search(instance)) {
            process.kill();
            process.ended().await;
        }
        // The name is free again at once; what a crash leaves of the folder is removed at the next start.
        let doomed = self.root().join(format!(".{instance}"));
        match std::fs::rename(vm.dir.path(), &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(files::io_error("remove", vm.dir.path(), &error)),
        }
        self.forget(name);
        files::remove(&doomed)
    }
}

/// Says while it lives that a VM is being made.
pub(super) struct Making<'a>(&'a Vm);

impl<'a> Making<'a> {
    pub(super) fn begin(vm: &'a Vm) -> Self {
        vm.being_made.store(true, Ordering::Relaxed);
        Self(vm)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.being_made.store(false, Ordering::Relaxed);
    }
}

fn check_image(spec: &VmSpec, user_data: &UserData, image: &Image) -> Result<(), DriverError> {
    if !image.cloud_config && matches!(user_data, UserData::CloudConfig { .. }) {
        return Err(DriverError::Invalid {
            field: "cloud_init",
            message: format!(
                "the image `{}` runs scripts that begin with `#!` only; for a #cloud-config choose another image",
                image.name
            ),
        });
    }
    if let Some(least) = image.min_disk.filter(|least| spec.disk < *least) {
        return Err(DriverError::Invalid {
            field: "disk",
            message: format!(
                "{} is smaller than the image `{}`, which needs {least}",
                spec.disk, image.name
            ),
        });
    }
    Ok(())
}

/// The image's true size is known only once it is here.
fn check_disk(spec: &VmSpec, manifest: &Manifest) -> Result<(), DriverError> {
    if spec.disk < manifest.min_disk {
        return Err(DriverError::Invalid {
            field: "disk",
            message: format!(
                "{} is smaller than the image `{}`, which needs {}",
                spec.disk, manifest.name, manifest.min_disk
            ),
        });
    }
    Ok(())
}
