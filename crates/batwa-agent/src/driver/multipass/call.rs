//! What we ever ask of Multipass: each call with its argument vector, its weight and the time it may take.
//!
//! Nothing here runs anything. Invariant: text that a user chose is the value of an option, or a positional
//! argument that was checked not to start with a hyphen, so that it never becomes an option.

use std::{ffi::OsString, fmt, time::Duration};

use batwa_api::{name::VmName, size::ByteSize};

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
        };
        words.into_iter().map(OsString::from).collect()
    }

    /// The word that its complaints begin with.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::List => "list",
            Self::Info(_) => "info",
            Self::Get(..) | Self::PrimaryName => "get",
            Self::Find => "find",
            Self::Launch(_) => "launch",
            Self::Start(_) => "start",
            Self::Stop(..) => "stop",
            Self::Restart(_) => "restart",
            Self::Suspend(_) => "suspend",
            Self::Delete(_) | Self::Purge(_) => "delete",
            Self::Recover(_) => "recover",
        }
    }

    /// The VM it is about.
    pub(super) fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Version | Self::List | Self::PrimaryName | Self::Find => None,
            Self::Launch(launch) => Some(launch.vm),
            Self::Info(vm)
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

    /// What it costs the daemon.
    pub(super) fn weight(&self) -> Weight {
        match self {
            Self::Version | Self::List | Self::Get(..) | Self::PrimaryName => Weight::Quick,
            Self::Info(_) | Self::Find => Weight::Look,
            Self::Stop(..)
            | Self::Suspend(_)
            | Self::Delete(_)
            | Self::Recover(_)
            | Self::Purge(_) => Weight::Heavy,
            Self::Start(_) | Self::Restart(_) => Weight::Boot,
            Self::Launch(_) => Weight::Launch,
        }
    }

    /// The longest it may take before its client is killed and the daemon counts as silent.
    pub(super) fn deadline(&self, limits: &Limits) -> Duration {
        match self.weight() {
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
    /// As a person would say it: `stop web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vm() {
            Some(vm) => write!(f, "{} {vm}", self.command()),
            None => f.write_str(self.command()),
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
        argv.push(self.image.to_owned());
        argv
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
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
mod tests {
    use super::*;

    fn line(call: Call<'_>) -> String {
        let argv: Vec<_> = call
            .argv(&Limits::default())
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        format!("{:?} {}", call.weight(), argv.join(" "))
    }

    #[test]
    fn every_call_has_its_argument_vector_and_weight() {
        let vm = &VmName::parse("web").unwrap();
        let launch = Launch {
            vm,
            image: "24.04",
            cpus: 2,
            memory: ByteSize::mib(1536),
            disk: ByteSize::bytes(5_000_000_001),
            user_data: UserDataFrom::Nowhere,
        };
        let calls = [
            Call::Version,
            Call::List,
            Call::Info(vm),
            Call::Get(vm, Setting::Cpus),
            Call::Get(vm, Setting::Memory),
            Call::Get(vm, Setting::Disk),
            Call::PrimaryName,
            Call::Find,
            Call::Launch(launch),
            Call::Launch(Launch {
                disk: ByteSize::gib(8),
                user_data: UserDataFrom::Stdin,
                ..launch
            }),
            Call::Start(vm),
            Call::Stop(vm, StopMode::Graceful),
            Call::Stop(vm, StopMode::Forced),
            Call::Restart(vm),
            Call::Suspend(vm),
            Call::Delete(vm),
            Call::Recover(vm),
            Call::Purge(vm),
        ];
        let lines: Vec<_> = calls.into_iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        Quick version --format json
        Quick list --no-ipv4 --format json
        Look info web --format json
        Quick get local.web.cpus
        Quick get local.web.memory
        Quick get local.web.disk
        Quick get client.primary-name
        Look find --format json
        Launch launch --name web --cpus 2 --memory 1536M --disk 5000000001 --timeout 3600 24.04
        Launch launch --name web --cpus 2 --memory 1536M --disk 8G --timeout 3600 --cloud-init - 24.04
        Boot start web --timeout 600
        Heavy stop web
        Heavy stop web --force
        Boot restart web --timeout 600
        Heavy suspend web
        Heavy delete web
        Heavy recover web
        Heavy delete --purge web
        ");
    }

    #[test]
    fn sizes_are_written_so_that_no_byte_is_lost() {
        for bytes in [
            1,
            1023,
            1 << 10,
            600 << 20,
            1500 << 20,
            3 << 29,
            5 << 30,
            5_000_000_001,
        ] {
            let written = size(ByteSize::bytes(bytes));
            assert_eq!(written.parse(), Ok(ByteSize::bytes(bytes)), "{written}");
        }
    }

    #[test]
    fn quick_calls_go_before_heavy_ones() {
        assert!(Weight::Quick < Weight::Look && Weight::Look < Weight::Heavy);
    }

    #[test]
    fn every_deadline_is_above_the_time_multipass_gives_itself() {
        let limits = Limits::default();
        let vm = VmName::parse("web").unwrap();
        // A stop that goes unheard is given up by the daemon after 5 minutes.
        assert!(Call::Stop(&vm, StopMode::Graceful).deadline(&limits) > Duration::from_secs(300));
        assert!(Call::Start(&vm).deadline(&limits) > limits.boot);
    }
}
