//! What commands have in common that talk to a master: which one, what they print, how long they wait.

use std::path::PathBuf;

use batwa_api::certificate::CertificateHash;
use clap::{Args, ValueEnum, ValueHint};

use super::live;

/// Which master, and as whom. What is not given here is taken from what `batwa login` kept.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Master")]
pub(crate) struct MasterArgs {
    /// A master that `batwa login` was given this name for, with its token: instead of all below
    #[arg(long, value_name = "NAME", add = live::masters())]
    pub(crate) master: Option<String>,
    /// The master's address; by default the one of `batwa login`, else `http://127.0.0.1:8000`
    #[arg(long, env = "BATWA_URL", value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,
    /// An API token, made by `batwa login` or on the page under your account; prefer the environment
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
    /// The same as YAML.
    Yaml,
    /// The table's columns, with exact times and sizes.
    Csv,
}

/// What every command that reads takes.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Table for people; JSON, YAML or CSV for programs
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
    /// What is printed at the end: words for people, or the finished operation for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// How an operation reaches its machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeliveryArgs {
    /// Where the machine is offline, keep the operation for it, for a day or for as long as is said, such as
    /// `=12h`; refused otherwise
    #[arg(
        long,
        value_name = "FOR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "24h"
    )]
    pub(crate) when_online: Option<String>,
}

impl DeliveryArgs {
    /// The same as the query of a call.
    pub(crate) fn query(&self) -> Vec<(&str, &str)> {
        self.when_online
            .iter()
            .map(|keep| ("when_online", keep.as_str()))
            .collect()
    }
}

/// Whether to go on without a question.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask first. Without a terminal nothing is ever asked
    #[arg(long, short)]
    pub(crate) yes: bool,
}
