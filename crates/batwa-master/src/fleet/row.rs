//! One VM of the fleet, and the keys that lists are in order of.

use std::{collections::BTreeMap, sync::Arc};

use batwa_api::{
    Timestamp,
    id::AgentId,
    name::VmName,
    vm::{Vm, VmSpec},
};

/// Labels of a VM or an agent.
pub(crate) type Labels = BTreeMap<String, String>;

/// What people wrote about a VM. The master keeps it, so that it is there for every kind of agent and while the
/// machine is offline; what an agent has to go by, it keeps itself (`Vm::settings`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    /// What they call it, where that is not its name.
    pub(crate) display_name: Option<String>,
    /// What they wrote down about it.
    pub(crate) notes: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// The account that set each label last, where that is known.
    pub(crate) label_sources: Labels,
}

impl From<Labels> for About {
    /// Labels of which it is not known who set them.
    fn from(labels: Labels) -> Self {
        Self {
            labels,
            ..Self::default()
        }
    }
}

impl About {
    /// What `account` wrote about a VM that is to be made.
    pub(crate) fn of_new(spec: &VmSpec, account: &str) -> Self {
        let trimmed = |text: &Option<String>| text.as_deref().map(str::trim).map(str::to_owned);
        let label_sources = spec.labels.keys();
        Self {
            display_name: trimmed(&spec.display_name).filter(|name| !name.is_empty()),
            notes: trimmed(&spec.notes).unwrap_or_default(),
            labels: spec.labels.clone(),
            label_sources: label_sources
                .map(|key| (key.clone(), account.to_owned()))
                .collect(),
        }
    }

    /// What a clone begins with: what is true of its kind, not of itself.
    pub(crate) fn for_clone(&self) -> Self {
        Self {
            labels: self.labels.clone(),
            label_sources: self.label_sources.clone(),
            ..Self::default()
        }
    }
}

/// One VM of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The agent it is on.
    pub(crate) agent: AgentId,
    /// The agent's last word.
    pub(crate) vm: Arc<Vm>,
    /// What people wrote about it.
    pub(crate) about: About,
    /// Since when, by the master's clock, its agent does not know it any more although nobody asked for its end.
    pub(crate) missing_since: Option<Timestamp>,
}

impl Row {
    /// A VM that its agent just told of.
    pub(crate) fn new(agent: AgentId, vm: Vm, about: About) -> Self {
        Self {
            agent,
            vm: Arc::new(vm),
            about,
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
        self.about != other.about
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
        self.about
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}").to_lowercase())
            .collect()
    }

    /// What people call it and wrote down about it, in lower case.
    pub(crate) fn about_texts(&self) -> Vec<String> {
        let name = self.about.display_name.iter();
        let notes = Some(&self.about.notes).filter(|notes| !notes.is_empty());
        name.chain(notes).map(|text| text.to_lowercase()).collect()
    }

    /// Everything of its own that words are looked for in, in lower case.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts = vec![self.vm.name.as_str().to_lowercase()];
        texts.extend(self.image_texts());
        texts.extend(self.address_texts());
        texts.extend(self.label_texts());
        texts.extend(self.about_texts());
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
