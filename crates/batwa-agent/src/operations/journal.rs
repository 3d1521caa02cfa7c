//! Operations on disk: one file each, replaced whole and synced, so that a crash leaves the old or the new.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use batwa_api::{
    agent::DriverKind,
    id::OperationId,
    operation::{LogLine, Operation, OperationRequest},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::settle::Pause;

/// One operation with all that is needed to go on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    pub(crate) operation: Operation,
    pub(crate) request: OperationRequest,
    pub(crate) driver: DriverKind,
    #[serde(default)]
    pub(crate) pause: Pause,
    #[serde(default)]
    pub(crate) log: Vec<LogLine>,
}

/// The folder of all operations.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// The journal in a state folder; makes its folder.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("operations");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, id: OperationId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Writes an entry down; when this returns it survives a power cut. Blocks.
    pub(crate) fn write(&self, entry: &JournalEntry) -> io::Result<()> {
        let path = self.path(entry.operation.id);
        let new = path.with_extension("new");
        // User-data may hold passwords; the folder is closed to others, and so is the file.
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets an operation; that it is not there is no error.
    pub(crate) fn remove(&self, id: OperationId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All entries, the oldest first. A file that cannot be read is put aside and reported: one bad file must
    /// not keep an agent from starting.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub(crate) fn load(&self) -> io::Result<Vec<JournalEntry>> {
        let mut entries: Vec<JournalEntry> = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            match read {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    warn!(
                        "cannot read the operation in `{}`, put aside: {error}",
                        path.display()
                    );
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        entries.sort_by_key(|entry| entry.operation.id);
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{Timestamp, id::AgentId, name::VmName};

    use super::*;

    fn entry() -> JournalEntry {
        JournalEntry {
            operation: Operation::new(
                OperationId::new(),
                AgentId::local(),
                VmName::parse("web").unwrap(),
                &OperationRequest::Start,
                Timestamp::now(),
            ),
            request: OperationRequest::Start,
            driver: DriverKind::Fake,
            pause: Pause::None,
            log: Vec::new(),
        }
    }

    #[test]
    fn entries_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let entries = [entry(), entry(), entry()];
        for entry in entries.iter().rev() {
            journal.write(entry).unwrap();
        }
        journal.remove(entries[1].operation.id).unwrap();
        journal.remove(entries[1].operation.id).unwrap();
        assert_eq!(
            journal.load().unwrap(),
            [entries[0].clone(), entries[2].clone()]
        );
    }

    #[test]
    fn a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let good = entry();
        journal.write(&good).unwrap();
        let bad = journal.path(OperationId::new());
        fs::write(&bad, "{\"operation\":").unwrap();
        assert_eq!(journal.load().unwrap(), [good]);
        assert!(!bad.exists());
        assert!(bad.with_extension("unreadable").exists());
    }
}
