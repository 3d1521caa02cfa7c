//! Operations: everything slow, with an id, stages, progress and a result.
//!
//! ```text
//! queued ──► running ──► succeeded
//!    │          ├──────► failed
//!    └──────────┴──────► cancelled
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{AgentId, OperationId},
    name::VmName,
    problem::{Problem, ProblemCode},
    size::ByteSize,
    vm::{VmAction, VmSpec},
};

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OperationRequest {
    /// Make a VM and start it.
    Create {
        /// What is asked for.
        spec: VmSpec,
    },
    /// Power on.
    Start,
    /// Power off.
    Stop(StopOptions),
    /// Reboot.
    Restart,
    /// Write memory to disk and power off.
    Suspend,
    /// Go on from where it was suspended.
    Resume,
    /// Move to the trash.
    Delete,
    /// Take out of the trash.
    Recover,
    /// Remove for good.
    Purge,
}

/// How to stop a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StopOptions {
    /// Pull the plug instead of asking the VM's system.
    pub force: bool,
    /// Wait this many seconds first.
    pub after_s: Option<u64>,
}

impl OperationRequest {
    /// The kind alone.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Create { .. } => OperationKind::Create,
            Self::Start => OperationKind::Start,
            Self::Stop(_) => OperationKind::Stop,
            Self::Restart => OperationKind::Restart,
            Self::Suspend => OperationKind::Suspend,
            Self::Resume => OperationKind::Resume,
            Self::Delete => OperationKind::Delete,
            Self::Recover => OperationKind::Recover,
            Self::Purge => OperationKind::Purge,
        }
    }
}

/// The kind of an operation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the action of the same name")]
pub enum OperationKind {
    Create,
    Start,
    Stop,
    Restart,
    Suspend,
    Resume,
    Delete,
    Recover,
    Purge,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Suspend,
        Self::Resume,
        Self::Delete,
        Self::Recover,
        Self::Purge,
    ];

    /// The kind in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.action().map_or("create", VmAction::as_str)
    }

    /// The action on an existing VM; `None` for create.
    #[must_use]
    pub fn action(self) -> Option<VmAction> {
        Some(match self {
            Self::Create => return None,
            Self::Start => VmAction::Start,
            Self::Stop => VmAction::Stop,
            Self::Restart => VmAction::Restart,
            Self::Suspend => VmAction::Suspend,
            Self::Resume => VmAction::Resume,
            Self::Delete => VmAction::Delete,
            Self::Recover => VmAction::Recover,
            Self::Purge => VmAction::Purge,
        })
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Body of the agent's `PUT /api/v1/operations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartOperation {
    /// The VM it is for.
    pub vm: VmName,
    /// What to do.
    #[serde(flatten)]
    pub request: OperationRequest,
}

/// How far an operation is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Accepted and written down; waits for its turn.
    Queued,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Not done; `error` says why.
    Failed,
    /// Stopped at somebody's request.
    Cancelled,
}

impl OperationState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The state in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a running operation is at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Finding out which image is meant.
    ResolvingImage,
    /// Downloading the image; progress in bytes.
    Downloading,
    /// Checking what was downloaded.
    Verifying,
    /// Building the image on the machine.
    BuildingImage,
    /// Making disk and seed.
    Preparing,
    /// Powered on; waiting for the first sign of life.
    Booting,
    /// The system is up; waiting for SSH.
    WaitingForSsh,
    /// cloud-init is at work inside.
    CloudInit,
    /// Powering on.
    Starting,
    /// Asked to shut down; waiting for it.
    Stopping,
    /// Rebooting.
    Restarting,
    /// Writing memory to disk.
    Suspending,
    /// Removing.
    Deleting,
    /// Taking out of the trash.
    Recovering,
    /// Removing what a failed or cancelled operation left.
    CleaningUp,
}

/// One operation, as agent and master both keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id, the same on both sides; made by whoever asked first.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// The agent it runs on.
    pub agent_id: AgentId,
    /// The VM it is for.
    pub vm: VmName,
    /// How far it is.
    pub state: OperationState,
    /// What it is at, while it runs; what it was at, when it failed.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Per cent of the stage, where that can be known.
    #[serde(default)]
    pub progress: Option<f64>,
    /// Bytes done in this stage, where that is what it does.
    #[serde(default)]
    pub bytes_done: Option<ByteSize>,
    /// Bytes to do in this stage.
    #[serde(default)]
    pub bytes_total: Option<ByteSize>,
    /// One line on what happens, for people.
    #[serde(default)]
    pub message: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<OperationError>,
    /// Whether it succeeded after the driver had called it failed.
    #[serde(default)]
    pub late: bool,
    /// Who asked, on the master.
    #[serde(default)]
    pub requested_by: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it left the queue.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it finished.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationError {
    /// For programs.
    pub code: ProblemCode,
    /// What happened, to what.
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// The field of the request that was at fault, where it was one.
    #[serde(default)]
    pub field: Option<String>,
    /// The last lines that the driver or the VM's console printed.
    #[serde(default)]
    pub log: Vec<String>,
}

impl OperationError {
    /// The same as the body of a failed call.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let mut detail = self.detail.clone();
        if let Some(hint) = &self.hint {
            detail.push_str(". ");
            detail.push_str(hint);
        }
        let mut problem = Problem::new(self.code, detail);
        if let Some(field) = &self.field {
            problem
                .errors
                .push(crate::problem::FieldError::new(field, &self.detail));
        }
        problem
    }
}

/// One line of an operation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was printed.
    pub at: Timestamp,
    /// What the driver or we printed.
    pub text: String,
}
