//! From power-on to ready: what a VM is waited for, and what is said when it does not come.
//!
//! ```text
//! booting ──console speaks──► waiting for SSH ──answers──► cloud-init ──done──► ready
//! ```

use std::time::Duration;

use batwa_api::vm::Readiness;
use tokio::time::{Instant, sleep, timeout};

use super::{
    console,
    process::Process,
    record::{VmDir, file},
    ssh::{Output, Session, SshError, Target},
};

/// How long a VM may take until SSH answers, under KVM.
const BOOT_KVM: Duration = Duration::from_secs(5 * 60);
/// The same when every instruction is emulated, perhaps on a busy machine.
const BOOT_TCG: Duration = Duration::from_secs(20 * 60);
/// How long cloud-init may work after that: it may install many packages.
const CLOUD_INIT: Duration = Duration::from_secs(60 * 60);
/// One try to sign in, once somebody answers; an emulated processor takes seconds over the key exchange.
const CONNECT: Duration = Duration::from_secs(30);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(200);
/// A VM that prints nothing for this long under KVM does not run.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// Lines of log that an error carries.
const LOG_LINES: usize = 20;

/// How far a VM has come since its power-on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Health {
    /// Nothing answers yet; whether the console has spoken.
    Booting {
        /// The kernel, or what comes before it, has printed something.
        spoke: bool,
    },
    /// SSH answers, cloud-init works.
    CloudInit,
    /// All is done; what cloud-init said when it failed.
    Ready {
        /// Why not all is as asked.
        complaint: Option<Complaint>,
    },
    /// Given up on, though it runs.
    Unreachable(Complaint),
    /// Nothing was heard on the console, though KVM was to run it.
    Silent,
    /// Its process ended meanwhile.
    Ended,
}

/// What went wrong in a VM that runs, with the lines that tell more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Complaint {
    /// For people.
    pub(super) text: String,
    /// The last lines of console or cloud-init.
    pub(super) log: Vec<String>,
}

impl Health {
    /// The same in the API's words.
    pub(super) fn readiness(&self) -> Readiness {
        match self {
            Self::Booting { .. } | Self::Silent | Self::Ended => Readiness::Booting,
            Self::CloudInit => Readiness::CloudInit,
            Self::Ready { .. } => Readiness::Ready,
            Self::Unreachable(_) => Readiness::Unreachable,
        }
    }

    /// What is wrong, if anything is.
    pub(super) fn complaint(&self) -> Option<&Complaint> {
        match self {
            Self::Ready { complaint } => complaint.as_ref(),
            Self::Unreachable(complaint) => Some(complaint),
            _ => None,
        }
    }

    /// Whether nothing further will come.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Booting { .. } | Self::CloudInit)
    }
}

/// What is watched.
pub(super) struct Boot {
    /// The VM's folder.
    pub(super) dir: VmDir,
    /// Its process.
    pub(super) process: Process,
    /// Where SSH will answer.
    pub(super) target: Target,
    /// Whether KVM runs it, which is doubted until the console speaks.
    pub(super) kvm: bool,
}

impl Boot {
    /// Watches a VM from power-on until nothing further will come, and tells each step. Starting anew in the middle
    /// finds out where it stands.
    pub(super) async fn watch(&self, mut tell: impl FnMut(Health)) {
        let last = tokio::select! {
            last = self.follow(&mut tell) => last,
            () = self.process.ended() => Health::Ended,
        };
        tell(last);
    }

    async fn follow(&self, tell: &mut impl FnMut(Health)) -> Health {
        let session = match self.sign_in(tell).await {
            Ok(session) => session,
            Err(last) => return last,
        };
        tell(Health::CloudInit);
        let waited = timeout(CLOUD_INIT, self.cloud_init(&session)).await;
        session.close().await;
        waited.unwrap_or_else(|_| {
            Health::Unreachable(Complaint {
                text: format!(
                    "cloud-init did not finish within {} minutes",
                    CLOUD_INIT.as_secs() / 60
                ),
                log: self.dir.console_tail(LOG_LINES),
            })
        })
    }

    async fn sign_in(&self, tell: &mut impl FnMut(Health)) -> Result<Session, Health> {
        let patience = if self.kvm { BOOT_KVM } else { BOOT_TCG };
        let begin = Instant::now();
        let mut spoke = false;
        tell(Health::Booting { spoke });
        loop {
            if !spoke && has_content(&self.dir) {
                spoke = true;
                tell(Health::Booting { spoke });
            }
            // SSH may answer though the console says nothing: an image need not have one.
            let why = match self.target.connect(CONNECT.min(patience)).await {
                Ok(session) => return Ok(session),
                Err(SshError::Impostor) => {
                    return Err(Health::Unreachable(Complaint {
                        text: "SSH answers with another host key than the one this VM was given: it is not trusted"
                            .to_owned(),
                        log: Vec::new(),
                    }));
                }
                Err(error) => error,
            };
            if self.kvm && !spoke && begin.elapsed() >= SILENCE && !has_content(&self.dir) {
                return Err(Health::Silent);
            }
            if begin.elapsed() >= patience {
                return Err(Health::Unreachable(Complaint {
                    text: format!(
                        "it runs, but SSH did not answer within {} minutes ({why})",
                        patience.as_secs() / 60
                    ),
                    log: self.dir.console_tail(LOG_LINES),
                }));
            }
            sleep(PAUSE).await;
        }
    }

    async fn cloud_init(&self, session: &Session) -> Health {
        // An image may do without cloud-init; the shell then says 127.
        let status = match session.run("cloud-init status --wait").await {
            Ok(output) => output,
            Err(error) => {
                return Health::Unreachable(Complaint {
                    text: format!("cloud-init could not be asked: {error}"),
                    log: self.dir.console_tail(LOG_LINES),
                });
            }
        };
        match verdict(&status) {
            Verdict::Done => Health::Ready { complaint: None },
            Verdict::Failed => {
                let log = session
                    .run("tail -n 20 /var/log/cloud-init-output.log")
                    .await
                    .map(|output| console::last_lines(output.text.as_bytes(), LOG_LINES))
                    .unwrap_or_default();
                Health::Ready {
                    complaint: Some(Complaint {
                        text: "cloud-init failed".to_owned(),
                        log,
                    }),
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Failed,
}

/// Status 1 is a failure; 2 (newer versions) something that cloud-init worked around; 127 no cloud-init at all.
fn verdict(status: &Output) -> Verdict {
    match status.status {
        Some(1) => Verdict::Failed,
        _ if status.text.contains("status: error") => Verdict::Failed,
        _ => Verdict::Done,
    }
}

fn has_content(dir: &VmDir) -> bool {
    std::fs::metadata(dir.file(file::CONSOLE_LOG)).is_ok_and(|metadata| metadata.len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_inits_verdicts() {
        let said = |status: u32, text: &str| {
            verdict(&Output {
                status: Some(status),
                text: text.to_owned(),
            })
        };
        assert_eq!(said(0, "status: done\n"), Verdict::Done);
        assert_eq!(said(0, "status: disabled\n"), Verdict::Done);
        assert_eq!(said(1, "\nstatus: error\n"), Verdict::Failed);
        // Before 23.4 an error came with status 0.
        assert_eq!(said(0, "\nstatus: error\n"), Verdict::Failed);
        assert_eq!(said(2, "status: done\n"), Verdict::Done);
        assert_eq!(said(127, "sh: cloud-init: not found\n"), Verdict::Done);
    }
}
