//! The inventory: what the drivers say of their VMs, kept current and merged into one list.
//!
//! One task a driver observes it on its own signal and on a timer; another looks closer at single VMs when
//! something changed or somebody asks. Both end in the [`Picture`]: the first computes the list anew
//! ([`Inventory::publish`]), the second only its VM's row ([`Inventory::publish_vm`]), as thousands of VMs are looked at
//! one by one when an agent starts. Invariants: a driver that hangs delays nobody else and keeps its
//! last word, with its age; what was seen earlier never replaces what was seen later.

mod health;
mod merge;
mod said;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    agent::{Capabilities, DriverKind, DriverStatus, HealthStatus},
    id::OperationId,
    name::VmName,
    operation::OperationKind,
    vm::{VmSpec, VmState, VmUsage},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    health::HealthTrack,
    merge::{Shown, Source},
    seen::Sightings,
};
use crate::{
    config::Limits,
    driver::{Driver, DriverError, ObservedVm, Probe},
    watch::Picture,
};

/// How long one closer look may take.
const INSPECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a driver may take to say what it can do.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// An answer later than this makes a driver slow.
const SLOW: Duration = Duration::from_secs(3);
/// Time between two tries while a driver does not answer.
const RETRY: Duration = Duration::from_secs(5);
/// How many looks are left out at a driver that tells of its changes: it is only asked for what it may have missed.
const TOLD: u32 = 4;
/// Time between two observations, however often the driver signals.
const MIN_GAP: Duration = Duration::from_millis(15);
/// A closer look younger than this is good enough for whoever asks.
const LOOK_AGE: Duration = Duration::from_secs(5);

/// All VMs of this machine.
pub(crate) struct Inventory {
    picture: Arc<Picture>,
    limits: Limits,
    slots: Vec<Slot>,
    state: Mutex<State>,
    /// Whether each driver has answered or shown that it will not for now.
    first_word: watch::Sender<bool>,
}

/// One driver and what wakes its tasks.
struct Slot {
    driver: Arc<dyn Driver>,
    poke: Notify,
    wanted: Mutex<BTreeSet<VmName>>,
    want: Notify,
}

struct State {
    slots: Vec<SlotState>,
    busy: BTreeMap<VmName, Busy>,
    /// What is said of VMs beside what their drivers see.
    shown: BTreeMap<VmName, Shown>,
}

struct SlotState {
    /// Whether `auto` left this driver out.
    active: bool,
    health: HealthTrack,
    probe: Option<Probe>,
    seen: Sightings,
    /// Whether it has ever listed its VMs.
    listed: bool,
}

/// What our own operations do to a VM.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy {
    /// The operations that run or wait, the oldest first.
    pub(crate) operations: Vec<OperationId>,
    /// The one that runs.
    pub(crate) running: Option<Running>,
}

/// The operation that runs for a VM.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) kind: OperationKind,
    pub(crate) driver: DriverKind,
    /// What is being made, for a create.
    pub(crate) spec: Option<VmSpec>,
    /// When it will act, for a stop that waits.
    pub(crate) shutdown_at: Option<Timestamp>,
}

impl Inventory {
    /// An inventory of what `drivers` hold; the first one runs new VMs.
    pub(crate) fn new(
        picture: Arc<Picture>,
        limits: Limits,
        drivers: Vec<Arc<dyn Driver>>,
    ) -> Self {
        let state = State {
            slots: drivers
                .iter()
                .map(|_| SlotState {
                    active: true,
                    health: HealthTrack::new(),
                    probe: None,
                    seen: Sightings::default(),
                    listed: false,
                })
                .collect(),
            busy: BTreeMap::new(),
            shown: BTreeMap::new(),
        };
        let slots = drivers
            .into_iter()
            .map(|driver| Slot {
                driver,
                poke: Notify::new(),
                wanted: Mutex::new(BTreeSet::new()),
                want: Notify::new(),
            })
            .collect();
        Self {
            picture,
            limits,
            slots,
            state: Mutex::new(state),
            first_word: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of drivers, for those who run [`Inventory::observe`] and [`Inventory::inspect`].
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Waits until every driver has listed its VMs or is known not to answer, but no longer than `at_most`.
    pub(crate) async fn wait_for_first_word(&self, at_most: Duration) {
        let mut first_word = self.first_word.subscribe();
        // Late is no failure: what is known by then is what is shown.
        let _ = timeout(at_most, first_word.wait_for(|done| *done)).await;
    }

    /// `auto`: the drivers after the first that answers stay out, unless they hold VMs. Those before it stay in:
    /// their health says what to start.
    pub(crate) async fn choose_first_that_answers(&self) {
        for (index, slot) in self.slots.iter().enumerate() {
            let probe = timeout(PROBE_DEADLINE, slot.driver.probe()).await;
            if !matches!(probe, Ok(Ok(_))) {
                continue;
            }
            for (later, slot) in self.slots.iter().enumerate().skip(index + 1) {
                let vms = timeout(PROBE_DEADLINE, slot.driver.observe()).await;
                let holds_vms = matches!(vms, Ok(Ok(vms)) if !vms.is_empty());
                self.state().slots[later].active = holds_vms;
            }
            info!(driver.kind = %slot.driver.kind(), "using driver `{}`", slot.driver.kind());
            return;
        }
    }

    /// Observes driver number `index` until `stop`.
    pub(crate) async fn observe(&self, index: usize, stop: CancellationToken) {
        let slot = &self.slots[index];
        if !self.state().slots[index].active {
            self.note_first_word();
            return;
        }
        let mut changes = slot.driver.changes();
        loop {
            // A driver counts as answering only once it has said what it is.
            let answered = self.probe_if_needed(index).await && self.observe_once(index).await;
            self.note_first_word();
            let pause = if answered {
                let tells = u32::from(changes.is_some());
                self.limits.observe_interval * (1 + tells * TOLD)
            } else {
                RETRY.min(self.limits.observe_interval * 4)
            };
            sleep(MIN_GAP).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = slot.poke.notified() => {}
                () = changed(&mut changes) => {}
            }
        }
    }

    /// Whether the driver has said what it can do.
    async fn probe_if_needed(&self, index: usize) -> bool {
        let known = {
            let state = self.state();
            let slot = &state.slots[index];
            slot.probe.is_some() && slot.health.status() != HealthStatus::Missing
        };
        if known {
            return true;
        }
        let result = timeout(PROBE_DEADLINE, self.slots[index].driver.probe())
            .await
            .unwrap_or_else(|_| Err(no_answer(self.slots[index].driver.kind(), PROBE_DEADLINE)));
        let mut state = self.state();
        let answered = result.is_ok();
        match result {
            Ok(probe) => state.slots[index].probe = Some(probe),
            Err(error) => self.note_failure(&mut state, index, &error),
        }
        self.publish(&state);
        answered
    }

    /// One observation; whether the driver answered.
    async fn observe_once(&self, index: usize) -> bool {
        let asked = Instant::now();
        let driver = &self.slots[index].driver;
        let mut call = driver.observe();
        let patience = SLOW.min(self.limits.observe_deadline / 2);
        let result = match timeout(patience, &mut call).await {
            Ok(result) => result,
            Err(_) => {
                self.note_slow(index);
                let rest = self.limits.observe_deadline.saturating_sub(patience);
                timeout(rest, call)
                    .await
                    .unwrap_or_else(|_| Err(no_answer(driver.kind(), self.limits.observe_deadline)))
            }
        };
        let mut state = self.state();
        let answered = result.is_ok();
        match result {
            Ok(vms) => {
                self.apply_list(&mut state, index, vms, asked);
                let status = if asked.elapsed() > patience {
                    HealthStatus::Slow
                } else {
                    HealthStatus::Ok
                };
                if state.slots[index].health.note(status, None) && status == HealthStatus::Ok {
                    info!(driver.kind = %driver.kind(), "driver `{}` answers", driver.kind());
                }
            }
            Err(error) => self.note_failure(&mut state, index, &error),
        }
        self.publish(&state);
        answered
    }

    fn note_slow(&self, index: usize) {
        let mut state = self.state();
        let text = format!(
            "driver `{}` is slow to answer",
            self.slots[index].driver.kind()
        );
        state.slots[index]
            .health
            .note(HealthStatus::Slow, Some(text));
        self.publish(&state);
    }

    fn note_failure(&self, state: &mut State, index: usize, error: &DriverError) {
        let status = match error {
            DriverError::Missing(_) => HealthStatus::Missing,
            _ => HealthStatus::Stuck,
        };
        let kind = self.slots[index].driver.kind();
        if state.slots[index]
            .health
            .note(status, Some(error.to_string()))
        {
            warn!(driver.kind = %kind, "driver `{kind}` does not answer: {error}");
        }
    }

    fn apply_list(&self, state: &mut State, index: usize, vms: Vec<ObservedVm>, asked: Instant) {
        let slot = &mut state.slots[index];
        slot.listed = true;
        let wanted = slot.seen.list(vms, asked);
        self.want(index, wanted);
    }

    /// Asks for a closer look at these.
    fn want(&self, index: usize, names: Vec<VmName>) {
        if names.is_empty() {
            return;
        }
        let slot = &self.slots[index];
        slot.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(names);
        slot.want.notify_one();
    }

    /// Looks closer at VMs of driver number `index`, one after another, until `stop`.
    pub(crate) async fn inspect(&self, index: usize, stop: CancellationToken) {
        let slot = &self.slots[index];
        loop {
            let next = slot
                .wanted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_first();
            match next {
                Some(name) => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        // A failure shows in the next observation.
                        _ = self.look_at(index, &name) => {}
                    }
                }
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    () = slot.want.notified() => {}
                },
            }
        }
    }

    /// One closer look now; the list holds its result afterwards.
    async fn look_at(
        &self,
        index: usize,
        name: &VmName,
    ) -> Result<Option<ObservedVm>, DriverError> {
        let asked = Instant::now();
        let driver = &self.slots[index].driver;
        let result = timeout(INSPECT_DEADLINE, driver.inspect(name))
            .await
            .unwrap_or_else(|_| Err(no_answer(driver.kind(), INSPECT_DEADLINE)));
        let vm = match result {
            Ok(vm) => Some(vm),
            Err(DriverError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let mut state = self.state();
        let seen = &mut state.slots[index].seen;
        seen.look(name, vm, asked);
        let found = seen.vms().get(name).map(|seen| seen.vm.clone());
        self.publish_vm(&state, name);
        Ok(found)
    }

    /// What `kind` says of a VM now: `None` when it says that there is none. The list agrees afterwards.
    ///
    /// # Errors
    /// When the driver does not answer in time.
    pub(crate) async fn ask(
        &self,
        kind: DriverKind,
        name: &VmName,
    ) -> Result<Option<VmState>, DriverError> {
        let seen = self.look_at(self.index(kind)?, name).await?;
        Ok(seen.map(|vm| vm.state))
    }

    /// What a VM uses now; `None` where it does not say, or does not answer.
    pub(crate) async fn measure(&self, kind: DriverKind, name: &VmName) -> Option<VmUsage> {
        let index = self.index(kind).ok()?;
        let seen = self.look_at(index, name).await.ok()??;
        seen.usage
    }

    /// Somebody looks at this VM: brings its details up to date, waiting for that at most `at_most`.
    pub(crate) async fn look(&self, name: &VmName, at_most: Duration) {
        let index =
            {
                let state = self.state();
                state.slots.iter().position(|slot| {
                    slot.active
                        && slot.seen.vms().get(name).is_some_and(|seen| {
                            seen.inspected.is_none_or(|at| at.elapsed() > LOOK_AGE)
                        })
                        && slot.health.status() == HealthStatus::Ok
                })
            };
        let Some(index) = index else { return };
        if self
            .state()
            .busy
            .get(name)
            .is_some_and(|busy| busy.running.is_some())
        {
            // Its operation looks itself; a VM on its way up must not be asked (multipass/NOTES.md).
            return;
        }
        if at_most.is_zero() {
            self.want(index, vec![name.clone()]);
        } else {
            // What is known already is the answer when the driver takes longer.
            let _ = timeout(at_most, self.look_at(index, name)).await;
        }
    }

    /// The driver of this kind.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] when this agent has none.
    pub(crate) fn driver(&self, kind: DriverKind) -> Result<Arc<dyn Driver>, DriverError> {
        Ok(Arc::clone(&self.slots[self.index(kind)?].driver))
    }

    fn index(&self, kind: DriverKind) -> Result<usize, DriverError> {
        self.slots
            .iter()
            .position(|slot| slot.driver.kind() == kind)
            .ok_or_else(|| {
                DriverError::Unsupported(format!("this agent does not use driver `{kind}`"))
            })
    }

    /// All drivers in use.
    pub(crate) fn drivers(&self) -> Vec<Arc<dyn Driver>> {
        let state = self.state();
        self.slots
            .iter()
            .zip(&state.slots)
            .filter(|(_, state)| state.active)
            .map(|(slot, _)| Arc::clone(&slot.driver))
            .collect()
    }

    /// The driver that runs new VMs: the first that answers.
    ///
    /// # Errors
    /// [`DriverError::Missing`] or [`DriverError::Stuck`], saying what to do, when none does.
    pub(crate) fn driver_for_new(&self) -> Result<Arc<dyn Driver>, DriverError> {
        let state = self.state();
        let usable = |slot: &&SlotState| {
            slot.active
                && slot.probe.is_some()
                && matches!(slot.health.status(), HealthStatus::Ok | HealthStatus::Slow)
        };
        let index = state.slots.iter().position(|slot| usable(&slot));
        match index {
            Some(index) => Ok(Arc::clone(&self.slots[index].driver)),
            None => Err(match state.slots.iter().find(|slot| slot.active) {
                Some(slot) => slot.health.error(),
                None => DriverError::Missing(
                    "this machine has no driver: install Multipass or QEMU".to_owned(),
                ),
            }),
        }
    }

    /// What a driver can do, as far as it has said.
    pub(crate) fn capabilities(&self, kind: DriverKind) -> Capabilities {
        self.index(kind)
            .ok()
            .and_then(|index| self.state().slots[index].probe.clone())
            .map_or(Capabilities::default(), |probe| probe.capabilities)
    }

    /// Whether a driver has ever listed its VMs.
    pub(crate) fn has_listed(&self, kind: DriverKind) -> bool {
        self.index(kind)
            .is_ok_and(|index| self.state().slots[index].listed)
    }

    /// The driver that holds a VM and the state that it last gave it.
    pub(crate) fn find(&self, name: &VmName) -> Option<(DriverKind, VmState)> {
        let state = self.state();
        self.slots
            .iter()
            .zip(&state.slots)
            .filter(|(_, state)| state.active)
            .find_map(|(slot, state)| {
                let seen = state.seen.vms().get(name)?;
                Some((slot.driver.kind(), seen.vm.state))
            })
    }

    /// Says what our operations do to a VM from now on.
    pub(crate) fn set_busy(&self, name: &VmName, busy: Busy) {
        let mut state = self.state();
        if busy.operations.is_empty() && busy.running.is_none() {
            state.busy.remove(name);
        } else {
            state.busy.insert(name.clone(), busy);
        }
        self.publish_vm(&state, name);
    }

    /// Says which operations run or wait for a VM, the oldest first.
    pub(crate) fn set_queued(&self, name: &VmName, operations: Vec<OperationId>) {
        let mut state = self.state();
        let busy = state.busy.entry(name.clone()).or_default();
        busy.operations = operations;
        if busy.operations.is_empty() && busy.running.is_none() {
            state.busy.remove(name);
        }
        self.publish_vm(&state, name);
    }

    /// Whether a VM's driver says that it ended without having been asked to.
    pub(crate) fn has_crashed(&self, name: &VmName) -> bool {
        let state = self.state();
        let mut slots = state.slots.iter().filter(|slot| slot.active);
        slots
            .find_map(|slot| slot.seen.vms().get(name))
            .is_some_and(|seen| seen.vm.crashed)
    }

    /// Whether every driver in use answers, so that a VM that none of them knows is not there.
    pub(crate) fn all_answer(&self) -> bool {
        let state = self.state();
        let mut slots = state.slots.iter().filter(|slot| slot.active);
        slots.all(|slot| slot.listed && slot.health.status() == HealthStatus::Ok)
    }

    /// Asks for an observation of a driver soon.
    pub(crate) fn poke(&self, kind: DriverKind) {
        if let Ok(index) = self.index(kind) {
            self.slots[index].poke.notify_one();
        }
    }

    /// What the drivers in use hold, the first one first.
    fn sources<'a>(&self, state: &'a State) -> Vec<Source<'a>> {
        self.slots
            .iter()
            .zip(&state.slots)
            .filter(|(_, state)| state.active)
            .map(|(slot, state)| Source {
                kind: slot.driver.kind(),
                vms: state.seen.vms(),
            })
            .collect()
    }

    /// Computes one VM's row anew; the lock is held, so that the last one wins.
    fn publish_vm(&self, state: &State, name: &VmName) {
        let sources = self.sources(state);
        let ours = merge::Ours {
            busy: state.busy.get(name),
            shown: state.shown.get(name),
        };
        self.picture
            .update_vm(name, |before| merge::row(name, &sources, ours, before));
    }

    /// Computes the list and the drivers' status anew; the lock is held, so that the last one wins.
    fn publish(&self, state: &State) {
        let sources = self.sources(state);
        let drivers: Vec<DriverStatus> = self
            .slots
            .iter()
            .zip(&state.slots)
            .filter(|(_, state)| state.active)
            .map(|(slot, state)| DriverStatus {
                kind: slot.driver.kind(),
                version: state.probe.as_ref().and_then(|probe| probe.version.clone()),
                capabilities: state
                    .probe
                    .as_ref()
                    .map_or(Capabilities::default(), |probe| probe.capabilities),
                health: state.health.health(),
                acceleration: state
                    .probe
                    .as_ref()
                    .and_then(|probe| probe.acceleration.clone()),
            })
            .collect();
        self.picture.update_agent(|agent| agent.drivers = drivers);
        self.picture
            .update_vms(|before| merge::list(&sources, &state.busy, &state.shown, before));
    }

    fn note_first_word(&self) {
        let done = self
            .state()
            .slots
            .iter()
            .all(|slot| !slot.active || slot.listed || slot.health.has_failed());
        if done {
            self.first_word.send_replace(true);
        }
    }
}

impl std::fmt::Debug for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inventory")
            .field("drivers", &self.slots.len())
            .finish_non_exhaustive()
    }
}

fn no_answer(kind: DriverKind, deadline: Duration) -> DriverError {
    DriverError::Stuck(format!(
        "driver `{kind}` did not answer within {} s",
        deadline.as_secs()
    ))
}

/// Resolves at the driver's next signal; never where it gives none.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
