//! Reads what Multipass prints: pure functions from its JSON, tested on recorded output.
//!
//! Fields that a version may lack or write otherwise are optional; a document that is no document is an error
//! that shows its beginning. Names that no VM can have are left out rather than believed.

mod snapshots;

use std::{cmp::Reverse, collections::BTreeMap};

use batwa_api::{
    Timestamp,
    agent::DriverKind,
    image::{Image, ImageActions, ImageSource},
    legacy,
    name::VmName,
    size::ByteSize,
    vm::{HostNetwork, MAX_MOUNTS, Mount, MountState, NetworkCard, VmState, VmUsage},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub(super) use self::snapshots::snapshots;

/// What Multipass calls a VM that will be stopped at a time that was asked for.
const DELAYED_SHUTDOWN: &str = "Delayed Shutdown";
/// What it calls the image of a VM made from a file.
const NO_RELEASE: &str = "Not Available";
/// Most images that are listed: a remote cannot fill memory with its catalogue.
const MAX_IMAGES: usize = 500;

/// Standard output that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`multipass {command}` printed what is no answer: {reason}; it began with {beginning:?}")]
pub(super) struct Rubbish {
    command: &'static str,
    reason: String,
    beginning: String,
}

fn parse<T: DeserializeOwned>(command: &'static str, stdout: &[u8]) -> Result<T, Rubbish> {
    serde_json::from_slice(stdout).map_err(|error| Rubbish {
        command,
        reason: error.to_string(),
        beginning: String::from_utf8_lossy(stdout).chars().take(60).collect(),
    })
}

/// One VM of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name.
    pub(super) name: VmName,
    /// Its state.
    pub(super) state: VmState,
    /// Whether it will be stopped at a time that was asked for.
    pub(super) shutdown: Shutdown,
    /// The image, for people: `Ubuntu 24.04 LTS`.
    pub(super) release: Option<String>,
}

/// Whether a running VM has a delayed shutdown before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// None was asked for.
    None,
    /// It will be stopped; starting it calls that off.
    Delayed,
}

/// Reads `list --format json`. The order of its rows means nothing, so they are sorted by name.
pub(super) fn list(stdout: &[u8]) -> Result<Vec<Listed>, Rubbish> {
    #[derive(Deserialize)]
    struct Document {
        list: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        name: String,
        state: String,
        #[serde(default)]
        release: Option<String>,
    }
    let document: Document = parse("list", stdout)?;
    let mut rows: Vec<_> = document
        .list
        .into_iter()
        .filter_map(|row| {
            Some(Listed {
                name: VmName::parse(&row.name).ok()?,
                state: legacy::state_from_name(&row.state),
                shutdown: if row.state == DELAYED_SHUTDOWN {
                    Shutdown::Delayed
                } else {
                    Shutdown::None
                },
                release: row
                    .release
                    .filter(|text| !text.is_empty() && text != NO_RELEASE),
            })
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// What `info` tells beyond the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Details {
    /// Addresses, as Multipass orders them.
    pub(super) ipv4: Vec<String>,
    /// The image's version: `24.04 LTS`.
    pub(super) image_release: Option<String>,
    /// The guest's own name for its system, while it runs.
    pub(super) release: Option<String>,
    /// Number of CPUs, while it runs.
    pub(super) cpus: Option<u32>,
    /// What it uses, while it runs.
    pub(super) usage: Option<VmUsage>,
    /// How many snapshots it has.
    pub(super) snapshots: Option<usize>,
    /// What it sees of this machine.
    pub(super) mounts: Vec<Mount>,
}

/// Reads `info NAME --format json`; `None` when it does not hold that VM.
pub(super) fn info(stdout: &[u8], vm: &VmName, now: Timestamp) -> Result<Option<Details>, Rubbish> {
    #[derive(Deserialize)]
    struct Document {
        info: BTreeMap<String, Row>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Row {
        cpu_count: Value,
        disks: BTreeMap<String, Space>,
        image_release: Option<String>,
        ipv4: Vec<String>,
        load: Vec<f64>,
        memory: Space,
        release: Option<String>,
        snapshot_count: Value,
        mounts: BTreeMap<String, Source>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Source {
        source_path: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Space {
        used: Value,
    }
    let mut document: Document = parse("info", stdout)?;
    let Some(row) = document.info.remove(vm.as_str()) else {
        return Ok(None);
    };
    let memory_used = number(&row.memory.used).map(ByteSize::bytes);
    let disk_used = row
        .disks
        .values()
        .filter_map(|disk| number(&disk.used))
        .reduce(u64::saturating_add)
        .map(ByteSize::bytes);
    let load = row.load.try_into().ok();
    let measured = memory_used.is_some() || disk_used.is_some() || load.is_some();
    Ok(Some(Details {
        ipv4: row.ipv4,
        image_release: row.image_release.filter(|text| !text.is_empty()),
        release: row.release.filter(|text| !text.is_empty()),
        cpus: number(&row.cpu_count).and_then(|n| n.try_into().ok()),
        usage: measured.then_some(VmUsage {
            cpu_percent: None,
            memory_used,
            disk_used,
            load,
            measured_at: now,
        }),
        snapshots: number(&row.snapshot_count).and_then(|n| n.try_into().ok()),
        mounts: row
            .mounts
            .into_iter()
            .take(MAX_MOUNTS)
            .map(|(target, Source { source_path })| Mount {
                source: source_path,
                target,
                read_only: false,
                kind: None,
                state: MountState::Mounted,
                message: None,
            })
            .collect(),
    }))
}

/// A number that may be written as a string; empty strings are none.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Most networks that are listed.
const MAX_NETWORKS: usize = 200;

/// Reads `networks --format json`. Names that no card can have are left out.
pub(super) fn networks(stdout: &[u8]) -> Result<Vec<HostNetwork>, Rubbish> {
    #[derive(Deserialize)]
    struct Document {
        list: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        name: String,
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        description: String,
    }
    let document: Document = parse("networks", stdout)?;
    let mut networks: Vec<_> = document
        .list
        .into_iter()
        .filter(|row| {
            row.name
                .parse::<NetworkCard>()
                .is_ok_and(|card| card.name == row.name)
        })
        .take(MAX_NETWORKS)
        .map(|row| HostNetwork {
            name: row.name,
            kind: row.kind,
            description: row.description,
            driver: DriverKind::Multipass,
            refusal: None,
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// Versions of client and daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Version {
    /// The program's.
    #[serde(rename = "multipass")]
    pub(super) client: String,
    /// The daemon's; absent when it cannot be reached.
    #[serde(rename = "multipassd", default)]
    pub(super) daemon: Option<String>,
}

/// Reads `version --format json`.
pub(super) fn version(stdout: &[u8]) -> Result<Version, Rubbish> {
    parse("version", stdout)
}

/// Reads one value of `get`; `None` where it is empty.
pub(super) fn setting(stdout: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stdout);
    // Even a setting may be drawn over a spinner's line.
    let value = text
        .rsplit(['\n', '\u{1b}'])
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    (value != "<empty>").then(|| value.to_owned())
}

/// A size as `get` shows it, which is rounded for people: the exact one if it is known and rounds to that.
pub(super) fn size(shown: &str, known: Option<ByteSize>) -> Option<ByteSize> {
    let read: ByteSize = shown.parse().ok()?;
    Some(known.filter(|known| is_near(*known, read)).unwrap_or(read))
}

/// Whether `read`, of which one decimal was shown, may stand for `exact`: the truth lies within a tenth of the unit.
pub(super) fn is_near(exact: ByteSize, read: ByteSize) -> bool {
    let unit = [40, 30, 20, 10]
        .into_iter()
        .map(|shift| 1_u64 << shift)
        .find(|unit| read.as_u64() >= *unit)
        .unwrap_or(1);
    exact.as_u64().abs_diff(read.as_u64()) <= unit / 10
}

/// The catalogue's name of the image in `release` (`Ubuntu 24.04 LTS`): `ubuntu:24.04`.
pub(super) fn image_name(release: &str) -> Option<String> {
    let version = release.strip_prefix("Ubuntu ")?.split(' ').next()?;
    let is_version = version.len() == 5
        && version.bytes().enumerate().all(|(at, b)| {
            if at == 2 {
                b == b'.'
            } else {
                b.is_ascii_digit()
            }
        });
    is_version.then(|| format!("ubuntu:{version}"))
}

/// What Multipass calls the image that our catalogue calls `name`.
pub(super) fn native_image(name: &str) -> &str {
    name.strip_prefix("ubuntu:").unwrap_or(name)
}

/// Why nothing can be done with Multipass' images; also told of its store.
pub(super) const OWN_WAY: &str = "Multipass fetches an image when a VM is made from it, and keeps or removes it as it likes: it has no command for that";

/// Reads `find --format json`: the images, the long-term release proposed first, blueprints left out.
pub(super) fn find(stdout: &[u8]) -> Result<Vec<Image>, Rubbish> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        images: BTreeMap<String, Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        aliases: Vec<String>,
        #[serde(default)]
        os: String,
        #[serde(default)]
        release: String,
        #[serde(default)]
        remote: String,
    }
    let document: Document = parse("find", stdout)?;
    let usable = |name: &str| {
        !name.is_empty()
            && name.len() <= 255
            && !name.starts_with('-')
            && !name.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    let mut images: Vec<Image> = document
        .images
        .into_iter()
        .filter(|(key, _)| usable(key))
        .take(MAX_IMAGES)
        .map(|(key, row)| {
            let title = if row.release.starts_with(&row.os) {
                row.release.clone()
            } else {
                format!("{} {}", row.os, row.release)
            };
            let name = image_name(&title)
                .filter(|name| native_image(name) == key)
                .unwrap_or_else(|| key.clone());
            let mut aliases: Vec<_> = row
                .aliases
                .into_iter()
                .filter(|alias| usable(alias))
                .collect();
            if name != key {
                aliases.insert(0, key);
            }
            Image {
                default: aliases.iter().any(|alias| alias == "lts"),
                name,
                aliases,
                title: title.trim().to_owned(),
                driver: DriverKind::Multipass,
                download_size: None,
                cached: false,
                min_disk: None,
                min_memory: None,
                origin: if row.remote.is_empty() {
                    "downloaded by Multipass".to_owned()
                } else {
                    format!("downloaded by Multipass from its remote `{}`", row.remote)
                },
                cloud_config: true,
                source: ImageSource::Catalogue,
                own: false,
                architecture: None,
                size_on_disk: None,
                last_used_at: None,
                used_by: Vec::new(),
                actions: ImageActions::none_because(OWN_WAY),
            }
        })
        .collect();
    // The proposed one, then Ubuntu's versions with the newest first, then the rest.
    images.sort_by_cached_key(|image| {
        let version = image.name.strip_prefix("ubuntu:").map(str::to_owned);
        (
            Reverse(image.default),
            Reverse(version),
            image.name.contains("daily:"),
            image.name.clone(),
        )
    });
    Ok(images)
}

#[cfg(test)]
mod tests;
