//! What the owner of this machine lets any master ask of it: `policy.toml` in the state folder, or the file that the
//! settings name.
//!
//! ```text
//! policy.toml ─► file (what it says, checked) ─► Policy ─► check (may this be asked?)
//!      ▲ read anew when it changes      │            └► folder (opened beneath a root that may be mounted)
//!                                       └────► shown with the agent
//! ```
//!
//! Invariants: an agent does not start with a file that it cannot use; a running one goes on with what the file last
//! said, a file that is taken away included, and says so. So a slip of the pen never opens what was closed.

mod check;
mod file;
mod folder;
mod listen;
mod network;

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use batwa_api::policy::Policy;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{check::Refusal, file::PolicyError, folder::Folder};

/// Name of the file in the state folder.
pub const FILE: &str = "policy.toml";
/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The policy of this machine, as its file says now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Folders with image files that the settings name beside the file.
    image_dirs: Vec<PathBuf>,
    now: RwLock<Arc<Policy>>,
    /// The file as it was when it was last read, whatever came of that.
    seen: Mutex<Option<Stamp>>,
}

/// By what a changed file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Self {
        Self {
            inode: file.ino(),
            size: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// What a look at the file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// What holds is what held.
    Same,
    /// The file says something new, and that holds now.
    Changed,
    /// The file cannot be used, for this reason; what it last said holds.
    Kept(String),
}

impl Default for PolicyFile {
    /// The policy of a machine on which nobody wrote one.
    fn default() -> Self {
        Self::fixed(Policy::default())
    }
}

impl PolicyFile {
    /// The policy in `path`, the default where there is no such file; `image_dirs` are allowed beside its own.
    ///
    /// # Errors
    /// [`PolicyError`] when there is a file that cannot be used.
    pub fn open(path: PathBuf, image_dirs: Vec<PathBuf>) -> Result<Self, PolicyError> {
        let seen = stamp(&path);
        let policy = read(&path, &image_dirs)?.unwrap_or_else(|| default(&path, &image_dirs));
        Ok(Self(Arc::new(Inner {
            now: RwLock::new(Arc::new(policy)),
            seen: Mutex::new(seen),
            path,
            image_dirs,
        })))
    }

    /// A policy that no file changes: for tests.
    #[must_use]
    pub fn fixed(policy: Policy) -> Self {
        Self(Arc::new(Inner {
            path: PathBuf::from(&policy.file),
            image_dirs: Vec::new(),
            now: RwLock::new(Arc::new(policy)),
            seen: Mutex::new(None),
        }))
    }

    /// What holds now.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file anew, whether it seems changed or not. One that was taken away opens nothing either: what it
    /// said holds until the agent starts again.
    pub fn reload(&self) -> Look {
        let seen = stamp(&self.0.path);
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let before = self.current();
        let problem = match read(&self.0.path, &self.0.image_dirs) {
            Ok(Some(policy)) => return self.put(&before, policy),
            Ok(None) if !before.written => return Look::Same,
            Ok(None) => format!(
                "the policy file `{}` is gone: what it said holds until the agent is started again",
                self.0.path.display()
            ),
            Err(error) => error.to_string(),
        };
        self.put(
            &before,
            Policy {
                problem: Some(problem.clone()),
                ..(*before).clone()
            },
        );
        Look::Kept(problem)
    }

    fn put(&self, before: &Policy, policy: Policy) -> Look {
        if policy == *before {
            return Look::Same;
        }
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        Look::Changed
    }

    /// Reads the file anew if it is another one than when it was last read.
    fn look(&self) -> Look {
        let seen = *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp(&self.0.path) == seen {
            return Look::Same;
        }
        self.reload()
    }

    /// Looks at the file now and then, and hands on what holds after each change, until `stop`.
    pub(crate) async fn keep_fresh(&self, stop: CancellationToken, show: impl Fn(&Policy)) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown = self.current();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.look() {
                Look::Same => {}
                Look::Changed => info!("the policy in `{}` holds now", self.0.path.display()),
                Look::Kept(problem) => warn!("the policy stays as it was: {problem}"),
            }
            // It may have been read anew elsewhere too.
            let now = self.current();
            if now != shown {
                show(&now);
                shown = now;
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(Stamp::from)
}

fn default(path: &Path, image_dirs: &[PathBuf]) -> Policy {
    let mut policy = Policy {
        file: path.display().to_string(),
        ..Policy::default()
    };
    add_dirs(&mut policy, image_dirs);
    policy
}

fn add_dirs(policy: &mut Policy, image_dirs: &[PathBuf]) {
    for dir in image_dirs.iter().map(|dir| dir.display().to_string()) {
        if !policy.images.files.contains(&dir) {
            policy.images.files.push(dir);
        }
    }
}

/// What the file says; `None` when there is none.
fn read(path: &Path, image_dirs: &[PathBuf]) -> Result<Option<Policy>, PolicyError> {
    use std::io::{ErrorKind, Read};
    let unreadable = |error| PolicyError::Unreadable {
        path: path.to_owned(),
        error,
    };
    // Not blocking: whatever else lies there must not hold the agent up.
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(PolicyError::OpenToAll(path.to_owned()));
    }
    let mut text = String::new();
    file.take(file::MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let mut policy = file::parse(path, &text)?;
    add_dirs(&mut policy, image_dirs);
    Ok(Some(policy))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn write(path: &Path, text: &str) {
        // As editors do it: the new file takes the old one's place.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o644)).unwrap();
        fs::rename(new, path).unwrap();
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_the_settings_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let policy = PolicyFile::open(path.clone(), vec!["/srv/images".into()]).unwrap();
        let now = policy.current();
        assert!(!now.written && now.problem.is_none());
        assert_eq!(now.file, path.display().to_string());
        assert_eq!(now.images.files, ["/srv/images"]);
        assert_eq!(policy.reload(), Look::Same);
    }

    #[test]
    fn a_changed_file_holds_at_the_next_look_and_a_bad_one_keeps_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write(&path, "[vms]\ncpus = 4\n");
        let policy = PolicyFile::open(path.clone(), Vec::new()).unwrap();
        assert_eq!(policy.current().vms.cpus, Some(4));
        assert_eq!(policy.look(), Look::Same);

        write(&path, "[vms]\ncpus = 8\n");
        assert_eq!(policy.look(), Look::Changed);
        assert_eq!(policy.current().vms.cpus, Some(8));

        write(&path, "[vms]\ncpu = 1\n");
        let Look::Kept(problem) = policy.look() else {
            panic!("a misspelt key was taken");
        };
        assert!(
            problem.contains("line 2") && problem.contains("cpu"),
            "{problem}"
        );
        let now = policy.current();
        assert_eq!(
            (now.vms.cpus, now.problem.as_ref()),
            (Some(8), Some(&problem))
        );
        // Said once, not at each look.
        assert_eq!(policy.look(), Look::Same);

        fs::remove_file(&path).unwrap();
        let Look::Kept(problem) = policy.look() else {
            panic!("a file that is gone opened the machine");
        };
        assert!(problem.contains("is gone"), "{problem}");
        assert_eq!(policy.current().vms.cpus, Some(8));

        write(&path, "[vms]\ncpus = 2\n");
        assert_eq!(policy.look(), Look::Changed);
        let now = policy.current();
        assert_eq!((now.vms.cpus, now.problem.as_ref()), (Some(2), None));
    }

    #[test]
    fn an_agent_does_not_start_with_a_file_that_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let refusal = || {
            let opened = PolicyFile::open(path.clone(), Vec::new());
            opened.map(drop).unwrap_err()
        };
        write(&path, "[vms]\ncount = 1\n");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(refusal(), PolicyError::OpenToAll(_)));
        write(&path, "[vms\n");
        assert!(matches!(refusal(), PolicyError::Wrong { .. }));
        write(&path, &"#".repeat(100_000));
        assert!(matches!(refusal(), PolicyError::Wrong { .. }));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(refusal(), PolicyError::Unreadable { .. }));
    }
}
