//! The last changes of each agent's link.

use batwa_api::{
    agent::{AgentStatus, LinkChange},
    id::AgentId,
};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Store, StoreError, agents, from_json, from_ms, on, to_ms};

/// Changes kept of each agent: some weeks of a laptop that comes and goes.
pub(crate) const KEPT_LINKS: i64 = 200;

#[derive(FromRow)]
struct LinkRow {
    at: i64,
    status: String,
    link: String,
    reason: Option<String>,
}

impl LinkRow {
    fn into_change(self) -> Result<LinkChange, StoreError> {
        let status: AgentStatus = from_json("an agent's status", &format!("\"{}\"", self.status))?;
        Ok(LinkChange {
            at: from_ms(self.at)?,
            status,
            link: agents::link_from_text(&self.link)?,
            reason: self.reason,
        })
    }
}

impl Store {
    /// An agent's last changes, the newest first.
    pub(crate) async fn links(&self, agent: &AgentId) -> Result<Vec<LinkChange>, StoreError> {
        let sql = "SELECT at, status, link, reason FROM agent_links WHERE agent_id = $1 \
                   ORDER BY id DESC LIMIT $2";
        let rows: Vec<LinkRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(agent.as_str()).bind(KEPT_LINKS).fetch_all(db).await
        })?;
        rows.into_iter().map(LinkRow::into_change).collect()
    }

    /// Writes changes, the oldest first, in one transaction.
    pub(crate) async fn save_links(
        &self,
        changes: &[(AgentId, LinkChange)],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let sql = "INSERT INTO agent_links (id, agent_id, at, status, link, reason) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        for (agent, change) in changes {
            on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(Uuid::now_v7().to_string())
                    .bind(agent.as_str())
                    .bind(to_ms(change.at))
                    .bind(change.status.as_str())
                    .bind(agents::link_text(change.link))
                    .bind(change.reason.as_deref())
                    .execute(&mut **tx)
                    .await
                    .map(drop)
            })?;
        }
        tx.commit().await
    }

    /// Forgets all but the last changes of each agent.
    pub(crate) async fn prune_links(&self) -> Result<(), StoreError> {
        let sql = "DELETE FROM agent_links WHERE id IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER \
                   (PARTITION BY agent_id ORDER BY id DESC) AS place FROM agent_links) AS placed WHERE place > $1)";
        on!(self.db(), db => sqlx::query(sql).bind(KEPT_LINKS).execute(db).await.map(drop))?;
        Ok(())
    }
}
