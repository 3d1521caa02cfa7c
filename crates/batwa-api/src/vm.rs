//! VMs: what is observed of them, what is asked for them, and which action is legal when.

mod action;
mod forward;
mod mount;
mod network;
mod resize;
mod settings;
mod snapshot;
mod spec;
mod update;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    action::{Actions, Reason, VmAction},
    forward::{Forward, ForwardState, MAX_FORWARDS, SaveForward},
    mount::{MAX_MOUNTS, Mount, MountKind, MountOptions, MountState, UnmountOptions},
    network::{HostNetwork, MAC_IS, MAX_NETWORKS, MacAddress, NetworkCard, NetworkMode, VmNetwork},
    resize::ResizeOptions,
    settings::{
        AgentReason, Autostart, IdleStop, Lifetime, LifetimeEnd, LifetimeWanted, Notice,
        NoticeKind, RestartPolicy, SettingsChange, VmSettings,
    },
    snapshot::{
        CloneOptions, MAX_SNAPSHOTS, RestoreOptions, Snapshot, SnapshotOptions, next_snapshot_name,
    },
    spec::{CreateVm, LABELS_ARE, VmSpec, label_is_good},
    update::UpdateVm,
};
use crate::{
    Timestamp,
    agent::{Capabilities, DriverKind, Health, LinkHealth},
    id::{AgentId, OperationId},
    name::VmName,
    size::ByteSize,
};

/// What a VM is doing, as its driver last said.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Being made for the first time.
    Creating,
    /// Powered on, its system not up yet.
    Starting,
    /// Up.
    Running,
    /// Rebooting.
    Restarting,
    /// On its way down.
    Stopping,
    /// Off.
    Stopped,
    /// Being written to disk.
    Suspending,
    /// Off, its memory kept on disk.
    Suspended,
    /// In the trash: it can be recovered until it is purged.
    Deleted,
    /// The driver does not say.
    Unknown,
    /// Broken; the VM's `message` says how.
    Error,
}

impl VmState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Restarting,
        Self::Stopping,
        Self::Stopped,
        Self::Suspending,
        Self::Suspended,
        Self::Deleted,
        Self::Unknown,
        Self::Error,
    ];

    /// The state in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
/// How far a running VM is from being usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Powered on; nothing answers yet.
    Booting,
    /// SSH answers; cloud-init is still at work.
    CloudInit,
    /// SSH answers and cloud-init has finished.
    Ready,
    /// It runs, but did not become ready in time; the VM's `message` says what is known.
    Unreachable,
}

/// What a running VM uses, when last asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct VmUsage {
    /// Share of its CPUs in use, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Memory in use inside the VM, or by its process where the VM does not say.
    pub memory_used: Option<ByteSize>,
    /// Disk space in use inside the VM, or of its disk file.
    pub disk_used: Option<ByteSize>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// When this was measured.
    pub measured_at: Timestamp,
}

/// One VM as its agent observes it. Everything here is written by the agent alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Vm {
    /// Unique on the agent.
    pub name: VmName,
    /// What it is doing.
    pub state: VmState,
    /// When it came into that state, as far as the agent saw.
    pub state_since: Timestamp,
    /// Why it is in that state, when there is something to say: how it failed, why it stopped.
    #[serde(default)]
    pub message: Option<String>,
    /// Which driver runs it.
    pub driver: DriverKind,
    /// How usable it is, while it runs; `None` where the driver cannot tell.
    #[serde(default)]
    pub readiness: Option<Readiness>,
    /// Addresses, most useful first.
    #[serde(default)]
    pub ipv4: Vec<String>,
    /// The image it was made from, by the catalogue's name where known.
    #[serde(default)]
    pub image: Option<String>,
    /// The operating system, for people: `Ubuntu 24.04 LTS`.
    #[serde(default)]
    pub release: Option<String>,
    /// Number of virtual CPUs.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory size.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Disk size.
    #[serde(default)]
    pub disk: Option<ByteSize>,
    /// What it uses.
    #[serde(default)]
    pub usage: Option<VmUsage>,
    /// How its CPU runs (`kvm` or `tcg`), where the driver knows.
    #[serde(default)]
    pub acceleration: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When it was last powered on.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it will be stopped, when that was asked for.
    #[serde(default)]
    pub shutdown_at: Option<Timestamp>,
    /// Where on its machine its disk and other files are, where the driver knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What it can go back to, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// The machine's folders that it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Its network cards beside the first, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<VmNetwork>,
    /// Addresses of its machine that lead to its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// When the driver last said so.
    pub observed_at: Timestamp,
    /// What its agent does about it by itself.
    #[serde(default, skip_serializing_if = "VmSettings::is_default")]
    pub settings: VmSettings,
    /// What people should know of that now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// The operation that runs or waits for it, the oldest first.
    #[serde(default)]
    pub operations: Vec<OperationId>,
}

impl Vm {
    /// Most notices of one VM.
    pub const MAX_NOTICES: usize = 8;
}

/// One VM as its agent shows it: what is observed, and what can be done with it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShownVm {
    /// What can be done with it now.
    pub actions: Actions,
    /// Whether `snapshot`, `restore`, `delete_snapshot`, `clone` and `resize` have to stop it first, for which they are
    /// to be asked with `stop`.
    pub needs_stop: bool,
    /// What is observed.
    #[serde(flatten)]
    pub vm: Vm,
}

impl ShownVm {
    /// A VM whose driver can do this.
    #[must_use]
    pub fn new(vm: Vm, capabilities: &Capabilities) -> Self {
        Self {
            actions: Actions::of(vm.state, capabilities, &vm.settings),
            needs_stop: Actions::need_stop(vm.state),
            vm,
        }
    }
}

/// One VM as the master knows it: the agent's last word and how sure we are of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListedVm {
    /// The agent it is on.
    pub agent_id: AgentId,
    /// What people call that agent.
    pub agent_name: String,
    /// Whether the agent or its driver has been silent since, so that this may be out of date.
    pub stale: bool,
    /// Since when the agent does not know it any more, although nobody asked for its end through Batwa; everything
    /// else is how it was last seen. It stays listed until it is dismissed or comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// What people call it, where that is not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What people wrote down about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The account that set each label last, where that was written down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_sources: BTreeMap<String, String>,
    /// What can be done with it now.
    #[serde(default)]
    pub actions: Actions,
    /// Whether `snapshot`, `restore`, `delete_snapshot`, `clone` and `resize` have to stop it first, for which they are
    /// to be asked with `stop`.
    #[serde(default)]
    pub needs_stop: bool,
    /// The agent's last word.
    // Shared: a list is made for every reader.
    #[serde(flatten)]
    #[schema(value_type = Vm)]
    pub vm: Arc<Vm>,
}

/// One VM with the health of everything that it depends on: the link to its machine, the driver there, itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmDetails {
    /// The VM; its own health is `state`, `state_since`, `message`, `readiness`, as old as `observed_at`.
    #[serde(flatten)]
    pub vm: ListedVm,
    /// The link to its machine.
    pub link: LinkHealth,
    /// Its driver; `null` where the agent does not say.
    pub driver_health: Option<Health>,
}
