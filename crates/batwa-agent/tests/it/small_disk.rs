//! A file system of its own that a test can fill.

use std::{
    fs::OpenOptions,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
};

use batwa_agent::driver::command::Command;
use futures_util::FutureExt;

/// A small file system in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    /// Leaves `free` bytes.
    pub(crate) fn leave(&self, free: u64) {
        let path = self.0.join("ballast");
        let ballast = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        let has = ballast.metadata().unwrap().len();
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let all = has + stat.f_bavail * stat.f_frsize;
        let wanted = all.saturating_sub(free);
        if wanted < has {
            ballast.set_len(wanted).unwrap();
        } else if wanted > has {
            let mode = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&ballast, mode, has, wanted - has).unwrap();
        }
    }
}

/// Runs a test with a small file system, which is taken away whatever came of it, once `end` has ended what still runs
/// there.
#[expect(clippy::print_stdout, reason = "a test says what it skips")]
pub(crate) async fn with_small_disk(
    mib: u64,
    test: impl AsyncFnOnce(SmallDisk),
    end: impl FnOnce(&Path),
) {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "batwa-test"])
        .arg(dir.path())
        .run()
        .await;
    if let Err(error) = mounted {
        println!("SKIPPED: cannot mount a small file system: {error}");
        return;
    }
    let disk = SmallDisk(dir.path().to_owned());
    let ended = AssertUnwindSafe(test(disk)).catch_unwind().await;
    end(dir.path());
    Command::new("umount")
        .arg("--lazy")
        .arg(dir.path())
        .run()
        .await
        .unwrap();
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}
