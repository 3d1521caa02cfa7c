//! What the owner of a machine lets any master ask of it. Agents decide by it, and show it; nobody changes it but by the
//! file on the machine itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::size::ByteSize;

/// What an agent lets any master ask of its machine, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Policy {
    /// The file on that machine that says so, or would.
    pub file: String,
    /// Whether the file was there; what follows is the default where it was not.
    pub written: bool,
    /// Why the file as it is now does not count; what follows is what it last said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Bounds on VMs.
    pub vms: VmBounds,
    /// Where images may come from.
    pub images: ImageSources,
    /// Folders of the machine that VMs may see, with all below them; none where empty.
    pub mounts: Vec<MountRoot>,
    /// Networks of the machine, bridges above all, that VMs may be put on; none where empty.
    pub bridges: Vec<String>,
    /// Addresses, with their ports, on which the machine may listen for its VMs: `127.0.0.1:8000-8999`, `[::1]:*`; none where
    /// empty.
    pub forwards: Vec<String>,
}

impl Policy {
    /// Most entries of one of its lists.
    pub const MAX_ENTRIES: usize = 64;
}

/// Bounds on the VMs of one machine; what is absent is bounded by the machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct VmBounds {
    /// Most VMs, those in the trash included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Most virtual CPUs of one VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Most memory of one VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Largest disk of one VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
}

/// A folder of a machine that VMs may see, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountRoot {
    /// The folder.
    pub path: String,
    /// Whether VMs may only read in it.
    #[serde(default)]
    pub read_only: bool,
}

/// Where the images of one machine may come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ImageSources {
    /// Servers that images are fetched from: `images.example.org`, or `*.example.org` for all below it; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Folders of the machine whose files may be used as images; none where empty.
    pub files: Vec<String>,
}
