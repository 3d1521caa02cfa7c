//! What a search means, said of one VM. The index answers the same faster; tests hold the two together.

use batwa_api::size::ByteSize;

use super::{Number, VmTest};
use crate::fleet::{entry::AgentEntry, row::Row, search::pattern::Pattern};

impl Number {
    /// The number, where it is known.
    pub(crate) fn of(self, row: &Row) -> Option<u64> {
        match self {
            Self::Cpus => row.vm.cpus.map(u64::from),
            Self::Memory => row.vm.memory.map(ByteSize::as_u64),
            Self::Disk => row.vm.disk.map(ByteSize::as_u64),
        }
    }
}

impl VmTest {
    /// Whether `row` on `entry` is as asked.
    pub(crate) fn matches(&self, row: &Row, entry: &AgentEntry) -> bool {
        let lower = |text: &str| text.to_lowercase();
        let any = |patterns: &[Pattern], texts: &[String]| {
            patterns
                .iter()
                .any(|pattern| texts.iter().any(|text| pattern.matches(text)))
        };
        match self {
            Self::Word(pattern) => {
                let mut texts = row.texts();
                texts.push(lower(row.agent.as_str()));
                texts.push(lower(entry.name()));
                let both = pattern.of_agent_and_name().is_some_and(|(agent, name)| {
                    agent.matches(&lower(row.agent.as_str()))
                        && name.matches(&lower(row.vm.name.as_str()))
                });
                both || any(std::slice::from_ref(pattern), &texts)
            }
            Self::Name(patterns) => any(patterns, &[lower(row.vm.name.as_str())]),
            Self::Agent(patterns) => {
                any(patterns, &[lower(row.agent.as_str()), lower(entry.name())])
            }
            Self::AgentId(patterns) => patterns.iter().any(|pattern| pattern.matches(&row.agent)),
            Self::State(states) => states.contains(&row.vm.state),
            Self::Label(patterns) => patterns.iter().any(|pattern| {
                row.about
                    .labels
                    .get(&pattern.key)
                    .is_some_and(|value| pattern.matches_value(value))
            }),
            Self::Image(patterns) => any(patterns, &row.image_texts()),
            Self::Address(patterns) => any(patterns, &row.address_texts()),
            Self::Driver(kinds) => kinds.contains(&row.vm.driver),
            Self::Readiness(wanted) => row.vm.readiness.is_some_and(|is| wanted.contains(&is)),
            Self::Is(traits) => traits.iter().any(|is| is.holds(row, entry)),
            Self::Number(number, comparison) => number
                .of(row)
                .is_some_and(|number| comparison.holds(number)),
        }
    }
}
