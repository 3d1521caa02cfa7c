//! What a search among agents can ask for.

use batwa_api::{
    agent::{AgentStatus, DriverKind, LinkKind},
    id::AgentId,
    size::ByteSize,
};

use super::{
    Comparison, Term, count, labels,
    pattern::{LabelPattern, Pattern},
    patterns, size,
    syntax::{RawTerm, Said, SearchError},
    unknown_field, whole_patterns, words,
};
use crate::fleet::entry::AgentEntry;

/// The fields, as the errors name them.
const FIELDS: [&str; 12] = [
    "status", "agent", "name", "label", "link", "driver", "version", "os", "is", "cpus", "memory",
    "vms",
];

/// One thing that a search among agents asks for; of several values one is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AgentTest {
    /// A word in id, name, address, system or labels.
    Word(Pattern),
    /// The id.
    Id(Vec<Pattern>),
    /// What people call it.
    Name(Vec<Pattern>),
    /// How it stands.
    Status(Vec<AgentStatus>),
    /// A label.
    Label(Vec<LabelPattern>),
    /// How it is reached.
    Link(Vec<LinkKind>),
    /// A driver that it has.
    Driver(Vec<DriverKind>),
    /// Batwa's version there.
    Version(Vec<Pattern>),
    /// Its operating system.
    Os(Vec<Pattern>),
    /// Something that is so or not.
    Is(Vec<Trait>),
    /// Its size.
    Number(Number, Comparison),
}

/// What is so of an agent, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    /// No new VM may be made there.
    Cordoned,
    /// It speaks only the old paths.
    Legacy,
    /// A registration under its id waits for an admin.
    Waiting,
}

/// A number of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// Logical processors.
    Cpus,
    /// Memory installed, in bytes.
    Memory,
    /// VMs there.
    Vms,
}

/// Reads a search among agents.
pub(crate) fn parse(text: &str) -> Result<Vec<Term<AgentTest>>, SearchError> {
    super::read(text, bind)
}

fn bind(raw: &RawTerm) -> Result<AgentTest, SearchError> {
    let (name, op, values) = match &raw.said {
        Said::Words(value) => return Ok(AgentTest::Word(Pattern::part(value))),
        Said::Field { name, op, values } => (name, *op, values.as_slice()),
    };
    Ok(match name.to_lowercase().as_str() {
        "status" => AgentTest::Status(words(
            op,
            values,
            "status",
            "online, offline, error, pending, revoked",
        )?),
        "agent" | "machine" | "id" => AgentTest::Id(whole_patterns(op, values, "agent")?),
        "name" => AgentTest::Name(patterns(op, values, "name")?),
        "label" => AgentTest::Label(labels(op, values)?),
        "link" => AgentTest::Link(words(op, values, "link", "in_process, direct, tunnel")?),
        "driver" => AgentTest::Driver(words(op, values, "driver", "multipass, qemu, fake")?),
        "version" => AgentTest::Version(patterns(op, values, "version")?),
        "os" => AgentTest::Os(patterns(op, values, "os")?),
        "is" => AgentTest::Is(
            values
                .iter()
                .map(|value| match value.text.to_lowercase().as_str() {
                    "cordoned" => Ok(Trait::Cordoned),
                    "legacy" => Ok(Trait::Legacy),
                    "waiting" => Ok(Trait::Waiting),
                    other => Err(SearchError::new(
                        value.at,
                        format!("a machine is never `{other}`; one of cordoned, legacy, waiting"),
                    )),
                })
                .collect::<Result<_, _>>()?,
        ),
        "cpus" => AgentTest::Number(Number::Cpus, count(op, values, "cpus")?),
        "memory" => AgentTest::Number(Number::Memory, size(op, values, "memory")?),
        "vms" => AgentTest::Number(Number::Vms, count(op, values, "vms")?),
        _ => return Err(unknown_field(raw, name, &FIELDS)),
    })
}

impl AgentTest {
    /// Whether the agent `id` with so many VMs is as asked.
    pub(crate) fn matches(&self, id: &AgentId, entry: &AgentEntry, vm_count: u64) -> bool {
        let any = |patterns: &[Pattern], text: &str| {
            let text = text.to_lowercase();
            patterns.iter().any(|pattern| pattern.matches(&text))
        };
        let info = entry.info.as_ref();
        let record = entry.record.as_ref();
        match self {
            Self::Word(pattern) => entry.found_by().lines().any(|line| pattern.matches(line)),
            Self::Id(patterns) => any(patterns, id.as_str()),
            Self::Name(patterns) => any(patterns, entry.name()),
            Self::Status(statuses) => statuses.contains(&entry.standing.status),
            Self::Label(patterns) => {
                let labels = entry.labels();
                patterns.iter().any(|pattern| {
                    labels
                        .get(&pattern.key)
                        .is_some_and(|value| pattern.matches_value(value))
                })
            }
            Self::Link(links) => record.is_some_and(|record| links.contains(&record.link)),
            Self::Driver(kinds) => info.is_some_and(|info| {
                info.drivers
                    .iter()
                    .any(|driver| kinds.contains(&driver.kind))
            }),
            Self::Version(patterns) => info.is_some_and(|info| any(patterns, &info.version)),
            Self::Os(patterns) => info.is_some_and(|info| any(patterns, &info.host.os)),
            Self::Is(traits) => traits.iter().any(|is| match is {
                Trait::Cordoned => record.is_some_and(|record| record.cordoned),
                Trait::Legacy => entry.legacy,
                Trait::Waiting => !entry.pending.is_empty(),
            }),
            Self::Number(number, comparison) => {
                let number = match number {
                    Number::Cpus => info.map(|info| u64::from(info.host.cpus)),
                    Number::Memory => info.map(|info| ByteSize::as_u64(info.host.memory)),
                    Number::Vms => Some(vm_count),
                };
                number.is_some_and(|number| comparison.holds(number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_errors_name_is_understood() {
        for (field, value) in FIELDS.iter().zip([
            "online", "lab-*", "web", "env=prod", "tunnel", "qemu", "1.2", "debian", "cordoned",
            "4", "16G", "10",
        ]) {
            let text = format!("{field}:{value}");
            assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        }
        let error = parse("state:running").unwrap_err().to_string();
        assert!(error.contains("there is no field `state`"), "{error}");
    }
}
