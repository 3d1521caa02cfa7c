//! Files of a VM, read and written by scripts that run in it ([`super::scripts`]): one way that works wherever
//! commands do, with no server in the VM that would have to be there.
//!
//! A file is written to a part beside its place, and takes its place when it is whole and its checksum right; so nobody
//! inside sees half of one, and an upload that was cut off is gone on with. What moves has an owner that outlives its
//! request: a cut must have reached the VM before the next try begins.

mod download;
mod upload;

use std::{sync::Arc, time::Duration};

use batwa_api::{
    exec::{ExecCommand, ExecEnd},
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
    vm::VmAction,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

pub(crate) use self::{
    download::{Reading, Wanted},
    upload::Writing,
};
use super::{Inside, Place, scripts::code, within};
use crate::driver::{Driver, inside::Exec};

/// How long a transfer may stand still, whoever is the reason.
const IDLE: Duration = Duration::from_secs(120);
/// How long an upload that was cut off may take to end inside.
const SETTLE: Duration = Duration::from_secs(15);
/// How long a script may take that moves no content: a checksum of a large file on a slow disk.
const WORK: Duration = Duration::from_secs(30 * 60);
/// Longest line that a script prints, and how much of its complaints is kept.
const LINE: usize = 4096;

/// A script, its VM and its path.
struct Job<'a> {
    vm: &'a VmName,
    path: &'a str,
    /// The path as the VM's programs take it.
    inner: String,
    driver: Arc<dyn Driver>,
}

impl Inside {
    fn job<'a>(&self, vm: &'a VmName, path: &'a str) -> Result<(Job<'a>, Place), Problem> {
        if path.is_empty() || path.len() > 4096 || path.contains('\0') {
            return Err(Problem::invalid_fields(vec![FieldError::new(
                "path",
                "name a file or folder in the VM, in at most 4096 bytes",
            )]));
        }
        let (driver, place) = self.enter(vm, VmAction::Shell, "reach files of")?;
        let inner = driver
            .path_inside(vm, path)
            .map_err(|error| crate::operations::error_of(&error).to_problem())?;
        let job = Job {
            vm,
            path,
            inner,
            driver,
        };
        Ok((job, place))
    }
}

/// Starts a script with the path and more as its arguments.
async fn start(job: &Job<'_>, script: &str, arguments: &[&str]) -> Result<Exec, Problem> {
    let argv = ["sh", "-c", script, "batwa", &job.inner]
        .into_iter()
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect();
    let command = ExecCommand {
        argv,
        ..ExecCommand::default()
    };
    within(job.vm, job.driver.exec(job.vm, &command)).await
}

/// Runs a script to its end and gives the line that it prints.
async fn work(job: &Job<'_>, script: &str, arguments: &[&str]) -> Result<String, Problem> {
    let mut exec = start(job, script, arguments).await?;
    let work = async {
        exec.end_input().await;
        let (mut line, mut said) = (Vec::new(), Vec::new());
        tokio::join!(
            take_all(&mut exec.stdout, &mut line),
            take_all(&mut exec.stderr, &mut said)
        );
        let end = (&mut exec.exit).await;
        match end {
            Ok(ExecEnd { code: Some(0), .. }) => Ok(String::from_utf8_lossy(&line).into_owned()),
            end => Err(why_not(job, end.ok().as_ref(), &said)),
        }
    };
    timeout(WORK, work)
        .await
        .unwrap_or_else(|_| Err(stood_still(job, WORK)))
}

/// Reads to the end and keeps the beginning.
async fn take_all(from: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = LINE.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}

fn odd(job: &Job<'_>) -> Problem {
    Problem::new(
        ProblemCode::AgentFailed,
        format!(
            "what VM `{}` said of `{}` makes no sense: it may lack `stat` or `sha256sum`",
            job.vm, job.path
        ),
    )
}

fn stood_still(job: &Job<'_>, patience: Duration) -> Problem {
    Problem::new(
        ProblemCode::Timeout,
        format!(
            "the transfer of `{}` stood still for {} s",
            job.path,
            patience.as_secs()
        ),
    )
}

/// Why a script did not do its work.
fn why_not(job: &Job<'_>, end: Option<&ExecEnd>, said: &[u8]) -> Problem {
    let Job { vm, path, .. } = job;
    let said = String::from_utf8_lossy(said);
    let field = |message: String| Problem::invalid_fields(vec![FieldError::new("path", message)]);
    let problem = |code, text: String| Problem::new(code, text);
    if said.contains("No space left") || said.contains("Disk quota exceeded") {
        return problem(
            ProblemCode::StorageFull,
            format!(
                "no space is left in VM `{vm}` for `{path}`: free some, or give it a larger disk"
            ),
        );
    }
    match end.and_then(|end| end.code) {
        Some(code::NO_FILE) => problem(
            ProblemCode::NotFound,
            format!("there is no file `{path}` in VM `{vm}`"),
        ),
        Some(code::IS_FOLDER) => field(format!(
            "`{path}` is a folder: move it as an archive (`archive=tar`, `batwa transfer -r`)"
        )),
        Some(code::NOT_ALLOWED) => problem(
            ProblemCode::PermissionDenied,
            format!("the account that shells have in VM `{vm}` may not do this with `{path}`"),
        ),
        Some(code::NO_FOLDER_AT) => field(format!("`{path}` is no folder")),
        Some(code::OFFSET) => problem(
            ProblemCode::OutOfRange,
            format!("VM `{vm}` holds another part of `{path}`: ask how much, and go on from there"),
        ),
        Some(code::SPECIAL) => field(format!("`{path}` is neither file nor folder")),
        Some(code::NO_PARENT) => problem(
            ProblemCode::NotFound,
            format!(
                "there is no folder for `{path}` in VM `{vm}`: `parents=true` (`batwa transfer -p`) makes it"
            ),
        ),
        Some(code::INCOMPLETE) => problem(
            ProblemCode::Conflict,
            format!("`{path}` did not reach VM `{vm}` whole"),
        ),
        Some(code::CHECKSUM) => problem(
            ProblemCode::Conflict,
            format!("`{path}` came to VM `{vm}` with another checksum: nothing was written"),
        ),
        Some(code) => {
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            problem(
                ProblemCode::AgentFailed,
                format!(
                    "moving `{path}` failed in VM `{vm}` with status {code}: {}",
                    last.unwrap_or("it said nothing").trim()
                ),
            )
        }
        None => problem(
            ProblemCode::AgentFailed,
            format!(
                "moving `{path}` broke off: {}",
                end.map_or("its end is not known", |end| &end.reason)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let vm = VmName::parse("web").unwrap();
        let job = Job {
            vm: &vm,
            path: "/srv/x",
            inner: String::new(),
            driver: Arc::new(
                crate::driver::fake::FakeDriver::open(
                    tempfile::tempdir().unwrap().path(),
                    crate::FakeSettings::instant(),
                )
                .unwrap(),
            ),
        };
        let code = |code: i32, said: &str| {
            why_not(&job, Some(&ExecEnd::exited(code)), said.as_bytes()).code
        };
        assert_eq!(code(code::NO_FILE, ""), ProblemCode::NotFound);
        assert_eq!(code(code::NOT_ALLOWED, ""), ProblemCode::PermissionDenied);
        assert_eq!(
            code(1, "cat: write error: No space left on device"),
            ProblemCode::StorageFull
        );
        assert_eq!(code(2, "tar: damaged"), ProblemCode::AgentFailed);
    }
}
