//! What is remembered of each VM between looks: the list tells only names and states.
//!
//! Addresses and usage live as long as the VM runs, sizes until it may have been changed while it was off, and
//! snapshots likewise, and everything until the VM vanishes. Also here: which launches, clones and reboots are ours,
//! because they change what a state means. No I/O; the lock is held for a few lookups only.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::{
    name::VmName,
    size::ByteSize,
    vm::{Mount, Snapshot, VmSpec, VmState, VmUsage},
};
use tokio::time::Instant;

use super::{
    call::NewSize,
    output::{self, Details, Listed, Shutdown},
};
use crate::driver::ObservedVm;

/// The memory.
#[derive(Default)]
pub(super) struct Knowledge(Mutex<Held>);

#[derive(Default)]
struct Held {
    vms: HashMap<VmName, Known>,
    /// Launches that are under way here.
    launching: HashSet<VmName>,
    /// VMs that are being made of others here.
    cloning: HashSet<VmName>,
    /// Launches and clones whose client is gone before its end, and since when: the daemon may still make the VM.
    cut_off: HashMap<VmName, Instant>,
    /// Starts and restarts that are under way here: no log-in to these.
    booting: HashSet<VmName>,
    /// This Multipass is too old to know of snapshots.
    without_snapshots: bool,
}

#[derive(Default)]
struct Known {
    state: Option<VmState>,
    image: Option<String>,
    guest: Option<String>,
    ipv4: Vec<String>,
    usage: Option<VmUsage>,
    /// As `info` last told.
    mounts: Vec<Mount>,
    sizes: Sizes,
    /// Whether the sizes were read since the VM last came up.
    sizes_are_fresh: bool,
    /// `None` until they were read once.
    snapshots: Option<Vec<Snapshot>>,
    /// Whether the snapshots were read since the VM last changed its state, and their number is still the same.
    snapshots_are_fresh: bool,
}

/// Sizes as set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Number of virtual CPUs.
    pub(super) cpus: Option<u32>,
    /// Memory.
    pub(super) memory: Option<ByteSize>,
    /// Disk.
    pub(super) disk: Option<ByteSize>,
}

/// What may be asked about a VM now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToAsk {
    /// It may be logged in to.
    pub(super) info: bool,
    /// Its sizes are not known for sure.
    pub(super) sizes: bool,
    /// Its snapshots may have changed.
    pub(super) snapshots: bool,
}

/// Marks a VM as launching or booting until dropped.
pub(super) struct Mark<'a> {
    knowledge: &'a Knowledge,
    vm: VmName,
    work: Work,
    finished: bool,
}

/// Work of ours that changes what a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A launch.
    Launch,
    /// A clone: this VM is the copy.
    Clone,
    /// A start or a restart.
    Boot,
}

impl Knowledge {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a list, forgets VMs that are gone, and gives what is known of the others.
    pub(super) fn observe(&self, list: &[Listed]) -> Vec<ObservedVm> {
        let held = &mut *self.held();
        let names: HashSet<&VmName> = list.iter().map(|vm| &vm.name).collect();
        let (launching, cloning) = (&held.launching, &held.cloning);
        held.vms.retain(|name, _| {
            names.contains(name) || launching.contains(name) || cloning.contains(name)
        });
        list.iter().map(|vm| held.take_in(vm)).collect()
    }

    /// Takes in one VM of a list and gives what is known of it.
    pub(super) fn take_in(&self, vm: &Listed) -> ObservedVm {
        self.held().take_in(vm)
    }

    /// What may be asked about a VM that was just listed.
    pub(super) fn to_ask(&self, vm: &Listed) -> ToAsk {
        let held = self.held();
        let known = held.vms.get(&vm.name);
        let busy = held.booting.contains(&vm.name)
            || held.launching.contains(&vm.name)
            || held.cloning.contains(&vm.name);
        ToAsk {
            info: vm.state == VmState::Running && !busy,
            sizes: !known.is_some_and(|known| known.sizes_are_fresh),
            snapshots: !held.without_snapshots
                && !busy
                && match vm.state {
                    VmState::Running => !known.is_some_and(|known| known.snapshots_are_fresh),
                    // Others may take one at any time, and nothing else would tell.
                    VmState::Stopped | VmState::Suspended => true,
                    _ => false,
                },
        }
    }

    /// Says whether this Multipass knows of snapshots at all.
    pub(super) fn has_snapshots(&self, it_has: bool) {
        self.held().without_snapshots = !it_has;
    }

    /// Keeps snapshots as read.
    pub(super) fn learn_snapshots(&self, vm: &VmName, snapshots: Vec<Snapshot>) {
        let mut held = self.held();
        let known = held.vms.entry(vm.clone()).or_default();
        known.snapshots = Some(snapshots);
        known.snapshots_are_fresh = true;
    }

    /// Whether a VM's snapshots were ever read.
    pub(super) fn knows_snapshots(&self, vm: &VmName) -> bool {
        let held = self.held();
        let known = held.vms.get(vm);
        known.is_some_and(|known| known.snapshots.is_some())
    }

    /// Keeps what `info` told.
    pub(super) fn learn(&self, vm: &VmName, details: Details) {
        let mut held = self.held();
        let known = held.vms.entry(vm.clone()).or_default();
        known.ipv4 = details.ipv4;
        known.usage = details.usage;
        known.mounts = details.mounts;
        known.guest = details.release;
        let count = known.snapshots.as_ref().map(Vec::len);
        if details.snapshots.is_some() && details.snapshots != count {
            known.snapshots_are_fresh = false;
        }
        if known.sizes.cpus.is_none() {
            known.sizes.cpus = details.cpus;
        }
    }

    /// The mounts last known.
    pub(super) fn mounts(&self, vm: &VmName) -> Vec<Mount> {
        let held = self.held();
        held.vms
            .get(vm)
            .map(|known| known.mounts.clone())
            .unwrap_or_default()
    }

    /// The sizes last known.
    pub(super) fn sizes(&self, vm: &VmName) -> Sizes {
        let held = self.held();
        held.vms
            .get(vm)
            .map(|known| known.sizes)
            .unwrap_or_default()
    }

    /// Keeps sizes as read.
    pub(super) fn learn_sizes(&self, vm: &VmName, sizes: Sizes) {
        let mut held = self.held();
        let known = held.vms.entry(vm.clone()).or_default();
        known.sizes_are_fresh =
            sizes.cpus.is_some() && sizes.memory.is_some() && sizes.disk.is_some();
        known.sizes = sizes;
    }

    /// A VM's sizes may have changed: the next look reads them.
    pub(super) fn doubt_sizes(&self, vm: &VmName) {
        if let Some(known) = self.held().vms.get_mut(vm) {
            known.sizes_are_fresh = false;
        }
    }

    /// Keeps one exact size that a VM was given.
    pub(super) fn learn_size(&self, vm: &VmName, size: NewSize) {
        let mut held = self.held();
        let sizes = &mut held.vms.entry(vm.clone()).or_default().sizes;
        match size {
            NewSize::Cpus(cpus) => sizes.cpus = Some(cpus),
            NewSize::Memory(memory) => sizes.memory = Some(memory),
            NewSize::Disk(disk) => sizes.disk = Some(disk),
        }
    }

    /// Keeps what a VM was asked to be: exact sizes, which Multipass only shows rounded.
    pub(super) fn learn_spec(&self, vm: &VmName, spec: &VmSpec) {
        let known = Known {
            image: Some(spec.image.clone()),
            sizes: Sizes {
                cpus: Some(spec.cpus),
                memory: Some(spec.memory),
                disk: Some(spec.disk),
            },
            ..Known::default()
        };
        self.held().vms.insert(vm.clone(), known);
    }

    /// Marks work of ours on `vm`.
    pub(super) fn mark(&self, vm: &VmName, work: Work) -> Mark<'_> {
        let mut held = self.held();
        match work {
            Work::Launch => {
                held.cut_off.remove(vm);
                held.launching.insert(vm.clone());
            }
            Work::Clone => {
                held.cut_off.remove(vm);
                held.cloning.insert(vm.clone());
            }
            Work::Boot => {
                held.booting.insert(vm.clone());
            }
        }
        Mark {
            knowledge: self,
            vm: vm.clone(),
            work,
            finished: false,
        }
    }

    /// How long ago a launch or clone that makes `vm` was cut off whose VM may still appear.
    pub(super) fn cut_off(&self, vm: &VmName) -> Option<Duration> {
        self.held().cut_off.get(vm).map(Instant::elapsed)
    }

    /// The VM of a launch or clone that was cut off is dealt with.
    pub(super) fn settle_cut_off(&self, vm: &VmName) {
        self.held().cut_off.remove(vm);
    }
}

impl Held {
    fn take_in(&mut self, vm: &Listed) -> ObservedVm {
        let launching = self.launching.contains(&vm.name);
        let cloning = self.cloning.contains(&vm.name);
        let booting = self.booting.contains(&vm.name);
        let known = self.vms.entry(vm.name.clone()).or_default();
        if known.state != Some(vm.state) {
            if vm.state != VmState::Running {
                known.ipv4.clear();
                known.usage = None;
                known.guest = None;
            }
            // While it was off, its sizes may have been changed. A first look is no change.
            if known.state.is_some() {
                known.sizes_are_fresh = false;
            }
            known.snapshots_are_fresh = false;
            known.state = Some(vm.state);
        }
        let (state, message) = match vm.state {
            _ if cloning => (VmState::Creating, None),
            // What Multipass calls unknown is most of every launch and of some starts.
            VmState::Starting | VmState::Unknown if launching => (VmState::Creating, None),
            VmState::Unknown if booting => (VmState::Starting, None),
            VmState::Unknown => (
                VmState::Unknown,
                Some(
                    "Multipass does not know its state: normal while it is being launched; if it lasts, \
                     stop it with force and start it"
                        .to_owned(),
                ),
            ),
            VmState::Running if vm.shutdown == Shutdown::Delayed => (
                VmState::Running,
                Some("it will be stopped soon, as somebody asked; starting it calls that off".to_owned()),
            ),
            state => (state, None),
        };
        let mut observed = ObservedVm::new(vm.name.clone(), state);
        observed.message = message;
        observed.ipv4.clone_from(&known.ipv4);
        observed.image = vm
            .release
            .as_deref()
            .and_then(output::image_name)
            .or_else(|| known.image.clone());
        observed.release = vm.release.clone().or_else(|| known.guest.clone());
        observed.cpus = known.sizes.cpus;
        observed.memory = known.sizes.memory;
        observed.disk = known.sizes.disk;
        observed.usage.clone_from(&known.usage);
        observed.location = folder(&vm.name);
        observed.snapshots = known.snapshots.clone().unwrap_or_default();
        observed.mounts.clone_from(&known.mounts);
        observed
    }
}

/// Where Multipass keeps an instance's disk; only its daemon may look there.
fn folder(vm: &VmName) -> Option<String> {
    let vaults = if cfg!(target_os = "linux") {
        "/var/snap/multipass/common/data/multipassd/vault/instances"
    } else if cfg!(target_os = "macos") {
        "/var/root/Library/Application Support/multipassd/qemu/vault/instances"
    } else {
        return None;
    };
    Some(format!("{vaults}/{vm}"))
}

impl Mark<'_> {
    /// The work came to an end that is known; without this, a launch or clone counts as cut off.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut held = self.knowledge.held();
        let makes = match self.work {
            Work::Launch => held.launching.remove(&self.vm),
            Work::Clone => held.cloning.remove(&self.vm),
            Work::Boot => {
                held.booting.remove(&self.vm);
                false
            }
        };
        if makes && !self.finished {
            held.cut_off.insert(self.vm.clone(), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
