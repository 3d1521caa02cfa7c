//! What is known, as data: agents, their VMs, sorted indexes, counts. No tasks, no I/O, no clock.
//!
//! [`super::Fleet`] holds one `State` behind its lock; the tasks that watch agents bring what they hear, and every
//! change answers with the events it means. One writer for an agent's VMs: the task that watches that agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use batwa_api::{
    Timestamp,
    agent::{
        Agent, AgentInfo, AgentStatus, Alert, Capabilities, HealthStatus, LabelSource, LinkKind,
        Tunnel,
    },
    event::Event,
    id::{AgentId, TerminalId},
    name::VmName,
    terminal::{ListedTerminal, Terminal},
    tunnel::PublicKey,
    vm::{Actions, ListedVm, Vm, VmState},
};

use super::{
    labels::{self, Labelled},
    record::{AgentRecord, PendingAgent},
};

/// Labels of a VM.
pub(crate) type Labels = BTreeMap<String, String>;

/// One VM of the fleet: what the agent said, and what it is found by.
#[derive(Debug)]
pub(crate) struct Row {
    /// The agent it is on.
    pub(crate) agent: AgentId,
    /// The agent's last word. Its `actions` are empty: they are made for each reader, from the one table.
    pub(crate) vm: Vm,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Everything that a search looks at, in lower case.
    pub(crate) searched: String,
}

impl Row {
    fn new(agent: AgentId, agent_name: &str, mut vm: Vm, labels: Labels) -> Self {
        vm.actions = Actions::default();
        let mut searched = format!("{agent}/{}\n{agent_name}", vm.name);
        for text in vm.image.iter().chain(&vm.release).chain(&vm.ipv4) {
            searched.push('\n');
            searched.push_str(text);
        }
        for (key, value) in &labels {
            searched.push('\n');
            searched.push_str(key);
            searched.push('=');
            searched.push_str(value);
        }
        Self {
            agent,
            vm,
            labels,
            searched: searched.to_lowercase(),
        }
    }

    /// Whether `other` differs in what is worth writing down: all but measurements and their times.
    fn differs_lastingly(&self, other: &Vm) -> bool {
        let mine = Vm {
            usage: None,
            observed_at: other.observed_at,
            operations: Vec::new(),
            ..self.vm.clone()
        };
        let theirs = Vm {
            usage: None,
            operations: Vec::new(),
            actions: Actions::default(),
            ..other.clone()
        };
        mine != theirs
    }
}

/// How an agent stands, as the task that watches it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How it stands.
    pub(crate) status: AgentStatus,
    /// Why.
    pub(crate) message: Option<String>,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct AgentEntry {
    /// Its record; `None` while only registrations wait under its id.
    pub(crate) record: Option<AgentRecord>,
    /// Registrations that wait under its id.
    pub(crate) pending: Vec<PendingAgent>,
    /// How it stands.
    pub(crate) standing: Standing,
    /// What it last said of itself.
    pub(crate) info: Option<AgentInfo>,
    /// Whether it speaks only the old paths.
    pub(crate) legacy: bool,
    /// When the master last heard of it, in milliseconds; 0 is never. Written by heartbeats without the lock.
    pub(crate) last_seen_ms: Arc<AtomicI64>,
    /// Its VMs.
    pub(crate) vms: BTreeSet<VmName>,
    /// Its terminal sessions.
    pub(crate) terminals: BTreeMap<TerminalId, Terminal>,
    /// Tunnels that are open under its id, by the key that each has proven.
    pub(crate) tunnels: BTreeMap<PublicKey, Tunnel>,
    /// What an admin should look at.
    pub(crate) alerts: Vec<Alert>,
}

impl AgentEntry {
    fn new(now: Timestamp) -> Self {
        Self {
            record: None,
            pending: Vec::new(),
            standing: Standing {
                status: AgentStatus::Pending,
                message: None,
                since: now,
            },
            info: None,
            legacy: false,
            last_seen_ms: Arc::new(AtomicI64::new(0)),
            vms: BTreeSet::new(),
            terminals: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            alerts: Vec::new(),
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        match &self.record {
            Some(record) => record.display_name.as_deref().unwrap_or_else(|| {
                let observed = self.info.as_ref().map(|info| info.host.hostname.as_str());
                observed
                    .filter(|name| !name.is_empty())
                    .unwrap_or(&record.hostname)
            }),
            None => self
                .pending
                .first()
                .map_or("", |pending| pending.hostname.as_str()),
        }
    }

    /// Its labels and who set each; those it would come with while it waits.
    pub(crate) fn labelled(&self) -> Labelled {
        let own = self.info.as_ref().map(|info| &info.labels);
        match (&self.record, self.pending.first()) {
            (Some(record), _) => labels::labelled(record, own),
            (None, Some(first)) => first
                .tags
                .iter()
                .map(|(key, value)| (key.clone(), (value.clone(), LabelSource::Agent)))
                .collect(),
            (None, None) => Labelled::new(),
        }
    }

    /// Its labels.
    pub(crate) fn labels(&self) -> Labels {
        let labelled = self.labelled().into_iter();
        labelled.map(|(key, (value, _))| (key, value)).collect()
    }

    /// When the master last heard of it.
    pub(crate) fn last_seen(&self) -> Option<Timestamp> {
        match self.last_seen_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Timestamp::from_millisecond(ms).ok(),
        }
    }

    /// The agent as it is listed.
    pub(crate) fn agent(&self, id: &AgentId) -> Agent {
        let record = self.record.as_ref();
        let first = self.pending.first();
        let labelled = self.labelled();
        Agent {
            id: id.clone(),
            name: self.name().to_owned(),
            status: self.standing.status,
            message: self.standing.message.clone(),
            status_since: self.standing.since,
            link: record
                .map(|record| record.link)
                .or_else(|| first.map(PendingAgent::link))
                .unwrap_or(LinkKind::Direct),
            api_url: record
                .map(|record| record.api_url.clone())
                .or_else(|| first.map(|pending| pending.api_url.clone()))
                .unwrap_or_default(),
            legacy: self.legacy,
            labels: labelled
                .iter()
                .map(|(key, (value, _))| (key.clone(), value.clone()))
                .collect(),
            label_sources: labelled
                .into_iter()
                .map(|(key, (_, source))| (key, source))
                .collect(),
            notes: record.map_or_else(String::new, |record| record.notes.clone()),
            last_seen: self
                .last_seen()
                .or_else(|| first.map(|pending| pending.last_seen)),
            vm_count: self.vms.len() as u64,
            cordoned: record.is_some_and(|record| record.cordoned),
            info: self.info.clone(),
            registrations: self
                .pending
                .iter()
                .map(|pending| pending.registration(self.is_connected(pending)))
                .collect(),
            fingerprint: record
                .and_then(AgentRecord::fingerprint)
                .map(|fingerprint| fingerprint.shown().to_owned()),
            tunnel: record
                .and_then(|record| record.public_key)
                .and_then(|key| self.tunnels.get(&key).cloned()),
            alerts: self.alerts.clone(),
        }
    }

    /// Whether the tunnel of a waiting registration is open.
    pub(crate) fn is_connected(&self, pending: &PendingAgent) -> bool {
        pending
            .public_key
            .is_some_and(|key| self.tunnels.contains_key(&key))
    }

    /// What the driver of `vm` can do here.
    pub(crate) fn capabilities(&self, vm: &Vm) -> Capabilities {
        if self.legacy {
            return OLD_CAPABILITIES;
        }
        self.driver(vm)
            .map(|driver| driver.capabilities)
            .unwrap_or_default()
    }

    fn driver(&self, vm: &Vm) -> Option<&batwa_api::agent::DriverStatus> {
        self.info
            .as_ref()?
            .drivers
            .iter()
            .find(|driver| driver.kind == vm.driver)
    }

    /// Why what is known of `vm` may be out of date; `None` when it is fresh.
    pub(crate) fn why_stale(&self, vm: &Vm) -> Option<&'static str> {
        match self.standing.status {
            AgentStatus::Online => match self.driver(vm)?.health.status {
                HealthStatus::Ok | HealthStatus::Slow => None,
                HealthStatus::Stuck => Some("the machine's driver does not answer"),
                HealthStatus::Missing => Some("the machine's driver is missing"),
            },
            AgentStatus::Revoked => Some("the machine was shut out"),
            AgentStatus::Pending => Some("the machine waits for approval"),
            AgentStatus::Offline => Some("the machine is offline"),
            AgentStatus::Error => Some("the machine does not answer as it should"),
        }
    }
}

/// What an agent from before v1 can do: shells, and nothing else beyond create, start, stop and purge.
pub(crate) const OLD_CAPABILITIES: Capabilities = Capabilities {
    shell: true,
    console: false,
    suspend: false,
    trash: false,
    cloud_init: false,
};

/// By what a list of VMs is sorted; the name and then the agent decide where that is equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey(pub(crate) VmName, pub(crate) AgentId);

/// Everything known.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// All agents.
    pub(crate) agents: BTreeMap<AgentId, AgentEntry>,
    /// All VMs, by agent and name.
    pub(crate) by_agent: BTreeMap<(AgentId, VmName), Arc<Row>>,
    /// All VMs, by name and agent.
    pub(crate) by_name: BTreeMap<NameKey, Arc<Row>>,
    /// All VMs, by state, name and agent.
    pub(crate) by_state: BTreeMap<(VmState, NameKey), Arc<Row>>,
    /// How many VMs are in each state; states with none are absent.
    pub(crate) counts: BTreeMap<VmState, u64>,
    /// Labels of VMs that are there or being made.
    pub(crate) labels: BTreeMap<(AgentId, VmName), Labels>,
    /// Rises with every change that the old list shows.
    pub(crate) list_revision: u64,
    /// Who opened which terminal session, where the master knows.
    pub(crate) openers: BTreeMap<TerminalId, String>,
    /// VMs whose last known state is not written down yet.
    pub(crate) unsaved: BTreeSet<(AgentId, VmName)>,
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
        entry.record = Some(record);
        if status != entry.standing.status {
            entry.standing = Standing {
                status,
                message: (status == AgentStatus::Offline)
                    .then(|| "not reached since the master started".to_owned()),
                since: now,
            };
        }
        let renamed = entry.name() != name_before;
        if renamed {
            self.search_anew(&id);
        }
        self.agent_changed(&id, renamed)
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
        vec![Event::Agent {
            agent: entry.agent(id),
        }]
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
        let vms: Vec<_> = entry.vms.iter().cloned().collect();
        let terminals: Vec<_> = entry.terminals.keys().copied().collect();
        let mut events = Vec::new();
        for vm in vms {
            events.extend(self.remove_vm(id, &vm));
        }
        for terminal in terminals {
            events.extend(self.remove_terminal(id, terminal));
        }
        let waiting = self
            .agents
            .get(id)
            .map(|entry| entry.pending.clone())
            .unwrap_or_default();
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
        let shut_out = entry.record.as_ref().is_none_or(|record| record.revoked);
        if shut_out || (entry.standing.status == status && entry.standing.message == message) {
            return Vec::new();
        }
        let turned = entry.standing.status != status;
        entry.standing = Standing {
            status,
            message,
            since: if turned { now } else { entry.standing.since },
        };
        self.agent_changed(id, turned)
    }

    /// Takes that a tunnel of `key` is open, or, with `None`, is no more.
    pub(crate) fn put_tunnel(
        &mut self,
        id: &AgentId,
        key: PublicKey,
        tunnel: Option<Tunnel>,
    ) -> Vec<Event> {
        let Some(entry) = self.agents.get_mut(id) else {
            return Vec::new();
        };
        let changed = match tunnel {
            Some(tunnel) => entry.tunnels.insert(key, tunnel.clone()) != Some(tunnel),
            None => entry.tunnels.remove(&key).is_some(),
        };
        if changed {
            self.agent_changed(id, false)
        } else {
            Vec::new()
        }
    }

    /// Takes that a tunnel, if it is open, goes by another key.
    pub(crate) fn move_tunnel(
        &mut self,
        id: &AgentId,
        old: PublicKey,
        new: PublicKey,
    ) -> Vec<Event> {
        let tunnel = self
            .agents
            .get_mut(id)
            .and_then(|entry| entry.tunnels.remove(&old));
        match tunnel {
            Some(tunnel) => self.put_tunnel(id, new, Some(tunnel)),
            None => Vec::new(),
        }
    }

    /// Takes what an admin should look at.
    pub(crate) fn put_alerts(&mut self, id: &AgentId, alerts: Vec<Alert>) -> Vec<Event> {
        match self.agents.get_mut(id) {
            Some(entry) if entry.alerts != alerts => {
                entry.alerts = alerts;
                self.agent_changed(id, false)
            }
            _ => Vec::new(),
        }
    }

    /// Takes what an agent says of itself.
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
        let name_before = entry.name().to_owned();
        let health_turned = entry
            .info
            .as_ref()
            .is_none_or(|before| health(before) != health(&info));
        entry.info = Some(info);
        let renamed = entry.name() != name_before;
        if renamed {
            self.search_anew(id);
        }
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

    /// Makes an agent's VMs found by what it is called now.
    fn search_anew(&mut self, id: &AgentId) {
        let Some(entry) = self.agents.get(id) else {
            return;
        };
        let name = entry.name().to_owned();
        for vm in entry.vms.clone() {
            let key = (id.clone(), vm);
            if let Some(row) = self.by_agent.get(&key) {
                let row = Row::new(id.clone(), &name, row.vm.clone(), row.labels.clone());
                self.index(key, Arc::new(row));
            }
        }
    }

    /// The event for an agent, and those for its VMs when what they show of it changed.
    fn agent_changed(&mut self, id: &AgentId, vms_too: bool) -> Vec<Event> {
        let Some(entry) = self.agents.get(id) else {
            return Vec::new();
        };
        let mut events = vec![Event::Agent {
            agent: entry.agent(id),
        }];
        if vms_too {
            self.list_revision += 1;
            events.extend(
                self.by_agent
                    .range((id.clone(), first_name())..)
                    .take_while(|((agent, _), _)| agent == id)
                    .map(|(_, row)| Event::Vm {
                        vm: self.listed(row),
                    }),
            );
        }
        events
    }

    /// Takes all VMs of an agent: those not named are gone.
    pub(crate) fn put_vms(&mut self, id: &AgentId, vms: Vec<Vm>) -> Vec<Event> {
        let Some(entry) = self.agents.get(id) else {
            return Vec::new();
        };
        let names: BTreeSet<&VmName> = vms.iter().map(|vm| &vm.name).collect();
        let gone: Vec<_> = entry
            .vms
            .iter()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        let mut events = Vec::new();
        for name in gone {
            events.extend(self.remove_vm(id, &name));
        }
        for vm in vms {
            events.extend(self.put_vm(id, vm));
        }
        events
    }

    /// Takes one VM, new or changed.
    pub(crate) fn put_vm(&mut self, id: &AgentId, vm: Vm) -> Option<Event> {
        let entry = self.agents.get_mut(id)?;
        entry.record.as_ref()?;
        let key = (id.clone(), vm.name.clone());
        let before = self.by_agent.get(&key);
        let labels = self.labels.get(&key).cloned().unwrap_or_default();
        if before.is_none_or(|row| row.differs_lastingly(&vm) || row.labels != labels) {
            self.unsaved.insert(key.clone());
            self.list_revision += 1;
        }
        entry.vms.insert(vm.name.clone());
        let row = Arc::new(Row::new(id.clone(), entry.name(), vm, labels));
        self.index(key, row.clone());
        Some(Event::Vm {
            vm: self.listed(&row),
        })
    }

    /// Forgets one VM.
    pub(crate) fn remove_vm(&mut self, id: &AgentId, name: &VmName) -> Option<Event> {
        let key = (id.clone(), name.clone());
        self.labels.remove(&key);
        let row = self.by_agent.remove(&key)?;
        if let Some(entry) = self.agents.get_mut(id) {
            entry.vms.remove(name);
        }
        let name_key = NameKey(name.clone(), id.clone());
        self.by_name.remove(&name_key);
        self.by_state.remove(&(row.vm.state, name_key));
        self.count_down(row.vm.state);
        self.unsaved.insert(key);
        self.list_revision += 1;
        Some(Event::VmRemoved {
            agent_id: id.clone(),
            name: name.clone(),
        })
    }

    /// Sets the labels of a VM that is there or about to be made.
    pub(crate) fn put_labels(
        &mut self,
        id: &AgentId,
        name: &VmName,
        labels: Labels,
    ) -> Option<Event> {
        let key = (id.clone(), name.clone());
        if labels.is_empty() {
            self.labels.remove(&key);
        } else {
            self.labels.insert(key.clone(), labels);
        }
        let vm = self.by_agent.get(&key)?.vm.clone();
        self.put_vm(id, vm)
    }

    fn index(&mut self, key: (AgentId, VmName), row: Arc<Row>) {
        let name_key = NameKey(key.1.clone(), key.0.clone());
        let state = row.vm.state;
        if let Some(before) = self.by_agent.insert(key, row.clone()) {
            if before.vm.state != state {
                self.by_state.remove(&(before.vm.state, name_key.clone()));
            }
            self.count_down(before.vm.state);
        }
        *self.counts.entry(state).or_default() += 1;
        self.by_state.insert((state, name_key.clone()), row.clone());
        self.by_name.insert(name_key, row);
    }

    fn count_down(&mut self, state: VmState) {
        if let Some(count) = self.counts.get_mut(&state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&state);
            }
        }
    }

    /// Takes all terminal sessions of an agent.
    pub(crate) fn put_terminals(&mut self, id: &AgentId, terminals: Vec<Terminal>) -> Vec<Event> {
        let Some(entry) = self.agents.get(id) else {
            return Vec::new();
        };
        let there: BTreeSet<TerminalId> = terminals.iter().map(|terminal| terminal.id).collect();
        let gone: Vec<_> = entry
            .terminals
            .keys()
            .filter(|id| !there.contains(id))
            .copied()
            .collect();
        let mut events = Vec::new();
        for terminal in gone {
            events.extend(self.remove_terminal(id, terminal));
        }
        for terminal in terminals {
            events.extend(self.put_terminal(id, terminal));
        }
        events
    }

    /// Takes one terminal session; `None` when nothing changed.
    pub(crate) fn put_terminal(&mut self, id: &AgentId, terminal: Terminal) -> Option<Event> {
        let entry = self.agents.get_mut(id)?;
        entry.record.as_ref()?;
        let before = entry.terminals.insert(terminal.id, terminal.clone());
        (before.as_ref() != Some(&terminal)).then(|| Event::Terminal {
            terminal: ListedTerminal {
                agent_id: id.clone(),
                opened_by: self.openers.get(&terminal.id).cloned(),
                terminal,
            },
        })
    }

    /// Forgets one terminal session.
    pub(crate) fn remove_terminal(&mut self, id: &AgentId, terminal: TerminalId) -> Option<Event> {
        self.openers.remove(&terminal);
        self.agents
            .get_mut(id)?
            .terminals
            .remove(&terminal)
            .map(|_| Event::TerminalRemoved { id: terminal })
    }

    /// A VM as readers see it.
    pub(crate) fn listed(&self, row: &Row) -> ListedVm {
        let entry = self.agents.get(&row.agent);
        let stale = entry.map_or(Some("the machine is gone"), |entry| {
            entry.why_stale(&row.vm)
        });
        let actions = match (stale, entry) {
            (None, Some(entry)) => Actions::of(row.vm.state, &entry.capabilities(&row.vm)),
            (reason, _) => Actions::none_because(reason.unwrap_or("the machine is gone")),
        };
        ListedVm {
            agent_id: row.agent.clone(),
            agent_name: entry.map_or_else(String::new, |entry| entry.name().to_owned()),
            stale: stale.is_some(),
            labels: row.labels.clone(),
            vm: Vm {
                actions,
                ..row.vm.clone()
            },
        }
    }
}

/// The name before all others, for ranges over one agent's VMs.
pub(crate) fn first_name() -> VmName {
    // The form of names starts above this one: no name has a control character or is shorter.
    VmName::parse("!").expect("a usable name")
}

#[cfg(test)]
pub(crate) mod tests {
    use batwa_api::agent::DriverKind;
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn id(text: &str) -> AgentId {
        AgentId::parse(text).unwrap()
    }

    pub(crate) fn vm(name: &str, state: VmState) -> Vm {
        Vm {
            name: VmName::parse(name).unwrap(),
            state,
            state_since: now(),
            message: None,
            driver: DriverKind::Fake,
            readiness: None,
            ipv4: vec![],
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
            observed_at: now(),
            actions: Actions::default(),
            operations: vec![],
        }
    }

    fn state_with(agents: &[&str]) -> State {
        let mut state = State::default();
        for agent in agents {
            let record = AgentRecord {
                id: id(agent),
                ..AgentRecord::local((*agent).to_owned(), now())
            };
            state.put_record(record, now());
            state.set_standing(&id(agent), AgentStatus::Online, None, now());
        }
        state
    }

    fn consistent(state: &State) {
        let total: u64 = state.counts.values().sum();
        assert_eq!(total, state.by_agent.len() as u64);
        assert_eq!(state.by_name.len(), state.by_agent.len());
        assert_eq!(state.by_state.len(), state.by_agent.len());
        for ((agent, name), row) in &state.by_agent {
            let key = NameKey(name.clone(), agent.clone());
            assert!(Arc::ptr_eq(row, &state.by_name[&key]));
            assert!(Arc::ptr_eq(row, &state.by_state[&(row.vm.state, key)]));
            assert!(state.agents[agent].vms.contains(name));
        }
        let known: usize = state.agents.values().map(|entry| entry.vms.len()).sum();
        assert_eq!(known, state.by_agent.len());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(usize, usize, usize),
        Remove(usize, usize),
        Snapshot(usize, Vec<(usize, usize)>),
        RemoveAgent(usize),
        AddAgent(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let agent = 0..3_usize;
        let name = 0..6_usize;
        let state = 0..VmState::ALL.len();
        let step = prop_oneof![
            6 => (agent.clone(), name.clone(), state.clone()).prop_map(|(a, n, s)| Step::Put(a, n, s)),
            3 => (agent.clone(), name.clone()).prop_map(|(a, n)| Step::Remove(a, n)),
            2 => (agent.clone(), prop::collection::vec((name, state), 0..6))
                .prop_map(|(a, vms)| Step::Snapshot(a, vms)),
            1 => agent.clone().prop_map(Step::RemoveAgent),
            1 => agent.prop_map(Step::AddAgent),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn indexes_and_counts_agree_whatever_agents_say(steps in steps()) {
            let agents = ["a", "b", "c"];
            let mut state = state_with(&agents);
            for step in steps {
                let named = |n: usize, s: usize| vm(&format!("vm{n}"), VmState::ALL[s]);
                match step {
                    Step::Put(a, n, s) => { state.put_vm(&id(agents[a]), named(n, s)); }
                    Step::Remove(a, n) => {
                        state.remove_vm(&id(agents[a]), &named(n, 0).name);
                    }
                    Step::Snapshot(a, vms) => {
                        let vms = vms.into_iter().map(|(n, s)| named(n, s)).collect();
                        state.put_vms(&id(agents[a]), vms);
                    }
                    Step::RemoveAgent(a) => { state.remove_record(&id(agents[a]), now()); }
                    Step::AddAgent(a) => {
                        let record = AgentRecord {
                            id: id(agents[a]),
                            ..AgentRecord::local("host".to_owned(), now())
                        };
                        state.put_record(record, now());
                    }
                }
                consistent(&state);
            }
        }
    }

    #[test]
    fn vms_of_an_agent_that_goes_offline_stay_and_turn_stale() {
        let mut state = state_with(&["a"]);
        state.put_vm(&id("a"), vm("web", VmState::Running));
        let events = state.set_standing(&id("a"), AgentStatus::Offline, Some("gone".into()), now());
        let Some(Event::Vm { vm }) = events.last() else {
            panic!("{events:?}")
        };
        assert!(vm.stale);
        assert_eq!(vm.vm.state, VmState::Running);
        assert!(vm.vm.actions.0.values().all(Option::is_some));
    }

    #[test]
    fn a_measurement_alone_is_not_written_down() {
        let mut state = state_with(&["a"]);
        state.put_vm(&id("a"), vm("web", VmState::Running));
        state.unsaved.clear();
        let revision = state.list_revision;
        let mut measured = vm("web", VmState::Running);
        measured.usage = Some(Default::default());
        state.put_vm(&id("a"), measured);
        assert!(state.unsaved.is_empty());
        assert_eq!(state.list_revision, revision);
        state.put_vm(&id("a"), vm("web", VmState::Stopped));
        assert_eq!(state.unsaved.len(), 1);
    }

    #[test]
    fn revoked_agents_stay_revoked_whatever_their_link_says() {
        let mut state = state_with(&["a"]);
        let record = AgentRecord {
            id: id("a"),
            revoked: true,
            ..AgentRecord::local("a".to_owned(), now())
        };
        state.put_record(record, now());
        state.set_standing(&id("a"), AgentStatus::Online, None, now());
        assert_eq!(state.agents[&id("a")].standing.status, AgentStatus::Revoked);
    }
}
