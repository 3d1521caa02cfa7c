//! Terminal sessions: what agents tell of them, and whose they are.

use std::collections::{BTreeMap, BTreeSet};

use batwa_api::{
    event::Event,
    id::{AgentId, TerminalId, UserId},
    terminal::{ListedTerminal, Terminal, TerminalGuest},
};

use super::State;

impl State {
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

    /// Takes one terminal session; `None` when nothing changed. An agent that tells of another's is not heard: whoever
    /// attaches would type there.
    pub(crate) fn put_terminal(&mut self, id: &AgentId, terminal: Terminal) -> Option<Event> {
        if self.is_of_another(id, terminal.id) {
            return None;
        }
        let entry = self.agents.get_mut(id)?;
        entry.record.as_ref()?;
        let before = entry.terminals.insert(terminal.id, terminal.clone());
        self.terminals.insert(terminal.id, id.clone());
        (before.as_ref() != Some(&terminal)).then(|| Event::Terminal {
            terminal: self.listed_terminal(id, terminal),
        })
    }

    fn is_of_another(&self, id: &AgentId, terminal: TerminalId) -> bool {
        let there = self.terminals.get(&terminal);
        let opened = || self.ownerships.get(&terminal).map(|it| &it.agent);
        there.or_else(opened).is_some_and(|agent| agent != id)
    }

    /// Forgets one terminal session of an agent, and whose it is.
    pub(crate) fn remove_terminal(&mut self, id: &AgentId, terminal: TerminalId) -> Option<Event> {
        let entry = self.agents.get_mut(id)?;
        entry.terminals.remove(&terminal)?;
        self.terminals.remove(&terminal);
        self.ownerships.remove(&terminal);
        Some(Event::TerminalRemoved { id: terminal })
    }

    /// All terminal sessions that are there.
    pub(crate) fn known_terminals(&self) -> impl Iterator<Item = TerminalId> {
        self.terminals.keys().copied()
    }

    /// A terminal session that is there, and its agent.
    pub(crate) fn terminal(&self, id: TerminalId) -> Option<(AgentId, Terminal)> {
        let agent = self.terminals.get(&id)?;
        let terminal = self.agents.get(agent)?.terminals.get(&id)?;
        Some((agent.clone(), terminal.clone()))
    }

    /// Changes who is invited to a terminal session; `None` where it is not there.
    pub(crate) fn change_guests(
        &mut self,
        agent: &AgentId,
        id: TerminalId,
        change: impl FnOnce(&mut BTreeMap<UserId, TerminalGuest>),
    ) -> Option<Event> {
        change(&mut self.ownerships.get_mut(&id)?.guests);
        let terminal = self.agents.get(agent)?.terminals.get(&id)?.clone();
        Some(Event::Terminal {
            terminal: self.listed_terminal(agent, terminal),
        })
    }

    /// A terminal session as readers see it.
    pub(crate) fn listed_terminal(&self, id: &AgentId, terminal: Terminal) -> ListedTerminal {
        let ownership = self.ownerships.get(&terminal.id);
        ListedTerminal {
            agent_id: id.clone(),
            opened_by: ownership.map(|ownership| ownership.owner_name.clone()),
            guests: ownership
                .map(|ownership| ownership.guests.values().cloned().collect())
                .unwrap_or_default(),
            terminal,
        }
    }
}
