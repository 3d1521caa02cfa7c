//! Running a command inside a VM: what is asked, and the two forms of the answer.
//!
//! Interactive: a WebSocket whose first frame is [`ExecClientFrame::Start`]. Binary frames are bytes of the stream
//! that their first byte names ([`ExecStream`]); text frames are the two `Exec…Frame` types. For scripts: a `POST`
//! of [`PostExec`], answered by one [`ExecLine`] of JSON a line. Either way the command's end comes last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{problem::FieldError, problem::ProblemCode, terminal::TermSize};

/// A command to run inside a VM: an argument vector, never a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ExecCommand {
    /// The program, looked up in the VM's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Variables beside those of the account's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The folder it starts in; a relative one begins at the account's home, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Seconds after which it is ended; it may run for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// A terminal of this size for it, on which stderr joins stdout; pipes when absent. Only over a WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TermSize>,
}

impl ExecCommand {
    /// Most bytes of arguments and variables together: what any system takes, with room for its own.
    pub const MAX_BYTES: usize = 96 << 10;
    /// Most arguments.
    pub const MAX_ARGUMENTS: usize = 4096;
    /// The longest time that can be set: a week.
    pub const MAX_TIMEOUT_S: u64 = 7 * 24 * 3600;

    /// What cannot be run, by field; nothing when all is well.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse = |field, message: &str| errors.push(FieldError::new(field, message));
        match self.argv.first().map(String::as_str) {
            None | Some("") => refuse("argv", "name a program"),
            // `env`, by which it is started, would take it for a variable.
            Some(program) if program.contains('=') => {
                refuse("argv", "a program's name cannot contain `=`");
            }
            Some(_) => {}
        }
        if self.argv.len() > Self::MAX_ARGUMENTS {
            refuse("argv", "there are more than 4096 arguments");
        }
        if self.argv.iter().any(|word| word.contains('\0')) {
            refuse("argv", "an argument cannot contain NUL");
        }
        let is_name = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !self.env.keys().all(|name| is_name(name)) {
            refuse(
                "env",
                "a variable's name has letters, digits and `_`, and no digit first",
            );
        }
        if self.env.values().any(|value| value.contains('\0')) {
            refuse("env", "a variable cannot contain NUL");
        }
        let env: usize = self.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
        let argv: usize = self.argv.iter().map(|word| word.len() + 1).sum();
        if argv + env > Self::MAX_BYTES {
            refuse(
                "argv",
                "arguments and variables are longer than 96 KiB: send it by standard input",
            );
        }
        if let Some(cwd) = &self.cwd
            && (cwd.is_empty() || cwd.contains('\0') || cwd.len() > 4096)
        {
            refuse("cwd", "name a folder, in at most 4096 bytes");
        }
        if self
            .timeout_s
            .is_some_and(|seconds| !(1..=Self::MAX_TIMEOUT_S).contains(&seconds))
        {
            refuse("timeout_s", "1 second to a week");
        }
        errors
    }
}

/// Body of `POST …/exec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PostExec {
    /// What to run.
    #[serde(flatten)]
    pub command: ExecCommand,
    /// What it reads on standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The same for what is no text, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
}

/// The first byte of a binary frame: which stream the rest belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExecStream {
    /// Standard input: only to the command.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A text frame to the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecClientFrame {
    /// What to run: the first frame, within ten seconds, and only then.
    Start {
        /// The command.
        #[serde(flatten)]
        command: ExecCommand,
    },
    /// Standard input ends here.
    Eof,
    /// The window has this size, for a command with a terminal.
    Resize {
        /// The size.
        #[serde(flatten)]
        size: TermSize,
    },
}

/// A text frame from the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecServerFrame {
    /// It runs.
    Started,
    /// It ended; a close follows.
    Exit {
        /// How.
        #[serde(flatten)]
        end: ExecEnd,
    },
    /// It was not run, or nothing more is known of it; a close follows.
    Error {
        /// What kind of problem.
        code: ProblemCode,
        /// What happened, and what to do.
        detail: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecEnd {
    /// Its exit code; 128 and the signal's number when a signal ended it, 124 when its time was over, as shells
    /// and `timeout` have it. `null` when its end was not seen.
    pub code: Option<i32>,
    /// The signal that ended it, such as `KILL`, where that is known.
    pub signal: Option<String>,
    /// The same for people: `it ended`, `it did not end within 30 s`, `the VM was stopped`.
    pub reason: String,
}

impl ExecEnd {
    /// The exit code of a command whose time was over.
    pub const TIMED_OUT: i32 = 124;

    /// It ended by itself.
    #[must_use]
    pub fn exited(code: i32) -> Self {
        Self {
            code: Some(code),
            signal: None,
            reason: "it ended".to_owned(),
        }
    }

    /// A signal, by its name without `SIG`, ended it.
    #[must_use]
    pub fn signalled(name: &str) -> Self {
        Self {
            code: Some(128 + signal_number(name).unwrap_or(0)),
            signal: Some(name.to_owned()),
            reason: format!("it was ended by signal {name}"),
        }
    }

    /// Its time was over.
    #[must_use]
    pub fn timed_out(seconds: u64) -> Self {
        Self {
            code: Some(Self::TIMED_OUT),
            signal: None,
            reason: format!("it did not end within {seconds} s"),
        }
    }

    /// Nobody saw its end.
    pub fn unseen(reason: impl Into<String>) -> Self {
        Self {
            code: None,
            signal: None,
            reason: reason.into(),
        }
    }
}

/// The signals that commands end by, with Linux' numbers.
const SIGNALS: [(&str, i32); 16] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("XCPU", 24),
];

/// A signal's number by its name without `SIG`.
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// A signal's name without `SIG` by its number.
#[must_use]
pub fn signal_name(number: i32) -> String {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// One line of the answer to `POST …/exec`; `exit` or `error` is the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecLine {
    /// Standard output.
    Stdout(ExecChunk),
    /// Standard error.
    Stderr(ExecChunk),
    /// It ended.
    Exit(ExecEnd),
    /// Nothing more is known of it.
    Error {
        /// What kind of problem.
        code: ProblemCode,
        /// What happened, and what to do.
        detail: String,
    },
}

/// A piece of output: as text where it is UTF-8, else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ExecChunk {
    /// The piece as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The piece in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> ExecCommand {
        ExecCommand {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            ..ExecCommand::default()
        }
    }

    fn refused(command: &ExecCommand) -> Vec<String> {
        command.check().into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_field() {
        assert!(refused(&command(&["ls", "-l", "", "ä\n"])).is_empty());
        assert_eq!(refused(&command(&[])), ["argv"]);
        assert_eq!(refused(&command(&[""])), ["argv"]);
        assert_eq!(refused(&command(&["a=b"])), ["argv"]);
        assert_eq!(refused(&command(&["ls", "a\0b"])), ["argv"]);
        assert_eq!(refused(&command(&["ls", &"x".repeat(1 << 17)])), ["argv"]);
        let with_env = |name: &str| ExecCommand {
            env: [(name.to_owned(), "v".to_owned())].into(),
            ..command(&["ls"])
        };
        assert!(refused(&with_env("LANG_1")).is_empty());
        for bad in ["", "1A", "A-B", "A=B", "-i"] {
            assert_eq!(refused(&with_env(bad)), ["env"], "{bad:?}");
        }
        let timed = |seconds| ExecCommand {
            timeout_s: Some(seconds),
            ..command(&["ls"])
        };
        assert!(refused(&timed(30)).is_empty());
        assert_eq!(refused(&timed(0)), ["timeout_s"]);
    }

    #[test]
    fn a_signal_shows_as_shells_show_it() {
        assert_eq!(ExecEnd::signalled("KILL").code, Some(137));
        assert_eq!(ExecEnd::signalled("TERM").code, Some(143));
        assert_eq!(signal_name(9), "KILL");
        assert_eq!(signal_name(63), "63");
    }

    #[test]
    fn frames_are_as_the_protocol_says() {
        let start = ExecClientFrame::Start {
            command: ExecCommand {
                timeout_s: Some(5),
                ..command(&["echo", "hi"])
            },
        };
        let json = serde_json::to_string(&start).unwrap();
        assert_eq!(
            json,
            r#"{"type":"start","argv":["echo","hi"],"timeout_s":5}"#
        );
        assert_eq!(
            serde_json::from_str::<ExecClientFrame>(&json).unwrap(),
            start
        );
        let exit = ExecServerFrame::Exit {
            end: ExecEnd::exited(3),
        };
        assert_eq!(
            serde_json::to_string(&exit).unwrap(),
            r#"{"type":"exit","code":3,"signal":null,"reason":"it ended"}"#
        );
        let line = ExecLine::Stdout(ExecChunk {
            text: Some("hi\n".to_owned()),
            base64: None,
        });
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"type":"stdout","text":"hi\n"}"#
        );
    }
}
