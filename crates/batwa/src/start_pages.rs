//! The program's pages that only the start needed.
//!
//! Reading the command line, settings and routes touches a third of what an idle agent has in memory, all over the
//! program. Nobody runs that code again, but its pages stay in the process for as long as the machine has memory to
//! spare. They are let go once; those that the running process needs come back from the page cache, where they are
//! anyway, at a microsecond each.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// How long after the start its work is done: agents have connected by then, and caches are full.
const SETTLED: Duration = Duration::from_secs(2);

/// Waits until the start is over, and lets go of what only it needed. Goes on until it is told to stop, as every part of
/// a process does. That it cannot be done is no failure: it only saves memory.
pub(crate) async fn let_go(stop: CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = tokio::time::sleep(SETTLED) => {}
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::let_go() {
        tracing::debug!("cannot let go of the start's pages: {error}");
    }
    stop.cancelled().await;
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, io, ops::Range};

    use rustix::mm::{Advice, madvise};

    pub(super) fn let_go() -> io::Result<()> {
        // As the kernel writes it in the list of mappings, with a note when the file has been replaced.
        let program = fs::read_link("/proc/self/exe")?;
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        unchanged(&smaps, &program.to_string_lossy())
            .into_iter()
            .try_for_each(forget)
    }

    /// Where `program` is mapped as it is in its file, read from `/proc/self/smaps` (proc_pid_smaps(5)): mappings that cannot
    /// be written to, and of which nothing was ever written, as the loader does before it takes that right away.
    fn unchanged(smaps: &str, program: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut current = None;
        for line in smaps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next().unwrap_or_default();
            if let Some((from, to)) = first.split_once('-') {
                let address = |text| usize::from_str_radix(text, 16).ok();
                let read_only = matches!(fields.next(), Some("r--p" | "r-xp"));
                let ours = line.split_once('/').map(|(_, path)| path) == program.strip_prefix('/');
                current = address(from)
                    .zip(address(to))
                    .filter(|_| read_only && ours)
                    .map(|(from, to)| from..to);
            } else if first == "Anonymous:" && fields.next() == Some("0") {
                found.extend(current.take());
            }
        }
        found
    }

    fn forget(pages: Range<usize>) -> io::Result<()> {
        let start = std::ptr::with_exposed_provenance_mut(pages.start);
        #[expect(
            unsafe_code,
            reason = "advice about memory is unsafe, as it can empty memory that is in use"
        )]
        // SAFETY: these pages of a private mapping hold what the file holds, and nobody may write to them; they read
        // the same before and after (madvise(2), MADV_DONTNEED). They belong to the program itself, which the loader
        // is done with before `main`: nothing maps, changes or unmaps them later.
        let done = unsafe { madvise(start, pages.len(), Advice::LinuxDontNeed) };
        Ok(done?)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_process_goes_on_after_it() {
            let program = fs::read_link("/proc/self/exe").unwrap();
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            assert!(!unchanged(&smaps, program.to_str().unwrap()).is_empty());
            let_go().unwrap();
            assert_eq!("12".repeat(3).parse::<u32>(), Ok(121_212));
        }

        #[test]
        fn only_what_is_as_in_the_file_is_let_go() {
            let smaps = "\
5579e0000000-5579e0001000 r--p 00000000 fe:00 17    /opt/my batwa
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
5579e0001000-5579e0003000 r-xp 00001000 fe:00 17    /opt/my batwa
Anonymous:             0 kB
5579e0003000-5579e0004000 r--p 00003000 fe:00 17    /opt/my batwa
Anonymous:             4 kB
5579e0004000-5579e0006000 rw-p 00004000 fe:00 17    /opt/my batwa
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
7f2000000000-7f2000008000 r-xp 00000000 fe:00 19    /usr/lib/libc.so.6
Anonymous:             0 kB
no line of that file
";
            let found: Vec<_> = unchanged(smaps, "/opt/my batwa")
                .into_iter()
                .map(|pages| pages.len())
                .collect();
            assert_eq!(found, [0x1000, 0x2000]);
            assert!(unchanged(smaps, "/opt/my batwa (deleted)").is_empty());
        }
    }
}
