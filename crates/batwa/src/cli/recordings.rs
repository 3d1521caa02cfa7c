//! `recordings`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{MasterArgs, ReadArgs};

/// `batwa recordings`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RecordingsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<RecordingsTask>,
    /// Only those in which this was printed, whatever its case
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) query: Option<String>,
    /// Only those on this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only sessions of this VM
    #[arg(long, value_name = "NAME")]
    pub(crate) vm: Option<String>,
    /// Only sessions of this account
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Only those that began then or later, such as `2026-05-01T00:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only those that began before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// How many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with recordings.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordingsTask {
    /// Download one: asciicast v2, which `asciinema play` plays too
    Get {
        /// The recording, as the list names it
        #[arg(value_name = "AGENT/ID")]
        recording: String,
        /// Where to; standard output by default
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Delete one that has ended
    Delete {
        /// The recording, as the list names it
        #[arg(value_name = "AGENT/ID")]
        recording: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Record a terminal session from now on
    Start {
        /// The session's id, or its name
        session: String,
        /// Record what is typed too, passwords included
        #[arg(long)]
        input: bool,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// End the recording of a terminal session, which goes on
    Stop {
        /// The session's id, or its name
        session: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}
