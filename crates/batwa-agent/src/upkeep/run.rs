//! The task that looks at VMs with settings, and starts what is due for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use batwa_api::{
    id::OperationId,
    name::VmName,
    operation::{Operation, OperationRequest, OperationState, StartOperation, Subject},
    vm::{AgentReason, IdleStop, Vm, VmState},
};
use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Upkeep,
    book::{Asked, Kept},
    boot::{self, Boot, BootFile},
    decide::{self, Ended, Sight, take_end},
    idle::{Idle, Moment, does_nothing},
};
use crate::{inside::Inside, operations::Operations};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// The same while nothing is kept of any VM: whoever sets something wakes the task.
const REST: Duration = Duration::from_secs(60);
/// Between two measurements of what a VM does.
const MEASURE: Duration = Duration::from_secs(60);
/// How long one may take.
const MEASURE_DEADLINE: Duration = Duration::from_secs(15);
/// Measurements at the same time.
const MEASURES_AT_ONCE: usize = 4;
/// How long the drivers' first word is waited for.
const FIRST_WORD: Duration = Duration::from_secs(60);
/// After how long what is kept of a VM goes that no driver knows any more, although all of them answer. One that comes
/// back is known by when it was made.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// The same where the driver does not say when it was made: whatever bears its name later is taken for another.
/// Multipass never leaves out of its list what it has.
const FORGET_UNDATED_AFTER: Duration = Duration::from_secs(60);

/// Goes by the settings of VMs until `stop`.
pub(crate) async fn run(
    upkeep: Arc<Upkeep>,
    operations: Arc<Operations>,
    inside: Arc<Inside>,
    state_dir: &std::path::Path,
    stop: CancellationToken,
) {
    let mut task = Task {
        upkeep,
        operations,
        inside,
        boot_file: BootFile::of(state_dir),
        boot: None,
        idle: Idle::default(),
        measured: None,
        gone: BTreeMap::new(),
        disk_is_full: false,
    };
    let work = async {
        task.upkeep.inventory.wait_for_first_word(FIRST_WORD).await;
        loop {
            task.look_at_all().await;
            tokio::select! {
                () = task.upkeep.wake.notified() => {}
                () = task.upkeep.clock.tick(task.pause()) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

struct Task {
    upkeep: Arc<Upkeep>,
    operations: Arc<Operations>,
    inside: Arc<Inside>,
    boot_file: BootFile,
    /// What is made of the machine's last boot; `None` until that is known.
    boot: Option<Boot>,
    idle: Idle,
    /// When VMs were measured last, since the machine's boot.
    measured: Option<Duration>,
    /// Since when VMs are not there of which something is kept.
    gone: BTreeMap<VmName, Duration>,
    /// Whether the disk did not take something, and that was said.
    disk_is_full: bool,
}

impl Task {
    /// How long until the next look, if nothing changes before.
    fn pause(&self) -> Duration {
        let nothing_kept = self.upkeep.book.is_empty() && self.upkeep.trash_kept.is_none();
        if nothing_kept && self.boot.is_some() {
            REST
        } else {
            PAUSE
        }
    }

    async fn look_at_all(&mut self) {
        self.measure().await;
        self.start_after_boot().await;
        let mut names: BTreeSet<VmName> = self.upkeep.book.all().into_keys().collect();
        if self.upkeep.trash_kept.is_some() {
            names.extend(self.upkeep.picture.names_in(VmState::Deleted));
        }
        // Nothing is said of those that nobody looks at any more.
        self.upkeep.inventory.keep_notices_of(&names);
        for name in names {
            match self.upkeep.picture.vm(&name) {
                Some(vm) => {
                    self.gone.remove(&name);
                    self.look_at(&vm).await;
                }
                None => self.miss(&name).await,
            }
        }
    }

    async fn look_at(&mut self, vm: &Vm) {
        let name = &vm.name;
        if vm.state != VmState::Running {
            // Whoever starts it again begins anew.
            self.idle.take(name, None);
        }
        let sight = self.sight(vm);
        let operations = &self.operations;
        // One that we are at may be made once more after a crash, and is the same all the same.
        let made_at = vm.created_at.filter(|_| !operations.has_work_for(name));
        let looked = self.upkeep.book.change(name, |kept| {
            if kept.is_of_another(made_at) {
                info!(vm.name = %name, "VM `{name}` is another than before: the settings of that one are forgotten");
                *kept = Kept::default();
            }
            if let Some(asked) = kept.asked {
                match operations.get(asked.id) {
                    Some(operation) => {
                        if let Some(ended) = ended(&operation) {
                            take_end(kept, asked.reason, ended, sight.now);
                        }
                    }
                    // It was not written down before a crash, or is long forgotten: what is seen decides.
                    None => kept.asked = None,
                }
            }
            let verdict = decide::decide(kept, &sight);
            *kept = verdict.kept;
            let due = verdict.due.map(|(reason, request)| {
                let id = OperationId::new();
                kept.asked = Some(Asked { reason, id });
                (id, reason, request)
            });
            *kept = std::mem::take(kept).of(made_at);
            (due, verdict.notices)
        });
        let (due, notices) = match looked.await {
            Ok(looked) => looked,
            Err(error) => return self.disk_did_not_take(name, &error),
        };
        self.disk_is_full = false;
        self.upkeep.inventory.show_notices(name, notices);
        if let Some((id, reason, request)) = due {
            self.start(name, id, reason, request).await;
        }
    }

    fn sight(&self, vm: &Vm) -> Sight {
        let clock = &self.upkeep.clock;
        Sight {
            state: vm.state,
            crashed: self.upkeep.inventory.has_crashed(&vm.name),
            busy: !vm.operations.is_empty(),
            started_at: vm.started_at,
            idle: self.idle.of(&vm.name, clock.since_boot()),
            trash_kept: self.upkeep.trash_kept,
            now: clock.now(),
        }
    }

    /// Starts an operation that was written down as asked for.
    async fn start(
        &self,
        vm: &VmName,
        id: OperationId,
        reason: AgentReason,
        request: OperationRequest,
    ) {
        info!(vm.name = %vm, operation.id = %id, "{} VM `{vm}` ({})", request.kind(), reason.requested_by());
        let start = StartOperation {
            subject: Subject::Vm(vm.clone()),
            request,
            requested_by: Some(reason.requested_by().to_owned()),
        };
        if let Err(refused) = self.operations.start(id, start).await {
            warn!(vm.name = %vm, "{}", refused.detail);
            let now = self.upkeep.clock.now();
            let noted = self.upkeep.book.change(vm, |kept| {
                take_end(kept, reason, Ended::Badly(refused.detail.clone()), now);
            });
            if let Err(error) = noted.await {
                warn!(vm.name = %vm, "cannot write down what became of VM `{vm}`: {error}");
            }
        }
    }

    fn disk_did_not_take(&mut self, vm: &VmName, error: &std::io::Error) {
        if !std::mem::replace(&mut self.disk_is_full, true) {
            warn!(vm.name = %vm, "cannot go by the settings of VM `{vm}`, as nothing can be written down: {error}");
        }
    }

    /// A VM is not there of which something is kept.
    async fn miss(&mut self, name: &VmName) {
        let now = self.upkeep.clock.since_boot();
        if !self.upkeep.inventory.all_answer() {
            self.gone.remove(name);
            return;
        }
        let since = *self.gone.entry(name.clone()).or_insert(now);
        let patience = match self.upkeep.book.get(name).made_at {
            Some(_) => FORGET_AFTER,
            None => FORGET_UNDATED_AFTER,
        };
        if now.saturating_sub(since) >= patience {
            info!(vm.name = %name, "VM `{name}` is gone for long: its settings are forgotten");
            self.upkeep.forget(name).await;
            self.gone.remove(name);
        }
    }

    /// Measures, once a minute, the VMs that are to be stopped when they do nothing.
    async fn measure(&mut self) {
        let now = self.upkeep.clock.since_boot();
        if self
            .measured
            .is_some_and(|last| now.saturating_sub(last) < MEASURE)
        {
            return;
        }
        self.measured = Some(now);
        let wanted: Vec<_> = self
            .upkeep
            .book
            .all()
            .into_iter()
            .filter_map(|(vm, kept)| Some((vm, kept.settings.idle_stop?)))
            .collect();
        for some in wanted.chunks(MEASURES_AT_ONCE) {
            let looks: Vec<_> = some
                .iter()
                .map(|(vm, wanted)| self.measure_one(vm, *wanted))
                .collect();
            let measured = join_all(looks).await;
            for ((vm, _), idle) in some.iter().zip(measured) {
                let moment = Moment {
                    since_boot: now,
                    wall: self.upkeep.clock.now(),
                };
                self.idle.take(vm, idle.then_some(moment));
            }
        }
        self.idle
            .keep_only(|vm| wanted.iter().any(|(name, _)| name == vm));
    }

    /// Whether a VM does nothing now.
    async fn measure_one(&self, vm: &VmName, wanted: IdleStop) -> bool {
        let Upkeep {
            picture, inventory, ..
        } = &*self.upkeep;
        let runs = |vm: &Vm| vm.state == VmState::Running && vm.operations.is_empty();
        let Some(seen) = picture.vm(vm).filter(runs) else {
            return false;
        };
        let usage = inventory.measure(seen.driver, vm);
        let usage = timeout(MEASURE_DEADLINE, usage).await.ok().flatten();
        // Whoever came meanwhile counts.
        let somebody = self.inside.is_visited(vm) || picture.has_terminal(vm);
        !somebody && does_nothing(usage.as_ref(), seen.cpus, wanted)
    }

    /// Starts the VMs whose turn has come after the machine's boot.
    async fn start_after_boot(&mut self) {
        if self.boot.is_none() {
            self.boot = self.begin_boot();
        }
        let Some(mut boot) = self.boot.take() else {
            return;
        };
        let before = boot.pending.len();
        let since_boot = self.upkeep.clock.since_boot();
        let mut waiting = BTreeMap::new();
        let mut coming = BTreeSet::new();
        let pending: Vec<_> = boot
            .pending
            .iter()
            .map(|(vm, id)| (vm.clone(), *id))
            .collect();
        for (name, id) in pending {
            let autostart = self.upkeep.book.get(&name).settings.autostart;
            let (Some(autostart), Some(stand)) = (autostart, self.stand(&name, id, since_boot))
            else {
                boot.pending.remove(&name);
                continue;
            };
            match stand {
                Stand::Off => {
                    waiting.insert(name, autostart);
                }
                Stand::Coming => {
                    coming.insert(autostart.order);
                }
                Stand::NotSeen => {}
                Stand::Failed(detail) => {
                    boot.pending.remove(&name);
                    self.note_failed_start(&name, detail).await;
                }
            }
        }
        for name in boot::next(&waiting, &coming, since_boot) {
            if let Some(id) = boot.pending.get(&name).copied() {
                let request = OperationRequest::Start;
                self.start(&name, id, AgentReason::Autostart, request).await;
                // One that was refused is no operation, and not tried for ever.
                if self.operations.get(id).is_none() {
                    boot.pending.remove(&name);
                }
            }
        }
        if boot.pending.len() != before
            && let Err(error) = self.boot_file.save(&boot)
        {
            warn!("cannot write down which VMs were started after the boot: {error}");
        }
        self.boot = Some(boot);
    }

    fn begin_boot(&mut self) -> Option<Boot> {
        let id = self.upkeep.clock.boot_id()?;
        let kept = self.upkeep.book.all();
        let wanted = kept
            .into_iter()
            .filter(|(_, kept)| kept.settings.autostart.is_some())
            .map(|(vm, _)| vm);
        match self.boot_file.begin(&id, wanted) {
            Ok(boot) => Some(boot),
            Err(error) => {
                if !std::mem::replace(&mut self.disk_is_full, true) {
                    warn!(
                        "cannot start VMs after the boot, as that cannot be written down: {error}"
                    );
                }
                None
            }
        }
    }

    /// How a VM stands that is to be started after the boot by operation `id`; `None` when nothing is left to do.
    fn stand(&self, name: &VmName, id: OperationId, since_boot: Duration) -> Option<Stand> {
        if let Some(operation) = self.operations.get(id) {
            return match ended(&operation) {
                None => Some(Stand::Coming),
                Some(Ended::Badly(detail)) => Some(Stand::Failed(detail)),
                Some(Ended::Well | Ended::Cancelled) => None,
            };
        }
        match self.upkeep.picture.vm(name).map(|vm| vm.state) {
            Some(VmState::Stopped | VmState::Suspended) => Some(Stand::Off),
            Some(VmState::Running | VmState::Deleted | VmState::Error | VmState::Creating) => None,
            // Its driver, or somebody else, is at it.
            Some(_) if since_boot < boot::PATIENCE => Some(Stand::Coming),
            None if since_boot < boot::PATIENCE => Some(Stand::NotSeen),
            _ => None,
        }
    }

    async fn note_failed_start(&self, vm: &VmName, detail: String) {
        let now = self.upkeep.clock.now();
        let noted = self.upkeep.book.change(vm, |kept| {
            take_end(kept, AgentReason::Autostart, Ended::Badly(detail), now);
        });
        if let Err(error) = noted.await {
            warn!(vm.name = %vm, "cannot write down that VM `{vm}` did not start: {error}");
        }
    }
}

/// How a VM stands that is to be started after the boot.
enum Stand {
    /// It can be started.
    Off,
    /// It is on its way.
    Coming,
    /// Its driver does not tell of it yet.
    NotSeen,
    /// It did not start.
    Failed(String),
}

fn ended(operation: &Operation) -> Option<Ended> {
    Some(match operation.state {
        OperationState::Queued | OperationState::Running => return None,
        OperationState::Succeeded => Ended::Well,
        OperationState::Cancelled => Ended::Cancelled,
        OperationState::Failed => Ended::Badly(operation.error.as_ref().map_or_else(
            || "no reason known".to_owned(),
            |error| error.detail.clone(),
        )),
    })
}
