//! Whose terminal sessions are: agents do not know, and a master that restarts must.

use std::collections::{BTreeMap, BTreeSet};

use batwa_api::{
    Timestamp,
    id::{AgentId, TerminalId, UserId},
    terminal::{TerminalAccess, TerminalGuest},
};

use super::{Store, StoreError, on, parse, to_ms};
use crate::fleet::ownership::Ownership;

impl Store {
    /// Whose which session is, and who is invited.
    pub(crate) async fn ownerships(&self) -> Result<BTreeMap<TerminalId, Ownership>, StoreError> {
        let sql = "SELECT terminal_id, agent_id, opened_by, user_id FROM terminal_openers";
        let rows: Vec<(String, String, String, Option<String>)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        let mut all = BTreeMap::new();
        for (terminal, agent, owner_name, owner) in rows {
            let owner = owner
                .map(|id| parse::<UserId>("an account's id", &id))
                .transpose()?;
            let ownership = Ownership {
                agent: parse("an agent's id", &agent)?,
                owner,
                owner_name,
                guests: BTreeMap::new(),
            };
            all.insert(parse("a session's id", &terminal)?, ownership);
        }
        let sql = "SELECT terminal_guests.terminal_id, users.id, users.name, terminal_guests.access \
                   FROM terminal_guests JOIN users ON users.id = terminal_guests.user_id";
        let rows: Vec<(String, String, String, String)> =
            on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        for (terminal, user, name, access) in rows {
            let terminal: TerminalId = parse("a session's id", &terminal)?;
            let guest = TerminalGuest {
                user: name,
                access: access_of(&access)?,
            };
            if let Some(ownership) = all.get_mut(&terminal) {
                ownership
                    .guests
                    .insert(parse("an account's id", &user)?, guest);
            }
        }
        Ok(all)
    }

    /// Writes who opened a session on an agent.
    pub(crate) async fn save_opener(
        &self,
        terminal: TerminalId,
        agent: &AgentId,
        owner: UserId,
        owner_name: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO terminal_openers (terminal_id, agent_id, opened_by, opened_at, user_id) \
                   VALUES ($1, $2, $3, $4, $5)";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(terminal.to_string())
                .bind(agent.as_str())
                .bind(owner_name)
                .bind(to_ms(now))
                .bind(owner.to_string())
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Writes that an account is invited to a session, or what it may do there from now on.
    pub(crate) async fn save_guest(
        &self,
        terminal: TerminalId,
        user: UserId,
        access: TerminalAccess,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO terminal_guests (terminal_id, user_id, access, invited_at) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (terminal_id, user_id) DO UPDATE SET access = excluded.access";
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(terminal.to_string())
                .bind(user.to_string())
                .bind(access.as_str())
                .bind(to_ms(now))
                .execute(db)
                .await
                .map(drop)
        })?;
        Ok(())
    }

    /// Takes an invitation back, or all of a session.
    pub(crate) async fn delete_guests(
        &self,
        terminal: TerminalId,
        user: Option<UserId>,
    ) -> Result<(), StoreError> {
        let sql =
            "DELETE FROM terminal_guests WHERE terminal_id = $1 AND (user_id = $2 OR $2 = '')";
        let user = user.map(|user| user.to_string()).unwrap_or_default();
        on!(self.db(), db => {
            sqlx::query(sql)
                .bind(terminal.to_string())
                .bind(user)
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

fn access_of(text: &str) -> Result<TerminalAccess, StoreError> {
    [TerminalAccess::Watch, TerminalAccess::Write]
        .into_iter()
        .find(|access| access.as_str() == text)
        .ok_or(StoreError::Corrupt {
            what: "a guest's access",
        })
}
