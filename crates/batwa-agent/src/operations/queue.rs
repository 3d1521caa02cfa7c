//! What is asked of one VM, in a row: accept, refuse with a reason, or say that it is done already. Pure. Pulls of one
//! image stand in such a row too, but are never judged by a VM's state.
//!
//! A command is judged by the state that the VM will be in once everything before it is done. A purge and a
//! forced stop do not wait for what they make pointless: they push it out of the way.

use std::collections::VecDeque;

use batwa_api::{
    agent::Capabilities,
    id::OperationId,
    name::VmName,
    operation::{OperationKind, OperationRequest},
    problem::{FieldError, Problem, ProblemCode},
    vm::{VmAction, VmSettings, VmState},
};

/// What a command is, as far as the queue cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Any command but those below.
    Do(OperationKind),
    /// One for which a VM that runs is stopped, and started again.
    DoStopped(OperationKind),
    /// Pull the plug.
    ForceStop,
}

impl From<&OperationRequest> for Ask {
    fn from(request: &OperationRequest) -> Self {
        match request {
            OperationRequest::Stop(options) if options.force => Self::ForceStop,
            request if request.stops() => Self::DoStopped(request.kind()),
            request => Self::Do(request.kind()),
        }
    }
}

impl Ask {
    fn kind(self) -> OperationKind {
        match self {
            Self::Do(kind) | Self::DoStopped(kind) => kind,
            Self::ForceStop => OperationKind::Stop,
        }
    }
}

/// The commands of one VM: the first runs when `running`, the rest wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<(OperationId, Ask)>,
    running: bool,
}

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It joins the queue; these are cancelled for it.
    Accept {
        /// The commands that it makes pointless.
        preempts: Vec<OperationId>,
    },
    /// There is nothing to do.
    AlreadyDone,
    /// It is not possible.
    Refuse(Refusal),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such VM.
    NotFound,
    /// The name is taken.
    NameTaken {
        /// By a VM in the trash.
        in_trash: bool,
    },
    /// The VM's state, or its driver, does not allow it.
    Illegal {
        action: VmAction,
        reason: &'static str,
        unsupported: bool,
    },
    /// Too many commands wait.
    Full(usize),
}

impl Refusal {
    /// The refusal as a failed call.
    pub(crate) fn to_problem(&self, vm: &VmName) -> Problem {
        match self {
            Self::NotFound => {
                Problem::new(ProblemCode::NotFound, format!("VM `{vm}` does not exist"))
            }
            Self::NameTaken { in_trash } => {
                let detail = if *in_trash {
                    format!(
                        "a VM named `{vm}` is in the trash: recover or purge it, or choose another name"
                    )
                } else {
                    format!("a VM named `{vm}` exists already: choose another name")
                };
                let mut problem = Problem::new(ProblemCode::NameTaken, &detail);
                problem.errors.push(FieldError::new("name", detail));
                problem
            }
            Self::Illegal {
                action,
                reason,
                unsupported,
            } => Problem::new(
                if *unsupported {
                    ProblemCode::Unsupported
                } else {
                    ProblemCode::IllegalState
                },
                format!("cannot {action} VM `{vm}`: {reason}"),
            ),
            Self::Full(limit) => Problem::new(
                ProblemCode::Conflict,
                format!("{limit} commands wait for VM `{vm}` already: wait, or cancel some"),
            ),
        }
    }
}

/// The state after a command succeeded on a VM that was in `before`; `None` when the VM is gone then.
fn after(kind: OperationKind, before: Option<VmState>) -> Option<VmState> {
    Some(match kind {
        OperationKind::Create
        | OperationKind::Start
        | OperationKind::Restart
        | OperationKind::Resume => VmState::Running,
        OperationKind::Stop | OperationKind::Recover => VmState::Stopped,
        OperationKind::Suspend => VmState::Suspended,
        OperationKind::Delete => VmState::Deleted,
        OperationKind::Purge => return None,
        // One that was stopped for it is started again.
        OperationKind::Snapshot
        | OperationKind::Restore
        | OperationKind::DeleteSnapshot
        | OperationKind::Clone
        | OperationKind::Resize
        | OperationKind::Mount
        | OperationKind::Umount
        | OperationKind::PullImage => return before,
    })
}

/// Whether a VM in this state needs nothing done for this command.
pub(crate) fn is_done(kind: OperationKind, state: VmState) -> bool {
    match kind {
        OperationKind::Start
        | OperationKind::Resume
        | OperationKind::Stop
        | OperationKind::Suspend
        | OperationKind::Delete => after(kind, None) == Some(state),
        _ => false,
    }
}

impl Queue {
    /// Judges a command for a VM that its driver last saw in state `observed`.
    pub(crate) fn judge(
        &self,
        ask: Ask,
        observed: Option<VmState>,
        capabilities: &Capabilities,
        settings: &VmSettings,
        limit: usize,
    ) -> Verdict {
        let kind = ask.kind();
        let expected = self
            .entries
            .iter()
            .fold(observed, |before, (_, ask)| after(ask.kind(), before));
        let accept = |preempts: Vec<OperationId>| {
            // Neither the one that runs nor those pushed aside wait.
            let waiting = self
                .entries
                .iter()
                .skip(usize::from(self.running))
                .filter(|(id, _)| !preempts.contains(id))
                .count();
            if waiting >= limit {
                Verdict::Refuse(Refusal::Full(limit))
            } else {
                Verdict::Accept { preempts }
            }
        };
        let Some(action) = kind.action() else {
            return match expected {
                None => accept(Vec::new()),
                Some(state) => Verdict::Refuse(Refusal::NameTaken {
                    in_trash: state == VmState::Deleted,
                }),
            };
        };
        if action == VmAction::Purge && !settings.protected {
            return if self.entries.is_empty() && observed.is_none() {
                Verdict::Refuse(Refusal::NotFound)
            } else {
                Verdict::Accept {
                    preempts: self.ids(|ask| ask.kind() != OperationKind::Purge),
                }
            };
        }
        let Some(expected) = expected else {
            return Verdict::Refuse(Refusal::NotFound);
        };
        if ask == Ask::ForceStop {
            let preempts = self.ids(|ask| {
                matches!(
                    ask.kind(),
                    OperationKind::Start
                        | OperationKind::Stop
                        | OperationKind::Restart
                        | OperationKind::Resume
                ) && ask != Ask::ForceStop
            });
            if !preempts.is_empty() {
                return accept(preempts);
            }
        }
        if is_done(kind, expected) {
            return if self.entries.is_empty() {
                Verdict::AlreadyDone
            } else {
                accept(Vec::new())
            };
        }
        match action.refusal(expected, capabilities, settings) {
            Some(reason) => Verdict::Refuse(Refusal::Illegal {
                action,
                reason,
                unsupported: action.is_unsupported(capabilities),
            }),
            None if action.needs_stop(expected) && !matches!(ask, Ask::DoStopped(_)) => {
                Verdict::Refuse(Refusal::Illegal {
                    action,
                    reason: "VM is running: stop it first, or ask for that with `stop`",
                    unsupported: false,
                })
            }
            None => accept(Vec::new()),
        }
    }

    fn ids(&self, which: impl Fn(Ask) -> bool) -> Vec<OperationId> {
        self.entries
            .iter()
            .filter(|(_, ask)| which(*ask))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether one more may wait.
    pub(crate) fn has_room(&self, limit: usize) -> bool {
        self.entries.len() < limit
    }

    /// Adds an accepted command.
    pub(crate) fn push(&mut self, id: OperationId, ask: Ask) {
        self.entries.push_back((id, ask));
    }

    /// Takes the next command up, unless one runs.
    pub(crate) fn next(&mut self) -> Option<OperationId> {
        if self.running {
            return None;
        }
        let (id, _) = self.entries.front()?;
        self.running = true;
        Some(*id)
    }

    /// The running command has ended.
    pub(crate) fn finish(&mut self, id: OperationId) {
        if self.running && self.entries.front().is_some_and(|(first, _)| *first == id) {
            self.entries.pop_front();
            self.running = false;
        }
    }

    /// Takes a waiting command out; false when it runs or is not here.
    pub(crate) fn withdraw(&mut self, id: OperationId) -> bool {
        let skip = usize::from(self.running);
        let position = self
            .entries
            .iter()
            .skip(skip)
            .position(|(other, _)| *other == id);
        if let Some(position) = position {
            self.entries.remove(position + skip);
        }
        position.is_some()
    }

    /// All commands, the first one first.
    pub(crate) fn all(&self) -> Vec<OperationId> {
        self.entries.iter().map(|(id, _)| *id).collect()
    }

    /// Whether nothing runs or waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 3;

    const FREE: VmSettings = VmSettings {
        protected: false,
        autostart: None,
        restart: batwa_api::vm::RestartPolicy::Never,
        lifetime: None,
        idle_stop: None,
        revision: 0,
    };

    fn judge(queue: &Queue, kind: OperationKind, observed: Option<VmState>) -> Verdict {
        queue.judge(Ask::Do(kind), observed, &Capabilities::all(), &FREE, LIMIT)
    }

    fn accepted() -> Verdict {
        Verdict::Accept {
            preempts: Vec::new(),
        }
    }

    #[test]
    fn what_is_done_already_needs_no_operation() {
        let queue = Queue::default();
        for (kind, state) in [
            (OperationKind::Start, VmState::Running),
            (OperationKind::Stop, VmState::Stopped),
            (OperationKind::Resume, VmState::Running),
            (OperationKind::Suspend, VmState::Suspended),
            (OperationKind::Delete, VmState::Deleted),
        ] {
            assert_eq!(
                judge(&queue, kind, Some(state)),
                Verdict::AlreadyDone,
                "{kind}"
            );
        }
    }

    #[test]
    fn a_start_waits_behind_a_stop() {
        let mut queue = Queue::default();
        let stop = OperationId::new();
        assert_eq!(
            judge(&queue, OperationKind::Stop, Some(VmState::Running)),
            accepted()
        );
        queue.push(stop, Ask::Do(OperationKind::Stop));
        assert_eq!(queue.next(), Some(stop));
        // It still runs, but it will be stopped.
        assert_eq!(
            judge(&queue, OperationKind::Start, Some(VmState::Running)),
            accepted()
        );
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn purge_and_forced_stop_push_others_out_of_the_way() {
        let mut queue = Queue::default();
        let start = OperationId::new();
        queue.push(start, Ask::Do(OperationKind::Start));
        queue.next();
        let preempting = Verdict::Accept {
            preempts: vec![start],
        };
        let caps = Capabilities::all();
        assert_eq!(
            queue.judge(Ask::ForceStop, Some(VmState::Starting), &caps, &FREE, LIMIT),
            preempting
        );
        assert_eq!(
            judge(&queue, OperationKind::Purge, Some(VmState::Starting)),
            preempting
        );
    }

    #[test]
    fn refusals_have_their_reasons() {
        let queue = Queue::default();
        assert_eq!(
            judge(&queue, OperationKind::Start, None),
            Verdict::Refuse(Refusal::NotFound)
        );
        assert_eq!(
            judge(&queue, OperationKind::Purge, None),
            Verdict::Refuse(Refusal::NotFound)
        );
        assert_eq!(
            judge(&queue, OperationKind::Create, Some(VmState::Deleted)),
            Verdict::Refuse(Refusal::NameTaken { in_trash: true })
        );
        let suspend = queue.judge(
            Ask::Do(OperationKind::Suspend),
            Some(VmState::Running),
            &Capabilities::default(),
            &FREE,
            LIMIT,
        );
        let Verdict::Refuse(refusal) = suspend else {
            panic!()
        };
        let problem = refusal.to_problem(&VmName::parse("web").unwrap());
        assert_eq!(problem.code, ProblemCode::Unsupported);
        assert_eq!(
            problem.detail,
            "cannot suspend VM `web`: this machine's driver cannot do this"
        );
    }

    #[test]
    fn a_protected_vm_is_neither_deleted_nor_purged_whatever_it_does() {
        let protected = VmSettings {
            protected: true,
            ..FREE
        };
        let mut queue = Queue::default();
        for _ in 0..2 {
            for kind in [OperationKind::Delete, OperationKind::Purge] {
                for state in VmState::ALL {
                    let can = Capabilities::all();
                    let asked = Ask::Do(kind);
                    match queue.judge(asked, Some(state), &can, &protected, LIMIT) {
                        Verdict::Refuse(Refusal::Illegal { unsupported, .. }) => {
                            assert!(!unsupported, "{kind} {state}");
                        }
                        Verdict::AlreadyDone => assert_eq!(state, VmState::Deleted, "{kind}"),
                        verdict => panic!("{kind} {state}: {verdict:?}"),
                    }
                }
            }
            // Nor while something else is under way.
            queue.push(OperationId::new(), Ask::Do(OperationKind::Start));
            queue.next();
        }
    }

    fn of_vms() -> Vec<OperationKind> {
        let all = OperationKind::ALL.into_iter();
        all.filter(|kind| !kind.is_for_image()).collect()
    }

    fn any_ask() -> impl Strategy<Value = Ask> {
        prop_oneof![
            prop::sample::select(of_vms()).prop_map(Ask::Do),
            Just(Ask::ForceStop)
        ]
    }

    proptest! {
        #[test]
        fn a_queue_keeps_its_promises(
            observed in prop::option::of(prop::sample::select(VmState::ALL.to_vec())),
            steps in prop::collection::vec((any_ask(), 0_u8..4), 1..40),
        ) {
            let mut queue = Queue::default();
            let mut order: Vec<OperationId> = Vec::new();
            let mut running: Option<OperationId> = None;
            for (ask, turn) in steps {
                let before = queue.all();
                match queue.judge(ask, observed, &Capabilities::all(), &FREE, LIMIT) {
                    Verdict::Accept { preempts } => {
                        // Only what is there can be pushed aside.
                        prop_assert!(preempts.iter().all(|id| before.contains(id)));
                        for id in &preempts {
                            let waits = running != Some(*id);
                            prop_assert_eq!(queue.withdraw(*id), waits);
                            if waits {
                                order.retain(|other| other != id);
                            }
                        }
                        let id = OperationId::new();
                        queue.push(id, ask);
                        order.push(id);
                        let purge = ask == Ask::Do(OperationKind::Purge);
                        prop_assert!(purge || queue.all().len() <= LIMIT + 1);
                    }
                    Verdict::AlreadyDone => prop_assert!(before.is_empty()),
                    Verdict::Refuse(_) => prop_assert_eq!(queue.all(), before),
                }
                match turn {
                    0 => if let Some(id) = queue.next() {
                        // First come, first served, and never two at once.
                        prop_assert_eq!(running, None);
                        prop_assert_eq!(Some(&id), order.first());
                        running = Some(id);
                    },
                    1 => if let Some(id) = running.take() {
                        queue.finish(id);
                        order.remove(0);
                    },
                    _ => {}
                }
                prop_assert_eq!(&queue.all(), &order);
                prop_assert_eq!(queue.is_empty(), order.is_empty());
            }
        }
    }
}
