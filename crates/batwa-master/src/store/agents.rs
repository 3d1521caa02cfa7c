//! Agents that were let in, and registrations that wait.

use std::collections::BTreeMap;

use batwa_api::{
    Timestamp,
    agent::{AgentInfo, LinkKind},
    certificate::CertificateHash,
    id::AgentId,
    tunnel::PublicKey,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_json, from_ms, on, parse, to_json, to_ms};
use crate::fleet::{
    labels::AdminLabels,
    record::{AgentRecord, AgentSecret, Fingerprint, PendingAgent},
};

/// An agent as the store holds it.
#[derive(Debug)]
pub(crate) struct StoredAgent {
    /// Its record.
    pub(crate) record: AgentRecord,
    /// What it last said of itself.
    pub(crate) info: Option<AgentInfo>,
    /// Whether it spoke only the old paths.
    pub(crate) legacy: bool,
}

/// The `labels` column: those it came with, and what an admin decided.
#[derive(Default, Serialize, Deserialize)]
struct StoredLabels {
    #[serde(default)]
    token: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    #[serde(default)]
    admin: Option<AdminLabels>,
}

#[derive(FromRow)]
struct AgentRow {
    id: String,
    name: Option<String>,
    hostname: String,
    api_url: String,
    link: String,
    legacy: Option<bool>,
    api_key: Option<String>,
    certificate: Option<String>,
    labels: String,
    notes: String,
    cordoned: bool,
    revoked: bool,
    info: Option<String>,
    created_at: i64,
    last_seen_at: Option<i64>,
    public_key: Option<Vec<u8>>,
}

impl AgentRow {
    fn into_stored(self) -> Result<StoredAgent, StoreError> {
        let labels: StoredLabels = from_json("an agent's labels", &self.labels)?;
        // What an older version wrote of it and this one cannot read is only old news.
        let info = self
            .info
            .as_deref()
            .and_then(|info| serde_json::from_str(info).ok());
        Ok(StoredAgent {
            record: AgentRecord {
                id: parse("an agent id", &self.id)?,
                hostname: self.hostname,
                display_name: self.name,
                link: link_from_text(&self.link)?,
                api_url: self.api_url,
                secret: self
                    .api_key
                    .map(|key| AgentSecret::new(SecretString::from(key))),
                token_labels: labels.token,
                certificate: certificate(self.certificate.as_deref())?,
                public_key: self.public_key.as_deref().map(public_key).transpose()?,
                tags: labels.tags,
                admin_labels: labels.admin.unwrap_or_default(),
                notes: self.notes,
                cordoned: self.cordoned,
                revoked: self.revoked,
                created_at: from_ms(self.created_at)?,
                last_seen: self.last_seen_at.map(from_ms).transpose()?,
            },
            info,
            legacy: self.legacy.unwrap_or(false),
        })
    }
}

fn public_key(bytes: &[u8]) -> Result<PublicKey, StoreError> {
    PublicKey::try_from(bytes).map_err(|_| StoreError::Corrupt {
        what: "an agent's key",
    })
}

pub(super) fn link_text(link: LinkKind) -> &'static str {
    match link {
        LinkKind::InProcess => "in_process",
        LinkKind::Direct => "direct",
        LinkKind::Tunnel => "tunnel",
    }
}

pub(super) fn link_from_text(text: &str) -> Result<LinkKind, StoreError> {
    [LinkKind::InProcess, LinkKind::Direct, LinkKind::Tunnel]
        .into_iter()
        .find(|link| link_text(*link) == text)
        .ok_or(StoreError::Corrupt {
            what: "a kind of link",
        })
}

#[derive(FromRow)]
struct RegistrationRow {
    agent_id: String,
    hostname: String,
    api_url: String,
    address: String,
    api_key: Option<String>,
    certificate: Option<String>,
    labels: String,
    first_seen: i64,
    last_seen: i64,
    public_key: Option<Vec<u8>>,
}

impl RegistrationRow {
    fn into_pending(self) -> Result<PendingAgent, StoreError> {
        Ok(PendingAgent {
            id: parse("an agent id", &self.agent_id)?,
            hostname: self.hostname,
            api_url: self.api_url,
            address: self.address,
            secret: self
                .api_key
                .map(|key| AgentSecret::new(SecretString::from(key))),
            certificate: certificate(self.certificate.as_deref())?,
            public_key: self.public_key.as_deref().map(public_key).transpose()?,
            tags: from_json("an agent's labels", &self.labels)?,
            first_seen: from_ms(self.first_seen)?,
            last_seen: from_ms(self.last_seen)?,
        })
    }
}

fn certificate(text: Option<&str>) -> Result<Option<CertificateHash>, StoreError> {
    text.map(|text| parse("a certificate's hash", text))
        .transpose()
}

impl Store {
    /// All agents that were let in.
    pub(crate) async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError> {
        let sql = "SELECT id, name, hostname, api_url, link, legacy, api_key, certificate, labels, notes, cordoned, \
                   revoked, info, created_at, last_seen_at, public_key FROM agents ORDER BY id";
        let rows: Vec<AgentRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter().map(AgentRow::into_stored).collect()
    }

    /// Writes an agent's record; what it said of itself stays.
    pub(crate) async fn save_agent(&self, record: &AgentRecord) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        save_agent(&mut tx, record).await?;
        tx.commit().await
    }

    /// Writes what agents last said of themselves and when they were heard of: one transaction for all.
    pub(crate) async fn save_sightings(&self, sightings: &[Sighting]) -> Result<(), StoreError> {
        if sightings.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let sql = "UPDATE agents SET last_seen_at = $2, legacy = $3, info = COALESCE($4, info) WHERE id = $1";
        for sighting in sightings {
            on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(sighting.id.as_str())
                    .bind(sighting.last_seen.map(to_ms))
                    .bind(sighting.legacy)
                    .bind(sighting.info.as_ref().map(to_json))
                    .execute(&mut **tx)
                    .await
                    .map(drop)
            })?;
        }
        tx.commit().await
    }

    /// Removes an agent with its VMs.
    pub(crate) async fn delete_agent(&self, id: &AgentId) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM vms WHERE agent_id = $1",
            "DELETE FROM agent_links WHERE agent_id = $1",
            "DELETE FROM terminal_openers WHERE agent_id = $1",
            "DELETE FROM agents WHERE id = $1",
        ] {
            on!(&mut tx, tx => {
                sqlx::query(sql).bind(id.as_str()).execute(&mut **tx).await.map(drop)
            })?;
        }
        tx.commit().await
    }

    /// All registrations that wait, the oldest first.
    pub(crate) async fn registrations(&self) -> Result<Vec<PendingAgent>, StoreError> {
        let sql = "SELECT agent_id, hostname, api_url, address, api_key, certificate, labels, first_seen, last_seen, \
                   public_key \
                   FROM registrations ORDER BY first_seen";
        let rows: Vec<RegistrationRow> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter()
            .map(RegistrationRow::into_pending)
            .collect()
    }

    /// Writes a registration that waits.
    pub(crate) async fn save_registration(&self, pending: &PendingAgent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        save_registration(&mut tx, pending).await?;
        tx.commit().await
    }

    /// Removes one registration.
    pub(crate) async fn delete_registration(
        &self,
        pending: &PendingAgent,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM registrations WHERE agent_id = $1 AND fingerprint = $2";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(pending.id.as_str())
                .bind(registration_fingerprint(pending))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }
}

/// Writes an agent's record; what it said of itself stays.
pub(super) async fn save_agent(tx: &mut Tx, record: &AgentRecord) -> Result<(), StoreError> {
    let labels = StoredLabels {
        token: record.token_labels.clone(),
        tags: record.tags.clone(),
        admin: Some(record.admin_labels.clone()),
    };
    let sql = "INSERT INTO agents (id, name, hostname, api_url, link, api_key, fingerprint, address, \
               labels, cordoned, revoked, created_at, last_seen_at, notes, certificate, public_key) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, '', $8, $9, $10, $11, $12, $13, $14, $15) \
               ON CONFLICT (id) DO UPDATE SET name = excluded.name, hostname = excluded.hostname, \
               api_url = excluded.api_url, link = excluded.link, api_key = excluded.api_key, \
               fingerprint = excluded.fingerprint, labels = excluded.labels, \
               cordoned = excluded.cordoned, revoked = excluded.revoked, notes = excluded.notes, \
               certificate = excluded.certificate, public_key = excluded.public_key";
    let fingerprint = record.fingerprint();
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(record.id.as_str())
            .bind(record.display_name.as_deref())
            .bind(&record.hostname)
            .bind(&record.api_url)
            .bind(link_text(record.link))
            .bind(record.secret.as_ref().map(|secret| secret.key.expose_secret()))
            .bind(fingerprint.as_ref().map(Fingerprint::shown))
            .bind(to_json(&labels))
            .bind(record.cordoned)
            .bind(record.revoked)
            .bind(to_ms(record.created_at))
            .bind(record.last_seen.map(to_ms))
            .bind(&record.notes)
            .bind(record.certificate.map(|hash| hash.to_string()))
            .bind(record.public_key.map(|key| key.as_bytes().to_vec()))
            .execute(&mut **tx)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// Writes a registration that waits.
pub(super) async fn save_registration(
    tx: &mut Tx,
    pending: &PendingAgent,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO registrations (agent_id, fingerprint, hostname, api_url, address, api_key, \
               labels, first_seen, last_seen, certificate, public_key) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
               ON CONFLICT (agent_id, fingerprint) DO UPDATE SET hostname = excluded.hostname, \
               api_url = excluded.api_url, address = excluded.address, labels = excluded.labels, \
               last_seen = excluded.last_seen, certificate = excluded.certificate, \
               public_key = excluded.public_key";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(pending.id.as_str())
            .bind(registration_fingerprint(pending))
            .bind(&pending.hostname)
            .bind(&pending.api_url)
            .bind(&pending.address)
            .bind(pending.secret.as_ref().map(|secret| secret.key.expose_secret()))
            .bind(to_json(&pending.tags))
            .bind(to_ms(pending.first_seen))
            .bind(to_ms(pending.last_seen))
            .bind(pending.certificate.map(|hash| hash.to_string()))
            .bind(pending.public_key.map(|key| key.as_bytes().to_vec()))
            .execute(&mut **tx)
            .await
            .map(drop)
    })?;
    Ok(())
}

/// What the batch of sightings writes of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    /// The agent.
    pub(crate) id: AgentId,
    /// When it was heard of.
    pub(crate) last_seen: Option<Timestamp>,
    /// Whether it speaks only the old paths.
    pub(crate) legacy: bool,
    /// What it said of itself.
    pub(crate) info: Option<AgentInfo>,
}

fn registration_fingerprint(pending: &PendingAgent) -> String {
    pending
        .fingerprint()
        .map_or_else(String::new, |fingerprint| fingerprint.as_str().to_owned())
}
