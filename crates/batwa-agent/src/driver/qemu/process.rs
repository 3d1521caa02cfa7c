//! QEMU processes that are not our children: who they are, whether they live, and their end.
//!
//! A process id says nothing once its process is gone: it may be given to another. A process counts as a VM's only
//! while its command line holds the VM's instance id.

use std::{fs, time::Duration};

use batwa_api::size::ByteSize;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::record::{VmDir, file};

/// How often a process is looked at where the system cannot tell us of its end.
const POLL: Duration = Duration::from_millis(200);

/// A process that was seen to be the QEMU of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pid: Pid,
    instance: Uuid,
}

impl Process {
    /// The VM's process by its pid file, if it lives.
    pub(super) fn of(dir: &VmDir, instance: Uuid) -> Option<Self> {
        let text = fs::read_to_string(dir.file(file::PID)).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let process = Self { pid, instance };
        process.lives().then_some(process)
    }

    /// The process `id` that we started for the VM, if it lives.
    pub(super) fn started(id: u32, instance: Uuid) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(id).ok()?)?;
        Some(Self { pid, instance })
    }

    /// Looks through all processes: finds one whose pid file is lost, or not written yet.
    pub(super) fn search(instance: Uuid) -> Option<Self> {
        fs::read_dir("/proc")
            .ok()?
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .map(|pid| Self { pid, instance })
            .find(|process| process.lives())
    }

    /// Whether it still is that process, and no corpse.
    pub(super) fn lives(&self) -> bool {
        let pid = self.pid.as_raw_nonzero();
        if !cfg!(target_os = "linux") {
            return rustix::process::test_kill_process(self.pid).is_ok();
        }
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        // A corpse that nobody has collected yet has an empty command line.
        has_argument(&arguments, &self.instance.to_string())
    }

    /// The memory it holds, where the system says.
    pub(super) fn memory(&self) -> Option<ByteSize> {
        let pid = self.pid.as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(ByteSize::bytes(kib.checked_mul(1024)?))
    }

    /// Kills it; one that is gone is success.
    pub(super) fn kill(&self) {
        if self.lives() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(&self) {
        #[cfg(target_os = "linux")]
        if self.ended_by_descriptor().await {
            return;
        }
        while self.lives() {
            sleep(POLL).await;
        }
    }

    /// Lets the system tell of the end; false where it cannot.
    #[cfg(target_os = "linux")]
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; an owned descriptor is what both ask for"
    )]
    async fn ended_by_descriptor(&self) -> bool {
        use rustix::process::{PidfdFlags, pidfd_open};
        use tokio::io::{Interest, unix::AsyncFd};
        let Ok(fd) = pidfd_open(self.pid, PidfdFlags::NONBLOCK) else {
            return !self.lives();
        };
        // Only now is it sure that the descriptor is of the process that was meant.
        if !self.lives() {
            return true;
        }
        match AsyncFd::with_interest(fd, Interest::READABLE) {
            Ok(fd) => fd.readable().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Waits for its end; says whether it came before `patience` was over.
    pub(super) async fn ended_within(&self, patience: Duration) -> bool {
        tokio::time::timeout_at(Instant::now() + patience, self.ended())
            .await
            .is_ok()
    }
}

/// Whether one of the NUL-terminated arguments is `wanted`.
fn has_argument(arguments: &[u8], wanted: &str) -> bool {
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_a_whole_argument() {
        assert!(has_argument(b"qemu\0-uuid\0abc\0", "abc"));
        assert!(!has_argument(b"qemu\0-uuid\0abcd\0", "abc"));
        assert!(!has_argument(b"", "abc"));
    }

    #[test]
    fn a_pid_file_that_names_somebody_else_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let vm = VmDir::of(dir.path(), &batwa_api::name::VmName::parse("web").unwrap());
        fs::create_dir(vm.path()).unwrap();
        fs::write(vm.file(file::PID), std::process::id().to_string()).unwrap();
        assert_eq!(Process::of(&vm, Uuid::now_v7()), None);
    }
}
