//! The agent's state folder: its own user's alone, one agent at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::FlockOperation, io::Errno};

/// Why a folder cannot hold an agent's state.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another agent uses it.
    #[error("another agent uses the state folder `{}`: stop it, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or written.
    #[error("cannot use the state folder `{}`", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A state folder that is ours until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct StateDir {
    // The lock is the open file's.
    _lock: File,
}

impl StateDir {
    /// Makes the folder where it is missing, takes others' access away, and locks it.
    ///
    /// # Errors
    /// [`StateDirError`]; nothing is left behind then but the folder itself.
    pub(crate) fn open(path: &Path) -> Result<Self, StateDirError> {
        let unusable = |source| StateDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("agent.lock"))
            .map_err(unusable)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(StateDirError::InUse(path.to_owned())),
            Err(errno) => Err(unusable(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(
            StateDir::open(&path),
            Err(StateDirError::InUse(_))
        ));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn the_folder_is_its_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let _state = StateDir::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_way_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(
            StateDir::open(&path),
            Err(StateDirError::Unusable { .. })
        ));
    }
}
