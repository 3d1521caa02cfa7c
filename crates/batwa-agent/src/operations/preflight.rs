//! What can be refused before an operation is accepted.

use std::{collections::BTreeSet, time::Duration};

use batwa_api::{
    agent::DriverKind,
    name::{SnapshotName, VmName},
    operation::{Operation, OperationRequest, Subject},
    problem::{FieldError, Problem, ProblemCode},
    vm::{
        CloneOptions, MAX_MOUNTS, MAX_SNAPSHOTS, MacAddress, MountOptions, SnapshotOptions,
        VmAction, VmSpec, VmState, next_snapshot_name,
    },
};
use tokio::time::timeout;

use super::{Book, Operations, error_of, queue::Refusal};
use crate::{driver::DriverError, networks::give_addresses, policy};

/// How long a driver may take to check a spec.
pub(super) const CHECK_DEADLINE: Duration = Duration::from_secs(10);
/// What snapshots are called that are taken before a VM goes back to another one; a number follows.
const SAFETY_STEM: &str = "before-restore";
/// What other snapshots are called; Multipass' own word.
const SNAPSHOT_STEM: &str = "snapshot";

impl Operations {
    /// Refuses what cannot work whatever else is queued. The driver it is for.
    pub(super) async fn preflight(
        &self,
        vm: &VmName,
        request: &OperationRequest,
    ) -> Result<DriverKind, Problem> {
        if let OperationRequest::Create { spec } = request {
            return self.preflight_create(vm, spec).await;
        }
        let driver = match self.inventory.find(vm) {
            Some((driver, _)) => driver,
            None => self.driver_to_be(vm)?,
        };
        if let Some(refused) = self.refused_by_protection(vm, request) {
            return Err(refused);
        }
        let capabilities = self.inventory.capabilities(driver);
        if request.action() == Some(VmAction::CloneSnapshot)
            && VmAction::CloneSnapshot.is_unsupported(&capabilities)
            && capabilities.clone
        {
            let refusal = Refusal::Illegal {
                action: VmAction::CloneSnapshot,
                reason: VmAction::ONLY_AS_IT_IS,
                unsupported: true,
            };
            return Err(refusal.to_problem(vm));
        }
        let errors = self.wrong_fields(vm, request);
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        if let OperationRequest::Resize(size) = request {
            self.policy.check_resize(size).map_err(forbidden)?;
        }
        if let OperationRequest::Mount(mount) = request {
            self.check_mount(vm, mount)?;
        }
        Ok(driver)
    }

    /// Refuses a folder that the VM may not see, and one too many. Drivers look at the folder anew when they use it.
    fn check_mount(&self, vm: &VmName, mount: &MountOptions) -> Result<(), Problem> {
        self.policy
            .folder(&mount.source, mount.read_only)
            .map_err(|error| error_of(&error).to_problem())?;
        let there = self.picture.vm(vm).map_or_else(Vec::new, |vm| vm.mounts);
        let full = there.len() >= MAX_MOUNTS;
        if full && there.iter().all(|other| other.target != mount.target) {
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!("VM `{vm}` has {MAX_MOUNTS} mounts, and cannot have more: `umount` some"),
            ));
        }
        Ok(())
    }

    /// Refuses one more VM than the policy of this machine allows. Those that are about to be made count, so that many
    /// who ask at once do not get more.
    pub(super) fn check_count(&self, book: &Book, new: &VmName) -> Result<(), Problem> {
        let mut there: BTreeSet<VmName> =
            self.picture.vms().into_iter().map(|vm| vm.name).collect();
        for record in book.records.values() {
            let Operation { subject, state, .. } = record.operation();
            if !state.is_finished()
                && let Some(vm) = subject.vm()
                && let Some(other) = new_vm(vm, &record.request)
            {
                there.insert(other.clone());
            }
        }
        there.remove(new);
        self.policy.check_count(there.len()).map_err(forbidden)
    }

    /// Why a protected VM does not let this be done, if it is one.
    pub(super) fn refused_by_protection(
        &self,
        vm: &VmName,
        request: &OperationRequest,
    ) -> Option<Problem> {
        (request.destroys() && self.inventory.settings(vm).protected).then(|| {
            Problem::new(
                ProblemCode::IllegalState,
                format!(
                    "cannot {} VM `{vm}`: {}",
                    request.kind(),
                    VmAction::PROTECTED
                ),
            )
        })
    }

    /// The driver of a VM that is not made yet, but is about to be.
    fn driver_to_be(&self, vm: &VmName) -> Result<DriverKind, Problem> {
        let book = self.book();
        book.queues
            .get(&Subject::Vm(vm.clone()))
            .and_then(|queue| queue.all().first().copied())
            .and_then(|id| book.records.get(&id))
            .map(|record| record.driver)
            .ok_or_else(|| Refusal::NotFound.to_problem(vm))
    }

    fn wrong_fields(&self, vm: &VmName, request: &OperationRequest) -> Vec<FieldError> {
        match request {
            OperationRequest::Snapshot(options) => wrong_snapshot(options),
            OperationRequest::Clone(CloneOptions { name, .. }) => VmName::parse_new(name.as_str())
                .err()
                .map(|error| FieldError::new("name", error.to_string()))
                .into_iter()
                .collect(),
            OperationRequest::Resize(size) => {
                let host = self.picture.agent().host;
                size.check(self.picture.vm(vm).as_ref(), Some(&host))
            }
            OperationRequest::Mount(mount) => mount.check(),
            OperationRequest::Umount(options) => options.check(),
            _ => Vec::new(),
        }
    }

    async fn preflight_create(&self, vm: &VmName, spec: &VmSpec) -> Result<DriverKind, Problem> {
        let mut errors = Vec::new();
        if let Err(error) = VmName::parse_new(vm.as_str()) {
            errors.push(FieldError::new("name", error.to_string()));
        }
        errors.extend(spec.check(Some(&self.picture.agent().host)));
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        self.policy.check_spec(spec).map_err(forbidden)?;
        for card in &spec.networks {
            self.policy.check_network(&card.name).map_err(forbidden)?;
        }
        let driver = match spec.driver {
            Some(kind) => self.inventory.driver(kind).map_err(|error| {
                Problem::invalid_fields(vec![FieldError::new("driver", error.to_string())])
            })?,
            None => self
                .inventory
                .driver_for_new()
                .map_err(|error| error_of(&error).to_problem())?,
        };
        let capabilities = self.inventory.capabilities(driver.kind());
        let mut errors = self.upkeep.check_new(spec, &capabilities);
        if !spec.networks.is_empty() && !capabilities.networks {
            let message = format!("the {} driver cannot do this here", driver.kind());
            errors.push(FieldError::new("networks", message));
        }
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        // Before the driver is asked: it may be slow to find out what we know.
        if let Some(refusal) = self.name_is_taken(&self.book(), vm) {
            return Err(refusal.to_problem(vm));
        }
        timeout(CHECK_DEADLINE, driver.check(vm, spec))
            .await
            .unwrap_or_else(|_| {
                Err(DriverError::Stuck(format!(
                    "driver `{}` did not check the request within {} s",
                    driver.kind(),
                    CHECK_DEADLINE.as_secs()
                )))
            })
            .map_err(|error| error_of(&error).to_problem())?;
        Ok(driver.kind())
    }

    /// Whether a new VM may not be called so. What is queued for one of that name decides for itself.
    fn name_is_taken(&self, book: &Book, name: &VmName) -> Option<Refusal> {
        let being_cloned = book.records.values().any(|record| {
            record.request.target() == Some(name) && !record.operation().state.is_finished()
        });
        if being_cloned {
            return Some(Refusal::NameTaken { in_trash: false });
        }
        let (_, state) = self.inventory.find(name)?;
        let in_trash = state == VmState::Deleted;
        (!has_queue(book, name)).then_some(Refusal::NameTaken { in_trash })
    }

    /// The request with every name in it that was the agent's to choose, and refused where one does not fit: chosen
    /// before it is written down, so that whoever goes on after a crash means the same snapshot.
    pub(super) fn named(
        &self,
        book: &Book,
        vm: &VmName,
        request: OperationRequest,
    ) -> Result<OperationRequest, Problem> {
        let snapshots = || self.snapshots_to_be(book, vm);
        let refuse_unknown = |name: &SnapshotName| {
            if snapshots().contains(name) {
                Ok(())
            } else {
                Err(Problem::new(
                    ProblemCode::NotFound,
                    format!("VM `{vm}` has no snapshot `{name}`"),
                ))
            }
        };
        Ok(match request {
            OperationRequest::Create { mut spec } => {
                give_addresses(&mut spec.networks, &self.addresses(book));
                OperationRequest::Create { spec }
            }
            OperationRequest::Snapshot(mut options) => {
                let name = options.name.take();
                options.name = Some(free_name(vm, name, SNAPSHOT_STEM, &snapshots())?);
                OperationRequest::Snapshot(options)
            }
            OperationRequest::Restore(mut options) => {
                refuse_unknown(&options.snapshot)?;
                if !options.discard {
                    let name = options.safety.take();
                    options.safety = Some(free_name(vm, name, SAFETY_STEM, &snapshots())?);
                }
                OperationRequest::Restore(options)
            }
            OperationRequest::DeleteSnapshot { ref snapshot, .. } => {
                refuse_unknown(snapshot)?;
                request
            }
            OperationRequest::Clone(options) => {
                if let Some(snapshot) = &options.snapshot {
                    refuse_unknown(snapshot)?;
                }
                let taken = self.name_is_taken(book, &options.name).or_else(|| {
                    let queued = has_queue(book, &options.name);
                    queued.then_some(Refusal::NameTaken { in_trash: false })
                });
                if let Some(refusal) = taken {
                    return Err(refusal.to_problem(&options.name));
                }
                OperationRequest::Clone(options)
            }
            other => other,
        })
    }

    /// The addresses of all VMs' network cards, those included that are about to be made.
    fn addresses(&self, book: &Book) -> Vec<MacAddress> {
        let vms = self.picture.vms();
        let there = vms.iter().flat_map(|vm| &vm.networks);
        let mut addresses: Vec<_> = there.filter_map(|network| network.card.mac).collect();
        for record in book.records.values() {
            if let OperationRequest::Create { spec } = &record.request
                && !record.operation().state.is_finished()
            {
                addresses.extend(spec.networks.iter().filter_map(|card| card.mac));
            }
        }
        addresses
    }

    /// The names of a VM's snapshots once everything that is queued for it is done.
    fn snapshots_to_be(&self, book: &Book, vm: &VmName) -> BTreeSet<SnapshotName> {
        let mut names: BTreeSet<SnapshotName> = self
            .picture
            .vm(vm)
            .map(|vm| {
                vm.snapshots
                    .into_iter()
                    .map(|snapshot| snapshot.name)
                    .collect()
            })
            .unwrap_or_default();
        let queued = book
            .queues
            .get(&Subject::Vm(vm.clone()))
            .map(super::Queue::all)
            .unwrap_or_default();
        for record in queued.iter().filter_map(|id| book.records.get(id)) {
            match &record.request {
                OperationRequest::Snapshot(options) => names.extend(options.name.clone()),
                OperationRequest::Restore(options) => names.extend(options.safety.clone()),
                OperationRequest::DeleteSnapshot { snapshot, .. } => {
                    names.remove(snapshot);
                }
                _ => {}
            }
        }
        names
    }
}

/// The VM that a request makes, if it makes one.
pub(super) fn new_vm<'a>(vm: &'a VmName, request: &'a OperationRequest) -> Option<&'a VmName> {
    match request {
        OperationRequest::Create { .. } => Some(vm),
        request => request.target(),
    }
}

/// What the policy does not allow, as a failed call.
fn forbidden(refusal: policy::Refusal) -> Problem {
    error_of(&refusal.into()).to_problem()
}

fn has_queue(book: &Book, vm: &VmName) -> bool {
    book.queues.contains_key(&Subject::Vm(vm.clone()))
}

fn wrong_snapshot(options: &SnapshotOptions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(name) = &options.name
        && let Err(error) = SnapshotName::parse_new(name.as_str())
    {
        errors.push(FieldError::new("name", error.to_string()));
    }
    let comment = options.comment.as_deref().unwrap_or_default();
    if comment.chars().count() > SnapshotOptions::MAX_COMMENT
        || comment.chars().any(|c| c.is_control() && c != '\n')
    {
        errors.push(FieldError::new(
            "comment",
            format!(
                "a comment has at most {} characters, none of them a control character",
                SnapshotOptions::MAX_COMMENT
            ),
        ));
    }
    errors
}

/// The name asked for, or the next of a series.
fn free_name(
    vm: &VmName,
    asked: Option<SnapshotName>,
    stem: &str,
    taken: &BTreeSet<SnapshotName>,
) -> Result<SnapshotName, Problem> {
    if taken.len() >= MAX_SNAPSHOTS {
        return Err(Problem::new(
            ProblemCode::Conflict,
            format!("VM `{vm}` has {MAX_SNAPSHOTS} snapshots, and cannot have more: delete some"),
        ));
    }
    match asked {
        Some(name) if taken.contains(&name) => {
            let detail = format!("VM `{vm}` has a snapshot `{name}` already: choose another name");
            let mut problem = Problem::new(ProblemCode::NameTaken, &detail);
            problem.errors.push(FieldError::new("name", detail));
            Err(problem)
        }
        Some(name) => Ok(name),
        None => Ok(next_snapshot_name(stem, taken)),
    }
}
