//! From what drivers saw and our operations do to the list that is shown. Pure.

use std::collections::{BTreeMap, BTreeSet};

use batwa_api::{
    Timestamp,
    agent::DriverKind,
    id::OperationId,
    name::VmName,
    operation::OperationKind,
    vm::{Forward, NetworkCard, Notice, Vm, VmNetwork, VmSettings, VmState},
};
use tracing::warn;

use super::{Busy, Running, seen::Seen};

/// One driver's VMs.
pub(super) struct Source<'a> {
    pub(super) kind: DriverKind,
    pub(super) vms: &'a BTreeMap<VmName, Seen>,
}

/// What is said of a VM beside what its driver sees.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Shown {
    pub(super) settings: VmSettings,
    pub(super) notices: Vec<Notice>,
    pub(super) forwards: Vec<Forward>,
    /// The network cards that it was made with.
    pub(super) cards: Vec<NetworkCard>,
}

/// What is ours of one VM.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ours<'a> {
    pub(super) busy: Option<&'a Busy>,
    pub(super) shown: Option<&'a Shown>,
}

impl Ours<'_> {
    fn settings(&self) -> VmSettings {
        self.shown
            .map_or(VmSettings::default(), |shown| shown.settings)
    }

    /// What a VM was made with whose driver does not tell of its network cards.
    fn networks(&self) -> Vec<VmNetwork> {
        let cards = self.shown.map_or(&[][..], |shown| &shown.cards);
        let shown = |card: &NetworkCard| VmNetwork {
            card: card.clone(),
            message: None,
        };
        cards.iter().map(shown).collect()
    }

    fn forwards(&self) -> Vec<Forward> {
        self.shown
            .map_or_else(Vec::new, |shown| shown.forwards.clone())
    }

    fn notices(&self) -> Vec<Notice> {
        self.shown
            .map_or_else(Vec::new, |shown| shown.notices.clone())
    }
}

/// The list that is shown; `before` is the one until now.
pub(super) fn list(
    sources: &[Source<'_>],
    busy: &BTreeMap<VmName, Busy>,
    shown: &BTreeMap<VmName, Shown>,
    before: &BTreeMap<VmName, Vm>,
) -> BTreeMap<VmName, Vm> {
    let seen = sources.iter().flat_map(|source| source.vms.keys());
    let names: BTreeSet<&VmName> = seen.chain(busy.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let ours = Ours {
                busy: busy.get(name),
                shown: shown.get(name),
            };
            let vm = row(name, sources, ours, before.get(name))?;
            Some((name.clone(), vm))
        })
        .collect()
}

/// One VM as it is shown: of two with one name the first driver's; one that is being made is there from the start.
pub(super) fn row(
    name: &VmName,
    sources: &[Source<'_>],
    ours: Ours<'_>,
    before: Option<&Vm>,
) -> Option<Vm> {
    let mut holders = sources
        .iter()
        .filter_map(|source| Some((source, source.vms.get(name)?)));
    let mut vm = match holders.next() {
        Some((source, seen)) => {
            if before.is_none()
                && let Some((second, _)) = holders.next()
            {
                warn!(
                    vm.name = %name,
                    "drivers `{}` and `{}` both have a VM `{name}`: the second is not shown",
                    source.kind, second.kind
                );
            }
            shown(seen, source, ours)
        }
        None => {
            let busy = ours.busy?;
            let running = busy.running.as_ref()?;
            if running.kind != OperationKind::Create {
                return None;
            }
            to_be(name, running, ours, Timestamp::now())
        }
    };
    if let Some(before) = before
        && before.state == vm.state
    {
        vm.state_since = before.state_since;
    }
    Some(vm)
}

fn shown(seen: &Seen, source: &Source<'_>, ours: Ours<'_>) -> Vm {
    let (observed, at) = (&seen.vm, seen.at);
    let running = ours.busy.and_then(|busy| busy.running.as_ref());
    let state = running
        .filter(|running| running.shutdown_at.is_none())
        .map_or(observed.state, |running| {
            shown_state(observed.state, running.kind)
        });
    Vm {
        name: observed.name.clone(),
        state,
        state_since: at,
        message: observed.message.clone(),
        driver: source.kind,
        readiness: observed.readiness.filter(|_| state == VmState::Running),
        ipv4: observed.ipv4.clone(),
        image: observed.image.clone(),
        release: observed.release.clone(),
        cpus: observed.cpus,
        memory: observed.memory,
        disk: observed.disk,
        usage: observed.usage.clone(),
        acceleration: observed.acceleration.clone(),
        created_at: observed.created_at,
        started_at: observed.started_at,
        shutdown_at: observed
            .shutdown_at
            .or_else(|| running.and_then(|running| running.shutdown_at)),
        location: observed.location.clone(),
        snapshots: observed.snapshots.clone(),
        mounts: observed.mounts.clone(),
        networks: match observed.networks.is_empty() {
            true => ours.networks(),
            false => observed.networks.clone(),
        },
        forwards: ours.forwards(),
        observed_at: at,
        settings: ours.settings(),
        notices: ours.notices(),
        operations: operations(ours),
    }
}

/// A VM of which the driver knows nothing yet: what was asked for is what is known.
fn to_be(name: &VmName, running: &Running, ours: Ours<'_>, now: Timestamp) -> Vm {
    let spec = running.spec.as_ref();
    Vm {
        name: name.clone(),
        state: VmState::Creating,
        state_since: now,
        message: None,
        driver: running.driver,
        readiness: None,
        ipv4: Vec::new(),
        image: spec.map(|spec| spec.image.clone()),
        release: None,
        cpus: spec.map(|spec| spec.cpus),
        memory: spec.map(|spec| spec.memory),
        disk: spec.map(|spec| spec.disk),
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
        forwards: ours.forwards(),
        settings: ours.settings(),
        notices: ours.notices(),
        operations: operations(ours),
    }
}

fn operations(ours: Ours<'_>) -> Vec<OperationId> {
    ours.busy
        .map_or_else(Vec::new, |busy| busy.operations.clone())
}

/// The state shown while one of our operations runs: drivers have no word for some of what it does.
pub(super) fn shown_state(observed: VmState, running: OperationKind) -> VmState {
    use VmState::{
        Creating, Restarting, Running, Starting, Stopped, Stopping, Suspended, Suspending, Unknown,
    };
    match (running, observed) {
        (OperationKind::Create, Creating | Starting | Restarting | Stopped | Unknown) => Creating,
        (OperationKind::Start | OperationKind::Resume, Stopped | Suspended | Unknown) => Starting,
        (OperationKind::Stop, Running | Starting | Restarting | Unknown) => Stopping,
        (OperationKind::Restart, Running | Starting | Unknown) => Restarting,
        (OperationKind::Suspend, Running) => Suspending,
        (OperationKind::Delete | OperationKind::Purge, Running) => Stopping,
        (_, observed) => observed,
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::vm::VmSpec;
    use tokio::time::Instant;

    use super::*;
    use crate::driver::ObservedVm;

    fn name(text: &str) -> VmName {
        VmName::parse(text).unwrap()
    }

    fn seen(vms: &[ObservedVm], at: Timestamp) -> BTreeMap<VmName, Seen> {
        let seen = |vm: &ObservedVm| Seen {
            vm: vm.clone(),
            asked: Instant::now(),
            at,
            inspected: None,
        };
        vms.iter().map(|vm| (vm.name.clone(), seen(vm))).collect()
    }

    fn source(kind: DriverKind, vms: &BTreeMap<VmName, Seen>) -> Source<'_> {
        Source { kind, vms }
    }

    fn running(kind: OperationKind, driver: DriverKind) -> Busy {
        Busy {
            operations: vec![OperationId::new()],
            running: Some(Running {
                kind,
                driver,
                spec: (kind == OperationKind::Create).then(VmSpec::default),
                shutdown_at: None,
            }),
        }
    }

    #[test]
    fn of_two_vms_with_one_name_the_first_drivers_is_shown() {
        let now = Timestamp::now();
        let first = seen(&[ObservedVm::new(name("a"), VmState::Running)], now);
        let second = [
            ObservedVm::new(name("a"), VmState::Stopped),
            ObservedVm::new(name("b"), VmState::Stopped),
        ];
        let list = list(
            &[
                source(DriverKind::Multipass, &first),
                source(DriverKind::Qemu, &seen(&second, now)),
            ],
            &BTreeMap::new(),
            &BTreeMap::new(),
            &BTreeMap::new(),
        );
        let shown: Vec<_> = list
            .values()
            .map(|vm| (vm.name.as_str(), vm.driver, vm.state))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", DriverKind::Multipass, VmState::Running),
                ("b", DriverKind::Qemu, VmState::Stopped)
            ]
        );
    }

    #[test]
    fn a_vm_to_be_is_shown_before_the_driver_knows_it() {
        let busy = BTreeMap::from([(
            name("new"),
            running(OperationKind::Create, DriverKind::Fake),
        )]);
        let list = list(
            &[source(DriverKind::Fake, &BTreeMap::new())],
            &busy,
            &BTreeMap::new(),
            &BTreeMap::new(),
        );
        let vm = &list[&name("new")];
        assert_eq!(vm.state, VmState::Creating);
        assert_eq!(vm.cpus, Some(1));
        assert_eq!(vm.operations.len(), 1);
    }

    #[test]
    fn an_operation_on_a_vm_that_vanished_does_not_bring_it_back() {
        let busy = BTreeMap::from([(name("old"), running(OperationKind::Stop, DriverKind::Fake))]);
        let nothing = BTreeMap::new();
        assert!(
            list(
                &[source(DriverKind::Fake, &nothing)],
                &busy,
                &BTreeMap::new(),
                &BTreeMap::new()
            )
            .is_empty()
        );
    }

    #[test]
    fn the_time_of_a_state_stays_while_the_state_does() {
        let early = Timestamp::UNIX_EPOCH;
        let late = Timestamp::now();
        let vms = [ObservedVm::new(name("a"), VmState::Running)];
        let show = |at, busy: &BTreeMap<VmName, Busy>, before: &BTreeMap<VmName, Vm>| {
            let vms = seen(&vms, at);
            list(
                &[source(DriverKind::Fake, &vms)],
                busy,
                &BTreeMap::new(),
                before,
            )
        };
        let first = show(early, &BTreeMap::new(), &BTreeMap::new());
        let second = show(late, &BTreeMap::new(), &first);
        assert_eq!(second[&name("a")].state_since, early);
        assert_eq!(second[&name("a")].observed_at, late);
        let busy = BTreeMap::from([(name("a"), running(OperationKind::Stop, DriverKind::Fake))]);
        let third = show(late, &busy, &second);
        assert_eq!(third[&name("a")].state, VmState::Stopping);
        assert_eq!(third[&name("a")].state_since, late);
    }

    #[test]
    fn an_operation_never_hides_the_end_it_works_for() {
        use OperationKind as Kind;
        for (kind, goal) in [
            (Kind::Create, VmState::Running),
            (Kind::Start, VmState::Running),
            (Kind::Resume, VmState::Running),
            (Kind::Stop, VmState::Stopped),
            (Kind::Suspend, VmState::Suspended),
            (Kind::Delete, VmState::Deleted),
            (Kind::Recover, VmState::Stopped),
        ] {
            assert_eq!(shown_state(goal, kind), goal, "{kind}");
        }
        for kind in OperationKind::ALL {
            for broken in [VmState::Error, VmState::Deleted] {
                assert_eq!(shown_state(broken, kind), broken, "{kind}");
            }
        }
    }
}
