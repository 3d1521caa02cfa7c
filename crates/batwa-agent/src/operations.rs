//! Operations: what is asked of VMs, in a row for each, written down before it is done.
//!
//! A request is checked before it is accepted; a refusal leaves nothing. An accepted one is in the journal
//! before anything acts on it. Each VM with work has one task that runs its commands one after another;
//! different VMs run side by side, bounded for each driver. After a restart of the agent, what was cut off is
//! settled by what the drivers see. Invariant: the effect on the VM is shown before the operation's end is.
//!
//! ```text
//! start ─► checks ─► Queue::judge ─► journal ─► queue ─► run ─► inventory ─► journal ─► shown
//! ```

mod journal;
mod overdue;
mod preflight;
mod pull;
mod queue;
mod record;
mod run;
mod settle;
mod turns;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use batwa_api::{
    Timestamp,
    agent::DriverKind,
    id::{AgentId, OperationId},
    name::VmName,
    operation::{
        LogLine, Operation, OperationError, OperationKind, OperationRequest, OperationState,
        StartOperation, Subject,
    },
    problem::{Problem, ProblemCode},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use self::{
    journal::{Journal, JournalEntry},
    overdue::Overdue,
    preflight::new_vm,
    queue::{Ask, Queue, Verdict},
    record::Record,
    settle::Pause,
    turns::Turns,
};
use crate::{
    config::Limits, driver::DriverError, policy::PolicyFile, upkeep::Upkeep, vms::Inventory,
    watch::Picture,
};

/// All operations of this agent.
#[derive(Debug)]
pub(crate) struct Operations {
    agent_id: AgentId,
    limits: Limits,
    picture: Arc<Picture>,
    inventory: Arc<Inventory>,
    upkeep: Arc<Upkeep>,
    policy: PolicyFile,
    journal: Journal,
    overdue: Overdue,
    book: Mutex<Book>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The parts of the agent that operations go by.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Where they are shown.
    pub(crate) picture: Arc<Picture>,
    /// The VMs and their drivers.
    pub(crate) inventory: Arc<Inventory>,
    /// Who hears of what was done.
    pub(crate) upkeep: Arc<Upkeep>,
    /// What may be asked at all.
    pub(crate) policy: PolicyFile,
}

#[derive(Debug, Default)]
struct Book {
    records: BTreeMap<OperationId, Arc<Record>>,
    /// The VMs and images with work.
    queues: BTreeMap<Subject, Queue>,
    turns: BTreeMap<(DriverKind, Lane), Arc<Turns>>,
}

/// A sort of work that waits for others of its sort alone: a pull over a slow line keeps no VM from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Create,
    Pull,
    Other,
}

/// What became of a request to start an operation.
#[derive(Debug)]
pub(crate) enum Started {
    /// It is new.
    New(Operation),
    /// It was there already.
    Known(Operation),
}

impl Operations {
    /// The operations of a state folder: finished ones to show, others for [`Self::go_on`].
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn open(
        agent_id: AgentId,
        limits: Limits,
        state_dir: &Path,
        parts: Parts,
        stop: CancellationToken,
    ) -> io::Result<Arc<Self>> {
        let Parts {
            picture,
            inventory,
            upkeep,
            policy,
        } = parts;
        let journal = Journal::open(state_dir)?;
        let operations = Arc::new(Self {
            agent_id,
            limits,
            picture,
            inventory,
            upkeep,
            policy,
            journal,
            overdue: Overdue::default(),
            book: Mutex::new(Book::default()),
            tasks: TaskTracker::new(),
            stop,
        });
        for entry in operations.journal.load()? {
            let record = Arc::new(Record::new(entry));
            let operation = record.operation();
            let mut book = operations.book();
            book.records.insert(operation.id, Arc::clone(&record));
            if !operation.state.is_finished() {
                book.queues
                    .entry(operation.subject)
                    .or_default()
                    .push(operation.id, Ask::from(&record.request));
            }
            drop(book);
            operations.show(&record);
        }
        Ok(operations)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what a restart of the agent cut off.
    pub(crate) fn go_on(self: &Arc<Self>) {
        let subjects: Vec<Subject> = self.book().queues.keys().cloned().collect();
        for subject in subjects {
            self.tasks.spawn(Arc::clone(self).work_for(subject));
        }
    }

    /// Waits, once `stop` was cancelled, until every task has written down where it is.
    pub(crate) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.write_overdue().await;
    }

    /// Starts an operation, or answers with the one that has this id already.
    ///
    /// # Errors
    /// A problem that names the field or the reason; nothing is left then.
    pub(crate) async fn start(
        self: &Arc<Self>,
        id: OperationId,
        start: StartOperation,
    ) -> Result<Started, Problem> {
        if let Some(operation) = self.get(id) {
            return Ok(Started::Known(operation));
        }
        if !start.fits() {
            return Err(Problem::new(
                ProblemCode::InvalidField,
                format!(
                    "{} is nothing that is done with {}",
                    start.request.kind(),
                    start.subject
                ),
            ));
        }
        let StartOperation {
            subject,
            request,
            requested_by,
        } = start;
        match subject {
            Subject::Vm(vm) => self.start_for_vm(requested_by, id, vm, request).await,
            Subject::Image(image) => self.start_pull(requested_by, id, image, request).await,
        }
    }

    async fn start_for_vm(
        self: &Arc<Self>,
        requested_by: Option<String>,
        id: OperationId,
        vm: VmName,
        request: OperationRequest,
    ) -> Result<Started, Problem> {
        let subject = Subject::Vm(vm.clone());
        let driver = self.preflight(&vm, &request).await?;
        let (record, preempts) = {
            let mut book = self.book();
            if let Some(record) = book.records.get(&id) {
                return Ok(Started::Known(record.operation()));
            }
            let observed = self.inventory.find(&vm).map(|(_, state)| state);
            let capabilities = self.inventory.capabilities(driver);
            let ask = Ask::from(&request);
            let empty = Queue::default();
            let verdict = book.queues.get(&subject).unwrap_or(&empty).judge(
                ask,
                observed,
                &capabilities,
                &self.inventory.settings(&vm),
                self.limits.queue_per_vm,
            );
            let preempts = match verdict {
                Verdict::Refuse(refusal) => return Err(refusal.to_problem(&vm)),
                Verdict::AlreadyDone => None,
                Verdict::Accept { preempts } => Some(preempts),
            };
            if let Some(new) = new_vm(&vm, &request) {
                self.check_count(&book, new)?;
            }
            let request = self.named(&book, &vm, request)?;
            let entry = self.entry(id, &subject, request, driver, requested_by);
            let record = Arc::new(Record::new(entry));
            book.records.insert(id, Arc::clone(&record));
            if preempts.is_some() {
                book.queues.entry(subject).or_default().push(id, ask);
            } else {
                nothing_to_do(&record);
            }
            (record, preempts)
        };
        self.accept(&record, preempts).await
    }

    /// Writes an operation down that is in the book, shows it, and begins with it; one that has nothing to push aside,
    /// not even nothing, is done already.
    async fn accept(
        self: &Arc<Self>,
        record: &Arc<Record>,
        preempts: Option<Vec<OperationId>>,
    ) -> Result<Started, Problem> {
        let Operation { id, subject, .. } = record.operation();
        // How earlier ones ended comes first: whoever settles this VM after a crash must not do them again.
        self.write_overdue().await;
        if let Err(error) = record.persist(&self.journal).await {
            error!(operation.id = %id, "cannot write an operation down: {error}");
            let mut book = self.book();
            book.records.remove(&id);
            if let Some(queue) = book.queues.get_mut(&subject) {
                queue.withdraw(id);
            }
            return Err(Problem::new(
                ProblemCode::Internal,
                format!(
                    "cannot write the operation down: {error}; see whether the agent's disk is full"
                ),
            ));
        }
        self.show(record);
        // Only now: one that cannot be written down must not have cost others theirs.
        for other in preempts.iter().flatten() {
            let cancelled = cancel_in(&mut self.book(), *other, "replaced by a later command");
            if let Some(cancelled) = cancelled {
                self.note_cancelled(&cancelled).await;
            }
        }
        self.show_queue(&subject);
        if preempts.is_some() {
            self.tasks.spawn(Arc::clone(self).work_for(subject));
        }
        Ok(Started::New(record.operation()))
    }

    /// Shows with a VM which operations wait for it.
    fn show_queue(&self, subject: &Subject) {
        if let Some(vm) = subject.vm() {
            self.inventory.set_queued(vm, self.queued_for(subject));
        }
    }

    fn entry(
        &self,
        id: OperationId,
        subject: &Subject,
        request: OperationRequest,
        driver: DriverKind,
        requested_by: Option<String>,
    ) -> JournalEntry {
        JournalEntry {
            operation: Operation {
                requested_by,
                ..Operation::new(
                    id,
                    self.agent_id.clone(),
                    subject.clone(),
                    &request,
                    Timestamp::now(),
                )
            },
            request,
            driver,
            pause: Pause::default(),
            log: Vec::new(),
        }
    }

    /// One VM's or image's task: runs its commands until none is left or the agent stops. Several may be started for
    /// one; all but one find that somebody runs and end.
    async fn work_for(self: Arc<Self>, subject: Subject) {
        loop {
            let record = {
                let mut book = self.book();
                let Some(queue) = book.queues.get_mut(&subject) else {
                    return;
                };
                if queue.is_empty() {
                    book.queues.remove(&subject);
                    return;
                }
                let Some(id) = queue.next() else { return };
                match book.records.get(&id) {
                    Some(record) => Arc::clone(record),
                    None => return,
                }
            };
            let goes_on = match &subject {
                Subject::Vm(vm) => self.run(vm, &record).await,
                Subject::Image(image) => self.run_pull(image, &record).await,
            };
            if !goes_on {
                return;
            }
            self.show_queue(&subject);
        }
    }

    /// The turns of one driver for one sort of work.
    fn turns(&self, driver: DriverKind, kind: OperationKind) -> Arc<Turns> {
        let (lane, limit) = match kind {
            OperationKind::Create => (Lane::Create, self.limits.creates_per_driver),
            OperationKind::PullImage => (Lane::Pull, self.limits.creates_per_driver),
            _ => (Lane::Other, self.limits.operations_per_driver),
        };
        let mut book = self.book();
        let turns = book
            .turns
            .entry((driver, lane))
            .or_insert_with(|| Arc::new(Turns::new(limit)));
        Arc::clone(turns)
    }

    fn queued_for(&self, subject: &Subject) -> Vec<OperationId> {
        let book = self.book();
        let Some(queue) = book.queues.get(subject) else {
            return Vec::new();
        };
        queue
            .all()
            .into_iter()
            .filter(|id| {
                book.records
                    .get(id)
                    .is_some_and(|record| !record.operation().state.is_finished())
            })
            .collect()
    }

    /// Shows an operation, and forgets the oldest finished ones that are no longer shown.
    fn show(&self, record: &Record) {
        for id in self.picture.set_operation(record.operation()) {
            self.book().records.remove(&id);
            if let Err(error) = self.journal.remove(id) {
                warn!(operation.id = %id, "cannot forget an old operation: {error}");
            }
        }
    }

    /// Whether something runs or waits for a VM, or is to be settled after a restart.
    pub(crate) fn has_work_for(&self, vm: &VmName) -> bool {
        let book = self.book();
        let queue = book.queues.get(&Subject::Vm(vm.clone()));
        queue.is_some_and(|queue| !queue.is_empty())
    }

    /// One operation as it is.
    pub(crate) fn get(&self, id: OperationId) -> Option<Operation> {
        self.book()
            .records
            .get(&id)
            .map(|record| record.operation())
    }

    /// Its log.
    pub(crate) fn log(&self, id: OperationId) -> Option<Vec<LogLine>> {
        let record = self.book().records.get(&id).cloned()?;
        Some(record.log())
    }

    /// Waits until it is finished; `None` when there is no such operation.
    pub(crate) async fn wait(&self, id: OperationId) -> Option<Operation> {
        let record = self.book().records.get(&id).cloned()?;
        record.finished().await;
        Some(record.operation())
    }

    /// Cancels an operation that waits or runs; a finished one stays as it is. `None` when there is none.
    pub(crate) async fn cancel(&self, id: OperationId) -> Option<Operation> {
        let record = {
            let mut book = self.book();
            let record = book.records.get(&id).cloned()?;
            cancel_in(&mut book, id, "cancelling");
            record
        };
        self.note_cancelled(&record).await;
        Some(record.operation())
    }

    /// Writes down and shows that an operation was cancelled, or told to end.
    async fn note_cancelled(&self, record: &Arc<Record>) {
        let operation = record.operation();
        if operation.state == OperationState::Cancelled {
            self.write_end(record).await;
        }
        self.show(record);
        self.show_queue(&operation.subject);
    }
}

/// Ends an operation that waits and tells one that runs; returns it unless it had finished.
fn cancel_in(book: &mut Book, id: OperationId, message: &str) -> Option<Arc<Record>> {
    let record = book.records.get(&id)?;
    let operation = record.operation();
    if operation.state.is_finished() {
        return None;
    }
    let waited = book
        .queues
        .get_mut(&operation.subject)
        .is_some_and(|queue| queue.withdraw(id));
    record.cancel.cancel();
    record.change(|operation| {
        operation.message = Some(message.to_owned());
        if waited {
            operation.state = OperationState::Cancelled;
            operation.finished_at = Some(Timestamp::now());
        }
    });
    Some(Arc::clone(record))
}

/// Ends an operation whose goal is reached already.
fn nothing_to_do(record: &Record) {
    record.change(|operation| {
        operation.state = OperationState::Succeeded;
        operation.message = Some("nothing to do".to_owned());
        operation.finished_at = Some(Timestamp::now());
    });
}

/// A driver's error as an operation reports it.
pub(crate) fn error_of(error: &DriverError) -> OperationError {
    let (hint, field, log) = match error {
        DriverError::Failed { hint, log, .. } => (hint.clone(), None, log.clone()),
        DriverError::Invalid { field, .. } => (None, Some((*field).to_owned()), Vec::new()),
        DriverError::Policy(refusal) => (
            Some(refusal.remedy.clone()),
            Some(refusal.field.to_owned()),
            Vec::new(),
        ),
        DriverError::NoSpace(_) => (
            Some(
                "free some space there, purge VMs that are no longer needed, or remove images"
                    .to_owned(),
            ),
            None,
            Vec::new(),
        ),
        DriverError::NameTaken(_)
        | DriverError::SnapshotTaken { .. }
        | DriverError::ImageTaken(_) => (
            Some("choose another name".to_owned()),
            Some("name".to_owned()),
            Vec::new(),
        ),
        _ => (None, None, Vec::new()),
    };
    OperationError {
        code: error.code(),
        detail: error.to_string(),
        hint,
        field,
        log,
    }
}
