//! Processes under test: started, watched and ended by their own handle.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    process::{Pid, Signal, kill_process, kill_process_group},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::lab::within;

/// Where a process may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Wherever the system likes.
    Anywhere,
    /// On one CPU.
    Cpu(usize),
}

/// One process, with everything it starts; both end with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; its output and messages go to the file `log`.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        env: &[(&str, String)],
        log: &Path,
        pin: Pin,
    ) -> anyhow::Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the agent's command.rs ends what it runs; these outlive the call"
        )]
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        // A child takes over the CPUs of the thread that starts it.
        let ours = sched_getaffinity(None)?;
        if let Pin::Cpu(cpu) = pin {
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one)?;
        }
        let child = command.spawn();
        sched_setaffinity(None, &ours)?;
        Ok(Self {
            child: child.with_context(|| format!("cannot start {}", program.display()))?,
            log: log.to_owned(),
        })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process has no id")
    }

    /// Stops it from running at all, as a machine does that hangs.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Ends it at once, as a power cut does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end; what it printed.
    pub(crate) async fn finish(&mut self, deadline: Duration) -> anyhow::Result<String> {
        let ended = within(deadline, async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let status = ended.await?;
        anyhow::ensure!(
            status.success(),
            "it failed ({status}): {}",
            self.last_words()
        );
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Memory it has in use, in MB.
    pub(crate) fn memory_mb(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("the kernel does not say how much memory a process has")?
            .parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// An error with the last lines it printed, when it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("it ended ({status}): {}", self.last_words());
        }
        Ok(())
    }

    /// The last lines it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
