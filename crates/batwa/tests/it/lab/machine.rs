//! A booted machine of its own: a container that runs a real systemd on this system's own `/usr` with an empty `/etc`, so
//! that what is tried there touches nothing of the machine. Needs root and `systemd-nspawn`;
//! `BATWA_TEST_SYSTEMD=require` makes it an error not to have them.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

use super::{Process, ProcessBuilder, until};

/// The repository.
pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Where the container sees the binary and the repository's `deploy/`: as in a copy of the repository that was built.
pub(crate) const COPY: &str = "/opt/copy";

/// A booted container; gone with this value.
pub(crate) struct Machine {
    _container: Process,
    leader: u32,
}

/// Which networks a machine is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Networks {
    /// Those of this machine: package servers are reached, ports are shared.
    Shared,
    /// None but its own loopback.
    Own,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What boots outlives `systemd-nspawn` when that is killed; all else in the container ends with it.
        let leader = i32::try_from(self.leader).ok().and_then(Pid::from_raw);
        if let Some(leader) = leader {
            let _ = kill_process(leader, Signal::KILL);
        }
    }
}

impl Machine {
    /// Boots one; where there can be none the test is skipped aloud, or fails where it must not be.
    #[expect(clippy::print_stdout, reason = "skipping is said aloud")]
    pub(crate) async fn boot(name: &str, networks: Networks) -> Option<Self> {
        let required = std::env::var("BATWA_TEST_SYSTEMD").is_ok_and(|text| text == "require");
        match Self::try_boot(name, networks).await {
            Ok(machine) => Some(machine),
            Err(reason) if required => panic!("no real systemd can be booted: {reason}"),
            Err(reason) => {
                println!("SKIPPED: a real systemd: {reason}");
                None
            }
        }
    }

    async fn try_boot(name: &str, networks: Networks) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        for path in ["/usr/bin/systemd-nspawn", "/lib/systemd/systemd"] {
            if !Path::new(path).exists() {
                return Err(format!("there is no {path}"));
            }
        }
        let name = format!("batwa-{name}-{}", std::process::id());
        let mut builder = ProcessBuilder::program("systemd-nspawn")
            .args([
                "--register=no",
                "--keep-unit",
                "--directory=/",
                "--volatile=yes",
                "--boot",
            ])
            .arg(format!("--machine={name}"))
            .args(["--tmpfs=/usr/local:mode=755", "--link-journal=no"])
            .arg(format!(
                "--bind-ro={}:{COPY}/target/release/batwa",
                env!("CARGO_BIN_EXE_batwa")
            ))
            .arg(format!("--bind-ro={REPOSITORY}/deploy:{COPY}/deploy"));
        builder = match networks {
            Networks::Own => builder.arg("--private-network"),
            Networks::Shared => {
                // What making the image `tiny` reads: this system's package sources.
                let sources = ["/etc/apt", "/var/lib/apt", "/var/lib/dpkg", "/etc/ssl"];
                let there = sources.into_iter().filter(|path| Path::new(path).exists());
                builder
                    .arg("--resolv-conf=copy-host")
                    .args(there.map(|path| format!("--bind-ro={path}")))
            }
        };
        let container = builder
            .args(["systemd.unit=basic.target", "systemd.firstboot=no"])
            .start();
        let children = format!("/proc/{0}/task/{0}/children", container.id());
        let mut machine = Self {
            _container: container,
            leader: 0,
        };
        // The first child only prepares the container; its own child is what boots.
        until("systemd answers", async || {
            let text = fs::read_to_string(&children).unwrap_or_default();
            machine.leader = text.split_whitespace().last()?.parse().ok()?;
            let state = machine
                .run(&["systemctl", "is-system-running"])
                .await
                .ok()?;
            ["running", "degraded"]
                .contains(&state.trim())
                .then_some(())
        })
        .await;
        Ok(machine)
    }

    /// A command to be run inside.
    pub(crate) fn inside(&self, words: &[&str]) -> ProcessBuilder {
        ProcessBuilder::program("nsenter")
            .args(["--all", "--target", &self.leader.to_string()])
            .args(words)
    }

    /// Runs a command inside; its output, or what it complained of. An exit status of `systemctl is-…` is no complaint.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<String, String> {
        let ended = self.inside(words).run().await;
        let is_question = words.iter().any(|word| word.starts_with("is-"));
        if ended.code == Some(0) || is_question {
            Ok(ended.stdout)
        } else {
            Err(format!(
                "{words:?}: {:?}\n{}{}",
                ended.code, ended.stdout, ended.stderr
            ))
        }
    }

    /// Runs a command inside that must succeed.
    pub(crate) async fn does(&self, words: &[&str]) -> String {
        match self.run(words).await {
            Ok(output) => output,
            Err(complaint) => {
                let journal = self.run(&["journalctl", "--no-pager", "-n", "60"]).await;
                panic!("{complaint}\n--- journal\n{}", journal.unwrap_or_default());
            }
        }
    }

    /// What systemd says of a unit.
    pub(crate) async fn property(&self, unit: &str, name: &str) -> String {
        let line = format!("--property={name}");
        let value = self
            .does(&["systemctl", "show", "--value", &line, unit])
            .await;
        value.trim().to_owned()
    }

    /// Writes a file inside.
    pub(crate) async fn write(&self, path: &str, mode: &str, text: &str) {
        let ended = self
            .inside(&["install", "-D", "-m", mode, "/dev/stdin", path])
            .stdin(text)
            .run()
            .await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}
