//! People's SSH keys.

use batwa_api::{
    id::{SshKeyId, UserId},
    ssh_key::SshKey,
};
use sqlx::FromRow;

use super::{Store, StoreError, from_ms, on, parse, to_ms};

/// What became of adding a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is there.
    Yes,
    /// Its owner has it already.
    Known,
    /// Its owner has as many as may be.
    TooMany,
}

#[derive(FromRow)]
struct KeyRow {
    id: String,
    name: String,
    public_key: String,
    fingerprint: String,
    created_at: i64,
}

impl KeyRow {
    fn into_key(self) -> Result<SshKey, StoreError> {
        Ok(SshKey {
            id: parse("a key's id", &self.id)?,
            name: self.name,
            public_key: self.public_key,
            fingerprint: self.fingerprint,
            created_at: from_ms(self.created_at)?,
        })
    }
}

impl Store {
    /// An account's keys, the first first.
    pub(crate) async fn ssh_keys(&self, owner: UserId) -> Result<Vec<SshKey>, StoreError> {
        let sql = "SELECT id, name, public_key, fingerprint, created_at FROM ssh_keys \
                   WHERE user_id = $1 ORDER BY id";
        let rows: Vec<KeyRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(owner.to_string()).fetch_all(db).await
        })?;
        rows.into_iter().map(KeyRow::into_key).collect()
    }

    /// Adds a key to an account that has fewer than `most`.
    pub(crate) async fn insert_ssh_key(
        &self,
        owner: UserId,
        key: &SshKey,
        most: usize,
    ) -> Result<Added, StoreError> {
        let mut tx = self.begin().await?;
        let sql = "INSERT INTO ssh_keys (id, user_id, name, public_key, fingerprint, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, fingerprint) DO NOTHING RETURNING id";
        let inserted: Option<String> = on!(&mut tx, tx => {
            sqlx::query_scalar(sql)
                .bind(key.id.to_string())
                .bind(owner.to_string())
                .bind(&key.name)
                .bind(&key.public_key)
                .bind(&key.fingerprint)
                .bind(to_ms(key.created_at))
                .fetch_optional(&mut **tx)
                .await
        })?;
        if inserted.is_none() {
            return Ok(Added::Known);
        }
        let sql = "SELECT COUNT(*) FROM ssh_keys WHERE user_id = $1";
        let count: i64 = on!(&mut tx, tx => {
            sqlx::query_scalar(sql).bind(owner.to_string()).fetch_one(&mut **tx).await
        })?;
        if usize::try_from(count).unwrap_or(usize::MAX) > most {
            return Ok(Added::TooMany);
        }
        tx.commit().await?;
        Ok(Added::Yes)
    }

    /// Removes a key of an account; its name, or `None` when it has no such key.
    pub(crate) async fn delete_ssh_key(
        &self,
        owner: UserId,
        id: SshKeyId,
    ) -> Result<Option<String>, StoreError> {
        let sql = "DELETE FROM ssh_keys WHERE id = $1 AND user_id = $2 RETURNING name";
        Ok(on!(self.db(), db => {
            sqlx::query_scalar(sql)
                .bind(id.to_string())
                .bind(owner.to_string())
                .fetch_optional(db)
                .await
        })?)
    }
}
