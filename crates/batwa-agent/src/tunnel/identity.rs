//! Who this agent is to its master: one file in the state folder, readable by its user alone.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use batwa_api::{
    id::AgentId,
    tunnel::{PublicKey, Sha256Hash},
};
use batwa_tunnel::Identity;
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};

use super::MasterUrl;

/// The file.
const FILE: &str = "identity.json";
/// Held by whoever changes the file: the agent, or `rotate-key` beside it.
const LOCK: &str = "identity.lock";

/// What an agent knows of its place at a master.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The id it goes by.
    pub agent_id: AgentId,
    /// Where the master is.
    pub master_url: MasterUrl,
    /// Who the master is: SHA-256 of its key.
    pub master_key_hash: Sha256Hash,
    /// The agent's own key.
    pub identity: Identity,
    /// The key that is about to take its place; the master may know it already.
    pub next: Option<Identity>,
    /// Whether the master has said yes; before that it is only a key made for asking.
    pub joined: bool,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{}` cannot be read as an agent's identity: put the right file back, or remove it and join again", .0.display())]
    Garbage(PathBuf),
    /// The agent of this folder has not joined a master.
    #[error("the agent of the state folder `{}` has not joined a master: run `batwa agent join URL TOKEN` with this folder", .0.display())]
    NotJoined(PathBuf),
    /// Another process changes it at this moment.
    #[error("another process is changing the identity in `{}`: try again in a moment", .0.display())]
    Locked(PathBuf),
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    agent_id: AgentId,
    master_url: String,
    master_key_hash: Sha256Hash,
    /// Nobody else ever sees these two.
    seed: PublicKey,
    next_seed: Option<PublicKey>,
    joined: bool,
}

impl Membership {
    /// Reads it; `None` when the folder holds none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let read = || {
            let stored: Stored = serde_json::from_str(&text).ok()?;
            let identity = |seed: PublicKey| Identity::from_seed(*seed.as_bytes()).ok();
            Some(Self {
                agent_id: stored.agent_id,
                master_url: stored.master_url.parse().ok()?,
                master_key_hash: stored.master_key_hash,
                identity: identity(stored.seed)?,
                next: match stored.next_seed {
                    Some(seed) => Some(identity(seed)?),
                    None => None,
                },
                joined: stored.joined,
            })
        };
        read().map(Some).ok_or(IdentityError::Garbage(path))
    }

    /// Writes it: afterwards the file is the old one or the new, whenever the power goes.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub(super) fn save(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let path = state_dir.join(FILE);
        let stored = Stored {
            agent_id: self.agent_id.clone(),
            master_url: self.master_url.to_string(),
            master_key_hash: self.master_key_hash,
            seed: (*self.identity.seed()).into(),
            next_seed: self.next.as_ref().map(|next| (*next.seed()).into()),
            joined: self.joined,
        };
        let write = || {
            let unfinished = state_dir.join(format!("{FILE}.new"));
            let mut file = File::options()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            let mut text = serde_json::to_vec_pretty(&stored)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| IdentityError::File {
            path: path.clone(),
            source,
        })
    }
}

/// The right to change the file, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// [`IdentityError::Locked`], [`IdentityError::File`].
    pub(super) fn take(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(LOCK);
        let failed = |source| IdentityError::File {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(IdentityError::Locked(state_dir.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    pub(in crate::tunnel) fn member() -> Membership {
        Membership {
            agent_id: AgentId::parse("lab").unwrap(),
            master_url: "http://127.0.0.1:8000".parse().unwrap(),
            master_key_hash: [7; 32].into(),
            identity: Identity::generate().unwrap(),
            next: None,
            joined: true,
        }
    }

    #[test]
    fn an_identity_comes_back_as_it_was_and_is_its_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Membership::load(dir.path()).unwrap().is_none());
        let mut member = member();
        member.next = Some(Identity::generate().unwrap());
        member.save(dir.path()).unwrap();
        let back = Membership::load(dir.path()).unwrap().unwrap();
        assert_eq!(back.identity.public(), member.identity.public());
        assert_eq!(
            back.next.map(|next| next.public()),
            member.next.as_ref().map(Identity::public)
        );
        assert_eq!(back.master_url, member.master_url);
        let mode = fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_reported_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(
            Membership::load(dir.path()),
            Err(IdentityError::Garbage(_))
        ));
    }

    #[test]
    fn one_process_changes_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert!(matches!(
            Lock::take(dir.path()),
            Err(IdentityError::Locked(_))
        ));
        drop(lock);
        Lock::take(dir.path()).unwrap();
    }
}
