//! `up`, `master`, `agent`: the roles that stay.

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueHint};

use crate::settings::{Flags, Role};

/// Settings flags of the role with this number; see [`crate::settings`].
#[derive(Debug)]
pub(crate) struct RoleFlags<const ROLE: u8>(pub(crate) Flags);

/// [`Role::Up`] as a const parameter.
pub(crate) const UP: u8 = 0;
/// [`Role::Master`] as a const parameter.
pub(crate) const MASTER: u8 = 1;
/// [`Role::Agent`] as a const parameter.
pub(crate) const AGENT: u8 = 2;

const fn role(number: u8) -> Role {
    match number {
        UP => Role::Up,
        MASTER => Role::Master,
        _ => Role::Agent,
    }
}

impl<const ROLE: u8> Args for RoleFlags<ROLE> {
    fn augment_args(command: Command) -> Command {
        Flags::augment(command, role(ROLE))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ROLE: u8> FromArgMatches for RoleFlags<ROLE> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Flags::from_matches(matches, role(ROLE))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `batwa agent`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) task: Option<AgentTask>,
    #[command(flatten)]
    pub(crate) flags: RoleFlags<AGENT>,
}

/// What else an agent does.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentTask {
    /// Join a master with a token, then run; `batwa agent` runs it again later
    ///
    /// The agent dials in to the master: it needs no port of its own, and works behind NAT and proxies (HTTPS_PROXY,
    /// NO_PROXY). The key it makes never leaves its state folder.
    Join(JoinArgs),
    /// Have this machine's agent go by a new key
    ///
    /// Works while the agent runs. A copy of the state folder that somebody made is worth nothing afterwards.
    RotateKey(RoleFlags<AGENT>),
}

/// `batwa agent join`
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The master's address, such as `https://batwa.example` or `http://192.168.1.10:8000`
    #[arg(value_name = "MASTER_URL", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// The token, made on the Machines page or with `batwa join-token create`; `-` reads it from standard input
    #[arg(value_name = "TOKEN", env = "BATWA_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) flags: RoleFlags<AGENT>,
}
