//! A VM's own layer of its disk: what it keeps of its past, its size, and copies of it.
//!
//! Whoever calls sees to it that nobody else has the file open for writing; QEMU's own lock refuses the rest.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use batwa_api::size::ByteSize;

use super::{
    super::{files, images::DiskFormat, machine::SUSPENDED},
    failed, image, in_file,
};
use crate::driver::{
    DriverError,
    command::{Command, CommandError},
};

/// The disk file of a VM that is off.
#[derive(Debug, Clone)]
pub(in super::super) struct Layer(PathBuf);

/// What a layer's file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Content {
    /// The size that the VM sees.
    pub(in super::super) size: ByteSize,
    /// The tags of the snapshots in it.
    pub(in super::super) tags: BTreeSet<String>,
}

/// How a layer is copied.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Copy<'a> {
    /// The snapshot to copy, by its tag and the disk's size then; the disk as it is when absent.
    pub(in super::super) snapshot: Option<(&'a str, ByteSize)>,
    /// What both lie on.
    pub(in super::super) base: Option<(&'a Path, DiskFormat)>,
}

impl Layer {
    /// The layer in `file`.
    pub(in super::super) fn of(file: PathBuf) -> Self {
        Self(file)
    }

    /// Throws away the memory that a suspended VM kept in it.
    pub(in super::super) async fn forget_memory(&self) -> Result<(), DriverError> {
        self.forget(SUSPENDED).await
    }

    /// Keeps the disk as it is now under `tag`, which must be new: `qemu-img` takes the same one twice.
    pub(in super::super) async fn keep(&self, tag: &str) -> Result<(), DriverError> {
        self.run(["snapshot", "-q", "-c", tag]).await
    }

    /// Makes the disk what it was under `tag`, its size included. Cut off, it is to be called again.
    pub(in super::super) async fn go_back(&self, tag: &str) -> Result<(), DriverError> {
        self.run(["snapshot", "-q", "-a", tag]).await
    }

    /// Removes what was kept under `tag`.
    pub(in super::super) async fn forget(&self, tag: &str) -> Result<(), DriverError> {
        self.run(["snapshot", "-q", "-d", tag]).await
    }

    /// Gives room free that a command which was killed had taken and not used.
    pub(in super::super) async fn repair(&self) -> Result<(), DriverError> {
        self.run(["check", "-q", "-r", "leaks"]).await
    }

    /// Grows it to `size`.
    pub(in super::super) async fn grow(&self, size: ByteSize) -> Result<(), DriverError> {
        image()
            .args(["resize", "-q", "-f", "qcow2"])
            .arg(&self.0)
            .arg(in_file(size).as_u64().to_string())
            .run()
            .await
            .map_err(|error| failed(&self.0, error))?;
        Ok(())
    }

    /// Looks into it.
    pub(in super::super) async fn content(&self) -> Result<Content, DriverError> {
        let output = image()
            .args(["info", "--output=json", "-f", "qcow2"])
            .arg(&self.0)
            .run()
            .await
            .map_err(|error| failed(&self.0, error))?;
        content(&output.stdout)
    }

    /// The most that a copy of it can take.
    pub(in super::super) fn taken(&self) -> ByteSize {
        use std::os::unix::fs::MetadataExt;
        let blocks = std::fs::metadata(&self.0).map_or(0, |metadata| metadata.blocks());
        ByteSize::bytes(blocks.saturating_mul(512))
    }

    /// Writes a copy of it to `target`, without its past, and says how far that is, in per cent.
    pub(in super::super) async fn copy(
        &self,
        target: &Path,
        what: Copy<'_>,
        on_percent: impl FnMut(f64) + Send,
    ) -> Result<(), DriverError> {
        let size = self.content().await?.size;
        match what.snapshot {
            // `qemu-img` reads a snapshot in the size that the disk has now, and would cut this one.
            Some((tag, then)) if then > size => {
                let whole = Self(files::beside(target, ".whole"));
                Command::new("cp")
                    .ends_with_agent()
                    .arg("--reflink=auto")
                    .args([&self.0, &whole.0])
                    .run()
                    .await
                    .map_err(|error| failed(&whole.0, error))?;
                whole.go_back(tag).await?;
                whole.convert(target, None, what.base, on_percent).await?;
                files::remove(&whole.0)?;
            }
            Some((tag, then)) => {
                self.convert(target, Some(tag), what.base, on_percent)
                    .await?;
                if then < size {
                    Self(target.to_owned()).shrink(then).await?;
                }
            }
            None => self.convert(target, None, what.base, on_percent).await?,
        }
        File::open(target)
            .and_then(|file| file.sync_all())
            .map_err(|error| files::io_error("write", target, &error))
    }

    async fn convert(
        &self,
        target: &Path,
        tag: Option<&str>,
        base: Option<(&Path, DiskFormat)>,
        mut on_percent: impl FnMut(f64) + Send,
    ) -> Result<(), DriverError> {
        // As long as it takes: the caller has the deadline.
        let mut command = Command::new("qemu-img")
            .ends_with_agent()
            .args(["convert", "-p", "-f", "qcow2", "-O", "qcow2"]);
        if let Some(tag) = tag {
            command = command.args(["-l", &format!("snapshot.name={tag}")]);
        }
        if let Some((base, format)) = base {
            command = command.args(["-F", format.as_str()]).arg("-B").arg(base);
        }
        let mut line = Vec::new();
        let output = command
            .args([&self.0, target])
            .stream(|chunk| {
                for byte in chunk {
                    match byte {
                        b'\r' | b'\n' => line.clear(),
                        b'/' => {
                            if let Some(percent) = percent(&line) {
                                on_percent(percent);
                            }
                        }
                        // Nothing that it prints is longer.
                        byte if line.len() < 80 => line.push(*byte),
                        _ => {}
                    }
                }
            })
            .await
            .map_err(|error| failed(target, error))?;
        if output.status.success() {
            return Ok(());
        }
        let error = CommandError::Failed {
            program: "qemu-img".to_owned(),
            status: output.status,
            stderr: output.stderr,
        };
        Err(failed(target, error))
    }

    async fn shrink(&self, size: ByteSize) -> Result<(), DriverError> {
        image()
            .args(["resize", "-q", "-f", "qcow2", "--shrink"])
            .arg(&self.0)
            .arg(in_file(size).as_u64().to_string())
            .run()
            .await
            .map_err(|error| failed(&self.0, error))?;
        Ok(())
    }

    async fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<(), DriverError> {
        image()
            .args(args)
            .arg(&self.0)
            .run()
            .await
            .map_err(|error| failed(&self.0, error))?;
        Ok(())
    }
}

/// `    (12.50/100%)`, up to the slash.
fn percent(line: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(line).ok()?;
    text.trim_start().strip_prefix('(')?.parse().ok()
}

fn content(json: &[u8]) -> Result<Content, DriverError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        virtual_size: u64,
        #[serde(default)]
        snapshots: Vec<Tag>,
    }
    #[derive(serde::Deserialize)]
    struct Tag {
        name: String,
    }
    let info: Info = serde_json::from_slice(json)
        .map_err(|error| DriverError::failed(format!("cannot read qemu-img's answer: {error}")))?;
    Ok(Content {
        size: ByteSize::bytes(info.virtual_size),
        tags: info.snapshots.into_iter().map(|tag| tag.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_says_its_size_and_its_tags() {
        let json = br#"{"virtual-size": 1024, "format": "qcow2", "snapshots": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]}"#;
        let said = content(json).unwrap();
        assert_eq!(said.size, ByteSize::bytes(1024));
        assert!(said.tags.iter().eq(["a", "b"]));
        assert!(content(br#"{"virtual-size": 1}"#).unwrap().tags.is_empty());
        content(b"rubbish").unwrap_err();
    }

    #[test]
    fn progress_is_read_up_to_the_slash() {
        assert_eq!(percent(b"    (12.50"), Some(12.5));
        assert_eq!(percent(b"rubbish"), None);
    }
}
