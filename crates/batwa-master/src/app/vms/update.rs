//! What people write about a VM, and what they want done about it by itself.

use std::{sync::Arc, time::Duration};

use batwa_api::{
    operation::OperationRequest,
    problem::{Problem, ProblemCode},
    vm::{SettingsChange, UpdateVm, Vm, VmAction, VmDetails},
};
use tokio::time::timeout;

use super::VmRef;
use crate::{
    app::{
        App, Error,
        audit::Record,
        auth::{Caller, Right},
        operations::agent_error,
    },
    fleet::{
        Follower,
        events::Followed,
        row::{About, Row},
    },
};

/// How long an agent's own word of a change is waited for that it has confirmed.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

impl App {
    /// Changes what is written about a VM, and what its agent is to do about it by itself. All of it is checked before
    /// any of it is changed.
    pub(crate) async fn update_vm(
        &self,
        caller: &Caller,
        vm: &VmRef,
        update: UpdateVm,
    ) -> Result<VmDetails, Error> {
        caller.require(Right::Manage)?;
        let found = self.found(vm)?.vm;
        let (legacy, capabilities) = self.fleet().read(|state| {
            let entry = state.agents.get(&vm.agent);
            (
                entry.is_some_and(|entry| entry.legacy),
                entry
                    .map(|entry| entry.capabilities(&found.vm))
                    .unwrap_or_default(),
            )
        });
        let change = update.settings.filter(|change| !change.is_empty());
        if legacy && change.is_some() {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "agent `{}` is of the old kind and does nothing by itself: settings of its VMs need a newer agent there",
                    vm.agent
                ),
            ))));
        }
        let errors = update.check(&found.labels, &found.vm.settings, &capabilities);
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        // The agent first: it may refuse, and then nothing has changed.
        if let Some(change) = &change {
            self.change_settings(vm, change).await?;
        }
        self.write_about(caller, vm, &update).await?;
        let record = Record {
            detail: Some(changed(&update)),
            ..Record::ok("vm.update", format!("{}/{}", vm.agent, vm.name))
        };
        self.audit(caller, record).await?;
        self.vm(vm)
    }

    /// Has a VM's agent change its settings, and waits until the fleet has heard of it.
    async fn change_settings(&self, vm: &VmRef, change: &SettingsChange) -> Result<(), Error> {
        let contact = self.online(&vm.agent)?;
        let mut follower = self.fleet().follow(None);
        let changed = contact
            .client
            .change_settings(&vm.name, change)
            .await
            .map_err(|error| agent_error(&vm.agent, error))?;
        let revision = changed.settings.revision;
        self.wait_until_heard(&mut follower, vm, |vm| vm.settings.revision >= revision)
            .await;
        Ok(())
    }

    /// Waits until the fleet has heard of what a VM's agent has confirmed; `follower` follows since before that was asked.
    pub(super) async fn wait_until_heard(
        &self,
        follower: &mut Follower,
        vm: &VmRef,
        is_so: impl Fn(&Vm) -> bool,
    ) {
        let is_known = || {
            let row = self.fleet().row(&vm.agent, &vm.name);
            row.is_none_or(|row| is_so(&row.vm))
        };
        let heard = async {
            while !is_known() {
                if matches!(follower.events.next().await, Followed::End) {
                    return;
                }
            }
        };
        // It is changed all the same where its word comes late: a link that was just cut.
        let _ = timeout(HEARD_WITHIN, heard).await;
    }

    /// Writes what is said of a VM down, then shows it.
    async fn write_about(
        &self,
        caller: &Caller,
        vm: &VmRef,
        update: &UpdateVm,
    ) -> Result<(), Error> {
        let change = |about: &mut About| apply(about, update, &caller.name);
        let Some(row) = self.fleet().row(&vm.agent, &vm.name) else {
            return Ok(());
        };
        let mut about = row.about.clone();
        change(&mut about);
        if about == row.about {
            return Ok(());
        }
        let written = Arc::new(Row {
            about,
            ..(*row).clone()
        });
        let key = (vm.agent.clone(), vm.name.clone());
        self.store().save_vms(&[(key, Some(written))]).await?;
        self.fleet().change_about(&vm.agent, &vm.name, change);
        Ok(())
    }

    /// Refuses what a protected VM does not let be done, beyond what its state forbids.
    pub(super) fn check_protection(
        request: &OperationRequest,
        found: &crate::fleet::Found,
    ) -> Result<(), Error> {
        if !(request.destroys() && found.vm.vm.settings.protected) {
            return Ok(());
        }
        Err(Error::Problem(Box::new(Problem::new(
            ProblemCode::IllegalState,
            format!(
                "cannot {} VM `{}`: {}",
                request.kind(),
                found.vm.vm.name,
                VmAction::PROTECTED
            ),
        ))))
    }
}

fn apply(about: &mut About, update: &UpdateVm, account: &str) {
    if let Some(name) = &update.display_name {
        about.display_name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    }
    if let Some(notes) = &update.notes {
        about.notes = notes.trim().to_owned();
    }
    for (key, value) in &update.labels {
        match value {
            // Whoever sets what is there already changes nothing.
            Some(value) if about.labels.get(key) == Some(value) => {}
            Some(value) => {
                about.labels.insert(key.clone(), value.clone());
                about.label_sources.insert(key.clone(), account.to_owned());
            }
            None => {
                about.labels.remove(key);
                about.label_sources.remove(key);
            }
        }
    }
}

/// What an update changes, for the audit: never what notes say.
fn changed(update: &UpdateVm) -> String {
    let mut words = Vec::new();
    if let Some(name) = &update.display_name {
        words.push(format!("display name `{name}`"));
    }
    if update.notes.is_some() {
        words.push("notes".to_owned());
    }
    for (key, value) in &update.labels {
        words.push(match value {
            Some(value) => format!("label {key}={value}"),
            None => format!("no label {key}"),
        });
    }
    if let Some(change) = &update.settings
        && let Ok(json) = serde_json::to_string(change)
    {
        words.push(format!("settings {json}"));
    }
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_remembers_who_set_it_last() {
        let mut about = About::default();
        let update = |pairs: &[(&str, Option<&str>)]| UpdateVm {
            labels: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
                .collect(),
            ..UpdateVm::default()
        };
        apply(
            &mut about,
            &update(&[("env", Some("test")), ("team", Some("a"))]),
            "ann",
        );
        apply(
            &mut about,
            &update(&[("env", Some("prod")), ("team", Some("a"))]),
            "bob",
        );
        let by = |key: &str| about.label_sources.get(key).map(String::as_str);
        assert_eq!((by("env"), by("team")), (Some("bob"), Some("ann")));
        apply(&mut about, &update(&[("env", None)]), "ann");
        assert_eq!((about.labels.len(), about.label_sources.len()), (1, 1));
    }

    #[test]
    fn the_audit_says_what_changed_and_not_what_notes_say() {
        let update = UpdateVm {
            display_name: Some("Shop".to_owned()),
            notes: Some("the password is 1234".to_owned()),
            labels: [
                ("env".to_owned(), Some("prod".to_owned())),
                ("old".to_owned(), None),
            ]
            .into(),
            settings: Some(SettingsChange {
                protected: Some(true),
                lifetime: Some(None),
                ..SettingsChange::default()
            }),
        };
        assert_eq!(
            changed(&update),
            r#"display name `Shop`, notes, label env=prod, no label old, settings {"protected":true,"lifetime":null}"#
        );
    }
}
