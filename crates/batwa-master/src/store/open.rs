//! Opening the store: which database, whether it is ours, and bringing it to this version's shape.
//!
//! Everything here happens before any other connection exists, as a changed table under a cached statement
//! is an error on PostgreSQL and worse on SQLite.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgPool, SqliteConnection, SqlitePool,
    migrate::{Migrate, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Db, Store, StoreError, vault::Vault};
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
        let pools = match url.map(DatabaseUrl::expose) {
            None => Self::open_sqlite(&state_dir.join("batwa.db")).await?,
            Some(url) => match url.strip_prefix("sqlite:") {
                Some(path) => Self::open_sqlite(Path::new(path.trim_start_matches("//"))).await?,
                None => Self::open_postgres(url).await?,
            },
        };
        // After the database: where that is not ours, nothing is made beside it.
        let vault = Vault::open(state_dir).map_err(StoreError::Key)?;
        Ok(Self {
            pools,
            vault: Arc::new(vault),
        })
    }

    async fn open_sqlite(path: &Path) -> Result<Db<SqlitePool, PgPool>, StoreError> {
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
            // No network lies between that could have cut a connection, and asking costs as much as the statement that
            // follows: half of what every request with a token or session needs.
            .test_before_acquire(false)
            // When the disk is full SQLite itself ends the transaction, which sqlx does not notice: such a connection
            // can begin no other one any more.
            .after_release(|connection, _| {
                let is_idle = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_idle) })
            })
            .connect_lazy_with(options);
        Ok(Db::Sqlite(pool))
    }

    async fn open_postgres(url: &str) -> Result<Db<SqlitePool, PgPool>, StoreError> {
        let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
        let mut first = options.connect().await?;
        MIGRATIONS.run(&mut first).await.map_err(migration_error)?;
        sqlx::raw_sql(POSTGRES_GUARDS).execute(&mut first).await?;
        first.close().await?;
        let pool: PgPool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        Ok(Db::Postgres(pool))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use sqlx::{Row, migrate::Migrator};
    use tempfile::TempDir;

    use super::*;

    async fn raw(path: &Path, create: bool) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create);
        options.connect().await.unwrap()
    }

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("batwa.db");
        (folder, file)
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_refused_and_left_as_it_was() {
        let (folder, file) = folder();
        for content in [
            b"this is a shopping list, and long enough for a header".repeat(20),
            vec![0; 4096],
        ] {
            fs::write(&file, &content).unwrap();
            let error = Store::open(folder.path(), None).await.unwrap_err();
            assert!(
                matches!(&error, StoreError::NotOurs(path) if *path == file),
                "{error:?}"
            );
            assert_eq!(fs::read(&file).unwrap(), content);
        }
        fs::remove_file(&file).unwrap();
        let mut other = raw(&file, true).await;
        sqlx::raw_sql("CREATE TABLE songs (name TEXT)")
            .execute(&mut other)
            .await
            .unwrap();
        other.close().await.unwrap();
        let before = fs::read(&file).unwrap();
        let error = Store::open(folder.path(), None).await.unwrap_err();
        assert!(
            matches!(error, StoreError::NotOurs(_)),
            "another program's: {error:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
        let entries = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(entries, 1, "and nothing is left beside it");
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        let (folder, file) = folder();
        Store::open(folder.path(), None)
            .await
            .unwrap()
            .close()
            .await;
        let mut connection = raw(&file, false).await;
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'later', 1, x'00', 0)";
        sqlx::raw_sql(later).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let error = Store::open(folder.path(), None).await.unwrap_err();
        assert!(matches!(error, StoreError::TooNew), "{error:?}");
    }

    #[tokio::test]
    async fn an_older_database_is_copied_before_it_is_upgraded() {
        let (folder, file) = folder();
        let mut connection = raw(&file, true).await;
        sqlx::raw_sql("PRAGMA application_id = 0x42617477")
            .execute(&mut connection)
            .await
            .unwrap();
        let first = Migrator::with_migrations(MIGRATIONS.iter().take(1).cloned().collect());
        first.run(&mut connection).await.unwrap();
        sqlx::raw_sql("INSERT INTO settings (name, value) VALUES ('kept', 'yes')")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();

        Store::open(folder.path(), None)
            .await
            .unwrap()
            .close()
            .await;
        let tables = async |path: &Path| {
            let mut connection = raw(path, false).await;
            let rows = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'")
                .fetch_all(&mut connection)
                .await;
            rows.unwrap()
                .into_iter()
                .map(|row| row.get::<String, _>(0))
                .collect::<Vec<_>>()
        };
        let copy = folder.path().join("batwa.db.before-upgrade-from-1");
        assert!(!tables(&copy).await.contains(&"agents".to_owned()));
        assert!(tables(&file).await.contains(&"agents".to_owned()));
        let mut connection = raw(&copy, false).await;
        let kept: String = sqlx::query_scalar("SELECT value FROM settings")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(kept, "yes");
    }

    #[tokio::test]
    async fn what_is_written_survives_a_power_cut() {
        let (folder, _) = folder();
        let store = Store::open(folder.path(), None).await.unwrap();
        let Db::Sqlite(pool) = store.db() else {
            unreachable!("there is no URL")
        };
        for (pragma, expected) in [
            ("PRAGMA journal_mode", "wal"),
            ("PRAGMA synchronous", "2"),
            ("PRAGMA foreign_keys", "1"),
        ] {
            let row = sqlx::query(pragma).fetch_one(pool).await.unwrap();
            let value = row
                .try_get::<String, _>(0)
                .or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string()));
            assert_eq!(value.unwrap(), expected, "{pragma}");
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_called_that_and_forgotten_when_there_is_room_again() {
        let (folder, _) = folder();
        let store = Store::open(folder.path(), None).await.unwrap();
        let Db::Sqlite(pool) = store.db() else {
            unreachable!("there is no URL")
        };
        let mut all = Vec::new();
        for _ in 0..SQLITE_CONNECTIONS {
            let mut connection = pool.acquire().await.unwrap();
            // SQLite's own stand-in for a disk without room, for this connection.
            sqlx::raw_sql("PRAGMA max_page_count = 1")
                .execute(&mut *connection)
                .await
                .unwrap();
            all.push(connection);
        }
        drop(all);
        let write = async || {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("INSERT INTO settings (name, value) VALUES ('big', $1)")
                .bind("x".repeat(1 << 20))
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        };
        for _ in 0..SQLITE_CONNECTIONS {
            let error = StoreError::from(write().await.unwrap_err());
            assert!(matches!(error, StoreError::Full(_)), "{error:?}");
        }
        // The connections of then are gone, and with them their limit.
        write().await.unwrap();
    }
}
