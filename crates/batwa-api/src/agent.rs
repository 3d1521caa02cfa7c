//! Agents: what a machine is, what its drivers can do, and how the master reaches it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    certificate::CertificateHash,
    id::{AgentId, AgentKeyId},
    policy::Policy,
    size::ByteSize,
};

/// One way of running VMs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Canonical's Multipass, through its command line.
    Multipass,
    /// QEMU, driven directly.
    Qemu,
    /// VMs that only pretend: for demos, tests and load.
    Fake,
}

impl DriverKind {
    /// The driver's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Multipass => "multipass",
            Self::Qemu => "qemu",
            Self::Fake => "fake",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a driver can do beyond create, start, stop, restart and purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Capabilities {
    /// Shells, commands and files inside a VM.
    pub shell: bool,
    /// The serial console.
    pub console: bool,
    /// The display, as a screen and a keyboard at the VM would have it.
    pub display: bool,
    /// Suspend to disk and resume.
    pub suspend: bool,
    /// A trash from which VMs can be recovered.
    pub trash: bool,
    /// cloud-init user-data at creation.
    pub cloud_init: bool,
    /// Snapshots: taking them, going back to them, removing them.
    pub snapshots: bool,
    /// Making another VM of one.
    pub clone: bool,
    /// Making another VM of a snapshot of one.
    pub clone_snapshots: bool,
    /// Changing CPUs, memory and disk of a VM.
    pub resize: bool,
    /// Letting a VM see folders of the machine.
    pub mounts: bool,
    /// Putting a new VM on networks of the machine.
    pub networks: bool,
    /// Pulling images ahead, removing them, adding one's own.
    pub images: bool,
    /// Telling a VM that crashed from one that somebody stopped.
    pub crashes: bool,
    /// Going by a VM's settings from the moment on in which it is made; an older agent would make it without them.
    pub settings_at_create: bool,
}

impl Capabilities {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            shell: true,
            console: true,
            display: true,
            suspend: true,
            trash: true,
            cloud_init: true,
            snapshots: true,
            clone: true,
            clone_snapshots: true,
            resize: true,
            mounts: true,
            networks: true,
            images: true,
            crashes: true,
            settings_at_create: true,
        }
    }
}

/// How a driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It answers.
    Ok,
    /// It answers, but late.
    Slow,
    /// It does not answer; what is known of its VMs is as old as `since`.
    Stuck,
    /// It is not there; `message` says what to install or start.
    Missing,
}

/// How a driver is, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// What is wrong and what helps.
    #[serde(default)]
    pub message: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// One driver of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriverStatus {
    /// Which one.
    pub kind: DriverKind,
    /// The version of the program behind it.
    #[serde(default)]
    pub version: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How it is.
    pub health: Health,
    /// How VMs' CPUs run, where the driver decides that.
    #[serde(default)]
    pub acceleration: Option<Acceleration>,
}

/// How VMs' CPUs run on a machine, and what that is known from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acceleration {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why this one: what was measured, or why the faster one cannot be used.
    pub reason: String,
}

/// Facts of a machine, measured by its agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct HostFacts {
    /// The machine's own name.
    pub hostname: String,
    /// Operating system, for people: `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Processor architecture as Rust and Linux name it: `x86_64`, `aarch64`.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory installed.
    pub memory: ByteSize,
    /// Memory not in use.
    #[serde(default)]
    pub memory_available: Option<ByteSize>,
    /// Size of the file system that holds the VMs.
    #[serde(default)]
    pub disk_total: Option<ByteSize>,
    /// Free space there.
    #[serde(default)]
    pub disk_free: Option<ByteSize>,
    /// Load averages over 1, 5 and 15 minutes.
    #[serde(default)]
    pub load: Option<[f64; 3]>,
}

/// Body of the agent's `GET /api/v1/agent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentInfo {
    /// The id the agent goes by.
    pub agent_id: AgentId,
    /// Batwa's version on that machine.
    pub version: String,
    /// The version of the agent API, see [`crate::PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// The machine.
    pub host: HostFacts,
    /// Its drivers, the one for new VMs first; empty when none was found.
    pub drivers: Vec<DriverStatus>,
    /// Labels from the agent's own settings.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its owner lets any master ask of the machine; `None` of agents that know no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Apart: it is larger than all else together, and changes seldom.
    pub policy: Option<Box<Policy>>,
    /// When the agent started.
    pub started_at: Timestamp,
    /// The agent's clock when it said this; never trusted, only compared.
    pub clock: Timestamp,
}

/// How an agent stands with the master.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// Its link works and its inventory is known.
    Online,
    /// Its link is cut; what is known of it is stale.
    Offline,
    /// It answers, but not as an agent should; `message` says how.
    Error,
    /// It waits for an admin's approval and is not contacted.
    Pending,
    /// An admin has shut it out.
    Revoked,
}

impl AgentStatus {
    /// The status in v1's and the old API's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Error => "error",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }
}

/// How the link to an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkHealth {
    /// How the agent stands.
    pub status: AgentStatus,
    /// Why, when there is something to say.
    #[serde(default)]
    pub message: Option<String>,
    /// Since when it stands so.
    pub since: Timestamp,
    /// When the master last heard of it.
    #[serde(default)]
    pub last_seen: Option<Timestamp>,
}

/// One change of an agent's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkChange {
    /// When, by the master's clock.
    pub at: Timestamp,
    /// How the agent stood from then on.
    pub status: AgentStatus,
    /// How it was reached.
    pub link: LinkKind,
    /// Why, when there was something to say.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Answer to `DELETE /api/v1/agents/{agent}?dry_run=true`: what removing a machine takes away and what it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// Records of VMs that go; the VMs themselves go on running.
    pub vms: u64,
    /// Records of missing VMs that go.
    pub missing_vms: u64,
    /// Terminal sessions that nobody reaches any more from here; their shells go on until their time is over.
    pub terminals: u64,
    /// Operations under way, which go on there without being followed.
    pub operations: u64,
    /// Registrations that wait under its id and are refused.
    pub registrations: u64,
    /// All that in sentences.
    pub says: Vec<String>,
}

/// How the master gets a byte stream to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The master's own machine.
    InProcess,
    /// TCP to the agent's port.
    Direct,
    /// A stream inside the connection that the agent opened.
    Tunnel,
}

/// Who set a label of an agent. Of two who set the same one, the later in this list wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// The join token that the agent came with.
    Token,
    /// The agent, by its settings.
    Agent,
    /// An admin.
    Admin,
}

/// One agent as the master knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// What people call it: a display name, else the host name.
    pub name: String,
    /// How it stands.
    pub status: AgentStatus,
    /// Why, when there is something to say: what failed and the fix.
    #[serde(default)]
    pub message: Option<String>,
    /// Since when it stands so.
    pub status_since: Timestamp,
    /// How it is reached.
    pub link: LinkKind,
    /// Where it is reached.
    pub api_url: String,
    /// Whether it is an old agent (COMPAT.md), which can do less.
    pub legacy: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Who set each label.
    #[serde(default)]
    pub label_sources: BTreeMap<String, LabelSource>,
    /// What admins wrote down about it.
    #[serde(default)]
    pub notes: String,
    /// When the master last heard from it.
    #[serde(default)]
    pub last_seen: Option<Timestamp>,
    /// VMs that the master knows there.
    pub vm_count: u64,
    /// VMs that were there, are gone without an operation, and are not dismissed yet; not in `vm_count`.
    #[serde(default)]
    pub missing_count: u64,
    /// How far its clock is ahead of the master's, in milliseconds; negative when it is behind.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// What somebody should look at, for people.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether no new VM may be made there.
    pub cordoned: bool,
    /// What it last said of itself; `None` for old agents and those never reached.
    #[serde(default)]
    pub info: Option<AgentInfo>,
    /// Registrations under this id that wait for approval.
    #[serde(default)]
    pub registrations: Vec<Registration>,
    /// SHA-256 of its key, the first 16 hex digits; `None` when it has no key.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Its tunnel, while one is open.
    #[serde(default)]
    pub tunnel: Option<Tunnel>,
    /// What somebody should look at although everything seems to work.
    #[serde(default)]
    pub alerts: Vec<Alert>,
}

/// An open tunnel of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    /// Where the agent dials in from, as far as the connection tells.
    pub address: String,
    /// Since when.
    pub since: Timestamp,
    /// The agent's version of Batwa.
    pub version: String,
    /// The protocol that both ends agreed on.
    pub protocol: u32,
}

/// Something about an agent that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// What kind.
    pub code: AlertCode,
    /// What was seen and what to do.
    pub message: String,
    /// When it was first seen.
    pub since: Timestamp,
}

/// What kind of alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertCode {
    /// Two agents that are both alive present the same key.
    SharedKey,
}

/// One registration that waits for an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registration {
    /// The host name it gave.
    pub hostname: String,
    /// Where it says it can be reached.
    pub api_url: String,
    /// Where the request came from.
    pub address: String,
    /// How it would be reached.
    #[serde(default = "direct")]
    pub link: LinkKind,
    /// Whether its tunnel is open now.
    #[serde(default)]
    pub connected: bool,
    /// SHA-256 of its key, the first 16 hex digits; `None` when it gave no key.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// SHA-256 of the certificate that its port shows over TLS, in hex; the master takes no other from it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub certificate: Option<CertificateHash>,
    /// When it first asked.
    pub first_seen: Timestamp,
    /// When it last asked.
    pub last_seen: Timestamp,
}

/// The link of every registration before there were tunnels.
fn direct() -> LinkKind {
    LinkKind::Direct
}

/// Body of `POST /api/v1/agents/{agent}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ApproveAgent {
    /// Which registration, when there are several under the id, and proof that it has not changed.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

/// Body of `PATCH /api/v1/agents/{agent}`; absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct UpdateAgent {
    /// What people call it; empty to go back to the host name.
    #[serde(default)]
    pub name: Option<String>,
    /// All its labels; those that its agent or join token brought and that are not named are hidden.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Anything worth writing down about it, at most 4,000 characters.
    #[serde(default)]
    pub notes: Option<String>,
}

/// Body of `POST /api/v1/agent-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateAgentKey {
    /// What people call the key.
    pub name: String,
    /// The only agent that may use it; any one agent when absent, which then owns it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
}

/// One agent key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentKey {
    /// Its id.
    pub id: AgentKeyId,
    /// What people call it.
    pub name: String,
    /// The only agent that may use it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The first 16 hex digits of its SHA-256, as on a registration.
    pub fingerprint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

/// Answer to `POST /api/v1/agent-keys`: the only time the key is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedAgentKey {
    /// The key's id.
    pub id: AgentKeyId,
    /// What the agent gives as `--api-key`.
    pub key: String,
}
