//! How the stand-in is to misbehave: `control.json`, read anew at every step, absent for good behaviour.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

/// All knobs. Commands are named as on the command line (`info --snapshots` is one of its own); `*` means all.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Knobs {
    /// Nobody listens at the socket.
    pub(crate) down: bool,
    /// The daemon hangs while it serves these, until they are taken off again: all other calls then wait too.
    pub(crate) hang: Vec<String>,
    /// The daemon takes this much longer for them, in milliseconds.
    pub(crate) slow_ms: BTreeMap<String, u64>,
    /// These print this instead of their answer and succeed; `flood` prints without end.
    pub(crate) rubbish: BTreeMap<String, String>,
    /// The daemon dies when it is to serve these, and is back after `down_ms`.
    pub(crate) crash: Vec<String>,
    /// How long a daemon that died is away.
    pub(crate) down_ms: u64,
    /// Lines that the daemon logs to every caller's standard error.
    pub(crate) noise: bool,
    /// VMs whose SSH is down, although they run.
    pub(crate) ssh_down: Vec<String>,
    /// VMs that have neither sshfs nor a way to install it.
    pub(crate) no_sshfs: Vec<String>,
    /// What becomes of launches.
    pub(crate) launch: LaunchFate,
    /// What becomes of starts and restarts.
    pub(crate) boot: BootFate,
    /// What becomes of snapshots, restores, clones and new sizes.
    pub(crate) disk: DiskFate,
    /// Time to download an image that is not cached yet.
    pub(crate) download_ms: u64,
    /// Time to prepare an image.
    pub(crate) image_ms: u64,
    /// Time from power-on until SSH answers: a launched VM is `Unknown` for most of it.
    pub(crate) boot_ms: u64,
    /// Time that cloud-init takes after that.
    pub(crate) init_ms: u64,
    /// Time that a stop takes, during which the daemon serves nobody.
    pub(crate) stop_ms: u64,
    /// Time after which the daemon gives up a stop that goes unheard.
    pub(crate) unheard_ms: u64,
    /// Time that the daemon's main thread is at work on a disk, even when the client is killed meanwhile.
    pub(crate) disk_ms: u64,
    /// Time a log-in takes.
    pub(crate) login_ms: u64,
    /// Least disk of every image, in bytes.
    pub(crate) image_disk: u64,
}

/// What becomes of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LaunchFate {
    /// The VM comes up.
    Well,
    /// `Timed out` although the VM comes up later, by itself.
    TimesOut,
    /// `Timed out`, and Multipass loses sight of the VM for good.
    Lost,
    /// QEMU fails, and the VM is left behind.
    FailsLate,
    /// The image cannot be downloaded.
    NoNetwork,
    /// The daemon dies while the VM boots, and starts it again when it is back.
    DaemonDies,
    /// The daemon dies before there is a VM.
    DaemonDiesEarly,
}

/// What becomes of a start or restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BootFate {
    /// The VM comes up.
    Well,
    /// `Timed out` although the VM comes up later, by itself.
    TimesOut,
    /// `Timed out`, and Multipass loses sight of the VM for good.
    Lost,
}

/// What becomes of work on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiskFate {
    /// It is done.
    Well,
    /// The daemon dies before it has done anything.
    DiesBefore,
    /// The daemon does it and dies before it says so.
    DiesAfter,
    /// There is no room: nothing is done.
    Full,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            down: false,
            hang: Vec::new(),
            slow_ms: BTreeMap::new(),
            rubbish: BTreeMap::new(),
            crash: Vec::new(),
            down_ms: 300,
            noise: false,
            ssh_down: Vec::new(),
            no_sshfs: Vec::new(),
            launch: LaunchFate::Well,
            boot: BootFate::Well,
            disk: DiskFate::Well,
            disk_ms: 20,
            download_ms: 0,
            image_ms: 50,
            boot_ms: 200,
            init_ms: 50,
            stop_ms: 50,
            unheard_ms: 300_000,
            login_ms: 10,
            image_disk: 512 << 20,
        }
    }
}

impl Knobs {
    /// The knobs as they stand now. A file that is no control file ends the program: a test has a mistake.
    pub(crate) fn read(folder: &Path) -> Self {
        match std::fs::read(folder.join("control.json")) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(knobs) => knobs,
                Err(error) => panic!("control.json: {error}"),
            },
            Err(_) => Self::default(),
        }
    }

    pub(crate) fn hangs(&self, command: &str) -> bool {
        names(&self.hang, command)
    }

    pub(crate) fn crashes(&self, command: &str) -> bool {
        names(&self.crash, command)
    }

    pub(crate) fn delay_ms(&self, command: &str) -> u64 {
        let of = |key: &str| self.slow_ms.get(key).copied();
        of(command).or_else(|| of("*")).unwrap_or(0)
    }
}

fn names(list: &[String], command: &str) -> bool {
    list.iter().any(|name| name == command || name == "*")
}
