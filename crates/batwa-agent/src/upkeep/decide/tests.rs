//! Stories of single VMs, and what must be so of every one.

use batwa_api::{
    id::OperationId,
    vm::{IdleStop, Lifetime, VmSettings},
};
use proptest::prelude::*;

use super::*;
use crate::upkeep::book::Asked;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn sight(state: VmState, now: i64) -> Sight {
    Sight {
        state,
        crashed: false,
        busy: false,
        started_at: None,
        idle: None,
        trash_kept: None,
        now: at(now),
    }
}

fn idle_for(seconds: u64) -> IdleFor {
    IdleFor {
        length: Duration::from_secs(seconds),
        since: at(-400),
    }
}

fn with(settings: VmSettings) -> Kept {
    Kept {
        settings,
        ..Kept::default()
    }
}

fn on_crash() -> Kept {
    with(VmSettings {
        restart: RestartPolicy::OnCrash,
        ..VmSettings::default()
    })
}

fn lifetime(end: LifetimeEnd) -> Kept {
    with(VmSettings {
        lifetime: Some(Lifetime {
            ends_at: at(100),
            warns_at: at(75),
            end,
        }),
        ..VmSettings::default()
    })
}

fn reason(verdict: &Verdict) -> Option<AgentReason> {
    verdict.due.as_ref().map(|(reason, _)| *reason)
}

fn kinds(verdict: &Verdict) -> Vec<NoticeKind> {
    verdict.notices.iter().map(|notice| notice.kind).collect()
}

#[test]
fn a_vm_without_settings_is_left_alone() {
    for state in VmState::ALL {
        for crashed in [false, true] {
            let seen = Sight {
                crashed,
                idle: Some(idle_for(1 << 30)),
                ..sight(state, 0)
            };
            let verdict = decide(&Kept::default(), &seen);
            assert_eq!(verdict.due, None, "{state}");
            assert_eq!(verdict.kept, Kept::default(), "{state}");
            assert!(verdict.notices.is_empty(), "{state}");
        }
    }
}

#[test]
fn a_lifetime_warns_then_stops_and_is_over() {
    let kept = lifetime(LifetimeEnd::Stop);
    let early = decide(&kept, &sight(VmState::Running, 74));
    assert_eq!((reason(&early), kinds(&early)), (None, vec![]));
    let warned = decide(&kept, &sight(VmState::Running, 75));
    assert_eq!(kinds(&warned), [NoticeKind::LifetimeEnds]);
    assert_eq!((reason(&warned), warned.notices[0].at), (None, at(100)));
    let over = decide(&kept, &sight(VmState::Running, 100));
    assert!(matches!(
        over.due,
        Some((AgentReason::Lifetime, OperationRequest::Stop(options))) if !options.force
    ));
    let mut kept = over.kept;
    take_end(&mut kept, AgentReason::Lifetime, Ended::Well, at(101));
    assert_eq!(
        kept.settings.lifetime, None,
        "whoever starts it again keeps it"
    );
}

#[test]
fn a_lifetime_that_ends_while_nothing_runs_is_over_without_a_word() {
    for state in [VmState::Stopped, VmState::Suspended, VmState::Deleted] {
        let verdict = decide(&lifetime(LifetimeEnd::Stop), &sight(state, 100));
        assert_eq!(
            (verdict.due, verdict.kept.settings.lifetime),
            (None, None),
            "{state}"
        );
    }
    let deleted = decide(
        &lifetime(LifetimeEnd::Delete),
        &sight(VmState::Deleted, 100),
    );
    assert_eq!((deleted.due, deleted.kept.settings.lifetime), (None, None));
    let stopped = decide(
        &lifetime(LifetimeEnd::Delete),
        &sight(VmState::Stopped, 100),
    );
    assert_eq!(
        stopped.due,
        Some((AgentReason::Lifetime, OperationRequest::Delete))
    );
}

#[test]
fn a_vm_that_boots_is_stopped_once_it_is_up_or_never_comes() {
    let kept = lifetime(LifetimeEnd::Stop);
    for state in [VmState::Starting, VmState::Unknown, VmState::Restarting] {
        assert_eq!(reason(&decide(&kept, &sight(state, 100))), None, "{state}");
        let late = decide(&kept, &sight(state, 700));
        assert_eq!(reason(&late), Some(AgentReason::Lifetime), "{state}");
    }
}

#[test]
fn what_does_not_stop_is_tried_again_by_force_and_then_left_to_people() {
    let mut kept = lifetime(LifetimeEnd::Stop);
    let mut now = 100;
    for tried in 1..=3 {
        let verdict = decide(&kept, &sight(VmState::Running, now));
        assert!(matches!(
            verdict.due,
            Some((AgentReason::Lifetime, OperationRequest::Stop(options))) if options.force == (tried > 1)
        ));
        kept = verdict.kept;
        let ended = Ended::Badly("it does not hear".to_owned());
        take_end(&mut kept, AgentReason::Lifetime, ended, at(now));
        assert_eq!(kept.failed.as_ref().map(|failed| failed.tries), Some(tried));
        let soon = decide(&kept, &sight(VmState::Running, now + 599));
        assert_eq!(soon.due, None, "not before its pause is over");
        assert!(kinds(&soon).contains(&NoticeKind::Failed));
        now += 600;
    }
    assert_eq!(decide(&kept, &sight(VmState::Running, 1 << 30)).due, None);
}

/// Looks at it as crashed, at `now`.
fn crashed(kept: &Kept, now: i64) -> Verdict {
    let seen = Sight {
        crashed: true,
        ..sight(VmState::Stopped, now)
    };
    decide(kept, &seen)
}

#[test]
fn a_vm_that_keeps_crashing_is_started_after_longer_pauses_and_then_given_up() {
    let mut kept = on_crash();
    let mut now = 0;
    for (crash, pause) in (1..).zip([10, 20, 40, 80, 160]) {
        let seen = crashed(&kept, now);
        assert_eq!(
            (reason(&seen), kinds(&seen)),
            (None, vec![NoticeKind::Crashed])
        );
        assert_eq!(
            (seen.kept.crashes.count, seen.notices[0].at),
            (crash, at(now + pause))
        );
        assert_eq!(reason(&crashed(&seen.kept, now + pause - 1)), None);
        let due = crashed(&seen.kept, now + pause);
        assert_eq!(due.due, Some((AgentReason::Crash, OperationRequest::Start)));
        now += pause + 5;
        // It is up for a moment, and the driver has forgotten its crash.
        kept = decide(&due.kept, &sight(VmState::Running, now)).kept;
        now += 5;
    }
    let given_up = crashed(&kept, now);
    assert_eq!(kinds(&given_up), [NoticeKind::GivenUp]);
    assert_eq!(crashed(&given_up.kept, now + 1_000_000).due, None);
    // Somebody looks, and starts it: it has all its tries again.
    let started = decide(&given_up.kept, &sight(VmState::Running, now + 60));
    assert_eq!(started.kept.crashes.count, 0);
    assert_eq!(
        kinds(&crashed(&started.kept, now + 90)),
        [NoticeKind::Crashed]
    );
}

#[test]
fn a_vm_that_ran_well_has_its_crashes_forgiven() {
    let first = crashed(&on_crash(), 0).kept;
    let running = |now| Sight {
        started_at: Some(at(10)),
        ..sight(VmState::Running, now)
    };
    assert_eq!(decide(&first, &running(20)).kept.crashes.count, 1);
    assert_eq!(decide(&first, &running(610)).kept.crashes.count, 0);
}

#[test]
fn a_vm_that_was_stopped_or_thrown_away_is_not_started() {
    assert_eq!(decide(&on_crash(), &sight(VmState::Stopped, 0)).due, None);
    let pending = crashed(&on_crash(), 0).kept;
    for state in [VmState::Deleted, VmState::Suspended] {
        let left = decide(&pending, &sight(state, 5)).kept;
        assert!(!left.crashes.pending, "{state}");
    }
    let mut cancelled = pending;
    take_end(&mut cancelled, AgentReason::Crash, Ended::Cancelled, at(11));
    assert_eq!(
        crashed(&cancelled, 1000).due,
        None,
        "somebody does not want it"
    );
}

#[test]
fn a_vm_that_crashes_right_after_it_came_up_waits_for_longer_all_the_same() {
    let mut kept = crashed(&on_crash(), 0).kept;
    // Nobody looked while it ran.
    take_end(&mut kept, AgentReason::Crash, Ended::Well, at(11));
    let again = crashed(&kept, 11);
    assert_eq!((again.kept.crashes.count, again.due), (2, None));
    assert_eq!(again.notices[0].at, at(31));
}

#[test]
fn a_vm_that_was_stopped_right_after_it_came_up_stays_so() {
    let mut kept = crashed(&on_crash(), 0).kept;
    take_end(&mut kept, AgentReason::Crash, Ended::Well, at(11));
    let stopped = decide(&kept, &sight(VmState::Stopped, 1000));
    assert_eq!((stopped.due, stopped.notices), (None, vec![]));
}

#[test]
fn a_start_that_fails_counts_as_a_crash() {
    let mut kept = crashed(&on_crash(), 0).kept;
    let ended = Ended::Badly("no memory".to_owned());
    take_end(&mut kept, AgentReason::Crash, ended, at(12));
    // The driver has forgotten the crash meanwhile.
    let later = decide(&kept, &sight(VmState::Stopped, 12));
    assert_eq!(later.notices[0].at, at(32));
    let due = decide(&later.kept, &sight(VmState::Stopped, 32));
    assert_eq!(reason(&due), Some(AgentReason::Crash));
}

#[test]
fn a_vm_that_does_nothing_is_told_of_in_time_and_stopped() {
    let kept = with(VmSettings {
        idle_stop: Some(IdleStop {
            after_s: 600,
            below_percent: 5,
        }),
        ..VmSettings::default()
    });
    let idle = |state, seconds| {
        let seen = Sight {
            idle: Some(idle_for(seconds)),
            ..sight(state, 0)
        };
        decide(&kept, &seen)
    };
    assert!(idle(VmState::Running, 299).notices.is_empty());
    let told = idle(VmState::Running, 400);
    assert_eq!((reason(&told), told.notices[0].at), (None, at(200)));
    assert_eq!(
        reason(&idle(VmState::Running, 600)),
        Some(AgentReason::Idle)
    );
    assert_eq!(reason(&idle(VmState::Stopped, 600)), None);
    assert_eq!(
        decide(&kept, &sight(VmState::Running, 0)).due,
        None,
        "not known"
    );
}

#[test]
fn the_trash_is_emptied_of_what_has_lain_there_and_is_not_protected() {
    let lies = |kept: &Kept, now| {
        let seen = Sight {
            trash_kept: Some(Duration::from_secs(100)),
            ..sight(VmState::Deleted, now)
        };
        decide(kept, &seen)
    };
    let first = lies(&Kept::default(), 0);
    assert_eq!(
        (reason(&first), kinds(&first)),
        (None, vec![NoticeKind::Purges])
    );
    assert_eq!(reason(&lies(&first.kept, 99)), None);
    let due = lies(&first.kept, 100);
    assert_eq!(due.due, Some((AgentReason::Trash, OperationRequest::Purge)));
    let mut protected = first.kept.clone();
    protected.settings.protected = true;
    assert_eq!(lies(&protected, 100).due, None);
    // Recovered in between, it has its whole time again.
    let recovered = decide(&first.kept, &sight(VmState::Stopped, 50)).kept;
    assert_eq!(reason(&lies(&recovered, 100)), None);
}

fn some_kept() -> impl Strategy<Value = Kept> {
    let settings = (
        any::<bool>(),
        any::<bool>(),
        proptest::option::of((0_i64..200, any::<bool>())),
        proptest::option::of(300_u64..900),
    );
    let crashes = (
        0_u32..8,
        proptest::option::of(0_i64..200),
        any::<[bool; 2]>(),
    );
    let rest = (
        any::<bool>(),
        proptest::option::of(0_i64..200),
        proptest::option::of(0_u32..5),
    );
    (settings, crashes, rest).prop_map(
        |(
            (protected, restarts, ends, idle),
            (count, last, [noted, pending]),
            (asked, trashed, failed),
        )| Kept {
            settings: VmSettings {
                protected,
                restart: if restarts {
                    RestartPolicy::OnCrash
                } else {
                    RestartPolicy::Never
                },
                lifetime: ends.map(|(ends, delete)| Lifetime {
                    ends_at: at(ends),
                    warns_at: at(ends / 2),
                    end: if delete && !protected {
                        LifetimeEnd::Delete
                    } else {
                        LifetimeEnd::Stop
                    },
                }),
                idle_stop: idle.map(|after_s| IdleStop {
                    after_s,
                    below_percent: 5,
                }),
                autostart: None,
                revision: 0,
            },
            crashes: Crashes {
                count,
                last: last.map(at),
                noted,
                pending,
            },
            asked: asked.then(|| Asked {
                reason: AgentReason::Idle,
                id: OperationId::new(),
            }),
            trashed_at: trashed.map(at),
            failed: failed.map(|tries| Failed {
                reason: AgentReason::Lifetime,
                at: at(0),
                tries,
                detail: String::new(),
            }),
            made_at: None,
        },
    )
}

fn some_sight() -> impl Strategy<Value = Sight> {
    (
        prop::sample::select(VmState::ALL.to_vec()),
        any::<[bool; 2]>(),
        proptest::option::of(0_u64..1000),
        proptest::option::of(0_u64..400),
        0_i64..2000,
    )
        .prop_map(|(state, [crashed, busy], idle, keep, now)| Sight {
            crashed,
            busy,
            idle: idle.map(idle_for),
            trash_kept: keep.map(Duration::from_secs),
            ..sight(state, now)
        })
}

proptest! {
    /// Whatever is kept and seen: nothing is done that nobody wished, twice at once, or to what is protected.
    #[test]
    fn nothing_is_due_that_nobody_wished(kept in some_kept(), seen in some_sight()) {
        let verdict = decide(&kept, &seen);
        if let Some((reason, request)) = &verdict.due {
            prop_assert!(!seen.busy && kept.asked.is_none());
            let wished = match reason {
                AgentReason::Lifetime => kept.settings.lifetime.is_some_and(|life| life.ends_at <= seen.now),
                AgentReason::Crash => kept.settings.restart == RestartPolicy::OnCrash,
                AgentReason::Idle => kept.settings.idle_stop.is_some(),
                AgentReason::Trash => seen.trash_kept.is_some() && seen.state == VmState::Deleted,
                AgentReason::Autostart => false,
            };
            prop_assert!(wished, "{reason:?}");
            let ends_it = matches!(request, OperationRequest::Delete | OperationRequest::Purge);
            prop_assert!(!(ends_it && kept.settings.protected));
        }
        // Looking again at once finds the same: nothing depends on how often one looks.
        let again = decide(&verdict.kept, &seen);
        prop_assert_eq!(&again.kept, &verdict.kept);
        prop_assert_eq!(again.due, verdict.due);
    }
}
