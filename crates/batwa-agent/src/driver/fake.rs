//! VMs that only pretend: for demos, tests and load.
//!
//! They take their time, fail as often as told, and are written to the state folder at each step, so that they
//! outlive `kill -9` of the agent as real ones do. **Their shells are real**: a terminal of a fake VM is
//! `/bin/sh` on this machine, as this user, with a folder of the VM's own as its home. Whoever may open
//! terminals can therefore run anything here; the agent's log says so when the driver opens.

mod display;
mod images;
mod inside;
mod mounts;
mod networks;
mod settings;
mod snapshots;
mod store;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use batwa_api::{
    Timestamp,
    agent::{Acceleration, Capabilities, DriverKind},
    exec::ExecCommand,
    image::Image,
    name::{SnapshotName, VmName},
    operation::{OperationKind, Stage},
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::{HostNetwork, MountOptions, Readiness, ResizeOptions, VmSpec, VmState, VmUsage},
};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use self::images::FakeImage;
pub use self::settings::{FakeSettings, FakeSettingsError, StepMode};
use self::store::{FakeVm, FakeVms, Store};
use super::{
    Connection, Driver, DriverError, ImageKeeper, ObservedVm, Probe, Progress, Pty, StopMode,
    inside::{Exec, Tasks},
    pty,
};

/// Runs VMs that only pretend.
#[derive(Debug)]
pub struct FakeDriver {
    settings: FakeSettings,
    folder: PathBuf,
    store: Store,
    /// Shared with the tasks that end with a VM.
    vms: Arc<Mutex<FakeVms>>,
    images: Mutex<Vec<FakeImage>>,
    parts: Mutex<images::Parts>,
    /// What VMs' processors are said to be busy with, in per cent.
    busy: Mutex<BTreeMap<VmName, f64>>,
    /// Where the bar is on VMs' displays.
    bars: Mutex<BTreeMap<VmName, watch::Sender<u16>>>,
    changes: watch::Sender<u64>,
    steps: Semaphore,
    hangs: watch::Sender<bool>,
    tasks: Tasks,
}

/// One step of an operation: what it says and the state it leaves the VM in.
struct Step(Stage, Option<VmState>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeDriver {
    /// Finds the VMs of `state_dir` again, or makes the first ones there.
    ///
    /// # Errors
    /// [`DriverError::Failed`] when the folder or the file in it cannot be used.
    pub fn open(state_dir: &Path, settings: FakeSettings) -> Result<Self, DriverError> {
        let folder = state_dir.join("fake");
        let cannot = |error: io::Error| {
            DriverError::failed(format!(
                "cannot keep fake VMs in `{}`: {error}",
                folder.display()
            ))
        };
        fs::create_dir_all(&folder).map_err(cannot)?;
        let store = Store::new(folder.join("vms.json"));
        let vms = match store.load().map_err(cannot)? {
            Some(vms) => vms,
            None => {
                let vms = first_vms(settings.vms);
                store.save(&vms).map_err(cannot)?;
                vms
            }
        };
        let images = images::load(&folder.join("images.json")).map_err(cannot)?;
        warn!(
            "the fake driver is in use: its VMs only pretend, and their terminals are shells of this machine as this user"
        );
        Ok(Self {
            settings,
            folder,
            store,
            vms: Arc::new(Mutex::new(vms)),
            images: Mutex::new(images),
            parts: Mutex::default(),
            busy: Mutex::new(BTreeMap::new()),
            bars: Mutex::default(),
            changes: watch::Sender::new(0),
            steps: Semaphore::new(0),
            hangs: watch::Sender::new(false),
            tasks: Tasks::default(),
        })
    }

    /// Lets operations make `n` more steps, when they are stepped.
    pub fn step(&self, n: usize) {
        self.steps.add_permits(n);
    }

    /// How many of the steps that were allowed are not made yet.
    #[must_use]
    pub fn steps_left(&self) -> usize {
        self.steps.available_permits()
    }

    /// From now on no call returns, as with a hung daemon.
    pub fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// Calls return again, those that hang too.
    pub fn recover_from_hang(&self) {
        self.hangs.send_replace(false);
    }

    /// The VMs there are.
    #[must_use]
    pub fn names(&self) -> Vec<VmName> {
        self.vms().keys().cloned().collect()
    }

    /// A VM's state, when it exists.
    #[must_use]
    pub fn state_of(&self, vm: &VmName) -> Option<VmState> {
        self.vms().get(vm).map(|fake| fake.state)
    }

    /// Ends a VM that runs as if its process had been killed.
    ///
    /// # Errors
    /// [`DriverError::Failed`] when the change cannot be written.
    pub fn crash(&self, vm: &VmName) -> Result<(), DriverError> {
        self.change(|vms| {
            if let Some(fake) = vms.get_mut(vm) {
                fake.state = VmState::Stopped;
                fake.crashed = true;
            }
        })
    }

    /// Says what a VM's processors are busy with from now on, in per cent.
    pub fn work(&self, vm: &VmName, percent: f64) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(vm.clone(), percent);
    }

    /// Changes a VM behind the agent's back, as somebody with another tool would; `None` removes it.
    ///
    /// # Errors
    /// [`DriverError::Failed`] when the change cannot be written.
    pub fn change_behind(&self, vm: &VmName, state: Option<VmState>) -> Result<(), DriverError> {
        self.change(|vms| match state {
            Some(state) => {
                let fake = vms
                    .entry(vm.clone())
                    .or_insert_with(|| new_vm(&VmSpec::default(), 200));
                fake.state = state;
                fake.crashed = false;
            }
            None => {
                vms.remove(vm);
            }
        })
    }

    fn cpu_percent(&self, vm: &VmName) -> f64 {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.get(vm).copied().unwrap_or(1.5)
    }

    fn vms(&self) -> MutexGuard<'_, FakeVms> {
        lock(&self.vms)
    }

    /// Changes the VMs, writes them down and tells.
    fn change<R>(&self, change: impl FnOnce(&mut FakeVms) -> R) -> Result<R, DriverError> {
        let mut vms = self.vms();
        let result = change(&mut vms);
        self.store
            .save(&vms)
            .map_err(|error| DriverError::failed(format!("cannot write fake VMs down: {error}")))?;
        drop(vms);
        self.changes.send_modify(|n| *n += 1);
        Ok(result)
    }

    fn set_state(&self, vm: &VmName, state: VmState) -> Result<(), DriverError> {
        self.change(|vms| match vms.get_mut(vm) {
            Some(fake) => {
                if state == VmState::Running && fake.state != VmState::Running {
                    fake.started_at = Some(Timestamp::now());
                    fake.plug_mounts();
                }
                fake.state = state;
                fake.crashed = false;
                Ok(())
            }
            None => Err(DriverError::NotFound(vm.clone())),
        })?
    }

    fn state(&self, vm: &VmName) -> Result<VmState, DriverError> {
        self.vms()
            .get(vm)
            .map(|fake| fake.state)
            .ok_or_else(|| DriverError::NotFound(vm.clone()))
    }

    /// As slow as a real driver, and hanging where told.
    async fn answer(&self) {
        let mut hangs = self.hangs.subscribe();
        // Cannot fail: the sender is ours.
        let _ = hangs.wait_for(|hangs| !hangs).await;
        tokio::time::sleep(self.settings.latency).await;
    }

    /// Waits for one step's turn.
    async fn turn(&self) -> Result<(), DriverError> {
        let mut hangs = self.hangs.subscribe();
        let _ = hangs.wait_for(|hangs| !hangs).await;
        match self.settings.mode {
            StepMode::Timed => tokio::time::sleep(self.settings.latency).await,
            StepMode::Stepped => match self.steps.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(DriverError::failed("the fake driver is closed")),
            },
        }
        Ok(())
    }

    async fn run(
        &self,
        kind: OperationKind,
        vm: &VmName,
        steps: &[Step],
        progress: &Progress,
    ) -> Result<(), DriverError> {
        for Step(stage, state) in steps {
            progress.stage(*stage);
            progress.log(format!("fake: {vm}: {stage:?}"));
            self.turn().await?;
            self.fail_by_chance(kind, &format!("VM `{vm}`"))?;
            if let Some(state) = state {
                self.set_state(vm, *state)?;
            }
        }
        Ok(())
    }

    fn fail_by_chance(&self, kind: OperationKind, what: &str) -> Result<(), DriverError> {
        let share = self.settings.failures.get(&kind).copied().unwrap_or(0.0);
        if share > 0.0 && rand::random::<f64>() < share {
            return Err(DriverError::Failed {
                detail: format!("cannot {kind} {what}: the fake driver was told to fail"),
                hint: Some("start it again with other settings".to_owned()),
                log: vec!["fake: this is where a console would speak".to_owned()],
            });
        }
        Ok(())
    }

    fn home(&self, vm: &VmName) -> PathBuf {
        self.folder.join("homes").join(vm.as_str())
    }

    fn observed(&self, name: &VmName, fake: &FakeVm) -> ObservedVm {
        let runs = fake.state == VmState::Running;
        ObservedVm {
            readiness: runs.then_some(Readiness::Ready),
            ipv4: if runs {
                vec![format!("10.66.{}.{}", fake.host / 250, fake.host % 250 + 2)]
            } else {
                Vec::new()
            },
            image: Some(fake.image.clone()),
            release: self.image_title(&fake.image),
            cpus: Some(fake.cpus),
            memory: Some(fake.memory),
            disk: Some(fake.disk),
            acceleration: Some("none".to_owned()),
            created_at: Some(fake.created_at),
            location: Some(self.home(name).display().to_string()),
            started_at: fake.started_at.filter(|_| runs),
            snapshots: fake.told_snapshots(),
            mounts: fake.mounts.clone(),
            networks: fake.networks.clone(),
            crashed: fake.crashed,
            ..ObservedVm::new(name.clone(), fake.state)
        }
    }
}

fn new_vm(spec: &VmSpec, host: u16) -> FakeVm {
    FakeVm {
        state: VmState::Creating,
        image: images::plain_name(&spec.image),
        cpus: spec.cpus,
        memory: spec.memory,
        disk: spec.disk,
        host,
        created_at: Timestamp::now(),
        started_at: None,
        before_trash: None,
        snapshots: Vec::new(),
        came_from: None,
        mounts: Vec::new(),
        networks: networks::cards(spec),
        crashed: false,
    }
}

/// The VMs of a new state folder: most run, every fourth is stopped.
fn first_vms(count: usize) -> FakeVms {
    (0..count)
        .map(|n| {
            let mut vm = new_vm(&VmSpec::default(), u16::try_from(n % 60_000).unwrap_or(0));
            vm.state = if n % 4 == 3 {
                VmState::Stopped
            } else {
                VmState::Running
            };
            vm.started_at = Some(vm.created_at);
            let name = VmName::parse(&format!("demo-{:02}", n + 1)).expect("a plain name");
            (name, vm)
        })
        .collect()
}

#[async_trait]
impl Driver for FakeDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Fake
    }

    async fn probe(&self) -> Result<Probe, DriverError> {
        self.answer().await;
        Ok(Probe {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            capabilities: Capabilities::all(),
            acceleration: Some(Acceleration {
                name: "none".to_owned(),
                reason: "fake VMs run nothing".to_owned(),
            }),
        })
    }

    async fn observe(&self) -> Result<Vec<ObservedVm>, DriverError> {
        self.answer().await;
        Ok(self
            .vms()
            .iter()
            .map(|(name, vm)| self.observed(name, vm))
            .collect())
    }

    async fn inspect(&self, vm: &VmName) -> Result<ObservedVm, DriverError> {
        self.answer().await;
        let fake = self
            .vms()
            .get(vm)
            .cloned()
            .ok_or_else(|| DriverError::NotFound(vm.clone()))?;
        let mut observed = self.observed(vm, &fake);
        if fake.state == VmState::Running {
            observed.usage = Some(VmUsage {
                cpu_percent: Some(self.cpu_percent(vm)),
                memory_used: Some(ByteSize::bytes(fake.memory.as_u64() / 4)),
                disk_used: Some(ByteSize::bytes(fake.disk.as_u64() / 5)),
                load: Some([0.01, 0.05, 0.02]),
                measured_at: Timestamp::now(),
            });
        }
        Ok(observed)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        self.answer().await;
        Ok(self.told_images())
    }

    fn image_keeper(&self) -> Option<&dyn ImageKeeper> {
        Some(self)
    }

    async fn networks(&self) -> Result<Vec<HostNetwork>, DriverError> {
        self.answer().await;
        Ok(networks::list())
    }

    async fn check(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError> {
        self.check_image(spec)?;
        batwa_cloud_init::parse(spec.cloud_init.as_deref().unwrap_or_default()).map_err(
            |finding| DriverError::Invalid {
                field: "cloud_init",
                message: finding.to_string(),
            },
        )?;
        networks::check(spec)?;
        match self.vms().get(vm) {
            Some(taken) if taken.state != VmState::Creating => {
                Err(DriverError::NameTaken(vm.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn create(
        &self,
        vm: &VmName,
        spec: &VmSpec,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.check(vm, spec).await?;
        progress.stage(Stage::ResolvingImage);
        let host = u16::try_from(self.vms().len() % 60_000).unwrap_or(0);
        self.change(|vms| vms.insert(vm.clone(), new_vm(spec, host)))?;
        let made = async {
            self.fetch(&spec.image, progress).await?;
            let steps = [
                Step(Stage::Preparing, None),
                Step(Stage::Booting, Some(VmState::Starting)),
                Step(Stage::WaitingForSsh, None),
                Step(Stage::CloudInit, Some(VmState::Running)),
            ];
            self.run(OperationKind::Create, vm, &steps, progress).await
        };
        if let Err(error) = made.await {
            self.change(|vms| vms.remove(vm))?;
            return Err(error);
        }
        Ok(())
    }

    async fn start(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        match self.state(vm)? {
            VmState::Running => return Ok(()),
            VmState::Deleted => {
                return Err(DriverError::IllegalState(format!(
                    "VM `{vm}` is in the trash"
                )));
            }
            _ => {}
        }
        self.set_state(vm, VmState::Starting)?;
        let steps = [
            Step(Stage::Starting, None),
            Step(Stage::WaitingForSsh, Some(VmState::Running)),
        ];
        let started = self.run(OperationKind::Start, vm, &steps, progress).await;
        if matches!(started, Err(DriverError::Failed { .. })) {
            self.set_state(vm, VmState::Stopped)?;
        }
        started
    }

    async fn stop(
        &self,
        vm: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        match self.state(vm)? {
            VmState::Stopped => return Ok(()),
            VmState::Deleted | VmState::Suspended => {
                return Err(DriverError::IllegalState(format!("VM `{vm}` does not run")));
            }
            _ => {}
        }
        let before = self.state(vm)?;
        self.set_state(vm, VmState::Stopping)?;
        if mode == StopMode::Forced {
            return self.set_state(vm, VmState::Stopped);
        }
        let steps = [Step(Stage::Stopping, Some(VmState::Stopped))];
        let stopped = self.run(OperationKind::Stop, vm, &steps, progress).await;
        if matches!(stopped, Err(DriverError::Failed { .. })) {
            self.set_state(vm, before)?;
        }
        stopped
    }

    async fn restart(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        match self.state(vm)? {
            VmState::Running | VmState::Restarting => {}
            state => {
                return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")));
            }
        }
        self.set_state(vm, VmState::Restarting)?;
        let steps = [
            Step(Stage::Restarting, None),
            Step(Stage::WaitingForSsh, Some(VmState::Running)),
        ];
        let restarted = self.run(OperationKind::Restart, vm, &steps, progress).await;
        if matches!(restarted, Err(DriverError::Failed { .. })) {
            self.set_state(vm, VmState::Running)?;
        }
        restarted
    }

    async fn suspend(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        match self.state(vm)? {
            VmState::Suspended => return Ok(()),
            VmState::Running | VmState::Suspending => {}
            state => {
                return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")));
            }
        }
        self.set_state(vm, VmState::Suspending)?;
        let steps = [Step(Stage::Suspending, Some(VmState::Suspended))];
        let suspended = self.run(OperationKind::Suspend, vm, &steps, progress).await;
        if matches!(suspended, Err(DriverError::Failed { .. })) {
            self.set_state(vm, VmState::Running)?;
        }
        suspended
    }

    async fn delete(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        let before = self.state(vm)?;
        if before == VmState::Deleted {
            return Ok(());
        }
        let steps = [Step(Stage::Deleting, Some(VmState::Deleted))];
        self.run(OperationKind::Delete, vm, &steps, progress)
            .await?;
        let back = match before {
            VmState::Suspended | VmState::Suspending => VmState::Suspended,
            _ => VmState::Stopped,
        };
        self.change(|vms| {
            if let Some(fake) = vms.get_mut(vm) {
                fake.before_trash = Some(back);
            }
        })
    }

    async fn recover(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        if self.state(vm)? != VmState::Deleted {
            return Ok(());
        }
        let back = self.vms().get(vm).and_then(|fake| fake.before_trash);
        let steps = [Step(
            Stage::Recovering,
            Some(back.unwrap_or(VmState::Stopped)),
        )];
        self.run(OperationKind::Recover, vm, &steps, progress).await
    }

    async fn purge(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        if self.state(vm).is_err() {
            return Ok(());
        }
        let steps = [Step(Stage::Deleting, None)];
        match self.run(OperationKind::Purge, vm, &steps, progress).await {
            Ok(()) | Err(DriverError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.change(|vms| vms.remove(vm))?;
        self.forget_snapshots(vm)?;
        match fs::remove_dir_all(self.home(vm)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DriverError::failed(
                format!("cannot remove the home of fake VM `{vm}`: {error}"),
            )),
            _ => Ok(()),
        }
    }

    async fn snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.take_snapshot(vm, name, comment, progress).await
    }

    async fn restore(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.go_back(vm, snapshot, progress).await
    }

    async fn delete_snapshot(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.remove_snapshot(vm, snapshot, progress).await
    }

    async fn clone_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.copy_vm(vm, target, snapshot, progress).await
    }

    async fn resize(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.set_size(vm, size, progress).await
    }

    async fn mount(
        &self,
        vm: &VmName,
        mount: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.take_in_folder(vm, mount, progress).await
    }

    async fn umount(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.take_out_folder(vm, target, progress).await
    }

    async fn attach(
        &self,
        vm: &VmName,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Pty, DriverError> {
        self.answer().await;
        let state = self.state(vm)?;
        let speaks = match kind {
            TerminalKind::Shell => state == VmState::Running,
            TerminalKind::Console => !matches!(
                state,
                VmState::Stopped | VmState::Suspended | VmState::Deleted | VmState::Error
            ),
        };
        if !speaks {
            return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")));
        }
        let home = self.home(vm);
        fs::create_dir_all(&home).map_err(|error| {
            DriverError::failed(format!("cannot make a home for fake VM `{vm}`: {error}"))
        })?;
        let environment = [
            ("HOME", home.as_os_str().to_owned()),
            ("PS1", format!("{vm}:$ ").into()),
            ("ENV", "".into()),
            ("HISTFILE", "".into()),
        ];
        pty::spawn_in(&home, "/bin/sh", ["-i"], environment, size)
    }
    async fn exec(&self, vm: &VmName, command: &ExecCommand) -> Result<Exec, DriverError> {
        self.answer().await;
        self.run_inside(vm, command)
    }

    async fn connect(&self, vm: &VmName, port: u16) -> Result<Connection, DriverError> {
        self.answer().await;
        self.connect_inside(vm, port).await
    }

    async fn display(&self, vm: &VmName) -> Result<Connection, DriverError> {
        self.answer().await;
        self.show(vm)
    }

    fn path_inside(&self, vm: &VmName, path: &str) -> Result<String, DriverError> {
        inside::path(&self.home_inside(vm)?, path)
    }
}
