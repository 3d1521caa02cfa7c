//! Image files of this machine, used only from the folders that its owner named: anything else would let a VM read
//! what its maker may not.

use std::{
    fs::{File, Metadata},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use batwa_api::size::ByteSize;
use sha2::Digest as _;

use crate::{driver::DriverError, policy::PolicyFile};

/// The files of this machine that its policy lets VMs be made from.
pub(super) struct LocalFiles(PolicyFile);

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
    /// Files from the folders that this policy names, and those in them.
    pub(super) fn new(policy: PolicyFile) -> Self {
        Self(policy)
    }

    /// Opens a file, if it may be used.
    ///
    /// # Errors
    /// [`DriverError::Policy`] when it is in no folder that is named; a link is where it leads to.
    /// [`DriverError::Invalid`] for `field`: it is not there, or no file.
    pub(super) fn open(&self, field: &'static str, path: &Path) -> Result<LocalFile, DriverError> {
        let invalid = |message: String| DriverError::Invalid { field, message };
        let cannot = |error: std::io::Error| {
            invalid(format!("cannot use the file {}: {error}", path.display()))
        };
        let no_file = || invalid(format!("{} is no file", path.display()));
        // Looked at before it is opened: opening alone does something to a device. What cannot be found is refused as
        // what may not be used is, so that nobody learns what there is.
        let Ok(real) = path.canonicalize() else {
            let above = path.ancestors().find_map(|path| path.canonicalize().ok());
            self.0
                .check_image_file(field, path, &above.unwrap_or_default())?;
            return Err(invalid(format!("there is no file {}", path.display())));
        };
        self.0.check_image_file(field, path, &real)?;
        if !real.is_file() {
            return Err(no_file());
        }
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&real)
            .map_err(cannot)?;
        // And once more what was opened: a link may have been put in its place meanwhile.
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let metadata = file.metadata().map_err(cannot)?;
        self.0
            .check_image_file(field, path, &opened.map_err(cannot)?)?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        Ok(LocalFile {
            size: ByteSize::bytes(metadata.len()),
            fingerprint: fingerprint(&real, &metadata),
            file,
        })
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

    use batwa_api::policy::{ImageSources, Policy};

    use super::*;

    fn files_of(dir: &Path) -> LocalFiles {
        LocalFiles::new(PolicyFile::fixed(Policy {
            images: ImageSources {
                hosts: None,
                files: vec![dir.display().to_string()],
            },
            ..Policy::default()
        }))
    }

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
        let files = files_of(&open);
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
            let inside = matches!(bad, "folder" | "none");
            let invalid = matches!(refused, DriverError::Invalid { .. });
            assert_eq!(invalid, inside, "{bad}: {refused}");
            assert!(
                invalid || matches!(refused, DriverError::Policy(_)),
                "{bad}"
            );
        }
        LocalFiles::new(PolicyFile::default())
            .open("image", &open.join("a.img"))
            .unwrap_err();
    }

    #[test]
    fn a_file_that_is_replaced_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        let files = files_of(dir.path());
        let look = || files.open("image", &path).unwrap().fingerprint;
        std::fs::write(&path, "one").unwrap();
        let first = look();
        assert_eq!(look(), first);
        std::fs::write(&path, "other").unwrap();
        assert_ne!(look(), first);
    }
}
