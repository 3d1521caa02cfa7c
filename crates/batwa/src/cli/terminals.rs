//! What can be typed about terminal sessions.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{MasterArgs, ReadArgs};

/// `batwa attach`
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The session's id, or its name
    pub(crate) session: String,
    /// Only watch: nothing that is typed reaches it, and this window does not count for its size
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa terminals`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TerminalsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<TerminalsTask>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with terminal sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum TerminalsTask {
    /// List them
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Give one a name
    Rename {
        /// The session's id, or its name
        session: String,
        /// Its new name; an empty one takes the name away
        name: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let one live on however long nobody watches
    Keep {
        /// The session's id, or its name
        session: String,
        /// Only this long once nobody watches, such as `8h`; at most 30 days
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::config::duration)]
        time: Option<Duration>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// End one, and what runs in it
    End {
        /// The session's id, or its name
        session: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Invite an account to one: to watch, or to write too
    Share {
        /// The session's id, or its name
        session: String,
        /// The account
        user: String,
        /// Let it type; without this, one that could may only watch from now on
        #[arg(long)]
        write: bool,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Take an invitation back, or all: who is there by it is turned out
    Unshare {
        /// The session's id, or its name
        session: String,
        /// The account; everybody when absent
        user: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
}
