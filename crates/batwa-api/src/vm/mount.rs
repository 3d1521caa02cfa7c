//! Mounts: folders of a machine that its VMs see.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::FieldError;

/// Most mounts of one VM.
pub const MAX_MOUNTS: usize = 8;

/// A folder of the machine that a VM sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// The folder on the machine.
    pub source: String,
    /// Where the VM sees it.
    pub target: String,
    /// Whether the VM can only read it.
    #[serde(default)]
    pub read_only: bool,
    /// How it is brought into the VM, where the driver has more than one way.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MountKind>,
    /// How it stands.
    pub state: MountState,
    /// Why it stands so, when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How Multipass brings a folder into a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// By SSH, into a VM that runs.
    Classic,
    /// By the hypervisor; the VM has to be off for it.
    Native,
}

impl MountKind {
    /// The kind in Multipass' words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Native => "native",
        }
    }
}

/// How a mount stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MountState {
    /// The VM sees it, or does whenever it runs.
    Mounted,
    /// The VM will see it from its next start on.
    AtNextStart,
    /// The VM does not see it any more, but could still reach it until it is stopped.
    UntilStop,
    /// The VM does not see it; the mount's `message` says why.
    Failed,
}

/// What to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountOptions {
    /// The folder on the VM's machine, by its whole path.
    pub source: String,
    /// Where the VM is to see it, by a whole path of letters, digits and `._@+-`.
    pub target: String,
    /// Whether the VM can only read it.
    #[serde(default)]
    pub read_only: bool,
    /// How Multipass is to do it: `classic` when absent.
    // What an operation does is its `kind`, and its options stand beside that.
    #[serde(rename = "type", default)]
    pub kind: Option<MountKind>,
}

/// What to take out of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct UnmountOptions {
    /// Where the VM sees it; everything that is mounted when absent.
    pub target: Option<String>,
}

impl MountOptions {
    /// What is wrong with it, field by field. Whether there is such a folder, and whether it may be used, is its machine's
    /// to say.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !is_source(&self.source) {
            errors.push(FieldError::new(
                "source",
                "write the whole path of a folder on the VM's machine, without `..`",
            ));
        }
        errors.extend(check_target(&self.target));
        errors
    }
}

impl UnmountOptions {
    /// What is wrong with it, field by field.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let target = self.target.as_deref();
        target.and_then(check_target).into_iter().collect()
    }
}

fn is_source(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 1024
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part == "..")
}

/// Plain enough to stand in a command of Multipass' and in the VM's table of file systems as it is.
fn check_target(path: &str) -> Option<FieldError> {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '@' | '+' | '-');
    let good = path.starts_with('/')
        && path.len() <= 255
        && path.chars().all(plain)
        && path
            .split('/')
            .skip(1)
            .all(|part| !matches!(part, "" | "." | ".."));
    (!good).then(|| {
        FieldError::new(
            "target",
            "write a whole path inside the VM, of letters, digits and `._@+-`, such as `/srv/data`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(source: &str, target: &str) -> Vec<String> {
        let options = MountOptions {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
            kind: None,
        };
        let errors = options.check();
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn a_mount_comes_back_as_it_went_beside_the_kind_of_its_operation() {
        use crate::operation::OperationRequest;
        let request = OperationRequest::Mount(MountOptions {
            source: "/srv".to_owned(),
            target: "/mnt".to_owned(),
            read_only: true,
            kind: Some(MountKind::Native),
        });
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(json.matches("\"kind\"").count(), 1, "{json}");
        assert_eq!(
            serde_json::from_str::<OperationRequest>(&json).unwrap(),
            request
        );
    }

    #[test]
    fn paths_are_whole_and_plain() {
        assert!(fields("/srv/my data,x", "/srv/data").is_empty());
        assert!(fields("/", "/mnt/a.b_c@d+e-f").is_empty());
        for source in ["", "srv", "/srv/../etc", "/srv\n", "-x"] {
            assert_eq!(fields(source, "/x"), ["source"], "{source:?}");
        }
        for target in [
            "", "/", "x", "/x/", "//x", "/x/../y", "/x/.", "/x y", "/x:y", "/x\\040", "/x'", "/ü",
        ] {
            assert_eq!(fields("/srv", target), ["target"], "{target:?}");
        }
    }
}
