//! What is done about VMs without anybody asking at that moment: their settings, kept and carried out.
//!
//! People's wishes for one VM are written down first ([`book`]), then gone by: one task looks at every VM that has any
//! ([`mod@run`]), a pure function says what is due ([`decide`]), and what is due becomes an operation like any other, with
//! the agent's reason as the one who asked. A machine's boot is told from a mere restart of the agent by the boot's id
//! ([`boot`]). Nothing here touches a VM that has no settings.
//!
//! ```text
//! PATCH ─► book (a file for each VM) ─► inventory: the VM as shown
//!            ▲                            │
//!            └── decide ◄── run ◄─────────┘ ──► Operations
//! ```
//!
//! Saved forwards are kept in the same book, and brought about by a task of their own ([`forwards`]), which no slow driver
//! holds up.

mod book;
mod boot;
mod clock;
mod decide;
mod forwards;
mod idle;
mod run;

use std::{path::Path, sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    agent::Capabilities,
    name::VmName,
    operation::OperationRequest,
    problem::{FieldError, Problem, ProblemCode},
    vm::{AgentReason, RestartPolicy, SettingsChange, ShownVm, VmSettings, VmSpec, VmState},
};
use tokio::sync::Notify;
use tracing::warn;

pub use self::clock::Clock;
use self::{
    book::{Book, Kept},
    decide::Crashes,
};
pub(crate) use self::{forwards::Forwards, run::run};
use crate::{vms::Inventory, watch::Picture};

/// The settings of this machine's VMs, and what is on the way because of them.
#[derive(Debug)]
pub(crate) struct Upkeep {
    picture: Arc<Picture>,
    inventory: Arc<Inventory>,
    book: Book,
    clock: Clock,
    /// How long a VM stays in the trash; for ever when absent.
    trash_kept: Option<Duration>,
    /// Something changed that may make something due.
    wake: Notify,
    /// What is saved of forwards changed.
    forwards_changed: Notify,
}

impl Upkeep {
    /// What a state folder holds, shown with the VMs from now on.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn open(
        state_dir: &Path,
        picture: Arc<Picture>,
        inventory: Arc<Inventory>,
        clock: Clock,
        trash_kept: Option<Duration>,
    ) -> std::io::Result<Self> {
        let book = Book::open(&state_dir.join("upkeep"), Arc::clone(&inventory))?;
        Ok(Self {
            picture,
            inventory,
            book,
            clock,
            trash_kept,
            wake: Notify::new(),
            forwards_changed: Notify::new(),
        })
    }

    /// Changes a VM's settings: written down before they are gone by. The VM as it is shown from then on.
    ///
    /// # Errors
    /// A problem that names the field, that there is no such VM, or that the disk does not take it; nothing has
    /// changed then.
    pub(crate) async fn change(
        &self,
        name: &VmName,
        change: &SettingsChange,
    ) -> Result<ShownVm, Problem> {
        let no_such_vm =
            || Problem::new(ProblemCode::NotFound, format!("VM `{name}` does not exist"));
        let vm = self.picture.vm(name).ok_or_else(no_such_vm)?;
        let capabilities = self.inventory.capabilities(vm.driver);
        let crashed = self.inventory.has_crashed(name);
        let is_made = vm.state != VmState::Creating && vm.operations.is_empty();
        let made_at = vm.created_at.filter(|_| is_made);
        let now = self.clock.now();
        let mut errors = Vec::new();
        let written = self
            .book
            .change(name, |kept| {
                if kept.is_of_another(made_at) {
                    *kept = Kept::default();
                }
                errors = change.check(&kept.settings, &capabilities);
                errors.extend(self.check_boots(change));
                if errors.is_empty() {
                    take(kept, change, crashed, now);
                    *kept = std::mem::take(kept).of(made_at);
                }
            })
            .await;
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        written.map_err(|error| {
            Problem::new(
                ProblemCode::Internal,
                format!(
                    "cannot write the settings of VM `{name}` down: {error}; see whether the agent's disk is full"
                ),
            )
        })?;
        self.wake.notify_one();
        self.picture.shown_vm(name).ok_or_else(no_such_vm)
    }

    /// What is wrong with the settings that a VM is to be made with, field by field.
    pub(crate) fn check_new(&self, spec: &VmSpec, capabilities: &Capabilities) -> Vec<FieldError> {
        let mut errors = spec.check_settings(capabilities);
        errors.extend(spec.wanted_settings().and_then(|it| self.check_boots(it)));
        errors
    }

    fn check_boots(&self, change: &SettingsChange) -> Option<FieldError> {
        let wanted = change.autostart.flatten().is_some();
        (wanted && self.clock.boot_id().is_none()).then(|| {
            FieldError::new(
                "settings.autostart",
                "this machine does not say when it was booted",
            )
        })
    }

    /// Takes that an operation on a VM is about to begin: it may be said again after a crash. When this returns, a VM
    /// that is to be made has its settings.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) async fn begins(
        &self,
        vm: &VmName,
        request: &OperationRequest,
    ) -> std::io::Result<()> {
        let OperationRequest::Create { spec } = request else {
            return Ok(());
        };
        let now = self.clock.now();
        let kept = Kept {
            settings: spec
                .wanted_settings()
                .map(|wanted| wanted.apply(&VmSettings::default(), now))
                .unwrap_or_default(),
            cards: spec.networks.clone(),
            ..Kept::default()
        };
        self.inventory.show_notices(vm, Vec::new());
        self.inventory.show_forwards(vm, Vec::new());
        // What was wanted of another VM of this name is not wanted of the new one.
        self.book.change(vm, |before| *before = kept).await?;
        self.forwards_changed.notify_one();
        Ok(())
    }

    /// Takes that a VM that was to be made is not there after all.
    pub(crate) async fn not_made(&self, vm: &VmName) {
        self.forget(vm).await;
    }

    /// Takes that an operation has done its work, before its end is told.
    pub(crate) async fn done(&self, vm: &VmName, request: &OperationRequest) {
        match request {
            OperationRequest::Purge => self.forget(vm).await,
            OperationRequest::Create { spec } => self.came_up(vm, spec).await,
            OperationRequest::Clone(options) => {
                let settings = self.book.get(vm).settings.for_clone();
                let kept = Kept {
                    settings,
                    ..Kept::default()
                };
                self.set(&options.name, kept).await;
            }
            _ => {}
        }
        self.wake.notify_one();
    }

    /// A VM's lifetime is the time that people have of it: making it does not count.
    async fn came_up(&self, vm: &VmName, spec: &VmSpec) {
        let wanted = spec.wanted_settings().and_then(|wanted| wanted.lifetime);
        let Some(lifetime) = wanted.flatten() else {
            return;
        };
        let lifetime = lifetime.from(self.clock.now());
        let begun = self.book.change(vm, |kept| {
            // Somebody may have thought better of it meanwhile.
            if kept.settings.revision == 1 && kept.settings.lifetime.is_some() {
                kept.settings.lifetime = Some(lifetime);
            }
        });
        if let Err(error) = begun.await {
            warn!(vm.name = %vm, "cannot begin the lifetime of VM `{vm}` anew: {error}");
        }
    }

    async fn forget(&self, vm: &VmName) {
        self.set(vm, Kept::default()).await;
        self.inventory.show_notices(vm, Vec::new());
        self.inventory.show_forwards(vm, Vec::new());
        self.forwards_changed.notify_one();
    }

    async fn set(&self, vm: &VmName, kept: Kept) {
        if let Err(error) = self.book.change(vm, |before| *before = kept).await {
            warn!(vm.name = %vm, "cannot write the settings of VM `{vm}` down: {error}");
        }
    }
}

/// Takes a change in, with what follows from it for what is on the way.
fn take(kept: &mut Kept, change: &SettingsChange, crashed: bool, now: Timestamp) {
    kept.settings = change.apply(&kept.settings, now);
    if change.restart.is_some() {
        kept.crashes = match kept.settings.restart {
            // It is asked for from now on: an earlier crash is somebody's to look at.
            RestartPolicy::OnCrash => Crashes {
                noted: crashed,
                ..Crashes::default()
            },
            RestartPolicy::Never => Crashes::default(),
        };
    }
    // What was begun for the wish of before says nothing of this one.
    let anew = |reason| match reason {
        AgentReason::Lifetime => change.lifetime.is_some(),
        AgentReason::Crash => change.restart.is_some(),
        AgentReason::Idle => change.idle_stop.is_some(),
        AgentReason::Autostart => change.autostart.is_some(),
        AgentReason::Trash => false,
    };
    kept.asked = kept.asked.filter(|asked| !anew(asked.reason));
    if kept
        .failed
        .as_ref()
        .is_some_and(|failed| anew(failed.reason))
    {
        kept.failed = None;
    }
}
