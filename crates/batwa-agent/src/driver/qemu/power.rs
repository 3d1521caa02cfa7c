//! Power on, off, and the ways between; and terminals on what runs.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    name::VmName,
    operation::Stage,
    terminal::{TermSize, TerminalKind},
};
use tokio::time::{Instant, interval, sleep};

mod words;

use self::words::{half_made, not_ready, qmp_failed};
pub(super) use self::words::{not_running, ssh_failed};
use super::{
    console, files,
    machine::{Accelerator, Display, FIRST_TAP, From, Machine},
    offline::Offline,
    process::Process,
    qmp,
    ready::{Health, SILENCE},
    record::{Phase, file},
    ssh::Target,
    vms::{Vm, Vms},
};
use crate::driver::{
    DriverError, Progress, Pty, StopMode,
    command::{Command, Detached, last_lines},
};

/// How long QEMU may take to open its control socket.
const SPAWN: Duration = Duration::from_secs(30);
/// Ports that another program may take between our look and QEMU's.
const PORT_TRIES: u32 = 5;
/// How long a VM's system may take to shut down.
const SHUT_DOWN: Duration = Duration::from_secs(120);
/// How often its power button is pressed: a system still booting does not hear the first.
const PRESS: Duration = Duration::from_secs(4);
/// How long QEMU may take to quit before it is killed.
const QUIT: Duration = Duration::from_secs(5);
/// How often people hear the console's last line while they wait.
const NEWS: Duration = Duration::from_secs(2);
/// Signing in for a terminal.
const SIGN_IN: Duration = Duration::from_secs(30);

impl Vms {
    /// Starts a VM's process, if it does not run.
    pub(super) async fn power_on(
        &self,
        vm: &Arc<Vm>,
        from: From,
        accelerator: Accelerator,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        if let Some(process) = vm.process() {
            self.watch(vm, process, None);
            return Ok(());
        }
        self.unwatched(vm).await;
        let offline = Offline::of(vm).await;
        offline.settle().await?;
        let record = vm.record();
        let accelerator = if record.kvm_failed {
            Accelerator::Tcg
        } else {
            accelerator
        };
        let (nics, taps) = self.nics(vm, from).await?;
        for _ in 0..PORT_TRIES {
            let ssh_port = free_port()?;
            vm.update(|record| {
                record.ssh_port = Some(ssh_port);
                record.started_at = Some(Timestamp::now());
                record.acceleration = Some(accelerator.as_str().to_owned());
                record.ended = None;
                record.boot = crate::host::boot_id();
                // Memory goes on in the machine that it was kept from.
                record.display |= from == From::Boot;
            })?;
            let record = vm.record();
            let image_dir = self.images().dir_of(&record.manifest.id);
            let (shares, folders) = self.shares(vm, from)?;
            let machine = Machine {
                record: &record,
                image_dir: &image_dir,
                accelerator,
                ssh_port,
                from,
                display: match record.display {
                    true => Display::Vga,
                    false => Display::Absent,
                },
                nics: &nics,
                shares: &shares,
            };
            let Some((process, child)) = spawn(vm, &machine, &taps).await? else {
                continue;
            };
            // It has them open by itself now.
            drop(folders);
            progress.log(format!(
                "QEMU runs ({}), SSH at 127.0.0.1:{ssh_port}",
                accelerator.as_str()
            ));
            vm.end_expected.store(false, Ordering::Relaxed);
            vm.health
                .send_replace(Some(Health::Booting { spoke: false }));
            self.watch(vm, process, Some(child));
            self.changed();
            return Ok(());
        }
        Err(DriverError::failed(
            "no free port on loopback was found for the VM's SSH",
        ))
    }

    /// Waits until a VM that was powered on is ready.
    pub(super) async fn wait_ready(
        &self,
        vm: &Arc<Vm>,
        accelerator: Accelerator,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let mut health = vm.health.subscribe();
        let mut news = interval(NEWS);
        let mut stage = None;
        let last = loop {
            let now = health.borrow_and_update().clone();
            let next = match &now {
                Some(Health::CloudInit) => Stage::CloudInit,
                Some(Health::Booting { spoke: true }) => Stage::WaitingForSsh,
                _ => Stage::Booting,
            };
            match now {
                Some(last) if last.is_final() => break last,
                _ if stage != Some(next) => {
                    stage = Some(next);
                    progress.stage(next);
                }
                _ => {}
            }
            tokio::select! {
                changed = health.changed() => changed.expect("the VM holds the sender"),
                _ = news.tick() => {
                    if let Some(line) = vm.dir.console_tail(1).pop() {
                        progress.message(line);
                    }
                }
            }
        };
        let name = vm.record().name;
        match last {
            Health::Ready { complaint: None } => Ok(()),
            Health::Ready {
                complaint: Some(complaint),
            }
            | Health::Unreachable(complaint) => Err(not_ready(&name, complaint)),
            Health::Silent => {
                progress.log(format!(
                    "no sign of life under KVM within {} s: starting again, emulated",
                    SILENCE.as_secs()
                ));
                self.force_off(vm).await;
                vm.update(|record| record.kvm_failed = true)?;
                self.power_on(vm, From::Boot, accelerator, progress).await?;
                Box::pin(self.wait_ready(vm, accelerator, progress)).await
            }
            _ => Err(DriverError::Failed {
                detail: format!(
                    "VM `{name}` stopped while it was starting: {}",
                    vm.record()
                        .ended
                        .unwrap_or_else(|| "its process is gone".to_owned())
                ),
                hint: None,
                log: vm.dir.console_tail(20),
            }),
        }
    }

    /// Powers on and waits until it is ready.
    pub(super) async fn start(
        &self,
        name: &VmName,
        accelerator: Accelerator,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        let record = vm.record();
        progress.stage(Stage::Starting);
        match record.phase {
            Phase::Making => return Err(half_made(name)),
            Phase::Trashed => {
                return Err(DriverError::IllegalState(format!(
                    "VM `{name}` is in the trash: recover it first"
                )));
            }
            Phase::Suspended if vm.process().is_none() => {
                // Its memory fits only the processor that it was kept from.
                let same = match record.acceleration.as_deref() {
                    Some("kvm") => Accelerator::Kvm,
                    _ => Accelerator::Tcg,
                };
                self.power_on(&vm, From::Memory, same, progress).await?;
                qmp::go_on(&vm.dir)
                    .await
                    .map_err(|error| qmp_failed(name, &error))?;
                let _ = qmp::forget_memory(&vm.dir).await;
                vm.update(|record| record.phase = Phase::Made)?;
                self.wait_ready(&vm, accelerator, progress).await?;
                set_clock(&vm).await;
                self.mount_inside(&vm, progress).await;
                return Ok(());
            }
            Phase::Suspended | Phase::Made => {}
        }
        self.power_on(&vm, From::Boot, accelerator, progress)
            .await?;
        self.wait_ready(&vm, accelerator, progress).await?;
        self.mount_inside(&vm, progress).await;
        Ok(())
    }

    /// Powers off and waits until it is.
    pub(super) async fn stop(
        &self,
        name: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        progress.stage(Stage::Stopping);
        match mode {
            StopMode::Forced => self.force_off(&vm).await,
            StopMode::Graceful => shut_down(&vm).await?,
        }
        vm.ended_as_asked()
    }

    /// Reboots and waits until it is ready again.
    pub(super) async fn restart(
        &self,
        name: &VmName,
        accelerator: Accelerator,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        progress.stage(Stage::Restarting);
        shut_down(&vm).await?;
        vm.ended_as_asked()?;
        self.start(name, accelerator, progress).await
    }

    /// Writes memory to disk and powers off. Once begun it goes to its end: half-way back the VM would stand still.
    pub(super) async fn suspend(
        &self,
        name: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        let Some(process) = vm.process() else {
            return match vm.record().phase {
                Phase::Suspended => Ok(()),
                _ => Err(not_running(name)),
            };
        };
        progress.stage(Stage::Suspending);
        self.take_all_out(&vm, progress).await?;
        let (name, telling) = (name.clone(), progress.clone());
        let of = Arc::clone(&vm);
        let suspended = self.to_the_end(async move {
            let (vm, progress) = (of, telling);
            let saved = qmp::save_memory(&vm.dir, |percent| progress.percent(percent)).await;
            if let Err(error) = saved {
                let _ = qmp::go_on(&vm.dir).await;
                return Err(qmp_failed(&name, &error));
            }
            vm.update(|record| record.phase = Phase::Suspended)?;
            quit(&vm, process).await;
            vm.ended_as_asked()
        });
        let suspended = suspended.await;
        if suspended.is_err() {
            self.mount_inside(&vm, progress).await;
        }
        suspended
    }

    /// Stops the VM if it runs and moves it to the trash.
    pub(super) async fn delete(
        &self,
        name: &VmName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        match vm.record().phase {
            Phase::Trashed => return Ok(()),
            Phase::Making => return Err(half_made(name)),
            Phase::Suspended | Phase::Made => {}
        }
        if vm.process().is_some() {
            progress.stage(Stage::Stopping);
            if shut_down(&vm).await.is_err() {
                progress.log("it did not shut down: pulling the plug");
                self.force_off(&vm).await;
            }
        }
        progress.stage(Stage::Deleting);
        if vm.record().phase == Phase::Suspended {
            vm.dir.layer().forget_memory().await?;
        }
        vm.update(|record| {
            record.phase = Phase::Trashed;
            record.ended = None;
        })?;
        self.changed();
        Ok(())
    }

    /// Takes the VM out of the trash.
    pub(super) fn recover(&self, name: &VmName, progress: &Progress) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        progress.stage(Stage::Recovering);
        if vm.record().phase == Phase::Trashed {
            vm.ended_as_asked()?;
            vm.update(|record| record.phase = Phase::Made)?;
            self.changed();
        }
        Ok(())
    }

    /// Opens a shell or the console.
    pub(super) async fn attach(
        &self,
        name: &VmName,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Pty, DriverError> {
        let vm = self.get(name)?;
        let process = vm.process().ok_or_else(|| not_running(name))?;
        match kind {
            TerminalKind::Console => {
                let turn = Arc::clone(&vm.console_turn);
                let turn = turn.try_lock_owned().map_err(|_| {
                    DriverError::IllegalState(format!(
                        "the console of VM `{name}` is open in another terminal: attach to that one, or close it"
                    ))
                })?;
                console::attach(&vm.dir, size, turn).await
            }
            TerminalKind::Shell => {
                let record = vm.record();
                let port = record.ssh_port.ok_or_else(|| not_running(name))?;
                let target = Target::of(&vm.dir, port, &record.manifest.user)?;
                let open = async { target.connect(SIGN_IN).await?.shell(size, process).await };
                open.await.map_err(|error| ssh_failed(name, &error))
            }
        }
    }

    /// Pulls the plug.
    async fn force_off(&self, vm: &Vm) {
        if let Some(process) = vm.process() {
            quit(vm, process).await;
        }
    }
}

/// Starts QEMU and waits until it answers; `None` when somebody else took its port first.
async fn spawn(
    vm: &Vm,
    machine: &Machine<'_>,
    taps: &[OwnedFd],
) -> Result<Option<(Process, Detached)>, DriverError> {
    for stale in [
        file::PID,
        file::QMP,
        file::CONSOLE,
        file::CONSOLE_LOG,
        file::DISPLAY,
    ] {
        files::remove(&vm.dir.file(stale))?;
    }
    let path = vm.dir.file(file::QEMU_LOG);
    let log = files::create(&path).map_err(|error| files::io_error("make", &path, &error))?;
    let mut command = Command::new(super::program()?)
        .args(machine.args())
        .current_dir(vm.dir.path());
    for (tap, number) in taps.iter().zip(FIRST_TAP..) {
        let tap = tap
            .try_clone()
            .map_err(|error| DriverError::failed(format!("cannot hand a tap to QEMU: {error}")))?;
        command = command.inherit(tap, number);
    }
    let mut child = command
        .spawn_detached(Some(&log))
        .map_err(super::missing_or_failed)?;
    let process = child
        .id()
        .and_then(|id| Process::started(id, machine.record.instance));
    let deadline = Instant::now() + SPAWN;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            let said = std::fs::read(&path).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if said.contains("Could not set up host forwarding rule") {
                return Ok(None);
            }
            return Err(DriverError::Failed {
                detail: format!(
                    "QEMU did not start VM `{}`: {}",
                    machine.record.name,
                    last_lines(&said, 1)
                        .pop()
                        .unwrap_or_else(|| status.to_string())
                ),
                hint: hint(&said),
                log: last_lines(&said, 20),
            });
        }
        if let Some(process) = process
            && qmp::status(&vm.dir).await.is_ok()
        {
            if machine.display == Display::Vga
                && let Err(error) = files::make_private(&vm.dir.file(file::DISPLAY))
            {
                process.kill();
                return Err(error);
            }
            return Ok(Some((process, child)));
        }
        if Instant::now() >= deadline {
            if let Some(process) = process {
                process.kill();
            }
            return Err(DriverError::Timeout(format!(
                "QEMU did not open its control socket for VM `{}` within {} s",
                machine.record.name,
                SPAWN.as_secs()
            )));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What helps against the errors of QEMU that people meet.
fn hint(said: &str) -> Option<String> {
    let hint = if said.contains("cannot set up guest memory") || said.contains("Cannot allocate") {
        "give the VM less memory, or stop others first"
    } else if said.contains("KVM") || said.contains("kvm") {
        "KVM refused; remove acceleration.json in the state folder to have it tested again"
    } else if said.contains("vgabios") || said.contains("keymap") || said.contains("VNC") {
        "parts of QEMU are not installed (Debian, Ubuntu: `apt-get install seabios qemu-system-data`)"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn free_port() -> Result<u16, DriverError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| DriverError::failed(format!("cannot find a free port: {error}")))
}

/// Presses the power button until the VM's system has shut down.
async fn shut_down(vm: &Vm) -> Result<(), DriverError> {
    let Some(process) = vm.process() else {
        return Ok(());
    };
    let name = vm.record().name;
    vm.end_expected.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + SHUT_DOWN;
    while Instant::now() < deadline {
        if let Err(error) = qmp::power_button(&vm.dir).await
            && process.lives()
        {
            vm.end_expected.store(false, Ordering::Relaxed);
            return Err(qmp_failed(&name, &error));
        }
        if process.ended_within(PRESS).await {
            return Ok(());
        }
    }
    vm.end_expected.store(false, Ordering::Relaxed);
    Err(DriverError::Timeout(format!(
        "VM `{name}` did not shut down within {} s: stop it by force",
        SHUT_DOWN.as_secs()
    )))
}

async fn quit(vm: &Vm, process: Process) {
    vm.end_expected.store(true, Ordering::Relaxed);
    let _ = qmp::quit(&vm.dir).await;
    if !process.ended_within(QUIT).await {
        process.kill();
        process.ended().await;
    }
}

/// A VM that goes on from memory believes that no time has passed.
async fn set_clock(vm: &Vm) {
    let record = vm.record();
    let Some(port) = record.ssh_port else { return };
    let Ok(target) = Target::of(&vm.dir, port, &record.manifest.user) else {
        return;
    };
    if let Ok(session) = target.connect(SIGN_IN).await {
        let now = Timestamp::now().as_second();
        let command = format!("date -u -s @{now} || sudo -n date -u -s @{now}");
        let _ = session.run(&command).await;
        session.close().await;
    }
}
