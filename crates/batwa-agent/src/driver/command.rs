//! Runs child processes: the one place that starts any.
//!
//! Drivers call it with an argument vector, never with a line for a shell. A child gets its own process group,
//! and the whole group ends with the [`Command`]'s deadline or when the future that runs it is dropped; what it
//! prints is held within limits; its environment is ours without our secrets. A child that must outlive us is
//! started with [`Command::spawn_detached`].

mod group;
mod orphans;
mod piped;
mod text;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Child,
    time::{Instant, timeout},
};

pub(crate) use self::orphans::end_orphans;
pub use self::{
    piped::{Piped, Pipes},
    text::last_lines,
};

use self::{
    group::Group,
    text::{keep_tail, last_line, tail},
};

/// Most that [`Command::output`] holds of standard output: the JSON of thousands of VMs is far below it.
pub const STDOUT_LIMIT: usize = 16 << 20;
/// How much of the end of standard error is held: some hundred lines for people.
pub const STDERR_TAIL: usize = 64 << 10;
/// Time between the request to end and the kill, once a deadline has passed.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long output is awaited after the child ended: something it started may hold the pipes for ever.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// A child process to be.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    /// Open files that it has from the start, and under which numbers.
    inherited: Vec<(OwnedFd, RawFd)>,
    deadline: Option<Duration>,
    stdout_limit: usize,
}

/// How a child ended and what it printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; empty where that went to a callback.
    pub stdout: Vec<u8>,
    /// The end of its standard error, at most [`STDERR_TAIL`] bytes.
    pub stderr: String,
}

/// Why a child did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed, or not where it was said to be.
    #[error("cannot find the program `{program}`")]
    NotFound {
        /// Which one.
        program: String,
    },
    /// The system did not start it.
    #[error("cannot start `{program}`")]
    Start {
        /// Which one.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was still running at its deadline, and was killed with all it had started.
    #[error("`{program}` did not end within {} s", deadline.as_secs_f64())]
    Deadline {
        /// Which one.
        program: String,
        /// The time it had.
        deadline: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// It printed more than its caller can use, and was killed.
    #[error("`{program}` printed more than {limit} bytes")]
    TooMuchOutput {
        /// Which one.
        program: String,
        /// How much it may print.
        limit: usize,
    },
    /// It ended by itself, but not with status 0.
    #[error("`{program}` failed ({status}): {}", last_line(stderr))]
    Failed {
        /// Which one.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// Its pipes broke in a way that its end does not explain.
    #[error("lost contact with `{program}`")]
    Lost {
        /// Which one.
        program: String,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl CommandError {
    /// The last `count` lines of its standard error, for people.
    #[must_use]
    pub fn log(&self, count: usize) -> Vec<String> {
        match self {
            Self::Failed { stderr, .. } | Self::Deadline { stderr, .. } => {
                last_lines(stderr, count)
            }
            _ => Vec::new(),
        }
    }
}

/// Whether a variable of our environment is none of a child's business.
#[must_use]
pub fn is_secret(name: &OsStr) -> bool {
    name == "API_KEY" || name.as_encoded_bytes().starts_with(b"BATWA_")
}

/// The variables of our environment that a child must not inherit, for those who start one by other means.
pub fn secret_variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| is_secret(name))
}

impl Command {
    /// A child that runs `program`, looked up in `PATH` when it has no slash, with no argument, no input and no
    /// deadline.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            stdin: None,
            inherited: Vec::new(),
            deadline: None,
            stdout_limit: STDOUT_LIMIT,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder it starts in; ours when not set.
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// What it reads on standard input; nothing when not set.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// An open file that it has from the start, by this number. No other child gets it.
    pub fn inherit(mut self, file: OwnedFd, number: RawFd) -> Self {
        self.inherited.push((file, number));
        self
    }

    /// The longest it may run.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Marks it as of use to this agent alone: should the agent be killed, the next one ends it before it begins.
    pub fn ends_with_agent(mut self) -> Self {
        self.env
            .extend(orphans::mark().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The most it may print on standard output, in bytes, before [`Self::output`] and [`Self::run`] kill it.
    pub fn stdout_limit(mut self, bytes: usize) -> Self {
        self.stdout_limit = bytes;
        self
    }

    /// Its arguments, without the program.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.args
    }

    /// Runs it to its end, whatever status that is.
    ///
    /// # Errors
    /// All of [`CommandError`] but [`CommandError::Failed`].
    pub async fn output(self) -> Result<Output, CommandError> {
        let limit = self.stdout_limit;
        let program = self.name();
        let mut stdout = Vec::new();
        let mut full = false;
        let mut output = self
            .supervise(|chunk| {
                full = stdout.len() + chunk.len() > limit;
                if !full {
                    stdout.extend_from_slice(chunk);
                }
                !full
            })
            .await?;
        if full {
            return Err(CommandError::TooMuchOutput { program, limit });
        }
        output.stdout = stdout;
        Ok(output)
    }

    /// Runs it to its end, and hands over what it prints on standard output as it comes.
    ///
    /// # Errors
    /// As [`Self::output`]; there is no limit on what is handed over.
    pub async fn stream(
        self,
        mut on_stdout: impl FnMut(&[u8]) + Send,
    ) -> Result<Output, CommandError> {
        self.supervise(|chunk| {
            on_stdout(chunk);
            true
        })
        .await
    }

    /// Runs it and wants status 0.
    ///
    /// # Errors
    /// All of [`CommandError`].
    pub async fn run(self) -> Result<Output, CommandError> {
        let program = self.name();
        let output = self.output().await?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(CommandError::Failed {
                program,
                status: output.status,
                stderr: output.stderr,
            })
        }
    }

    /// Starts it to live on without us: in its own process group, its output appended to `log` (or thrown away),
    /// killed by nothing of ours. It has no deadline and no input.
    ///
    /// # Errors
    /// [`CommandError::NotFound`], [`CommandError::Start`].
    pub fn spawn_detached(self, log: Option<&File>) -> Result<Detached, CommandError> {
        let stdio = || -> io::Result<Stdio> {
            Ok(match log {
                Some(file) => file.try_clone()?.into(),
                None => Stdio::null(),
            })
        };
        let child = stdio()
            .and_then(|out| {
                self.prepared()?
                    .stdin(Stdio::null())
                    .stdout(out)
                    .stderr(stdio()?)
                    .spawn()
            })
            .map_err(|source| self.start_error(source))?;
        Ok(Detached { child })
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }

    fn start_error(&self, source: io::Error) -> CommandError {
        let program = self.name();
        if source.kind() == io::ErrorKind::NotFound {
            CommandError::NotFound { program }
        } else {
            CommandError::Start { program, source }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place the ban points to"
    )]
    fn prepared(&self) -> io::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).process_group(0);
        for name in secret_variables() {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if !self.inherited.is_empty() {
            let mappings = self.inherited.iter().map(|(file, number)| {
                Ok(FdMapping {
                    parent_fd: file.try_clone()?,
                    child_fd: *number,
                })
            });
            command
                .fd_mappings(mappings.collect::<io::Result<_>>()?)
                .map_err(io::Error::other)?;
        }
        Ok(command)
    }

    /// Runs it; `on_stdout` says whether it wants to hear more. Dropping the future kills the group.
    async fn supervise(
        mut self,
        mut on_stdout: impl FnMut(&[u8]) -> bool + Send,
    ) -> Result<Output, CommandError> {
        let stdin = self.stdin.take();
        let child = self
            .prepared()
            .and_then(|mut command| {
                command
                    .stdin(if stdin.is_some() {
                        Stdio::piped()
                    } else {
                        Stdio::null()
                    })
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
            })
            .map_err(|source| self.start_error(source))?;
        let mut group = Group::of(child);
        let mut pipe_in = group.child.stdin.take();
        let mut pipe_out = group.child.stdout.take();
        let mut pipe_err = group.child.stderr.take();
        let mut stderr = Vec::new();

        let feed = async {
            if let (Some(pipe), Some(bytes)) = (&mut pipe_in, stdin) {
                // A child may end without reading all; that is its own business.
                let _ = pipe.write_all(&bytes).await;
            }
            pipe_in = None;
        };
        let read = async {
            let complain = |chunk: &[u8]| {
                keep_tail(&mut stderr, chunk, STDERR_TAIL);
                true
            };
            tokio::try_join!(
                pump(&mut pipe_out, &mut on_stdout),
                pump(&mut pipe_err, complain)
            )
        };
        let all = async {
            tokio::pin!(feed, read);
            let mut fed = false;
            let mut heard = false;
            let mut status = None;
            // Once the child has ended, the pipes get only as long as data in flight can need.
            let mut patience = None;
            while status.is_none() || !heard {
                tokio::select! {
                    () = &mut feed, if !fed => fed = true,
                    result = &mut read, if !heard => {
                        heard = true;
                        match result {
                            Ok(_) => {}
                            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => return Ok(None),
                            Err(error) => return Err(error),
                        }
                    }
                    ended = group.child.wait(), if status.is_none() => {
                        status = Some(ended?);
                        patience = Some(Instant::now() + DRAIN_GRACE);
                    }
                    () = wait_until(patience) => break,
                }
            }
            Ok(status)
        };
        let result = match self.deadline {
            Some(deadline) => timeout(deadline, all).await,
            None => Ok(all.await),
        };
        let program = self.name();
        let status = match result {
            Ok(Ok(Some(status))) => status,
            Ok(Ok(None)) => {
                group.signal(Signal::KILL);
                let ended = group.child.wait().await;
                ended.map_err(|source| CommandError::Lost { program, source })?
            }
            Ok(Err(source)) => return Err(CommandError::Lost { program, source }),
            Err(_) => {
                group.end(TERM_GRACE).await;
                return Err(CommandError::Deadline {
                    program,
                    deadline: self.deadline.unwrap_or_default(),
                    stderr: tail(&stderr, STDERR_TAIL),
                });
            }
        };
        // Whatever the child left behind in its group ends here, with the guard.
        Ok(Output {
            status,
            stdout: Vec::new(),
            stderr: tail(&stderr, STDERR_TAIL),
        })
    }
}

/// Sleeps until `at`; for ever when there is none.
async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reads `pipe` to its end; ends with [`io::ErrorKind::QuotaExceeded`] as soon as `take` wants no more.
async fn pump(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = pipe.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if !take(&buffer[..n]) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
    }
}

/// A child that lives on when this is dropped.
#[derive(Debug)]
pub struct Detached {
    child: Child,
}

impl Detached {
    /// Its process id; `None` once it has ended and [`Self::wait`] or [`Self::try_wait`] has seen that.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How it ended, when it has.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

#[cfg(test)]
mod tests;
