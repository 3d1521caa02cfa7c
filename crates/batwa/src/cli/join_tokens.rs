//! `join-token`: what machines join with.

use clap::{Args, Subcommand};

use super::{MasterArgs, ReadArgs};

/// `batwa join-token`
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenTask {
    /// Make a token and print the line to paste on the machine that is to join
    Create(CreateJoinTokenArgs),
    /// List tokens and who joined with each
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Take a token back: machines that joined with it stay
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `batwa join-token create`
#[derive(Debug, Args)]
pub(crate) struct CreateJoinTokenArgs {
    /// How many machines may join with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// For how long, such as `30m` or `24h`
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::duration)]
    pub(crate) expires: std::time::Duration,
    /// A label that those machines get; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Let the machines wait for an admin's approval
    #[arg(long)]
    pub(crate) no_approve: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
