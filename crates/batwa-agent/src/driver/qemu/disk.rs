//! Disk files, by `qemu-img`.

use std::{io, path::Path, time::Duration};

use batwa_api::size::ByteSize;

use super::{files, images::DiskFormat};
use crate::driver::{
    DriverError,
    command::{Command, CommandError},
};

mod layer;

pub(super) use self::layer::{Copy, Layer};

/// Making and resizing a layer writes next to nothing.
const DEADLINE: Duration = Duration::from_secs(120);

/// Makes a disk of `size`: empty, or a layer on top of `base`.
pub(super) async fn make(
    disk: &Path,
    size: ByteSize,
    base: Option<(&Path, DiskFormat)>,
) -> Result<(), DriverError> {
    let mut command = image().args(["create", "-q", "-f", "qcow2"]);
    if let Some((base, format)) = base {
        command = command.args(["-F", format.as_str()]).arg("-b").arg(base);
    }
    command
        .arg(disk)
        .arg(size.as_u64().to_string())
        .run()
        .await
        .map_err(|error| failed(disk, error))?;
    Ok(())
}

/// The size of a disk file for a disk of `size`: whole sectors.
pub(super) fn in_file(size: ByteSize) -> ByteSize {
    const SECTOR: u64 = 512;
    ByteSize::bytes(size.as_u64().div_ceil(SECTOR).saturating_mul(SECTOR))
}

/// What is known of a disk image's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its format.
    pub(super) format: DiskFormat,
    /// The size that a VM sees.
    pub(super) size: ByteSize,
}

/// Looks into a disk image from elsewhere, and refuses one that would read other files of this machine.
pub(super) async fn inspect(disk: &Path) -> Result<Facts, DriverError> {
    let output = image()
        .args(["info", "--output=json"])
        .arg(disk)
        .run()
        .await
        .map_err(super::missing_or_failed)?;
    facts(&output.stdout)
}

fn facts(json: &[u8]) -> Result<Facts, DriverError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        format: String,
        virtual_size: u64,
        backing_filename: Option<String>,
        #[serde(default)]
        format_specific: serde_json::Value,
    }
    let info: Info = serde_json::from_slice(json)
        .map_err(|error| DriverError::failed(format!("cannot read qemu-img's answer: {error}")))?;
    // A qcow2 file can name other files as its ground or its data: those of this machine, for instance.
    if info.backing_filename.is_some() || !info.format_specific["data"]["data-file"].is_null() {
        return Err(DriverError::failed(
            "the disk image refers to another file, so it is not used",
        ));
    }
    let format = match info.format.as_str() {
        "qcow2" => DiskFormat::Qcow2,
        "raw" => DiskFormat::Raw,
        other => {
            return Err(DriverError::failed(format!(
                "the disk image has the format `{other}`; qcow2 and raw can be used"
            )));
        }
    };
    Ok(Facts {
        format,
        size: ByteSize::bytes(info.virtual_size),
    })
}

fn image() -> Command {
    Command::new("qemu-img")
        .ends_with_agent()
        .deadline(DEADLINE)
}

/// What to tell people of a `qemu-img` that failed on `disk`; a full disk is named as such, with numbers.
fn failed(disk: &Path, error: CommandError) -> DriverError {
    let full = |stderr: &str| stderr.contains("No space left on device");
    match &error {
        CommandError::Failed { stderr, .. } if full(stderr) => {
            files::io_error("write", disk, &io::ErrorKind::StorageFull.into())
        }
        _ => super::missing_or_failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_image_that_refers_to_another_file_is_refused() {
        let good = br#"{"virtual-size": 2147483648, "filename": "a", "format": "qcow2", "format-specific": {"type": "qcow2", "data": {"compat": "1.1"}}}"#;
        assert_eq!(
            facts(good).unwrap(),
            Facts {
                format: DiskFormat::Qcow2,
                size: ByteSize::gib(2)
            }
        );
        for bad in [
            &br#"{"virtual-size": 1, "format": "qcow2", "backing-filename": "/etc/shadow"}"#[..],
            br#"{"virtual-size": 1, "format": "qcow2", "format-specific": {"data": {"data-file": "/dev/sda"}}}"#,
            br#"{"virtual-size": 1, "format": "vmdk"}"#,
            b"rubbish",
        ] {
            facts(bad).unwrap_err();
        }
    }
}
