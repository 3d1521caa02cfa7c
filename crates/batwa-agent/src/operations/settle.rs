//! What becomes of an operation that was cut off: by a restart of the agent, or by a driver's error. Pure and total.

use batwa_api::{
    name::SnapshotName,
    operation::{OperationKind, OperationRequest, OperationState},
    vm::VmState,
};
use serde::{Deserialize, Serialize};

use crate::driver::{DriverError, ObservedVm};

/// What to do with an operation found in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is finished: nothing.
    Keep,
    /// It is done, by all that can be seen.
    Succeed,
    /// Do this (again): drivers' methods can be called again after any cut.
    Run(OperationKind),
    /// It goes on without us: wait until the VM runs.
    AwaitRunning,
    /// It cannot be done any more.
    Fail(&'static str),
}

/// Whether a VM is off for an operation that touches its disk. Journalled at each step, so that whoever goes on
/// after a crash knows that the VM is to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pause {
    /// It was not stopped.
    #[default]
    None,
    /// It ran, and is stopped for the work.
    Off,
    /// The work is done; it is to be started again.
    WorkDone,
}

/// What is seen of an operation's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The VM's state; `None` when there is no such VM.
    pub(crate) state: Option<VmState>,
    /// Whether what the operation works for is there: its snapshot, its clone, the new size, its image.
    pub(crate) reached: bool,
    /// Whether the VM may be stopped for it.
    pub(crate) may_stop: bool,
}

impl Evidence {
    /// What is seen of a pull: whether its image is here.
    pub(crate) fn of_image(is_here: bool) -> Self {
        Self {
            state: None,
            reached: is_here,
            may_stop: false,
        }
    }
}

impl From<Option<VmState>> for Evidence {
    fn from(state: Option<VmState>) -> Self {
        Self {
            state,
            reached: false,
            may_stop: false,
        }
    }
}

/// What is seen of `request`: of its VM, and of the VM that it makes.
pub(crate) fn evidence(
    request: &OperationRequest,
    vm: Option<&ObservedVm>,
    target: Option<&ObservedVm>,
) -> Evidence {
    let Some(vm) = vm else {
        return None.into();
    };
    let has = |name: &SnapshotName| vm.snapshots.iter().any(|there| there.name == *name);
    let reached = match request {
        OperationRequest::Snapshot(options) => options.name.as_ref().is_some_and(has),
        OperationRequest::DeleteSnapshot { snapshot, .. } => !has(snapshot),
        // One that was cut off is half there: being made, or broken.
        OperationRequest::Clone(_) => {
            target.is_some_and(|target| !matches!(target.state, VmState::Creating | VmState::Error))
        }
        OperationRequest::Resize(options) => {
            options.cpus.is_none_or(|cpus| vm.cpus == Some(cpus))
                && options.memory.is_none_or(|size| vm.memory == Some(size))
                && options.disk.is_none_or(|size| vm.disk == Some(size))
        }
        _ => false,
    };
    Evidence {
        state: Some(vm.state),
        reached,
        may_stop: request.stops(),
    }
}

/// Settles an operation of this kind, journalled in this state, by what the driver now says of the VM.
pub(crate) fn settle(
    kind: OperationKind,
    state: OperationState,
    pause: Pause,
    evidence: Evidence,
) -> Decision {
    use Decision::{AwaitRunning, Fail, Keep, Run, Succeed};
    use VmState::{
        Creating, Deleted, Error, Restarting, Running, Starting, Stopped, Stopping, Suspended,
        Suspending, Unknown,
    };
    const GONE: Decision = Fail("the VM is gone");
    const IN_TRASH: Decision = Fail("the VM is in the trash");

    match state {
        OperationState::Succeeded | OperationState::Failed | OperationState::Cancelled => {
            return Keep;
        }
        // It never began; whether it is still possible is judged when its turn comes.
        OperationState::Queued => return Run(kind),
        OperationState::Running => {}
    }
    let observed = evidence.state;
    // What is left of it is to start the VM again.
    let kind = match pause {
        Pause::WorkDone if !kind.is_for_image() => OperationKind::Start,
        Pause::WorkDone | Pause::None | Pause::Off => kind,
    };
    match (kind, observed) {
        // An image has no state: it is here, or what is here of it is gone on with.
        (OperationKind::PullImage, _) if evidence.reached => Succeed,
        (OperationKind::PullImage, _) => Run(OperationKind::PullImage),

        // Making it again goes on where it was cut: an image half downloaded, a disk half made.
        (OperationKind::Create, None | Some(Creating | Error)) => Run(OperationKind::Create),
        // It is made. Starting waits until it is ready, and starts it where the cut came before that.
        (OperationKind::Create, Some(Running | Starting | Stopped)) => Run(OperationKind::Start),
        // The driver's program goes on with it; to call it now would only disturb.
        (OperationKind::Create, Some(Unknown | Restarting)) => AwaitRunning,
        // Somebody has gone on from there.
        (OperationKind::Create, Some(Stopping | Suspending | Suspended)) => Succeed,
        (OperationKind::Create, Some(Deleted)) => IN_TRASH,

        (OperationKind::Purge, None) => Succeed,
        (OperationKind::Purge, Some(_)) => Run(OperationKind::Purge),
        (OperationKind::Delete, None | Some(Deleted)) => Succeed,
        (OperationKind::Delete, Some(_)) => Run(OperationKind::Delete),

        (_, None) => GONE,

        (OperationKind::Recover, Some(Deleted)) => Run(OperationKind::Recover),
        (OperationKind::Recover, Some(_)) => Succeed,

        (OperationKind::Stop, Some(Stopped | Suspended | Deleted)) => Succeed,
        (
            OperationKind::Stop,
            Some(Running | Starting | Restarting | Stopping | Unknown | Error),
        ) => Run(OperationKind::Stop),
        (OperationKind::Stop, Some(Creating | Suspending)) => Fail("the VM is busy otherwise"),

        (_, Some(Deleted)) => IN_TRASH,

        (OperationKind::Start | OperationKind::Resume, Some(Unknown | Restarting)) => AwaitRunning,
        (OperationKind::Start | OperationKind::Resume, Some(Creating | Suspending | Stopping)) => {
            Fail("the VM is busy otherwise")
        }
        (
            OperationKind::Start | OperationKind::Resume,
            Some(Running | Starting | Stopped | Suspended | Error),
        ) => Run(OperationKind::Start),

        // The reboot has been asked for; asking twice would reboot twice.
        (OperationKind::Restart, Some(Running | Starting | Restarting | Unknown)) => AwaitRunning,
        (OperationKind::Restart, Some(Stopped | Error)) => Run(OperationKind::Start),
        (OperationKind::Restart, Some(Creating | Stopping | Suspending | Suspended)) => {
            Fail("the VM is busy otherwise")
        }

        (
            OperationKind::Snapshot
            | OperationKind::Restore
            | OperationKind::DeleteSnapshot
            | OperationKind::Clone
            | OperationKind::Resize,
            Some(state),
        ) => match (evidence.reached, pause, state) {
            (true, Pause::None, _) => Succeed,
            (true, _, Stopped | Running) => Run(OperationKind::Start),
            (false, _, Stopped) | (false, Pause::Off, Running | Stopping) => Run(kind),
            // Cut off before it was stopped.
            (false, Pause::None, Running) if evidence.may_stop => Run(kind),
            (false, Pause::None, Running) => Fail("somebody started the VM meanwhile"),
            _ => Fail("the VM is busy otherwise"),
        },

        // Done twice they are done once.
        (OperationKind::Mount | OperationKind::Umount, Some(Stopped | Running)) => Run(kind),
        (OperationKind::Mount | OperationKind::Umount, Some(_)) => Fail("the VM is busy otherwise"),

        (OperationKind::Suspend, Some(Suspended)) => Succeed,
        (OperationKind::Suspend, Some(Running | Suspending)) => Run(OperationKind::Suspend),
        (OperationKind::Suspend, Some(_)) => Fail("the VM does not run"),
    }
}

/// What an error of a driver means for the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The VM is where it was to be all the same.
    SucceededLate,
    /// It failed.
    Failed,
}

/// Judges an error by the state that the driver gives the VM afterwards: `observed` is `None` when it does not
/// say, `Some(None)` when there is no VM.
pub(crate) fn judge(
    kind: OperationKind,
    error: &DriverError,
    observed: Option<Option<VmState>>,
) -> Outcome {
    let Some(state) = observed else {
        return Outcome::Failed;
    };
    let reached = match kind {
        OperationKind::Purge => state.is_none(),
        OperationKind::Delete => matches!(state, None | Some(VmState::Deleted)),
        OperationKind::Stop => state == Some(VmState::Stopped),
        OperationKind::Suspend => state == Some(VmState::Suspended),
        OperationKind::Recover => {
            matches!(
                state,
                Some(VmState::Stopped | VmState::Suspended | VmState::Running)
            )
        }
        // Nothing in the state tells whether these are done.
        OperationKind::Snapshot
        | OperationKind::Restore
        | OperationKind::DeleteSnapshot
        | OperationKind::Clone
        | OperationKind::Resize
        | OperationKind::Mount
        | OperationKind::Umount
        | OperationKind::PullImage => false,
        // A VM that runs may still not be usable: that a driver says so is believed, that time ran out is not.
        OperationKind::Create
        | OperationKind::Start
        | OperationKind::Resume
        | OperationKind::Restart => {
            state == Some(VmState::Running) && matches!(error, DriverError::Timeout(_))
        }
    };
    if reached {
        Outcome::SucceededLate
    } else {
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [OperationState; 5] = [
        OperationState::Queued,
        OperationState::Running,
        OperationState::Succeeded,
        OperationState::Failed,
        OperationState::Cancelled,
    ];

    fn observations() -> impl Iterator<Item = Option<VmState>> {
        std::iter::once(None).chain(VmState::ALL.into_iter().map(Some))
    }

    const PAUSES: [Pause; 3] = [Pause::None, Pause::Off, Pause::WorkDone];

    /// Every journal entry and observation that there can be.
    fn pairs() -> impl Iterator<Item = (OperationKind, OperationState, Pause, Evidence)> {
        OperationKind::ALL.into_iter().flat_map(|kind| {
            STATES.into_iter().flat_map(move |state| {
                PAUSES.into_iter().flat_map(move |pause| {
                    observations().flat_map(move |observed| {
                        [false, true].map(|reached| {
                            let evidence = Evidence {
                                state: observed,
                                reached,
                                may_stop: pause != Pause::None,
                            };
                            (kind, state, pause, evidence)
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn every_pair_of_entry_and_observation_is_settled() {
        for (kind, state, pause, evidence) in pairs() {
            let observed = evidence.state;
            let decision = settle(kind, state, pause, evidence);
            let context = format!("{kind} {state:?} {pause:?} {evidence:?} -> {decision:?}");
            if state.is_finished() {
                assert_eq!(decision, Decision::Keep, "{context}");
                continue;
            }
            assert_ne!(decision, Decision::Keep, "{context}");
            if state == OperationState::Queued {
                assert_eq!(decision, Decision::Run(kind), "{context}");
            }
            // A VM is only waited for where it can come up by itself.
            if decision == Decision::AwaitRunning {
                assert!(
                    matches!(
                        observed,
                        Some(
                            VmState::Unknown
                                | VmState::Restarting
                                | VmState::Starting
                                | VmState::Running
                        )
                    ),
                    "{context}"
                );
            }
            // Nothing that destroys is run unless that was asked for.
            if let Decision::Run(run) = decision {
                let destroys = matches!(
                    run,
                    OperationKind::Purge | OperationKind::Delete | OperationKind::Stop
                );
                assert!(!destroys || run == kind, "{context}");
                // The work is done once: what remains is to start the VM again.
                let done = pause == Pause::WorkDone && state == OperationState::Running;
                let done = done && !kind.is_for_image();
                assert!(
                    !done || destroys || run == OperationKind::Start,
                    "{context}"
                );
            }
        }
    }

    #[test]
    fn an_operation_that_stopped_its_vm_never_ends_well_with_it_off() {
        for (kind, state, pause, evidence) in pairs() {
            let stopped = pause != Pause::None && state == OperationState::Running;
            let offline = matches!(
                kind,
                OperationKind::Snapshot | OperationKind::Resize | OperationKind::Clone
            );
            if stopped && offline && evidence.state == Some(VmState::Stopped) {
                let decision = settle(kind, state, pause, evidence);
                assert!(
                    matches!(decision, Decision::Run(_)),
                    "{kind} {pause:?} {evidence:?} -> {decision:?}"
                );
            }
        }
    }

    #[test]
    fn running_operations_are_settled_by_what_is_seen() {
        let table: Vec<String> = OperationKind::ALL
            .into_iter()
            .map(|kind| {
                let cells: Vec<String> = observations()
                    .map(|observed| {
                        let sign = match settle(
                            kind,
                            OperationState::Running,
                            Pause::None,
                            observed.into(),
                        ) {
                            Decision::Keep => "keep".to_owned(),
                            Decision::Succeed => "ok".to_owned(),
                            Decision::Run(kind) => kind.to_string(),
                            Decision::AwaitRunning => "await".to_owned(),
                            Decision::Fail(_) => "fail".to_owned(),
                        };
                        format!("{}:{sign}", observed.map_or("gone", VmState::as_str))
                    })
                    .collect();
                format!("{kind}: {}", cells.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @"
        create: gone:create creating:create starting:start running:start restarting:await stopping:ok stopped:start suspending:ok suspended:ok deleted:fail unknown:await error:create
        start: gone:fail creating:fail starting:start running:start restarting:await stopping:fail stopped:start suspending:fail suspended:start deleted:fail unknown:await error:start
        stop: gone:fail creating:fail starting:stop running:stop restarting:stop stopping:stop stopped:ok suspending:fail suspended:ok deleted:ok unknown:stop error:stop
        restart: gone:fail creating:fail starting:await running:await restarting:await stopping:fail stopped:start suspending:fail suspended:fail deleted:fail unknown:await error:start
        suspend: gone:fail creating:fail starting:fail running:suspend restarting:fail stopping:fail stopped:fail suspending:suspend suspended:ok deleted:fail unknown:fail error:fail
        resume: gone:fail creating:fail starting:start running:start restarting:await stopping:fail stopped:start suspending:fail suspended:start deleted:fail unknown:await error:start
        delete: gone:ok creating:delete starting:delete running:delete restarting:delete stopping:delete stopped:delete suspending:delete suspended:delete deleted:ok unknown:delete error:delete
        recover: gone:fail creating:ok starting:ok running:ok restarting:ok stopping:ok stopped:ok suspending:ok suspended:ok deleted:recover unknown:ok error:ok
        purge: gone:ok creating:purge starting:purge running:purge restarting:purge stopping:purge stopped:purge suspending:purge suspended:purge deleted:purge unknown:purge error:purge
        snapshot: gone:fail creating:fail starting:fail running:fail restarting:fail stopping:fail stopped:snapshot suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        restore: gone:fail creating:fail starting:fail running:fail restarting:fail stopping:fail stopped:restore suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        delete_snapshot: gone:fail creating:fail starting:fail running:fail restarting:fail stopping:fail stopped:delete_snapshot suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        clone: gone:fail creating:fail starting:fail running:fail restarting:fail stopping:fail stopped:clone suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        resize: gone:fail creating:fail starting:fail running:fail restarting:fail stopping:fail stopped:resize suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        mount: gone:fail creating:fail starting:fail running:mount restarting:fail stopping:fail stopped:mount suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        umount: gone:fail creating:fail starting:fail running:umount restarting:fail stopping:fail stopped:umount suspending:fail suspended:fail deleted:fail unknown:fail error:fail
        pull_image: gone:pull_image creating:pull_image starting:pull_image running:pull_image restarting:pull_image stopping:pull_image stopped:pull_image suspending:pull_image suspended:pull_image deleted:pull_image unknown:pull_image error:pull_image
        ");
    }

    #[test]
    fn an_error_is_forgiven_only_when_the_goal_is_reached() {
        let timeout = DriverError::Timeout("late".into());
        let failed = DriverError::failed("no");
        for (kind, error, observed, outcome) in [
            (
                OperationKind::Create,
                &timeout,
                Some(Some(VmState::Running)),
                Outcome::SucceededLate,
            ),
            (
                OperationKind::Create,
                &failed,
                Some(Some(VmState::Running)),
                Outcome::Failed,
            ),
            (
                OperationKind::Create,
                &timeout,
                Some(Some(VmState::Unknown)),
                Outcome::Failed,
            ),
            (
                OperationKind::Stop,
                &failed,
                Some(Some(VmState::Stopped)),
                Outcome::SucceededLate,
            ),
            (
                OperationKind::Stop,
                &timeout,
                Some(Some(VmState::Running)),
                Outcome::Failed,
            ),
            (
                OperationKind::Purge,
                &failed,
                Some(None),
                Outcome::SucceededLate,
            ),
            (OperationKind::Purge, &failed, None, Outcome::Failed),
            (
                OperationKind::Delete,
                &failed,
                Some(Some(VmState::Deleted)),
                Outcome::SucceededLate,
            ),
        ] {
            assert_eq!(
                judge(kind, error, observed),
                outcome,
                "{kind} {error} {observed:?}"
            );
        }
    }
}
