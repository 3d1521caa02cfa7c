//! How many VMs a search finds, by what a filter could choose next.

use std::cmp::Reverse;

use batwa_api::{
    list::{AgentVmCount, LabelCount, VmCounts},
    vm::VmState,
};
use roaring::RoaringBitmap;

use super::{Counted, filter::Matches};
use crate::fleet::{
    index::{Group, state_group},
    state::State,
};

/// Most agents that are counted by name.
const MAX_AGENTS: usize = 100;
/// How many of the commonest labels are looked at; each costs an intersection.
const LABELS_LOOKED_AT: usize = 200;

impl State {
    pub(super) fn count_vms(&self, matches: &Matches, counted: Counted) -> VmCounts {
        let all = matches.all();
        let but_states = matches.but_states();
        let states = VmState::ALL
            .into_iter()
            .filter_map(|state| {
                let slots = self.vms.group(Group::State).get(state_group(state))?;
                Some((state, slots.count_in(but_states.as_ref())))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        VmCounts {
            total: all.as_ref().map_or(self.vms.len(), RoaringBitmap::len),
            states,
            agents: counted
                .agents
                .then(|| self.count_by_agent(matches.but_agents().as_ref())),
            labels: counted.labels.then(|| self.count_by_label(all.as_ref())),
        }
    }

    fn count_by_agent(&self, matches: Option<&RoaringBitmap>) -> Vec<AgentVmCount> {
        let mut counts: Vec<_> = self
            .vms
            .by_agent()
            .iter()
            .map(|(id, names)| {
                let count = match matches {
                    None => names.len(),
                    Some(set) => names.values().filter(|slot| set.contains(**slot)).count(),
                };
                (Reverse(count), id)
            })
            .filter(|(count, _)| count.0 > 0)
            .collect();
        if counts.len() > MAX_AGENTS {
            counts.select_nth_unstable(MAX_AGENTS);
            counts.truncate(MAX_AGENTS);
        }
        counts.sort_unstable();
        counts
            .into_iter()
            .map(|(Reverse(count), id)| AgentVmCount {
                id: id.clone(),
                name: self
                    .agents
                    .get(id)
                    .map_or_else(String::new, |entry| entry.name().to_owned()),
                count: count as u64,
            })
            .collect()
    }

    fn count_by_label(&self, matches: Option<&RoaringBitmap>) -> Vec<LabelCount> {
        let mut counts: Vec<LabelCount> = self
            .vms
            .commonest_labels()
            .take(LABELS_LOOKED_AT)
            .filter_map(|label| {
                let count = self.vms.labels().get(label)?.count_in(matches);
                Some(LabelCount {
                    key: label.0.clone(),
                    value: label.1.clone(),
                    count,
                })
            })
            .filter(|label| label.count > 0)
            .collect();
        counts.sort_by(|a, b| {
            (Reverse(a.count), &a.key, &a.value).cmp(&(Reverse(b.count), &b.key, &b.value))
        });
        counts
    }
}
