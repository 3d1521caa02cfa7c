//! Templates of user-data: who may see and change them, what they may hold, and the user-data they make.

use std::collections::{BTreeMap, BTreeSet};

use batwa_api::{
    Timestamp,
    cloud_init::{
        CheckCloudInit, CloudInitCheck, Finding, SaveTemplate, Severity, Template,
        TemplateVariable, UseTemplate,
    },
    id::TemplateId,
    problem::FieldError,
    vm::VmSpec,
};
use batwa_cloud_init::template::{self, TemplateError, Value};

use super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right},
};
use crate::store::templates::{Secrets, StoredTemplate};

/// Most templates of one master.
const MAX_TEMPLATES: i64 = 1000;
/// Most variables of one.
const MAX_VARIABLES: usize = 32;
/// Longest value of a variable: a certificate with its chain.
const MAX_VALUE: usize = 16 << 10;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 1000;
/// Most findings of one check: who made more mistakes begins with these.
const MAX_FINDINGS: usize = 100;

impl App {
    /// What is wrong with user-data, or with a template of it.
    pub(crate) fn check_cloud_init(
        &self,
        caller: &Caller,
        check: &CheckCloudInit,
    ) -> Result<CloudInitCheck, Error> {
        caller.require(Right::Manage)?;
        check_length(&check.text).map_err(|error| Error::Invalid(vec![error]))?;
        let mut findings = match &check.variables {
            None => batwa_cloud_init::check(&check.text),
            Some(names) => {
                let names: BTreeSet<&str> = names
                    .iter()
                    .map(String::as_str)
                    .take(MAX_VARIABLES)
                    .collect();
                template::check(&check.text, &names)
            }
        };
        findings.sort_by_key(|finding| finding.line);
        findings.truncate(MAX_FINDINGS);
        Ok(CloudInitCheck {
            valid: findings
                .iter()
                .all(|finding| finding.severity != Severity::Error),
            findings,
            variables: template::variables(&check.text)
                .into_iter()
                .take(MAX_VARIABLES)
                .map(str::to_owned)
                .collect(),
        })
    }

    /// All templates by name.
    pub(crate) async fn templates(&self, caller: &Caller) -> Result<Vec<Template>, Error> {
        caller.require(Right::Manage)?;
        Ok(self.store().templates().await?)
    }

    /// One template.
    pub(crate) async fn template(
        &self,
        caller: &Caller,
        id: TemplateId,
    ) -> Result<Template, Error> {
        caller.require(Right::Manage)?;
        Ok(self.stored_template(id).await?.template)
    }

    /// Saves a new template, which is the caller's.
    pub(crate) async fn create_template(
        &self,
        caller: &Caller,
        save: SaveTemplate,
    ) -> Result<Template, Error> {
        caller.require(Right::Manage)?;
        let now = now()?;
        if self.store().count_templates().await? >= MAX_TEMPLATES {
            return Err(Error::Conflict(format!(
                "there are {MAX_TEMPLATES} templates, and cannot be more: delete some"
            )));
        }
        let (template, secrets) = checked(save, &Secrets::default())?;
        let template = Template {
            id: TemplateId::new(),
            owner: caller.name.to_string(),
            created_at: now,
            updated_at: now,
            ..template
        };
        let stored = StoredTemplate {
            template,
            owner_id: Some(caller.user_id),
            secrets,
        };
        self.save(caller, stored, "template.create").await
    }

    /// Writes a template anew; its owner or an admin may.
    pub(crate) async fn update_template(
        &self,
        caller: &Caller,
        id: TemplateId,
        save: SaveTemplate,
    ) -> Result<Template, Error> {
        let before = self.own_template(caller, id).await?;
        let (template, secrets) = checked(save, &before.secrets)?;
        let template = Template {
            id,
            owner: before.template.owner,
            created_at: before.template.created_at,
            updated_at: now()?,
            ..template
        };
        let stored = StoredTemplate {
            template,
            owner_id: before.owner_id,
            secrets,
        };
        self.save(caller, stored, "template.update").await
    }

    /// Removes a template; its owner or an admin may. VMs that were made with it are not touched.
    pub(crate) async fn delete_template(
        &self,
        caller: &Caller,
        id: TemplateId,
    ) -> Result<(), Error> {
        let stored = self.own_template(caller, id).await?;
        self.store().delete_template(id).await?;
        self.audit(caller, Record::ok("template.delete", stored.template.name))
            .await
    }

    /// The user-data that a template makes.
    pub(super) async fn user_data_of(&self, wanted: &UseTemplate) -> Result<String, Error> {
        let stored = self
            .store()
            .template_by_name(&wanted.name)
            .await?
            .ok_or_else(|| {
                Error::invalid(
                    "template.name",
                    format!("there is no template `{}`", wanted.name),
                )
            })?;
        rendered(&stored, &wanted.variables)
    }

    async fn save(
        &self,
        caller: &Caller,
        stored: StoredTemplate,
        action: &'static str,
    ) -> Result<Template, Error> {
        let name = stored.template.name.clone();
        if !self.store().save_template(&stored).await? {
            return Err(Error::NameTaken(format!("template `{name}`")));
        }
        self.audit(caller, Record::ok(action, name)).await?;
        Ok(stored.template)
    }

    async fn stored_template(&self, id: TemplateId) -> Result<StoredTemplate, Error> {
        self.store()
            .template(id)
            .await?
            .ok_or_else(|| Error::NotFound(format!("template `{id}`")))
    }

    async fn own_template(&self, caller: &Caller, id: TemplateId) -> Result<StoredTemplate, Error> {
        caller.require(Right::Manage)?;
        let stored = self.stored_template(id).await?;
        if stored.owner_id != Some(caller.user_id) && caller.require(Right::Administer).is_err() {
            return Err(Error::Refused(format!(
                "template `{}` is {}'s: only they and admins change it; save your own under another name",
                stored.template.name, stored.template.owner
            )));
        }
        Ok(stored)
    }
}

/// This moment as columns hold it.
pub(super) fn now() -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).map_err(Error::internal)
}

fn check_length(text: &str) -> Result<(), FieldError> {
    if text.len() > VmSpec::MAX_CLOUD_INIT_BYTES {
        let most = VmSpec::MAX_CLOUD_INIT_BYTES >> 10;
        return Err(FieldError::new(
            "text",
            format!("user-data is limited to {most} KiB"),
        ));
    }
    Ok(())
}

/// What is to be saved, with its secrets apart. Secrets that are to stay as they are come from `kept`.
fn checked(save: SaveTemplate, kept: &Secrets) -> Result<(Template, Secrets), Error> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, message: &str| errors.push(FieldError::new(field, message));
    if !name_is_good(&save.name) {
        refuse(
            "name",
            "a template's name has 1 to 63 letters, digits and `._-`, and begins with a letter or digit",
        );
    }
    let description = save.description.trim();
    if description.chars().count() > MAX_DESCRIPTION
        || description.chars().any(|c| c.is_control() && c != '\n')
    {
        refuse(
            "description",
            "a description has at most 1000 printable characters",
        );
    }
    if save.variables.len() > MAX_VARIABLES {
        refuse("variables", "a template has at most 32 variables");
    }
    let mut names = BTreeSet::new();
    for variable in &save.variables {
        if !template::name_is_good(&variable.name) {
            refuse(
                "variables",
                "a variable's name is a small letter, then small letters, digits and `_`, at most 63",
            );
        } else if !names.insert(variable.name.as_str()) {
            refuse("variables", "each variable is there once");
        }
        if variable.description.chars().count() > MAX_DESCRIPTION
            || variable.description.contains(char::is_control)
        {
            refuse(
                "variables",
                "a variable's description has at most 1000 printable characters",
            );
        }
        if let Some(why) = variable.default.as_deref().and_then(wrong_value) {
            refuse("variables", why);
        }
    }
    errors.extend(check_length(&save.text).err());
    if errors.is_empty() {
        errors.extend(
            template::check(&save.text, &names)
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .map(|finding| FieldError::new("text", finding.to_string())),
        );
    }
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    let mut secrets = BTreeMap::new();
    let variables = save
        .variables
        .into_iter()
        .map(|mut variable| {
            if variable.secret {
                let keep = variable.has_default.then(|| kept.0.get(&variable.name));
                let secret = variable.default.take().or_else(|| keep.flatten().cloned());
                variable.has_default = secret.is_some();
                secrets.extend(secret.map(|secret| (variable.name.clone(), secret)));
            } else {
                variable.has_default = variable.default.is_some();
            }
            variable
        })
        .collect();
    let epoch = Timestamp::UNIX_EPOCH;
    let template = Template {
        id: TemplateId::new(),
        name: save.name,
        description: description.to_owned(),
        text: save.text.replace("\r\n", "\n"),
        variables,
        owner: String::new(),
        created_at: epoch,
        updated_at: epoch,
    };
    Ok((template, Secrets(secrets)))
}

fn name_is_good(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn wrong_value(value: &str) -> Option<&'static str> {
    if value.len() > MAX_VALUE {
        return Some("a variable's value has at most 16 KiB");
    }
    value
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
        .then_some("a variable's value is text without control characters")
}

/// The template with each variable's given value, or else its own.
fn rendered(stored: &StoredTemplate, given: &BTreeMap<String, String>) -> Result<String, Error> {
    let template = &stored.template;
    let field = |name: &str| format!("template.variables.{name}");
    let mut errors: Vec<FieldError> = given
        .keys()
        .filter(|name| template.variables.iter().all(|known| known.name != **name))
        .map(|name| {
            // A name that is nobody's is not repeated at any length.
            let name: String = name.chars().take(63).collect();
            FieldError::new(
                field(&name),
                format!("template `{}` has no variable `{name}`", template.name),
            )
        })
        .collect();
    let mut values = BTreeMap::new();
    for variable in &template.variables {
        let TemplateVariable { name, .. } = variable;
        let own = match variable.secret {
            true => stored.secrets.0.get(name),
            false => variable.default.as_ref(),
        };
        match given.get(name).or(own) {
            None => errors.push(FieldError::new(
                field(name),
                format!("`{name}` has no value: give one"),
            )),
            Some(text) => match wrong_value(text) {
                Some(why) => errors.push(FieldError::new(field(name), why)),
                None => {
                    let is_text = variable.secret;
                    values.insert(name.as_str(), Value { text, is_text });
                }
            },
        }
    }
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    template::render(&template.text, &values).map_err(|error| match &error {
        TemplateError::Value { name, .. } => Error::invalid(field(name), error.to_string()),
        TemplateError::Text(Finding { .. }) => Error::invalid("template.name", error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, default: Option<&str>, secret: bool) -> TemplateVariable {
        TemplateVariable {
            name: name.to_owned(),
            description: String::new(),
            default: default.map(str::to_owned),
            has_default: false,
            secret,
        }
    }

    fn save(variables: Vec<TemplateVariable>) -> SaveTemplate {
        SaveTemplate {
            name: "web".to_owned(),
            description: String::new(),
            text: "#cloud-config\nhostname: {{host}}\npassword: {{pw}}\n".to_owned(),
            variables,
        }
    }

    fn stored(variables: Vec<TemplateVariable>) -> StoredTemplate {
        let (template, secrets) = checked(save(variables), &Secrets::default()).unwrap();
        StoredTemplate {
            template,
            owner_id: None,
            secrets,
        }
    }

    #[test]
    fn secrets_are_kept_apart_and_stay_when_they_are_not_given_again() {
        let first = stored(vec![
            variable("host", Some("web"), false),
            variable("pw", Some("hunter2"), true),
        ]);
        let shown = serde_json::to_string(&first.template).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!format!("{first:?}").contains("hunter2"));
        assert_eq!(first.template.variables[1].default, None);
        assert!(first.template.variables[1].has_default);
        // What was read is written back.
        let again = save(first.template.variables.clone());
        let (_, kept) = checked(again, &first.secrets).unwrap();
        assert_eq!(kept, first.secrets);
        let mut without = first.template.variables.clone();
        without[1].has_default = false;
        let (template, gone) = checked(save(without), &first.secrets).unwrap();
        assert_eq!(gone, Secrets::default());
        assert!(!template.variables[1].has_default);
        // A secret that becomes plain does not show what it was.
        let mut plain = first.template.variables.clone();
        plain[1].secret = false;
        let (template, _) = checked(save(plain), &first.secrets).unwrap();
        assert_eq!(template.variables[1].default, None);
        assert!(!template.variables[1].has_default);
    }

    #[test]
    fn given_values_win_and_missing_ones_are_named() {
        let stored = stored(vec![
            variable("host", Some("web"), false),
            variable("pw", None, true),
        ]);
        let given = |pairs: &[(&str, &str)]| {
            let values = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            rendered(&stored, &values)
        };
        assert_eq!(
            given(&[("pw", "123")]).unwrap(),
            "#cloud-config\nhostname: \"web\"\npassword: \"123\"\n"
        );
        let fields = |result: Result<String, Error>| match result {
            Err(Error::Invalid(errors)) => errors
                .into_iter()
                .map(|error| error.field)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(fields(given(&[])), ["template.variables.pw"]);
        assert_eq!(
            fields(given(&[("pw", "\u{1b}"), ("nobody", "x")])),
            ["template.variables.nobody", "template.variables.pw"]
        );
    }

    #[test]
    fn what_cannot_be_a_template_is_refused() {
        for (change, field) in [
            (
                SaveTemplate {
                    name: "a b".to_owned(),
                    ..save(vec![])
                },
                "name",
            ),
            (
                SaveTemplate {
                    text: "#!/bin/sh\n".to_owned(),
                    ..save(vec![])
                },
                "text",
            ),
            (save(vec![variable("host", None, false)]), "text"),
            (save(vec![variable("Host", None, false)]), "variables"),
            (
                save(vec![
                    variable("host", None, false),
                    variable("host", None, true),
                ]),
                "variables",
            ),
            (
                save(vec![variable("host", Some("\u{7}"), false)]),
                "variables",
            ),
            (
                SaveTemplate {
                    description: "x".repeat(2000),
                    ..save(vec![])
                },
                "description",
            ),
        ] {
            match checked(change, &Secrets::default()) {
                Err(Error::Invalid(errors)) => assert_eq!(errors[0].field, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
