//! Image files of this machine, used only from the folders that its owner named: anything else would let a VM read
//! what its maker may not.

use std::{
    fs::{File, Metadata},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use batwa_api::size::ByteSize;
use sha2::Digest as _;

use crate::driver::DriverError;

/// The folders from which files may be used.
pub(super) struct LocalFiles(Vec<PathBuf>);

/// A file that may be used, open.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// Its content.
    pub(super) file: File,
    /// How large it is.
    pub(super) size: ByteSize,
    /// Another one as soon as the file is changed or replaced.
    pub(super) fingerprint: String,
}

impl LocalFiles {
    /// Files from these folders and those in them.
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        Self(dirs)
    }

    /// Opens a file, if it may be used.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] for `field`: it is not there, no file, or in no folder that was named; a link is where
    /// it leads to.
    pub(super) fn open(&self, field: &'static str, path: &Path) -> Result<LocalFile, DriverError> {
        let invalid = |message: String| DriverError::Invalid { field, message };
        let cannot = |error: std::io::Error| {
            invalid(format!("cannot use the file {}: {error}", path.display()))
        };
        let refused = || {
            invalid(format!(
                "image files of this machine may be used only from folders that its agent's settings name; {} is in none",
                path.display()
            ))
        };
        // Looked at before it is opened: opening alone does something to a device.
        let real = path.canonicalize().map_err(cannot)?;
        if !self.allow(&real) || !real.is_file() {
            return Err(refused());
        }
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&real)
            .map_err(cannot)?;
        // And once more what was opened: a link may have been put in its place meanwhile.
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let metadata = file.metadata().map_err(cannot)?;
        if !opened.is_ok_and(|opened| self.allow(&opened)) || !metadata.is_file() {
            return Err(refused());
        }
        Ok(LocalFile {
            size: ByteSize::bytes(metadata.len()),
            fingerprint: fingerprint(&real, &metadata),
            file,
        })
    }

    /// Whether a path without links lies in one of the folders.
    fn allow(&self, real: &Path) -> bool {
        self.0
            .iter()
            .filter_map(|dir| dir.canonicalize().ok())
            .any(|dir| real.starts_with(dir))
    }
}

fn fingerprint(path: &Path, metadata: &Metadata) -> String {
    let text = format!(
        "{}\n{}:{}\n{}\n{}.{}",
        path.display(),
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    hex::encode(&sha2::Sha256::digest(text)[..16])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_used_from_the_folders_that_were_named_and_links_do_not_lead_out_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        for dir in [&open, &closed, &open.join("folder")] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(open.join("a.img"), "a").unwrap();
        std::fs::write(closed.join("b.img"), "b").unwrap();
        symlink(closed.join("b.img"), open.join("out.img")).unwrap();
        symlink(open.join("a.img"), open.join("in.img")).unwrap();
        symlink(&closed, open.join("way-out")).unwrap();
        let files = LocalFiles::new(vec![open.clone()]);
        for good in ["a.img", "in.img", "folder/../a.img"] {
            assert_eq!(
                files.open("image", &open.join(good)).unwrap().size,
                ByteSize::bytes(1),
                "{good}"
            );
        }
        for bad in [
            "out.img",
            "way-out/b.img",
            "../closed/b.img",
            "folder",
            "none",
        ] {
            let refused = files.open("image", &open.join(bad)).unwrap_err();
            assert!(matches!(refused, DriverError::Invalid { .. }), "{bad}");
        }
        LocalFiles::new(Vec::new())
            .open("image", &open.join("a.img"))
            .unwrap_err();
    }

    #[test]
    fn a_file_that_is_replaced_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        let files = LocalFiles::new(vec![dir.path().to_owned()]);
        let look = || files.open("image", &path).unwrap().fingerprint;
        std::fs::write(&path, "one").unwrap();
        let first = look();
        assert_eq!(look(), first);
        std::fs::write(&path, "other").unwrap();
        assert_ne!(look(), first);
    }
}
