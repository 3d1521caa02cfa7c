//! A PostgreSQL server of the tests' own, in a temporary folder, reached by a socket there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::Instant;

use super::Store;

/// Set to `require`, a missing server is an error rather than a reason to skip: CI sets it.
const WANTED: &str = "BATWA_TEST_POSTGRES";

/// A running server; dropping it stops it.
pub(crate) struct Postgres {
    folder: TempDir,
    server: Child,
}

impl Postgres {
    /// Starts one; `None`, and a line that says so, where no server is installed.
    pub(crate) async fn start() -> Option<Self> {
        let Some(programs) = find_programs() else {
            assert!(
                std::env::var(WANTED).as_deref() != Ok("require"),
                "no PostgreSQL server under /usr/lib/postgresql, and {WANTED}=require"
            );
            eprintln!(
                "SKIPPED: no PostgreSQL server under /usr/lib/postgresql (apt-get install postgresql)"
            );
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("batwa-pg")
            .tempdir()
            .unwrap();
        let user = other_user();
        if let Some(user) = user {
            run(command("chown").arg(user).arg(folder.path()));
        }
        let data = folder.path().join("data");
        let mut initdb = command_as(user, &programs.join("initdb"));
        initdb
            .args([
                "-U",
                "batwa",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data);
        run(&mut initdb);
        let mut server = command_as(user, &programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        server.args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=200",
        ]);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().unwrap();
        let postgres = Self { folder, server };
        postgres.answer().await;
        Some(postgres)
    }

    /// An empty store in a database of its own.
    pub(crate) async fn store(&self, database: &str) -> Store {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let create = format!("CREATE DATABASE \"{database}\"");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        let url = self.url(database).parse().unwrap();
        Store::open(self.folder.path(), Some(&url)).await.unwrap()
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&user=batwa",
            self.folder.path().display()
        )
    }

    async fn answer(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = PgConnection::connect(&self.url("postgres")).await {
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not start: {error}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: at once, with all its children.
        if let Some(pid) = rustix::process::Pid::from_raw(self.server.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}

/// The folder of the newest server's programs.
fn find_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions
        .filter_map(|version| version.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()?;
    let programs = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
    programs.join("initdb").exists().then_some(programs)
}

/// Who runs the server: it refuses to be root's.
fn other_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then(|| {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if users.lines().any(|line| line.starts_with("postgres:")) {
            "postgres"
        } else {
            "nobody"
        }
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own server, not a driver's child"
)]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// Runs as `user`, and dies with the thread of the test that started it.
fn command_as(user: Option<&str>, program: &Path) -> Command {
    let mut command = command("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some(user) = user {
        command
            .arg(format!("--reuid={user}"))
            .args(["--regid=nogroup", "--clear-groups"]);
    }
    command.arg("--").arg(program).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
