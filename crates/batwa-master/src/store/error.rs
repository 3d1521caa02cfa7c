//! What can go wrong in the store.

use std::path::PathBuf;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is no SQLite database, or another program's.
    #[error("`{}` is not a Batwa database: give another --state-dir or --database, or move the file away", .0.display())]
    NotOurs(PathBuf),
    /// The database was written by a later version.
    #[error(
        "the database was written by a newer Batwa: start that version, or restore the copy made before the upgrade"
    )]
    TooNew,
    /// The copy that is made before migrating could not be made.
    #[error("cannot copy the database to `{}` before upgrading it", path.display())]
    Backup {
        /// Where it should have gone.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Bringing the database to this version's shape failed.
    #[error("cannot upgrade the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The key that seals secrets cannot be had.
    #[error("the file `secrets-key` in the state folder cannot be used")]
    Key(#[source] std::io::Error),
    /// A secret could not be sealed.
    #[error("a secret cannot be encrypted: the system gives no random numbers")]
    Sealing,
    /// A secret was sealed with another key, or changed.
    #[error(
        "a saved secret cannot be read: the file `secrets-key` in the state folder is not the one it was saved with"
    )]
    Unsealing,
    /// Nothing can be written.
    #[error("the disk that holds the database is full")]
    Full(#[source] sqlx::Error),
    /// The database does not answer.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// Its turn did not come in time: thousands of writes at once, or a server that is gone.
    #[error("the database does not answer in time: it is very busy, or cannot be reached")]
    Busy(#[source] sqlx::Error),
    /// A row holds what cannot be.
    #[error("the database holds {what} that cannot be read")]
    Corrupt {
        /// What it should have been.
        what: &'static str,
    },
    /// Anything else.
    #[error("the database reported a failure")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|e| e.code())
            .map(|code| code.into_owned());
        match (code.as_deref(), error) {
            // SQLITE_FULL, and PostgreSQL's disk_full.
            (Some("13" | "53100"), error) => Self::Full(error),
            // SQLITE_BUSY, whose lock another holds for too long.
            (Some("5"), error) | (_, error @ sqlx::Error::PoolTimedOut) => Self::Busy(error),
            (_, error @ (sqlx::Error::Io(_) | sqlx::Error::PoolClosed)) => Self::Unreachable(error),
            (_, error) => Self::Database(error),
        }
    }
}

/// The name of the constraint that an insert or update violated, when that is why it failed.
///
/// PostgreSQL names the constraint; SQLite names the columns, as `table.column`.
pub(crate) fn violated(error: &sqlx::Error, constraint: &str, sqlite_columns: &str) -> bool {
    error.as_database_error().is_some_and(|e| {
        e.is_unique_violation()
            && (e.constraint() == Some(constraint) || e.message().contains(sqlite_columns))
    })
}
