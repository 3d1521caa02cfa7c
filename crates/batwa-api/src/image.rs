//! Images: what can be launched on a machine.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{agent::DriverKind, id::AgentId, size::ByteSize};

/// One image of an agent's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// The name to launch it by: `ubuntu:24.04`.
    pub name: String,
    /// Other names for it: `24.04`, `noble`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people: `Ubuntu 24.04 LTS`.
    pub title: String,
    /// Which driver launches it.
    pub driver: DriverKind,
    /// Bytes to download, where known; `None` for images that are built on the machine.
    #[serde(default)]
    pub download_size: Option<ByteSize>,
    /// Whether it lies on the machine already.
    pub cached: bool,
    /// Least disk size.
    #[serde(default)]
    pub min_disk: Option<ByteSize>,
    /// Least memory with which it is known to boot.
    #[serde(default)]
    pub min_memory: Option<ByteSize>,
    /// How it comes to the machine, for people: `from cloud-images.ubuntu.com`, `built here from Debian packages`.
    pub origin: String,
    /// Whether it reads `#cloud-config` user-data; otherwise only `#!` scripts.
    pub cloud_config: bool,
    /// Whether this one is proposed first.
    #[serde(default)]
    pub default: bool,
}

/// One image with the agents that can launch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedImage {
    /// The agent whose catalogue it is in.
    pub agent_id: AgentId,
    /// The image.
    #[serde(flatten)]
    pub image: Image,
}
