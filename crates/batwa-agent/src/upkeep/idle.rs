//! Which VMs do nothing, and for how long: measured once a minute, of those that are to be stopped for it.

use std::{collections::BTreeMap, time::Duration};

use batwa_api::{
    Timestamp,
    name::VmName,
    vm::{IdleStop, VmUsage},
};

/// Since when VMs have done nothing. Forgotten with the agent: a VM that was not watched counts as busy.
#[derive(Debug, Default)]
pub(super) struct Idle(BTreeMap<VmName, Moment>);

/// A moment by the clock that measures and by the one that people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since the machine's boot.
    pub(super) since_boot: Duration,
    /// The time of day.
    pub(super) wall: Timestamp,
}

/// For how long a VM has done nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdleFor {
    /// How long.
    pub(super) length: Duration,
    /// Since when, for people.
    pub(super) since: Timestamp,
}

impl Idle {
    /// Takes that a VM was seen doing nothing at this moment, or something.
    pub(super) fn take(&mut self, vm: &VmName, nothing: Option<Moment>) {
        match nothing {
            Some(moment) => {
                self.0.entry(vm.clone()).or_insert(moment);
            }
            None => {
                self.0.remove(vm);
            }
        }
    }

    /// For how long a VM has done nothing.
    pub(super) fn of(&self, vm: &VmName, since_boot: Duration) -> Option<IdleFor> {
        let began = self.0.get(vm)?;
        Some(IdleFor {
            length: since_boot.saturating_sub(began.since_boot),
            since: began.wall,
        })
    }

    /// Forgets all but these.
    pub(super) fn keep_only(&mut self, wanted: impl Fn(&VmName) -> bool) {
        self.0.retain(|vm, _| wanted(vm));
    }
}

/// Whether a VM does nothing by this measurement. One that says nothing of its processors counts as busy.
pub(super) fn does_nothing(usage: Option<&VmUsage>, cpus: Option<u32>, wanted: IdleStop) -> bool {
    let by_load = |usage: &VmUsage| {
        let [last_minute, ..] = usage.load?;
        Some(last_minute * 100.0 / f64::from(cpus?.max(1)))
    };
    usage
        .and_then(|usage| usage.cpu_percent.or_else(|| by_load(usage)))
        .is_some_and(|percent| percent < f64::from(wanted.below_percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_judged_by_its_processors_or_its_load_and_silence_is_work() {
        let wanted = IdleStop {
            after_s: 600,
            below_percent: 5,
        };
        let usage = |cpu_percent, load| VmUsage {
            cpu_percent,
            load,
            measured_at: Timestamp::UNIX_EPOCH,
            ..VmUsage::default()
        };
        let idle = |usage: Option<VmUsage>, cpus| does_nothing(usage.as_ref(), cpus, wanted);
        assert!(idle(Some(usage(Some(4.9), None)), None));
        assert!(!idle(Some(usage(Some(5.0), Some([0.0; 3]))), Some(1)));
        assert!(idle(Some(usage(None, Some([0.19, 9.0, 9.0]))), Some(4)));
        assert!(!idle(Some(usage(None, Some([0.2, 0.0, 0.0]))), Some(4)));
        assert!(!idle(Some(usage(None, Some([0.0; 3]))), None));
        assert!(!idle(Some(usage(None, None)), Some(4)));
        assert!(!idle(None, Some(4)));
    }

    #[test]
    fn one_busy_minute_begins_the_time_anew() {
        let vm = VmName::parse("web").unwrap();
        let at = Duration::from_secs;
        let nothing = |seconds| {
            Some(Moment {
                since_boot: at(seconds),
                wall: Timestamp::UNIX_EPOCH,
            })
        };
        let mut idle = Idle::default();
        let length = |idle: &Idle, seconds| idle.of(&vm, at(seconds)).map(|idle| idle.length);
        idle.take(&vm, nothing(100));
        idle.take(&vm, nothing(160));
        assert_eq!(length(&idle, 200), Some(at(100)));
        idle.take(&vm, None);
        assert_eq!(length(&idle, 220), None);
        idle.take(&vm, nothing(280));
        assert_eq!(length(&idle, 300), Some(at(20)));
    }
}
