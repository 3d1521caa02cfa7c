//! What is remembered of each VM between looks: the list tells only names and states.
//!
//! Addresses and usage live as long as the VM runs, sizes until it may have been changed while it was off, and
//! everything until the VM vanishes. Also here: which launches and reboots are ours, because they change what a
//! state means. No I/O; the lock is held for a few lookups only.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::{
    name::VmName,
    size::ByteSize,
    vm::{VmSpec, VmState, VmUsage},
};
use tokio::time::Instant;

use super::output::{self, Details, Listed, Shutdown};
use crate::driver::ObservedVm;

/// The memory.
#[derive(Default)]
pub(super) struct Knowledge(Mutex<Held>);

#[derive(Default)]
struct Held {
    vms: HashMap<VmName, Known>,
    /// Launches that are under way here.
    launching: HashSet<VmName>,
    /// Launches whose client is gone before its end, and since when: the daemon may still make the VM.
    cut_off: HashMap<VmName, Instant>,
    /// Starts and restarts that are under way here: no log-in to these.
    booting: HashSet<VmName>,
}

#[derive(Default)]
struct Known {
    state: Option<VmState>,
    image: Option<String>,
    guest: Option<String>,
    ipv4: Vec<String>,
    usage: Option<VmUsage>,
    sizes: Sizes,
    /// Whether the sizes were read since the VM last came up.
    sizes_are_fresh: bool,
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
    /// Its sizes are not known for sure; these are the last ones.
    pub(super) sizes: Option<Sizes>,
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
        let launching = &held.launching;
        held.vms
            .retain(|name, _| names.contains(name) || launching.contains(name));
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
        let busy = held.booting.contains(&vm.name) || held.launching.contains(&vm.name);
        ToAsk {
            info: vm.state == VmState::Running && !busy,
            sizes: match known {
                Some(known) if known.sizes_are_fresh => None,
                Some(known) => Some(known.sizes),
                None => Some(Sizes::default()),
            },
        }
    }

    /// Keeps what `info` told.
    pub(super) fn learn(&self, vm: &VmName, details: Details) {
        let mut held = self.held();
        let known = held.vms.entry(vm.clone()).or_default();
        known.ipv4 = details.ipv4;
        known.usage = details.usage;
        known.guest = details.release;
        if known.sizes.cpus.is_none() {
            known.sizes.cpus = details.cpus;
        }
    }

    /// Keeps sizes as read.
    pub(super) fn learn_sizes(&self, vm: &VmName, sizes: Sizes) {
        let mut held = self.held();
        let known = held.vms.entry(vm.clone()).or_default();
        known.sizes_are_fresh =
            sizes.cpus.is_some() && sizes.memory.is_some() && sizes.disk.is_some();
        known.sizes = sizes;
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

    /// How long ago a launch of `vm` was cut off whose VM may still appear.
    pub(super) fn cut_off(&self, vm: &VmName) -> Option<Duration> {
        self.held().cut_off.get(vm).map(Instant::elapsed)
    }

    /// The VM of a launch that was cut off is dealt with.
    pub(super) fn settle_cut_off(&self, vm: &VmName) {
        self.held().cut_off.remove(vm);
    }
}

impl Held {
    fn take_in(&mut self, vm: &Listed) -> ObservedVm {
        let launching = self.launching.contains(&vm.name);
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
            known.state = Some(vm.state);
        }
        let (state, message) = match vm.state {
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
    /// The work came to an end that is known; without this, a launch counts as cut off.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut held = self.knowledge.held();
        match self.work {
            Work::Launch => {
                held.launching.remove(&self.vm);
                if !self.finished {
                    held.cut_off.insert(self.vm.clone(), Instant::now());
                }
            }
            Work::Boot => {
                held.booting.remove(&self.vm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::Timestamp;

    use super::*;

    fn web() -> VmName {
        VmName::parse("web").unwrap()
    }

    fn listed(state: VmState) -> Listed {
        Listed {
            name: web(),
            state,
            shutdown: Shutdown::None,
            release: Some("Ubuntu 24.04 LTS".to_owned()),
        }
    }

    fn details() -> Details {
        Details {
            ipv4: vec!["10.0.0.2".to_owned()],
            image_release: Some("24.04 LTS".to_owned()),
            release: Some("Ubuntu 24.04.1 LTS".to_owned()),
            cpus: Some(1),
            usage: Some(VmUsage {
                measured_at: Timestamp::UNIX_EPOCH,
                ..VmUsage::default()
            }),
        }
    }

    #[test]
    fn addresses_and_usage_last_as_long_as_the_vm_runs() {
        let knowledge = Knowledge::default();
        knowledge.take_in(&listed(VmState::Running));
        knowledge.learn(&web(), details());
        assert_eq!(
            knowledge.take_in(&listed(VmState::Running)).ipv4,
            ["10.0.0.2"]
        );
        let stopped = knowledge.take_in(&listed(VmState::Stopped));
        assert_eq!((stopped.ipv4.len(), stopped.usage), (0, None));
        let again = knowledge.take_in(&listed(VmState::Running));
        assert_eq!((again.ipv4.len(), again.usage), (0, None));
    }

    #[test]
    fn sizes_are_asked_once_and_again_after_the_vm_was_off() {
        let knowledge = Knowledge::default();
        knowledge.learn_spec(&web(), &VmSpec::default());
        knowledge.take_in(&listed(VmState::Running));
        let last = knowledge.to_ask(&listed(VmState::Running)).sizes.unwrap();
        assert_eq!(last.memory, Some(ByteSize::gib(1)));
        knowledge.learn_sizes(&web(), last);
        assert_eq!(knowledge.to_ask(&listed(VmState::Running)).sizes, None);
        knowledge.take_in(&listed(VmState::Stopped));
        assert!(knowledge.to_ask(&listed(VmState::Stopped)).sizes.is_some());
    }

    #[test]
    fn nobody_logs_in_to_a_vm_that_is_not_up_or_that_we_reboot() {
        let knowledge = Knowledge::default();
        for state in VmState::ALL {
            assert_eq!(
                knowledge.to_ask(&listed(state)).info,
                state == VmState::Running,
                "{state}"
            );
        }
        let mark = knowledge.mark(&web(), Work::Boot);
        assert!(!knowledge.to_ask(&listed(VmState::Running)).info);
        mark.finish();
        assert!(knowledge.to_ask(&listed(VmState::Running)).info);
    }

    #[test]
    fn unknown_is_creating_during_our_launch_starting_during_our_start_and_explained_otherwise() {
        let knowledge = Knowledge::default();
        let launch = knowledge.mark(&web(), Work::Launch);
        let seen = knowledge.take_in(&listed(VmState::Unknown));
        assert_eq!((seen.state, seen.message), (VmState::Creating, None));
        launch.finish();
        let start = knowledge.mark(&web(), Work::Boot);
        assert_eq!(
            knowledge.take_in(&listed(VmState::Unknown)).state,
            VmState::Starting
        );
        drop(start);
        let seen = knowledge.take_in(&listed(VmState::Unknown));
        assert_eq!(seen.state, VmState::Unknown);
        assert!(seen.message.is_some());
    }

    #[test]
    fn a_launch_dropped_before_its_end_is_remembered_until_settled() {
        let knowledge = Knowledge::default();
        drop(knowledge.mark(&web(), Work::Launch));
        assert!(knowledge.cut_off(&web()).is_some());
        knowledge.settle_cut_off(&web());
        assert_eq!(knowledge.cut_off(&web()), None);
        knowledge.mark(&web(), Work::Launch).finish();
        assert_eq!(knowledge.cut_off(&web()), None);
    }

    #[test]
    fn a_vm_that_vanished_is_forgotten_unless_we_are_making_it() {
        let knowledge = Knowledge::default();
        knowledge.learn_spec(&web(), &VmSpec::default());
        let launch = knowledge.mark(&web(), Work::Launch);
        assert!(knowledge.observe(&[]).is_empty());
        assert_eq!(knowledge.take_in(&listed(VmState::Starting)).cpus, Some(1));
        launch.finish();
        assert!(knowledge.observe(&[]).is_empty());
        assert_eq!(knowledge.take_in(&listed(VmState::Running)).cpus, None);
    }
}
