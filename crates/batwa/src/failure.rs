//! How a command fails: one line, perhaps a hint, and an exit code that scripts can rely on.

use std::{fmt, process::ExitCode};

/// The exit codes, as `batwa --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried and failed.
    Failed = 1,
    /// It was asked for wrongly: usage, settings, a folder or port that cannot be used.
    Usage = 2,
    /// There is no such VM, machine or operation.
    NotFound = 3,
    /// Nobody is signed in, or the caller may not do this.
    NotAllowed = 4,
    /// The master cannot be reached, or what answers is none.
    Unreachable = 5,
    /// It goes on, but nobody waits any more.
    StillRunning = 6,
    /// A command in a VM was not run, or nobody saw its end: no code of the command's own.
    NotRun = 125,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, to what.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            hint: None,
        }
    }

    /// Wrong usage or settings.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same failure with what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An error with the causes behind it, each once, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<crate::settings::SettingError> for Failure {
    fn from(error: crate::settings::SettingError) -> Self {
        Self::usage(error)
    }
}
