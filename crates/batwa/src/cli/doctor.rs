//! `doctor`, `health`: looking at a machine, and asking a process whether it does its work.

use std::path::PathBuf;

use batwa_api::certificate::CertificateHash;
use clap::{Args, ValueHint};

use super::Format;

/// `batwa doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) master: DoctorMasterArgs,
    /// The folder that would be used; by default the one that `batwa up` uses
    #[arg(long, env = "BATWA_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// The file with what the machine's owner lets any master ask; by default `policy.toml` in the agent's state folder
    #[arg(long, env = "BATWA_POLICY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
    /// Table for people; JSON, YAML or CSV for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// The way to a master, which `batwa doctor` looks at too when it is given one.
#[derive(Debug, Args)]
pub(crate) struct DoctorMasterArgs {
    /// Look at the way to this master too: name, connection, TLS, proxies, clock
    #[arg(long, env = "BATWA_MASTER_URL", value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) master_url: Option<String>,
    /// The SHA-256 of its certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
    /// Ask that master whether it knows this agent, with the key
    #[arg(long, env = "AGENT_ID", value_name = "ID")]
    pub(crate) agent_id: Option<String>,
    /// The agent's key; prefer the environment
    #[arg(long, env = "API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// `batwa health`
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The address of the master or agent
    #[arg(long, env = "BATWA_URL", value_name = "URL", default_value = "http://127.0.0.1:8000", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// The SHA-256 of its certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
}
