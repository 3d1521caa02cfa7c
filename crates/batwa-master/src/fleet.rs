//! What is known of agents and VMs, with its age; the events that tell of changes; who reaches which agent.
//!
//! In memory, rebuilt from the store at start and from the agents' watches as they connect. One task attends to
//! each agent that was let in ([`contact`]): it alone writes what that agent says. Lists are answered from here
//! and never ask an agent. The fleet knows nothing of the store: what has to be written down is marked unsaved
//! and fetched by `app::keeper`.

pub(crate) mod admission;
pub(crate) mod agent_list;
pub(crate) mod clock;
pub(crate) mod contact;
pub(crate) mod enrolment;
pub(crate) mod entry;
pub(crate) mod events;
mod hygiene;
mod index;
pub(crate) mod labels;
mod old_list;
pub(crate) mod operations;
pub(crate) mod ownership;
mod pace;
mod poll;
mod pulse;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod row;
pub(crate) mod search;
pub(crate) mod searching;
pub(crate) mod state;
pub(crate) mod tunnels;
mod unsaved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    event::Event,
    id::AgentId,
    name::VmName,
    vm::{ListedVm, VmAction},
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Connector;
use contact::Contact;
use events::{Events, Subscription};
use old_list::OldListCache;
use operations::Live;
use ownership::Ownership;
use record::{AgentRecord, PendingAgent};
use row::{Labels, Row};
use searching::Searches;
use state::State;
use tunnels::Tunnels;

/// How long after somebody looked old agents are asked often.
const INTEREST_MS: i64 = 20_000;

/// The fleet.
pub(crate) struct Fleet {
    state: RwLock<State>,
    operations: Mutex<HashMap<batwa_api::id::OperationId, Live>>,
    contacts: RwLock<HashMap<AgentId, Arc<Contact>>>,
    events: Events,
    interest: Interest,
    old_list: OldListCache,
    searches: Searches,
    /// Makes streams to the agent of this process.
    local: Option<Connector>,
    /// Who vouches for agents' certificates.
    roots: batwa_tls::SystemRoots,
    /// Tunnels that agents have open.
    pub(crate) tunnels: Arc<Tunnels>,
    /// Held by whoever decides who is let in: a decision and its rows belong together.
    pub(crate) enrolment: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
    loaded: AtomicBool,
    /// Rung when something waits to be written down.
    unsaved: Notify,
    /// Agents that came online and whose unfinished operations are to be settled.
    arrived: Mutex<BTreeSet<AgentId>>,
    arrival: Notify,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

/// Whether somebody looks at lists at present.
#[derive(Default)]
struct Interest {
    looked_ms: AtomicI64,
    followers: AtomicUsize,
    woken: Notify,
}

/// Somebody who follows events; old agents are asked often as long as there is one.
pub(crate) struct Follower {
    fleet: Arc<Fleet>,
    /// The events.
    pub(crate) events: Subscription,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.fleet
            .interest
            .followers
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a VM stands, for whoever wants to do something with it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The VM.
    pub(crate) vm: ListedVm,
}

impl Found {
    /// Why `action` is not possible now.
    pub(crate) fn refusal(&self, action: VmAction) -> Option<&str> {
        self.vm.actions.refusal(action)
    }
}

impl Fleet {
    /// A fleet that knows nothing yet; its tasks end when `stop` is cancelled.
    pub(crate) fn new(local: Option<Connector>, stop: CancellationToken) -> Self {
        let started_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Self {
            state: RwLock::default(),
            operations: Mutex::default(),
            contacts: RwLock::default(),
            // A thousand numbers a millisecond: no master publishes faster, so a later start is always above.
            events: Events::starting_at(started_ms * 1000),
            interest: Interest::default(),
            old_list: OldListCache::default(),
            searches: Searches::default(),
            local,
            roots: batwa_tls::SystemRoots::default(),
            tunnels: Arc::default(),
            enrolment: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
            loaded: AtomicBool::new(false),
            unsaved: Notify::new(),
            arrived: Mutex::default(),
            arrival: Notify::new(),
        }
    }

    /// Whether lists can be answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Says that everything from the store is in.
    pub(crate) fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    /// Whether this master has an agent in its own process.
    pub(crate) fn has_local_agent(&self) -> bool {
        self.local.is_some()
    }

    /// Waits for the agents' tasks after the stop.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().expect("no writer panics"))
    }

    /// Changes the state and publishes what changed, in that order and at once.
    fn write(&self, write: impl FnOnce(&mut State) -> Vec<Event>) {
        let unsaved = {
            let mut state = self.state.write().expect("no writer panics");
            for event in write(&mut state) {
                self.events.publish(event);
            }
            self.events.publish_measurements(&mut state.measurements);
            !state.unsaved.is_empty() || !state.link_changes.is_empty()
        };
        if unsaved {
            self.unsaved.notify_one();
        }
    }

    /// Somebody looks: old agents are asked at once and then often.
    pub(crate) fn look(&self) {
        let now = Timestamp::now().as_millisecond();
        let before = self.interest.looked_ms.swap(now, Ordering::Relaxed);
        if now - before > INTEREST_MS && self.interest.followers.load(Ordering::Relaxed) == 0 {
            self.interest.woken.notify_waiters();
        }
    }

    /// Whether somebody looks, or did lately.
    fn is_looked_at(&self) -> bool {
        let since =
            Timestamp::now().as_millisecond() - self.interest.looked_ms.load(Ordering::Relaxed);
        self.interest.followers.load(Ordering::Relaxed) > 0 || since < INTEREST_MS
    }

    /// Follows events from after `last_seen`, or from now on.
    pub(crate) fn follow(self: &Arc<Self>, last_seen: Option<u64>) -> Follower {
        self.look();
        self.interest.followers.fetch_add(1, Ordering::Relaxed);
        Follower {
            fleet: self.clone(),
            events: self.events.subscribe(last_seen),
        }
    }

    /// One VM.
    pub(crate) fn vm(&self, agent: &AgentId, name: &VmName) -> Option<Found> {
        self.read(|state| {
            let row = state.vms.get(agent, name)?;
            Some(Found {
                vm: state.listed(row),
            })
        })
    }

    /// The answer to the old `GET /api/vm/list`, ready to send.
    pub(crate) fn old_list(&self) -> bytes::Bytes {
        self.look();
        self.read(|state| self.old_list.get(state))
    }

    /// Takes a VM's last known state from the store, before its agent is reached.
    pub(crate) fn load_vm(&self, row: Row) {
        let mut state = self.state.write().expect("no writer panics");
        state.load_vm(row);
    }

    /// Forgets a VM, if it is still missing.
    pub(crate) fn dismiss_vm(&self, agent: &AgentId, name: &VmName) {
        self.write(|state| {
            let missing = state
                .vms
                .get(agent, name)
                .is_some_and(|row| row.missing_since.is_some());
            let removed = missing.then(|| state.remove_vm(agent, name)).flatten();
            removed.into_iter().collect()
        });
    }

    /// Takes whose which session is from the store.
    pub(crate) fn load_ownerships(
        &self,
        ownerships: BTreeMap<batwa_api::id::TerminalId, Ownership>,
    ) {
        let mut state = self.state.write().expect("no writer panics");
        state.ownerships.extend(ownerships);
    }

    /// Terminal sessions that are there.
    pub(crate) fn known_terminals(&self) -> BTreeSet<batwa_api::id::TerminalId> {
        self.read(|state| state.known_terminals().collect())
    }

    /// Forgets whose sessions are that are neither there nor in the store any more.
    pub(crate) fn forget_ownerships(&self, stored: &BTreeSet<batwa_api::id::TerminalId>) {
        let mut state = self.state.write().expect("no writer panics");
        let there: BTreeSet<_> = state.known_terminals().collect();
        state
            .ownerships
            .retain(|id, _| there.contains(id) || stored.contains(id));
    }

    /// Sets the labels of a VM that is there or about to be made.
    pub(crate) fn put_labels(&self, agent: &AgentId, name: &VmName, labels: Labels) {
        self.write(|state| state.put_labels(agent, name, labels).into_iter().collect());
    }

    /// Takes an agent's record, new or changed, and reaches for the agent.
    pub(crate) fn put_record(self: &Arc<Self>, record: &AgentRecord) {
        self.write(|state| state.put_record(record.clone(), Timestamp::now()));
        self.reach(record);
    }

    /// Takes the registrations that wait under `id`.
    pub(crate) fn put_pending(&self, id: &AgentId, pending: Vec<PendingAgent>) {
        self.write(|state| state.put_pending(id, pending, Timestamp::now()));
    }

    /// Takes an agent's record and what it last said from the store, without reaching for the agent yet.
    pub(crate) fn load_agent(
        &self,
        record: AgentRecord,
        info: Option<batwa_api::agent::AgentInfo>,
        legacy: bool,
    ) {
        let id = record.id.clone();
        let mut state = self.state.write().expect("no writer panics");
        state.put_record(record, Timestamp::now());
        state.set_legacy(&id, legacy);
        if let Some(info) = info {
            state.put_info(&id, info);
        }
    }

    /// Reaches for every agent that was let in.
    pub(crate) fn reach_all(self: &Arc<Self>) {
        let records: Vec<_> = self.read(|state| {
            state
                .agents
                .values()
                .filter_map(|entry| entry.record.clone())
                .collect()
        });
        for record in records {
            self.reach(&record);
        }
    }

    /// An agent's record.
    pub(crate) fn record(&self, id: &AgentId) -> Option<AgentRecord> {
        self.read(|state| state.agents.get(id)?.record.clone())
    }

    /// The registrations that wait under one id.
    pub(crate) fn pending_of(&self, id: &AgentId) -> Vec<PendingAgent> {
        self.read(|state| {
            state
                .agents
                .get(id)
                .map(|entry| entry.pending.clone())
                .unwrap_or_default()
        })
    }

    /// All registrations that wait.
    pub(crate) fn all_pending(&self) -> Vec<PendingAgent> {
        self.read(|state| {
            state
                .agents
                .values()
                .flat_map(|entry| entry.pending.iter().cloned())
                .collect()
        })
    }

    /// Takes the record of an agent whose registrations wait no longer.
    pub(crate) fn put_pending_and_record(self: &Arc<Self>, record: &AgentRecord) {
        self.write(|state| {
            let mut events = state.put_record(record.clone(), Timestamp::now());
            events.extend(state.put_pending(&record.id, Vec::new(), Timestamp::now()));
            events
        });
        self.reach(record);
    }

    /// Notes that an agent was heard of by another way than its link.
    pub(crate) fn heard_from(&self, id: &AgentId) {
        let now = Timestamp::now().as_millisecond();
        self.read(|state| {
            if let Some(entry) = state.agents.get(id) {
                entry.last_seen_ms.store(now, Ordering::Relaxed);
            }
        });
    }

    /// Takes that a tunnel is open with `key`, or is no more; an agent that is let in is reached for at once.
    pub(crate) fn put_tunnel(
        &self,
        id: &AgentId,
        key: batwa_api::tunnel::PublicKey,
        tunnel: Option<batwa_api::agent::Tunnel>,
    ) {
        let opened = tunnel.is_some();
        self.write(|state| state.put_tunnel(id, key, tunnel));
        if opened {
            self.heard_from(id);
            if let Some(contact) = self.contact(id) {
                contact.wake.notify_one();
            }
        }
    }

    /// Takes that an agent's tunnel goes by another key, if it is open.
    pub(crate) fn move_tunnel(
        &self,
        id: &AgentId,
        old: batwa_api::tunnel::PublicKey,
        new: batwa_api::tunnel::PublicKey,
    ) {
        self.write(|state| state.move_tunnel(id, old, new));
    }

    /// Whether the tunnel of a waiting registration is open.
    pub(crate) fn is_connected(&self, row: &PendingAgent) -> bool {
        self.read(|state| {
            state
                .agents
                .get(&row.id)
                .is_some_and(|entry| entry.is_connected(row))
        })
    }

    /// Takes what an admin should look at.
    pub(crate) fn put_alerts(&self, id: &AgentId, alerts: Vec<batwa_api::agent::Alert>) {
        self.write(|state| state.put_alerts(id, alerts));
    }

    /// Takes a heartbeat; an agent that is not online is reached for at once.
    pub(crate) fn beat(&self, id: &AgentId) {
        self.heard_from(id);
        if let Some(contact) = self.contact(id) {
            contact.beat();
        }
    }

    /// Takes an agent's record away.
    pub(crate) fn remove_record(&self, id: &AgentId) {
        self.leave(id);
        self.write(|state| state.remove_record(id, Timestamp::now()));
    }

    /// Takes a terminal session that somebody just opened, before the agent's watch tells of it.
    pub(crate) fn put_own_terminal(
        &self,
        agent: &AgentId,
        terminal: batwa_api::terminal::Terminal,
        ownership: Ownership,
    ) {
        let terminal = hygiene::terminal(terminal);
        self.write(|state| {
            state.ownerships.insert(terminal.id, ownership);
            state.put_terminal(agent, terminal).into_iter().collect()
        });
    }

    /// Takes what an agent just answered of a terminal session, before its watch tells of it.
    pub(crate) fn put_terminal(&self, agent: &AgentId, terminal: batwa_api::terminal::Terminal) {
        let terminal = hygiene::terminal(terminal);
        self.write(|state| {
            let known = state
                .agents
                .get(agent)
                .is_some_and(|entry| entry.terminals.contains_key(&terminal.id));
            known
                .then(|| state.put_terminal(agent, terminal))
                .flatten()
                .into_iter()
                .collect()
        });
    }

    /// Changes who is invited to a terminal session.
    pub(crate) fn change_guests(
        &self,
        agent: &AgentId,
        id: batwa_api::id::TerminalId,
        change: impl FnOnce(&mut BTreeMap<batwa_api::id::UserId, batwa_api::terminal::TerminalGuest>),
    ) {
        self.write(|state| state.change_guests(agent, id, change).into_iter().collect());
    }

    /// Takes an account that is removed off all sessions that it was invited to.
    pub(crate) fn forget_guest(&self, user: batwa_api::id::UserId) {
        self.write(|state| {
            let invited: Vec<_> = state
                .agents
                .iter()
                .flat_map(|(agent, entry)| {
                    let terminals = entry.terminals.keys();
                    terminals.map(move |terminal| (agent.clone(), *terminal))
                })
                .filter(|(_, terminal)| {
                    let ownership = state.ownerships.get(terminal);
                    ownership.is_some_and(|it| it.guests.contains_key(&user))
                })
                .collect();
            let forget = |(agent, terminal)| {
                state.change_guests(&agent, terminal, |guests| drop(guests.remove(&user)))
            };
            invited.into_iter().filter_map(forget).collect()
        });
    }

    /// Forgets a terminal session.
    pub(crate) fn remove_terminal(&self, agent: &AgentId, id: batwa_api::id::TerminalId) {
        self.write(|state| state.remove_terminal(agent, id).into_iter().collect());
    }

    /// How an agent stands; `None` when it is not known.
    pub(crate) fn status(&self, id: &AgentId) -> Option<AgentStatus> {
        self.read(|state| state.agents.get(id).map(|entry| entry.standing.status))
    }

    /// Notes that an agent came online.
    fn arrive(&self, id: &AgentId) {
        let mut arrived = self.arrived.lock().expect("no holder panics");
        arrived.insert(id.clone());
        self.arrival.notify_one();
    }

    /// Waits for agents that came online since the last call.
    pub(crate) async fn arrivals(&self) -> BTreeSet<AgentId> {
        loop {
            let arrived = std::mem::take(&mut *self.arrived.lock().expect("no holder panics"));
            if !arrived.is_empty() {
                return arrived;
            }
            self.arrival.notified().await;
        }
    }
}
