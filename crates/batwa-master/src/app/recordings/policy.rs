//! Which sessions have to be recorded: an admin's policy, asked as a session is opened.

use std::collections::BTreeMap;

use batwa_api::{
    problem::FieldError,
    recording::{RecordTerminal, RecordingPolicy, RecordingRule},
    vm::label_is_good,
};

use super::super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right},
    users::is_name,
    vms::VmRef,
};

/// Where the policy is kept.
const SETTING: &str = "recording_policy";

impl App {
    /// Which sessions have to be recorded.
    pub(crate) async fn recording_policy(&self) -> Result<RecordingPolicy, Error> {
        Ok(self.store().setting(SETTING).await?.unwrap_or_default())
    }

    /// Decides which sessions have to be recorded; those that are open stay as they are.
    pub(crate) async fn set_recording_policy(
        &self,
        caller: &Caller,
        policy: RecordingPolicy,
    ) -> Result<RecordingPolicy, Error> {
        caller.require(Right::Administer)?;
        let errors = wrong_with(&policy);
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        self.store().save_setting(SETTING, &policy).await?;
        let rules: Vec<_> = policy.rules.iter().map(words).collect();
        let detail = match rules.is_empty() {
            true => "nothing".to_owned(),
            false => rules.join("; "),
        };
        let record = Record {
            detail: Some(detail),
            ..Record::ok("recording.policy", "")
        };
        self.audit(caller, record).await?;
        Ok(policy)
    }

    /// How a session of `caller` in this VM has to be recorded; `None` where no rule says so.
    pub(in crate::app) async fn required_recording(
        &self,
        caller: &Caller,
        vm: &VmRef,
    ) -> Result<Option<RecordTerminal>, Error> {
        let policy = self.recording_policy().await?;
        if policy.rules.is_empty() {
            return Ok(None);
        }
        let of_vm = self.found(vm)?.vm.labels;
        let of_machine = self
            .fleet()
            .read(|state| state.agents.get(&vm.agent).map(|entry| entry.labels()));
        let labels = [of_vm, of_machine.unwrap_or_default()];
        Ok(
            input_required(&policy, &caller.name, &labels).map(|input| RecordTerminal {
                input,
                required: true,
                owner: Some(caller.user_id),
                user: caller.name.to_string(),
            }),
        )
    }
}

/// Whether a session has to be recorded, and then whether with its input.
fn input_required(
    policy: &RecordingPolicy,
    user: &str,
    labels: &[BTreeMap<String, String>],
) -> Option<bool> {
    let matching = policy.rules.iter().filter(|rule| {
        let same_label = |label: &str| {
            label.split_once('=').is_some_and(|(key, value)| {
                labels
                    .iter()
                    .any(|labels| labels.get(key).is_some_and(|its| its == value))
            })
        };
        rule.user.as_deref().is_none_or(|name| name == user)
            && rule.label.as_deref().is_none_or(same_label)
    });
    matching.map(|rule| rule.input).reduce(|a, b| a || b)
}

fn wrong_with(policy: &RecordingPolicy) -> Vec<FieldError> {
    if policy.rules.len() > RecordingPolicy::MAX_RULES {
        let message = format!("at most {}", RecordingPolicy::MAX_RULES);
        return vec![FieldError::new("rules", message)];
    }
    let mut errors = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        if rule.user.as_deref().is_some_and(|user| !is_name(user)) {
            let message = "an account's name has 1 to 64 letters, digits and `._@-`";
            errors.push(FieldError::new(format!("rules.{index}.user"), message));
        }
        let good = |label: &str| {
            label
                .split_once('=')
                .is_some_and(|(key, value)| label_is_good(key, value))
        };
        if rule.label.as_deref().is_some_and(|label| !good(label)) {
            let message = "write it as `key=value`";
            errors.push(FieldError::new(format!("rules.{index}.label"), message));
        }
    }
    errors
}

/// A rule in the audit.
fn words(rule: &RecordingRule) -> String {
    let mut words = match (&rule.user, &rule.label) {
        (None, None) => "all sessions".to_owned(),
        (Some(user), None) => format!("those of `{user}`"),
        (None, Some(label)) => format!("those at `{label}`"),
        (Some(user), Some(label)) => format!("those of `{user}` at `{label}`"),
    };
    if rule.input {
        words.push_str(" with input");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(user: Option<&str>, label: Option<&str>, input: bool) -> RecordingRule {
        RecordingRule {
            user: user.map(str::to_owned),
            label: label.map(str::to_owned),
            input,
        }
    }

    #[test]
    fn a_session_is_recorded_when_a_rule_names_it() {
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let places = [labels(&[("env", "prod")]), labels(&[("site", "office")])];
        for (rules, expected) in [
            (vec![], None),
            (vec![rule(None, None, false)], Some(false)),
            (vec![rule(Some("ann"), None, true)], Some(true)),
            (vec![rule(Some("bob"), None, true)], None),
            (vec![rule(None, Some("env=prod"), false)], Some(false)),
            (vec![rule(None, Some("env=test"), false)], None),
            (vec![rule(None, Some("site=office"), true)], Some(true)),
            (vec![rule(Some("bob"), Some("env=prod"), true)], None),
            (vec![rule(Some("ann"), Some("env=prod"), true)], Some(true)),
            (
                vec![rule(None, None, false), rule(Some("ann"), None, true)],
                Some(true),
            ),
        ] {
            let policy = RecordingPolicy { rules };
            assert_eq!(
                input_required(&policy, "ann", &places),
                expected,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn a_rule_that_can_match_nothing_is_refused_by_its_place() {
        let policy = RecordingPolicy {
            rules: vec![
                rule(Some("a b"), Some("env"), false),
                rule(Some("ann"), Some("env=prod"), false),
            ],
        };
        let fields: Vec<_> = wrong_with(&policy)
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(fields, ["rules.0.user", "rules.0.label"]);
        let many = RecordingPolicy {
            rules: vec![rule(None, None, false); 101],
        };
        assert_eq!(wrong_with(&many)[0].field, "rules");
    }
}
