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
    name::VmName,
    operation::{OperationKind, OperationRequest},
    problem::{FieldError, Problem, ProblemCode},
    vm::{AgentReason, RestartPolicy, SettingsChange, ShownVm},
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
        let knows_boots = self.clock.boot_id().is_some();
        let crashed = self.inventory.has_crashed(name);
        let now = self.clock.now();
        let mut errors = Vec::new();
        let written = self
            .book
            .change(name, |kept| {
                errors = change.check(&kept.settings, &capabilities);
                if change.autostart.flatten().is_some() && !knows_boots {
                    errors.push(FieldError::new(
                        "settings.autostart",
                        "this machine does not say when it was booted",
                    ));
                }
                if errors.is_empty() {
                    take(kept, change, crashed, now);
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

    /// Takes that an operation on a VM begins for the first time.
    pub(crate) async fn begins(&self, vm: &VmName, kind: OperationKind) {
        // What was wanted of another VM of this name is not wanted of the new one.
        if kind == OperationKind::Create {
            self.forget(vm).await;
        }
    }

    /// Takes that an operation has done its work, before its end is told.
    pub(crate) async fn done(&self, vm: &VmName, request: &OperationRequest) {
        match request {
            OperationRequest::Purge => self.forget(vm).await,
            OperationRequest::Create { spec } if !spec.networks.is_empty() => {
                let kept = Kept {
                    cards: spec.networks.clone(),
                    ..Kept::default()
                };
                self.set(vm, kept).await;
            }
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
