//! A polite and suspicious client of the daemon.
//!
//! Polite: one call at a time in the [`Lane`], quick reads first; boots and launches, whose waiting the daemon does
//! beside other work, are counted instead. Suspicious: each call has a deadline, and when a quick one is not
//! answered by then, the daemon counts as silent. Then nothing is asked of it but one quick question now and
//! again, all else is told at once (or, for work, after some patience), and the first answer ends it.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::Timestamp;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Limits, RestartPolicy, Settings,
    call::{Call, Weight},
    error::{NO_PROGRAM, explain},
    lane::{Lane, Turn},
};
use crate::driver::{
    DriverError,
    command::{Command, CommandError, Output},
};

/// The longest that a command of the local policy may take to restart the daemon.
const RESTART_DEADLINE: Duration = Duration::from_secs(120);

/// The way to the daemon.
pub(super) struct Daemon {
    program: PathBuf,
    limits: Limits,
    restart: Option<RestartPolicy>,
    lane: Lane,
    launches: Semaphore,
    boots: Semaphore,
    silence: Mutex<Option<Silence>>,
}

/// The daemon does not answer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When the first call began that it left unanswered.
    since: Timestamp,
    began: Instant,
    /// When it was last asked.
    tried: Instant,
    /// When the local policy last had it restarted.
    restarted: Option<Instant>,
}

/// The right to make one call, now.
pub(super) struct Admission<'a> {
    daemon: &'a Daemon,
    _turn: Option<Turn>,
    _place: Option<SemaphorePermit<'a>>,
}

impl Daemon {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            program: settings.program.clone(),
            limits: settings.limits,
            restart: settings.restart.clone(),
            lane: Lane::default(),
            launches: Semaphore::new(settings.limits.launches),
            boots: Semaphore::new(settings.limits.boots),
            silence: Mutex::new(None),
        }
    }

    /// The `multipass` program.
    pub(super) fn program(&self) -> &std::path::Path {
        &self.program
    }

    fn silence(&self) -> MutexGuard<'_, Option<Silence>> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call that reads, and gives its standard output.
    ///
    /// # Errors
    /// [`DriverError::Stuck`] at once while the daemon is silent or busy; [`DriverError::Missing`]; what
    /// [`explain`] says.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Vec<u8>, DriverError> {
        let admission = self.admit(call).await?;
        admission.run(call, None, |_| ()).await
    }

    /// Waits for the right to make `call`: its turn, and a daemon that answers.
    ///
    /// # Errors
    /// [`DriverError::Stuck`]: reads wait no longer than for an answer; work waits some time for a silent daemon.
    pub(super) async fn admit(&self, call: &Call<'_>) -> Result<Admission<'_>, DriverError> {
        let weight = call.weight();
        match weight {
            Weight::Quick => self.may_try()?,
            Weight::Look => self.answers()?,
            Weight::Heavy | Weight::Boot | Weight::Launch => self.wait_for_answer().await?,
        }
        let place = match weight {
            Weight::Boot => Some(&self.boots),
            Weight::Launch => Some(&self.launches),
            _ => None,
        };
        let place = match place {
            Some(places) => Some(
                places
                    .acquire()
                    .await
                    .expect("the semaphore is never closed"),
            ),
            None => None,
        };
        let line = self.lane.turn(weight, call.to_string());
        let turn = match weight {
            Weight::Quick | Weight::Look => Some(
                timeout(self.limits.quick, line)
                    .await
                    .map_err(|_| self.busy())?,
            ),
            Weight::Heavy => Some(line.await),
            // What is asked just now ends first: a log-in to a VM must not meet its reboot.
            Weight::Boot | Weight::Launch => {
                drop(line.await);
                None
            }
        };
        Ok(Admission {
            daemon: self,
            _turn: turn,
            _place: place,
        })
    }

    /// Refuses while the daemon is silent and was asked just now; otherwise this call is the one that asks.
    fn may_try(&self) -> Result<(), DriverError> {
        match &mut *self.silence() {
            Some(silence) if silence.tried.elapsed() < self.limits.retry => Err(silence.error()),
            Some(silence) => {
                silence.tried = Instant::now();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn answers(&self) -> Result<(), DriverError> {
        match &*self.silence() {
            Some(silence) => Err(silence.error()),
            None => Ok(()),
        }
    }

    /// Waits for a silent daemon, asking it now and again, as long as there is patience.
    async fn wait_for_answer(&self) -> Result<(), DriverError> {
        let until = Instant::now() + self.limits.patience;
        while let Err(error) = self.answers() {
            if Instant::now() >= until {
                return Err(error);
            }
            if self.may_try().is_ok() {
                let turn = timeout(self.limits.quick, self.lane.turn(Weight::Quick, "list"));
                if let Ok(_turn) = turn.await {
                    // Its answer is not wanted, only that there is one.
                    let _ = self.attempt(&Call::List, None, |_| ()).await;
                }
            } else {
                sleep(self.limits.poll).await;
            }
        }
        Ok(())
    }

    fn busy(&self) -> DriverError {
        DriverError::Stuck(match self.lane.holder() {
            Some(holder) => format!(
                "Multipass is busy with `{}` since {:.0} and answers nothing else meanwhile",
                holder.what, holder.since
            ),
            None => "Multipass is busy".to_owned(),
        })
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        stdin: Option<&str>,
        mut on_stdout: impl FnMut(&[u8]) + Send,
    ) -> Result<Vec<u8>, DriverError> {
        let (since, began) = (Timestamp::now(), Instant::now());
        let mut command = Command::new(&self.program)
            .args(call.argv(&self.limits))
            // Times are told in the client's zone.
            .env("TZ", "UTC")
            .deadline(call.deadline(&self.limits));
        if let Some(text) = stdin {
            command = command.stdin(text);
        }
        let weight = call.weight();
        let result = if weight <= Weight::Look {
            command.output().await
        } else {
            command.stream(&mut on_stdout).await
        };
        match result {
            Ok(output) => {
                self.heard();
                finish(call, output)
            }
            Err(CommandError::NotFound { .. }) => Err(DriverError::Missing(NO_PROGRAM.to_owned())),
            Err(CommandError::Deadline { deadline, .. }) => {
                if weight == Weight::Quick {
                    let error = self.not_heard(since, began);
                    self.restart_if_allowed().await;
                    Err(error)
                } else {
                    Err(DriverError::Stuck(format!(
                        "Multipass did not answer `{call}` within {} s",
                        deadline.as_secs()
                    )))
                }
            }
            Err(CommandError::TooMuchOutput { limit, .. }) => Err(DriverError::failed(format!(
                "`multipass {call}` printed more than {limit} bytes"
            ))),
            Err(error) => Err(DriverError::failed(format!(
                "`multipass {call}` could not be run: {}",
                chain(&error)
            ))),
        }
    }

    /// Any answer ends a silence.
    fn heard(&self) {
        if let Some(silence) = self.silence().take() {
            info!(
                silent_s = silence.began.elapsed().as_secs(),
                "Multipass answers again"
            );
        }
    }

    fn not_heard(&self, since: Timestamp, began: Instant) -> DriverError {
        let mut held = self.silence();
        let silence = match *held {
            Some(silence) => Silence {
                tried: Instant::now(),
                ..silence
            },
            None => {
                warn!("Multipass does not answer");
                Silence {
                    since,
                    began,
                    tried: Instant::now(),
                    restarted: None,
                }
            }
        };
        *held = Some(silence);
        silence.error()
    }

    /// Restarts a daemon that has long been silent, where the machine's owner allows that.
    async fn restart_if_allowed(&self) {
        let Some(policy) = &self.restart else { return };
        {
            let mut held = self.silence();
            let Some(silence) = &mut *held else { return };
            let last = silence.restarted.unwrap_or(silence.began);
            if last.elapsed() < policy.after {
                return;
            }
            silence.restarted = Some(Instant::now());
        }
        let [program, args @ ..] = &policy.command[..] else {
            return;
        };
        warn!("Multipass has long been silent: restarting it as the settings allow");
        let restart = Command::new(program).args(args).deadline(RESTART_DEADLINE);
        if let Err(error) = restart.run().await {
            warn!(error = %chain(&error), "Multipass could not be restarted");
        }
    }
}

impl Admission<'_> {
    /// Makes the call. Standard output is the result of one that reads, and goes to `on_stdout` otherwise.
    ///
    /// # Errors
    /// As [`Daemon::ask`]; [`DriverError::Timeout`] when Multipass itself stopped waiting for the VM.
    pub(super) async fn run(
        self,
        call: &Call<'_>,
        stdin: Option<&str>,
        on_stdout: impl FnMut(&[u8]) + Send,
    ) -> Result<Vec<u8>, DriverError> {
        self.daemon.attempt(call, stdin, on_stdout).await
    }
}

impl Silence {
    fn error(&self) -> DriverError {
        DriverError::Stuck(format!(
            "Multipass has not answered since {:.0}. Its VMs go on running, and it may come back by itself; \
             restarting its daemon is known to help (`sudo snap restart multipass`), but interrupts its VMs",
            self.since
        ))
    }
}

fn finish(call: &Call<'_>, output: Output) -> Result<Vec<u8>, DriverError> {
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(explain(call, output.status.code(), &output.stderr))
    }
}

/// An error with its causes, for a text that has no other place for them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
