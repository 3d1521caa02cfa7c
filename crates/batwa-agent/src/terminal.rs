//! Terminal sessions: they belong to the agent, and outlive those who watch them.
//!
//! ```text
//! program ─► Session::pump ─► Ring ─► Seat::view ─► socket      one task a session, one a viewer,
//!     ▲                                   │                      nothing shared between sessions
//!     └────────────── input ◄─────────────┘
//! ```
//!
//! A session lives until its program ends, somebody ends it, its VM stops, or nobody has watched it for its
//! time to live. Ended ones are kept a little for a viewer who comes back to see how.

mod modes;
mod ring;
mod session;
mod viewer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    event::WatchEvent,
    id::{RecordingId, TerminalId, ViewerId},
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
    recording::{RecordTerminal, Recording},
    size::ByteSize,
    terminal::{
        Admission, OpenTerminal, Terminal, TerminalAccess, TerminalKind, TerminalViewer,
        UpdateTerminal, close_code,
    },
    vm::{ShownVm, Vm, VmAction, VmState},
};
use tokio::{
    sync::OnceCell,
    time::{Instant, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

pub(crate) use self::{
    session::{JoinError, Session},
    viewer::{Close, Inbound, Outbound, Seat},
};
use crate::{
    config::Limits,
    operations::error_of,
    recording::{Beginning, Library},
    vms::Inventory,
    watch::Picture,
};

/// How long opening a shell may take; a VM under load takes its time to let one in.
const ATTACH_DEADLINE: Duration = Duration::from_secs(60);
/// How long an ended session can still be attached to, to see its last words.
const LINGER: Duration = Duration::from_secs(60);
/// Time between two looks for sessions that nobody watches.
const SWEEP: Duration = Duration::from_secs(1);

/// All terminal sessions of this agent.
#[derive(Debug)]
pub(crate) struct Terminals {
    limits: Limits,
    picture: Arc<Picture>,
    inventory: Arc<Inventory>,
    recordings: Arc<Library>,
    sessions: Mutex<BTreeMap<TerminalId, Arc<OnceCell<Arc<Session>>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Terminals {
    pub(crate) fn new(
        limits: Limits,
        picture: Arc<Picture>,
        inventory: Arc<Inventory>,
        recordings: Arc<Library>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            limits,
            picture,
            inventory,
            recordings,
            sessions: Mutex::new(BTreeMap::new()),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<TerminalId, Arc<OnceCell<Arc<Session>>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions()
            .values()
            .filter_map(|cell| cell.get().cloned())
            .collect()
    }

    /// Opens a session, or answers with the one that has this id already.
    ///
    /// # Errors
    /// A problem that says why: no such VM, its state, its driver, too many sessions.
    pub(crate) async fn open(&self, request: OpenTerminal) -> Result<Arc<Session>, Problem> {
        let id = request.id.unwrap_or_else(TerminalId::new);
        let cell = {
            let mut sessions = self.sessions();
            if !sessions.contains_key(&id) && sessions.len() >= self.limits.terminals {
                // Ended sessions only linger for their last words: they give way to new ones.
                sessions
                    .retain(|_, cell| cell.get().is_none_or(|session| session.ended().is_none()));
                if sessions.len() >= self.limits.terminals {
                    return Err(Problem::new(
                        ProblemCode::TooManyRequests,
                        format!(
                            "{} terminals are open on this machine, which is all it may have: end some, or raise `max-terminals` there",
                            sessions.len()
                        ),
                    ));
                }
            }
            Arc::clone(sessions.entry(id).or_default())
        };
        let result = cell
            .get_or_try_init(|| self.attach(id, &request))
            .await
            .cloned();
        if result.is_err() {
            let mut sessions = self.sessions();
            // Another call for the same id may have succeeded meanwhile.
            if sessions.get(&id).is_some_and(|cell| cell.get().is_none()) {
                sessions.remove(&id);
            }
        }
        result
    }

    async fn attach(
        &self,
        id: TerminalId,
        request: &OpenTerminal,
    ) -> Result<Arc<Session>, Problem> {
        let OpenTerminal {
            vm: name,
            kind,
            size,
            ttl_s,
            record,
            ..
        } = request;
        if let Some(ttl_s) = ttl_s {
            check_ttl(*ttl_s)?;
        }
        let vm = self.picture.shown_vm(name).ok_or_else(|| no_vm(name))?;
        if let Some(reason) = refusal(&vm, *kind) {
            return Err(Problem::new(
                ProblemCode::IllegalState,
                format!("cannot open a terminal of VM `{name}`: {reason}"),
            ));
        }
        let driver = self
            .inventory
            .driver(vm.vm.driver)
            .map_err(|error| error_of(&error).to_problem())?;
        let attach = driver.attach(name, *kind, size.clamped());
        let pty = timeout(ATTACH_DEADLINE, attach)
            .await
            .map_err(|_| {
                Problem::new(
                    ProblemCode::Timeout,
                    format!(
                        "VM `{name}` did not open a terminal within {} s",
                        ATTACH_DEADLINE.as_secs()
                    ),
                )
            })?
            .map_err(|error| error_of(&error).to_problem())?;
        let ttl = ttl_s.map_or(self.limits.terminal_ttl, Duration::from_secs);
        let ring = self.limits.terminal_ring;
        let (session, output, exit) = session::of_pty(id, name.clone(), *kind, ttl, ring, pty);
        if let Some(record) = record {
            // The program has printed nothing that anybody read yet; it is gone again where this fails.
            self.record(&session, record).await?;
        }
        let pumped = Arc::clone(&session);
        let picture = Arc::clone(&self.picture);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let end = Arc::clone(&pumped);
            let pump = pumped.pump(output, exit);
            tokio::pin!(pump);
            tokio::select! {
                () = &mut pump => {}
                () = stop.cancelled() => {
                    end.end("the agent stops", close_code::GOING_AWAY);
                    pump.await;
                }
            }
            picture.remove_terminal(end.id);
        });
        info!(vm.name = %name, terminal.id = %id, "opened a terminal of VM `{name}`");
        self.picture.set_terminal(session.terminal());
        Ok(session)
    }

    /// A session by its id, ended or not.
    pub(crate) fn get(&self, id: TerminalId) -> Option<Arc<Session>> {
        self.sessions()
            .get(&id)
            .and_then(|cell| cell.get().cloned())
    }

    /// All sessions that have not ended, the oldest first.
    pub(crate) fn list(&self) -> Vec<Terminal> {
        self.open_sessions()
            .into_iter()
            .filter(|session| session.ended().is_none())
            .map(|session| session.terminal())
            .collect()
    }

    /// Changes how a session is called and how long it lives on.
    ///
    /// # Errors
    /// A problem that names the field; nothing is changed then.
    pub(crate) fn update(
        &self,
        session: &Session,
        update: &UpdateTerminal,
    ) -> Result<Terminal, Problem> {
        let name = update
            .checked_name()
            .map_err(|error| invalid("name", error.to_string()))?;
        if let Some(ttl_s) = update.ttl_s {
            check_ttl(ttl_s)?;
        }
        session.update(name, update.ttl_s.map(Duration::from_secs), update.keep);
        self.tell(session);
        Ok(session.terminal())
    }

    /// Lets a viewer do this much from now on; whether that viewer is there.
    pub(crate) fn set_access(
        &self,
        session: &Session,
        viewer: ViewerId,
        access: TerminalAccess,
    ) -> bool {
        let there = session.set_access(viewer, access);
        self.tell(session);
        there
    }

    /// Begins to record a session, unless that is done already.
    ///
    /// # Errors
    /// A problem: the session has ended, or nothing can be written.
    pub(crate) async fn record(
        &self,
        session: &Arc<Session>,
        record: &RecordTerminal,
    ) -> Result<(), Problem> {
        let _alone = session.recording.lock().await;
        if session.recording_mark().is_some() {
            return Ok(());
        }
        let now = session.terminal();
        let id = RecordingId::new();
        let user = record.user.chars().filter(|c| !c.is_control());
        let beginning = Beginning {
            recording: Recording {
                id,
                terminal: now.id,
                vm: now.vm,
                kind: now.kind,
                owner: record.owner,
                user: user.take(TerminalViewer::MAX_USER).collect(),
                input: record.input,
                required: record.required,
                size: now.size,
                started_at: Timestamp::now(),
                duration_ms: 0,
                bytes: ByteSize::bytes(0),
                ended: None,
            },
            size: session.sizes(),
        };
        let (recorder, writer) = self.recordings.begin(beginning).await.map_err(|error| {
            let mut problem = Problem::from(error);
            problem.detail = format!(
                "terminal session `{}` cannot be recorded: {}",
                session.id, problem.detail
            );
            problem
        })?;
        if !session.begin_recording(recorder) {
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!("terminal session `{}` has ended", session.id),
            ));
        }
        let recorded = Arc::clone(session);
        let picture = Arc::clone(&self.picture);
        self.tasks.spawn(async move {
            let reason = writer.run().await;
            recorded.recording_over(id, &reason);
            if recorded.ended().is_none() {
                picture.set_terminal(recorded.terminal());
            }
        });
        info!(terminal.id = %session.id, recording.id = %id, "recording terminal session `{}`", session.id);
        Ok(())
    }

    /// Ends the recording of a session, which goes on.
    ///
    /// # Errors
    /// A problem: a policy requires it.
    pub(crate) fn stop_recording(&self, session: &Session) -> Result<(), Problem> {
        if session.recording_mark().is_some_and(|mark| mark.required) {
            return Err(Problem::new(
                ProblemCode::Conflict,
                "an admin's policy requires this recording: it goes on as long as the session does",
            ));
        }
        session.stop_recording("it was stopped");
        self.tell(session);
        Ok(())
    }

    pub(crate) fn tell(&self, session: &Session) {
        if session.ended().is_none() {
            self.picture.set_terminal(session.terminal());
        }
    }

    /// Joins a session as a viewer; one without an admission may write.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(crate) fn join(
        &self,
        session: Arc<Session>,
        from: Option<u64>,
        admission: Option<Admission>,
    ) -> Result<Seat, JoinError> {
        Seat::take(
            session,
            from,
            admission,
            Arc::clone(&self.picture),
            |session, picture| {
                if session.ended().is_none() {
                    picture.set_terminal(session.terminal());
                }
            },
        )
    }

    /// Ends the sessions that nobody watches and those whose VM stopped, until the agent stops; then all.
    pub(crate) async fn keep_order(&self) {
        let mut sweep = interval(SWEEP);
        let mut watcher = self.picture.watch();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = sweep.tick() => self.sweep(),
                event = watcher.next() => match &*event {
                    WatchEvent::Snapshot { vms, .. } => self.end_all_but(vms),
                    WatchEvent::Vm { vm, .. } => self.follow(vm),
                    WatchEvent::VmRemoved { name, .. } => {
                        self.end_of(name, "the VM was removed", |_| true);
                    }
                    _ => {}
                },
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn sweep(&self) {
        let now = Instant::now();
        for session in self.open_sessions() {
            if session.is_forgotten(now) {
                session.end("nobody watched it any more", close_code::ENDED);
            }
        }
        self.sessions().retain(|_, cell| {
            cell.get()
                .and_then(|session| session.ended())
                .is_none_or(|ended| now.duration_since(ended.at) < LINGER)
        });
    }

    fn end_all_but(&self, vms: &[Vm]) {
        for session in self.open_sessions() {
            match vms.iter().find(|vm| vm.name == session.vm) {
                Some(vm) => self.follow(vm),
                None => session.end("the VM was removed", close_code::VM_NOT_RUNNING),
            }
        }
    }

    fn follow(&self, vm: &Vm) {
        match vm.state {
            VmState::Stopped | VmState::Suspended | VmState::Deleted | VmState::Error => {
                self.end_of(&vm.name, &format!("the VM is {}", vm.state), |_| true);
            }
            // The console shows the reboot; a shell does not survive it.
            VmState::Restarting => {
                self.end_of(&vm.name, "the VM restarts", |kind| {
                    kind == TerminalKind::Shell
                });
            }
            _ => {}
        }
    }

    fn end_of(&self, vm: &VmName, reason: &str, which: impl Fn(TerminalKind) -> bool) {
        for session in self.open_sessions() {
            if session.vm == *vm && which(session.kind) {
                session.end(reason, close_code::VM_NOT_RUNNING);
            }
        }
    }
}

/// Why a VM has no terminal of this kind now.
fn refusal(vm: &ShownVm, kind: TerminalKind) -> Option<String> {
    let action = match kind {
        TerminalKind::Shell => VmAction::Shell,
        TerminalKind::Console => VmAction::Console,
    };
    vm.actions.refusal(action).map(str::to_owned)
}

fn check_ttl(ttl_s: u64) -> Result<(), Problem> {
    if ttl_s <= Terminal::MAX_TTL_S {
        return Ok(());
    }
    let message = format!(
        "at most {} s, which is 30 days: `keep` is for longer",
        Terminal::MAX_TTL_S
    );
    Err(invalid("ttl_s", message))
}

fn invalid(field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid_fields(vec![FieldError::new(field, message)])
}

fn no_vm(name: &VmName) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("VM `{name}` does not exist"))
}
