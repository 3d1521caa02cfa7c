//! Making VMs, and removing them whatever came of the making.

use std::sync::{Arc, atomic::Ordering};

use batwa_api::{image::Image, name::VmName, operation::Stage, vm::VmSpec};
use russh::keys::ssh_key::LineEnding;

use super::{
    disk, files,
    images::Manifest,
    machine::{Accelerator, From},
    process::Process,
    record::{Phase, Record, file},
    seed::Seed,
    ssh,
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
        if let Some(vm) = self.find(name) {
            if vm.being_made.load(Ordering::Relaxed) {
                return Err(DriverError::NameTaken(name.clone()));
            }
            // Cut off before: begin anew.
            self.purge(name, &Progress::ignored()).await?;
        }
        let manifest = self.images().ensure(&spec.image, progress).await?;
        check_disk(spec, &manifest)?;
        progress.stage(Stage::Preparing);
        let vm = self.enter(Record::new(
            name.clone(),
            spec.image.clone(),
            manifest,
            spec.cpus,
            spec.memory,
            spec.disk,
        ))?;
        let _making = Making::begin(&vm);
        self.changed();
        let made = async {
            self.prepare(&vm, &user_data).await?;
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
    async fn prepare(&self, vm: &Arc<Vm>, user_data: &UserData) -> Result<(), DriverError> {
        let record = vm.record();
        let client_key = ssh::new_key("batwa");
        let host_key = ssh::new_key("batwa");
        let private = client_key
            .to_openssh(LineEnding::LF)
            .expect("an ed25519 key has an OpenSSH form");
        files::write(&vm.dir.file(file::CLIENT_KEY), private.as_bytes())?;
        let known = match user_data {
            UserData::CloudConfig {
                host_key: Some(own),
                ..
            } => own.clone(),
            _ => host_key.public_key().clone(),
        };
        let known = known
            .to_openssh()
            .expect("a public key has an OpenSSH form");
        files::write(&vm.dir.file(file::HOST_KEY), known.as_bytes())?;
        let seed = Seed {
            instance: record.instance,
            hostname: record.name.as_str(),
            user: &record.manifest.user,
            client_key: client_key.public_key(),
            host_key: &host_key,
            user_data,
        };
        seed.write(&vm.dir.file(file::SEED))?;
        let image = self.images().dir_of(&record.manifest.id);
        let base = image.join(Manifest::DISK);
        let base = record.manifest.disk.map(|format| (base.as_path(), format));
        disk::make(&vm.dir.file(file::DISK), record.disk, base).await
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
struct Making<'a>(&'a Vm);

impl<'a> Making<'a> {
    fn begin(vm: &'a Vm) -> Self {
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
