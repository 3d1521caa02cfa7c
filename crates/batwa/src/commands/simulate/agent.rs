//! One simulated agent: its folder, its fake VMs, its life.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use batwa_agent::{
    Agent, AgentConfig, FakeSettings,
    driver::fake::FakeDriver,
    tunnel::{self, Dialer, JoinRequest, MasterUrl, Membership, TunnelConfig},
};
use batwa_api::{agent::HostFacts, id::AgentId, name::VmName, tunnel::JoinToken, vm::VmState};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{events::Delays, figures::Counters};
use crate::failure::{Failure, chain};

/// What all agents of a simulation share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) dialer: Arc<Dialer>,
    pub(super) facts: HostFacts,
    pub(super) master: MasterUrl,
    pub(super) token: JoinToken,
    pub(super) vms: usize,
    pub(super) latency: Duration,
    pub(super) counters: Counters,
    pub(super) delays: Delays,
}

/// One of them, joined.
#[derive(Debug)]
pub(super) struct SimulatedAgent {
    plan: Arc<Plan>,
    config: AgentConfig,
    driver: Arc<FakeDriver>,
    names: Vec<VmName>,
    next: AtomicUsize,
    anew: Notify,
}

impl SimulatedAgent {
    /// Joins as `id`, in a folder of that name; one that has joined before is only opened again.
    pub(super) async fn join(plan: Arc<Plan>, id: String, folder: &Path) -> Result<Self, Failure> {
        let agent_id = AgentId::parse_remote(&id).map_err(Failure::usage)?;
        let state_dir = folder.join(&id);
        let has_joined = Membership::load(&state_dir)
            .map_err(|error| Failure::usage(chain(&error)))?
            .is_some_and(|member| member.joined);
        if !has_joined {
            let request = JoinRequest {
                master_url: plan.master.clone(),
                token: plan.token.clone(),
                agent_id: Some(agent_id.clone()),
                state_dir: state_dir.clone(),
                dialer: Arc::clone(&plan.dialer),
            };
            let began = Instant::now();
            tunnel::join(request, |_, _| {}).await.map_err(|error| {
                let failure = Failure::usage(format!("agent `{id}`: {}", chain(&error)));
                match error.fix() {
                    Some(fix) => failure.hint(fix),
                    None => failure,
                }
            })?;
            plan.counters.joined(began.elapsed());
        }
        Self::open(plan, agent_id, state_dir)
    }

    fn open(plan: Arc<Plan>, agent_id: AgentId, state_dir: PathBuf) -> Result<Self, Failure> {
        let settings = FakeSettings {
            vms: plan.vms,
            latency: plan.latency,
            ..FakeSettings::default()
        };
        let driver = FakeDriver::open(&state_dir, settings)
            .map_err(|error| Failure::usage(chain(&error)))?;
        let mut config = AgentConfig::new(agent_id, state_dir);
        config.host = Some(plan.facts.clone());
        config.tunnel = Some(TunnelConfig::new(Arc::clone(&plan.dialer)));
        Ok(Self {
            names: driver.names(),
            config,
            driver: Arc::new(driver),
            plan,
            next: AtomicUsize::new(0),
            anew: Notify::new(),
        })
    }

    /// Runs the agent, from the beginning each time it is asked to, until `stop`.
    pub(super) async fn live(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let agent = match Agent::with_drivers(self.config.clone(), vec![self.driver.clone()]) {
                Ok(agent) => agent,
                Err(error) => {
                    self.plan.counters.failed(&chain(&error));
                    return;
                }
            };
            let this_time = stop.child_token();
            let mut is_open = agent.tunnel_is_open();
            let watching = async {
                let mut counted = None;
                while is_open.changed().await.is_ok() {
                    counted = is_open
                        .borrow_and_update()
                        .then(|| self.plan.counters.opened());
                }
                drop(counted);
            };
            tokio::select! {
                ended = agent.run(this_time.clone()) => {
                    if let Err(error) = ended {
                        self.plan.counters.failed(&chain(&error));
                        return;
                    }
                }
                () = watching => {}
                () = self.anew.notified() => this_time.cancel(),
            }
        }
    }

    /// Ends the agent as a crash would, and lets it begin again.
    pub(super) fn start_anew(&self) {
        self.anew.notify_one();
    }

    /// Starts a VM that is stopped or the other way round, behind the agent's back.
    pub(super) fn change_a_vm(&self) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(name) = self.names.get(turn % self.names.len().max(1)) else {
            return;
        };
        let state = match self.driver.state_of(name) {
            Some(VmState::Running) => VmState::Stopped,
            _ => VmState::Running,
        };
        self.plan.delays.changed(&self.config.agent_id, name);
        match self.driver.change_behind(name, Some(state)) {
            Ok(()) => self.plan.counters.changed(),
            Err(error) => self.plan.counters.failed(&error.to_string()),
        }
    }
}
