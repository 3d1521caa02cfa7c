//! Opening the store: which database, whether it is ours, and bringing it to this version's shape.
//!
//! Everything here happens before any other connection exists, as a changed table under a cached statement
//! is an error on PostgreSQL and worse on SQLite.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgPool, SqliteConnection,
    migrate::{Migrate, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Db, Store, StoreError};
use crate::config::DatabaseUrl;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Marks an SQLite file as ours: `Batw`.
const APPLICATION_ID: i64 = 0x4261_7477;

/// How long a statement waits for another's write lock, or for a free connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// SQLite connections: readers do not wait for each other, and each costs some 300 kB.
const SQLITE_CONNECTIONS: u32 = 4;

/// PostgreSQL connections of one master.
const POSTGRES_CONNECTIONS: u32 = 16;

impl Store {
    /// Opens the database at `url`, by default the file `batwa.db` in `state_dir`, making and upgrading it as needed.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is not ours is left as it was.
    pub(crate) async fn open(
        state_dir: &Path,
        url: Option<&DatabaseUrl>,
    ) -> Result<Self, StoreError> {
        match url.map(DatabaseUrl::expose) {
            None => Self::open_sqlite(&state_dir.join("batwa.db")).await,
            Some(url) => match url.strip_prefix("sqlite:") {
                Some(path) => Self::open_sqlite(Path::new(path.trim_start_matches("//"))).await,
                None => Self::open_postgres(url).await,
            },
        }
    }

    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .disable_statement_logging();
        if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            // Looked at before WAL mode would write to it.
            check_ours(path).await?;
        }
        let mut first = options
            .connect()
            .await
            .map_err(|e| not_a_database(path, e))?;
        migrate_sqlite(&mut first, path).await?;
        first.close().await?;
        let pool = SqlitePoolOptions::new()
            .max_connections(SQLITE_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        Ok(Self {
            pools: Db::Sqlite(pool),
        })
    }

    async fn open_postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
        let mut first = options.connect().await?;
        MIGRATIONS.run(&mut first).await.map_err(migration_error)?;
        sqlx::raw_sql(POSTGRES_GUARDS).execute(&mut first).await?;
        first.close().await?;
        let pool: PgPool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        Ok(Self {
            pools: Db::Postgres(pool),
        })
    }
}

/// Refuses a file that is no SQLite database, or another program's, without writing to it.
async fn check_ours(path: &Path) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .disable_statement_logging();
    let looked = async {
        let mut connection = options.connect().await?;
        let id: i64 = sqlx::query_scalar("PRAGMA application_id")
            .fetch_one(&mut connection)
            .await?;
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>((id, tables))
    };
    let (id, tables) = looked.await.map_err(|e| not_a_database(path, e))?;
    // An empty database is one that a start did not finish making.
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        Ok(())
    } else {
        Err(StoreError::NotOurs(path.to_owned()))
    }
}

fn not_a_database(path: &Path, error: sqlx::Error) -> StoreError {
    // SQLITE_NOTADB, SQLITE_CORRUPT.
    let code = error.as_database_error().and_then(|e| e.code());
    if code.is_some_and(|code| code == "26" || code == "11") {
        StoreError::NotOurs(path.to_owned())
    } else {
        error.into()
    }
}

/// Migrates with a copy of the file made first, when there is something in it and something to do.
async fn migrate_sqlite(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    // Before anything else, so that a start cut short here is recognised by the next.
    sqlx::raw_sql("PRAGMA application_id = 0x42617477")
        .execute(&mut *connection)
        .await?;
    connection
        .ensure_migrations_table(&MIGRATIONS.table_name)
        .await
        .map_err(migration_error)?;
    let applied = connection
        .list_applied_migrations(&MIGRATIONS.table_name)
        .await
        .map_err(migration_error)?;
    if !applied.is_empty() && applied.len() < MIGRATIONS.iter().count() {
        let copy = backup_path(path, applied.len());
        // Left by an upgrade that failed half-way: the older copy is the one to keep.
        if !copy.exists() {
            sqlx::query("VACUUM INTO $1")
                .bind(copy.to_string_lossy().into_owned())
                .execute(&mut *connection)
                .await
                .map_err(|source| StoreError::Backup { path: copy, source })?;
        }
    }
    MIGRATIONS
        .run(&mut *connection)
        .await
        .map_err(migration_error)?;
    sqlx::raw_sql(SQLITE_GUARDS).execute(connection).await?;
    Ok(())
}

/// Where the copy goes that is made before migrating a file of `version`.
fn backup_path(path: &Path, version: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".before-upgrade-from-{version}"));
    path.with_file_name(name)
}

fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => StoreError::TooNew,
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        error => StoreError::Migrate(error),
    }
}

/// The audit is only ever added to; the database itself refuses anything else.
const SQLITE_GUARDS: &str = "
    CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
";

const POSTGRES_GUARDS: &str = "
    CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger AS $$
        BEGIN RAISE EXCEPTION 'the audit is append-only'; END;
    $$ LANGUAGE plpgsql;
    CREATE OR REPLACE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
";
