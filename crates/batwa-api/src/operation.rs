//! Operations: everything slow, with an id, stages, progress and a result.
//!
//! ```text
//! queued ──► running ──► succeeded
//!    │          ├──────► failed
//!    └──────────┴──────► cancelled
//! ```

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    Timestamp,
    agent::DriverKind,
    id::{AgentId, OperationId},
    image::ImageName,
    name::{SnapshotName, VmName},
    problem::{Problem, ProblemCode},
    size::ByteSize,
    vm::{
        CloneOptions, MountOptions, ResizeOptions, RestoreOptions, SnapshotOptions, UnmountOptions,
        VmAction, VmSpec, VmState,
    },
};

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OperationRequest {
    /// Make a VM and start it.
    Create {
        /// What is asked for.
        spec: Box<VmSpec>,
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
    /// Keep the disk as it is now, to go back to.
    Snapshot(SnapshotOptions),
    /// Go back to a snapshot.
    Restore(RestoreOptions),
    /// Remove a snapshot; those that came from it go on from its parent.
    DeleteSnapshot {
        /// Which one.
        snapshot: SnapshotName,
        /// Stop the VM for it if it runs, and start it again.
        #[serde(default)]
        stop: bool,
    },
    /// Make another VM of it; it is left off.
    Clone(CloneOptions),
    /// Change CPUs, memory or disk.
    Resize(ResizeOptions),
    /// Let it see a folder of its machine.
    Mount(MountOptions),
    /// Take such a folder, or all of them, out of it.
    Umount(UnmountOptions),
    /// Bring an image to the machine before a VM wants it.
    PullImage(PullOptions),
}

/// How to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PullOptions {
    /// Which driver is to have it; the first one that knows it when absent.
    pub driver: Option<DriverKind>,
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
            Self::Snapshot(_) => OperationKind::Snapshot,
            Self::Restore(_) => OperationKind::Restore,
            Self::DeleteSnapshot { .. } => OperationKind::DeleteSnapshot,
            Self::Clone(_) => OperationKind::Clone,
            Self::Resize(_) => OperationKind::Resize,
            Self::Mount(_) => OperationKind::Mount,
            Self::Umount(_) => OperationKind::Umount,
            Self::PullImage(_) => OperationKind::PullImage,
        }
    }

    /// What it does with a VM that is there; `None` where it makes one, or is about an image.
    #[must_use]
    pub fn action(&self) -> Option<VmAction> {
        match self {
            Self::Clone(options) if options.snapshot.is_some() => Some(VmAction::CloneSnapshot),
            other => other.kind().action(),
        }
    }

    /// Whether it may hold passwords: user-data does.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        matches!(self, Self::Create { spec } if spec.cloud_init.is_some())
    }

    /// The same without what may hold passwords: what is worth keeping once it has ended.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut request = self.clone();
        if let Self::Create { spec } = &mut request {
            spec.cloud_init = None;
        }
        request
    }

    /// Whether a VM that runs is to be stopped for it, and started again.
    #[must_use]
    pub fn stops(&self) -> bool {
        match self {
            Self::Snapshot(options) => options.stop,
            Self::Restore(options) => options.stop,
            Self::DeleteSnapshot { stop, .. } => *stop,
            Self::Clone(options) => options.stop,
            Self::Resize(options) => options.stop,
            _ => false,
        }
    }

    /// Whether it takes something away that nothing brings back: a protected VM refuses it.
    #[must_use]
    pub fn destroys(&self) -> bool {
        match self {
            Self::Delete | Self::Purge => true,
            Self::Restore(options) => options.discard,
            _ => false,
        }
    }

    /// The snapshot that it takes, goes back to, removes or begins from.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Snapshot(options) => options.name.as_ref(),
            Self::Restore(options) => Some(&options.snapshot),
            Self::DeleteSnapshot { snapshot, .. } => Some(snapshot),
            Self::Clone(options) => options.snapshot.as_ref(),
            _ => None,
        }
    }

    /// The VM that it makes beside the one that it is for.
    #[must_use]
    pub fn target(&self) -> Option<&VmName> {
        match self {
            Self::Clone(options) => Some(&options.name),
            _ => None,
        }
    }
}

/// The kind of an operation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the request of the same name")]
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
    Snapshot,
    Restore,
    DeleteSnapshot,
    Clone,
    Resize,
    Mount,
    Umount,
    PullImage,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Suspend,
        Self::Resume,
        Self::Delete,
        Self::Recover,
        Self::Purge,
        Self::Snapshot,
        Self::Restore,
        Self::DeleteSnapshot,
        Self::Clone,
        Self::Resize,
        Self::Mount,
        Self::Umount,
        Self::PullImage,
    ];

    /// The kind in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match (self, self.action()) {
            (Self::PullImage, _) => "pull_image",
            (_, action) => action.map_or("create", VmAction::as_str),
        }
    }

    /// Whether it is for an image, and not for a VM.
    #[must_use]
    pub fn is_for_image(self) -> bool {
        self == Self::PullImage
    }

    /// Whether it touches the disk of a VM, which has to be off for it.
    #[must_use]
    pub fn needs_vm_off(self) -> bool {
        self.action()
            .is_some_and(|action| action.needs_stop(VmState::Running))
    }

    /// The action on an existing VM; `None` where there is none yet, or it is for no VM.
    #[must_use]
    pub fn action(self) -> Option<VmAction> {
        Some(match self {
            Self::Create | Self::PullImage => return None,
            Self::Start => VmAction::Start,
            Self::Stop => VmAction::Stop,
            Self::Restart => VmAction::Restart,
            Self::Suspend => VmAction::Suspend,
            Self::Resume => VmAction::Resume,
            Self::Delete => VmAction::Delete,
            Self::Recover => VmAction::Recover,
            Self::Purge => VmAction::Purge,
            Self::Snapshot => VmAction::Snapshot,
            Self::Restore => VmAction::Restore,
            Self::DeleteSnapshot => VmAction::DeleteSnapshot,
            Self::Clone => VmAction::Clone,
            Self::Resize => VmAction::Resize,
            Self::Mount => VmAction::Mount,
            Self::Umount => VmAction::Umount,
        })
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operation is for; on the wire `vm` or `image` with its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A VM.
    Vm(VmName),
    /// An image.
    Image(ImageName),
}

impl Subject {
    /// The VM, when it is one.
    #[must_use]
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Vm(name) => Some(name),
            Self::Image(_) => None,
        }
    }

    /// The image, when it is one.
    #[must_use]
    pub fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Image(name) => Some(name),
            Self::Vm(_) => None,
        }
    }

    /// Its name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vm(name) => name.as_str(),
            Self::Image(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(name) => write!(f, "VM `{name}`"),
            Self::Image(name) => write!(f, "image `{name}`"),
        }
    }
}

impl From<VmName> for Subject {
    fn from(name: VmName) -> Self {
        Self::Vm(name)
    }
}

impl From<ImageName> for Subject {
    fn from(name: ImageName) -> Self {
        Self::Image(name)
    }
}

impl PartialSchema for Subject {
    /// Two fields of which there is one: readers of a union would have to ask for the other's absence at each step.
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::{Ref, schema::ObjectBuilder};
        ObjectBuilder::new()
            .property("vm", Ref::from_schema_name("VmName"))
            .property("image", Ref::from_schema_name("ImageName"))
            .description(Some("What it is for: one of `vm` and `image`"))
            .build()
            .into()
    }
}

impl ToSchema for Subject {
    fn schemas(
        schemas: &mut Vec<(
            String,
            utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>,
        )>,
    ) {
        schemas.push((VmName::name().into_owned(), VmName::schema()));
        schemas.push((ImageName::name().into_owned(), ImageName::schema()));
    }
}

/// Body of the agent's `PUT /api/v1/operations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StartOperation {
    /// What it is for.
    #[serde(flatten)]
    pub subject: Subject,
    /// What to do.
    #[serde(flatten)]
    pub request: OperationRequest,
    /// Who asked the master for it, so that accounts get their turns fairly; at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub requested_by: Option<String>,
}

impl<'de> Deserialize<'de> for StartOperation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The subject apart, so that what is missing is told by its name.
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            vm: Option<VmName>,
            #[serde(default)]
            image: Option<ImageName>,
            #[serde(flatten)]
            request: OperationRequest,
            #[serde(default)]
            requested_by: Option<String>,
        }
        let Body {
            vm,
            image,
            request,
            requested_by,
        } = Body::deserialize(deserializer)?;
        if requested_by
            .as_ref()
            .is_some_and(|name| name.chars().count() > Self::MAX_NAME)
        {
            return Err(de::Error::custom(format!(
                "`requested_by` has at most {} characters",
                Self::MAX_NAME
            )));
        }
        let subject = match (vm, image) {
            (Some(vm), None) => Subject::Vm(vm),
            (None, Some(image)) => Subject::Image(image),
            (None, None) => return Err(de::Error::missing_field("vm")),
            (Some(_), Some(_)) => {
                return Err(de::Error::custom("give one of `vm` and `image`, not both"));
            }
        };
        Ok(Self {
            subject,
            request,
            requested_by,
        })
    }
}

impl StartOperation {
    /// Longest name of who asked, in characters.
    const MAX_NAME: usize = 255;

    /// Whether what is to be done can be done with such a subject at all.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.request.kind().is_for_image() == self.subject.image().is_some()
    }
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
    /// Keeping the disk as it is.
    TakingSnapshot,
    /// Going back to a snapshot.
    Restoring,
    /// Removing a snapshot.
    DeletingSnapshot,
    /// Copying the disk for another VM.
    Cloning,
    /// Changing the size.
    Resizing,
    /// Letting the VM see a folder.
    Mounting,
    /// Taking a folder out of the VM.
    Unmounting,
    /// Removing what a failed or cancelled operation left.
    CleaningUp,
}

/// Something that an operation was at, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What it was at.
    pub stage: Stage,
    /// When that began.
    pub began_at: Timestamp,
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
    /// What it is for.
    #[serde(flatten)]
    pub subject: Subject,
    /// The VM that it makes of that one, for a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<VmName>,
    /// The snapshot that it takes, goes back to or removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// How far it is.
    pub state: OperationState,
    /// What it is at, while it runs; what it was at, when it failed.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// What it has been at, the first first, the stage it is at last; at most [`Operation::MAX_STEPS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
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
    /// Who asked: an account's name; or for what reason the agent did it by itself.
    #[serde(default)]
    pub requested_by: Option<String>,
    /// From which address, on the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_from: Option<String>,
    /// Until when the master keeps it for a machine that is offline: it has not been sent yet. `None` once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it left the queue.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it finished.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

impl Operation {
    /// Most steps that are kept: no driver has more, and a VM that boots again and again must not grow it for ever.
    pub const MAX_STEPS: usize = 32;

    /// Notes that a new stage begins.
    pub fn enter(&mut self, stage: Stage, now: Timestamp) {
        if self.stage != Some(stage) && self.steps.len() < Self::MAX_STEPS {
            let began_at = now;
            self.steps.push(Step { stage, began_at });
        }
        self.stage = Some(stage);
    }

    /// The VM that it is for, when it is for one.
    #[must_use]
    pub fn vm(&self) -> Option<&VmName> {
        self.subject.vm()
    }

    /// Where it is done: `agent/name`, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.agent_id, self.subject.name())
    }

    /// An operation that has been accepted and waits for its turn.
    #[must_use]
    pub fn new(
        id: OperationId,
        agent_id: AgentId,
        subject: impl Into<Subject>,
        request: &OperationRequest,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            kind: request.kind(),
            agent_id,
            subject: subject.into(),
            target: request.target().cloned(),
            snapshot: request.snapshot().cloned(),
            state: OperationState::Queued,
            stage: None,
            steps: Vec::new(),
            progress: None,
            bytes_done: None,
            bytes_total: None,
            message: None,
            error: None,
            late: false,
            requested_by: None,
            requested_from: None,
            waits_until: None,
            created_at,
            started_at: None,
            finished_at: None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_its_subject_as_it_always_did() {
        let started = r#"{"vm": "web", "kind": "start"}"#;
        let start: StartOperation = serde_json::from_str(started).unwrap();
        assert_eq!(start.subject, VmName::parse("web").unwrap().into());
        assert_eq!(start.request, OperationRequest::Start);
        assert!(start.fits());
        let operation = Operation::new(
            OperationId::new(),
            AgentId::local(),
            start.subject,
            &start.request,
            Timestamp::UNIX_EPOCH,
        );
        let json = serde_json::to_value(&operation).unwrap();
        assert_eq!(json["vm"], "web");
        assert_eq!(
            serde_json::from_value::<Operation>(json).unwrap(),
            operation
        );
    }

    #[test]
    fn what_is_for_an_image_has_no_vm() {
        let pull = r#"{"image": "ubuntu:24.04", "kind": "pull_image"}"#;
        let pull: StartOperation = serde_json::from_str(pull).unwrap();
        assert!(pull.fits());
        assert_eq!(pull.subject.vm(), None);
        for wrong in [
            r#"{"image": "tiny", "kind": "start"}"#,
            r#"{"vm": "web", "kind": "pull_image"}"#,
        ] {
            let start: StartOperation = serde_json::from_str(wrong).unwrap();
            assert!(!start.fits(), "{wrong}");
        }
        serde_json::from_str::<StartOperation>(r#"{"kind": "start"}"#).unwrap_err();
        serde_json::from_str::<StartOperation>(r#"{"image": "a b", "kind": "pull_image"}"#)
            .unwrap_err();
    }
}
