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
//! said, a file that is taken away or emptied included, and says so; and what is written at this moment is not read. So a
//! slip of the pen never opens what was closed.

mod check;
mod file;
mod folder;
mod listen;
mod network;

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
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
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The policy of this machine, as its file says now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Folders with image files that the settings name beside the file.
    image_dirs: Vec<PathBuf>,
    now: RwLock<Arc<Policy>>,
    seen: Mutex<Seen>,
}

/// What is known of the file from looking at it.
#[derive(Debug, Default)]
struct Seen {
    /// As it was when it was last read, whatever came of that.
    read: Option<Stamp>,
    /// As it was at the last look, where that was something else: it may be in the midst of being written.
    changing: Option<Option<Stamp>>,
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
        let policy = read(&path, &image_dirs)?
            .map_or_else(|| default(&path, &image_dirs), |(policy, _)| policy);
        Ok(Self(Arc::new(Inner {
            now: RwLock::new(Arc::new(policy)),
            seen: Mutex::new(Seen {
                read: seen,
                changing: None,
            }),
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
            seen: Mutex::default(),
        }))
    }

    /// What holds now.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file anew, whether it seems changed or not. One that was taken away or emptied opens nothing: what it
    /// said holds until it says something else, or the agent starts again.
    pub fn reload(&self) -> Look {
        *self.seen() = Seen {
            read: stamp(&self.0.path),
            changing: None,
        };
        let before = self.current();
        let problem = match read(&self.0.path, &self.0.image_dirs) {
            Ok(Some((policy, Text::Some))) => return self.put(&before, policy),
            Ok(Some((policy, Text::None))) if !before.written || policy == *before => {
                return self.put(&before, policy);
            }
            Ok(Some((_, Text::None))) => format!(
                "the policy file `{}` is empty: what it said holds; where nothing is to be closed any more, say so in a \
                 comment in it",
                self.0.path.display()
            ),
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

    /// Reads the file anew if it is another one than when it was last read, and the same as at the last look.
    fn look(&self) -> Look {
        let now = stamp(&self.0.path);
        {
            let mut seen = self.seen();
            if now == seen.read {
                seen.changing = None;
                return Look::Same;
            }
            if seen.changing.replace(now) != Some(now) {
                return Look::Same;
            }
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

/// Whether somebody wrote anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Some,
    None,
}

/// What the file says; `None` when there is none.
fn read(path: &Path, image_dirs: &[PathBuf]) -> Result<Option<(Policy, Text)>, PolicyError> {
    use std::io::{self, ErrorKind, Read};
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
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(PolicyError::OpenToAll(path.to_owned()));
    }
    let mut text = String::new();
    file.take(file::MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let mut policy = file::parse(path, &text)?;
    add_dirs(&mut policy, image_dirs);
    let written = if text.trim().is_empty() {
        Text::None
    } else {
        Text::Some
    };
    Ok(Some((policy, written)))
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

    /// Two looks: a change holds once both saw the same.
    fn look_twice(policy: &PolicyFile) -> Look {
        assert_eq!(policy.look(), Look::Same, "one look is not enough");
        policy.look()
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write(&path, "[vms]\ncpus = 4\ncount = 1\n");
        let policy = PolicyFile::open(path.clone(), Vec::new()).unwrap();
        write(&path, "[vms]\ncpus = 4\n");
        assert_eq!(policy.look(), Look::Same);
        write(&path, "[vms]\ncpus = 4\ncount = 2\n");
        assert_eq!(look_twice(&policy), Look::Changed);
        assert_eq!(policy.current().vms.count, Some(2));
    }

    #[test]
    fn an_emptied_file_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let policy = PolicyFile::open(path.clone(), Vec::new()).unwrap();
        write(&path, "");
        assert_eq!(
            look_twice(&policy),
            Look::Changed,
            "nobody wrote any before"
        );
        write(&path, "[vms]\ncpus = 4\n");
        assert_eq!(look_twice(&policy), Look::Changed);
        for empty in ["", "\n \n"] {
            write(&path, empty);
            let Look::Kept(problem) = look_twice(&policy) else {
                panic!("an empty file opened the machine");
            };
            assert!(problem.contains("is empty"), "{problem}");
            let now = policy.current();
            assert_eq!(
                (now.vms.cpus, now.problem.as_ref()),
                (Some(4), Some(&problem))
            );
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let Look::Kept(problem) = look_twice(&policy) else {
            panic!("no file at all opened the machine");
        };
        assert!(problem.contains("no regular file"), "{problem}");
        assert_eq!(policy.current().vms.cpus, Some(4));
        fs::remove_file(&path).unwrap();
        write(&path, "# open to all\n");
        assert_eq!(look_twice(&policy), Look::Changed);
        assert_eq!(policy.current().vms.cpus, None);
    }

    #[test]
    fn a_changed_file_holds_once_it_stays_and_a_bad_one_keeps_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write(&path, "[vms]\ncpus = 4\n");
        let policy = PolicyFile::open(path.clone(), Vec::new()).unwrap();
        assert_eq!(policy.current().vms.cpus, Some(4));
        assert_eq!(policy.look(), Look::Same);

        write(&path, "[vms]\ncpus = 8\n");
        assert_eq!(look_twice(&policy), Look::Changed);
        assert_eq!(policy.current().vms.cpus, Some(8));

        write(&path, "[vms]\ncpu = 1\n");
        let Look::Kept(problem) = look_twice(&policy) else {
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
        let Look::Kept(problem) = look_twice(&policy) else {
            panic!("a file that is gone opened the machine");
        };
        assert!(problem.contains("is gone"), "{problem}");
        assert_eq!(policy.current().vms.cpus, Some(8));

        write(&path, "[vms]\ncpus = 2\n");
        assert_eq!(look_twice(&policy), Look::Changed);
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
