//! `snapshot`, `snapshots`, `restore`, `delete-snapshot`, `clone`, `set`: what is done to a VM's disk while it is off.

use batwa_api::size::ByteSize;
use clap::Args;

use super::{ConfirmArgs, DeliveryArgs, MasterArgs, ReadArgs, WaitArgs, live};

/// What these commands have in common.
#[derive(Debug, Args)]
pub(crate) struct OffArgs {
    /// Stop the VM for it if it runs, and start it again
    #[arg(long)]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa snapshot`
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    /// What to call the snapshot; `snapshotN` when absent
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    /// What to remember about it
    #[arg(long, short = 'm', visible_short_alias = 'c')]
    pub(crate) comment: Option<String>,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}

/// `batwa snapshots`
#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The VM and its snapshot
    #[arg(value_name = "[AGENT/]VM.SNAPSHOT", add = live::snapshots())]
    pub(crate) snapshot: String,
    /// Throw the disk as it is now away, instead of keeping it as one more snapshot first
    #[arg(long, short, visible_alias = "destructive")]
    pub(crate) discard: bool,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}

/// `batwa delete-snapshot`
#[derive(Debug, Args)]
pub(crate) struct DeleteSnapshotArgs {
    /// The VM and its snapshot
    #[arg(value_name = "[AGENT/]VM.SNAPSHOT", add = live::snapshots())]
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}

/// `batwa clone`
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The VM, or one of its snapshots
    #[arg(value_name = "[AGENT/]VM[.SNAPSHOT]", add = live::vms())]
    pub(crate) source: String,
    /// What to call the new VM; `NAME-cloneN` when absent
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}

/// `batwa set`
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    /// Number of virtual CPUs
    #[arg(long, short, value_name = "N", required_unless_present_any = ["memory", "disk"])]
    pub(crate) cpus: Option<u32>,
    /// Memory, such as `512M` or `2G`
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Disk, such as `10G`; it only grows
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) disk: Option<ByteSize>,
    #[command(flatten)]
    pub(crate) off: OffArgs,
}
