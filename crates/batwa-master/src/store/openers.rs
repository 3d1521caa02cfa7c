//! Who opened which terminal session: agents do not know, and a master that restarts must.

use std::collections::BTreeSet;

use batwa_api::{
    Timestamp,
    id::{AgentId, TerminalId},
};

use super::{Store, StoreError, on, parse, to_ms};

impl Store {
    /// Who opened which session.
    pub(crate) async fn openers(&self) -> Result<Vec<(TerminalId, String)>, StoreError> {
        let sql = "SELECT terminal_id, opened_by FROM terminal_openers";
        let rows: Vec<(String, String)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter()
            .map(|(id, name)| Ok((parse("a session's id", &id)?, name)))
            .collect()
    }

    /// Writes who opened a session on an agent.
    pub(crate) async fn save_opener(
        &self,
        terminal: TerminalId,
        agent: &AgentId,
        name: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO terminal_openers (terminal_id, agent_id, opened_by, opened_at) \
                   VALUES ($1, $2, $3, $4)";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(terminal.to_string())
                .bind(agent.as_str())
                .bind(name)
                .bind(to_ms(now))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Forgets sessions opened before `before` that are none of `there`.
    pub(crate) async fn prune_openers(
        &self,
        before: Timestamp,
        there: &BTreeSet<TerminalId>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT terminal_id FROM terminal_openers WHERE opened_at < $1";
        let old: Vec<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(to_ms(before)).fetch_all(db).await
        })?;
        for id in old {
            let terminal: TerminalId = parse("a session's id", &id)?;
            if there.contains(&terminal) {
                continue;
            }
            let sql = "DELETE FROM terminal_openers WHERE terminal_id = $1";
            on!(self.db(), db => sqlx::query(sql).bind(&id).execute(db).await.map(drop))?;
        }
        Ok(())
    }
}
