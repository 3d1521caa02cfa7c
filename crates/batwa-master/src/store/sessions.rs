//! Signed-in browsers.

use batwa_api::{
    Timestamp,
    id::{SessionId, UserId},
    user::{Role, Session},
};
use sqlx::FromRow;

use super::{Store, StoreError, from_ms, on, parse, to_ms, users::role_from_text};

/// A session as it is made.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    /// Its id.
    pub(crate) id: SessionId,
    /// Whose it is.
    pub(crate) user_id: UserId,
    /// SHA-256 of the secret in the cookie.
    pub(crate) secret_hash: [u8; 32],
    /// Where the sign-in came from.
    pub(crate) address: String,
    /// What the browser called itself.
    pub(crate) user_agent: String,
    /// When.
    pub(crate) created_at: Timestamp,
    /// When it ends at the latest.
    pub(crate) expires_at: Timestamp,
}

/// The account behind a credential, with its rights as they are now.
#[derive(Clone, Debug)]
pub(crate) struct Holder<Id> {
    /// The credential's id.
    pub(crate) id: Id,
    /// The account.
    pub(crate) user_id: UserId,
    /// Its name.
    pub(crate) name: String,
    /// Its role.
    pub(crate) role: Role,
    /// Its terminal right.
    pub(crate) terminal: bool,
    /// When the credential was last used, as far as it is noted.
    pub(crate) last_used_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct HolderRow {
    id: String,
    user_id: String,
    name: String,
    role: String,
    terminal: bool,
    last_used_at: i64,
}

impl HolderRow {
    fn into_holder(self) -> Result<Holder<SessionId>, StoreError> {
        Ok(Holder {
            id: parse("a session id", &self.id)?,
            user_id: parse("a user id", &self.user_id)?,
            name: self.name,
            role: role_from_text(&self.role)?,
            terminal: self.terminal,
            last_used_at: Some(from_ms(self.last_used_at)?),
        })
    }
}

#[derive(FromRow)]
struct SessionRow {
    id: String,
    address: String,
    user_agent: String,
    created_at: i64,
    last_used_at: i64,
    expires_at: i64,
}

/// Sessions of one account; the one used longest ago makes room for a new one.
const MAX_SESSIONS: i64 = 100;

impl Store {
    /// Adds a session, and forgets those that are over.
    pub(crate) async fn insert_session(
        &self,
        session: &NewSession,
        idle_since: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let sql = "DELETE FROM sessions WHERE expires_at <= $1 OR last_used_at <= $2";
        on!(&mut tx, tx => {
            sqlx::query(sql)
                .bind(to_ms(session.created_at))
                .bind(to_ms(idle_since))
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
        let sql = "DELETE FROM sessions WHERE user_id = $1 AND id NOT IN \
                   (SELECT id FROM sessions WHERE user_id = $1 ORDER BY last_used_at DESC LIMIT $2)";
        on!(&mut tx, tx => {
            sqlx::query(sql)
                .bind(session.user_id.to_string())
                .bind(MAX_SESSIONS - 1)
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
        let sql = "INSERT INTO sessions \
                   (id, user_id, secret_hash, address, user_agent, created_at, last_used_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $6, $7)";
        on!(&mut tx, tx => {
            sqlx::query(sql)
                .bind(session.id.to_string())
                .bind(session.user_id.to_string())
                .bind(session.secret_hash.to_vec())
                .bind(&session.address)
                .bind(&session.user_agent)
                .bind(to_ms(session.created_at))
                .bind(to_ms(session.expires_at))
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
        tx.commit().await
    }

    /// Who holds the session whose secret has this hash, unless it is over.
    pub(crate) async fn session_holder(
        &self,
        secret_hash: &[u8; 32],
        now: Timestamp,
        idle_since: Timestamp,
    ) -> Result<Option<Holder<SessionId>>, StoreError> {
        let sql = "SELECT s.id, s.user_id, u.name, u.role, u.terminal, s.last_used_at \
                   FROM sessions s JOIN users u ON u.id = s.user_id \
                   WHERE s.secret_hash = $1 AND s.expires_at > $2 AND s.last_used_at > $3";
        let row: Option<HolderRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(secret_hash.to_vec())
                .bind(to_ms(now))
                .bind(to_ms(idle_since))
                .fetch_optional(db)
                .await
        })?;
        row.map(HolderRow::into_holder).transpose()
    }

    /// Who holds this session, unless it is over.
    pub(crate) async fn session_holder_by_id(
        &self,
        id: SessionId,
        now: Timestamp,
        idle_since: Timestamp,
    ) -> Result<Option<Holder<SessionId>>, StoreError> {
        let sql = "SELECT s.id, s.user_id, u.name, u.role, u.terminal, s.last_used_at \
                   FROM sessions s JOIN users u ON u.id = s.user_id \
                   WHERE s.id = $1 AND s.expires_at > $2 AND s.last_used_at > $3";
        let row: Option<HolderRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(id.to_string())
                .bind(to_ms(now))
                .bind(to_ms(idle_since))
                .fetch_optional(db)
                .await
        })?;
        row.map(HolderRow::into_holder).transpose()
    }

    /// Notes that a session was used.
    pub(crate) async fn touch_session(
        &self,
        id: SessionId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET last_used_at = $2 WHERE id = $1 AND last_used_at < $2";
        on!(self.db(), db => {
            sqlx::query(sql).bind(id.to_string()).bind(to_ms(at)).execute(db).await.map(drop)
        })?;
        Ok(())
    }

    /// The sessions of an account that are not over, the last used first; `current` is marked.
    pub(crate) async fn sessions_of(
        &self,
        user: UserId,
        current: Option<SessionId>,
        now: Timestamp,
        idle_since: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let sql = "SELECT id, address, user_agent, created_at, last_used_at, expires_at FROM sessions \
                   WHERE user_id = $1 AND expires_at > $2 AND last_used_at > $3 ORDER BY last_used_at DESC, id DESC";
        let rows: Vec<SessionRow> = on!(self.db(), db => {
            sqlx::query_as(sql)
                .bind(user.to_string())
                .bind(to_ms(now))
                .bind(to_ms(idle_since))
                .fetch_all(db)
                .await
        })?;
        let session = |row: SessionRow| {
            let id = parse("a session id", &row.id)?;
            Ok(Session {
                id,
                address: row.address,
                user_agent: row.user_agent,
                created_at: from_ms(row.created_at)?,
                last_used_at: from_ms(row.last_used_at)?,
                expires_at: from_ms(row.expires_at)?,
                current: current == Some(id),
            })
        };
        rows.into_iter().map(session).collect()
    }

    /// Ends a session of `user`; false when it has none with this id.
    pub(crate) async fn delete_session(
        &self,
        id: SessionId,
        user: UserId,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
        let gone = on!(self.db(), db => {
            sqlx::query(sql)
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(db)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok(gone > 0)
    }
}
