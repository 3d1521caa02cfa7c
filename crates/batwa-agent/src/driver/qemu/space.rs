//! Whether there is room for what is about to be written: said before it is begun, with numbers.

use std::path::Path;

use batwa_api::size::ByteSize;

use super::files;
use crate::driver::DriverError;

/// What stays free whatever is begun: VMs that run need room to go on writing.
pub(super) const RESERVE: ByteSize = ByteSize::mib(64);

/// Refuses to `what` where the file system that holds `path` has less than `needed` and the [`RESERVE`].
///
/// # Errors
/// [`DriverError::NoSpace`], which says how much is needed, where, and how much is free.
pub(super) fn require(path: &Path, needed: ByteSize, what: &str) -> Result<(), DriverError> {
    let there = path.ancestors().find(|path| path.exists());
    // One that does not say is not doubted: what is written tells.
    let Some(free) = there.and_then(files::free_space) else {
        return Ok(());
    };
    refusal(path, needed, free, what).map_or(Ok(()), Err)
}

fn refusal(path: &Path, needed: ByteSize, free: ByteSize, what: &str) -> Option<DriverError> {
    let least = ByteSize::bytes(needed.as_u64().saturating_add(RESERVE.as_u64()));
    (free < least).then(|| {
        DriverError::NoSpace(format!(
            "cannot {what}: it needs {least} of disk space in {}, {free} are free",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_lies_where_its_folder_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new").join("file");
        let most = ByteSize::bytes(u64::MAX);
        require(&file, most, "write").unwrap_err();
    }

    #[test]
    fn too_little_room_is_refused_with_numbers() {
        let check = |needed, free| refusal(Path::new("/vms"), needed, free, "clone VM `web`");
        assert_eq!(check(ByteSize::mib(36), ByteSize::mib(100)), None);
        let refused = check(ByteSize::mib(36), ByteSize::mib(99)).unwrap();
        assert_eq!(
            refused.to_string(),
            "cannot clone VM `web`: it needs 100M of disk space in /vms, 99M are free"
        );
    }
}
