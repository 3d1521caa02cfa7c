//! Reads `info NAME --snapshots --format json`.

use std::collections::{BTreeMap, HashMap};

use batwa_api::{
    Timestamp,
    name::{SnapshotName, VmName},
    vm::Snapshot,
};
use serde::Deserialize;

use super::{Rubbish, parse, size};

/// Most snapshots that are read of one VM.
const MAX_READ: usize = 1000;

/// The snapshots of `vm`, the oldest first and parents before those that came from them; none where the document
/// does not hold the VM.
pub(in crate::driver::multipass) fn snapshots(
    stdout: &[u8],
    vm: &VmName,
) -> Result<Vec<Snapshot>, Rubbish> {
    #[derive(Deserialize)]
    struct Document {
        info: BTreeMap<String, Row>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Row {
        snapshots: BTreeMap<String, Kept>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Kept {
        comment: String,
        created: String,
        disk_space: String,
        parent: String,
    }
    let mut document: Document = parse("info --snapshots", stdout)?;
    let row = document.info.remove(vm.as_str()).unwrap_or_default();
    let read = row
        .snapshots
        .into_iter()
        .filter_map(|(name, kept)| {
            Some(Snapshot {
                name: SnapshotName::parse(&name).ok()?,
                comment: kept.comment,
                parent: SnapshotName::parse(&kept.parent).ok(),
                created_at: created(&kept.created),
                disk: size(&kept.disk_space, None),
            })
        })
        .take(MAX_READ)
        .collect();
    Ok(in_order(read))
}

/// When a snapshot was taken: `Mon Nov 23 02:44:30 2026 UTC`. We ask for UTC; another zone's abbreviation names none
/// for sure.
fn created(text: &str) -> Option<Timestamp> {
    let civil = text.strip_suffix(" UTC")?;
    let read = jiff::fmt::strtime::parse("%a %b %e %H:%M:%S %Y", civil).ok()?;
    let at = read.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    Some(at.ok()?.timestamp())
}

/// By age; those of one second, which is all that is told, by their place in the tree.
fn in_order(mut snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    let parents: HashMap<SnapshotName, SnapshotName> = snapshots
        .iter()
        .filter_map(|kept| Some((kept.name.clone(), kept.parent.clone()?)))
        .collect();
    let depth = |name: &SnapshotName| {
        std::iter::successors(Some(name), |name| parents.get(*name))
            // No tree is deeper, and rubbish may be a circle.
            .take(parents.len() + 1)
            .count()
    };
    snapshots.sort_by_cached_key(|kept| (kept.created_at, depth(&kept.name), kept.name.clone()));
    snapshots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::multipass::transcripts;

    fn foo() -> VmName {
        VmName::parse("foo").unwrap()
    }

    fn lines(stdout: &str) -> Vec<String> {
        snapshots(stdout.as_bytes(), &foo())
            .unwrap()
            .into_iter()
            .map(|kept| {
                format!(
                    "{} <- {} | {} | {} | {}",
                    kept.name,
                    kept.parent.map_or_else(|| "-".to_owned(), String::from),
                    kept.created_at
                        .map_or_else(|| "?".to_owned(), |at| at.to_string()),
                    kept.disk
                        .map_or_else(|| "?".to_owned(), |disk| disk.to_string()),
                    kept.comment
                )
            })
            .collect()
    }

    #[test]
    fn recorded_snapshots_are_read_parents_first() {
        assert_eq!(
            lines(&transcripts::row(407).stdout),
            [
                "snapshot1 <- - | 2026-11-23T02:44:30Z | 6G | ",
                "second <- snapshot1 | 2026-11-23T02:44:30Z | 6G | a comment, with \"quotes\"",
            ]
        );
        assert_eq!(lines(&transcripts::row(238).stdout), [""; 0]);
    }

    #[test]
    fn a_day_of_one_digit_is_read_and_a_foreign_zone_is_not_guessed() {
        let read = created("Tue Nov  3 02:44:30 2026 UTC").unwrap();
        assert_eq!(read.to_string(), "2026-11-03T02:44:30Z");
        assert_eq!(created("Tue Nov  3 02:44:30 2026 CST"), None);
        assert_eq!(created("yesterday UTC"), None);
    }

    #[test]
    fn a_circle_of_parents_is_survived() {
        let circle = r#"{"info":{"foo":{"snapshots":{"a":{"parent":"b"},"b":{"parent":"a"}}}}}"#;
        assert_eq!(lines(circle).len(), 2);
    }
}
