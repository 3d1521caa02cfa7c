//! One agent of the fleet: its record, how it stands, what it said of itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use batwa_api::{
    Timestamp,
    agent::{
        Agent, AgentInfo, AgentStatus, Alert, Capabilities, DriverStatus, HealthStatus,
        LabelSource, LinkHealth, LinkKind, Tunnel,
    },
    id::{AgentId, TerminalId},
    terminal::Terminal,
    tunnel::PublicKey,
    vm::Vm,
};

use super::{
    clock::{self, Clock},
    labels::{self, Labelled},
    record::{AgentRecord, PendingAgent},
    row::Labels,
};

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
    /// What it last said of itself, times by the master's clock.
    pub(crate) info: Option<AgentInfo>,
    /// Its clock against ours.
    pub(crate) clock: Clock,
    /// Whether it speaks only the old paths.
    pub(crate) legacy: bool,
    /// When the master last heard of it, in milliseconds; 0 is never. Written by heartbeats without the lock.
    pub(crate) last_seen_ms: Arc<AtomicI64>,
    /// Its terminal sessions.
    pub(crate) terminals: BTreeMap<TerminalId, Terminal>,
    /// Tunnels that are open under its id, by the key that each has proven.
    pub(crate) tunnels: BTreeMap<PublicKey, Tunnel>,
    /// What an admin should look at.
    pub(crate) alerts: Vec<Alert>,
    /// What words find it by, in lower case, one a line.
    found_by: String,
}

/// What an agent from before v1 can do: shells, and nothing else beyond create, start, stop and purge.
pub(crate) const OLD_CAPABILITIES: Capabilities = Capabilities {
    shell: true,
    console: false,
    display: false,
    suspend: false,
    trash: false,
    cloud_init: false,
    snapshots: false,
    clone: false,
    clone_snapshots: false,
    resize: false,
    mounts: false,
    networks: false,
    images: false,
    crashes: false,
    settings_at_create: false,
};

impl AgentEntry {
    /// An agent of which nothing is known yet.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            record: None,
            pending: Vec::new(),
            standing: Standing {
                status: AgentStatus::Pending,
                message: None,
                since: now,
            },
            info: None,
            clock: Clock::default(),
            legacy: false,
            last_seen_ms: Arc::new(AtomicI64::new(0)),
            terminals: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            alerts: Vec::new(),
            found_by: String::new(),
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

    /// What words find it by, in lower case, one a line.
    pub(crate) fn found_by(&self) -> &str {
        &self.found_by
    }

    /// Its id and what people call it, in lower case.
    pub(crate) fn names(&self) -> [&str; 2] {
        let mut lines = self.found_by.lines();
        [lines.next().unwrap_or(""), lines.next().unwrap_or("")]
    }

    /// Brings [`Self::found_by`] up to date, after anything else of the entry changed.
    pub(crate) fn find_anew(&mut self, id: &AgentId) {
        let mut lines = vec![id.to_string(), self.name().to_owned()];
        if let Some(record) = &self.record {
            lines.push(record.hostname.clone());
            lines.push(record.api_url.clone());
            lines.push(record.notes.clone());
        }
        if let Some(info) = &self.info {
            lines.push(info.host.os.clone());
        }
        for pending in &self.pending {
            lines.push(pending.address.clone());
            lines.push(pending.api_url.clone());
        }
        for (key, value) in self.labels() {
            lines.push(format!("{key}={value}"));
        }
        // Names and notes may have line ends of their own.
        let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', " ")).collect();
        self.found_by = lines.join("\n").to_lowercase();
    }

    /// How the link to it is.
    pub(crate) fn link(&self) -> LinkHealth {
        LinkHealth {
            status: self.standing.status,
            message: self.standing.message.clone(),
            since: self.standing.since,
            last_seen: self.last_seen(),
        }
    }

    /// The agent as it is listed; the counts of its VMs are the index's to say.
    pub(crate) fn agent(&self, id: &AgentId, vm_count: u64, missing_count: u64) -> Agent {
        let record = self.record.as_ref();
        let first = self.pending.first();
        let labelled = self.labelled();
        let clock_ahead_ms = self.clock.ahead_ms();
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
            vm_count,
            missing_count,
            clock_ahead_ms,
            warnings: clock_ahead_ms
                .and_then(clock::warning)
                .into_iter()
                .collect(),
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

    /// The driver of `vm`, where the agent tells of it.
    pub(crate) fn driver(&self, vm: &Vm) -> Option<&DriverStatus> {
        self.info
            .as_ref()?
            .drivers
            .iter()
            .find(|driver| driver.kind == vm.driver)
    }

    /// Why what is known of every VM here may be out of date; `None` when its driver decides.
    pub(crate) fn why_all_stale(&self) -> Option<&'static str> {
        match self.standing.status {
            AgentStatus::Online => None,
            AgentStatus::Revoked => Some("the machine was shut out"),
            AgentStatus::Pending => Some("the machine waits for approval"),
            AgentStatus::Offline => Some("the machine is offline"),
            AgentStatus::Error => Some("the machine does not answer as it should"),
        }
    }

    /// Why what is known of `vm` may be out of date; `None` when it is fresh.
    pub(crate) fn why_stale(&self, vm: &Vm) -> Option<&'static str> {
        if let Some(why) = self.why_all_stale() {
            return Some(why);
        }
        match self.driver(vm)?.health.status {
            HealthStatus::Ok | HealthStatus::Slow => None,
            HealthStatus::Stuck => Some("the machine's driver does not answer"),
            HealthStatus::Missing => Some("the machine's driver is missing"),
        }
    }
}
