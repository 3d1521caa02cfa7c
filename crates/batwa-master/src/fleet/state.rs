//! What is known, as data: agents, their VMs, terminal sessions. No tasks, no I/O, no clock.
//!
//! [`super::Fleet`] holds one `State` behind its lock; the tasks that watch agents bring what they hear, and every
//! change answers with the events it means. One writer for an agent's VMs: the task that watches that agent. What
//! concerns all VMs of an agent at once is one event, however many there are.

mod terminals;
#[cfg(test)]
pub(crate) mod tests;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use batwa_api::{
    Timestamp,
    agent::{Agent, AgentInfo, AgentStatus, LinkChange, LinkKind},
    event::Event,
    id::{AgentId, TerminalId},
    name::VmName,
    vm::{Actions, ListedVm, Vm, VmState},
};

use super::{
    entry::{AgentEntry, Standing},
    index::VmIndex,
    ownership::Ownership,
    record::{AgentRecord, PendingAgent},
    row::{About, Row},
};

/// Most VMs of one agent that are kept as missing: one that lies cannot fill the memory with names.
const MAX_MISSING: u64 = 1000;
/// Most changes of links that wait to be written down; the oldest go first while the store cannot take them.
const MAX_LINK_CHANGES: usize = 50_000;

/// Everything known.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// All agents.
    pub(crate) agents: BTreeMap<AgentId, AgentEntry>,
    /// All VMs.
    pub(crate) vms: VmIndex,
    /// What people wrote about VMs that are being made and that no agent has told of yet.
    promised: BTreeMap<(AgentId, VmName), About>,
    /// Rises with every change that the old list shows.
    pub(crate) list_revision: u64,
    /// On which agent each terminal session is that is there.
    terminals: HashMap<TerminalId, AgentId>,
    /// Whose which terminal session is, where the master knows.
    pub(crate) ownerships: BTreeMap<TerminalId, Ownership>,
    /// VMs whose last known state is not written down yet.
    pub(crate) unsaved: BTreeSet<(AgentId, VmName)>,
    /// Changes of links that are not written down yet, the oldest first.
    pub(crate) link_changes: VecDeque<(AgentId, LinkChange)>,
    /// Events about measurements alone: told as long as there are few of them.
    pub(crate) measurements: Vec<Event>,
}

/// Why a VM is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// An operation ended it.
    Asked,
    /// Nobody knows.
    Unexplained,
}

impl State {
    /// Takes an agent's record, new or changed. The standing of one that is new is offline until it is reached.
    pub(crate) fn put_record(&mut self, record: AgentRecord, now: Timestamp) -> Vec<Event> {
        let id = record.id.clone();
        let entry = self
            .agents
            .entry(id.clone())
            .or_insert_with(|| AgentEntry::new(now));
        if entry.last_seen_ms.load(Ordering::Relaxed) == 0
            && let Some(seen) = record.last_seen
        {
            entry
                .last_seen_ms
                .store(seen.as_millisecond(), Ordering::Relaxed);
        }
        let status = match (record.revoked, entry.record.is_some()) {
            (true, _) => AgentStatus::Revoked,
            (false, true) if entry.standing.status != AgentStatus::Revoked => entry.standing.status,
            (false, _) => AgentStatus::Offline,
        };
        let name_before = entry.name().to_owned();
        let was_known = entry.record.is_some();
        let link = record.link;
        entry.record = Some(record);
        let turned = status != entry.standing.status;
        if turned {
            entry.standing = Standing {
                status,
                message: (status == AgentStatus::Offline)
                    .then(|| "not reached since the master started".to_owned()),
                since: now,
            };
        }
        let renamed = entry.name() != name_before;
        entry.find_anew(&id);
        if turned && was_known {
            self.note_link(&id, link, now);
        }
        self.agent_changed(&id, turned || renamed)
    }

    /// Takes the registrations that wait under `id`; an agent without a record and without any of them is gone.
    pub(crate) fn put_pending(
        &mut self,
        id: &AgentId,
        pending: Vec<PendingAgent>,
        now: Timestamp,
    ) -> Vec<Event> {
        let entry = self
            .agents
            .entry(id.clone())
            .or_insert_with(|| AgentEntry::new(now));
        entry.pending = pending;
        if entry.record.is_none() && entry.pending.is_empty() {
            self.agents.remove(id);
            return vec![Event::AgentRemoved {
                agent_id: id.clone(),
            }];
        }
        entry.find_anew(id);
        self.agent(id)
            .map(|agent| Event::Agent { agent })
            .into_iter()
            .collect()
    }

    /// Takes an agent's record away, with its VMs; registrations under its id go on waiting.
    pub(crate) fn remove_record(&mut self, id: &AgentId, now: Timestamp) -> Vec<Event> {
        let Some(entry) = self.agents.get_mut(id) else {
            return Vec::new();
        };
        entry.record = None;
        entry.info = None;
        entry.alerts.clear();
        entry.standing = Standing {
            status: AgentStatus::Pending,
            message: None,
            since: now,
        };
        let terminals: Vec<_> = entry.terminals.keys().copied().collect();
        let waiting = entry.pending.clone();
        self.link_changes.retain(|(agent, _)| agent != id);
        let vms: Vec<_> = self
            .vms
            .of_agent(id)
            .map(|row| row.vm.name.clone())
            .collect();
        let mut events = Vec::new();
        for vm in vms {
            events.extend(self.remove_vm(id, &vm));
        }
        for terminal in terminals {
            events.extend(self.remove_terminal(id, terminal));
        }
        events.extend(self.put_pending(id, waiting, now));
        self.list_revision += 1;
        events
    }

    /// Takes how an agent stands. An agent that is revoked, or gone, stands so whatever its task says.
    pub(crate) fn set_standing(
        &mut self,
        id: &AgentId,
        status: AgentStatus,
        message: Option<String>,
        now: Timestamp,
    ) -> Vec<Event> {
        let Some(entry) = self.agents.get_mut(id) else {
            return Vec::new();
        };
        let Some(record) = entry.record.as_ref().filter(|record| !record.revoked) else {
            return Vec::new();
        };
        if entry.standing.status == status && entry.standing.message == message {
            return Vec::new();
        }
        let turned = entry.standing.status != status;
        let link = record.link;
        entry.standing = Standing {
            status,
            message,
            since: if turned { now } else { entry.standing.since },
        };
        if turned {
            self.note_link(id, link, now);
        }
        self.agent_changed(id, turned)
    }

    /// Takes what an agent says of itself; its times are by the master's clock already.
    pub(crate) fn put_info(&mut self, id: &AgentId, info: AgentInfo) -> Vec<Event> {
        let Some(entry) = self.agents.get_mut(id) else {
            return Vec::new();
        };
        let health = |info: &AgentInfo| -> Vec<_> {
            info.drivers
                .iter()
                .map(|driver| (driver.kind, driver.capabilities, driver.health.status))
                .collect()
        };
        let measured = entry
            .info
            .as_ref()
            .is_some_and(|before| only_measured(before, &info));
        let health_turned = entry
            .info
            .as_ref()
            .is_none_or(|before| health(before) != health(&info));
        entry.info = Some(info);
        if measured {
            if let Some(agent) = self.agent(id) {
                self.measurements.push(Event::Agent { agent });
            }
            return Vec::new();
        }
        let name_before = entry.found_by().to_owned();
        entry.find_anew(id);
        let renamed = entry.found_by() != name_before;
        self.agent_changed(id, health_turned || renamed)
    }

    /// Remembers whether an agent speaks only the old paths.
    pub(crate) fn set_legacy(&mut self, id: &AgentId, legacy: bool) -> Vec<Event> {
        match self.agents.get_mut(id) {
            Some(entry) if entry.legacy != legacy => {
                entry.legacy = legacy;
                self.agent_changed(id, true)
            }
            _ => Vec::new(),
        }
    }

    /// The event for an agent, and one for all its VMs when what they show of it changed.
    fn agent_changed(&mut self, id: &AgentId, vms_too: bool) -> Vec<Event> {
        let Some(agent) = self.agent(id) else {
            return Vec::new();
        };
        let mut events = vec![Event::Agent { agent }];
        if vms_too {
            self.list_revision += 1;
            if self.vms.count_of(id) > 0 {
                events.push(Event::AgentVms {
                    agent_id: id.clone(),
                    stale: self.agents[id].why_all_stale().map(str::to_owned),
                });
            }
        }
        events
    }

    fn note_link(&mut self, id: &AgentId, link: LinkKind, now: Timestamp) {
        let standing = &self.agents[id].standing;
        let change = LinkChange {
            at: whole_ms(now),
            status: standing.status,
            link,
            reason: standing.message.clone(),
        };
        if self.link_changes.len() == MAX_LINK_CHANGES {
            self.link_changes.pop_front();
        }
        self.link_changes.push_back((id.clone(), change));
    }

    /// Takes all VMs of an agent: those not named are gone, `explained` says of which of them an operation is why.
    pub(crate) fn put_vms(
        &mut self,
        id: &AgentId,
        vms: Vec<Vm>,
        explained: &BTreeSet<VmName>,
        now: Timestamp,
    ) -> Vec<Event> {
        let mut events = self.keep_vms(id, &vms, explained, now);
        for vm in vms {
            events.extend(self.put_vm(id, vm));
        }
        events
    }

    /// Takes that an agent has no VMs but these.
    pub(crate) fn keep_vms(
        &mut self,
        id: &AgentId,
        vms: &[Vm],
        explained: &BTreeSet<VmName>,
        now: Timestamp,
    ) -> Vec<Event> {
        let names: HashSet<&VmName> = vms.iter().map(|vm| &vm.name).collect();
        let gone: Vec<_> = self
            .vms
            .of_agent(id)
            .map(|row| row.vm.name.clone())
            .filter(|name| !names.contains(name))
            .collect();
        let mut events = Vec::new();
        for name in gone {
            let why = match explained.contains(&name) {
                true => Gone::Asked,
                false => Gone::Unexplained,
            };
            events.extend(self.vm_gone(id, &name, why, now));
        }
        events
    }

    /// Takes one VM, new or changed.
    pub(crate) fn put_vm(&mut self, id: &AgentId, vm: Vm) -> Option<Event> {
        self.agents.get(id)?.record.as_ref()?;
        let about = match self.vms.get(id, &vm.name) {
            Some(before) if before.missing_since.is_none() => before.about.clone(),
            // One that was missing may be another one made anew, with labels of its own.
            before => {
                let promised = self.promised.remove(&(id.clone(), vm.name.clone()));
                promised
                    .or_else(|| before.map(|before| before.about.clone()))
                    .unwrap_or_default()
            }
        };
        self.put_row(Row::new(id.clone(), vm, about))
    }

    fn put_row(&mut self, row: Row) -> Option<Event> {
        let row = Arc::new(row);
        let before = self.vms.put(&row);
        let before = before.as_deref();
        if before.is_none_or(|before| before.differs_lastingly(&row)) {
            self.unsaved
                .insert((row.agent.clone(), row.vm.name.clone()));
            self.list_revision += 1;
        } else if before.is_some_and(|before| !before.differs_visibly(&row)) {
            return None;
        } else if before.is_some_and(|before| before.vm.operations == row.vm.operations) {
            let vm = self.listed(&row);
            self.measurements.push(Event::Vm { vm });
            return None;
        }
        Some(Event::Vm {
            vm: self.listed(&row),
        })
    }

    /// Takes that an agent does not know a VM any more: it is forgotten, or kept as missing until it is dismissed.
    ///
    /// What was in the trash, or was never finished, nobody misses.
    pub(crate) fn vm_gone(
        &mut self,
        id: &AgentId,
        name: &VmName,
        why: Gone,
        now: Timestamp,
    ) -> Option<Event> {
        let row = self.vms.get(id, name)?;
        if row.missing_since.is_some() {
            return None;
        }
        let nobody_misses = matches!(row.vm.state, VmState::Creating | VmState::Deleted);
        if why == Gone::Asked || nobody_misses || self.vms.missing_of(id) >= MAX_MISSING {
            return self.remove_vm(id, name);
        }
        let mut row = Row {
            missing_since: Some(whole_ms(now)),
            ..(**row).clone()
        };
        let vm = Arc::make_mut(&mut row.vm);
        vm.usage = None;
        vm.operations.clear();
        self.put_row(row)
    }

    /// Takes a VM from the store, before its agent is reached.
    pub(crate) fn load_vm(&mut self, row: Row) {
        if self
            .agents
            .get(&row.agent)
            .is_some_and(|entry| entry.record.is_some())
        {
            self.vms.put(&Arc::new(row));
            self.list_revision += 1;
        }
    }

    /// Forgets one VM.
    pub(crate) fn remove_vm(&mut self, id: &AgentId, name: &VmName) -> Option<Event> {
        let key = (id.clone(), name.clone());
        self.promised.remove(&key);
        self.vms.remove(id, name)?;
        self.unsaved.insert(key);
        self.list_revision += 1;
        Some(Event::VmRemoved {
            agent_id: id.clone(),
            name: name.clone(),
        })
    }

    /// Takes what people wrote about a VM that is there, or promises it to one that is about to be made.
    pub(crate) fn put_about(&mut self, id: &AgentId, name: &VmName, about: About) -> Option<Event> {
        match self.vms.get(id, name) {
            Some(row) if row.missing_since.is_none() => {
                let row = Row {
                    about,
                    ..(**row).clone()
                };
                self.put_row(row)
            }
            _ => {
                let key = (id.clone(), name.clone());
                match about == About::default() {
                    true => self.promised.remove(&key),
                    false => self.promised.insert(key, about),
                };
                None
            }
        }
    }

    /// Changes what people wrote about a VM that is listed, be it missing or not; `None` when it is not.
    pub(crate) fn change_about(
        &mut self,
        id: &AgentId,
        name: &VmName,
        change: impl FnOnce(&mut About),
    ) -> Option<Event> {
        let mut row = (**self.vms.get(id, name)?).clone();
        change(&mut row.about);
        self.put_row(row)
    }

    /// An agent as readers see it.
    pub(crate) fn agent(&self, id: &AgentId) -> Option<Agent> {
        let missing = self.vms.missing_of(id);
        let there = self.vms.count_of(id) - missing;
        Some(self.agents.get(id)?.agent(id, there, missing))
    }

    /// A VM as readers see it.
    pub(crate) fn listed(&self, row: &Row) -> ListedVm {
        let entry = self.agents.get(&row.agent);
        let stale = match entry {
            None => Some("the machine is gone"),
            Some(_) if row.missing_since.is_some() => {
                Some("the VM is gone from its machine: dismiss it, or bring it back there")
            }
            Some(entry) => entry.why_stale(&row.vm),
        };
        let actions = match (stale, entry) {
            (None, Some(entry)) => {
                Actions::of(row.vm.state, &entry.capabilities(&row.vm), &row.vm.settings)
            }
            (reason, _) => Actions::none_because(reason.unwrap_or("the machine is gone")),
        };
        ListedVm {
            agent_id: row.agent.clone(),
            agent_name: entry.map_or_else(String::new, |entry| entry.name().to_owned()),
            stale: stale.is_some(),
            missing_since: row.missing_since,
            display_name: row.about.display_name.clone(),
            notes: row.about.notes.clone(),
            labels: row.about.labels.clone(),
            label_sources: row.about.label_sources.clone(),
            actions,
            needs_stop: Actions::need_stop(row.vm.state),
            vm: row.vm.clone(),
        }
    }
}

/// A time as the store keeps it, so that it is the same before and after a restart.
fn whole_ms(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// Whether an agent's word on itself differs in nothing but what changes all the time.
fn only_measured(before: &AgentInfo, now: &AgentInfo) -> bool {
    let mut steady = now.clone();
    steady.clock = before.clock;
    steady.started_at = before.started_at;
    steady.host.load = before.host.load;
    steady.host.memory_available = before.host.memory_available;
    steady.host.disk_free = before.host.disk_free;
    for (now, before) in steady.drivers.iter_mut().zip(&before.drivers) {
        if now.health.status == before.health.status {
            now.health.since = before.health.since;
        }
    }
    steady == *before
}
