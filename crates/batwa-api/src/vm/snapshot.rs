//! Snapshots: what a VM's disk was at some moment, to go back to; and clones, which begin from one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    name::{SnapshotName, VmName},
    size::ByteSize,
};

/// Most snapshots of one VM.
pub const MAX_SNAPSHOTS: usize = 100;

/// What a VM's disk was at some moment, as its driver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Unique among the VM's snapshots.
    pub name: SnapshotName,
    /// What people wrote about it.
    #[serde(default)]
    pub comment: String,
    /// The snapshot that the VM had come from then; `None` for one that began the tree.
    #[serde(default)]
    pub parent: Option<SnapshotName>,
    /// When it was taken, where known.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// The disk's size then, where known.
    #[serde(default)]
    pub disk: Option<ByteSize>,
}

/// How to take a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SnapshotOptions {
    /// Its name; `snapshotN` when absent.
    pub name: Option<SnapshotName>,
    /// What to remember about it, at most 1,000 characters.
    pub comment: Option<String>,
    /// Stop the VM for it if it runs, and start it again.
    pub stop: bool,
}

impl SnapshotOptions {
    /// Longest comment, in characters.
    pub const MAX_COMMENT: usize = 1000;
}

/// How to go back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreOptions {
    /// The snapshot to go back to.
    pub snapshot: SnapshotName,
    /// Throw the VM's disk as it is away, instead of keeping it as one more snapshot first.
    #[serde(default)]
    pub discard: bool,
    /// The name of the snapshot that is taken first; the agent's to choose when absent.
    #[serde(default)]
    pub safety: Option<SnapshotName>,
    /// Stop the VM for it if it runs, and start it again.
    #[serde(default)]
    pub stop: bool,
}

/// How to make another VM of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloneOptions {
    /// The new VM's name.
    pub name: VmName,
    /// The snapshot that it begins from; the disk as it is when absent.
    #[serde(default)]
    pub snapshot: Option<SnapshotName>,
    /// Stop the VM for it if it runs, and start it again.
    #[serde(default)]
    pub stop: bool,
}

/// The next free name of a series: `snapshot3` after `snapshot2`, whatever was removed in between.
pub fn next_snapshot_name<'a>(
    stem: &str,
    taken: impl IntoIterator<Item = &'a SnapshotName>,
) -> SnapshotName {
    let last = taken
        .into_iter()
        .filter_map(|name| name.as_str().strip_prefix(stem)?.parse::<u32>().ok())
        .max()
        .unwrap_or(0);
    SnapshotName::parse_new(&format!("{stem}{}", last.saturating_add(1)))
        .expect("a stem and a number are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_go_on_after_the_highest_number() {
        let name = |text| SnapshotName::parse(text).unwrap();
        assert_eq!(next_snapshot_name("snapshot", &[]), name("snapshot1"));
        let taken = [
            name("snapshot2"),
            name("snapshot10"),
            name("snapshotX"),
            name("other99"),
        ];
        assert_eq!(next_snapshot_name("snapshot", &taken), name("snapshot11"));
    }
}
