//! The task that attends to one agent: its watch, its old paths, its absence.
//!
//! ```text
//! connect ──► snapshot applied ──► online ──► change, change, … ──► broken: offline ──► wait ──► connect
//!    └─ 404 ► an agent from before v1: asked for its list again and again (poll.rs)
//! ```
//!
//! A terminal or a call to the agent uses the same [`Contact`]; ending it ends them all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    agent::{AgentStatus, LinkKind},
    certificate::CertificateHash,
    event::WatchEvent,
    id::AgentId,
};
use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Fleet,
    clock::Clock,
    hygiene,
    operations::Heard,
    pace::Pace,
    pulse::Pulse,
    record::{AgentRecord, Fingerprint},
};
use crate::{
    client::{AgentClient, ClientError},
    link::{
        Link,
        direct::{ApiUrl, Direct},
        in_process::InProcess,
        tunnel::Tunnelled,
    },
};

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The agent of this process is always there, or about to be.
const LONGEST_LOCAL_PAUSE: Duration = Duration::from_millis(500);
/// A connection that lasted so long was a good one: the next failure begins with the first pause again.
const HEALTHY: Duration = Duration::from_secs(60);

/// VMs of a snapshot that are taken at once: lists and all other agents wait meanwhile, a millisecond or two.
const VMS_AT_ONCE: usize = 200;

/// How the master reaches one agent.
pub(crate) struct Contact {
    /// The agent.
    pub(crate) id: AgentId,
    /// The client that speaks to it.
    pub(crate) client: AgentClient,
    /// Held while an old agent is asked for anything: it does one thing at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Whether the agent is online, for terminals.
    pub(crate) online: watch::Sender<bool>,
    /// Cancelled when the agent is removed or revoked, or its address, key or certificate change.
    pub(crate) ended: CancellationToken,
    pub(super) wake: Notify,
    pub(super) pulse: Mutex<Pulse>,
    /// When its watch was last followed, as far as that is known; heartbeats tell nothing of what it did.
    followed: Mutex<Option<Timestamp>>,
    api_url: String,
    fingerprint: Option<Fingerprint>,
    certificate: Option<CertificateHash>,
}

/// Why a connection to an agent ended.
#[derive(Debug)]
pub(super) enum Broken {
    /// By a failed call, or a watch that ended or fell silent.
    Client(ClientError),
    /// The agent closed its watch in order: it stops.
    Closed,
    /// What it says cannot be.
    Nonsense(String),
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Broken {
    /// Whether the agent was not even reached.
    fn is_about_the_way(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::Connect(_) | ClientError::Timeout(_))
        )
    }

    /// How the agent stands after it, and why.
    fn standing(&self, beats: bool) -> (AgentStatus, String) {
        match self {
            Self::Closed => (
                AgentStatus::Offline,
                "the agent closed its connection: it stops or restarts".to_owned(),
            ),
            Self::Nonsense(what) => (AgentStatus::Error, what.clone()),
            Self::Client(error) => {
                let status = match error {
                    ClientError::Connect(_) | ClientError::Http(_) => AgentStatus::Offline,
                    // An old agent's heartbeats still come, but its driver keeps it busy.
                    ClientError::Timeout(_) if !beats => AgentStatus::Offline,
                    _ => AgentStatus::Error,
                };
                (status, error.describe())
            }
        }
    }
}

impl Fleet {
    /// The contact of an agent that was let in.
    pub(crate) fn contact(&self, id: &AgentId) -> Option<Arc<Contact>> {
        self.contacts
            .read()
            .expect("no writer panics")
            .get(id)
            .cloned()
    }

    /// Attends to the agent of `record` from now on; at another address or with another key or certificate if it changed.
    pub(super) fn reach(self: &Arc<Self>, record: &AgentRecord) {
        if record.revoked {
            self.leave(&record.id);
            return;
        }
        let fingerprint = record
            .secret
            .as_ref()
            .map(|secret| secret.fingerprint.clone());
        let last_seen = self.read(|state| state.agents.get(&record.id)?.last_seen());
        let mut contacts = self.contacts.write().expect("no writer panics");
        if let Some(contact) = contacts.get(&record.id)
            && contact.api_url == record.api_url
            && contact.fingerprint == fingerprint
            && contact.certificate == record.certificate
        {
            contact.wake.notify_one();
            return;
        }
        let before = contacts.remove(&record.id);
        if let Some(before) = &before {
            before.ended.cancel();
        }
        let followed = before.map_or(last_seen, |before| before.followed());
        let client = match self.client(record) {
            Ok(client) => client,
            Err(message) => {
                drop(contacts);
                self.set_standing(&record.id, AgentStatus::Error, Some(message));
                return;
            }
        };
        let contact = Arc::new(Contact {
            id: record.id.clone(),
            client,
            turn: tokio::sync::Mutex::new(()),
            online: watch::Sender::new(false),
            ended: self.stop.child_token(),
            wake: Notify::new(),
            pulse: Mutex::default(),
            followed: Mutex::new(followed),
            api_url: record.api_url.clone(),
            fingerprint,
            certificate: record.certificate,
        });
        contacts.insert(record.id.clone(), contact.clone());
        drop(contacts);
        let span = tracing::info_span!("agent", agent.id = %record.id);
        self.tasks
            .spawn(attend(self.clone(), contact).instrument(span));
    }

    /// Stops attending to an agent.
    pub(super) fn leave(&self, id: &AgentId) {
        let contact = self.contacts.write().expect("no writer panics").remove(id);
        if let Some(contact) = contact {
            contact.online.send_replace(false);
            contact.ended.cancel();
        }
    }

    fn client(&self, record: &AgentRecord) -> Result<AgentClient, String> {
        let link: Arc<dyn Link> = match record.link {
            LinkKind::InProcess => {
                let connector = self.local.clone().ok_or("this master runs no VMs itself")?;
                Arc::new(InProcess::new(connector))
            }
            LinkKind::Direct => {
                let url: ApiUrl = record
                    .api_url
                    .parse()
                    .map_err(|error| format!("`{}`: {error}", record.api_url))?;
                Arc::new(Direct::new(url, record.certificate, &self.roots))
            }
            LinkKind::Tunnel => Arc::new(Tunnelled::new(self.tunnels.clone(), record.id.clone())),
        };
        let key = record.secret.as_ref().map(|secret| &secret.key);
        AgentClient::new(link, key, self.tasks.clone())
            .map_err(|_| "its key cannot stand in a header".to_owned())
    }

    /// Takes how an agent stands.
    pub(super) fn set_standing(&self, id: &AgentId, status: AgentStatus, message: Option<String>) {
        self.write(|state| state.set_standing(id, status, message, Timestamp::now()));
    }
}

/// Attends to one agent until its contact ends.
async fn attend(fleet: Arc<Fleet>, contact: Arc<Contact>) {
    let longest = match contact.client.link().kind() {
        LinkKind::InProcess => LONGEST_LOCAL_PAUSE,
        LinkKind::Direct | LinkKind::Tunnel => LONGEST_PAUSE,
    };
    let mut pause = FIRST_PAUSE.min(longest);
    loop {
        if contact.client.link().kind() == LinkKind::Tunnel {
            // Asking is no use while it has not dialled in: thousands of machines may be off at night.
            while !fleet.tunnels.is_open(&contact.id) {
                tokio::select! {
                    () = contact.ended.cancelled() => return,
                    () = contact.wake.notified() => {}
                }
            }
        }
        let began = Instant::now();
        let broken = tokio::select! {
            () = contact.ended.cancelled() => return,
            broken = attend_once(&fleet, &contact) => broken,
        };
        contact.online.send_replace(false);
        let beats = contact.beats();
        let (status, mut message) = broken.standing(beats);
        if broken.is_about_the_way() && contact.client.link().kind() == LinkKind::Direct {
            // Behind NAT or a firewall its registrations and heartbeats come, and nothing reaches it.
            message.push_str(&format!(
                " (at {}). If this master must use another address, start the agent with `--advertise-url`; \
                 if none leads there, let it join with a token instead",
                contact.api_url
            ));
        }
        tracing::info!("agent `{}` is {}: {message}", contact.id, status.as_str());
        if contact.ended.is_cancelled() {
            return;
        }
        fleet.set_standing(&contact.id, status, Some(message));
        if began.elapsed() > HEALTHY {
            pause = FIRST_PAUSE.min(longest);
        }
        // Full jitter: a master that restarts is not met by all agents in step.
        let wait = pause.mul_f64(rand::rng().random_range(0.2..1.0));
        tokio::select! {
            () = contact.ended.cancelled() => return,
            () = contact.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        pause = (pause * 2).min(longest);
    }
}

async fn attend_once(fleet: &Arc<Fleet>, contact: &Arc<Contact>) -> Broken {
    match contact.client.watch(contact.away()).await {
        Ok(watch) => follow(fleet, contact, watch).await,
        Err(error) if error.is_not_found() => super::poll::attend_old(fleet, contact).await,
        Err(error) => error.into(),
    }
}

async fn follow(
    fleet: &Arc<Fleet>,
    contact: &Contact,
    mut watch: crate::client::watch::Watch,
) -> Broken {
    let mut begun = false;
    let mut pace = Pace::new(Instant::now());
    loop {
        let event = match watch.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Broken::Closed,
            Err(error) => return error.into(),
        };
        if !begun && !matches!(event, WatchEvent::Snapshot { .. }) {
            return Broken::Nonsense("the agent's watch does not begin with a snapshot".to_owned());
        }
        begun = true;
        contact.seen(fleet);
        contact.follows();
        let wait = pace.take(&event, Instant::now());
        if let Err(nonsense) = fleet.hear(contact, event).await {
            return Broken::Nonsense(nonsense);
        }
        if !wait.is_zero() {
            // Whoever attends to this contact is told of its end all the same: dropping this loses nothing.
            tokio::time::sleep(wait).await;
        }
    }
}

impl Contact {
    /// Whether heartbeats come, or never came.
    fn beats(&self) -> bool {
        let now = Timestamp::now().as_millisecond();
        let pulse = self.pulse.lock().expect("no holder panics");
        pulse.has_beaten() && !pulse.is_missed(now)
    }

    /// Takes a heartbeat.
    pub(super) fn beat(&self) {
        let now = Timestamp::now().as_millisecond();
        self.pulse.lock().expect("no holder panics").beat(now);
        if !*self.online.borrow() {
            self.wake.notify_one();
        }
    }

    fn followed(&self) -> Option<Timestamp> {
        *self.followed.lock().expect("no holder panics")
    }

    fn follows(&self) {
        *self.followed.lock().expect("no holder panics") = Some(Timestamp::now());
    }

    /// For how long its watch was not followed.
    fn away(&self) -> Option<Duration> {
        let since = self.followed()?;
        Duration::try_from(Timestamp::now().duration_since(since)).ok()
    }

    /// Notes that the agent was heard of.
    pub(super) fn seen(&self, fleet: &Fleet) {
        let now = Timestamp::now().as_millisecond();
        fleet.read(|state| {
            if let Some(entry) = state.agents.get(&self.id) {
                entry
                    .last_seen_ms
                    .store(now, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
}

impl Fleet {
    /// Takes what an agent's clock shows now; answers with what is known of it.
    fn measure_clock(&self, id: &AgentId, shown: Timestamp, now: Timestamp) -> Clock {
        let mut state = self.state.write().expect("no writer panics");
        let Some(entry) = state.agents.get_mut(id) else {
            return Clock::default();
        };
        entry.clock.measure(shown, now);
        entry.clock
    }

    /// Takes one event of an agent's watch.
    async fn hear(self: &Arc<Self>, contact: &Contact, event: WatchEvent) -> Result<(), String> {
        let id = &contact.id;
        let now = Timestamp::now();
        let clock = self.read(|state| state.agents.get(id).map(|entry| entry.clock));
        let clock = clock.unwrap_or_default();
        match event {
            WatchEvent::Snapshot {
                agent,
                vms,
                operations,
                terminals,
                ..
            } => {
                if !id.is_local() && agent.agent_id != *id {
                    return Err(format!(
                        "the agent at this address says that it is `{}`: give it the id it registered with, or remove this row",
                        agent.agent_id
                    ));
                }
                let vms = hygiene::vms(vms)?;
                let explained = self.explained(id, &operations);
                let clock = self.measure_clock(id, agent.clock, now);
                self.write(|state| {
                    let mut events = state.set_legacy(id, false);
                    events.extend(state.put_info(id, clock.info(hygiene::info(agent), now)));
                    events.extend(state.keep_vms(id, &vms, &explained, now));
                    events
                });
                let mut vms = vms.into_iter().map(|vm| clock.vm(vm, now)).peekable();
                while vms.peek().is_some() {
                    let some = vms.by_ref().take(VMS_AT_ONCE);
                    self.write(|state| some.filter_map(|vm| state.put_vm(id, vm)).collect());
                    tokio::task::yield_now().await;
                }
                self.write(|state| {
                    let mut events = Vec::new();
                    let terminals = hygiene::terminals(terminals).into_iter();
                    let terminals = terminals.map(|terminal| clock.terminal(terminal, now));
                    events.extend(state.put_terminals(id, terminals.collect()));
                    events
                });
                for operation in operations {
                    let operation = clock.operation(hygiene::operation(operation), now);
                    self.hear_operation(id, operation, Heard::InSnapshot);
                }
                self.write(|state| state.set_standing(id, AgentStatus::Online, None, now));
                contact.online.send_replace(true);
                tracing::info!("agent `{id}` is online");
                self.arrive(id);
            }
            WatchEvent::Agent { agent, .. } => {
                let clock = self.measure_clock(id, agent.clock, now);
                self.write(|state| state.put_info(id, clock.info(hygiene::info(agent), now)));
            }
            WatchEvent::Vm { vm, .. } => {
                let full = self.read(|state| {
                    let there = state.vms.count_of(id) - state.vms.missing_of(id);
                    there >= hygiene::MAX_VMS as u64 && state.vms.get(id, &vm.name).is_none()
                });
                if full {
                    return Err(format!("it claims more than {} VMs", hygiene::MAX_VMS));
                }
                let vm = clock.vm(hygiene::vm(*vm), now);
                self.write(|state| state.put_vm(id, vm).into_iter().collect());
            }
            WatchEvent::VmRemoved { name, .. } => {
                let why = self.why_gone(id, &name);
                self.write(|state| state.vm_gone(id, &name, why, now).into_iter().collect());
            }
            WatchEvent::Operation { operation, .. } => {
                let operation = clock.operation(hygiene::operation(operation), now);
                self.hear_operation(id, operation, Heard::AsChange);
            }
            WatchEvent::Terminal { terminal, .. } => {
                let terminal = clock.terminal(hygiene::terminal(terminal), now);
                self.write(|state| state.put_terminal(id, terminal).into_iter().collect());
            }
            WatchEvent::TerminalRemoved { id: terminal, .. } => {
                self.write(|state| state.remove_terminal(id, terminal).into_iter().collect());
            }
            WatchEvent::KeepAlive { .. } => {}
        }
        Ok(())
    }
}
