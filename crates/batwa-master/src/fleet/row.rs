//! One VM of the fleet, and the keys that lists are in order of.

use std::{collections::BTreeMap, sync::Arc};

use batwa_api::{Timestamp, id::AgentId, name::VmName, vm::Vm};

/// Labels of a VM or an agent.
pub(crate) type Labels = BTreeMap<String, String>;

/// One VM of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The agent it is on.
    pub(crate) agent: AgentId,
    /// The agent's last word.
    pub(crate) vm: Arc<Vm>,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Since when, by the master's clock, its agent does not know it any more although nobody asked for its end.
    pub(crate) missing_since: Option<Timestamp>,
}

impl Row {
    /// A VM that its agent just told of.
    pub(crate) fn new(agent: AgentId, vm: Vm, labels: Labels) -> Self {
        Self {
            agent,
            vm: Arc::new(vm),
            labels,
            missing_since: None,
        }
    }

    /// Whether `other` differs in what is worth writing down: all but measurements and their times.
    pub(crate) fn differs_lastingly(&self, other: &Self) -> bool {
        let lasting = |row: &Self| Vm {
            usage: None,
            observed_at: Timestamp::UNIX_EPOCH,
            operations: Vec::new(),
            ..Vm::clone(&row.vm)
        };
        self.labels != other.labels
            || self.missing_since != other.missing_since
            || lasting(self) != lasting(other)
    }

    /// Whether `other` differs in what people see change: all but the time of observation.
    pub(crate) fn differs_visibly(&self, other: &Self) -> bool {
        self.vm.usage != other.vm.usage
            || self.vm.operations != other.vm.operations
            || self.differs_lastingly(other)
    }

    /// Image and operating system, in lower case.
    pub(crate) fn image_texts(&self) -> Vec<String> {
        let texts = self.vm.image.iter().chain(&self.vm.release);
        texts.map(|text| text.to_lowercase()).collect()
    }

    /// Addresses, in lower case.
    pub(crate) fn address_texts(&self) -> Vec<String> {
        self.vm
            .ipv4
            .iter()
            .map(|text| text.to_lowercase())
            .collect()
    }

    /// Labels as `key=value`, in lower case.
    pub(crate) fn label_texts(&self) -> Vec<String> {
        self.labels
            .iter()
            .map(|(key, value)| format!("{key}={value}").to_lowercase())
            .collect()
    }

    /// Everything of its own that words are looked for in, in lower case.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts = vec![self.vm.name.as_str().to_lowercase()];
        texts.extend(self.image_texts());
        texts.extend(self.address_texts());
        texts.extend(self.label_texts());
        texts
    }

    /// What it is found by in the order of names.
    pub(crate) fn name_key(&self) -> NameKey {
        NameKey(self.vm.name.clone(), self.agent.clone())
    }
}

/// The order of names: of two VMs with one name that on the earlier agent comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey(pub(crate) VmName, pub(crate) AgentId);
