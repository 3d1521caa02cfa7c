//! One trait for every way of running VMs, and what passes through it.
//!
//! The rest of the agent knows drivers only by [`Driver`]. The contract is in the doc comments here and in
//! the suite `tests/it/driver_contract.rs` that every driver runs.

pub mod command;
pub mod fake;
pub mod inside;
mod keeper;
pub mod multipass;
pub(crate) mod open;
pub mod pty;
pub mod qemu;

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use batwa_api::{
    Timestamp,
    agent::{Acceleration, Capabilities, DriverKind},
    exec::ExecCommand,
    image::{Image, ImageName},
    name::{SnapshotName, VmName},
    operation::Stage,
    problem::ProblemCode,
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::{
        HostNetwork, MAX_MOUNTS, Mount, MountOptions, Readiness, ResizeOptions, Snapshot,
        VmNetwork, VmSpec, VmState, VmUsage,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
};

use self::inside::Exec;
pub(crate) use self::keeper::used_by;
pub use self::keeper::{ImageKeeper, Part, Upload};
use crate::policy::Refusal;

/// One way of running VMs on this host.
///
/// Every method is idempotent: cancelled by dropping its future, or failed half-way, it can simply be called
/// again, and [`Driver::purge`] removes whatever a cut-off [`Driver::create`] left. A method that finds its work
/// done already succeeds. The caller owns the deadline, keeps commands for one VM in a row, and asks for nothing
/// that [`batwa_api::vm::VmAction::refusal`] forbids; what others do to the VM meanwhile is the driver's to meet.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Which driver this is.
    fn kind(&self) -> DriverKind;

    /// Finds out whether the program behind the driver is there and answers, and what it can do.
    async fn probe(&self) -> Result<Probe, DriverError>;

    /// All VMs, cheaply: called every few seconds. Details may be those of the last [`Driver::inspect`].
    async fn observe(&self) -> Result<Vec<ObservedVm>, DriverError>;

    /// One VM with addresses, sizes and usage: called after a change and while somebody looks.
    ///
    /// # Errors
    /// [`DriverError::NotFound`] when there is no such VM.
    async fn inspect(&self, vm: &VmName) -> Result<ObservedVm, DriverError>;

    /// Resolves each time the driver itself saw a change, so that [`Driver::observe`] is called at once; `None`
    /// where it cannot see one.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// What can be launched here. Answers from what is known; never waits for an image server for long.
    async fn images(&self) -> Result<Vec<Image>, DriverError>;

    /// This machine's networks that a new VM can be put on, whether the machine's policy lets it or not. Quick.
    async fn networks(&self) -> Result<Vec<HostNetwork>, DriverError> {
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot put VMs on networks of this machine",
            self.kind()
        )))
    }

    /// The driver's own images; `None` where another program keeps them, with no way to it.
    fn image_keeper(&self) -> Option<&dyn ImageKeeper> {
        None
    }

    /// Refuses, before an operation is accepted, a spec that cannot work: unknown image, user-data that is no
    /// YAML. Quick, changes nothing.
    async fn check(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError>;

    /// Makes a VM, starts it, and waits until it is ready.
    ///
    /// # Errors
    /// [`DriverError::NameTaken`]; [`DriverError::Invalid`]; anything else that kept it from becoming ready, with
    /// the last lines of its console where there is one. After an error nothing of the VM is left, unless it runs
    /// and only did not become ready: then it stays for the user to look at, and the error says so.
    async fn create(
        &self,
        vm: &VmName,
        spec: &VmSpec,
        progress: &Progress,
    ) -> Result<(), DriverError>;

    /// Powers on and waits until it is ready. Also resumes a suspended VM.
    async fn start(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Powers off and waits until it is.
    async fn stop(
        &self,
        vm: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError>;

    /// Reboots and waits until it is ready again.
    async fn restart(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Writes memory to disk and powers off.
    async fn suspend(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Stops the VM if it runs and moves it to the trash.
    async fn delete(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Takes the VM out of the trash; it is stopped then.
    async fn recover(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Removes the VM for good, whatever its state, and whatever a cut-off create left. A VM that does not exist
    /// is success.
    async fn purge(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError>;

    /// Keeps the disk of a VM that is off as it is now.
    ///
    /// # Errors
    /// [`DriverError::SnapshotTaken`]; [`DriverError::IllegalState`] when the VM is not off.
    async fn snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, name, comment, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Takes a VM that is off back to a snapshot, its size included; what its disk held is gone.
    ///
    /// # Errors
    /// [`DriverError::NoSnapshot`]; [`DriverError::IllegalState`] when the VM is not off.
    async fn restore(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, snapshot, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Removes a snapshot of a VM that is off; those that came from it go on from its parent. One that does not exist
    /// is success.
    async fn delete_snapshot(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, snapshot, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Makes another VM of one that is off, from its disk or one of its snapshots, with an identity of its own
    /// (machine id, host keys, host name), and leaves it off. While it is being made `target` is observed as
    /// [`VmState::Creating`]; what a cut-off call left of it is made anew.
    ///
    /// # Errors
    /// [`DriverError::NameTaken`]; [`DriverError::NoSnapshot`]; [`DriverError::IllegalState`] when the VM is not off.
    async fn clone_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, target, snapshot, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Changes the size of a VM that is off; its disk only grows, and its system takes the new room in by itself where
    /// it can.
    ///
    /// # Errors
    /// [`DriverError::Invalid`]; [`DriverError::IllegalState`] when the VM is not off.
    async fn resize(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, size, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Lets a VM see a folder of this machine, now or from its next start on: [`ObservedVm::mounts`] says which. One that
    /// is mounted there already is success. Whatever [`MountOptions::check`] refuses does not come here.
    ///
    /// # Errors
    /// [`DriverError::Policy`] when the VM may not see that folder; [`DriverError::Invalid`].
    async fn mount(
        &self,
        vm: &VmName,
        mount: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, mount, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Takes the folder at `target`, or all of them, out of a VM. One that is not mounted is success. The folder itself
    /// stays as it is.
    async fn umount(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let _ = (vm, target, progress);
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot do this",
            self.kind()
        )))
    }

    /// Opens a shell or the console of a running VM.
    ///
    /// # Errors
    /// [`DriverError::IllegalState`] when it does not run: a shell never starts a VM.
    async fn attach(
        &self,
        vm: &VmName,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Pty, DriverError>;

    /// Runs a command inside a running VM, as the account that shells have. Whatever [`ExecCommand::check`] refuses
    /// does not come here.
    ///
    /// # Errors
    /// [`DriverError::IllegalState`] when the VM does not run: a command never starts one. A program that is not
    /// there is no error but an end with code 127.
    async fn exec(&self, vm: &VmName, command: &ExecCommand) -> Result<Exec, DriverError>;

    /// Connects to a TCP port inside a running VM.
    ///
    /// # Errors
    /// [`DriverError::IllegalState`] when the VM does not run; [`DriverError::Refused`] when nobody listens there.
    async fn connect(&self, vm: &VmName, port: u16) -> Result<Connection, DriverError>;

    /// Connects to the display of a running VM: a stream of RFB, as VNC speaks it, that asks for no password. Several
    /// may be connected; dropping one leaves the others.
    ///
    /// # Errors
    /// [`DriverError::IllegalState`] when the VM does not run, or was started without a display.
    async fn display(&self, vm: &VmName) -> Result<Connection, DriverError> {
        let _ = vm;
        Err(DriverError::Unsupported(format!(
            "the {} driver cannot show displays",
            self.kind()
        )))
    }

    /// A path as the VM's programs take it. Where VMs share this machine's files, only what is the VM's.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] when it leads out of the VM.
    fn path_inside(&self, _vm: &VmName, path: &str) -> Result<String, DriverError> {
        Ok(path.to_owned())
    }
}

/// A byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection to a port inside a VM, or to its display. Shutting it down ends one direction, dropping it both.
pub type Connection = Box<dyn ByteStream>;

/// What [`Driver::probe`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The version of the program behind the driver.
    pub version: Option<String>,
    /// What the driver can do here.
    pub capabilities: Capabilities,
    /// How VMs' CPUs run, where the driver decides that.
    pub acceleration: Option<Acceleration>,
}

/// One VM as the driver sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedVm {
    /// Its name.
    pub name: VmName,
    /// What it is doing.
    pub state: VmState,
    /// Why, when there is something to say.
    pub message: Option<String>,
    /// How usable it is while it runs; `None` where the driver cannot tell.
    pub readiness: Option<Readiness>,
    /// Addresses, most useful first.
    pub ipv4: Vec<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// The operating system, for people.
    pub release: Option<String>,
    /// Number of virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory size.
    pub memory: Option<ByteSize>,
    /// Disk size.
    pub disk: Option<ByteSize>,
    /// What it uses.
    pub usage: Option<VmUsage>,
    /// `kvm` or `tcg`, where known.
    pub acceleration: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last powered on.
    pub started_at: Option<Timestamp>,
    /// When it will be stopped, when that was asked for.
    pub shutdown_at: Option<Timestamp>,
    /// Where its disk and other files are.
    pub location: Option<String>,
    /// What it can go back to, the oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The folders of this machine that it sees, or will.
    pub mounts: Vec<Mount>,
    /// Its network cards beside the first; empty where the driver does not tell.
    pub networks: Vec<VmNetwork>,
    /// Whether it is off because it ended without having been asked to, by anybody or from inside; until it is started
    /// again. Never where the driver cannot tell, see [`Capabilities::crashes`].
    pub crashed: bool,
}

impl ObservedVm {
    /// A VM of which nothing but name and state is known.
    #[must_use]
    pub fn new(name: VmName, state: VmState) -> Self {
        Self {
            name,
            state,
            message: None,
            readiness: None,
            ipv4: Vec::new(),
            image: None,
            release: None,
            cpus: None,
            memory: None,
            disk: None,
            usage: None,
            acceleration: None,
            created_at: None,
            started_at: None,
            shutdown_at: None,
            location: None,
            snapshots: Vec::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            crashed: false,
        }
    }
}

/// How to power off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ask the VM's system, and wait for it.
    Graceful,
    /// Pull the plug.
    Forced,
}

/// Why a driver did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There is no such VM.
    #[error("VM `{0}` does not exist")]
    NotFound(VmName),
    /// The name is taken, perhaps by a VM in the trash.
    #[error("a VM named `{0}` exists already")]
    NameTaken(VmName),
    /// The VM has no such snapshot.
    #[error("VM `{vm}` has no snapshot `{snapshot}`")]
    NoSnapshot {
        /// The VM.
        vm: VmName,
        /// What was asked for.
        snapshot: SnapshotName,
    },
    /// The VM has a snapshot of that name.
    #[error("VM `{vm}` has a snapshot `{snapshot}` already")]
    SnapshotTaken {
        /// The VM.
        vm: VmName,
        /// What was asked for.
        snapshot: SnapshotName,
    },
    /// There is no such image, or nothing of it is here.
    #[error("nothing of image `{0}` is here")]
    NoImage(ImageName),
    /// Another image goes by that name.
    #[error("an image named `{0}` exists already")]
    ImageTaken(ImageName),
    /// An image cannot be removed now.
    #[error("cannot remove image `{image}`: {reason}")]
    ImageInUse {
        /// The image.
        image: ImageName,
        /// Who uses it.
        reason: String,
    },
    /// No disk space is left for it; the text has the numbers.
    #[error("{0}")]
    NoSpace(String),
    /// A field of the spec cannot be.
    #[error("{message}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// The policy of this machine does not allow it.
    #[error(transparent)]
    Policy(#[from] Refusal),
    /// The VM's state does not allow it.
    #[error("{0}")]
    IllegalState(String),
    /// This driver cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The program behind the driver is not there; the text says what to install or start.
    #[error("{0}")]
    Missing(String),
    /// The program behind the driver does not answer.
    #[error("{0}")]
    Stuck(String),
    /// Nobody in the VM takes the connection.
    #[error("{0}")]
    Refused(String),
    /// It took longer than it may.
    #[error("{0}")]
    Timeout(String),
    /// It failed.
    #[error("{detail}")]
    Failed {
        /// What happened, to what.
        detail: String,
        /// What to do about it.
        hint: Option<String>,
        /// The last lines that the driver's program or the VM's console printed.
        log: Vec<String>,
    },
}

impl DriverError {
    /// A failure with nothing more to say.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self::Failed {
            detail: detail.into(),
            hint: None,
            log: Vec::new(),
        }
    }

    /// A VM has as many mounts as one may have.
    pub(crate) fn too_many_mounts(vm: &VmName) -> Self {
        Self::IllegalState(format!(
            "VM `{vm}` has {MAX_MOUNTS} mounts, and cannot have more: `umount` some"
        ))
    }

    /// The kind of problem that a caller of the agent API sees.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::NotFound(_) | Self::NoSnapshot { .. } | Self::NoImage(_) => ProblemCode::NotFound,
            Self::NameTaken(_) | Self::SnapshotTaken { .. } | Self::ImageTaken(_) => {
                ProblemCode::NameTaken
            }
            Self::ImageInUse { .. } => ProblemCode::Conflict,
            Self::NoSpace(_) => ProblemCode::StorageFull,
            Self::Invalid { .. } => ProblemCode::InvalidField,
            Self::Policy(_) => ProblemCode::PolicyForbids,
            Self::IllegalState(_) => ProblemCode::IllegalState,
            Self::Unsupported(_) => ProblemCode::Unsupported,
            Self::Missing(_) | Self::Stuck(_) => ProblemCode::DriverStuck,
            Self::Refused(_) => ProblemCode::ConnectionRefused,
            Self::Timeout(_) => ProblemCode::Timeout,
            Self::Failed { .. } => ProblemCode::AgentFailed,
        }
    }
}

/// Where a driver says how far it is. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressUpdate) + Send + Sync>);

/// One thing that a driver says of a running operation.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgressUpdate {
    /// A new stage began; progress and bytes start anew.
    Stage(Stage),
    /// Per cent of the stage.
    Percent(f64),
    /// Bytes of the stage.
    Bytes {
        /// Done so far.
        done: ByteSize,
        /// To do in all, where known.
        total: Option<ByteSize>,
    },
    /// One line on what happens, for people.
    Message(String),
    /// One line for the operation's log.
    Log(String),
    /// The driver's program called the work failed, but the driver still expects it to succeed: should it, the
    /// operation succeeded late.
    Late,
}

impl Progress {
    /// Hands every update to `sink`, which must not block.
    pub fn new(sink: impl Fn(ProgressUpdate) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Updates that nobody wants.
    #[must_use]
    pub fn ignored() -> Self {
        Self::new(|_| ())
    }

    /// Hands on what another part says.
    pub fn forward(&self, update: ProgressUpdate) {
        (self.0)(update);
    }

    /// A new stage began.
    pub fn stage(&self, stage: Stage) {
        (self.0)(ProgressUpdate::Stage(stage));
    }

    /// Per cent of the stage, 0 to 100.
    pub fn percent(&self, percent: f64) {
        (self.0)(ProgressUpdate::Percent(percent.clamp(0.0, 100.0)));
    }

    /// Bytes of the stage.
    pub fn bytes(&self, done: ByteSize, total: Option<ByteSize>) {
        (self.0)(ProgressUpdate::Bytes { done, total });
    }

    /// One line on what happens, for people.
    pub fn message(&self, text: impl Into<String>) {
        (self.0)(ProgressUpdate::Message(text.into()));
    }

    /// One line for the operation's log.
    pub fn log(&self, text: impl Into<String>) {
        (self.0)(ProgressUpdate::Log(text.into()));
    }

    /// Called failed by the driver's program, but going on: see [`ProgressUpdate::Late`].
    pub fn late(&self) {
        (self.0)(ProgressUpdate::Late);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// An attached terminal: a local PTY or an SSH channel. Dropping it ends the program behind it.
pub struct Pty {
    /// What the program prints; ends when it exits.
    pub output: Pin<Box<dyn AsyncRead + Send>>,
    /// What is typed.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// The size; each value sent resizes.
    pub size: watch::Sender<TermSize>,
    /// How the program ended; an error when that will never be known.
    pub exit: oneshot::Receiver<PtyExit>,
}

/// How the program behind a terminal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtyExit {
    /// Its exit code, where it is known.
    pub code: Option<i32>,
    /// For people: `the shell ended`, `the VM was stopped`.
    pub reason: String,
}
