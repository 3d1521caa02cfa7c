//! Children that outlived their agent: one that is killed takes nobody with it.
//!
//! One that is of use to its agent alone has a mark in its environment, which its own children inherit: whose it is. A
//! process with the mark of an agent that is gone works on files that nobody expects to change any more.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The variable of the environment that is the mark.
const MARK: &str = "BATWA_CHILD_OF";
/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they are looked at.
const POLL: Duration = Duration::from_millis(10);

/// The mark of our own children, where the system lets others read it.
pub(super) fn mark() -> Option<(&'static str, String)> {
    let id = std::process::id();
    started(id).map(|at| (MARK, format!("{id}:{at}")))
}

/// Kills the children of agents that are gone, and waits until they are too.
pub(crate) fn end_orphans() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let orphans: Vec<u32> = processes().filter(|id| is_orphan(*id)).collect();
        if orphans.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in orphans
            .into_iter()
            .filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(POLL);
    }
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Another user's processes cannot be read, and are none of our business.
fn is_orphan(id: u32) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{id}/environ")) else {
        return false;
    };
    parent(&environment).is_some_and(|(parent, at)| started(parent) != Some(at))
}

/// The agent of a process with this environment, and when that began.
fn parent(environment: &[u8]) -> Option<(u32, u64)> {
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    let (id, at) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((id.parse().ok()?, at.parse().ok()?))
}

/// When a process began, in ticks since the machine's boot: with its id, that names it for good.
fn started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    began(&stat)
}

/// Field 22; the name, which may hold anything, ends with the last parenthesis. A corpse counts as gone.
fn began(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_a_process_and_its_begin() {
        assert_eq!(
            parent(b"PATH=/bin\0BATWA_CHILD_OF=12:3456\0"),
            Some((12, 3456))
        );
        assert_eq!(parent(b"PATH=/bin\0"), None);
        assert_eq!(parent(b"BATWA_CHILD_OF=rubbish\0"), None);
        assert_eq!(parent(b"XBATWA_CHILD_OF=12:3\0"), None);
    }

    #[test]
    fn the_begin_is_read_behind_any_name() {
        let fields = |state| {
            let rest: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
            format!("7 (a ) b) {state} {}", rest.join(" "))
        };
        assert_eq!(began(&fields("S")), Some(22));
        assert_eq!(began(&fields("Z")), None);
        assert_eq!(began("rubbish"), None);
    }
}
