//! `ls`, `info`, `launch`, and what is done to VMs as a whole.

use std::path::PathBuf;

use batwa_api::{agent::DriverKind, size::ByteSize};
use clap::{Args, ValueHint};

use super::{MasterArgs, ReadArgs, WaitArgs};

/// `batwa ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// A search: words, and fields as in `state:running label:env=prod -agent:lab-* memory>4G`
    ///
    /// Quote it, or write `--` before a term that begins with `-`.
    #[arg(value_name = "SEARCH")]
    pub(crate) query: Vec<String>,
    /// Only VMs of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only VMs in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only VMs with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
    /// The order: name, agent, state, cpus, memory, disk, created or changed; `-` in front turns it round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// How many at most; all when absent
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa dismiss`
#[derive(Debug, Args)]
pub(crate) struct DismissArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true)]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM")]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa launch`
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// The image: `batwa images` lists them; the machine's default when absent
    pub(crate) image: Option<String>,
    /// The new VM's name
    #[arg(long, short)]
    pub(crate) name: String,
    /// The machine to make it on
    #[arg(long, value_name = "ID", default_value = "local")]
    pub(crate) agent: String,
    /// Number of virtual CPUs
    #[arg(long, short, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory, such as `512M` or `2G`
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Disk, such as `10G`
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) disk: Option<ByteSize>,
    /// A file of cloud-init user-data, `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cloud_init: Option<PathBuf>,
    /// The driver to run it, where the machine has several
    #[arg(long, value_name = "NAME", value_parser = crate::config::driver_kind)]
    pub(crate) driver: Option<DriverKind>,
    /// A label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// Commands that do one thing to VMs.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true)]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa stop`
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    /// Pull the plug instead of asking the VM's system
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// `batwa delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    /// Remove for good instead
    #[arg(long, short)]
    pub(crate) purge: bool,
}
