//! The shapes of the interface that existed before v1 (COMPAT.md). Unknown request fields are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{certificate::CertificateHash, size::ByteSize, vm::VmState};

/// `{"success":true,"message":…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Always true; failures are error statuses.
    pub success: bool,
    /// What was done, for people.
    pub message: String,
}

impl Done {
    /// A success.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            success: true,
            message: message.into(),
        }
    }
}

/// Answer to `GET /api/auth/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthCheck {
    /// Whether the cookie is good.
    pub authenticated: bool,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// Body of `POST /api/agent/register`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// The id the agent goes by.
    pub agent_id: String,
    /// Its machine's name.
    pub hostname: String,
    /// Where the master can reach it.
    pub api_url: String,
    /// Its key; the `X-API-Key` header counts more.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Labels.
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// SHA-256 of the certificate at an `https://` address, in hex, when the system's roots do not vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub certificate: Option<CertificateHash>,
}

/// Body of `POST /api/agent/heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// The id the agent goes by.
    pub agent_id: String,
    /// The agent's clock, in any form; never trusted.
    #[serde(default)]
    pub timestamp: Value,
    /// Ignored.
    #[serde(default)]
    pub status: Value,
    /// Ignored: the fleet knows better.
    #[serde(default)]
    pub vm_count: Value,
}

/// One agent in the old API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LegacyAgent {
    /// Its id.
    pub agent_id: String,
    /// Its machine's name.
    pub hostname: String,
    /// Where it is reached.
    pub api_url: String,
    /// `online`, `offline`, `error`, `pending` or `revoked`.
    pub status: String,
    /// ISO 8601.
    pub last_seen: String,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// VMs that the master knows there.
    pub vm_count: u64,
}

/// Body of `POST /api/vm/create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OldCreateVm)]
pub struct CreateVm {
    /// The new VM's name.
    pub name: String,
    /// Number of virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory size.
    #[serde(default = "default_memory")]
    pub memory: ByteSize,
    /// Disk size.
    #[serde(default = "default_disk")]
    pub disk: ByteSize,
    /// The image.
    #[serde(default = "default_image")]
    pub image: String,
    /// The agent; `null` and `"null"` mean the master's own machine.
    #[serde(default)]
    pub agent_id: Option<String>,
}

fn default_cpus() -> u32 {
    1
}

fn default_memory() -> ByteSize {
    ByteSize::gib(1)
}

fn default_disk() -> ByteSize {
    ByteSize::gib(5)
}

fn default_image() -> String {
    "22.04".to_owned()
}

/// Body of `POST /api/vm/start`, `/stop` and `/delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmRequest {
    /// The VM.
    pub name: String,
    /// The agent; `null` and `"null"` mean the master's own machine.
    #[serde(default)]
    pub agent_id: Option<String>,
}

/// Body of the agent's `POST /api/execute`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Execute {
    /// Ignored, as it always was.
    #[serde(default)]
    pub command: Value,
    /// Arguments for `multipass`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Seconds to wait.
    #[serde(default = "default_timeout")]
    pub timeout: f64,
}

fn default_timeout() -> f64 {
    30.0
}

/// Answer to the agent's `POST /api/execute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Executed {
    /// Whether the exit code was 0.
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// The exit code; -1 when it did not run.
    pub return_code: i32,
    /// Why it did not run.
    pub error: Option<String>,
}

/// The state in the old API's words (DESIGN.md section 4).
#[must_use]
pub fn state_name(state: VmState) -> &'static str {
    match state {
        VmState::Creating | VmState::Starting => "Starting",
        VmState::Running | VmState::Stopping => "Running",
        VmState::Restarting => "Restarting",
        VmState::Stopped => "Stopped",
        VmState::Suspending => "Suspending",
        VmState::Suspended => "Suspended",
        VmState::Deleted => "Deleted",
        VmState::Unknown | VmState::Error => "Unknown",
    }
}

/// The state that an old agent or Multipass names; anything new is unknown. `Delayed Shutdown` is running.
#[must_use]
pub fn state_from_name(name: &str) -> VmState {
    match name {
        "Starting" => VmState::Starting,
        "Running" | "Delayed Shutdown" => VmState::Running,
        "Restarting" => VmState::Restarting,
        "Stopped" => VmState::Stopped,
        "Suspending" => VmState::Suspending,
        "Suspended" => VmState::Suspended,
        "Deleted" => VmState::Deleted,
        _ => VmState::Unknown,
    }
}
