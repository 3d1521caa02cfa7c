//! What is written down of an image in the cache, beside its files.

use std::path::Path;

use batwa_api::{Timestamp, size::ByteSize};
use serde::{Deserialize, Serialize};

use super::super::disk;
use crate::driver::DriverError;

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Manifest {
    /// Its folder in the cache.
    pub(in super::super) id: ImageId,
    /// The catalogue's name: `ubuntu:24.04`.
    pub(in super::super) name: String,
    /// For people: `Ubuntu 24.04 LTS`.
    pub(in super::super) title: String,
    /// The account that people use in it.
    pub(in super::super) user: String,
    /// Whether it reads `#cloud-config`.
    pub(in super::super) cloud_config: bool,
    /// The format of its disk; `None` when the VM begins with an empty one.
    pub(in super::super) disk: Option<DiskFormat>,
    /// Size of its disk: a VM's cannot be smaller.
    pub(in super::super) min_disk: ByteSize,
    /// Its own kernel; `None` when its disk boots itself.
    pub(in super::super) boot: Option<Boot>,
    /// When it came into the cache.
    pub(in super::super) made_at: Timestamp,
}

impl Manifest {
    /// The disk's file in the image's folder.
    pub(in super::super) const DISK: &str = "disk.img";
    /// The kernel's.
    pub(in super::super) const KERNEL: &str = "kernel";
    /// The initrd's.
    pub(in super::super) const INITRD: &str = "initrd";
    /// The manifest's own.
    pub(super) const FILE: &str = "image.json";

    /// The manifest of the image in a folder; `None` where there is none.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(dir.join(Self::FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    #[cfg(test)]
    pub(in super::super) fn example() -> Self {
        Self {
            id: ImageId("tiny-1".to_owned()),
            name: "tiny".to_owned(),
            title: "Tiny".to_owned(),
            user: "root".to_owned(),
            cloud_config: false,
            disk: None,
            min_disk: ByteSize::mib(512),
            boot: None,
            made_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// The name of an image's folder: letters, digits, `.`, `-` and `_` only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(in super::super) struct ImageId(String);

impl ImageId {
    /// An id from any text; what may not stand in one becomes a hyphen.
    pub(super) fn from_text(text: &str) -> Self {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        Self(
            text.chars()
                .map(|c| if good(c) { c } else { '-' })
                .collect::<String>()
                .trim_start_matches(['.', '-'])
                .to_owned(),
        )
    }

    /// Its text.
    pub(in super::super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// How an image's disk file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum DiskFormat {
    /// QEMU's own format.
    Qcow2,
    /// Byte for byte.
    Raw,
}

impl DiskFormat {
    /// The format's name for QEMU.
    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How a kernel of the image's own is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Boot {
    /// The kernel's command line.
    pub(in super::super) command_line: String,
}

/// What is told of a disk image that came from elsewhere.
pub(super) struct About {
    name: String,
    title: String,
    user: String,
}

impl About {
    pub(super) fn new(name: String, title: &str, user: &str) -> Self {
        Self {
            name,
            title: title.to_owned(),
            user: user.to_owned(),
        }
    }

    /// The manifest of the image whose disk is this file.
    ///
    /// # Errors
    /// When it is no disk image that can be used.
    pub(super) async fn manifest(self, id: String, disk: &Path) -> Result<Manifest, DriverError> {
        let facts = disk::inspect(disk).await?;
        Ok(Manifest {
            id: ImageId::from_text(&id),
            name: self.name,
            title: self.title,
            user: self.user,
            cloud_config: true,
            disk: Some(facts.format),
            min_disk: facts.size,
            boot: None,
            made_at: Timestamp::now(),
        })
    }
}
