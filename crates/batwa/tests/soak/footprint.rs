//! What a process takes of its machine, by `/proc`.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs,
};

use anyhow::Context as _;

/// Open files that may be more than before: connections that are kept for the next call.
const SPARE_FILES: usize = 8;

/// One process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    /// Its id.
    pub(crate) process: u32,
    /// Processes that it started, and those that they did.
    pub(crate) children: usize,
    /// Its open files, sockets and pseudo-terminals.
    pub(crate) files: usize,
    /// Bytes of memory that it has in use.
    pub(crate) memory: u64,
}

impl Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            children, files, ..
        } = self;
        let memory = self.memory as f64 / 1e6;
        write!(
            f,
            "{children} processes, {files} open files, {memory:.1} MB"
        )
    }
}

impl Footprint {
    /// Those of several.
    pub(crate) fn of_all(processes: &[u32]) -> anyhow::Result<Vec<Self>> {
        let parents = parents();
        let of = |process: &u32| Self::of(*process, &parents);
        processes.iter().map(of).collect()
    }

    fn of(process: u32, parents: &BTreeMap<u32, u32>) -> anyhow::Result<Self> {
        let gone = || format!("process {process} is gone");
        let status = fs::read_to_string(format!("/proc/{process}/status")).with_context(gone)?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(gone)?
            .parse()?;
        let descends = |child: &u32| {
            let line = std::iter::successors(Some(*child), |process| parents.get(process).copied());
            // A process that ends meanwhile can make no circle longer than all there are.
            line.skip(1).take(parents.len()).any(|one| one == process)
        };
        Ok(Self {
            process,
            children: parents.keys().filter(|child| descends(child)).count(),
            files: fs::read_dir(format!("/proc/{process}/fd"))
                .with_context(gone)?
                .count(),
            memory: kib << 10,
        })
    }

    /// Whether processes and open files are the same in number.
    pub(super) fn has_as_many_as(&self, other: &Self) -> bool {
        (self.children, self.files) == (other.children, other.files)
    }

    /// What it has more of than before, in words, but for `kept` bytes of memory.
    pub(super) fn leak_since(&self, before: &Self, kept: u64) -> Option<String> {
        let leaks = self.children > before.children
            || self.files > before.files + SPARE_FILES
            || self.memory > before.memory + kept;
        let process = self.process;
        leaks.then(|| format!("process {process} had {before} before, and has {self} after"))
    }
}

/// The parent of each process there is.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // Its name, in brackets, may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((process, parent.parse().ok()?))
        })
        .collect()
}
