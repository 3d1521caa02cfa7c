//! cloud-init: checks of user-data, and saved templates of it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, id::TemplateId};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No VM is made with it.
    Error,
    /// cloud-init would skip it and go on.
    Warning,
}

/// Something that is wrong with user-data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which line, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// What is wrong, for people. Quotes names of keys at most, as values may be passwords.
    pub message: String,
}

impl Finding {
    /// What keeps a VM from being made.
    #[must_use]
    pub fn error(line: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, line, message)
    }

    /// What cloud-init would skip.
    #[must_use]
    pub fn warning(line: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, line, message)
    }

    fn new(severity: Severity, line: usize, message: impl Into<String>) -> Self {
        Self {
            severity,
            line: u32::try_from(line).ok(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Body of `POST /api/v1/cloud-init/check`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckCloudInit {
    /// The user-data.
    pub text: String,
    /// The names of the variables that it is a template of; user-data as it is when absent.
    #[serde(default)]
    pub variables: Option<Vec<String>>,
}

/// Answer to `POST /api/v1/cloud-init/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudInitCheck {
    /// Whether a VM can be made with it.
    pub valid: bool,
    /// What is wrong, in the order of the lines.
    pub findings: Vec<Finding>,
    /// The names that are written as `{{name}}` in it.
    pub variables: Vec<String>,
}

/// Saved user-data in which variables stand for what is given when a VM is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// What it is called: letters, digits and `._-`, at most 63.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// A `#cloud-config` with `{{name}}` where a variable's value is to stand.
    pub text: String,
    /// Its variables, in the order in which people are asked for them.
    pub variables: Vec<TemplateVariable>,
    /// Who made it; besides admins only they may change it.
    pub owner: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A variable of a template.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateVariable {
    /// Its name: a small letter, then small letters, digits and `_`, at most 63.
    pub name: String,
    /// What is to be given.
    #[serde(default)]
    pub description: String,
    /// Its value when none is given. Never shown of a secret.
    #[serde(default)]
    pub default: Option<String>,
    /// Whether it has such a value. When a template is saved: `true` without a `default` keeps the secret that is there.
    #[serde(default)]
    pub has_default: bool,
    /// Whether its value is a secret: kept encrypted, and not shown again.
    #[serde(default)]
    pub secret: bool,
}

impl fmt::Debug for TemplateVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateVariable")
            .field("name", &self.name)
            .field("secret", &self.secret)
            .field("has_default", &self.has_default)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /api/v1/templates` and `PUT /api/v1/templates/{template}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SaveTemplate {
    /// What it is called.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The `#cloud-config`.
    pub text: String,
    /// Its variables.
    #[serde(default)]
    pub variables: Vec<TemplateVariable>,
}

/// A template for a new VM, with values for its variables.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UseTemplate {
    /// Its name.
    pub name: String,
    /// Values by the variables' names; those that are absent have the template's.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for UseTemplate {
    /// Leaves out the values: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UseTemplate")
            .field("name", &self.name)
            .field("variables", &self.variables.keys())
            .finish()
    }
}
