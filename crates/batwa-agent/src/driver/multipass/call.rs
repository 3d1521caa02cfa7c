//! What we ever ask of Multipass: each call with its argument vector, its weight and the time it may take.
//!
//! Nothing here runs anything. Invariant: text that a user chose is the value of an option, or a positional
//! argument that was checked not to start with a hyphen, so that it never becomes an option.

use std::{ffi::OsString, fmt, time::Duration};

use batwa_api::{
    name::{SnapshotName, VmName},
    size::ByteSize,
    vm::{MountKind, NetworkCard},
};

use super::Limits;
use crate::driver::StopMode;

/// One call of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'a> {
    /// Client and daemon version.
    Version,
    /// All VMs with their states, without their addresses: the one list that logs in nowhere.
    List,
    /// One VM with addresses and usage: logs in to it.
    Info(&'a VmName),
    /// A setting of one VM.
    Get(&'a VmName, Setting),
    /// The name whose VM gets the user's home folder mounted into it.
    PrimaryName,
    /// The catalogue of images.
    Find,
    /// The machine's networks that a launch can name.
    Networks,
    /// Make and start a VM.
    Launch(Launch<'a>),
    /// Power on, or resume.
    Start(&'a VmName),
    /// Power off.
    Stop(&'a VmName, StopMode),
    /// Reboot.
    Restart(&'a VmName),
    /// Write memory to disk and power off.
    Suspend(&'a VmName),
    /// Move to the trash.
    Delete(&'a VmName),
    /// Take out of the trash.
    Recover(&'a VmName),
    /// Remove for good: this VM alone.
    Purge(&'a VmName),
    /// The snapshots of one VM, with times and sizes: logs in nowhere.
    Snapshots(&'a VmName),
    /// Keep the disk as it is.
    Snapshot(NewSnapshot<'a>),
    /// Go back to a snapshot; what the disk held since is gone.
    Restore(&'a VmName, &'a SnapshotName),
    /// Remove a snapshot.
    DeleteSnapshot(&'a VmName, &'a SnapshotName),
    /// Make another VM, the second, of the first.
    Clone(&'a VmName, &'a VmName),
    /// Change a setting of one VM.
    Set(&'a VmName, NewSize),
    /// Let a VM see a folder.
    Mount(NewMount<'a>),
    /// Take the folder at a place out of a VM, or all of them.
    Umount(&'a VmName, Option<&'a str>),
}

/// What a mount is given; both paths are whole, so neither starts with a hyphen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewMount<'a> {
    /// Which VM is to see it.
    pub(super) vm: &'a VmName,
    /// The folder.
    pub(super) source: &'a str,
    /// Where in the VM; has no colon.
    pub(super) target: &'a str,
    /// How; Multipass' own choice, which is classic, when absent.
    pub(super) kind: Option<MountKind>,
}

/// What a snapshot is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewSnapshot<'a> {
    /// Whose disk is kept.
    pub(super) vm: &'a VmName,
    /// What it is called.
    pub(super) name: &'a SnapshotName,
    /// What is to be remembered about it; may be empty.
    pub(super) comment: &'a str,
}

/// A setting of a VM with the value that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewSize {
    /// Number of virtual CPUs.
    Cpus(u32),
    /// Memory size.
    Memory(ByteSize),
    /// Disk size.
    Disk(ByteSize),
}

/// A setting of a VM that `info` does not show while it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// Number of virtual CPUs.
    Cpus,
    /// Memory size.
    Memory,
    /// Disk size.
    Disk,
}

/// What a launch is given; user-data goes to its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Launch<'a> {
    /// The new VM.
    pub(super) vm: &'a VmName,
    /// As Multipass names it; never starts with a hyphen.
    pub(super) image: &'a str,
    /// Number of virtual CPUs.
    pub(super) cpus: u32,
    /// Memory size.
    pub(super) memory: ByteSize,
    /// Disk size.
    pub(super) disk: ByteSize,
    /// Where user-data comes from.
    pub(super) user_data: UserDataFrom,
    /// Network cards beside the first, whose names have no comma and begin with no hyphen.
    pub(super) networks: &'a [NetworkCard],
}

/// Where a launch finds user-data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserDataFrom {
    /// There is none.
    Nowhere,
    /// Its standard input: nothing secret lies on a disk, and a confined client can read it.
    Stdin,
}

/// What a call costs the daemon, which serves one request at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Answered from memory within some hundredths of a second.
    Quick,
    /// Takes a log-in to a VM, or a look at an image server.
    Look,
    /// Keeps the daemon from everything else until it is done.
    Heavy,
    /// Mostly waits for a VM to boot, which the daemon does beside other work.
    Boot,
    /// As boot, after the download and the making of an image.
    Launch,
}

impl Call<'_> {
    /// The arguments after the program's name.
    pub(super) fn argv(&self, limits: &Limits) -> Vec<OsString> {
        let words: Vec<String> = match self {
            Self::Version => words(&["version", "--format", "json"]),
            Self::List => words(&["list", "--no-ipv4", "--format", "json"]),
            Self::Info(vm) => words(&["info", vm.as_str(), "--format", "json"]),
            Self::Get(vm, setting) => vec!["get".to_owned(), format!("local.{vm}.{setting}")],
            Self::PrimaryName => words(&["get", "client.primary-name"]),
            Self::Find => words(&["find", "--format", "json"]),
            Self::Networks => words(&["networks", "--format", "json"]),
            Self::Launch(launch) => launch.argv(limits.launch),
            Self::Start(vm) => words(&["start", vm.as_str(), "--timeout", &seconds(limits.boot)]),
            Self::Stop(vm, StopMode::Graceful) => words(&["stop", vm.as_str()]),
            Self::Stop(vm, StopMode::Forced) => words(&["stop", vm.as_str(), "--force"]),
            Self::Restart(vm) => {
                words(&["restart", vm.as_str(), "--timeout", &seconds(limits.boot)])
            }
            Self::Suspend(vm) => words(&["suspend", vm.as_str()]),
            Self::Delete(vm) => words(&["delete", vm.as_str()]),
            Self::Recover(vm) => words(&["recover", vm.as_str()]),
            Self::Purge(vm) => words(&["delete", "--purge", vm.as_str()]),
            Self::Snapshots(vm) => words(&["info", vm.as_str(), "--snapshots", "--format", "json"]),
            Self::Snapshot(new) => new.argv(),
            Self::Restore(vm, snapshot) => {
                words(&["restore", &format!("{vm}.{snapshot}"), "--destructive"])
            }
            Self::DeleteSnapshot(vm, snapshot) => {
                words(&["delete", "--purge", &format!("{vm}.{snapshot}")])
            }
            Self::Clone(vm, target) => words(&["clone", vm.as_str(), "--name", target.as_str()]),
            Self::Set(vm, size) => vec![
                "set".to_owned(),
                format!("local.{vm}.{}={}", size.setting(), size.value()),
            ],
            Self::Mount(new) => new.argv(),
            Self::Umount(vm, Some(target)) => words(&["umount", &format!("{vm}:{target}")]),
            Self::Umount(vm, None) => words(&["umount", vm.as_str()]),
        };
        words.into_iter().map(OsString::from).collect()
    }

    /// The word that its complaints begin with.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::List => "list",
            Self::Info(_) | Self::Snapshots(_) => "info",
            Self::Get(..) | Self::PrimaryName => "get",
            Self::Find => "find",
            Self::Networks => "networks",
            Self::Launch(_) => "launch",
            Self::Start(_) => "start",
            Self::Stop(..) => "stop",
            Self::Restart(_) => "restart",
            Self::Suspend(_) => "suspend",
            Self::Delete(_) | Self::Purge(_) | Self::DeleteSnapshot(..) => "delete",
            Self::Recover(_) => "recover",
            Self::Snapshot(_) => "snapshot",
            Self::Restore(..) => "restore",
            Self::Clone(..) => "clone",
            Self::Set(..) => "set",
            Self::Mount(_) => "mount",
            Self::Umount(..) => "umount",
        }
    }

    /// The VM it is about.
    pub(super) fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Version | Self::List | Self::PrimaryName | Self::Find | Self::Networks => None,
            Self::Launch(launch) => Some(launch.vm),
            Self::Snapshot(new) => Some(new.vm),
            Self::Mount(new) => Some(new.vm),
            Self::Umount(vm, _)
            | Self::Snapshots(vm)
            | Self::Restore(vm, _)
            | Self::DeleteSnapshot(vm, _)
            | Self::Clone(vm, _)
            | Self::Set(vm, _)
            | Self::Info(vm)
            | Self::Get(vm, _)
            | Self::Start(vm)
            | Self::Stop(vm, _)
            | Self::Restart(vm)
            | Self::Suspend(vm)
            | Self::Delete(vm)
            | Self::Recover(vm)
            | Self::Purge(vm) => Some(vm),
        }
    }

    /// The snapshot it is about.
    pub(super) fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Snapshot(new) => Some(new.name),
            Self::Restore(_, snapshot) | Self::DeleteSnapshot(_, snapshot) => Some(snapshot),
            _ => None,
        }
    }

    /// The VM that it makes.
    pub(super) fn makes(&self) -> Option<&VmName> {
        match self {
            Self::Launch(launch) => Some(launch.vm),
            Self::Clone(_, target) => Some(target),
            _ => None,
        }
    }

    /// What it costs the daemon.
    pub(super) fn weight(&self) -> Weight {
        match self {
            Self::Version
            | Self::List
            | Self::Get(..)
            | Self::PrimaryName
            | Self::Networks
            | Self::Snapshots(_) => Weight::Quick,
            Self::Info(_) | Self::Find => Weight::Look,
            Self::Stop(..)
            | Self::Suspend(_)
            | Self::Delete(_)
            | Self::Recover(_)
            | Self::Purge(_)
            | Self::Snapshot(_)
            | Self::Restore(..)
            | Self::DeleteSnapshot(..)
            | Self::Clone(..)
            | Self::Set(..)
            | Self::Mount(_)
            | Self::Umount(..) => Weight::Heavy,
            Self::Start(_) | Self::Restart(_) => Weight::Boot,
            Self::Launch(_) => Weight::Launch,
        }
    }

    /// The longest it may take before its client is killed and the daemon counts as silent.
    pub(super) fn deadline(&self, limits: &Limits) -> Duration {
        match self.weight() {
            // The whole disk is copied.
            Weight::Heavy if matches!(self, Self::Clone(..)) => limits.copy,
            Weight::Quick => limits.quick,
            Weight::Look => limits.look,
            Weight::Heavy => limits.heavy,
            // Multipass' own time-out ends them first, unless the daemon hangs.
            Weight::Boot => limits.boot + limits.look,
            Weight::Launch => limits.launch + limits.look,
        }
    }
}

impl fmt::Display for Call<'_> {
    /// As a person would say it: `stop web`, `restore web.snapshot1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command())?;
        if let Some(vm) = self.vm() {
            write!(f, " {vm}")?;
        }
        match self.snapshot() {
            Some(snapshot) => write!(f, ".{snapshot}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpus => "cpus",
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

impl NewSnapshot<'_> {
    fn argv(&self) -> Vec<String> {
        let mut argv = words(&["snapshot", self.vm.as_str(), "--name", self.name.as_str()]);
        if !self.comment.is_empty() {
            // The word after the option is its value, whatever it begins with.
            argv.extend(words(&["--comment", self.comment]));
        }
        argv
    }
}

impl NewMount<'_> {
    fn argv(&self) -> Vec<String> {
        let target = format!("{}:{}", self.vm, self.target);
        let mut argv = words(&["mount", self.source, &target]);
        if let Some(kind) = self.kind {
            argv.extend(words(&["--type", kind.as_str()]));
        }
        argv
    }
}

impl NewSize {
    /// The setting that has it.
    pub(super) fn setting(self) -> Setting {
        match self {
            Self::Cpus(_) => Setting::Cpus,
            Self::Memory(_) => Setting::Memory,
            Self::Disk(_) => Setting::Disk,
        }
    }

    /// As Multipass reads it.
    fn value(self) -> String {
        match self {
            Self::Cpus(cpus) => cpus.to_string(),
            Self::Memory(bytes) | Self::Disk(bytes) => size(bytes),
        }
    }
}

impl Launch<'_> {
    fn argv(&self, limit: Duration) -> Vec<String> {
        let mut argv = words(&[
            "launch",
            "--name",
            self.vm.as_str(),
            "--cpus",
            &self.cpus.to_string(),
            "--memory",
            &size(self.memory),
            "--disk",
            &size(self.disk),
            "--timeout",
            &seconds(limit),
        ]);
        if self.user_data == UserDataFrom::Stdin {
            argv.extend(words(&["--cloud-init", "-"]));
        }
        for card in self.networks {
            argv.extend(["--network".to_owned(), network(card)]);
        }
        argv.push(self.image.to_owned());
        argv
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A network card as Multipass reads it: what follows a comma needs the name's own key too.
fn network(card: &NetworkCard) -> String {
    let mut text = format!("name={},mode={}", card.name, card.mode.as_str());
    if let Some(mac) = card.mac {
        text.push_str(&format!(",mac={mac}"));
    }
    text
}

/// Whole seconds, at least one: Multipass refuses 0.
fn seconds(duration: Duration) -> String {
    duration.as_secs().max(1).to_string()
}

/// A size that Multipass reads back to the byte: the largest unit that divides it.
fn size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests;
