//! What a search among VMs can ask for.

#[cfg(test)]
mod reference;

use batwa_api::{
    agent::{AgentStatus, DriverKind, HealthStatus},
    vm::{Readiness, VmState},
};

use super::{
    Comparison, Term, count, labels,
    pattern::{AgentPattern, LabelPattern, Pattern},
    patterns, size,
    syntax::{RawTerm, Said, SearchError},
    unknown_field, whole_patterns, words,
};
use crate::fleet::{entry::AgentEntry, row::Row};

/// The fields, as the errors name them.
const FIELDS: [&str; 12] = [
    "state",
    "agent",
    "name",
    "label",
    "image",
    "ip",
    "driver",
    "readiness",
    "is",
    "cpus",
    "memory",
    "disk",
];

/// One thing that a search among VMs asks for; of several values one is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VmTest {
    /// A word in `agent/name`, the machine's name, image, addresses, labels, or what people call it and wrote about it.
    Word(Pattern),
    /// The name.
    Name(Vec<Pattern>),
    /// The machine, by id or name.
    Agent(Vec<Pattern>),
    /// The machine, by id alone.
    AgentId(Vec<AgentPattern>),
    /// The state.
    State(Vec<VmState>),
    /// A label.
    Label(Vec<LabelPattern>),
    /// The image or the operating system in it.
    Image(Vec<Pattern>),
    /// An address.
    Address(Vec<Pattern>),
    /// The driver.
    Driver(Vec<DriverKind>),
    /// How usable it is.
    Readiness(Vec<Readiness>),
    /// Something that is so or not.
    Is(Vec<Trait>),
    /// Its size.
    Number(Number, Comparison),
}

/// What is so of a VM, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    /// What is known of it may be out of date.
    Stale,
    /// Its agent does not know it any more.
    Missing,
    /// An operation runs or waits for it.
    Busy,
    /// It can neither be deleted nor purged.
    Protected,
    /// Its lifetime ends some day.
    Expiring,
}

/// A number of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// Virtual CPUs.
    Cpus,
    /// Memory in bytes.
    Memory,
    /// Disk in bytes.
    Disk,
}

/// Reads a search among VMs.
pub(crate) fn parse(text: &str) -> Result<Vec<Term<VmTest>>, SearchError> {
    super::read(text, bind)
}

fn bind(raw: &RawTerm) -> Result<VmTest, SearchError> {
    let (name, op, values) = match &raw.said {
        Said::Words(value) => return Ok(VmTest::Word(Pattern::part(value))),
        Said::Field { name, op, values } => (name, *op, values.as_slice()),
    };
    Ok(match name.to_lowercase().as_str() {
        "state" => VmTest::State(words(
            op,
            values,
            "state",
            &VmState::ALL.map(VmState::as_str).join(", "),
        )?),
        "agent" | "machine" => VmTest::Agent(whole_patterns(op, values, "agent")?),
        "name" => VmTest::Name(patterns(op, values, "name")?),
        "label" => VmTest::Label(labels(op, values)?),
        "image" => VmTest::Image(patterns(op, values, "image")?),
        "ip" => VmTest::Address(patterns(op, values, "ip")?),
        "driver" => VmTest::Driver(words(op, values, "driver", "multipass, qemu, fake")?),
        "readiness" => VmTest::Readiness(words(
            op,
            values,
            "readiness",
            "booting, cloud_init, ready, unreachable",
        )?),
        "is" => VmTest::Is(
            values
                .iter()
                .map(|value| match value.text.to_lowercase().as_str() {
                    "stale" => Ok(Trait::Stale),
                    "missing" => Ok(Trait::Missing),
                    "busy" => Ok(Trait::Busy),
                    "protected" => Ok(Trait::Protected),
                    "expiring" => Ok(Trait::Expiring),
                    other => Err(SearchError::new(
                        value.at,
                        format!(
                            "a VM is never `{other}`; one of stale, missing, busy, protected, expiring"
                        ),
                    )),
                })
                .collect::<Result<_, _>>()?,
        ),
        "cpus" => VmTest::Number(Number::Cpus, count(op, values, "cpus")?),
        "memory" => VmTest::Number(Number::Memory, size(op, values, "memory")?),
        "disk" => VmTest::Number(Number::Disk, size(op, values, "disk")?),
        _ => return Err(unknown_field(raw, name, &FIELDS)),
    })
}

impl Trait {
    /// Whether it is so.
    pub(crate) fn holds(self, row: &Row, entry: &AgentEntry) -> bool {
        match self {
            Self::Stale => row.missing_since.is_some() || entry.why_stale(&row.vm).is_some(),
            Self::Missing => row.missing_since.is_some(),
            Self::Busy => !row.vm.operations.is_empty(),
            Self::Protected => row.vm.settings.protected,
            Self::Expiring => row.vm.settings.lifetime.is_some(),
        }
    }

    /// Whether it can only be so of VMs whose agent or driver does not answer: the others need not be looked at.
    pub(crate) fn may_hold(self, entry: &AgentEntry) -> bool {
        match self {
            Self::Stale => {
                entry.standing.status != AgentStatus::Online
                    || entry.info.as_ref().is_some_and(|info| {
                        info.drivers.iter().any(|driver| {
                            matches!(
                                driver.health.status,
                                HealthStatus::Stuck | HealthStatus::Missing
                            )
                        })
                    })
            }
            Self::Missing | Self::Busy | Self::Protected | Self::Expiring => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_errors_name_is_understood() {
        for (field, value) in FIELDS.iter().zip([
            "running", "lab-1", "web", "env=prod", "24.04", "10.0.0.9", "qemu", "ready", "stale",
            "2", "4G", "10G",
        ]) {
            let text = format!("{field}:{value}");
            assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_place_and_what_would_be_right() {
        for (text, at, part) in [
            ("stat:running", 1, "did you mean `state`"),
            ("web env=prod", 5, "there is no field `env`"),
            ("-foo:bar", 2, "there is no field `foo`"),
            ("state:runing", 7, "one of creating, starting, running"),
            ("state:running,x", 15, "there is no state `x`"),
            ("memory>4X", 8, "a size such as"),
            ("memory>1G,2G", 11, "compared with one value"),
            ("cpus:many", 6, "a number"),
            ("name>a", 6, "cannot be compared"),
            ("label:a=b label:ü", 17, "can be no label"),
            (
                "is:happy",
                4,
                "one of stale, missing, busy, protected, expiring",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}
