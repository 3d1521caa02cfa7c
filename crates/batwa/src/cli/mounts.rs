//! `mount`, `umount`: folders of a machine that its VMs see.

use batwa_api::vm::MountKind;
use clap::{Args, ValueEnum};

use super::{DeliveryArgs, MasterArgs, WaitArgs, live};

/// `batwa mount`
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The folder on the VM's machine, by its whole path; not one of the machine that you type on
    #[arg(value_name = "FOLDER")]
    pub(crate) source: String,
    /// The VM, and where it is to see the folder; at the same path when absent
    #[arg(value_name = "[AGENT/]VM[:PATH]", add = live::vms())]
    pub(crate) target: String,
    /// Let the VM only read it
    #[arg(long)]
    pub(crate) read_only: bool,
    /// How Multipass is to do it; native mounts need a VM that is off
    #[arg(long = "type", short = 't', value_name = "TYPE", value_enum)]
    pub(crate) kind: Option<MountType>,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa umount`
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// The VM, and where it sees the folder; everything that it sees when the path is absent
    #[arg(value_name = "[AGENT/]VM[:PATH]", add = live::vms())]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// The kinds of mounts in Multipass' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MountType {
    /// By SSH, into a VM that runs
    Classic,
    /// By the hypervisor
    Native,
}

impl From<MountType> for MountKind {
    fn from(kind: MountType) -> Self {
        match kind {
            MountType::Classic => Self::Classic,
            MountType::Native => Self::Native,
        }
    }
}
