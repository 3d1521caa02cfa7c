//! A VM's snapshots as its record has them: a tree, and the place in it that the disk as it is now came from.
//!
//! The disk's data is in its file, under a tag that is never used twice. The file may hold tags of ours that are not
//! here, left by a call that was cut off; [`History::differences`] says which.

use std::collections::BTreeSet;

use batwa_api::{Timestamp, name::SnapshotName, size::ByteSize, vm::Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What tags of ours begin with; others in the file are somebody else's.
const TAG: &str = "batwa-snapshot-";

/// A VM's snapshots, the oldest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct History {
    #[serde(default)]
    kept: Vec<Kept>,
    /// What the disk as it is now came from.
    #[serde(default)]
    came_from: Option<SnapshotName>,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    name: SnapshotName,
    comment: String,
    parent: Option<SnapshotName>,
    created_at: Timestamp,
    /// Its data's name in the disk file.
    tag: String,
    /// The VM's size then.
    pub(super) size: Size,
}

/// A VM's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Size {
    pub(super) cpus: u32,
    pub(super) memory: ByteSize,
    pub(super) disk: ByteSize,
}

/// What was begun with a disk file. Written down before, and taken back after: found later, it was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unsettled {
    /// File and record may differ in tags and size.
    Compare,
    /// The disk is neither what it was nor what this snapshot is: it has to be finished.
    GoingBack(SnapshotName),
}

/// What makes a file and a record one again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differences {
    /// Tags of ours that belong to no snapshot.
    pub(super) stray: Vec<String>,
    /// Snapshots whose data is gone.
    pub(super) lost: Vec<SnapshotName>,
}

impl Kept {
    /// A snapshot to be taken now.
    pub(super) fn new(name: SnapshotName, comment: &str, size: Size) -> Self {
        Self {
            name,
            comment: comment.to_owned(),
            parent: None,
            created_at: Timestamp::now(),
            tag: format!("{TAG}{}", Uuid::now_v7()),
            size,
        }
    }

    pub(super) fn tag(&self) -> &str {
        &self.tag
    }
}

impl History {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn find(&self, name: &SnapshotName) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.name == *name)
    }

    /// Enters a snapshot of the disk as it is now.
    pub(super) fn add(&mut self, kept: Kept) {
        let name = kept.name.clone();
        let parent = self.came_from.replace(name);
        self.kept.push(Kept { parent, ..kept });
    }

    /// The disk is now what `name` was.
    pub(super) fn went_back(&mut self, name: &SnapshotName) {
        self.came_from = Some(name.clone());
    }

    /// Forgets a snapshot; what came from it goes on from its parent.
    pub(super) fn remove(&mut self, name: &SnapshotName) {
        let Some(at) = self.kept.iter().position(|kept| kept.name == *name) else {
            return;
        };
        let gone = self.kept.remove(at);
        let parents = self.kept.iter_mut().map(|kept| &mut kept.parent);
        for parent in parents.chain([&mut self.came_from]) {
            if parent.as_ref() == Some(name) {
                parent.clone_from(&gone.parent);
            }
        }
    }

    /// Compares with the tags in the file.
    pub(super) fn differences(&self, tags: &BTreeSet<String>) -> Differences {
        let known = |tag: &str| self.kept.iter().any(|kept| kept.tag == tag);
        Differences {
            stray: tags
                .iter()
                .filter(|tag| tag.starts_with(TAG) && !known(tag))
                .cloned()
                .collect(),
            lost: self
                .kept
                .iter()
                .filter(|kept| !tags.contains(&kept.tag))
                .map(|kept| kept.name.clone())
                .collect(),
        }
    }

    /// The snapshots as the driver tells of them.
    pub(super) fn told(&self) -> Vec<Snapshot> {
        self.kept
            .iter()
            .map(|kept| Snapshot {
                name: kept.name.clone(),
                comment: kept.comment.clone(),
                parent: kept.parent.clone(),
                created_at: Some(kept.created_at),
                disk: Some(kept.size.disk),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SnapshotName {
        SnapshotName::parse_new(text).unwrap()
    }

    fn kept(text: &str) -> Kept {
        let size = Size {
            cpus: 1,
            memory: ByteSize::mib(256),
            disk: ByteSize::gib(1),
        };
        Kept::new(name(text), "", size)
    }

    fn tree(history: &History) -> Vec<(String, Option<String>)> {
        let word = |name: &SnapshotName| name.as_str().to_owned();
        let all = history.kept.iter();
        all.map(|kept| (word(&kept.name), kept.parent.as_ref().map(word)))
            .collect()
    }

    #[test]
    fn a_snapshot_comes_from_where_the_disk_came_from() {
        let mut history = History::default();
        history.add(kept("a"));
        history.add(kept("b"));
        history.went_back(&name("a"));
        history.add(kept("c"));
        let expected = [("a", None), ("b", Some("a")), ("c", Some("a"))]
            .map(|(name, parent)| (name.to_owned(), parent.map(str::to_owned)));
        assert_eq!(tree(&history), expected);
    }

    #[test]
    fn what_came_from_a_removed_snapshot_goes_on_from_its_parent() {
        let mut history = History::default();
        for one in ["a", "b", "c"] {
            history.add(kept(one));
        }
        history.went_back(&name("b"));
        history.remove(&name("b"));
        history.add(kept("d"));
        let expected = [("a", None), ("c", Some("a")), ("d", Some("a"))]
            .map(|(name, parent)| (name.to_owned(), parent.map(str::to_owned)));
        assert_eq!(tree(&history), expected);
        history.remove(&name("none"));
        assert_eq!(tree(&history).len(), 3);
    }

    #[test]
    fn only_tags_of_ours_are_stray() {
        let mut history = History::default();
        let (there, gone) = (kept("there"), kept("gone"));
        let stray = kept("stray").tag;
        let tags = [there.tag.as_str(), &stray, "batwa-suspended", "by hand"]
            .map(str::to_owned)
            .into();
        history.add(there);
        history.add(gone);
        let expected = Differences {
            stray: vec![stray],
            lost: vec![name("gone")],
        };
        assert_eq!(history.differences(&tags), expected);
    }
}
