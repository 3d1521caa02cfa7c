//! What is written down of one VM, and where its files lie.
//!
//! `vm.json` is written first and removed last, so that every file of a VM, half-made ones included, belongs to a
//! record. It holds what was asked and decided; whether the VM runs is never written, only looked up.

use std::path::{Path, PathBuf};

use batwa_api::{Timestamp, name::VmName, size::ByteSize, vm::MacAddress};
use serde::{Deserialize, Serialize};

use super::{
    disk::{self, Layer},
    files,
    history::{History, Size, Unsettled},
    images::{ImageId, Manifest},
    mounts::KeptMount,
    networks::KeptCard,
};
use crate::driver::DriverError;

/// The newest layout of `vm.json` that this build reads; newer ones are left alone.
const VERSION: u32 = NETWORKS;
/// The layout with network cards beside the first.
const NETWORKS: u32 = 5;
/// The layout with folders of the machine.
const MOUNTS: u32 = 4;
/// The layout of a VM whose kept memory knows of a display.
const MEMORY_WITH_DISPLAY: u32 = 3;
/// The layout with snapshots.
const HISTORY: u32 = 2;
/// The layout that the oldest builds read too.
const PLAIN: u32 = 1;

/// What is written down of one VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The VM's name.
    pub(super) name: VmName,
    /// Unique in time: cloud-init's instance id, and QEMU's `-uuid`, by which its process is known.
    pub(super) instance: uuid::Uuid,
    /// How far the VM has come.
    pub(super) phase: Phase,
    /// The image it was made from, as the user called it.
    pub(super) image: String,
    /// That image, as it lay in the cache then.
    pub(super) manifest: Manifest,
    /// Number of virtual CPUs.
    pub(super) cpus: u32,
    /// Memory size.
    pub(super) memory: ByteSize,
    /// Disk size.
    pub(super) disk: ByteSize,
    /// When it was made.
    pub(super) created_at: Timestamp,
    /// When it was last powered on.
    pub(super) started_at: Option<Timestamp>,
    /// The loopback port that leads to its SSH, while it runs.
    pub(super) ssh_port: Option<u16>,
    /// `kvm` or `tcg`, as it was last started.
    pub(super) acceleration: Option<String>,
    /// KVM once brought no sign of life here: emulate from then on.
    #[serde(default)]
    pub(super) kvm_failed: bool,
    /// Whether it was last booted with a display; from before there were displays, it was not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) display: bool,
    /// How its process last ended, when not as asked.
    pub(super) ended: Option<String>,
    /// The boot of this machine in which it was last powered on, where the machine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<String>,
    /// What it can go back to.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub(super) history: History,
    /// What was begun with its disk file and is not known to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unsettled: Option<Unsettled>,
    /// The folders of this machine that it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<KeptMount>,
    /// Its network cards beside the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) networks: Vec<KeptCard>,
}

/// How far a VM has come, beside running and stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Disk and seed are being made.
    Making,
    /// It can be started, or runs.
    Made,
    /// Its memory is kept in its disk file.
    Suspended,
    /// In the trash.
    Trashed,
}

impl Record {
    /// A VM whose making begins now.
    pub(super) fn new(
        name: VmName,
        image: String,
        manifest: Manifest,
        cpus: u32,
        memory: ByteSize,
        disk: ByteSize,
    ) -> Self {
        Self {
            version: PLAIN,
            name,
            instance: uuid::Uuid::now_v7(),
            phase: Phase::Making,
            image,
            manifest,
            cpus,
            memory,
            disk,
            created_at: Timestamp::now(),
            started_at: None,
            ssh_port: None,
            acceleration: None,
            kvm_failed: false,
            display: false,
            ended: None,
            boot: None,
            history: History::default(),
            unsettled: None,
            mounts: Vec::new(),
            networks: Vec::new(),
        }
    }

    /// A VM whose making begins now, of this one's disk or one of its snapshots.
    pub(super) fn cloned(&self, name: VmName, size: Size) -> Self {
        let mut record = Self::new(
            name,
            self.image.clone(),
            self.manifest.clone(),
            size.cpus,
            size.memory,
            size.disk,
        );
        record.kvm_failed = self.kvm_failed;
        record.networks = self.networks.iter().map(KeptCard::of_clone).collect();
        record
    }

    /// The address of its first network card: the same at each start, from the end of the VM's id.
    pub(super) fn first_mac(&self) -> MacAddress {
        let [.., a, b, c] = *self.instance.as_bytes();
        MacAddress::local([a, b, c])
    }

    /// Its size.
    pub(super) fn size(&self) -> Size {
        Size {
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
        }
    }

    /// Sets its size.
    pub(super) fn set_size(&mut self, size: Size) {
        self.cpus = size.cpus;
        self.memory = size.memory;
        self.disk = size.disk;
    }

    /// Takes over the disk's size from its file, where the two differ.
    pub(super) fn adopt_disk(&mut self, in_file: ByteSize) {
        if disk::in_file(self.disk) != in_file {
            self.disk = in_file;
        }
    }

    /// The oldest layout that holds all of it: a build that would lose a VM's past, or the memory of one that is
    /// suspended, does not touch the VM.
    fn least_version(&self) -> u32 {
        if !self.networks.is_empty() {
            NETWORKS
        } else if !self.mounts.is_empty() {
            MOUNTS
        } else if self.phase == Phase::Suspended && self.display {
            MEMORY_WITH_DISPLAY
        } else if self.history.is_empty() && self.unsettled.is_none() {
            PLAIN
        } else {
            HISTORY
        }
    }
}

/// The folder of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VmDir(PathBuf);

/// The files in it, relative to it: QEMU runs inside the folder, so that sockets stay within the system's limit of
/// some hundred bytes for their names.
pub(super) mod file {
    /// The record.
    pub(in super::super) const RECORD: &str = "vm.json";
    /// The VM's own layer of its disk.
    pub(in super::super) const DISK: &str = "disk.qcow2";
    /// The NoCloud seed.
    pub(in super::super) const SEED: &str = "seed.img";
    /// QEMU's control socket.
    pub(in super::super) const QMP: &str = "qmp.sock";
    /// The serial port.
    pub(in super::super) const CONSOLE: &str = "console.sock";
    /// Where its display is shown.
    pub(in super::super) const DISPLAY: &str = "display.sock";
    /// What the serial port printed.
    pub(in super::super) const CONSOLE_LOG: &str = "console.log";
    /// What QEMU itself printed.
    pub(in super::super) const QEMU_LOG: &str = "qemu.log";
    /// QEMU's process id.
    pub(in super::super) const PID: &str = "pid";
    /// The key with which we sign in.
    pub(in super::super) const CLIENT_KEY: &str = "client_key";
    /// The key by which we know the VM.
    pub(in super::super) const HOST_KEY: &str = "host_key.pub";
}

impl VmDir {
    /// The folder of VM `name` among all of them.
    pub(super) fn of(vms: &Path, name: &VmName) -> Self {
        Self(vms.join(name.as_str()))
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// One of the files of [`mod@file`].
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The VM's own layer of its disk.
    pub(super) fn layer(&self) -> Layer {
        Layer::of(self.file(file::DISK))
    }

    /// Writes the record down.
    pub(super) fn save(&self, record: &Record) -> Result<(), DriverError> {
        let record = Record {
            version: record.least_version(),
            ..record.clone()
        };
        let json = serde_json::to_vec_pretty(&record).expect("a record is plain data");
        files::write(&self.file(file::RECORD), &json)
    }

    /// Reads the record back; `None` where there is none.
    pub(super) fn load(&self) -> Result<Option<Record>, DriverError> {
        let path = self.file(file::RECORD);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(files::io_error("read", &path, &error)),
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
            DriverError::failed(format!("cannot read {}: {error}", path.display()))
        })?;
        if record.version > VERSION {
            return Err(DriverError::failed(format!(
                "cannot read {}: a newer Batwa wrote it",
                path.display()
            )));
        }
        Ok(Some(record))
    }

    /// The image that a VM lies on whose record [`Self::load`] cannot read; `None` where not even that can be.
    pub(super) fn image_of_unreadable(&self) -> Option<ImageId> {
        let bytes = std::fs::read(self.file(file::RECORD)).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        serde_json::from_value(record.get("manifest")?.get("id")?.clone()).ok()
    }

    /// What the serial port printed lately, as lines for people.
    pub(super) fn console_tail(&self, lines: usize) -> Vec<String> {
        let bytes = std::fs::read(self.file(file::CONSOLE_LOG)).unwrap_or_default();
        super::console::last_lines(&bytes, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_builds_are_kept_from_memory_that_they_would_lose() {
        let name = VmName::parse("web").unwrap();
        let (memory, disk) = (ByteSize::mib(256), ByteSize::gib(1));
        let mut record = Record::new(
            name,
            "tiny".to_owned(),
            Manifest::example(),
            1,
            memory,
            disk,
        );
        let mut versions = Vec::new();
        for (phase, display) in [
            (Phase::Made, true),
            (Phase::Suspended, false),
            (Phase::Suspended, true),
        ] {
            (record.phase, record.display) = (phase, display);
            versions.push(record.least_version());
        }
        assert_eq!(versions, [PLAIN, PLAIN, MEMORY_WITH_DISPLAY]);
        // What was written before there were displays has none.
        let mut written = serde_json::to_value(&record).unwrap();
        written.as_object_mut().unwrap().remove("display");
        let read: Record = serde_json::from_value(written).unwrap();
        assert!(!read.display);
    }
}
