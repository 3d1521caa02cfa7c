//! How long a change takes to the master's event stream.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use batwa_api::{event::Event, id::AgentId, name::VmName};

use crate::{
    cli::MasterArgs,
    client::{Client, Events},
    failure::Failure,
};

/// Changes under way, and how long those took that have been seen.
#[derive(Debug, Default)]
pub(super) struct Delays {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    under_way: HashMap<(AgentId, VmName), Instant>,
    seen: Vec<Duration>,
}

impl Delays {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A VM is about to change.
    pub(super) fn changed(&self, agent: &AgentId, vm: &VmName) {
        self.inner()
            .under_way
            .insert((agent.clone(), vm.clone()), Instant::now());
    }

    fn saw(&self, agent: &AgentId, vm: &VmName) {
        let mut inner = self.inner();
        if let Some(since) = inner.under_way.remove(&(agent.clone(), vm.clone())) {
            inner.seen.push(since.elapsed());
        }
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Vec<Duration> {
        self.inner().seen.clone()
    }
}

/// Opens the master's event stream.
pub(super) async fn follow(master: &str, api_token: &str) -> Result<Events, Failure> {
    let client = Client::new(MasterArgs {
        url: Some(master.to_owned()),
        token: Some(api_token.to_owned()),
        ..MasterArgs::default()
    })?;
    client.events(&[]).await
}

/// Notes each change that comes, until the stream ends.
pub(super) async fn note(mut changes: Events, delays: &Delays) {
    while let Some(event) = changes.next().await {
        if let Event::Vm { vm } = event {
            delays.saw(&vm.agent_id, &vm.vm.name);
        }
    }
}
