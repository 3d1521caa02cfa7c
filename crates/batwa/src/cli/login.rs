//! `login`, `logout`, `masters`: which masters are known here, and as whom.

use std::time::Duration;

use batwa_api::certificate::CertificateHash;
use clap::{Args, Subcommand, ValueHint};

use super::{Format, live};

/// `batwa login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The master's address, such as `https://batwa.example` or `http://192.168.1.10:8000`
    #[arg(value_name = "MASTER_URL", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// What to call this master here; its host name when absent
    #[arg(long, short, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The account; asked for when absent
    #[arg(long, short, value_name = "NAME", conflicts_with = "token")]
    pub(crate) user: Option<String>,
    /// Keep this API token instead of making one; `-` reads it from standard input
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// For how long the token that is made is good, such as `720h`; until it is taken back when absent
    #[arg(long, value_name = "DURATION", conflicts_with = "token", value_parser = crate::config::duration)]
    pub(crate) expires: Option<Duration>,
    /// The SHA-256 of the master's certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
}

/// `batwa logout`
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Which master; the one in use when absent
    #[arg(value_name = "NAME", add = live::masters())]
    pub(crate) name: Option<String>,
    /// Forget it here although its token cannot be taken back now
    #[arg(long)]
    pub(crate) forget: bool,
}

/// `batwa masters`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MastersArgs {
    #[command(subcommand)]
    pub(crate) task: Option<MastersTask>,
    /// Table for people; JSON, YAML or CSV for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What can be done with the masters that are known here.
#[derive(Debug, Subcommand)]
pub(crate) enum MastersTask {
    /// Have commands talk to this one from now on
    Use {
        /// Its name
        #[arg(add = live::masters())]
        name: String,
    },
}
