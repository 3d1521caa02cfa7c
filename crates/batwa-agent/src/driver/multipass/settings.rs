//! How Multipass is found and how much is asked of it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::policy::PolicyFile;

/// How the driver finds Multipass and how much it asks of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program; looked up in `PATH` when it has no slash.
    pub program: PathBuf,
    /// Times and numbers.
    pub limits: Limits,
    /// Whether and how a silent daemon may be restarted: the machine's owner decides, nobody by default.
    pub restart: Option<RestartPolicy>,
    /// Whether images may be files of this machine and URLs.
    pub custom_images: CustomImages,
    /// What may be asked here: where such images may come from.
    pub policy: PolicyFile,
}

/// Whether images may be others than those of Multipass' catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomImages {
    /// No: the daemon reads files as root, and fetches from anywhere.
    Refused,
    /// `file://`, `http://` and `https://` work too.
    Allowed,
}

/// Restarts the daemon when it has been silent for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    pub(super) command: Vec<OsString>,
    pub(super) after: Duration,
}

impl RestartPolicy {
    /// Restarts with `command` (program and arguments) once the daemon has been silent for `after`, and again
    /// each time that long when it did not help; `None` without a program.
    #[must_use]
    pub fn new(command: Vec<OsString>, after: Duration) -> Option<Self> {
        (!command.is_empty()).then_some(Self { command, after })
    }
}

/// Times and numbers of the driver; the defaults suit real machines, tests make them short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For an answer from the daemon's memory. Beside launches it stalls for some 4 s, with three of them 14 s.
    pub quick: Duration,
    /// For a log-in to a VM, or a look at an image server.
    pub look: Duration,
    /// For a stop and the like: the daemon gives up by itself after 5 minutes.
    pub heavy: Duration,
    /// For a start or restart, until the VM answers.
    pub boot: Duration,
    /// For the copy of a whole disk.
    pub copy: Duration,
    /// For a launch, with the download of its image and cloud-init.
    pub launch: Duration,
    /// How long a VM is watched that Multipass has given up, before we do too.
    pub late: Duration,
    /// How long a VM may take to show the state that Multipass says it has.
    pub settle: Duration,
    /// How long the daemon may be away in the middle of an action, as when it crashed and is started again.
    pub comeback: Duration,
    /// How long a VM may take to appear after its launch was cut off.
    pub appear: Duration,
    /// How long work waits for a silent daemon before it fails.
    pub patience: Duration,
    /// Between questions to a silent daemon.
    pub retry: Duration,
    /// Between looks at a VM that an action waits for.
    pub poll: Duration,
    /// Launches at once.
    pub launches: usize,
    /// Starts and restarts at once.
    pub boots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            quick: Duration::from_secs(20),
            look: Duration::from_secs(30),
            heavy: MINUTE * 5 + MINUTE / 2,
            boot: MINUTE * 10,
            copy: MINUTE * 60,
            launch: MINUTE * 60,
            late: MINUTE * 5,
            settle: Duration::from_secs(10),
            comeback: MINUTE * 2,
            appear: Duration::from_secs(15),
            patience: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            poll: Duration::from_secs(2),
            launches: 2,
            boots: 2,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: find_program(),
            limits: Limits::default(),
            restart: None,
            custom_images: CustomImages::Refused,
            policy: PolicyFile::default(),
        }
    }
}

/// Multipass where `PATH` has it, else where its packages put it: a service's `PATH` seldom names those.
fn find_program() -> PathBuf {
    let name = Path::new("multipass");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/snap/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| name.to_owned())
}
