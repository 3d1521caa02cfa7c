//! What commands have in common that talk to a master: which one, what they print, how long they wait.

use std::path::PathBuf;

use batwa_api::certificate::CertificateHash;
use clap::{Args, ValueEnum, ValueHint};

/// Which master, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Master")]
pub(crate) struct MasterArgs {
    /// The master's address
    #[arg(long, env = "BATWA_URL", value_name = "URL", default_value = "http://127.0.0.1:8000", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// An API token, made on the page under your account; prefer the environment
    #[arg(
        long,
        env = "BATWA_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// A file that holds the API token, when it is not given
    #[arg(long, env = "BATWA_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// The SHA-256 of the master's certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: what the API answers.
    Json,
}

/// What every command that reads takes.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// Whether to wait for the end.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the operation is accepted, and print its id
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Stop waiting after this long, such as `90s` or `10m`; the operation goes on
    #[arg(long, value_name = "DURATION", conflicts_with = "no_wait", value_parser = crate::config::duration)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// What is printed at the end: words for people, or the finished operation as JSON
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
