//! Tunnels that agents have open, and what an admin should look at.

use batwa_api::{
    agent::{Alert, Tunnel},
    event::Event,
    id::AgentId,
    tunnel::PublicKey,
};

use super::State;

impl State {
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
}
