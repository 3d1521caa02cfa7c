//! VMs: what is observed of them, what is asked when one is made, and which action is legal when.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    agent::{Capabilities, DriverKind, Health, HostFacts, LinkHealth},
    id::{AgentId, OperationId},
    name::VmName,
    problem::FieldError,
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

/// Something that can be done with an existing VM.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum VmAction {
    /// Power on.
    Start,
    /// Power off, by the VM's own system or by force.
    Stop,
    /// Reboot.
    Restart,
    /// Write its memory to disk and power off.
    Suspend,
    /// Go on from where it was suspended.
    Resume,
    /// Move to the trash; a running VM is stopped first.
    Delete,
    /// Take out of the trash.
    Recover,
    /// Remove for good.
    Purge,
    /// Open a shell, run a command or move files in it.
    Shell,
    /// Open its serial console.
    Console,
}

impl VmAction {
    /// Every action.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Suspend,
        Self::Resume,
        Self::Delete,
        Self::Recover,
        Self::Purge,
        Self::Shell,
        Self::Console,
    ];

    /// The action as a verb in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Recover => "recover",
            Self::Purge => "purge",
            Self::Shell => "shell",
            Self::Console => "console",
        }
    }

    /// Why this action is not possible now; `None` when it is.
    ///
    /// This is the one table of legal actions: agents and the master answer from it, page and command line
    /// show what they answer.
    #[must_use]
    pub fn refusal(self, state: VmState, capabilities: &Capabilities) -> Option<&'static str> {
        use VmState::{
            Creating, Deleted, Error, Restarting, Running, Starting, Stopped, Stopping, Suspended,
            Suspending, Unknown,
        };
        let unsupported = match self {
            Self::Suspend | Self::Resume => !capabilities.suspend,
            Self::Delete | Self::Recover => !capabilities.trash,
            Self::Shell => !capabilities.shell,
            Self::Console => !capabilities.console,
            Self::Start | Self::Stop | Self::Restart | Self::Purge => false,
        };
        if unsupported {
            return Some("this machine's driver cannot do this");
        }
        let in_trash = "VM is in the trash";
        match (self, state) {
            // Purge is the way out of every state, a half-made VM included.
            (Self::Purge, _) => None,

            (Self::Recover, Deleted) => None,
            (Self::Recover, _) => Some("VM is not in the trash"),
            (Self::Delete, Deleted) => Some("VM is in the trash already"),
            (_, Deleted) => Some(in_trash),

            (Self::Delete, Creating) => Some("VM is being created: cancel that, or purge it"),
            (Self::Delete, _) => None,

            (Self::Start, Stopped | Suspended | Error | Unknown) => None,
            (Self::Start, Running) => Some("VM is running"),
            (Self::Start, Creating | Starting | Restarting) => Some("VM is starting"),
            (Self::Start, Stopping) => Some("VM is stopping"),
            (Self::Start, Suspending) => Some("VM is being suspended"),

            (Self::Stop, Running | Starting | Restarting | Stopping | Unknown | Error) => None,
            (Self::Stop, Stopped) => Some("VM is stopped"),
            (Self::Stop, Suspended) => Some("VM is suspended"),
            (Self::Stop, Suspending) => Some("VM is being suspended"),
            (Self::Stop, Creating) => Some("VM is being created"),

            (Self::Restart | Self::Suspend | Self::Shell, Running) => None,
            // The serial console speaks from the first boot message on.
            (Self::Console, Running | Starting | Restarting | Stopping | Creating | Unknown) => {
                None
            }
            (Self::Resume, Suspended) => None,
            (Self::Resume, _) => Some("VM is not suspended"),

            (Self::Restart | Self::Suspend | Self::Shell, Creating | Starting | Restarting) => {
                Some("VM is starting")
            }
            (Self::Restart | Self::Suspend | Self::Shell, Stopping) => Some("VM is stopping"),
            (Self::Restart | Self::Suspend | Self::Shell | Self::Console, Stopped) => {
                Some("VM is stopped")
            }
            (Self::Restart | Self::Suspend | Self::Shell | Self::Console, Suspended) => {
                Some("VM is suspended")
            }
            (Self::Restart | Self::Suspend | Self::Shell | Self::Console, Suspending) => {
                Some("VM is being suspended")
            }
            (Self::Restart | Self::Suspend | Self::Shell, Unknown) => {
                Some("the VM's state is unknown")
            }
            (Self::Restart | Self::Suspend | Self::Shell | Self::Console, Error) => {
                Some("VM is broken")
            }
        }
    }
}

impl fmt::Display for VmAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every action with the reason why it is not possible now; `null` when it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, Option<String>>)]
pub struct Actions(pub BTreeMap<VmAction, Option<Reason>>);

/// Why something is not possible now. Our own reasons are sentences of the program: a list of a thousand VMs has ten
/// thousand of them.
pub type Reason = Cow<'static, str>;

impl Actions {
    /// The table of legal actions for one VM.
    #[must_use]
    pub fn of(state: VmState, capabilities: &Capabilities) -> Self {
        Self(
            VmAction::ALL
                .into_iter()
                .map(|action| {
                    (
                        action,
                        action.refusal(state, capabilities).map(Cow::Borrowed),
                    )
                })
                .collect(),
        )
    }

    /// No action is possible, for one reason.
    #[must_use]
    pub fn none_because(reason: &'static str) -> Self {
        Self(
            VmAction::ALL
                .into_iter()
                .map(|action| (action, Some(Cow::Borrowed(reason))))
                .collect(),
        )
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
    /// When the driver last said so.
    pub observed_at: Timestamp,
    /// What can be done with it now.
    #[serde(default)]
    pub actions: Actions,
    /// The operation that runs or waits for it, the oldest first.
    #[serde(default)]
    pub operations: Vec<OperationId>,
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
    /// Labels given by the caller that created it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The agent's last word.
    #[serde(flatten)]
    pub vm: Vm,
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

/// What is asked for when a VM is made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmSpec {
    /// A name from the agent's catalogue: `ubuntu:24.04`, `debian:12`, `tiny`, or a bare Ubuntu version.
    #[serde(default = "default_image")]
    pub image: String,
    /// Number of virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory size, at least 128M.
    #[serde(default = "default_memory")]
    pub memory: ByteSize,
    /// Disk size, at least 512M and not below the image's own.
    #[serde(default = "default_disk")]
    pub disk: ByteSize,
    /// cloud-init user-data: a `#cloud-config` document or a `#!` script.
    #[serde(default)]
    pub cloud_init: Option<String>,
    /// Which driver is to run it; the agent's first one when absent.
    #[serde(default)]
    pub driver: Option<DriverKind>,
    /// Labels, kept by the master.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn default_image() -> String {
    "24.04".to_owned()
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

impl fmt::Debug for VmSpec {
    /// Leaves out the user-data: it may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmSpec")
            .field("image", &self.image)
            .field("cpus", &self.cpus)
            .field("memory", &self.memory)
            .field("disk", &self.disk)
            .field(
                "cloud_init",
                &self
                    .cloud_init
                    .as_ref()
                    .map(|text| format!("<{} bytes>", text.len())),
            )
            .field("driver", &self.driver)
            .field("labels", &self.labels)
            .finish()
    }
}

impl Default for VmSpec {
    fn default() -> Self {
        Self {
            image: default_image(),
            cpus: default_cpus(),
            memory: default_memory(),
            disk: default_disk(),
            cloud_init: None,
            driver: None,
            labels: BTreeMap::new(),
        }
    }
}

impl VmSpec {
    /// Least memory; Multipass' own limit.
    pub const MIN_MEMORY: ByteSize = ByteSize::mib(128);
    /// Least disk; Multipass' own limit.
    pub const MIN_DISK: ByteSize = ByteSize::mib(512);
    /// Largest user-data: what common clouds accept, and small enough for any seed.
    pub const MAX_CLOUD_INIT_BYTES: usize = 64 << 10;

    /// What is wrong with the spec, field by field; against the host's size too where it is known.
    ///
    /// Whether the image exists and how large it is, is the driver's to say.
    #[must_use]
    pub fn check(&self, host: Option<&HostFacts>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse =
            |field: &str, message: String| errors.push(FieldError::new(field, message));
        if self.image.is_empty() || self.image.len() > 512 || self.image.starts_with('-') {
            refuse(
                "image",
                "name an image of the catalogue, such as `24.04` or `debian:12`".to_owned(),
            );
        } else if self
            .image
            .chars()
            .any(|c| c.is_control() || c.is_whitespace())
        {
            refuse(
                "image",
                "an image name has no spaces or control characters".to_owned(),
            );
        }
        let max_cpus = host.map_or(1024, |host| host.cpus);
        if self.cpus == 0 {
            refuse("cpus", "a VM needs at least 1 CPU".to_owned());
        } else if self.cpus > max_cpus {
            refuse(
                "cpus",
                format!(
                    "{} is more than the {max_cpus} CPUs of this machine",
                    self.cpus
                ),
            );
        }
        let max_memory = host.map_or(ByteSize::gib(16 << 10), |host| host.memory);
        if self.memory < Self::MIN_MEMORY {
            refuse(
                "memory",
                format!("a VM needs at least {}", Self::MIN_MEMORY),
            );
        } else if self.memory > max_memory {
            refuse(
                "memory",
                format!(
                    "{} is more than the {max_memory} of this machine",
                    self.memory
                ),
            );
        }
        let max_disk = host
            .and_then(|host| host.disk_total)
            .unwrap_or(ByteSize::gib(64 << 10));
        if self.disk < Self::MIN_DISK {
            refuse("disk", format!("a VM needs at least {}", Self::MIN_DISK));
        } else if self.disk > max_disk {
            refuse(
                "disk",
                format!(
                    "{} is more than the {max_disk} of this machine's disk",
                    self.disk
                ),
            );
        }
        if let Some(text) = &self.cloud_init
            && text.len() > Self::MAX_CLOUD_INIT_BYTES
        {
            refuse(
                "cloud_init",
                format!(
                    "user-data is limited to {} KiB",
                    Self::MAX_CLOUD_INIT_BYTES >> 10
                ),
            );
        }
        if self.labels.len() > 64
            || self
                .labels
                .iter()
                .any(|(key, value)| !label_is_good(key, value))
        {
            refuse("labels", "at most 64 labels; keys of 1 to 63 letters, digits and `._-/`, values of at most 255 printable characters".to_owned());
        }
        errors
    }
}

/// Whether a label can be kept: a short plain key, a printable value.
#[must_use]
pub fn label_is_good(key: &str, value: &str) -> bool {
    (1..=63).contains(&key.len())
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
        && value.len() <= 255
        && !value.chars().any(char::is_control)
}

/// Body of `POST /api/v1/agents/{agent}/vms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(from = "FlatCreateVm")]
pub struct CreateVm {
    /// The new VM's name.
    pub name: String,
    /// What is asked for.
    #[serde(flatten)]
    pub spec: VmSpec,
}

/// [`CreateVm`] as it is read: with `flatten`, serde could not say which field is wrong.
#[derive(Deserialize)]
struct FlatCreateVm {
    name: String,
    #[serde(default = "default_image")]
    image: String,
    #[serde(default = "default_cpus")]
    cpus: u32,
    #[serde(default = "default_memory")]
    memory: ByteSize,
    #[serde(default = "default_disk")]
    disk: ByteSize,
    #[serde(default)]
    cloud_init: Option<String>,
    #[serde(default)]
    driver: Option<DriverKind>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl From<FlatCreateVm> for CreateVm {
    fn from(flat: FlatCreateVm) -> Self {
        Self {
            name: flat.name,
            spec: VmSpec {
                image: flat.image,
                cpus: flat.cpus,
                memory: flat.memory,
                disk: flat.disk,
                cloud_init: flat.cloud_init,
                driver: flat.driver,
                labels: flat.labels,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_left_and_every_refusal_has_a_reason() {
        let capabilities = Capabilities::all();
        for state in VmState::ALL {
            assert_eq!(
                VmAction::Purge.refusal(state, &capabilities),
                None,
                "{state}"
            );
            for action in VmAction::ALL {
                if let Some(reason) = action.refusal(state, &capabilities) {
                    assert!(!reason.is_empty(), "{action} {state}");
                }
            }
        }
    }

    #[test]
    fn the_table_of_legal_actions() {
        let capabilities = Capabilities::all();
        let table: Vec<String> = VmState::ALL
            .into_iter()
            .map(|state| {
                let legal: Vec<_> = VmAction::ALL
                    .into_iter()
                    .filter(|action| action.refusal(state, &capabilities).is_none())
                    .map(VmAction::as_str)
                    .collect();
                format!("{state}: {}", legal.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @"
        creating: purge console
        starting: stop delete purge console
        running: stop restart suspend delete purge shell console
        restarting: stop delete purge console
        stopping: stop delete purge console
        stopped: start delete purge
        suspending: delete purge
        suspended: start resume delete purge
        deleted: recover purge
        unknown: start stop delete purge console
        error: start stop delete purge
        ");
    }

    #[test]
    fn wrong_specs_name_the_field() {
        let host = HostFacts {
            cpus: 2,
            memory: ByteSize::gib(4),
            disk_total: Some(ByteSize::gib(100)),
            ..HostFacts::default()
        };
        let fields = |spec: VmSpec| -> Vec<String> {
            spec.check(Some(&host))
                .into_iter()
                .map(|error| error.field)
                .collect()
        };
        assert!(fields(VmSpec::default()).is_empty());
        assert_eq!(
            fields(VmSpec {
                cpus: 0,
                ..VmSpec::default()
            }),
            ["cpus"]
        );
        assert_eq!(
            fields(VmSpec {
                cpus: 3,
                ..VmSpec::default()
            }),
            ["cpus"]
        );
        assert_eq!(
            fields(VmSpec {
                memory: ByteSize::bytes(0),
                ..VmSpec::default()
            }),
            ["memory"]
        );
        assert_eq!(
            fields(VmSpec {
                memory: ByteSize::gib(999 << 10),
                ..VmSpec::default()
            }),
            ["memory"]
        );
        assert_eq!(
            fields(VmSpec {
                disk: ByteSize::mib(1),
                ..VmSpec::default()
            }),
            ["disk"]
        );
        assert_eq!(
            fields(VmSpec {
                image: "--all".into(),
                ..VmSpec::default()
            }),
            ["image"]
        );
    }

    #[test]
    fn a_request_to_create_reads_every_field_of_the_spec() {
        let create = CreateVm {
            name: "web".into(),
            spec: VmSpec {
                image: "tiny".into(),
                cpus: 3,
                memory: ByteSize::mib(300),
                disk: ByteSize::gib(7),
                cloud_init: Some("#!/bin/sh".into()),
                driver: Some(DriverKind::Fake),
                labels: [("a".to_owned(), "b".to_owned())].into(),
            },
        };
        let written = serde_json::to_string(&create).expect("JSON");
        let read: CreateVm = serde_json::from_str(&written).expect("the same");
        assert_eq!(read, create);
        let least: CreateVm = serde_json::from_str(r#"{"name":"web"}"#).expect("defaults");
        assert_eq!(least.spec, VmSpec::default());
    }
}
