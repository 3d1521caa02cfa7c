//! What is asked for when a VM is made.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    SettingsChange, VmSettings,
    network::{self, NetworkCard},
    update::wrong_about,
};
use crate::{
    agent::{Capabilities, DriverKind, HostFacts},
    cloud_init::UseTemplate,
    problem::FieldError,
    size::ByteSize,
    ssh_key::PublicKey,
};

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
    /// SSH public keys that may sign in to the VM's first account, each on one line; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Which driver is to run it; the agent's first one when absent.
    #[serde(default)]
    pub driver: Option<DriverKind>,
    /// Network cards beside the first one, on networks of the machine that its policy names; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkCard>,
    /// Labels, kept by the master.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What people call it, at most 100 characters; kept by the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Anything worth writing down about it, at most 4,000 characters; kept by the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// What its agent is to do about it by itself, from the moment on in which it is made. A lifetime begins once it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsChange>,
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
            .field("ssh_keys", &self.ssh_keys)
            .field("driver", &self.driver)
            .field("networks", &self.networks)
            .field("labels", &self.labels)
            .field("display_name", &self.display_name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
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
            ssh_keys: Vec::new(),
            driver: None,
            networks: Vec::new(),
            labels: BTreeMap::new(),
            display_name: None,
            notes: None,
            settings: None,
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
    /// Most SSH keys.
    pub const MAX_SSH_KEYS: usize = 64;

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
        errors.extend(check_cpus(self.cpus, host));
        errors.extend(check_memory(self.memory, host));
        errors.extend(check_disk(self.disk, host));
        let mut refuse =
            |field: &str, message: String| errors.push(FieldError::new(field, message));
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
        if self.ssh_keys.len() > Self::MAX_SSH_KEYS {
            refuse(
                "ssh_keys",
                format!("at most {} SSH keys", Self::MAX_SSH_KEYS),
            );
        } else if let Some(why) = self
            .ssh_keys
            .iter()
            .find_map(|line| PublicKey::parse(line).err())
        {
            refuse("ssh_keys", why.to_owned());
        }
        if self.labels.len() > 64
            || self
                .labels
                .iter()
                .any(|(key, value)| !label_is_good(key, value))
        {
            refuse("labels", LABELS_ARE.to_owned());
        }
        errors.extend(wrong_about(
            self.display_name.as_deref(),
            self.notes.as_deref(),
        ));
        errors.extend(network::check(&self.networks));
        errors
    }

    /// The settings that it is to begin with, where any are asked for.
    #[must_use]
    pub fn wanted_settings(&self) -> Option<&SettingsChange> {
        self.settings.as_ref().filter(|change| !change.is_empty())
    }

    /// What is wrong with the settings for a driver that can do this, field by field.
    #[must_use]
    pub fn check_settings(&self, capabilities: &Capabilities) -> Vec<FieldError> {
        let Some(wanted) = self.wanted_settings() else {
            return Vec::new();
        };
        if !capabilities.settings_at_create {
            return vec![FieldError::new(
                "settings",
                "the agent there is too old to make a VM with settings: update it, or leave them out and change them afterwards",
            )];
        }
        wanted.check(&VmSettings::default(), capabilities)
    }
}

/// What is wrong with a number of CPUs.
pub(super) fn check_cpus(cpus: u32, host: Option<&HostFacts>) -> Option<FieldError> {
    let most = host.map_or(1024, |host| host.cpus);
    let message = if cpus == 0 {
        "a VM needs at least 1 CPU".to_owned()
    } else if cpus > most {
        format!("{cpus} is more than the {most} CPUs of this machine")
    } else {
        return None;
    };
    Some(FieldError::new("cpus", message))
}

/// What is wrong with a memory size.
pub(super) fn check_memory(memory: ByteSize, host: Option<&HostFacts>) -> Option<FieldError> {
    let most = host.map_or(ByteSize::gib(16 << 10), |host| host.memory);
    let message = if memory < VmSpec::MIN_MEMORY {
        format!("a VM needs at least {}", VmSpec::MIN_MEMORY)
    } else if memory > most {
        format!("{memory} is more than the {most} of this machine")
    } else {
        return None;
    };
    Some(FieldError::new("memory", message))
}

/// What is wrong with a disk size.
pub(super) fn check_disk(disk: ByteSize, host: Option<&HostFacts>) -> Option<FieldError> {
    let most = host
        .and_then(|host| host.disk_total)
        .unwrap_or(ByteSize::gib(64 << 10));
    let message = if disk < VmSpec::MIN_DISK {
        format!("a VM needs at least {}", VmSpec::MIN_DISK)
    } else if disk > most {
        format!("{disk} is more than the {most} of this machine's disk")
    } else {
        return None;
    };
    Some(FieldError::new("disk", message))
}

/// What labels there may be.
pub const LABELS_ARE: &str = "at most 64 labels; keys of 1 to 63 letters, digits and `._-/`, values of at most 255 printable characters";

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
    /// A saved template to make the user-data from, in place of `cloud_init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<UseTemplate>,
    /// Whether the caller's own SSH keys are added to `ssh_keys`; they are when absent.
    #[serde(default = "yes")]
    pub own_ssh_keys: bool,
}

fn yes() -> bool {
    true
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
    ssh_keys: Vec<String>,
    #[serde(default)]
    driver: Option<DriverKind>,
    #[serde(default)]
    networks: Vec<NetworkCard>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    notes: Option<String>,
    #[serde(default)]
    settings: Option<SettingsChange>,
    #[serde(default)]
    template: Option<UseTemplate>,
    #[serde(default = "yes")]
    own_ssh_keys: bool,
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
                ssh_keys: flat.ssh_keys,
                driver: flat.driver,
                networks: flat.networks,
                labels: flat.labels,
                display_name: flat.display_name,
                notes: flat.notes,
                settings: flat.settings,
            },
            template: flat.template,
            own_ssh_keys: flat.own_ssh_keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn settings_are_for_drivers_that_can_keep_them() {
        let spec = VmSpec {
            settings: Some(SettingsChange {
                restart: Some(crate::vm::RestartPolicy::OnCrash),
                ..SettingsChange::default()
            }),
            ..VmSpec::default()
        };
        let fields = |capabilities: &Capabilities| -> Vec<String> {
            let errors = spec.check_settings(capabilities).into_iter();
            errors.map(|error| error.field).collect()
        };
        let all = Capabilities::all();
        assert!(fields(&all).is_empty());
        let no_crashes = Capabilities {
            crashes: false,
            ..all
        };
        assert_eq!(fields(&no_crashes), ["settings.restart"]);
        assert_eq!(fields(&Capabilities::default()), ["settings"]);
        let without = VmSpec {
            settings: Some(SettingsChange::default()),
            ..VmSpec::default()
        };
        assert!(without.check_settings(&Capabilities::default()).is_empty());
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
                ssh_keys: vec!["ssh-ed25519 AAAA".into()],
                driver: Some(DriverKind::Fake),
                networks: vec!["name=br0,mode=manual".parse().expect("a card")],
                labels: [("a".to_owned(), "b".to_owned())].into(),
                display_name: Some("Shop".into()),
                notes: Some("of the shop".into()),
                settings: Some(SettingsChange {
                    protected: Some(true),
                    ..SettingsChange::default()
                }),
            },
            template: Some(UseTemplate {
                name: "web".into(),
                variables: [("a".to_owned(), "b".to_owned())].into(),
            }),
            own_ssh_keys: false,
        };
        let written = serde_json::to_string(&create).expect("JSON");
        let read: CreateVm = serde_json::from_str(&written).expect("the same");
        assert_eq!(read, create);
        let least: CreateVm = serde_json::from_str(r#"{"name":"web"}"#).expect("defaults");
        assert_eq!(least.spec, VmSpec::default());
    }
}
