//! What people write about a VM: kept by the master, for every kind of agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SettingsChange, VmSettings, label_is_good};
use crate::{agent::Capabilities, problem::FieldError};

/// Body of the master's `PATCH /api/v1/agents/{agent}/vms/{vm}`: what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateVm {
    /// What people call it, at most 100 characters; empty to go back to its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Anything worth writing down about it, at most 4,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Labels to set, and with `null` to take away; the others stay, so that people who change different ones do not
    /// undo each other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: BTreeMap<String, Option<String>>,
    /// What its agent is to do about it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsChange>,
}

impl UpdateVm {
    /// Longest display name, in characters.
    pub const MAX_DISPLAY_NAME: usize = 100;
    /// Longest notes, in characters.
    pub const MAX_NOTES: usize = 4000;
    /// Most labels of one VM.
    pub const MAX_LABELS: usize = 64;

    /// What is wrong with it for a VM that has these labels and settings on a driver that can do this, field by field.
    #[must_use]
    pub fn check(
        &self,
        labels: &BTreeMap<String, String>,
        settings: &VmSettings,
        capabilities: &Capabilities,
    ) -> Vec<FieldError> {
        let mut errors = wrong_about(self.display_name.as_deref(), self.notes.as_deref());
        let good = |(key, value): (&String, &Option<String>)| match value {
            Some(value) => label_is_good(key, value),
            None => labels.contains_key(key) || label_is_good(key, ""),
        };
        if self.labels.len() > 2 * Self::MAX_LABELS
            || !self.labels.iter().all(good)
            || self.labels_after(labels).len() > Self::MAX_LABELS
        {
            errors.push(FieldError::new("labels", super::spec::LABELS_ARE));
        }
        if let Some(change) = &self.settings {
            errors.extend(change.check(settings, capabilities));
        }
        errors
    }

    /// The labels after it.
    #[must_use]
    pub fn labels_after(&self, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut after = before.clone();
        for (key, value) in &self.labels {
            match value {
                Some(value) => after.insert(key.clone(), value.clone()),
                None => after.remove(key),
            };
        }
        after
    }
}

/// What is wrong with what people call a VM, and with what they write down about it.
pub(super) fn wrong_about(display_name: Option<&str>, notes: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let long = |text: &str, most: usize| text.chars().count() > most;
    if display_name.is_some_and(|name| {
        long(name, UpdateVm::MAX_DISPLAY_NAME) || name.chars().any(char::is_control)
    }) {
        errors.push(FieldError::new(
            "display_name",
            "a display name has at most 100 printable characters",
        ));
    }
    let unprintable = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if notes.is_some_and(|notes| long(notes, UpdateVm::MAX_NOTES) || notes.chars().any(unprintable))
    {
        errors.push(FieldError::new(
            "notes",
            "notes have at most 4,000 printable characters",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(update: &UpdateVm, labels: &BTreeMap<String, String>) -> Vec<String> {
        let settings = VmSettings::default();
        let errors = update.check(labels, &settings, &Capabilities::all());
        errors.into_iter().map(|error| error.field).collect()
    }

    fn labels(pairs: &[(&str, Option<&str>)]) -> UpdateVm {
        let labels = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
        UpdateVm {
            labels: labels.collect(),
            ..UpdateVm::default()
        }
    }

    #[test]
    fn labels_are_set_taken_away_and_left_alone() {
        let before = [("env", "test"), ("team", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let before = BTreeMap::from(before);
        let update = labels(&[("env", Some("prod")), ("team", None), ("new", Some(""))]);
        assert_eq!(fields(&update, &before), [""; 0]);
        let after = [("env", "prod"), ("new", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(update.labels_after(&before), after.into());
    }

    #[test]
    fn what_is_too_long_or_no_text_names_its_field() {
        let none = BTreeMap::new();
        let name = |text: &str| UpdateVm {
            display_name: Some(text.to_owned()),
            ..UpdateVm::default()
        };
        let notes = |text: &str| UpdateVm {
            notes: Some(text.to_owned()),
            ..UpdateVm::default()
        };
        assert_eq!(fields(&name(&"ü".repeat(100)), &none), [""; 0]);
        assert_eq!(fields(&name(&"ü".repeat(101)), &none), ["display_name"]);
        assert_eq!(fields(&name("a\nb"), &none), ["display_name"]);
        assert_eq!(fields(&notes("one\n\ttwo"), &none), [""; 0]);
        assert_eq!(fields(&notes(&"x".repeat(4001)), &none), ["notes"]);
        assert_eq!(fields(&notes("\u{1b}[31m"), &none), ["notes"]);
        assert_eq!(fields(&labels(&[("ü", Some("x"))]), &none), ["labels"]);
        let many = UpdateVm {
            labels: (0..65)
                .map(|n| (format!("k{n}"), Some(String::new())))
                .collect(),
            ..UpdateVm::default()
        };
        assert_eq!(fields(&many, &none), ["labels"]);
    }
}
