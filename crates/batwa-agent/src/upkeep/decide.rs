//! What is due for one VM, and what people are told of it. Pure: what is kept and seen in, what to do out.

use std::time::Duration;

use batwa_api::{
    Timestamp,
    operation::{OperationRequest, StopOptions},
    vm::{AgentReason, LifetimeEnd, Notice, NoticeKind, RestartPolicy, VmState},
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    book::{Failed, Kept},
    idle::IdleFor,
};

/// How often something that does not work is tried.
const TRIES: u32 = 3;
/// The pause before it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(600);

/// A VM's crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Crashes {
    /// How many in a row.
    pub(crate) count: u32,
    /// When the last was seen.
    pub(crate) last: Option<Timestamp>,
    /// Whether the driver's word that it crashed was taken in: it says so until the VM is started.
    pub(crate) noted: bool,
    /// Whether it is to be started again.
    pub(crate) pending: bool,
}

/// What is seen of a VM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sight {
    /// What it is doing.
    pub(crate) state: VmState,
    /// Whether its driver says that it ended without having been asked to.
    pub(crate) crashed: bool,
    /// Whether operations run or wait for it.
    pub(crate) busy: bool,
    /// When it was last powered on, where known.
    pub(crate) started_at: Option<Timestamp>,
    /// For how long it has done nothing; `None`: it does something, or that is not known.
    pub(super) idle: Option<IdleFor>,
    /// How long VMs stay in the trash; for ever when absent.
    pub(crate) trash_kept: Option<Duration>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// How an operation ended that the agent started by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Well,
    /// Not so; how.
    Badly(String),
    /// Somebody cancelled it.
    Cancelled,
}

/// What comes of looking at a VM.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// What is to be kept of it from now on.
    pub(crate) kept: Kept,
    /// What is due.
    pub(crate) due: Option<(AgentReason, OperationRequest)>,
    /// What people should know.
    pub(crate) notices: Vec<Notice>,
}

/// Looks at one VM.
pub(crate) fn decide(kept: &Kept, sight: &Sight) -> Verdict {
    let mut kept = kept.clone();
    let mut told = Vec::new();
    let due = trash(&mut kept, sight, &mut told)
        .or_else(|| lifetime(&mut kept, sight, &mut told))
        .or_else(|| crash(&mut kept, sight, &mut told))
        .or_else(|| idle(&kept, sight, &mut told));
    let runs = sight.state == VmState::Running;
    // Whatever was wrong, it is over.
    kept.failed = kept
        .failed
        .filter(|failed| !(runs && failed.reason == AgentReason::Autostart));
    if let Some(failed) = &kept.failed {
        let what = words(failed.reason);
        let next = match (failed.reason, failed.tries < TRIES) {
            (AgentReason::Autostart, _) => "start it when you have seen to that",
            (_, true) => "it is tried again",
            (_, false) => "it is not tried again: see to it, then change its settings",
        };
        told.push(Notice {
            kind: NoticeKind::Failed,
            at: failed.at,
            text: format!("{what} did not work ({}): {next}", failed.detail),
        });
    }
    let free = !sight.busy && kept.asked.is_none();
    let due = due.filter(|(reason, _)| free && may_try(kept.failed.as_ref(), *reason, sight.now));
    told.truncate(batwa_api::vm::Vm::MAX_NOTICES);
    Verdict {
        kept,
        due,
        notices: told,
    }
}

/// Takes in how an operation ended that was started for a VM.
pub(crate) fn take_end(kept: &mut Kept, reason: AgentReason, ended: Ended, now: Timestamp) {
    kept.asked = None;
    match ended {
        Ended::Well => {
            kept.failed = None;
            match reason {
                AgentReason::Lifetime => end_lifetime(kept),
                // It came up: whatever the driver says from now on is news, however soon.
                AgentReason::Crash => {
                    kept.crashes.pending = false;
                    kept.crashes.noted = false;
                }
                _ => {}
            }
        }
        // It does not come up: that counts as a crash.
        Ended::Badly(_) if reason == AgentReason::Crash => {
            kept.crashes.count = kept.crashes.count.saturating_add(1);
            kept.crashes.last = Some(now);
        }
        Ended::Badly(detail) => {
            let before = kept.failed.take().filter(|failed| failed.reason == reason);
            kept.failed = Some(Failed {
                reason,
                at: now,
                tries: before.map_or(0, |failed| failed.tries).saturating_add(1),
                detail,
            });
        }
        // Whoever cancels it does not want it.
        Ended::Cancelled => match reason {
            AgentReason::Crash => kept.crashes.pending = false,
            AgentReason::Lifetime => end_lifetime(kept),
            AgentReason::Idle => {
                kept.settings.idle_stop = None;
                kept.settings.revision += 1;
            }
            AgentReason::Trash => kept.trashed_at = Some(now),
            AgentReason::Autostart => {}
        },
    }
}

fn end_lifetime(kept: &mut Kept) {
    kept.settings.lifetime = None;
    kept.settings.revision += 1;
}

fn may_try(failed: Option<&Failed>, reason: AgentReason, now: Timestamp) -> bool {
    match failed.filter(|failed| failed.reason == reason) {
        Some(failed) => failed.tries < TRIES && now >= after(failed.at, TRY_AGAIN),
        None => true,
    }
}

fn words(reason: AgentReason) -> &'static str {
    match reason {
        AgentReason::Autostart => "Starting it after the machine's boot",
        AgentReason::Crash => "Starting it again",
        AgentReason::Lifetime => "Ending it at the end of its lifetime",
        AgentReason::Idle => "Stopping it, as it does nothing,",
        AgentReason::Trash => "Removing it from the trash",
    }
}

type Due = Option<(AgentReason, OperationRequest)>;

/// The trash is emptied.
fn trash(kept: &mut Kept, sight: &Sight, told: &mut Vec<Notice>) -> Due {
    let (VmState::Deleted, Some(keep)) = (sight.state, sight.trash_kept) else {
        // One that nobody can see just now may still lie there.
        if sight.state != VmState::Unknown {
            kept.trashed_at = None;
        }
        return None;
    };
    let since = *kept.trashed_at.get_or_insert(sight.now);
    if kept.settings.protected {
        return None;
    }
    let at = after(since, keep);
    told.push(Notice {
        kind: NoticeKind::Purges,
        at,
        text: "Removed from the trash for good then".to_owned(),
    });
    (sight.now >= at).then_some((AgentReason::Trash, OperationRequest::Purge))
}

/// Its time is over.
fn lifetime(kept: &mut Kept, sight: &Sight, told: &mut Vec<Notice>) -> Due {
    let lifetime = kept.settings.lifetime?;
    let over = sight.now >= lifetime.ends_at;
    let tried_before = kept
        .failed
        .as_ref()
        .is_some_and(|failed| failed.reason == AgentReason::Lifetime);
    let (request, done, text) = match lifetime.end {
        LifetimeEnd::Stop => (
            OperationRequest::Stop(StopOptions {
                // It was asked nicely once.
                force: tried_before,
                after_s: None,
            }),
            !is_on(sight.state),
            "Its lifetime ends: it is stopped then",
        ),
        LifetimeEnd::Delete => (
            OperationRequest::Delete,
            sight.state == VmState::Deleted,
            "Its lifetime ends: it is moved to the trash then",
        ),
    };
    if over && done && !sight.busy && kept.asked.is_none() {
        end_lifetime(kept);
        return None;
    }
    if sight.now >= lifetime.warns_at && !done {
        told.push(Notice {
            kind: NoticeKind::LifetimeEnds,
            at: lifetime.ends_at,
            text: text.to_owned(),
        });
    }
    // One on its way is left to arrive: a VM that boots does not hear that it is to stop. But not for ever.
    let settled = matches!(
        sight.state,
        VmState::Running | VmState::Stopped | VmState::Suspended | VmState::Error
    );
    let possible = settled || sight.now >= after(lifetime.ends_at, TRY_AGAIN);
    (over && possible && !done).then_some((AgentReason::Lifetime, request))
}

/// It ended without having been asked to.
fn crash(kept: &mut Kept, sight: &Sight, told: &mut Vec<Notice>) -> Due {
    let crashes = &mut kept.crashes;
    if kept.settings.restart == RestartPolicy::Never {
        *crashes = Crashes::default();
        return None;
    }
    let off = matches!(sight.state, VmState::Stopped | VmState::Error);
    match (sight.crashed && off, crashes.noted) {
        // While something is under way, its end is part of that.
        (true, false) if !sight.busy => {
            *crashes = Crashes {
                count: crashes.count.saturating_add(1),
                last: Some(sight.now),
                noted: true,
                pending: true,
            };
        }
        (false, true) if !sight.busy => crashes.noted = false,
        _ => {}
    }
    match sight.state {
        VmState::Running => {
            crashes.pending = false;
            let since = crashes.last.max(sight.started_at);
            let runs_well =
                since.is_none_or(|since| after(since, RestartPolicy::FORGIVEN_AFTER) <= sight.now);
            // One that was given up was started by somebody, who has looked.
            if runs_well || crashes.count > RestartPolicy::TRIES {
                crashes.count = 0;
                crashes.last = None;
            }
        }
        VmState::Deleted | VmState::Suspended | VmState::Suspending => crashes.pending = false,
        _ => {}
    }
    if !(crashes.pending && off) {
        return None;
    }
    let last = crashes.last.unwrap_or(sight.now);
    if crashes.count > RestartPolicy::TRIES {
        told.push(Notice {
            kind: NoticeKind::GivenUp,
            at: last,
            text: format!(
                "It crashed {} times in a row, and is left off: look at its console, then start it",
                crashes.count
            ),
        });
        return None;
    }
    let at = after(last, RestartPolicy::pause(crashes.count));
    told.push(Notice {
        kind: NoticeKind::Crashed,
        at,
        text: format!(
            "It crashed, and is started again then (try {} of {})",
            crashes.count,
            RestartPolicy::TRIES
        ),
    });
    // A wall clock that was set back must not make it wait for longer than it ever does.
    let set_back = last > sight.now;
    (sight.now >= at || set_back).then_some((AgentReason::Crash, OperationRequest::Start))
}

/// It does nothing.
fn idle(kept: &Kept, sight: &Sight, told: &mut Vec<Notice>) -> Due {
    let wanted = kept.settings.idle_stop?;
    if sight.state != VmState::Running {
        return None;
    }
    let idle = sight.idle?;
    let most = Duration::from_secs(wanted.after_s);
    // Told in its second half only: every machine has quiet minutes.
    if idle.length >= most / 2 {
        told.push(Notice {
            kind: NoticeKind::Idle,
            at: after(idle.since, most),
            text: "It does nothing: it is stopped then, unless it is used before".to_owned(),
        });
    }
    let stop = OperationRequest::Stop(StopOptions::default());
    (idle.length >= most).then_some((AgentReason::Idle, stop))
}

/// Whether there is something to stop.
fn is_on(state: VmState) -> bool {
    !matches!(
        state,
        VmState::Stopped | VmState::Suspended | VmState::Deleted | VmState::Error
    )
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| time.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
