//! What one driver was seen to have, from answers that may come in another order than they were asked for. Pure.
//!
//! An answer is as old as its question: what was asked for earlier never replaces what was asked for later, be it that
//! a VM is there or that it is gone.

use std::{collections::BTreeMap, time::Duration};

use batwa_api::{Timestamp, name::VmName, vm::VmState};
use tokio::time::Instant;

use crate::driver::ObservedVm;

/// How long it is remembered that a VM is gone: longer than any question takes to be answered.
const REMEMBERED: Duration = Duration::from_secs(120);

/// A VM and when the call that saw it began.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) vm: ObservedVm,
    pub(super) asked: Instant,
    pub(super) at: Timestamp,
    /// When it was last looked at closely.
    pub(super) inspected: Option<Instant>,
}

/// The VMs of one driver.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    vms: BTreeMap<VmName, Seen>,
    /// When VMs were asked for that turned out to be gone.
    gone: BTreeMap<VmName, Instant>,
}

impl Sightings {
    /// Those that are there.
    pub(super) fn vms(&self) -> &BTreeMap<VmName, Seen> {
        &self.vms
    }

    /// Takes the answer to a closer look at one VM; `None` says that it is not there.
    pub(super) fn look(&mut self, name: &VmName, vm: Option<ObservedVm>, asked: Instant) {
        if self.vms.get(name).is_some_and(|seen| seen.asked > asked) || self.is_gone(name, asked) {
            return;
        }
        match vm {
            Some(vm) => {
                self.gone.remove(name);
                let seen = Seen {
                    vm,
                    asked,
                    at: Timestamp::now(),
                    inspected: Some(asked),
                };
                self.vms.insert(name.clone(), seen);
            }
            None => {
                self.vms.remove(name);
                self.gone.insert(name.clone(), asked);
            }
        }
    }

    /// Takes a list of all VMs. Those whose state has changed, and is worth a closer look.
    pub(super) fn list(&mut self, vms: Vec<ObservedVm>, asked: Instant) -> Vec<VmName> {
        let now = Timestamp::now();
        let mut fresh: BTreeMap<VmName, Seen> = BTreeMap::new();
        let mut wanted = Vec::new();
        for vm in vms {
            if self.is_gone(&vm.name, asked) {
                continue;
            }
            let before = self.vms.get(&vm.name);
            if let Some(before) = before
                && before.asked > asked
            {
                fresh.insert(vm.name.clone(), before.clone());
                continue;
            }
            let changed = before.is_none_or(|before| before.vm.state != vm.state);
            if changed && is_settled(vm.state) {
                wanted.push(vm.name.clone());
            }
            let inspected = before.and_then(|before| before.inspected);
            fresh.insert(
                vm.name.clone(),
                Seen {
                    vm,
                    asked,
                    at: now,
                    inspected,
                },
            );
        }
        // What was looked at after this list was asked for is younger than the list.
        for (name, seen) in &self.vms {
            if seen.asked > asked {
                fresh.entry(name.clone()).or_insert_with(|| seen.clone());
            }
        }
        self.vms = fresh;
        // A look that was asked for before may still be on its way, and would bring it back.
        self.gone.retain(|_, gone| *gone + REMEMBERED > asked);
        wanted
    }

    /// Whether somebody who asked later than this was told that it is gone.
    fn is_gone(&self, name: &VmName, asked: Instant) -> bool {
        self.gone.get(name).is_some_and(|gone| *gone > asked)
    }
}

/// Whether a closer look is of use: a VM on its way has nothing to say yet.
fn is_settled(state: VmState) -> bool {
    matches!(
        state,
        VmState::Running | VmState::Stopped | VmState::Suspended | VmState::Error
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, state: VmState) -> ObservedVm {
        ObservedVm::new(VmName::parse(name).unwrap(), state)
    }

    fn states(sightings: &Sightings) -> Vec<(String, VmState)> {
        let vms = sightings.vms().iter();
        vms.map(|(name, seen)| (name.to_string(), seen.vm.state))
            .collect()
    }

    #[test]
    fn whatever_was_asked_for_before_a_vm_was_gone_does_not_bring_it_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let name = VmName::parse("web").unwrap();
        let stopping = || vm("web", VmState::Stopping);
        let mut sightings = Sightings::default();
        sightings.list(vec![stopping()], at(0));
        sightings.look(&name, None, at(3));
        assert!(states(&sightings).is_empty());
        sightings.look(&name, Some(stopping()), at(2));
        sightings.list(vec![stopping()], at(1));
        assert!(states(&sightings).is_empty(), "{sightings:?}");
        // Nor once a list agreed that it is gone.
        sightings.list(Vec::new(), at(4));
        sightings.look(&name, Some(stopping()), at(2));
        assert!(states(&sightings).is_empty(), "{sightings:?}");
        // One that is made anew is there.
        sightings.list(vec![vm("web", VmState::Running)], at(5));
        assert_eq!(states(&sightings), [("web".to_owned(), VmState::Running)]);
        // And is not taken away by what was asked for before.
        sightings.look(&name, None, at(4));
        assert_eq!(states(&sightings), [("web".to_owned(), VmState::Running)]);
    }

    #[test]
    fn a_look_is_younger_than_a_list_that_was_asked_for_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let name = VmName::parse("web").unwrap();
        let mut sightings = Sightings::default();
        sightings.look(&name, Some(vm("web", VmState::Running)), at(2));
        let wanted = sightings.list(
            vec![vm("web", VmState::Starting), vm("db", VmState::Stopped)],
            at(1),
        );
        assert_eq!(wanted, [VmName::parse("db").unwrap()]);
        let expected = [
            ("db".to_owned(), VmState::Stopped),
            ("web".to_owned(), VmState::Running),
        ];
        assert_eq!(states(&sightings), expected);
        sightings.list(Vec::new(), at(1));
        assert_eq!(states(&sightings), [("web".to_owned(), VmState::Running)]);
        sightings.list(Vec::new(), at(3));
        assert!(states(&sightings).is_empty());
    }
}
