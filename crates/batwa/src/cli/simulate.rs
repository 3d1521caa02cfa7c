//! `simulate`: pretended machines and VMs.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// `batwa simulate`
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The master's address
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) master: String,
    /// A join token with as many uses as there are agents
    #[arg(
        long,
        env = "BATWA_JOIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: String,
    /// Number of agents
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) agents: usize,
    /// VMs of each agent
    #[arg(long, value_name = "M", default_value_t = 10)]
    pub(crate) vms: usize,
    /// VMs that start or stop by themselves a second, over all agents
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1.0, value_parser = crate::config::rate)]
    pub(crate) changes: f64,
    /// Agents that crash and start again a minute, over all agents
    #[arg(long, value_name = "PER_MINUTE", default_value_t = 0.0, value_parser = crate::config::rate)]
    pub(crate) churn: f64,
    /// How long each step of an operation and each look at the VMs takes
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = crate::config::duration)]
    pub(crate) latency: std::time::Duration,
    /// How long to go on once all agents are connected
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::config::duration)]
    pub(crate) duration: std::time::Duration,
    /// What agents' ids begin with
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    pub(crate) prefix: String,
    /// Keep the agents' folders here and take up those that are there; by default they are temporary
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// An API token of the master: then the delay of its event stream is measured too
    #[arg(
        long,
        env = "BATWA_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) api_token: Option<String>,
}
