//! Which events a follower asks for. Pure.

use batwa_api::{event::Event, id::AgentId, name::VmName};
use serde::Deserialize;

use crate::fleet::search::pattern::AgentPattern;

/// A kind of thing that events tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Machines.
    Agents,
    /// VMs, and what concerns all VMs of a machine.
    Vms,
    /// Operations.
    Operations,
    /// Terminal sessions.
    Terminals,
}

/// A VM by name, on one agent or on any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmPattern {
    /// Its agent.
    pub(crate) agent: Option<AgentId>,
    /// Its name.
    pub(crate) name: VmName,
}

impl VmPattern {
    /// Reads `name` or `agent/name`; `None` when it can be no VM.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (agent, name) = match text.split_once('/') {
            Some((agent, name)) => (Some(AgentId::parse(agent).ok()?), name),
            None => (None, text),
        };
        let name = VmName::parse(name).ok()?;
        Some(Self { agent, name })
    }
}

/// Which events; what is empty asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EventFilter {
    /// Of which kinds.
    pub(crate) kinds: Vec<Kind>,
    /// Of which agents.
    pub(crate) agents: Vec<AgentPattern>,
    /// Of which VMs.
    pub(crate) vms: Vec<VmPattern>,
}

/// What an event is about.
struct About<'a> {
    kind: Kind,
    agent: Option<&'a AgentId>,
    vm: Option<&'a VmName>,
}

impl EventFilter {
    /// Whether `event` is asked for. What cannot be told apart is: an end too many does no harm, one too few does.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        let Some(about) = about(event) else {
            return true;
        };
        (self.kinds.is_empty() || self.kinds.contains(&about.kind))
            && about.agent.is_none_or(|agent| {
                self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.matches(agent))
            })
            && (self.vms.is_empty() || self.vms.iter().any(|pattern| pattern.concerns(&about)))
    }
}

impl VmPattern {
    fn concerns(&self, about: &About<'_>) -> bool {
        let agent = match (&self.agent, about.agent) {
            (Some(wanted), Some(agent)) => wanted == agent,
            _ => true,
        };
        agent && about.vm.is_none_or(|vm| *vm == self.name)
    }
}

fn about(event: &Event) -> Option<About<'_>> {
    let (kind, agent, vm) = match event {
        Event::Agent { agent } => (Kind::Agents, Some(&agent.id), None),
        Event::AgentRemoved { agent_id } => (Kind::Agents, Some(agent_id), None),
        Event::Vm { vm } => (Kind::Vms, Some(&vm.agent_id), Some(&vm.vm.name)),
        Event::VmRemoved { agent_id, name } => (Kind::Vms, Some(agent_id), Some(name)),
        Event::AgentVms { agent_id, .. } => (Kind::Vms, Some(agent_id), None),
        Event::Operation { operation } => {
            (Kind::Operations, Some(&operation.agent_id), operation.vm())
        }
        Event::Terminal { terminal } => (
            Kind::Terminals,
            Some(&terminal.agent_id),
            Some(&terminal.terminal.vm),
        ),
        Event::TerminalRemoved { .. } => (Kind::Terminals, None, None),
        Event::Reload => return None,
    };
    Some(About { kind, agent, vm })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(agent: &str, name: &str) -> Event {
        Event::VmRemoved {
            agent_id: AgentId::parse(agent).unwrap(),
            name: VmName::parse(name).unwrap(),
        }
    }

    #[test]
    fn a_follower_gets_what_it_asked_for_and_every_reload() {
        let agents = |text| vec![AgentPattern::parse(text).unwrap()];
        let vms = |text| vec![VmPattern::parse(text).unwrap()];
        let gone = Event::AgentRemoved {
            agent_id: AgentId::parse("lab-1").unwrap(),
        };
        let stale = Event::AgentVms {
            agent_id: AgentId::parse("lab-1").unwrap(),
            stale: None,
        };
        for (filter, web, db, gone_too, stale_too) in [
            (EventFilter::default(), true, true, true, true),
            (
                EventFilter {
                    kinds: vec![Kind::Agents],
                    ..EventFilter::default()
                },
                false,
                false,
                true,
                false,
            ),
            (
                EventFilter {
                    agents: agents("lab-*"),
                    ..EventFilter::default()
                },
                true,
                true,
                true,
                true,
            ),
            (
                EventFilter {
                    agents: agents("office"),
                    ..EventFilter::default()
                },
                false,
                false,
                false,
                false,
            ),
            (
                EventFilter {
                    vms: vms("lab-1/web"),
                    kinds: vec![Kind::Vms],
                    ..EventFilter::default()
                },
                true,
                false,
                false,
                true,
            ),
            (
                EventFilter {
                    vms: vms("lab-2/web"),
                    ..EventFilter::default()
                },
                false,
                false,
                false,
                false,
            ),
        ] {
            assert_eq!(filter.matches(&removed("lab-1", "web")), web, "{filter:?}");
            assert_eq!(filter.matches(&removed("lab-1", "db")), db, "{filter:?}");
            assert_eq!(filter.matches(&gone), gone_too, "{filter:?}");
            assert_eq!(filter.matches(&stale), stale_too, "{filter:?}");
            assert!(filter.matches(&Event::Reload));
        }
    }
}
