//! What a version of Multipass can do. Pure.

use batwa_api::agent::Capabilities;

/// Snapshots came with this version.
const SNAPSHOTS: (u32, u32) = (1, 13);
/// Clones came with this version.
const CLONE: (u32, u32) = (1, 15);

/// What a daemon of this version can do: `1.16.3`, `1.15.0-rc.12+g1234`, `1.14.1+mac`.
pub(super) fn capabilities(version: &str) -> Capabilities {
    let since = |first| major_minor(version).is_some_and(|version| version >= first);
    Capabilities {
        shell: true,
        console: false,
        display: false,
        suspend: true,
        trash: true,
        cloud_init: true,
        snapshots: since(SNAPSHOTS),
        clone: since(CLONE),
        // It copies the disk as it is.
        clone_snapshots: false,
        // Older than any that has JSON for all that is read here.
        resize: true,
        mounts: true,
        networks: true,
        images: false,
        // A VM that somebody stopped and one whose process died are both `Stopped` to it.
        crashes: false,
        settings_at_create: true,
    }
}

/// `None` where it is no version, as of one that somebody built without a tag.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_clones_came_with_a_version() {
        let can = |version| {
            let can = capabilities(version);
            (can.snapshots, can.clone)
        };
        for (version, expected) in [
            ("1.12.2", (false, false)),
            ("1.13.0", (true, false)),
            ("1.14.1+mac", (true, false)),
            ("1.15.0-rc.12+g1234", (true, true)),
            ("1.16.3", (true, true)),
            ("2.0.0", (true, true)),
            ("g1234abc", (false, false)),
            ("", (false, false)),
        ] {
            assert_eq!(can(version), expected, "{version}");
        }
    }
}
