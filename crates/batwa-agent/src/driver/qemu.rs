//! Runs VMs by QEMU directly.
//!
//! Each VM is a folder under `qemu/vms/` and, while it runs, a QEMU process that outlives the agent. Nothing says
//! that a VM runs but the process itself, found by its pid file and known by the VM's id on its command line; so an
//! agent that comes back after `kill -9` sees what it left.
//!
//! ```text
//! create ─► Making ─► Made ◄──► running (a process) ──► suspended (memory in the disk file)
//!                      └─► Trashed ─► gone
//! ```

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use batwa_api::{
    agent::{Acceleration, Capabilities, DriverKind},
    exec::ExecCommand,
    image::Image,
    name::{SnapshotName, VmName},
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::{HostNetwork, MountOptions, ResizeOptions, VmSpec},
};
use tokio::sync::watch;

use super::{
    Connection, Driver, DriverError, ImageKeeper, ObservedVm, Probe, Progress, Pty, StopMode,
    command::{Command, CommandError, end_orphans},
    inside::Exec,
};
use crate::policy::PolicyFile;

mod accel;
mod clone;
mod console;
mod create;
mod disk;
mod files;
mod history;
mod identity;
mod images;
mod inside;
mod keeper;
mod machine;
mod mounts;
mod networks;
mod observe;
mod offline;
mod power;
mod process;
mod qmp;
mod ready;
mod record;
mod seed;
mod snapshots;
mod space;
mod ssh;
mod usage;
mod user_data;
mod vms;

pub use self::images::{Servers as ImageServers, TinyKernel};
use self::{images::Images, machine::Accelerator, vms::Vms};

/// What a person with a shell on this machine may set.
#[derive(Debug, Clone, Default)]
pub struct QemuOptions {
    /// What may be asked here: where images may come from, whether from files of this machine.
    pub policy: PolicyFile,
    /// Emulate even where KVM works.
    pub emulate: bool,
    /// The kernel of the image `tiny`.
    pub tiny_kernel: TinyKernel,
    /// Where images are looked up; the public servers when absent.
    pub image_servers: ImageServers,
    /// From which size on images that no VM uses are removed; none are when absent.
    pub cache_limit: Option<ByteSize>,
}

/// VMs run by QEMU on this machine.
pub struct QemuDriver {
    vms: Vms,
    dir: PathBuf,
    options: QemuOptions,
    acceleration: tokio::sync::OnceCell<(Accelerator, Acceleration)>,
    /// Held for the driver's life: two drivers on one folder would start each VM twice.
    _lock: std::fs::File,
}

impl QemuDriver {
    /// Opens the VMs under `state_dir/qemu`. Looks for no program yet: [`Driver::probe`] does.
    ///
    /// # Errors
    /// [`DriverError::Failed`] when the folder cannot be used, or another agent uses it.
    pub fn open(state_dir: &Path) -> Result<Self, DriverError> {
        Self::open_with(state_dir, QemuOptions::default())
    }

    /// The same with settings.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(state_dir: &Path, options: QemuOptions) -> Result<Self, DriverError> {
        let dir = std::path::absolute(state_dir.join("qemu"))
            .map_err(|error| files::io_error("use", state_dir, &error))?;
        files::make_dir(&dir)?;
        let path = dir.join("lock");
        let lock = files::create(&path).map_err(|error| files::io_error("make", &path, &error))?;
        if !claim(&lock) {
            return Err(DriverError::failed(format!(
                "another agent runs the VMs in {}: give each its own state folder",
                dir.display()
            )));
        }
        // Before anything is looked at that they may still be writing.
        end_orphans();
        let images = Images::open(dir.join("images"), &options)?;
        Ok(Self {
            vms: Vms::open(dir.join("vms"), images, options.policy.clone())?,
            dir,
            options,
            acceleration: tokio::sync::OnceCell::new(),
            _lock: lock,
        })
    }

    /// How CPUs run here: proved once.
    async fn acceleration(&self) -> Result<&(Accelerator, Acceleration), DriverError> {
        self.acceleration
            .get_or_try_init(|| async {
                if self.options.emulate {
                    let reason = "emulated, as this agent's settings say".to_owned();
                    let name = Accelerator::Tcg.as_str().to_owned();
                    return Ok((Accelerator::Tcg, Acceleration { name, reason }));
                }
                let version = version().await?;
                accel::choose(program()?, &version, &self.dir).await
            })
            .await
    }
}

/// Takes the lock, if nobody has it. A program that our predecessor started holds a copy of it until it has begun,
/// which takes a moment on a busy machine, so the first refusal is not the last word.
fn claim(lock: &std::fs::File) -> bool {
    use rustix::fs::{FlockOperation, flock};
    const TRIES: u32 = 25;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    (0..TRIES).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

/// The program for VMs of this machine's kind.
fn program() -> Result<&'static str, DriverError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("qemu-system-x86_64"),
        other => Err(DriverError::Unsupported(format!(
            "the qemu driver runs on x86_64 machines; this one is {other}"
        ))),
    }
}

async fn version() -> Result<String, DriverError> {
    let output = Command::new(program()?)
        .arg("--version")
        .deadline(std::time::Duration::from_secs(20))
        .run()
        .await
        .map_err(missing_or_failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(version_number(&text).to_owned())
}

/// `QEMU emulator version 7.2.22 (Debian …)`.
fn version_number(text: &str) -> &str {
    text.split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)
        .unwrap_or("unknown")
}

/// What to tell people of a QEMU program that is not there or failed.
fn missing_or_failed(error: CommandError) -> DriverError {
    match error {
        CommandError::NotFound { program } => DriverError::Missing(format!(
            "`{program}` is not installed: install QEMU (Debian, Ubuntu: `apt-get install qemu-system-x86 qemu-utils`; \
             Fedora: `dnf install qemu-kvm qemu-img`; Arch: `pacman -S qemu-base`)"
        )),
        CommandError::Deadline { .. } => DriverError::Timeout(error.to_string()),
        error => DriverError::Failed {
            log: error.log(20),
            detail: error.to_string(),
            hint: None,
        },
    }
}

#[async_trait]
impl Driver for QemuDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Qemu
    }

    async fn probe(&self) -> Result<Probe, DriverError> {
        let version = version().await?;
        // Disks are made by it; it comes in a package of its own.
        Command::new("qemu-img")
            .arg("--version")
            .deadline(std::time::Duration::from_secs(20))
            .run()
            .await
            .map_err(missing_or_failed)?;
        let (_, acceleration) = self.acceleration().await?;
        Ok(Probe {
            version: Some(version),
            capabilities: Capabilities {
                // A process that is gone may have gone down with the whole machine.
                crashes: crate::host::boot_id().is_some(),
                ..Capabilities::all()
            },
            acceleration: Some(acceleration.clone()),
        })
    }

    async fn observe(&self) -> Result<Vec<ObservedVm>, DriverError> {
        Ok(self.vms.observe())
    }

    async fn inspect(&self, vm: &VmName) -> Result<ObservedVm, DriverError> {
        self.vms.inspect(vm).await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.vms.changes())
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        let in_use = || self.vms.images_in_use();
        Ok(self.vms.images().list(&in_use).await)
    }

    async fn networks(&self) -> Result<Vec<HostNetwork>, DriverError> {
        networks::list()
    }

    fn image_keeper(&self) -> Option<&dyn ImageKeeper> {
        Some(&self.vms)
    }

    async fn check(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError> {
        self.vms.check(vm, spec).await.map(drop)
    }

    async fn create(
        &self,
        vm: &VmName,
        spec: &VmSpec,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let (accelerator, _) = self.acceleration().await?;
        self.vms.create(vm, spec, *accelerator, progress).await
    }

    async fn start(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        let (accelerator, _) = self.acceleration().await?;
        self.vms.start(vm, *accelerator, progress).await
    }

    async fn stop(
        &self,
        vm: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.stop(vm, mode, progress).await
    }

    async fn restart(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        let (accelerator, _) = self.acceleration().await?;
        self.vms.restart(vm, *accelerator, progress).await
    }

    async fn suspend(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.vms.suspend(vm, progress).await
    }

    async fn delete(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.vms.delete(vm, progress).await
    }

    async fn recover(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.vms.recover(vm, progress)
    }

    async fn purge(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.vms.purge(vm, progress).await
    }

    async fn snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.snapshot(vm, name, comment, progress).await
    }

    async fn restore(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.restore(vm, snapshot, progress).await
    }

    async fn delete_snapshot(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.delete_snapshot(vm, snapshot, progress).await
    }

    async fn clone_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.clone_vm(vm, target, snapshot, progress).await
    }

    async fn resize(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.resize(vm, size, progress).await
    }

    async fn mount(
        &self,
        vm: &VmName,
        mount: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.mount(vm, mount, progress).await
    }

    async fn umount(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.vms.umount(vm, target, progress).await
    }

    async fn attach(
        &self,
        vm: &VmName,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Pty, DriverError> {
        self.vms.attach(vm, kind, size).await
    }

    async fn exec(&self, vm: &VmName, command: &ExecCommand) -> Result<Exec, DriverError> {
        self.vms.exec(vm, command).await
    }

    async fn connect(&self, vm: &VmName, port: u16) -> Result<Connection, DriverError> {
        self.vms.connect(vm, port).await
    }

    async fn display(&self, vm: &VmName) -> Result<Connection, DriverError> {
        self.vms.display(vm).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_qemu_says() {
        assert_eq!(
            version_number("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            "7.2.22"
        );
        assert_eq!(version_number(""), "unknown");
    }

    #[test]
    fn two_drivers_on_one_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = QemuDriver::open(dir.path()).unwrap();
        let error = QemuDriver::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("another agent"), "{error}");
        drop(first);
        QemuDriver::open(dir.path()).unwrap();
    }
}
