//! `agents`: machines.

use clap::{Args, Subcommand};

use super::{ConfirmArgs, MasterArgs, ReadArgs, live};

/// `batwa networks`
#[derive(Debug, Args)]
pub(crate) struct NetworksArgs {
    /// The machine
    #[arg(long, value_name = "ID", default_value = "local", add = live::machines())]
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa agents`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<MachineTask>,
    /// A search: words, and fields as in `status:offline label:site=a vms>10`
    #[arg(long, short, value_name = "SEARCH", allow_hyphen_values = true)]
    pub(crate) query: Option<String>,
    /// The order: id, name, status, vms or seen; `-` in front turns it round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with one machine.
#[derive(Debug, Subcommand)]
pub(crate) enum MachineTask {
    /// Show all there is to know about a machine
    Info {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Show the last changes of a machine's link, with their reasons
    Links {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Rename a machine for display, or set its labels and notes
    Set {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        /// What people call it; empty to go back to its host name
        #[arg(long)]
        name: Option<String>,
        /// A label to set; may be given again
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
        labels: Vec<(String, String)>,
        /// A label to take away; may be given again
        #[arg(long = "remove-label", value_name = "KEY")]
        removed: Vec<String>,
        /// Anything worth writing down about it
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let a waiting machine in
    Approve {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        /// Which registration, when several wait under the id
        #[arg(long)]
        fingerprint: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let no new VM be made on a machine
    Cordon {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let new VMs be made on a machine again
    Uncordon {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Shut a machine out: it is not contacted, and may not register again
    Revoke {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Remove a machine from the list; its VMs are not touched
    Remove {
        /// Its id
        #[arg(add = live::machines())]
        id: String,
        /// Only say what it would take away
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        confirm: ConfirmArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
}
