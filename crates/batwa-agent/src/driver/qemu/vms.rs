//! All VMs of this driver, and the tasks that watch those that run.
//!
//! A VM's record is written by the method that changes it; its health only by its one watcher.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batwa_api::name::VmName;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    console, files,
    images::{ImageId, Images, InUse},
    process::Process,
    qmp,
    ready::{Boot, Health},
    record::{Phase, Record, VmDir, file},
    ssh::{Session, Target},
    usage::{CpuTime, Report},
};
use crate::{
    driver::{
        DriverError,
        command::{Detached, last_lines},
    },
    policy::PolicyFile,
};

/// How often a running VM's console log is kept within bounds.
const LOG_PATROL: Duration = Duration::from_secs(30);
/// How often a watcher that is about to end is looked at.
const WATCHER_POLL: Duration = Duration::from_millis(10);
/// How long a watcher may take to see that its process is gone.
const WATCHER_PATIENCE: Duration = Duration::from_secs(10);

/// All VMs.
pub(super) struct Vms {
    dir: PathBuf,
    images: Images,
    policy: PolicyFile,
    vms: Mutex<BTreeMap<VmName, Arc<Vm>>>,
    /// VMs whose records cannot be read, and on which image each lies where that much can be.
    left_alone: Vec<(VmName, Option<ImageId>)>,
    changes: Arc<watch::Sender<u64>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One VM.
pub(super) struct Vm {
    pub(super) dir: VmDir,
    record: Mutex<Record>,
    /// How far it has come since its power-on; `None` while it is off.
    pub(super) health: watch::Sender<Option<Health>>,
    watcher: Mutex<Option<AbortHandle>>,
    /// Whether a call of ours makes it right now.
    pub(super) being_made: AtomicBool,
    /// Whether its end was asked for, so that there is nothing to explain.
    pub(super) end_expected: AtomicBool,
    /// Whose turn it is at its disk while it is off.
    pub(super) disk_turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when its files are removed.
    pub(super) gone: CancellationToken,
    pub(super) console_turn: console::Turn,
    pub(super) session: tokio::sync::Mutex<Option<Session>>,
    pub(super) seen: Mutex<Seen>,
}

/// What the VM last said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) report: Option<Report>,
    pub(super) cpu: Option<CpuTime>,
    pub(super) usage: Option<batwa_api::vm::VmUsage>,
    /// How often its mounts were brought about since its power-on, or were found by this agent: before the first time
    /// it is no wonder that it does not see them.
    pub(super) mounts_made: u64,
}

/// A lock on plain data: nothing under it can panic half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    pub(super) fn new(dir: VmDir, record: Record) -> Arc<Self> {
        Arc::new(Self {
            dir,
            record: Mutex::new(record),
            health: watch::Sender::new(None),
            watcher: Mutex::default(),
            being_made: AtomicBool::new(false),
            end_expected: AtomicBool::new(false),
            disk_turn: Arc::default(),
            gone: CancellationToken::new(),
            console_turn: console::Turn::default(),
            session: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// The record as it is now.
    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Changes the record, on disk first.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), DriverError> {
        let mut record = lock(&self.record);
        let mut next = record.clone();
        change(&mut next);
        if next != *record {
            self.dir.save(&next)?;
            *record = next;
        }
        Ok(())
    }

    /// Takes that its mounts were brought about just now: what it said of them before holds no more.
    pub(super) fn mounts_were_made(&self) {
        let mut seen = lock(&self.seen);
        seen.mounts_made += 1;
        if let Some(report) = &mut seen.report {
            report.mounts = None;
        }
    }

    /// Its process, if it runs.
    pub(super) fn process(&self) -> Option<Process> {
        Process::of(&self.dir, lock(&self.record).instance)
    }

    /// Whether it is off because its process was killed or broke down. QEMU takes its pid file away whenever it ends in
    /// order, at whoever's request: by ours, by a signal that asks for it, by the VM's own system. One that is still
    /// there tells of another end, unless the whole machine went down.
    pub(super) fn has_crashed(&self) -> bool {
        let record = self.record();
        record.phase == Phase::Made
            && self.process().is_none()
            && self.dir.file(file::PID).exists()
            && record.boot.is_some()
            && record.boot == crate::host::boot_id()
    }

    /// Takes that its end was asked for, however it came.
    pub(super) fn ended_as_asked(&self) -> Result<(), DriverError> {
        files::remove(&self.dir.file(file::PID))
    }
}

impl Vms {
    /// Reads what is there; removes what a purge was cut off from.
    pub(super) fn open(
        dir: PathBuf,
        images: Images,
        policy: PolicyFile,
    ) -> Result<Self, DriverError> {
        files::make_dir(&dir)?;
        let mut vms = BTreeMap::new();
        let mut left_alone = Vec::new();
        let entries =
            std::fs::read_dir(&dir).map_err(|error| files::io_error("read", &dir, &error))?;
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = VmName::parse(&name).ok().filter(|_| !name.starts_with('.')) else {
                files::remove(&entry.path())?;
                continue;
            };
            let vm_dir = VmDir::of(&dir, &name);
            match vm_dir.load() {
                Ok(Some(record)) => {
                    vms.insert(name, Vm::new(vm_dir, record));
                }
                // Cut off before its record was written: there is nothing in it yet.
                Ok(None) => files::remove(vm_dir.path())?,
                Err(error) => {
                    warn!(vm.name = %name, "VM `{name}` is left alone: {error}");
                    let image = vm_dir.image_of_unreadable();
                    left_alone.push((name, image));
                }
            }
        }
        let all = Self {
            dir,
            images,
            policy,
            vms: Mutex::new(vms),
            left_alone,
            changes: Arc::new(watch::Sender::new(0)),
            tasks: Mutex::default(),
        };
        let in_use = || all.images_in_use();
        all.images.forget_uploads_of_nobody(&in_use);
        all.images.trim(&in_use);
        Ok(all)
    }

    /// Which VMs lie on which image, those in the trash included.
    pub(super) fn images_in_use(&self) -> InUse {
        let mut in_use = InUse::default();
        for vm in self.all() {
            let record = lock(&vm.record);
            in_use.note(record.name.clone(), Some(record.manifest.id.clone()));
        }
        for (name, image) in &self.left_alone {
            in_use.note(name.clone(), image.clone());
        }
        in_use
    }

    pub(super) fn images(&self) -> &Images {
        &self.images
    }

    /// What may be asked here.
    pub(super) fn policy(&self) -> &PolicyFile {
        &self.policy
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lets everybody look anew.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The folder that holds all VMs' folders.
    pub(super) fn root(&self) -> &std::path::Path {
        &self.dir
    }

    pub(super) fn all(&self) -> Vec<Arc<Vm>> {
        lock(&self.vms).values().cloned().collect()
    }

    pub(super) fn find(&self, name: &VmName) -> Option<Arc<Vm>> {
        lock(&self.vms).get(name).cloned()
    }

    /// # Errors
    /// [`DriverError::NotFound`].
    pub(super) fn get(&self, name: &VmName) -> Result<Arc<Vm>, DriverError> {
        self.find(name)
            .ok_or_else(|| DriverError::NotFound(name.clone()))
    }

    /// Enters a VM whose making begins.
    ///
    /// # Errors
    /// [`DriverError::NameTaken`].
    pub(super) fn enter(&self, record: Record) -> Result<Arc<Vm>, DriverError> {
        let mut vms = lock(&self.vms);
        let name = record.name.clone();
        if vms.contains_key(&name) {
            return Err(DriverError::NameTaken(name));
        }
        let dir = VmDir::of(&self.dir, &name);
        files::make_dir(dir.path())?;
        if let Err(error) = dir.save(&record) {
            let _ = files::remove(dir.path());
            return Err(error);
        }
        let vm = Vm::new(dir, record);
        vms.insert(name, Arc::clone(&vm));
        Ok(vm)
    }

    /// Forgets a VM whose files are gone.
    pub(super) fn forget(&self, name: &VmName) {
        if let Some(vm) = lock(&self.vms).remove(name) {
            vm.gone.cancel();
            if let Some(watcher) = lock(&vm.watcher).take() {
                watcher.abort();
            }
        }
        self.changed();
    }

    /// Runs work to its end even if the caller is dropped meanwhile. The driver's end cuts it off.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DriverError>> + Send + 'static,
    ) -> Result<T, DriverError> {
        let (done, result) = tokio::sync::oneshot::channel();
        {
            let mut tasks = lock(&self.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let _ = done.send(work.await);
            });
        }
        result
            .await
            .unwrap_or_else(|_| Err(DriverError::failed("the agent is shutting down")))
    }

    /// A task that ends with the driver.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits until the watcher of a process that is gone has written down how it ended, so that it does not take
    /// the next one for its own.
    pub(super) async fn unwatched(&self, vm: &Vm) {
        let watched = || {
            let watcher = lock(&vm.watcher);
            watcher.as_ref().is_some_and(|task| !task.is_finished())
        };
        let ended = async {
            while watched() {
                tokio::time::sleep(WATCHER_POLL).await;
            }
        };
        if timeout(WATCHER_PATIENCE, ended).await.is_err()
            && let Some(watcher) = lock(&vm.watcher).take()
        {
            watcher.abort();
        }
    }

    /// Makes sure that a running VM has its watcher. `child` is its process when we started it.
    pub(super) fn watch(&self, vm: &Arc<Vm>, process: Process, child: Option<Detached>) {
        let mut watcher = lock(&vm.watcher);
        if watcher.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let work = watch_one(Arc::clone(vm), process, child, Arc::clone(&self.changes));
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        *watcher = Some(tasks.spawn(work));
    }
}

/// The one task that follows a running VM to its end.
async fn watch_one(
    vm: Arc<Vm>,
    process: Process,
    child: Option<Detached>,
    changes: Arc<watch::Sender<u64>>,
) {
    let found = child.is_none();
    let changed = || changes.send_modify(|count| *count += 1);
    let record = vm.record();
    let name = &record.name;
    if found {
        info!(vm.name = %name, "VM `{name}` runs since before the agent");
        settle_suspension(&vm).await;
        vm.mounts_were_made();
    }
    let target = record
        .ssh_port
        .ok_or_else(|| DriverError::failed("its SSH port is not known"))
        .and_then(|port| Target::of(&vm.dir, port, &record.manifest.user));
    let follow = async {
        match target {
            Ok(target) => {
                let boot = Boot {
                    dir: vm.dir.clone(),
                    process,
                    target,
                    kvm: record.acceleration.as_deref() == Some("kvm"),
                };
                boot.watch(|health| {
                    vm.health.send_replace(Some(health));
                    changed();
                })
                .await;
            }
            Err(error) => warn!(vm.name = %name, "VM `{name}` cannot be signed in to: {error}"),
        }
    };
    let patrol = async {
        let mut interval = tokio::time::interval(LOG_PATROL);
        loop {
            interval.tick().await;
            let _ = console::bound_log(&vm.dir.file(file::CONSOLE_LOG));
        }
    };
    tokio::select! {
        () = async { follow.await; process.ended().await } => {}
        () = patrol => {}
    }
    let reason = how_it_ended(&vm, child).await;
    if let Some(reason) = &reason {
        info!(vm.name = %name, "VM `{name}` stopped: {reason}");
    }
    let _ = vm.update(|record| record.ended = reason);
    vm.health.send_replace(Some(Health::Ended));
    *vm.session.lock().await = None;
    *lock(&vm.seen) = Seen::default();
    changed();
}

/// An agent that ended between the steps of suspending or resuming left one of two traces: a VM that stands still,
/// or a running one that is recorded as suspended.
async fn settle_suspension(vm: &Vm) {
    if matches!(qmp::status(&vm.dir).await, Ok(qapi::qmp::RunState::paused)) {
        let _ = qmp::go_on(&vm.dir).await;
    }
    if vm.record().phase == Phase::Suspended && qmp::forget_memory(&vm.dir).await.is_ok() {
        let _ = vm.update(|record| record.phase = Phase::Made);
    }
}

/// Why the process is gone, unless that was asked for.
async fn how_it_ended(vm: &Vm, child: Option<Detached>) -> Option<String> {
    let status = match child {
        Some(mut child) => child.wait().await.ok(),
        None => None,
    };
    if vm.end_expected.load(Ordering::Relaxed) {
        return None;
    }
    let said = std::fs::read(vm.dir.file(file::QEMU_LOG)).unwrap_or_default();
    let said = last_lines(&String::from_utf8_lossy(&said), 1).pop();
    let console = vm.dir.console_tail(1).pop();
    Some(ending(status, said.as_deref(), console.as_deref()))
}

fn ending(
    status: Option<std::process::ExitStatus>,
    said: Option<&str>,
    console: Option<&str>,
) -> String {
    let powered_off = console.is_some_and(|line| line.contains("Power down"));
    match (status, said) {
        (Some(status), None) if status.success() => "its system shut down".to_owned(),
        (None, None) if powered_off => "its system shut down".to_owned(),
        (_, Some(said)) => format!("QEMU ended: {said}"),
        (Some(status), None) => format!("QEMU ended without a word ({status})"),
        (None, None) => match console {
            Some(line) => {
                format!("QEMU ended while the agent was away; last on the console: {line}")
            }
            None => "QEMU ended while the agent was away".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_ending_says_what_is_known_of_it() {
        let status = |raw| Some(std::process::ExitStatus::from_raw(raw));
        assert_eq!(ending(status(0), None, None), "its system shut down");
        assert_eq!(
            ending(None, None, Some("[ 9.1] reboot: Power down")),
            "its system shut down"
        );
        assert!(ending(status(9), None, None).contains("signal: 9"));
        assert!(ending(status(0), Some("terminating on signal 15"), None).contains("signal 15"));
        assert!(ending(None, None, Some("panic")).ends_with("panic"));
    }
}
