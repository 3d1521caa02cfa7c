//! `admin`: work on a master's own files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Which master's files.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// The master's folder; by default the one that `batwa up` uses
    #[arg(long, env = "BATWA_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the master keeps what it knows, when that is not in its folder
    #[arg(
        long,
        env = "BATWA_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
}

/// What can be done to a master's own files.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminTask {
    /// Check that no line of the audit was changed or taken out; exit code 1 when one was
    ///
    /// The master may be running. Lines missing from the end cannot be seen: keep the last hash elsewhere.
    VerifyAudit {
        #[command(flatten)]
        files: FilesArgs,
    },
    /// Give an account a new password and end its sessions
    ///
    /// The new password is asked for, or read from standard input when that is no terminal.
    ResetPassword {
        /// The account
        #[arg(default_value = "admin")]
        user: String,
        #[command(flatten)]
        files: FilesArgs,
    },
}
