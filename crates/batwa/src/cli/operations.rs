//! `operations`.

use clap::{Args, Subcommand};

use super::{MasterArgs, ReadArgs, WaitArgs};

/// `batwa operations`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct OperationsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<OperationsTask>,
    /// Only operations in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only operations of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only operations of this VM
    #[arg(long, value_name = "NAME")]
    pub(crate) vm: Option<String>,
    /// Only operations of these kinds, separated by commas, such as `create,snapshot`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only what this account asked for
    #[arg(long, value_name = "NAME")]
    pub(crate) requested_by: Option<String>,
    /// How many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with one operation.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationsTask {
    /// Show one operation
    Info {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Print what driver and VM said during an operation
    Log {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Wait for an operation, showing its progress
    Wait {
        /// Its id
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Ask for the same again as an operation that failed or was cancelled
    Retry {
        /// Its id
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Cancel an operation
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}
