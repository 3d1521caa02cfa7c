//! The link to an agent that dials in: a stream inside the tunnel that it has open.

use std::{io, sync::Arc};

use async_trait::async_trait;
use batwa_api::{agent::LinkKind, id::AgentId};

use super::{Hold, Link, Stream};
use crate::fleet::tunnels::Tunnels;

/// A link through whichever tunnel the agent has open at the moment.
pub(crate) struct Tunnelled {
    tunnels: Arc<Tunnels>,
    agent: AgentId,
}

impl Tunnelled {
    /// The link to `agent`.
    #[must_use]
    pub(crate) fn new(tunnels: Arc<Tunnels>, agent: AgentId) -> Self {
        Self { tunnels, agent }
    }
}

#[async_trait]
impl Link for Tunnelled {
    fn kind(&self) -> LinkKind {
        LinkKind::Tunnel
    }

    fn host(&self) -> &str {
        "agent"
    }

    async fn connect(&self, hold: Hold) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.tunnels.connect(&self.agent, hold).await?))
    }
}
