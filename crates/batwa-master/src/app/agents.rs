//! Agents: looking at them and managing them. How they come in the old way, and by which keys, is below.

mod keys;
mod registration;

use batwa_api::{
    Timestamp,
    agent::{Agent, UpdateAgent},
    id::AgentId,
    problem::FieldError,
    vm::{LABELS_ARE, label_is_good},
};

pub(crate) use self::registration::RegisterAgent;
use super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right},
};
use crate::fleet::{enrolment, labels, record::AgentRecord};

/// Longest host or display name.
const MAX_NAME: usize = 255;
/// Longest notes on a machine, in characters.
const MAX_NOTES: usize = 4000;

impl App {
    /// One agent.
    pub(crate) fn agent(&self, caller: &Caller, id: &AgentId) -> Result<Agent, Error> {
        self.fleet()
            .read(|state| state.agent(id))
            .map(|agent| for_caller(caller, agent))
            .ok_or_else(|| unknown(id))
    }

    /// Renames an agent for display, or sets its labels.
    pub(crate) async fn update_agent(
        &self,
        caller: &Caller,
        id: &AgentId,
        update: UpdateAgent,
    ) -> Result<Agent, Error> {
        let mut errors = Vec::new();
        if let Some(name) = &update.name
            && (name.chars().count() > MAX_NAME || name.chars().any(char::is_control))
        {
            errors.push(FieldError::new(
                "name",
                "a display name has at most 255 printable characters",
            ));
        }
        if let Some(labels) = &update.labels
            && (labels.len() > 64 || !labels.iter().all(|(key, value)| label_is_good(key, value)))
        {
            errors.push(FieldError::new("labels", LABELS_ARE));
        }
        if let Some(notes) = &update.notes
            && (notes.chars().count() > MAX_NOTES
                || notes
                    .chars()
                    .any(|c| c.is_control() && !matches!(c, '\n' | '\t')))
        {
            errors.push(FieldError::new(
                "notes",
                "notes have at most 4,000 printable characters",
            ));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let own = self.fleet().read(|state| {
            let info = state.agents.get(id)?.info.as_ref()?;
            Some(info.labels.clone())
        });
        self.change_agent(caller, id, "agent.update", |record| {
            if let Some(name) = update.name {
                record.display_name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            }
            if let Some(wanted) = &update.labels {
                record.admin_labels = labels::decide(record, own.as_ref(), wanted);
            }
            if let Some(notes) = update.notes {
                record.notes = notes.trim().to_owned();
            }
            Ok(())
        })
        .await
    }

    /// Lets no new VM be made on an agent.
    pub(crate) async fn cordon_agent(&self, caller: &Caller, id: &AgentId) -> Result<Agent, Error> {
        self.change_agent(caller, id, "agent.cordon", |record| {
            record.cordoned = true;
            Ok(())
        })
        .await
    }

    /// Lets new VMs be made on an agent again.
    pub(crate) async fn uncordon_agent(
        &self,
        caller: &Caller,
        id: &AgentId,
    ) -> Result<Agent, Error> {
        self.change_agent(caller, id, "agent.uncordon", |record| {
            record.cordoned = false;
            Ok(())
        })
        .await
    }

    /// Shuts an agent out: it is not contacted any more, and its registrations are refused.
    pub(crate) async fn revoke_agent(&self, caller: &Caller, id: &AgentId) -> Result<Agent, Error> {
        caller.require(Right::Administer)?;
        refuse_local(id, "shut out")?;
        let _enrolling = self.fleet().enrolment.lock().await;
        let waiting = self.fleet().pending_of(id);
        let record = self.fleet().record(id).or_else(|| {
            waiting
                .first()
                .map(|row| row.clone().into_record(Timestamp::now()))
        });
        let mut record = record.ok_or_else(|| unknown(id))?;
        record.revoked = true;
        self.store().save_agent(&record).await?;
        for row in &waiting {
            self.store().delete_registration(row).await?;
        }
        self.fleet().put_record(&record);
        self.fleet().put_pending(id, Vec::new());
        self.fleet().tunnels.cut(id, "an admin shut this agent out");
        self.audit(caller, Record::ok("agent.revoke", id.as_str()))
            .await?;
        self.agent(caller, id)
    }

    /// Removes an agent with everything known of it; it may register again.
    pub(crate) async fn delete_agent(&self, caller: &Caller, id: &AgentId) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        refuse_local(id, "removed")?;
        let _enrolling = self.fleet().enrolment.lock().await;
        if self.fleet().status(id).is_none() {
            return Err(unknown(id));
        }
        for row in self.fleet().pending_of(id) {
            self.store().delete_registration(&row).await?;
        }
        self.store().delete_agent(id).await?;
        self.fleet().put_pending(id, Vec::new());
        self.fleet().remove_record(id);
        self.fleet().tunnels.cut(id, "an admin removed this agent");
        self.audit(caller, Record::ok("agent.delete", id.as_str()))
            .await
    }

    /// Lets a waiting agent in.
    pub(crate) async fn approve_agent(
        &self,
        caller: &Caller,
        id: &AgentId,
        fingerprint: Option<&str>,
    ) -> Result<Agent, Error> {
        caller.require(Right::Administer)?;
        let _enrolling = self.fleet().enrolment.lock().await;
        let waiting = self.fleet().pending_of(id);
        let known = self.fleet().record(id);
        if waiting.is_empty() && known.is_none() {
            return Err(unknown(id));
        }
        let chosen = enrolment::choose(&waiting, fingerprint)
            .map_err(|ambiguity| Error::Conflict(ambiguity.to_string()))?
            .clone();
        let mut record = chosen.into_record(Timestamp::now());
        if let Some(known) = known {
            record.display_name = known.display_name;
            record.admin_labels = known.admin_labels;
            record.notes = known.notes;
            record.cordoned = known.cordoned;
            record.created_at = known.created_at;
        }
        self.store().save_agent(&record).await?;
        for row in &waiting {
            self.store().delete_registration(row).await?;
        }
        self.let_in(&record);
        self.audit(caller, Record::ok("agent.approve", id.as_str()))
            .await?;
        self.agent(caller, id)
    }

    async fn change_agent(
        &self,
        caller: &Caller,
        id: &AgentId,
        action: &'static str,
        change: impl FnOnce(&mut AgentRecord) -> Result<(), Error>,
    ) -> Result<Agent, Error> {
        caller.require(Right::Administer)?;
        let _enrolling = self.fleet().enrolment.lock().await;
        let Some(mut record) = self.fleet().record(id) else {
            return Err(match self.fleet().status(id) {
                Some(_) => Error::Conflict(format!("agent `{id}` waits for approval")),
                None => unknown(id),
            });
        };
        change(&mut record)?;
        self.store().save_agent(&record).await?;
        self.fleet().put_record(&record);
        self.audit(caller, Record::ok(action, id.as_str())).await?;
        self.agent(caller, id)
    }
}

/// Registrations show addresses of machines that nobody let in: for admins only.
pub(crate) fn for_caller(caller: &Caller, mut agent: Agent) -> Agent {
    if caller.require(Right::Administer).is_err() {
        agent.registrations.clear();
    }
    agent
}

pub(super) fn refuse_local(id: &AgentId, what: &str) -> Result<(), Error> {
    if id.is_local() {
        return Err(Error::Conflict(format!(
            "the master's own machine cannot be {what}"
        )));
    }
    Ok(())
}

pub(crate) fn unknown(id: &AgentId) -> Error {
    Error::NotFound(format!("agent `{id}`"))
}
