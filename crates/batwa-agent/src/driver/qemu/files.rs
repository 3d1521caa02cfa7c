//! Files that are whole or not there, readable by their owner alone, and errors that name them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use batwa_api::size::ByteSize;

use crate::driver::DriverError;

/// Makes a folder and those above it, all of them 0700 where they are new.
pub(super) fn make_dir(path: &Path) -> Result<(), DriverError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error("make", path, &error))
}

/// Writes a file of mode 0600 so that a reader, and a crash, sees the old content or the new one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), DriverError> {
    let partial = beside(path, ".partial");
    let written = create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| sync_parent(path));
    written.map_err(|error| {
        // What is left of it takes space that somebody lacks.
        let _ = fs::remove_file(&partial);
        io_error("write", path, &error)
    })
}

/// A new or emptied file of mode 0600.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Lets the owner alone use a file or socket that another program made.
pub(super) fn make_private(path: &Path) -> Result<(), DriverError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| io_error("protect", path, &error))
}

/// Moves a finished file or folder to its place, and makes that last.
pub(super) fn publish(from: &Path, to: &Path) -> Result<(), DriverError> {
    File::open(from)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(from, to))
        .and_then(|()| sync_parent(to))
        .map_err(|error| io_error("write", to, &error))
}

/// Removes a file or a whole folder; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<(), DriverError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path, &error)),
    }
}

/// The path with `suffix` after its last component.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Free space of the file system that holds `path`.
pub(super) fn free_space(path: &Path) -> Option<ByteSize> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(ByteSize::bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// What to tell people of a failed call; a full disk is named as such, with numbers.
pub(super) fn io_error(verb: &str, path: &Path, error: &io::Error) -> DriverError {
    let path_text = path.display();
    if error.kind() != io::ErrorKind::StorageFull {
        return DriverError::failed(format!("cannot {verb} {path_text}: {error}"));
    }
    let holder = path.ancestors().find(|path| path.exists());
    let free = holder
        .and_then(free_space)
        .map_or_else(String::new, |free| format!(": {free} free"));
    DriverError::NoSpace(format!("cannot {verb} {path_text}: the disk is full{free}"))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_whole_private_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a").join("vm.json");
        make_dir(path.parent().unwrap()).unwrap();
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(path.parent().unwrap())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_named_with_what_is_free() {
        let error = io_error(
            "write",
            Path::new("/tmp/disk"),
            &io::ErrorKind::StorageFull.into(),
        );
        let text = error.to_string();
        assert!(
            text.contains("the disk is full: ") && text.ends_with(" free"),
            "{text}"
        );
    }

    #[test]
    fn removing_what_is_gone_is_success() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("nothing")).unwrap();
    }
}
