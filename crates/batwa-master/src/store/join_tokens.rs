//! Join tokens, and the one transaction in which an agent uses one.

use std::collections::BTreeMap;

use batwa_api::{
    Timestamp,
    id::{AgentId, JoinTokenId},
    tunnel::{JoinTokenInfo, JoinTokenStatus},
};
use batwa_tunnel::JoinSecret;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, agents, from_json, from_ms, on, parse, to_json, to_ms};
use crate::fleet::record::{AgentRecord, PendingAgent};

/// A token as the store holds it.
#[derive(Debug, Clone)]
pub(crate) struct StoredJoinToken {
    /// What is shown of it; the agents that joined are in lists only.
    pub(crate) info: JoinTokenInfo,
    /// What checks proofs.
    pub(crate) secret: JoinSecret,
}

/// Who joins with a token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joining<'a> {
    /// Let in at once.
    Agent(&'a AgentRecord),
    /// Waits for an admin.
    Waiting(&'a PendingAgent),
}

impl Joining<'_> {
    fn id(&self) -> &AgentId {
        match self {
            Self::Agent(record) => &record.id,
            Self::Waiting(row) => &row.id,
        }
    }
}

#[derive(FromRow)]
struct TokenRow {
    id: String,
    secret: Vec<u8>,
    uses: i64,
    used: i64,
    labels: String,
    approve: bool,
    created_by: String,
    created_at: i64,
    expires_at: i64,
    revoked: bool,
}

impl TokenRow {
    fn into_token(self, now: Timestamp) -> Result<StoredJoinToken, StoreError> {
        let status = if self.revoked {
            JoinTokenStatus::Revoked
        } else if self.used >= self.uses {
            JoinTokenStatus::UsedUp
        } else if self.expires_at <= to_ms(now) {
            JoinTokenStatus::Expired
        } else {
            JoinTokenStatus::Active
        };
        Ok(StoredJoinToken {
            info: JoinTokenInfo {
                id: parse("a join token id", &self.id)?,
                status,
                uses: u32::try_from(self.uses).unwrap_or(u32::MAX),
                used: u32::try_from(self.used).unwrap_or(u32::MAX),
                labels: from_json::<BTreeMap<_, _>>("a join token's labels", &self.labels)?,
                approve: self.approve,
                created_by: self.created_by,
                created_at: from_ms(self.created_at)?,
                expires_at: from_ms(self.expires_at)?,
                agents: Vec::new(),
            },
            secret: JoinSecret::try_from(self.secret.as_slice()).map_err(|_| {
                StoreError::Corrupt {
                    what: "a join token's secret",
                }
            })?,
        })
    }
}

impl Store {
    /// Adds a token.
    pub(crate) async fn insert_join_token(
        &self,
        token: &StoredJoinToken,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO join_tokens (id, secret, uses, used, labels, approve, created_by, \
                   created_at, expires_at, revoked) VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $8, FALSE)";
        let info = &token.info;
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(info.id.to_string())
                .bind(token.secret.as_bytes().to_vec())
                .bind(i64::from(info.uses))
                .bind(to_json(&info.labels))
                .bind(info.approve)
                .bind(&info.created_by)
                .bind(to_ms(info.created_at))
                .bind(to_ms(info.expires_at))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// All tokens, the newest first, with the agents that joined by them.
    pub(crate) async fn join_tokens(
        &self,
        now: Timestamp,
    ) -> Result<Vec<JoinTokenInfo>, StoreError> {
        let sql = "SELECT id, secret, uses, used, labels, approve, created_by, created_at, expires_at, revoked \
                   FROM join_tokens ORDER BY id DESC";
        let rows: Vec<TokenRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        let mut tokens: Vec<JoinTokenInfo> = rows
            .into_iter()
            .map(|row| Ok(row.into_token(now)?.info))
            .collect::<Result<_, StoreError>>()?;
        let sql = "SELECT token_id, agent_id FROM join_token_uses ORDER BY token_id, seq";
        let uses: Vec<(String, String)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        let mut agents: BTreeMap<JoinTokenId, Vec<AgentId>> = BTreeMap::new();
        for (token, agent) in uses {
            agents
                .entry(parse("a join token id", &token)?)
                .or_default()
                .push(parse("an agent id", &agent)?);
        }
        for token in &mut tokens {
            token.agents = agents.remove(&token.id).unwrap_or_default();
        }
        Ok(tokens)
    }

    /// One token.
    pub(crate) async fn join_token(
        &self,
        id: JoinTokenId,
        now: Timestamp,
    ) -> Result<Option<StoredJoinToken>, StoreError> {
        let sql = "SELECT id, secret, uses, used, labels, approve, created_by, created_at, expires_at, revoked \
                   FROM join_tokens WHERE id = $1";
        let row: Option<TokenRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        row.map(|row| row.into_token(now)).transpose()
    }

    /// Takes a token back; false when there is none.
    pub(crate) async fn revoke_join_token(&self, id: JoinTokenId) -> Result<bool, StoreError> {
        let sql = "UPDATE join_tokens SET revoked = TRUE WHERE id = $1 RETURNING id";
        let found: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(db).await
        })?;
        Ok(found.is_some())
    }

    /// Forgets tokens that expired before `before`, and what they were used for.
    pub(crate) async fn prune_join_tokens(&self, before: Timestamp) -> Result<(), StoreError> {
        let sql = "DELETE FROM join_tokens WHERE expires_at < $1";
        on!(self.db(), db => sqlx::query(sql).bind(to_ms(before)).execute(db).await.map(drop))?;
        Ok(())
    }

    /// Uses a token once for `joining`, and writes that agent down: both or neither. False when the token is used up,
    /// expired or taken back by now, whoever else uses it at the same moment.
    pub(crate) async fn use_join_token(
        &self,
        id: JoinTokenId,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let sql = "UPDATE join_tokens SET used = used + 1 \
                   WHERE id = $1 AND used < uses AND expires_at > $2 AND NOT revoked RETURNING used";
        let used: Option<i64> = on!(&mut tx, tx => {
            sqlx::query_scalar(sql)
                .bind(id.to_string())
                .bind(to_ms(now))
                .fetch_optional(&mut **tx)
                .await
        })?;
        let Some(used) = used else {
            return Ok(false);
        };
        note_use(&mut tx, id, used, joining.id(), now).await?;
        match joining {
            Joining::Agent(record) => {
                let sql = "DELETE FROM registrations WHERE agent_id = $1";
                on!(&mut tx, tx => {
                    sqlx::query(sql).bind(record.id.as_str()).execute(&mut **tx).await.map(drop)
                })?;
                agents::save_agent(&mut tx, record).await?;
            }
            Joining::Waiting(row) => agents::save_registration(&mut tx, row).await?,
        }
        tx.commit().await?;
        Ok(true)
    }
}

async fn note_use(
    tx: &mut Tx,
    token: JoinTokenId,
    seq: i64,
    agent: &AgentId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO join_token_uses (token_id, seq, agent_id, used_at) VALUES ($1, $2, $3, $4)";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(token.to_string())
            .bind(seq)
            .bind(agent.as_str())
            .bind(to_ms(now))
            .execute(&mut **tx)
            .await
            .map(drop)
    })?;
    Ok(())
}
