//! VMs: lists from the fleet, and what can be done with them, checked before it is asked of an agent.

mod forwards;
mod update;

use batwa_api::{
    agent::{Capabilities, DriverStatus, HealthStatus},
    id::AgentId,
    list::VmList,
    name::VmName,
    operation::{Operation, OperationRequest},
    problem::{FieldError, Problem, ProblemCode},
    vm::{CreateVm, ListedVm, Vm, VmDetails},
};

use super::{
    App, Error,
    agents::unknown,
    audit::Record,
    auth::{Caller, Right},
    operations::{Ask, Delivery, no_local_agent},
};
use crate::fleet::{Found, query::VmQuery, searching::TooManySearches};

/// More searches wait than are done in time.
pub(super) const TOO_MANY_SEARCHES: Error =
    Error::Unavailable("too many searches at once: try again in a moment");

/// A VM by agent and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmRef {
    /// The agent.
    pub(crate) agent: AgentId,
    /// The name.
    pub(crate) name: VmName,
}

/// Whether an agent reads no settings of a VM that is to be made, by what it says of its drivers.
fn too_old(drivers: &[DriverStatus]) -> bool {
    let reads = |driver: &DriverStatus| driver.capabilities.settings_at_create;
    !drivers.is_empty() && !drivers.iter().any(reads)
}

fn no_such_vm(vm: &VmRef) -> Error {
    let agent = App::agent_words(&vm.agent);
    Error::NotFound(format!("VM `{}` on {agent}", vm.name))
}

impl App {
    /// One page of VMs.
    pub(crate) async fn list_vms(&self, query: VmQuery) -> Result<VmList, Error> {
        self.fleet()
            .list_vms(query)
            .await
            .map_err(|TooManySearches| TOO_MANY_SEARCHES)
    }

    /// One VM, with the health of everything that it depends on.
    pub(crate) fn vm(&self, vm: &VmRef) -> Result<VmDetails, Error> {
        self.fleet().look();
        let found = self.found(vm)?.vm;
        let health = self.fleet().read(|state| {
            let entry = state.agents.get(&vm.agent)?;
            let driver = entry.driver(&found.vm);
            Some((entry.link(), driver.map(|driver| driver.health.clone())))
        });
        let (link, driver_health) = health.ok_or_else(|| unknown(&vm.agent))?;
        Ok(VmDetails {
            vm: found,
            link,
            driver_health,
        })
    }

    /// One VM as callers from before v1 know them: a missing one is not there.
    pub(crate) fn vm_of_old(&self, vm: &VmRef) -> Result<ListedVm, Error> {
        self.fleet().look();
        let found = self.found(vm)?.vm;
        if found.missing_since.is_some() {
            return Err(no_such_vm(vm));
        }
        Ok(found)
    }

    /// Takes a missing VM off the list.
    pub(crate) async fn dismiss_vm(&self, caller: &Caller, vm: &VmRef) -> Result<(), Error> {
        caller.require(Right::Manage)?;
        let found = self.found(vm)?;
        let target = format!("{}/{}", vm.agent, vm.name);
        let Some(since) = found.vm.missing_since else {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::IllegalState,
                format!("VM `{target}` is not missing: purge it if it is to go"),
            ))));
        };
        // Before it is gone: what cannot be written down is not done.
        let record = Record {
            detail: Some(format!(
                "missing since {since}; its files were at {}",
                found
                    .vm
                    .vm
                    .location
                    .as_deref()
                    .unwrap_or("a place that is not known")
            )),
            ..Record::ok("vm.dismiss", target)
        };
        self.audit(caller, record).await?;
        self.fleet().dismiss_vm(&vm.agent, &vm.name);
        Ok(())
    }

    pub(crate) fn found(&self, vm: &VmRef) -> Result<Found, Error> {
        if vm.agent.is_local() && !self.fleet().has_local_agent() {
            return Err(no_local_agent());
        }
        match self.fleet().vm(&vm.agent, &vm.name) {
            Some(found) => Ok(found),
            None if self.fleet().status(&vm.agent).is_none() => Err(unknown(&vm.agent)),
            None => Err(no_such_vm(vm)),
        }
    }

    /// Makes a VM.
    pub(crate) async fn create_vm(
        &self,
        caller: &Caller,
        agent: &AgentId,
        mut create: CreateVm,
        mut delivery: Delivery,
    ) -> Result<Operation, Error> {
        caller.require(Right::Manage)?;
        delivery.body = Some(serde_json::to_vec(&create).map_err(Error::internal)?);
        if let Some(wanted) = &create.template {
            if create.spec.cloud_init.is_some() {
                return Err(Error::invalid(
                    "template",
                    "give a template or `cloud_init`, not both",
                ));
            }
            create.spec.cloud_init = Some(self.user_data_of(wanted).await?);
        }
        if create.own_ssh_keys && !self.is_legacy(agent) {
            let own = self.ssh_keys(caller).await?;
            let new: Vec<String> = own
                .into_iter()
                .map(|key| key.public_key)
                .filter(|key| !create.spec.ssh_keys.contains(key))
                .collect();
            create.spec.ssh_keys.extend(new);
        }
        let mut errors = self.check_spec(agent, &create);
        let name = match VmName::parse_new(&create.name) {
            Ok(name) if errors.is_empty() => name,
            Ok(_) => return Err(Error::Invalid(errors)),
            Err(error) => {
                errors.insert(0, FieldError::new("name", error.to_string()));
                return Err(Error::Invalid(errors));
            }
        };
        let ask = Ask {
            agent: agent.clone(),
            subject: name.into(),
            request: OperationRequest::Create {
                spec: Box::new(create.spec),
            },
            delivery,
        };
        self.start_operation(caller, ask, Self::check_create).await
    }

    /// What is wrong with a spec, as far as the master knows the machine.
    fn check_spec(&self, agent: &AgentId, create: &CreateVm) -> Vec<FieldError> {
        self.fleet().read(|state| {
            let entry = state.agents.get(agent);
            let info = entry.and_then(|entry| entry.info.as_ref());
            let mut errors = create.spec.check(info.map(|info| &info.host));
            if entry.is_some_and(|entry| entry.legacy) {
                let old = "an agent of the old kind cannot do this: leave it out";
                if create.spec.cloud_init.is_some() {
                    errors.push(FieldError::new("cloud_init", old));
                }
                if !create.spec.ssh_keys.is_empty() {
                    errors.push(FieldError::new("ssh_keys", old));
                }
                if create.spec.driver.is_some() {
                    errors.push(FieldError::new("driver", old));
                }
                if create.spec.wanted_settings().is_some() {
                    errors.push(FieldError::new("settings", old));
                }
                if !create.spec.networks.is_empty() {
                    errors.push(FieldError::new("networks", old));
                }
            } else if let Some(info) = info {
                // Which driver is used where none is named, is the agent's to say: it may be another than the first.
                let wanted = create.spec.driver;
                let named = info
                    .drivers
                    .iter()
                    .find(|driver| Some(driver.kind) == wanted);
                let only = match &info.drivers[..] {
                    [driver] => Some(driver),
                    _ => named,
                };
                match only {
                    Some(driver) => {
                        errors.extend(create.spec.check_settings(&driver.capabilities));
                    }
                    // One that reads no settings reads none for any of its drivers.
                    None if too_old(&info.drivers) => {
                        errors.extend(create.spec.check_settings(&Capabilities::default()));
                    }
                    None => {}
                }
            }
            let user_data = create.spec.cloud_init.as_deref().unwrap_or_default();
            if errors.is_empty()
                && let Err(finding) = batwa_cloud_init::parse(user_data)
            {
                errors.push(FieldError::new("cloud_init", finding.to_string()));
            }
            errors
        })
    }

    pub(super) fn check_create(&self, ask: &Ask) -> Result<(), Error> {
        let vm = ask.vm()?;
        self.check_room(&ask.agent, vm)?;
        let stuck = self.fleet().read(|state| {
            let entry = state.agents.get(&ask.agent)?;
            let wanted = match &ask.request {
                OperationRequest::Create { spec } => spec.driver,
                _ => None,
            };
            let driver = entry.info.as_ref().and_then(|info| match wanted {
                Some(kind) => info.drivers.iter().find(|driver| driver.kind == kind),
                None => info.drivers.first(),
            });
            driver
                .filter(|driver| {
                    matches!(
                        driver.health.status,
                        HealthStatus::Stuck | HealthStatus::Missing
                    )
                })
                .map(|driver| {
                    let why = driver
                        .health
                        .message
                        .as_deref()
                        .unwrap_or("no reason known");
                    format!("the {} driver cannot be used: {why}", driver.kind)
                })
        });
        let words = Self::agent_words(&ask.agent);
        if let Some(stuck) = stuck {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::DriverStuck,
                format!("cannot create VM `{vm}` on {words}: {stuck}"),
            ))));
        }
        Ok(())
    }

    /// Does something with a VM that is there.
    pub(crate) async fn act_on_vm(
        &self,
        caller: &Caller,
        vm: VmRef,
        request: OperationRequest,
        delivery: Delivery,
    ) -> Result<Operation, Error> {
        let ask = Ask {
            agent: vm.agent,
            subject: vm.name.into(),
            request,
            delivery,
        };
        self.start_operation(caller, ask, Self::check_action).await
    }

    /// Refuses what cannot be, as far as the master knows the machine.
    fn check_change(&self, ask: &Ask, found: &Found) -> Result<(), Error> {
        self.check_fields(ask, Some(&found.vm.vm))?;
        match &ask.request {
            OperationRequest::Clone(options) => self.check_room(&ask.agent, &options.name),
            _ => Ok(()),
        }
    }

    /// Refuses sizes, paths and names that cannot be. `vm` is the VM as it is, where that is known.
    pub(super) fn check_fields(&self, ask: &Ask, vm: Option<&Vm>) -> Result<(), Error> {
        match &ask.request {
            OperationRequest::Resize(size) => {
                let host = self.fleet().read(|state| {
                    let info = state.agents.get(&ask.agent)?.info.as_ref()?;
                    Some(info.host.clone())
                });
                match size.check(vm, host.as_ref()) {
                    errors if errors.is_empty() => Ok(()),
                    errors => Err(Error::Invalid(errors)),
                }
            }
            OperationRequest::Mount(mount) => match mount.check() {
                errors if errors.is_empty() => Ok(()),
                errors => Err(Error::Invalid(errors)),
            },
            OperationRequest::Umount(options) => match options.check() {
                errors if errors.is_empty() => Ok(()),
                errors => Err(Error::Invalid(errors)),
            },
            OperationRequest::Clone(options) => VmName::parse_new(options.name.as_str())
                .map(drop)
                .map_err(|error| Error::invalid("name", error.to_string())),
            _ => Ok(()),
        }
    }

    /// Refuses a new VM where none may be made, or none of that name.
    pub(super) fn check_room(&self, agent: &AgentId, name: &VmName) -> Result<(), Error> {
        let words = Self::agent_words(agent);
        let cordoned = self.fleet().read(|state| {
            let record = state
                .agents
                .get(agent)
                .and_then(|entry| entry.record.as_ref());
            record.is_some_and(|record| record.cordoned)
        });
        if cordoned {
            return Err(Error::Conflict(format!(
                "{words} is cordoned: no new VM may be made there until an admin uncordons it"
            )));
        }
        let there = self.fleet().vm(agent, name);
        if there.is_some_and(|found| found.vm.missing_since.is_none())
            || self.fleet().is_being_created(agent, name)
        {
            return Err(Error::NameTaken(format!("VM `{name}` on {words}")));
        }
        Ok(())
    }

    /// Refuses what is not possible in the VM's state, unless something is under way that will change it: the
    /// agent queues commands for one VM and decides when it comes to them.
    pub(super) fn check_action(&self, ask: &Ask) -> Result<(), Error> {
        let vm = VmRef {
            agent: ask.agent.clone(),
            name: ask.vm()?.clone(),
        };
        if self.fleet().has_operation_for(&vm.agent, &vm.name) {
            return Ok(());
        }
        let found = self.found(&vm)?;
        let Some(action) = ask.request.action() else {
            return Ok(());
        };
        let stale = found.vm.stale;
        match found.refusal(action) {
            None if action.needs_stop(found.vm.vm.state) && !ask.request.stops() => {
                Err(Error::Problem(Box::new(Problem::new(
                    ProblemCode::IllegalState,
                    format!(
                        "cannot {action} VM `{}`: it is running: stop it first, or ask with `stop`",
                        vm.name
                    ),
                ))))
            }
            None => {
                Self::check_protection(&ask.request, &found)?;
                self.check_change(ask, &found)
            }
            Some(reason) => {
                let code = if stale {
                    ProblemCode::DriverStuck
                } else if reason.contains("driver cannot") {
                    ProblemCode::Unsupported
                } else {
                    ProblemCode::IllegalState
                };
                Err(Error::Problem(Box::new(Problem::new(
                    code,
                    format!("cannot {action} VM `{}`: {reason}", vm.name),
                ))))
            }
        }
    }
}
