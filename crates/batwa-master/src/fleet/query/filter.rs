//! What a search finds, as sets. `VmTest::matches` in the tests says the same of one row; a property test holds the two
//! together.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::fleet::{
    entry::AgentEntry,
    index::{
        Group, TextOf, driver_group, readiness_group,
        sets::{Gathered, Postings},
        state_group,
    },
    search::{
        Comparison, Term,
        pattern::{AgentPattern, LabelPattern, LabelValue, Pattern},
        vms::{Number, Trait, VmTest},
    },
    state::State,
};

/// What the terms find: those that ask for states, those that ask for agents, and the others apart, so that each
/// choice of a filter can be counted as if it were not made. `None` is everything.
#[derive(Debug)]
pub(super) struct Matches {
    states: Option<RoaringBitmap>,
    agents: Option<RoaringBitmap>,
    others: Option<RoaringBitmap>,
}

impl Matches {
    /// What all terms find.
    pub(super) fn of(state: &State, terms: &[Term<VmTest>]) -> Self {
        let mut matches = Self {
            states: None,
            agents: None,
            others: None,
        };
        for term in terms {
            let found = state.find(&term.test);
            let place = match term.test {
                VmTest::State(_) => &mut matches.states,
                VmTest::Agent(_) | VmTest::AgentId(_) => &mut matches.agents,
                _ => &mut matches.others,
            };
            match (place.as_mut(), term.negated) {
                (Some(set), false) => *set &= found,
                (Some(set), true) => *set -= found,
                (None, false) => *place = Some(found),
                (None, true) => *place = Some(state.vms.all() - found),
            }
        }
        matches
    }

    /// What all of them find together.
    pub(super) fn all(&self) -> Option<RoaringBitmap> {
        both(both(self.states.clone(), &self.agents), &self.others)
    }

    /// What is found whatever states are asked for.
    pub(super) fn but_states(&self) -> Option<RoaringBitmap> {
        both(self.agents.clone(), &self.others)
    }

    /// What is found whatever agents are asked for.
    pub(super) fn but_agents(&self) -> Option<RoaringBitmap> {
        both(self.states.clone(), &self.others)
    }
}

fn both(a: Option<RoaringBitmap>, b: &Option<RoaringBitmap>) -> Option<RoaringBitmap> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a & b),
        (None, Some(b)) => Some(b.clone()),
        (a, None) => a,
    }
}

impl State {
    fn find(&self, test: &VmTest) -> RoaringBitmap {
        match test {
            VmTest::Word(pattern) => self.find_word(pattern),
            VmTest::Name(patterns) => self.find_texts(TextOf::Name, patterns),
            VmTest::Agent(patterns) => self.of_agents(|entry| {
                let names = entry.names();
                patterns
                    .iter()
                    .any(|pattern| names.iter().any(|name| pattern.matches(name)))
            }),
            VmTest::AgentId(patterns) => {
                let mut found = Gathered::default();
                for pattern in patterns {
                    match pattern {
                        AgentPattern::Exactly(id) => self.vms.add_agent_to(id, &mut found),
                        AgentPattern::Beginning(_) => self
                            .agents
                            .keys()
                            .filter(|id| pattern.matches(id))
                            .for_each(|id| self.vms.add_agent_to(id, &mut found)),
                    }
                }
                found.into_set()
            }
            VmTest::State(states) => {
                self.in_groups(Group::State, states.iter().map(|state| state_group(*state)))
            }
            VmTest::Label(patterns) => self.find_labels(patterns),
            VmTest::Image(patterns) => self.find_texts(TextOf::Image, patterns),
            VmTest::Address(patterns) => self.find_texts(TextOf::Address, patterns),
            VmTest::Driver(kinds) => {
                self.in_groups(Group::Driver, kinds.iter().map(|kind| driver_group(*kind)))
            }
            VmTest::Readiness(wanted) => self.in_groups(
                Group::Readiness,
                wanted.iter().map(|readiness| readiness_group(*readiness)),
            ),
            VmTest::Is(traits) => traits
                .iter()
                .map(|is| self.find_trait(*is))
                .fold(RoaringBitmap::new(), |all, some| all | some),
            VmTest::Number(number, comparison) => self.find_number(*number, *comparison),
        }
    }

    /// A word in any text of a VM, in its machine's id or name, or in `agent/name`.
    fn find_word(&self, pattern: &Pattern) -> RoaringBitmap {
        let mut found =
            self.of_agents(|entry| entry.names().iter().any(|name| pattern.matches(name)));
        for texts in TextOf::ALL {
            found |= &*self.vms.find(texts, pattern);
        }
        if let Some((agent, name)) = pattern.of_agent_and_name() {
            let named: Arc<RoaringBitmap> = self.vms.find(TextOf::Name, &name);
            found |= self.of_agents(|entry| agent.matches(entry.names()[0])) & &*named;
        }
        found
    }

    fn find_texts(&self, texts: TextOf, patterns: &[Pattern]) -> RoaringBitmap {
        patterns
            .iter()
            .map(|pattern| self.vms.find(texts, pattern))
            .fold(RoaringBitmap::new(), |all, some| all | &*some)
    }

    fn find_labels(&self, patterns: &[LabelPattern]) -> RoaringBitmap {
        let mut found = Gathered::default();
        for pattern in patterns {
            if let Some(LabelValue::Exactly(value)) = &pattern.value {
                let label = (pattern.key.clone(), value.clone());
                if let Some(slots) = self.vms.labels().get(&label) {
                    slots.add_to(&mut found);
                }
                continue;
            }
            self.vms
                .labels()
                .range((pattern.key.clone(), String::new())..)
                .take_while(|((key, _), _)| *key == pattern.key)
                .filter(|((_, value), _)| pattern.matches_value(value))
                .for_each(|(_, slots)| slots.add_to(&mut found));
        }
        found.into_set()
    }

    fn find_trait(&self, is: Trait) -> RoaringBitmap {
        match is {
            Trait::Missing => self.vms.missing().clone(),
            Trait::Busy => self.vms.busy().clone(),
            Trait::Protected => self.vms.protected().clone(),
            Trait::Expiring => self.vms.expiring().clone(),
            Trait::Stale => {
                let mut found = Gathered::default();
                found.add_all(self.vms.missing());
                for (id, names) in self.vms.by_agent() {
                    let Some(entry) = self.agents.get(id) else {
                        continue;
                    };
                    if entry.why_all_stale().is_some() {
                        self.vms.add_agent_to(id, &mut found);
                    } else if is.may_hold(entry) {
                        names
                            .values()
                            .filter(|slot| is.holds(self.vms.row(**slot), entry))
                            .for_each(|slot| found.add(*slot));
                    }
                }
                found.into_set()
            }
        }
    }

    fn find_number(&self, number: Number, comparison: Comparison) -> RoaringBitmap {
        let group = match number {
            Number::Cpus => Group::Cpus,
            Number::Memory => Group::Memory,
            Number::Disk => Group::Disk,
        };
        let mut found = Gathered::default();
        for (number, slots) in self.vms.group(group).range(..) {
            if comparison.holds(number) {
                slots.add_to(&mut found);
            }
        }
        found.into_set()
    }

    fn in_groups(&self, group: Group, numbers: impl Iterator<Item = u64>) -> RoaringBitmap {
        let mut found = Gathered::default();
        for slots in numbers.filter_map(|number| self.vms.group(group).get(number)) {
            Postings::add_to(slots, &mut found);
        }
        found.into_set()
    }

    fn of_agents(&self, wanted: impl Fn(&AgentEntry) -> bool) -> RoaringBitmap {
        let mut found = Gathered::default();
        for (id, entry) in &self.agents {
            if wanted(entry) {
                self.vms.add_agent_to(id, &mut found);
            }
        }
        found.into_set()
    }
}
