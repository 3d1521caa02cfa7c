//! Agents that register the old way, and their signs of life.

use std::collections::BTreeMap;

use batwa_api::{
    Timestamp,
    agent::Agent,
    certificate::CertificateHash,
    id::AgentId,
    problem::{FieldError, Problem, ProblemCode},
    vm::label_is_good,
};
use secrecy::SecretString;

use super::{MAX_NAME, unknown};
use crate::{
    app::{
        App, Error,
        audit::{Actor, Outcome, Record},
        auth::Source,
    },
    fleet::{
        enrolment::{self, Admission, Claim, Decision, HeartbeatRefusal, KnownKey, Refusal},
        record::{AgentRecord, AgentSecret, Fingerprint, PendingAgent},
    },
    link::direct::ApiUrl,
};

/// Longest key of an agent.
const MAX_KEY: usize = 1024;

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
