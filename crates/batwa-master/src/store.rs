//! The store: what the master must not forget, on SQLite or PostgreSQL.
//!
//! One SQL text serves both: `$1` markers, TEXT, BIGINT, BOOLEAN, BYTEA and DOUBLE PRECISION columns, times
//! as milliseconds, JSON as TEXT, columns always named; secrets sealed by [`vault`]. [`on!`] runs it on whichever pool there is. Only this
//! module and its children see sqlx; constraint names become domain errors here.

pub(crate) mod agent_keys;
pub(crate) mod agents;
pub(crate) mod audit;
mod error;
pub(crate) mod join_tokens;
pub(crate) mod links;
mod open;
mod openers;
pub(crate) mod operations;
#[cfg(test)]
mod postgres;
pub(crate) mod sessions;
mod settings;
pub(crate) mod ssh_keys;
#[cfg(test)]
mod suite;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod vault;
pub(crate) mod vms;

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{PgPool, SqlitePool};

pub use error::StoreError;
use vault::Vault;

/// Evaluates one expression with `$db` bound to whichever pool, connection or transaction there is.
///
/// The expression is compiled once a database, so it must have the same type for both.
macro_rules! on {
    ($store:expr, $db:ident => $body:expr) => {
        match $store {
            $crate::store::Db::Sqlite($db) => $body,
            $crate::store::Db::Postgres($db) => $body,
        }
    };
}
pub(crate) use on;

/// One of two: whatever is wanted of SQLite, or the same of PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) enum Db<S, P> {
    /// SQLite's.
    Sqlite(S),
    /// PostgreSQL's.
    Postgres(P),
}

/// A transaction that has the right to write from its first statement on.
pub(crate) type Tx =
    Db<sqlx::Transaction<'static, sqlx::Sqlite>, sqlx::Transaction<'static, sqlx::Postgres>>;

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pools: Db<SqlitePool, PgPool>,
    vault: Arc<Vault>,
}

impl Store {
    /// The pools, for [`on!`].
    pub(crate) fn db(&self) -> &Db<SqlitePool, PgPool> {
        &self.pools
    }

    /// What seals secrets.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Begins a transaction that may write.
    ///
    /// On SQLite it takes the write lock at once, so that two of them wait for each other rather than fail;
    /// on PostgreSQL whoever needs that order takes [`Tx::lock`].
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.pools {
            Db::Sqlite(pool) => Db::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Db::Postgres(pool) => Db::Postgres(pool.begin().await?),
        })
    }

    /// Fails unless the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        on!(&self.pools, db => sqlx::query("SELECT 1").execute(db).await.map(drop))?;
        Ok(())
    }

    /// Closes all connections; SQLite's file is whole and alone afterwards.
    pub(crate) async fn close(&self) {
        on!(&self.pools, db => db.close().await);
    }
}

/// What only one transaction at a time may do.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub(crate) enum Exclusive {
    /// Adding to the audit's chain.
    Audit = 0x6261_7477_6101,
    /// Changing who is an admin.
    Admins = 0x6261_7477_6102,
}

impl Tx {
    /// Waits until no other transaction holds `what`; held until the end of this one.
    pub(crate) async fn lock(&mut self, what: Exclusive) -> Result<(), StoreError> {
        match self {
            // BEGIN IMMEDIATE has made this the only writer already.
            Self::Sqlite(_) => {}
            Self::Postgres(tx) => {
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(what as i64)
                    .execute(&mut **tx)
                    .await?;
            }
        }
        Ok(())
    }

    /// Makes it so.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        on!(self, tx => tx.commit().await)?;
        Ok(())
    }
}

/// A time as a column holds it.
pub(crate) fn to_ms(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// A time from a column.
pub(crate) fn from_ms(ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|_| StoreError::Corrupt { what: "a time" })
}

/// A value that was written as text by us: an id, a role.
pub(crate) fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what })
}

/// A value as a JSON column holds it.
pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("stored values are plain data")
}

/// A value from a JSON column.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    json: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|_| StoreError::Corrupt { what })
}
