//! Getting into VMs beside terminals: commands, files, connections to ports, and displays.
//!
//! All of it belongs to its caller: it ends when the caller goes, and nothing of it outlives the agent. Nothing here
//! starts a VM.

mod exec;
mod files;
mod scripts;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use batwa_api::{
    exec::ExecCommand,
    file::UploadId,
    name::VmName,
    problem::{Problem, ProblemCode},
    vm::VmAction,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::{
    exec::{ExecInput, ExecOutput, Running},
    files::{Reading, Wanted, Writing},
};
use crate::{
    config::Limits,
    driver::{Connection, Driver, DriverError},
    operations::error_of,
    vms::Inventory,
    watch::Picture,
};

/// How long getting in may take; a VM under load takes its time to let one in.
const ENTER_DEADLINE: Duration = Duration::from_secs(60);
/// Most viewers of one display: QEMU takes 32, those included whose end it has not noticed, and turns further ones out
/// without a word.
const MAX_VIEWERS: usize = 30;

/// The ways in.
#[derive(Debug)]
pub(crate) struct Inside {
    picture: Arc<Picture>,
    inventory: Arc<Inventory>,
    places: Arc<Semaphore>,
    /// Those of callers whom nobody let in by name: they keep none of the others out.
    strangers: Arc<Semaphore>,
    uploads: Mutex<HashMap<(VmName, UploadId), Weak<UploadLock>>>,
    visits: Mutex<HashMap<VmName, Weak<()>>>,
    /// Places before each display.
    displays: Mutex<HashMap<VmName, Weak<Semaphore>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Held while something writes to an upload.
type UploadLock = tokio::sync::Mutex<()>;

/// The right to be inside a VM, while it is held.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _visit: Arc<()>,
    /// The place before the display, where it is that which is shown.
    viewer: Option<OwnedSemaphorePermit>,
}

impl Inside {
    pub(crate) fn new(
        limits: Limits,
        picture: Arc<Picture>,
        inventory: Arc<Inventory>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            picture,
            inventory,
            places: Arc::new(Semaphore::new(limits.inside)),
            strangers: Arc::new(Semaphore::new(limits.inside)),
            uploads: Mutex::default(),
            visits: Mutex::default(),
            displays: Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Runs a command in a VM.
    ///
    /// # Errors
    /// A problem that says why not: its fields, no such VM, its state, its driver, too many at once.
    pub(crate) async fn exec(
        &self,
        vm: &VmName,
        command: &ExecCommand,
    ) -> Result<Running, Problem> {
        let errors = command.check();
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        let (driver, place) = self.enter(vm, VmAction::Shell, "run a command in")?;
        let exec = within(vm, driver.exec(vm, command)).await?;
        Ok(Running::new(
            exec,
            command.timeout_s,
            place,
            self.stop.clone(),
        ))
    }

    /// Connects to a port inside a VM.
    ///
    /// # Errors
    /// As [`Self::exec`]; nobody listens there.
    pub(crate) async fn connect(
        &self,
        vm: &VmName,
        port: u16,
    ) -> Result<(Connection, Place), Problem> {
        let (driver, place) = self.enter(vm, VmAction::Shell, "connect to")?;
        let connection = within(vm, driver.connect(vm, port)).await?;
        Ok((connection, place))
    }

    /// The same for somebody who came by a saved forward. All of those together have as many places as the master's callers
    /// have.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_for_stranger(
        &self,
        vm: &VmName,
        port: u16,
    ) -> Result<(Connection, Place), Problem> {
        let (driver, place) = self.enter_by(&self.strangers, vm, VmAction::Shell, "connect to")?;
        let connection = within(vm, driver.connect(vm, port)).await?;
        Ok((connection, place))
    }

    /// Connects to the display of a VM.
    ///
    /// # Errors
    /// As [`Self::exec`]; it was started without one; as many look at it as may.
    pub(crate) async fn display(&self, vm: &VmName) -> Result<(Connection, Place), Problem> {
        let (driver, mut place) = self.enter(vm, VmAction::Display, "show the display of")?;
        place.viewer = Some(self.viewer(vm)?);
        let connection = within(vm, driver.display(vm)).await?;
        Ok((connection, place))
    }

    /// Whether somebody is inside a VM by these ways.
    pub(crate) fn is_visited(&self, vm: &VmName) -> bool {
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.get(vm).is_some_and(|visit| visit.strong_count() > 0)
    }

    fn visit(&self, vm: &VmName) -> Arc<()> {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.retain(|_, visit| visit.strong_count() > 0);
        let there = visits.get(vm).and_then(Weak::upgrade);
        there.unwrap_or_else(|| {
            let visit = Arc::new(());
            visits.insert(vm.clone(), Arc::downgrade(&visit));
            visit
        })
    }

    fn viewer(&self, vm: &VmName) -> Result<OwnedSemaphorePermit, Problem> {
        let mut displays = self.displays.lock().unwrap_or_else(PoisonError::into_inner);
        displays.retain(|_, places| places.strong_count() > 0);
        let entry = displays.entry(vm.clone()).or_default();
        let places = entry.upgrade().unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(MAX_VIEWERS));
            *entry = Arc::downgrade(&places);
            places
        });
        places.try_acquire_owned().map_err(|_| {
            Problem::new(
                ProblemCode::TooManyRequests,
                format!(
                    "{MAX_VIEWERS} viewers look at the display of VM `{vm}`, and more cannot: try again when one has gone"
                ),
            )
        })
    }

    fn upload_lock(&self, vm: &VmName, upload: &UploadId) -> Arc<UploadLock> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, lock| lock.strong_count() > 0);
        let entry = uploads.entry((vm.clone(), upload.clone())).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let lock = Arc::new(UploadLock::default());
            *entry = Arc::downgrade(&lock);
            lock
        })
    }

    /// The driver of a VM that can be got into for `action`, and a place. `what` says that action before a VM's name.
    fn enter(
        &self,
        vm: &VmName,
        action: VmAction,
        what: &str,
    ) -> Result<(Arc<dyn Driver>, Place), Problem> {
        self.enter_by(&self.places, vm, action, what)
    }

    fn enter_by(
        &self,
        places: &Arc<Semaphore>,
        vm: &VmName,
        action: VmAction,
        what: &str,
    ) -> Result<(Arc<dyn Driver>, Place), Problem> {
        let known = self.picture.shown_vm(vm).ok_or_else(|| {
            Problem::new(ProblemCode::NotFound, format!("VM `{vm}` does not exist"))
        })?;
        if let Some(reason) = known.actions.refusal(action) {
            return Err(Problem::new(
                ProblemCode::IllegalState,
                format!("cannot {what} VM `{vm}`: {reason}"),
            ));
        }
        let driver = self
            .inventory
            .driver(known.vm.driver)
            .map_err(|error| error_of(&error).to_problem())?;
        let permit = Arc::clone(places).try_acquire_owned().map_err(|_| {
            Problem::new(
                ProblemCode::TooManyRequests,
                "too many commands, transfers and connections into VMs are open on this machine: try again when some have ended",
            )
        })?;
        let place = Place {
            _permit: permit,
            _visit: self.visit(vm),
            viewer: None,
        };
        Ok((driver, place))
    }
}

/// What a driver answers within the deadline.
async fn within<T>(
    vm: &VmName,
    work: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, Problem> {
    timeout(ENTER_DEADLINE, work)
        .await
        .map_err(|_| {
            Problem::new(
                ProblemCode::Timeout,
                format!(
                    "VM `{vm}` let nobody in within {} s",
                    ENTER_DEADLINE.as_secs()
                ),
            )
        })?
        .map_err(|error| error_of(&error).to_problem())
}
