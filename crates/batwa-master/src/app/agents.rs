//! Agents: listing and managing them, and enrolment the old way.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use batwa_api::{
    Timestamp,
    agent::{Agent, AgentKey, CreateAgentKey, CreatedAgentKey, UpdateAgent},
    certificate::CertificateHash,
    id::{AgentId, AgentKeyId},
    problem::{FieldError, Problem, ProblemCode},
    vm::label_is_good,
};
use rand::Rng as _;
use secrecy::SecretString;

use super::{
    App, Error,
    audit::{Actor, Outcome, Record},
    auth::{Caller, Right, Source},
};
use crate::{
    fleet::{
        enrolment::{self, Admission, Claim, Decision, HeartbeatRefusal, KnownKey, Refusal},
        labels,
        record::{AgentRecord, AgentSecret, Fingerprint, PendingAgent},
    },
    link::direct::ApiUrl,
};

/// Longest key of an agent.
const MAX_KEY: usize = 1024;
/// Longest host or display name.
const MAX_NAME: usize = 255;
/// Longest notes on a machine, in characters.
const MAX_NOTES: usize = 4000;

/// What an agent gives when it registers the old way, not checked yet.
#[derive(Clone)]
pub(crate) struct RegisterAgent {
    /// The id it goes by.
    pub(crate) agent_id: String,
    /// Its machine's name.
    pub(crate) hostname: String,
    /// Where it can be reached.
    pub(crate) api_url: String,
    /// Its key.
    pub(crate) key: Option<SecretString>,
    /// Labels.
    pub(crate) tags: BTreeMap<String, String>,
    /// The certificate that its port shows over TLS.
    pub(crate) certificate: Option<CertificateHash>,
}

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
            errors.push(FieldError::new(
                "labels",
                "at most 64 labels; keys of 1 to 63 letters, digits and `._-/`, values of at most 255 printable characters",
            ));
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

    /// An agent registers the old way.
    pub(crate) async fn register_agent(
        &self,
        source: &Source,
        given: RegisterAgent,
    ) -> Result<Agent, Error> {
        let claim = check(&given)?;
        let secret = given.key.map(AgentSecret::new);
        let fingerprint = secret.as_ref().map(|secret| &secret.fingerprint);
        let now = Timestamp::now();
        let row = PendingAgent {
            id: claim.id,
            hostname: given.hostname.trim().to_owned(),
            api_url: claim.api_url,
            address: source.address.to_string(),
            secret: secret.clone(),
            certificate: given.certificate,
            public_key: None,
            tags: claim.tags,
            first_seen: now,
            last_seen: now,
        };
        let _enrolling = self.fleet().enrolment.lock().await;
        self.forget_expired_registrations_locked().await?;
        let key = match fingerprint {
            Some(fingerprint) => self.store().agent_key_by_fingerprint(fingerprint).await?,
            None => None,
        };
        let known = self.fleet().record(&row.id);
        let decision = enrolment::decide(
            &Claim {
                id: &row.id,
                fingerprint,
                api_url: &row.api_url,
                certificate: row.certificate,
                address: &row.address,
            },
            known.as_ref(),
            key.as_ref()
                .map(|key| KnownKey {
                    agent_id: key.agent_id.clone(),
                })
                .as_ref(),
            if self.config().open_registration {
                Admission::Open
            } else {
                Admission::Keys
            },
            &self.fleet().all_pending(),
        );
        let id = row.id.clone();
        if let Decision::Refuse(refusal) = decision {
            let record = Record {
                outcome: Outcome::Refused,
                detail: Some(refusal.to_string()),
                ..Record::ok("agent.register", id.as_str())
            };
            self.audit_by(Actor::Agent(&id), source, record).await?;
            return Err(match refusal {
                Refusal::TooManyPending | Refusal::TooManyFromAddress => Error::Problem(Box::new(
                    Problem::new(ProblemCode::TooManyRequests, refusal.to_string()),
                )),
                _ => Error::Refused(refusal.to_string()),
            });
        }
        if let Some(key) = key
            && matches!(decision, Decision::Admit | Decision::Update)
            && !self.store().use_agent_key(key.id, &id, now).await?
        {
            return Err(Error::Refused(Refusal::KeyOfAnother.to_string()));
        }
        let changed = match decision {
            Decision::Update => self.update_registered(known, row).await?,
            Decision::Admit => {
                for waiting in self.fleet().pending_of(&id) {
                    self.store().delete_registration(&waiting).await?;
                }
                let record = row.into_record(now);
                self.store().save_agent(&record).await?;
                self.fleet().put_pending_and_record(&record);
                true
            }
            Decision::WaitAgain => {
                self.store().delete_agent(&id).await?;
                self.fleet().remove_record(&id);
                self.keep_waiting(row).await?
            }
            Decision::Wait => self.keep_waiting(row).await?,
            Decision::Refuse(_) => false,
        };
        if changed {
            self.audit_by(
                Actor::Agent(&id),
                source,
                Record::ok("agent.register", id.as_str()),
            )
            .await?;
        }
        self.fleet().heard_from(&id);
        self.fleet()
            .read(|state| state.agent(&id))
            .ok_or_else(|| unknown(&id))
    }

    /// Takes the new address, host name and labels of a known agent; false when nothing changed.
    async fn update_registered(
        &self,
        known: Option<AgentRecord>,
        row: PendingAgent,
    ) -> Result<bool, Error> {
        let Some(known) = known else {
            return Ok(false);
        };
        let fingerprint =
            |secret: &Option<AgentSecret>| secret.as_ref().map(|secret| secret.fingerprint.clone());
        let same = known.hostname == row.hostname
            && known.api_url == row.api_url
            && known.tags == row.tags
            && known.certificate == row.certificate
            && fingerprint(&known.secret) == fingerprint(&row.secret);
        let record = AgentRecord {
            hostname: row.hostname,
            api_url: row.api_url,
            tags: row.tags,
            secret: row.secret,
            certificate: row.certificate,
            ..known
        };
        if !same {
            self.store().save_agent(&record).await?;
        }
        // Also when nothing changed: the agent is there, so it is worth reaching for at once.
        self.fleet().put_record(&record);
        Ok(!same)
    }

    /// Takes a registration that waits; false when it waited already.
    async fn keep_waiting(&self, mut row: PendingAgent) -> Result<bool, Error> {
        let mut rows = self.fleet().pending_of(&row.id);
        let fingerprint = row.fingerprint();
        let before = rows
            .iter()
            .position(|known| known.has_key_of(fingerprint.as_ref()));
        if let Some(at) = before {
            row.first_seen = rows.remove(at).first_seen;
        }
        self.store().save_registration(&row).await?;
        let id = row.id.clone();
        rows.push(row);
        rows.sort_by_key(|row| row.first_seen);
        self.fleet().put_pending(&id, rows);
        Ok(before.is_none())
    }

    /// Takes an agent's heartbeat: no store, no waiting.
    pub(crate) fn heartbeat(&self, id: &str, key: Option<&SecretString>) -> Result<(), Error> {
        if !self.fleet().is_ready() {
            // "Unknown" would make every agent register again after each restart.
            return Err(Error::Unavailable("the master is still starting"));
        }
        // As it was sent, checked by nobody yet.
        let shown: String = id.chars().take(AgentId::MAX_LEN).collect();
        let refused = |refusal: HeartbeatRefusal| match refusal {
            HeartbeatRefusal::Unknown => Error::Problem(Box::new(Problem::new(
                ProblemCode::NotFound,
                format!("agent `{shown}`: {refusal}"),
            ))),
            _ => Error::Refused(format!("agent `{shown}`: {refusal}")),
        };
        let id = AgentId::parse_remote(id).map_err(|_| refused(HeartbeatRefusal::Unknown))?;
        let fingerprint = key.map(Fingerprint::of);
        self.fleet()
            .read(|state| match state.agents.get(&id) {
                Some(entry) => enrolment::check_heartbeat(
                    entry.record.as_ref(),
                    &entry.pending,
                    fingerprint.as_ref(),
                ),
                None => Err(HeartbeatRefusal::Unknown),
            })
            .map_err(refused)?;
        self.fleet().beat(&id);
        Ok(())
    }

    /// Forgets registrations that waited too long.
    pub(crate) async fn forget_expired_registrations(&self) -> Result<(), Error> {
        let _enrolling = self.fleet().enrolment.lock().await;
        self.forget_expired_registrations_locked().await
    }

    async fn forget_expired_registrations_locked(&self) -> Result<(), Error> {
        let now = Timestamp::now();
        let expired = self
            .fleet()
            .all_pending()
            .into_iter()
            .filter(|row| enrolment::is_expired(row, now) && !self.fleet().is_connected(row));
        for row in expired {
            self.store().delete_registration(&row).await?;
            let mut rows = self.fleet().pending_of(&row.id);
            rows.retain(|other| {
                !enrolment::is_expired(other, now) || self.fleet().is_connected(other)
            });
            self.fleet().put_pending(&row.id, rows);
        }
        Ok(())
    }

    /// All keys that admins made for agents.
    pub(crate) async fn agent_keys(&self, caller: &Caller) -> Result<Vec<AgentKey>, Error> {
        caller.require(Right::Administer)?;
        Ok(self.store().agent_keys().await?)
    }

    /// Makes a key that an agent may register with; this is the only time it is shown.
    pub(crate) async fn create_agent_key(
        &self,
        caller: &Caller,
        create: CreateAgentKey,
    ) -> Result<CreatedAgentKey, Error> {
        caller.require(Right::Administer)?;
        let name = create.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control)
        {
            return Err(Error::invalid(
                "name",
                "say what the key is for, in at most 255 printable characters",
            ));
        }
        if create.agent_id.as_ref().is_some_and(AgentId::is_local) {
            return Err(Error::invalid(
                "agent_id",
                "the master's own machine needs no key",
            ));
        }
        let mut bytes = [0_u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let key = format!("batwa_agent_{}", URL_SAFE_NO_PAD.encode(bytes));
        let fingerprint = Fingerprint::of(&SecretString::from(key.clone()));
        let row = AgentKey {
            id: AgentKeyId::new(),
            name: name.to_owned(),
            agent_id: create.agent_id,
            fingerprint: fingerprint.shown().to_owned(),
            created_at: Timestamp::now(),
            last_used_at: None,
        };
        self.store().insert_agent_key(&row, &fingerprint).await?;
        self.audit(caller, Record::ok("agent_key.create", row.id.to_string()))
            .await?;
        Ok(CreatedAgentKey { id: row.id, key })
    }

    /// Removes a key: nobody can enrol with it any more. Agents that did stay.
    pub(crate) async fn delete_agent_key(
        &self,
        caller: &Caller,
        id: AgentKeyId,
    ) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        if !self.store().delete_agent_key(id).await? {
            return Err(Error::NotFound(format!("agent key `{id}`")));
        }
        self.audit(caller, Record::ok("agent_key.delete", id.to_string()))
            .await
    }
}

/// What an agent gave, checked.
struct Checked {
    id: AgentId,
    api_url: String,
    tags: BTreeMap<String, String>,
}

fn check(given: &RegisterAgent) -> Result<Checked, Error> {
    use secrecy::ExposeSecret as _;
    let mut errors = Vec::new();
    let mut refuse = |field: &str, message: String| errors.push(FieldError::new(field, message));
    let id = AgentId::parse_remote(&given.agent_id)
        .map_err(|error| refuse("agent_id", error.to_string()))
        .ok();
    let api_url = given
        .api_url
        .parse::<ApiUrl>()
        .map_err(|error| refuse("api_url", error.to_string()))
        .ok();
    let hostname = given.hostname.trim();
    if hostname.is_empty() || hostname.len() > MAX_NAME || hostname.chars().any(char::is_control) {
        refuse(
            "hostname",
            "a host name has 1 to 255 printable characters".to_owned(),
        );
    }
    if let Some(key) = &given.key {
        let key = key.expose_secret();
        if key.len() > MAX_KEY || !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            refuse(
                "api_key",
                "a key has at most 1024 printable ASCII characters".to_owned(),
            );
        }
    }
    let tags = given
        .tags
        .iter()
        .filter(|(key, value)| label_is_good(key, value))
        .take(64)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    match (id, api_url, errors.is_empty()) {
        (Some(id), Some(api_url), true) => Ok(Checked {
            id,
            api_url: api_url.as_str().to_owned(),
            tags,
        }),
        _ => Err(Error::Invalid(errors)),
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
