//! What is seen of VMs from outside, and what they say themselves.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use batwa_api::{
    Timestamp,
    name::VmName,
    size::ByteSize,
    vm::{Readiness, VmState, VmUsage},
};
use tokio::time::timeout;

use super::{
    history::Unsettled,
    mounts::Inside,
    networks::KeptCard,
    offline::Offline,
    process::Process,
    qmp,
    ready::Health,
    record::{Phase, Record, file},
    ssh::Target,
    usage::{self, Report},
    vms::{Vm, Vms, lock},
};
use crate::driver::{DriverError, ObservedVm};

/// How long a look may take that asks the VM itself.
const ASK: Duration = Duration::from_secs(8);
/// How long signing in, and the answer, may take on the slowest machine.
const SIGN_IN: Duration = Duration::from_secs(60);

impl Vms {
    /// All VMs, cheaply. A running one that nobody watches yet gets its watcher here.
    pub(super) fn observe(&self) -> Vec<ObservedVm> {
        self.all().iter().map(|vm| self.look(vm)).collect()
    }

    /// One VM, with what it says of itself.
    pub(super) async fn inspect(&self, name: &VmName) -> Result<ObservedVm, DriverError> {
        let vm = self.get(name)?;
        let mut observed = self.look(&vm);
        let Some(process) = vm.process() else {
            // Whoever asks for one VM wants to know what became of it.
            if vm.record().unsettled.is_none() {
                return Ok(observed);
            }
            if let Some(offline) = Offline::at_once(&vm) {
                let _ = self.to_the_end(async move { offline.settle().await }).await;
            }
            return Ok(self.look(&vm));
        };
        if matches!(
            observed.readiness,
            Some(Readiness::Ready | Readiness::CloudInit)
        ) {
            // One that is slow to let us in is asked on: the next look then finds the connection made.
            let _ = timeout(ASK, self.to_the_end(ask(Arc::clone(&vm)))).await;
        } else if let Ok(qapi::qmp::RunState::io_error) = qmp::status(&vm.dir).await {
            let free = super::files::free_space(vm.dir.path())
                .map_or_else(String::new, |free| format!(", {free} free"));
            observed.message = Some(format!(
                "it stands still: its disk file could not be written (is this machine's disk full{free}?)"
            ));
        }
        let mut result = self.look(&vm);
        result.message = observed.message.or(result.message);
        if result.usage.is_none() {
            result.usage = Some(outside_usage(&vm, process));
        }
        Ok(result)
    }

    fn look(&self, vm: &Arc<Vm>) -> ObservedVm {
        let record = vm.record();
        let process = vm.process();
        if let Some(process) = process {
            self.watch(vm, process, None);
        }
        let health = vm.health.borrow().clone();
        let being_made = vm.being_made.load(Ordering::Relaxed);
        let mut observed = plain(&record);
        let (state, message) = state(&record, process.is_some(), health.as_ref(), being_made);
        observed.state = state;
        observed.message = message;
        observed.location = Some(vm.dir.path().display().to_string());
        observed.crashed = process.is_none() && vm.has_crashed();
        let seen = lock(&vm.seen).clone();
        let inside = match process {
            None => Inside::Off,
            Some(_) => Inside::of(&seen),
        };
        observed.mounts = record.told_mounts(&inside);
        if process.is_some() {
            observed.readiness = Some(
                health
                    .as_ref()
                    .map_or(Readiness::Booting, Health::readiness),
            );
            observed.acceleration = record.acceleration;
            observed.started_at = record.started_at;
            observed.usage = seen.usage;
            if let Some(report) = seen.report {
                observed.ipv4 = report.ipv4;
                observed.release = report.release.or(observed.release);
            }
        }
        observed
    }
}

/// What the record alone says.
fn plain(record: &Record) -> ObservedVm {
    ObservedVm {
        image: Some(record.image.clone()),
        release: Some(record.manifest.title.clone()),
        cpus: Some(record.cpus),
        memory: Some(record.memory),
        disk: Some(record.disk),
        created_at: Some(record.created_at),
        snapshots: record.history.told(),
        networks: record.networks.iter().map(KeptCard::told).collect(),
        ..ObservedVm::new(record.name.clone(), VmState::Unknown)
    }
}

/// The state, and why where there is something to say.
fn state(
    record: &Record,
    runs: bool,
    health: Option<&Health>,
    being_made: bool,
) -> (VmState, Option<String>) {
    match (record.phase, runs) {
        (Phase::Trashed, _) => (VmState::Deleted, None),
        (Phase::Making, false) if being_made => (VmState::Creating, None),
        (Phase::Making, _) => (
            VmState::Error,
            Some("its creation was cut off: purge it, and create it again".to_owned()),
        ),
        (Phase::Suspended, false) => (VmState::Suspended, None),
        (_, true) => {
            let state = match health {
                None | Some(Health::Booting { .. } | Health::Silent | Health::Ended) => {
                    VmState::Starting
                }
                Some(Health::CloudInit | Health::Ready { .. } | Health::Unreachable(_)) => {
                    VmState::Running
                }
            };
            let complaint = health.and_then(Health::complaint);
            (state, complaint.map(|complaint| complaint.text.clone()))
        }
        (Phase::Made, false) => {
            let message = match &record.unsettled {
                Some(Unsettled::GoingBack(snapshot)) => Some(format!(
                    "going back to snapshot `{snapshot}` is not finished: it goes on when the VM is started"
                )),
                _ => record.ended.clone(),
            };
            (VmState::Stopped, message)
        }
    }
}

/// Asks the VM over SSH, on a connection that is kept: making one takes an emulated processor seconds. Who comes while
/// another asks leaves it to that one.
async fn ask(vm: Arc<Vm>) -> Result<(), DriverError> {
    let Ok(mut session) = vm.session.try_lock() else {
        return Ok(());
    };
    let open = match session.take().filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => {
            let record = vm.record();
            let port = record
                .ssh_port
                .ok_or_else(|| DriverError::failed("its SSH port is not known"))?;
            Target::of(&vm.dir, port, &record.manifest.user)?
                .connect(SIGN_IN)
                .await
                .map_err(|error| DriverError::failed(error.to_string()))?
        }
    };
    let made_before = lock(&vm.seen).mounts_made;
    let asked = timeout(SIGN_IN, open.run(usage::COMMAND)).await;
    if let Ok(Ok(output)) = asked {
        *session = Some(open);
        let mut report = Report::parse(&output.text);
        let mut seen = lock(&vm.seen);
        if seen.mounts_made != made_before {
            report.mounts = None;
        }
        seen.usage = Some(report.usage(seen.cpu));
        seen.cpu = report.cpu;
        seen.report = Some(report);
    }
    Ok(())
}

/// What its process and files use, where the VM itself says nothing.
fn outside_usage(vm: &Vm, process: Process) -> VmUsage {
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(vm.dir.file(file::DISK)).map(|metadata| metadata.blocks());
    VmUsage {
        memory_used: process.memory(),
        disk_used: blocks.ok().map(|blocks| ByteSize::bytes(blocks * 512)),
        measured_at: Timestamp::now(),
        ..VmUsage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::qemu::{images::Manifest, ready::Complaint};

    #[test]
    fn states_follow_from_record_process_and_health() {
        let record = |phase| {
            let mut record = Record::new(
                VmName::parse("web").unwrap(),
                "tiny".to_owned(),
                Manifest::example(),
                1,
                ByteSize::mib(256),
                ByteSize::gib(1),
            );
            record.phase = phase;
            record.ended = Some("QEMU ended: oops".to_owned());
            record
        };
        let check = |phase, runs, health: Option<Health>, being_made, expected, says: &str| {
            let (state, message) = state(&record(phase), runs, health.as_ref(), being_made);
            assert_eq!(state, expected);
            assert!(
                message.clone().unwrap_or_default().contains(says),
                "{message:?}"
            );
        };
        let ready = Health::Ready { complaint: None };
        let complaint = Complaint {
            text: "no SSH".to_owned(),
            log: Vec::new(),
        };
        check(Phase::Making, false, None, true, VmState::Creating, "");
        check(Phase::Making, false, None, false, VmState::Error, "purge");
        check(Phase::Made, true, None, false, VmState::Starting, "");
        check(
            Phase::Made,
            true,
            Some(ready.clone()),
            false,
            VmState::Running,
            "",
        );
        let unreachable = Some(Health::Unreachable(complaint));
        check(
            Phase::Made,
            true,
            unreachable,
            false,
            VmState::Running,
            "no SSH",
        );
        check(
            Phase::Made,
            false,
            Some(Health::Ended),
            false,
            VmState::Stopped,
            "oops",
        );
        check(Phase::Suspended, false, None, false, VmState::Suspended, "");
        check(
            Phase::Suspended,
            true,
            Some(ready),
            false,
            VmState::Running,
            "",
        );
        check(Phase::Trashed, false, None, false, VmState::Deleted, "");
    }
}
