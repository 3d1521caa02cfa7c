//! A child whose three streams are somebody else's to move.

use std::{io, process::ExitStatus, process::Stdio, time::Duration};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::{Command, CommandError, group::Group};

/// A child with pipes for input, output and errors. Dropping it kills the child and all that it started.
#[must_use = "a child ends when this is dropped"]
pub struct Piped {
    group: Group,
}

/// The pipes of a [`Piped`] child.
pub struct Pipes {
    /// What it reads; dropping it is the end of its input.
    pub stdin: ChildStdin,
    /// What it prints.
    pub stdout: ChildStdout,
    /// What it prints beside that.
    pub stderr: ChildStderr,
}

impl Command {
    /// Starts it with a pipe for each stream. Input, limits and deadline that were set do not count here.
    ///
    /// # Errors
    /// [`CommandError::NotFound`], [`CommandError::Start`].
    pub fn spawn_piped(self) -> Result<(Piped, Pipes), CommandError> {
        let child = self
            .prepared()
            .and_then(|mut command| {
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
            })
            .map_err(|source| self.start_error(source))?;
        let mut group = Group::of(child);
        let lost = || CommandError::Lost {
            program: self.name(),
            source: io::ErrorKind::BrokenPipe.into(),
        };
        let pipes = Pipes {
            stdin: group.child.stdin.take().ok_or_else(lost)?,
            stdout: group.child.stdout.take().ok_or_else(lost)?,
            stderr: group.child.stderr.take().ok_or_else(lost)?,
        };
        Ok((Piped { group }, pipes))
    }
}

impl Piped {
    /// Waits until the child itself ends. Safe to cancel.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.group.child.wait().await
    }

    /// Asks the child and all that it started to end, and kills what is left after `grace`.
    pub async fn end(mut self, grace: Duration) {
        self.group.end(grace).await;
    }
}
