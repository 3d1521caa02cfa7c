//! Keys that an admin made for old-way agents: hashes only.

use batwa_api::{
    Timestamp,
    agent::AgentKey,
    id::{AgentId, AgentKeyId},
};
use sqlx::FromRow;

use super::{Store, StoreError, from_ms, on, parse, to_ms};
use crate::fleet::record::Fingerprint;

#[derive(FromRow)]
struct KeyRow {
    id: String,
    name: String,
    agent_id: Option<String>,
    fingerprint: String,
    created_at: i64,
    last_used_at: Option<i64>,
}

impl KeyRow {
    fn into_key(self) -> Result<AgentKey, StoreError> {
        Ok(AgentKey {
            id: parse("an agent key id", &self.id)?,
            name: self.name,
            agent_id: self
                .agent_id
                .map(|id| parse("an agent id", &id))
                .transpose()?,
            fingerprint: self.fingerprint,
            created_at: from_ms(self.created_at)?,
            last_used_at: self.last_used_at.map(from_ms).transpose()?,
        })
    }
}

impl Store {
    /// All keys, the newest first.
    pub(crate) async fn agent_keys(&self) -> Result<Vec<AgentKey>, StoreError> {
        let sql = "SELECT id, name, agent_id, fingerprint, created_at, last_used_at FROM agent_keys \
                   ORDER BY id DESC";
        let rows: Vec<KeyRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter().map(KeyRow::into_key).collect()
    }

    /// The key with this hash.
    pub(crate) async fn agent_key_by_fingerprint(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<AgentKey>, StoreError> {
        let sql = "SELECT id, name, agent_id, fingerprint, created_at, last_used_at FROM agent_keys \
                   WHERE key_hash = $1";
        let row: Option<KeyRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(fingerprint.as_str().as_bytes())
                .fetch_optional(db)
                .await
        })?;
        row.map(KeyRow::into_key).transpose()
    }

    /// Adds a key.
    pub(crate) async fn insert_agent_key(
        &self,
        key: &AgentKey,
        fingerprint: &Fingerprint,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO agent_keys (id, name, agent_id, key_hash, fingerprint, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(key.id.to_string())
                .bind(&key.name)
                .bind(key.agent_id.as_ref().map(AgentId::as_str))
                .bind(fingerprint.as_str().as_bytes())
                .bind(&key.fingerprint)
                .bind(to_ms(key.created_at))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Notes that `agent` used a key; false when another agent owns it by now.
    pub(crate) async fn use_agent_key(
        &self,
        id: AgentKeyId,
        agent: &AgentId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE agent_keys SET agent_id = $2, last_used_at = $3 \
                   WHERE id = $1 AND (agent_id IS NULL OR agent_id = $2) RETURNING id";
        let used: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql)
                .bind(id.to_string())
                .bind(agent.as_str())
                .bind(to_ms(at))
                .fetch_optional(db)
                .await
        })?;
        Ok(used.is_some())
    }

    /// Removes a key; false when there is no such key.
    pub(crate) async fn delete_agent_key(&self, id: AgentKeyId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM agent_keys WHERE id = $1 RETURNING id";
        let gone: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        Ok(gone.is_some())
    }
}
