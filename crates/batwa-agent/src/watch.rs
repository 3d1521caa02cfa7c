//! What the agent shows of itself: one picture of agent, VMs, operations and terminals, and its changes.
//!
//! Inventory, operations and terminals write here; lists and `GET /api/v1/watch` read here. Invariant: every
//! change raises the revision by one and is sent in the order of revisions, so that a snapshot and the changes
//! after it always make the picture. A watcher that falls behind gets a new snapshot; memory stays bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    agent::AgentInfo,
    event::WatchEvent,
    id::{OperationId, TerminalId},
    name::VmName,
    operation::Operation,
    terminal::Terminal,
    vm::{AgentReason, ShownVm, Vm, VmState},
};
use tokio::sync::broadcast;

/// Changes that a watcher may be behind before it gets a new snapshot.
const BACKLOG: usize = 1024;
/// Finished operations that are shown, the latest.
const FINISHED_KEPT: usize = 200;
/// After how long a finished operation is no news for a new watcher.
const RECENT: Duration = Duration::from_secs(3600);

/// The picture. Cheap to share; every call is short.
#[derive(Debug)]
pub(crate) struct Picture {
    state: Mutex<State>,
    changes: broadcast::Sender<Arc<WatchEvent>>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    agent: AgentInfo,
    vms: BTreeMap<VmName, Vm>,
    operations: BTreeMap<OperationId, Operation>,
    terminals: BTreeMap<TerminalId, Terminal>,
}

impl State {
    /// A VM with what its driver can do with it now.
    fn shown(&self, vm: &Vm) -> ShownVm {
        let drivers = &self.agent.drivers;
        let driver = drivers.iter().find(|driver| driver.kind == vm.driver);
        let capabilities = driver.map(|driver| driver.capabilities);
        ShownVm::new(vm.clone(), &capabilities.unwrap_or_default())
    }
}

/// One follower of the picture.
#[derive(Debug)]
pub(crate) struct Watcher {
    picture: Arc<Picture>,
    changes: broadcast::Receiver<Arc<WatchEvent>>,
    started: bool,
    /// For how long it had not watched before.
    away: Duration,
}

impl Picture {
    /// An agent without VMs.
    #[must_use]
    pub(crate) fn new(agent: AgentInfo) -> Self {
        Self {
            state: Mutex::new(State {
                revision: 0,
                agent,
                vms: BTreeMap::new(),
                operations: BTreeMap::new(),
                terminals: BTreeMap::new(),
            }),
            changes: broadcast::Sender::new(BACKLOG),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the change and sends it; the lock is held, so the order of revisions is the order sent.
    fn send(&self, state: &mut State, event: impl FnOnce(u64) -> WatchEvent) {
        state.revision += 1;
        // Fails when nobody watches.
        let _ = self.changes.send(Arc::new(event(state.revision)));
    }

    /// The agent as last said, with the clock of now.
    #[must_use]
    pub(crate) fn agent(&self) -> AgentInfo {
        let mut agent = self.state().agent.clone();
        agent.clock = Timestamp::now();
        agent
    }

    /// Changes what is said of the agent; a change of its clock alone is none.
    pub(crate) fn update_agent(&self, change: impl FnOnce(&mut AgentInfo)) {
        let mut state = self.state();
        let mut agent = state.agent.clone();
        change(&mut agent);
        if agent == state.agent {
            return;
        }
        agent.clock = Timestamp::now();
        state.agent = agent.clone();
        self.send(&mut state, |revision| WatchEvent::Agent { revision, agent });
    }

    /// All VMs, by name.
    #[must_use]
    pub(crate) fn vms(&self) -> Vec<Vm> {
        self.state().vms.values().cloned().collect()
    }

    /// One VM.
    #[must_use]
    pub(crate) fn vm(&self, name: &VmName) -> Option<Vm> {
        self.state().vms.get(name).cloned()
    }

    /// The names of the VMs in a state.
    #[must_use]
    pub(crate) fn names_in(&self, wanted: VmState) -> Vec<VmName> {
        let state = self.state();
        let vms = state.vms.values().filter(|vm| vm.state == wanted);
        vms.map(|vm| vm.name.clone()).collect()
    }

    /// Whether a terminal of a VM is open.
    #[must_use]
    pub(crate) fn has_terminal(&self, vm: &VmName) -> bool {
        let state = self.state();
        state.terminals.values().any(|terminal| terminal.vm == *vm)
    }

    /// All VMs by name, with what can be done with each.
    #[must_use]
    pub(crate) fn shown_vms(&self) -> Vec<ShownVm> {
        let state = self.state();
        state.vms.values().map(|vm| state.shown(vm)).collect()
    }

    /// One VM, with what can be done with it.
    #[must_use]
    pub(crate) fn shown_vm(&self, name: &VmName) -> Option<ShownVm> {
        let state = self.state();
        state.vms.get(name).map(|vm| state.shown(vm))
    }

    /// Number of VMs.
    #[must_use]
    pub(crate) fn vm_count(&self) -> usize {
        self.state().vms.len()
    }

    /// Replaces all VMs by what `update` makes of them and tells what changed; a later time of observation alone is no
    /// change.
    pub(crate) fn update_vms(
        &self,
        update: impl FnOnce(&BTreeMap<VmName, Vm>) -> BTreeMap<VmName, Vm>,
    ) {
        let mut state = self.state();
        let vms = update(&state.vms);
        let mut old = std::mem::take(&mut state.vms);
        let mut changed = Vec::new();
        for (name, vm) in &vms {
            if old.remove(name).is_none_or(|before| differs(before, vm)) {
                changed.push(vm.clone());
            }
        }
        state.vms = vms;
        for name in old.into_keys() {
            self.send(&mut state, |revision| WatchEvent::VmRemoved {
                revision,
                name,
            });
        }
        for vm in changed.into_iter().map(Box::new) {
            self.send(&mut state, |revision| WatchEvent::Vm { revision, vm });
        }
    }

    /// The same for one VM, at a cost that does not grow with the others.
    pub(crate) fn update_vm(&self, name: &VmName, update: impl FnOnce(Option<&Vm>) -> Option<Vm>) {
        let mut state = self.state();
        let vm = update(state.vms.get(name));
        let Some(vm) = vm else {
            if state.vms.remove(name).is_some() {
                let name = name.clone();
                self.send(&mut state, |revision| WatchEvent::VmRemoved {
                    revision,
                    name,
                });
            }
            return;
        };
        let before = state.vms.insert(name.clone(), vm.clone());
        if before.is_none_or(|before| differs(before, &vm)) {
            let vm = Box::new(vm);
            self.send(&mut state, |revision| WatchEvent::Vm { revision, vm });
        }
    }

    /// All operations, the newest first.
    #[must_use]
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.state().operations.values().rev().cloned().collect()
    }

    /// Adds or replaces an operation. Returns the ids of finished ones that are no longer kept for it.
    pub(crate) fn set_operation(&self, operation: Operation) -> Vec<OperationId> {
        let mut state = self.state();
        if state.operations.get(&operation.id) == Some(&operation) {
            return Vec::new();
        }
        state.operations.insert(operation.id, operation.clone());
        let finished: Vec<OperationId> = state
            .operations
            .values()
            .filter(|operation| operation.state.is_finished())
            .map(|operation| operation.id)
            .collect();
        let surplus = finished.len().saturating_sub(FINISHED_KEPT);
        let dropped: Vec<OperationId> = finished.into_iter().take(surplus).collect();
        for id in &dropped {
            state.operations.remove(id);
        }
        self.send(&mut state, |revision| WatchEvent::Operation {
            revision,
            operation,
        });
        dropped
    }

    /// Adds or replaces a terminal session; a change of its offsets alone is not told.
    pub(crate) fn set_terminal(&self, terminal: Terminal) {
        let mut state = self.state();
        let before = state.terminals.insert(terminal.id, terminal.clone());
        let told = before.is_some_and(|before| {
            Terminal {
                offset: terminal.offset,
                oldest_offset: terminal.oldest_offset,
                ..before
            } == terminal
        });
        if !told {
            self.send(&mut state, |revision| WatchEvent::Terminal {
                revision,
                terminal,
            });
        }
    }

    /// Takes a terminal session away.
    pub(crate) fn remove_terminal(&self, id: TerminalId) {
        let mut state = self.state();
        if state.terminals.remove(&id).is_some() {
            self.send(&mut state, |revision| WatchEvent::TerminalRemoved {
                revision,
                id,
            });
        }
    }

    /// Follows the picture, beginning with a snapshot.
    #[must_use]
    pub(crate) fn watch(self: &Arc<Self>) -> Watcher {
        self.watch_after(Duration::ZERO)
    }

    /// The same for somebody who has not watched for so long, and is told what the agent did by itself meanwhile.
    #[must_use]
    pub(crate) fn watch_after(self: &Arc<Self>, away: Duration) -> Watcher {
        Watcher {
            picture: Arc::clone(self),
            changes: self.changes.subscribe(),
            started: false,
            away,
        }
    }

    /// A line that says only that nothing changed.
    #[must_use]
    pub(crate) fn keep_alive(&self) -> WatchEvent {
        WatchEvent::KeepAlive {
            revision: self.state().revision,
        }
    }

    fn snapshot(&self, state: &State, away: Duration) -> WatchEvent {
        let now = Timestamp::now();
        let ago = |time| now.checked_sub(time).unwrap_or(Timestamp::MIN);
        let (recent, while_away) = (ago(RECENT), ago(RECENT.saturating_add(away)));
        let is_news = |operation: &&Operation| {
            // What was asked for is known to whoever asked.
            let since = match by_itself(operation) {
                true => while_away,
                false => recent,
            };
            operation.finished_at.is_none_or(|at| at >= since)
        };
        WatchEvent::Snapshot {
            revision: state.revision,
            agent: AgentInfo {
                clock: now,
                ..state.agent.clone()
            },
            vms: state.vms.values().cloned().collect(),
            operations: state.operations.values().filter(is_news).cloned().collect(),
            terminals: state.terminals.values().cloned().collect(),
        }
    }
}

/// Whether the agent began it without having been asked.
fn by_itself(operation: &Operation) -> bool {
    let reason = operation.requested_by.as_deref();
    reason.and_then(AgentReason::parse).is_some()
}

/// Whether `after` is news to somebody who knows `before`.
fn differs(mut before: Vm, after: &Vm) -> bool {
    before.observed_at = after.observed_at;
    if let (Some(before), Some(after)) = (&mut before.usage, &after.usage) {
        before.measured_at = after.measured_at;
    }
    before != *after
}

impl Watcher {
    /// The next line: first, and after falling behind, a snapshot; then the changes. Can be dropped and called
    /// again without losing any.
    pub(crate) async fn next(&mut self) -> Arc<WatchEvent> {
        loop {
            if !self.started {
                self.started = true;
                return self.snapshot();
            }
            match self.changes.recv().await {
                Ok(event) => return event,
                // Closed cannot be: we hold the picture, and the picture holds the sender.
                Err(
                    broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed,
                ) => {
                    self.started = false;
                }
            }
        }
    }

    fn snapshot(&mut self) -> Arc<WatchEvent> {
        let picture = Arc::clone(&self.picture);
        let state = picture.state();
        // Under the lock nothing is sent, so this receiver begins right after the snapshot.
        self.changes = picture.changes.subscribe();
        Arc::new(picture.snapshot(&state, self.away))
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{
        agent::{DriverKind, HostFacts},
        id::AgentId,
        operation::{OperationRequest, OperationState},
        vm::VmSettings,
    };
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn picture() -> Arc<Picture> {
        Arc::new(Picture::for_tests(AgentId::local()))
    }

    impl Picture {
        /// A picture of an agent of which nothing is known.
        pub(crate) fn for_tests(agent_id: AgentId) -> Self {
            let now = Timestamp::now();
            Self::new(AgentInfo {
                agent_id,
                version: "0".into(),
                protocol_version: 1,
                host: HostFacts::default(),
                drivers: Vec::new(),
                labels: BTreeMap::new(),
                policy: None,
                started_at: now,
                clock: now,
            })
        }
    }

    fn vm(name: &str, state: VmState) -> Vm {
        let now = Timestamp::now();
        Vm {
            name: VmName::parse(name).unwrap(),
            state,
            state_since: Timestamp::UNIX_EPOCH,
            message: None,
            driver: DriverKind::Fake,
            readiness: None,
            ipv4: Vec::new(),
            image: None,
            release: None,
            cpus: None,
            memory: None,
            disk: None,
            usage: None,
            acceleration: None,
            created_at: None,
            started_at: None,
            shutdown_at: None,
            location: None,
            observed_at: now,
            snapshots: Vec::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            forwards: Vec::new(),
            settings: VmSettings::default(),
            notices: Vec::new(),
            operations: Vec::new(),
        }
    }

    fn vms(states: &[(u8, VmState)]) -> BTreeMap<VmName, Vm> {
        states
            .iter()
            .map(|(n, state)| vm(&format!("vm{n}"), *state))
            .map(|vm| (vm.name.clone(), vm))
            .collect()
    }

    /// A faithful follower: what it believes of the VMs.
    #[derive(Default)]
    struct Follower {
        revision: u64,
        known: BTreeMap<VmName, VmState>,
    }

    impl Follower {
        fn catch_up(&mut self, watcher: &mut Watcher) {
            while let Some(event) = watcher.next().now_or_never() {
                let expected = self.revision + 1;
                self.revision = match &*event {
                    WatchEvent::Snapshot { revision, vms, .. } => {
                        self.known = vms.iter().map(|vm| (vm.name.clone(), vm.state)).collect();
                        *revision
                    }
                    WatchEvent::Vm { revision, vm } => {
                        assert_eq!(*revision, expected);
                        self.known.insert(vm.name.clone(), vm.state);
                        *revision
                    }
                    WatchEvent::VmRemoved { revision, name } => {
                        assert_eq!(*revision, expected);
                        self.known.remove(name);
                        *revision
                    }
                    other => panic!("{other:?}"),
                };
            }
        }
    }

    proptest! {
        #[test]
        fn snapshot_and_changes_make_the_picture(
            steps in prop::collection::vec(
                (prop::collection::vec((0_u8..6, prop::sample::select(VmState::ALL.to_vec())), 0..6), any::<bool>()), 0..12),
            look_after in 0_usize..12,
        ) {
            let picture = picture();
            let mut watcher = picture.watch();
            let mut follower = Follower::default();
            for (n, (step, singly)) in steps.iter().enumerate() {
                let step = vms(step);
                if *singly {
                    for name in (0..6).map(|n| VmName::parse(&format!("vm{n}")).unwrap()) {
                        picture.update_vm(&name, |_| step.get(&name).cloned());
                    }
                } else {
                    picture.update_vms(|_| step);
                }
                if n == look_after {
                    // Everything after this comes as single changes.
                    follower.catch_up(&mut watcher);
                }
            }
            follower.catch_up(&mut watcher);
            let shown: BTreeMap<_, _> = picture.vms().into_iter().map(|vm| (vm.name, vm.state)).collect();
            prop_assert_eq!(follower.known, shown);
        }
    }

    #[test]
    fn whoever_was_away_hears_of_what_the_agent_did_by_itself_meanwhile() {
        let picture = picture();
        let ended = |hours: i64, requested_by: &str| {
            let vm = VmName::parse("web").unwrap();
            let at = Timestamp::now() - jiff::SignedDuration::from_hours(hours);
            let request = OperationRequest::Start;
            let mut operation =
                Operation::new(OperationId::new(), AgentId::local(), vm, &request, at);
            operation.state = OperationState::Succeeded;
            operation.finished_at = Some(at);
            operation.requested_by = Some(requested_by.to_owned());
            picture.set_operation(operation);
        };
        for hours in [0, 5, 50] {
            ended(hours, "agent: idle");
            ended(hours, "ann");
        }
        let told = |away| {
            let hours = Duration::from_secs(3600);
            let mut watcher = picture.watch_after(hours.saturating_mul(away));
            match watcher.next().now_or_never().as_deref() {
                Some(WatchEvent::Snapshot { operations, .. }) => operations.len(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([told(0), told(5), told(50), told(u32::MAX)], [2, 3, 4, 4]);
    }

    #[test]
    fn a_later_observation_of_the_same_is_no_change() {
        let picture = picture();
        picture.update_vms(|_| vms(&[(1, VmState::Running)]));
        let mut watcher = picture.watch();
        let mut follower = Follower::default();
        follower.catch_up(&mut watcher);
        assert_eq!(follower.revision, 1);
        picture.update_vms(|_| vms(&[(1, VmState::Running)]));
        assert!(watcher.next().now_or_never().is_none());
    }

    #[test]
    fn a_watcher_that_falls_behind_gets_a_new_snapshot() {
        let picture = picture();
        let mut watcher = picture.watch();
        Follower::default().catch_up(&mut watcher);
        for n in 0..2 * BACKLOG {
            let state = [VmState::Running, VmState::Stopped][n % 2];
            picture.update_vms(|_| vms(&[(1, state)]));
        }
        let event = watcher.next().now_or_never().unwrap();
        assert!(
            matches!(&*event, WatchEvent::Snapshot { revision, .. } if *revision == 2 * BACKLOG as u64),
            "{event:?}"
        );
        assert!(watcher.next().now_or_never().is_none());
    }
}
