//! `operations`.

use clap::{Args, Subcommand};

use super::{DeliveryArgs, MasterArgs, ReadArgs, WaitArgs, live};

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
    #[arg(long, value_name = "ID", add = live::machines())]
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
    #[command(visible_alias = "show")]
    Info {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Print what driver and VM said during an operation
    Log {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Print what driver and VM say during an operation as it comes, until its end
    ///
    /// Ends as the operation does: 0 when it succeeds, 1 when it fails or is cancelled.
    Follow {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Wait for an operation, showing its progress
    Wait {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Ask for the same again as an operation that failed or was cancelled
    Retry {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        delivery: DeliveryArgs,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Cancel an operation
    Cancel {
        /// Its id
        #[arg(add = live::operations())]
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}
