//! Commands to a running QEMU over its control socket.
//!
//! QEMU talks to one client at a time, so a connection lives for one command and nobody can keep it from others.

use std::{path::Path, time::Duration};

use qapi::{
    Command, ExecuteError,
    futures::QmpStreamTokio,
    qmp::{self, QmpCommand},
};
use tokio::{net::UnixStream, time::timeout};

use super::{
    machine::{DISK_NODE, SUSPENDED},
    record::{VmDir, file},
};

/// How long QEMU may take to answer: it answers between instructions, so only a host in trouble needs longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a job is asked whether it is done.
const JOB_POLL: Duration = Duration::from_millis(100);

/// Why a command brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// The socket is not there, or closed in the middle.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] std::io::Error),
    /// QEMU refused.
    #[error("QEMU refused: {0}")]
    Refused(String),
    /// Nothing came.
    #[error("QEMU did not answer within {} s", DEADLINE.as_secs())]
    Silent,
}

/// Presses the power button.
pub(super) async fn power_button(dir: &VmDir) -> Result<(), QmpError> {
    execute(dir, qmp::system_powerdown {}).await.map(drop)
}

/// Pulls the plug.
pub(super) async fn quit(dir: &VmDir) -> Result<(), QmpError> {
    execute(dir, qmp::quit {}).await.map(drop)
}

/// What QEMU itself says of the VM: `running`, `paused`, `io-error`, …
pub(super) async fn status(dir: &VmDir) -> Result<qmp::RunState, QmpError> {
    Ok(execute(dir, qmp::query_status {}).await?.status)
}

/// Writes memory and devices into the disk file, and says how far that is, in per cent. The VM stands still
/// meanwhile.
pub(super) async fn save_memory(
    dir: &VmDir,
    mut on_percent: impl FnMut(f64),
) -> Result<(), QmpError> {
    execute(dir, qmp::stop {}).await?;
    let save = qmp::snapshot_save {
        job_id: JOB.to_owned(),
        tag: SUSPENDED.to_owned(),
        vmstate: DISK_NODE.to_owned(),
        devices: vec![DISK_NODE.to_owned()],
    };
    job(dir, save, &mut on_percent).await
}

/// Throws away what [`save_memory`] wrote.
pub(super) async fn forget_memory(dir: &VmDir) -> Result<(), QmpError> {
    let delete = qmp::snapshot_delete {
        job_id: JOB.to_owned(),
        tag: SUSPENDED.to_owned(),
        devices: vec![DISK_NODE.to_owned()],
    };
    job(dir, delete, &mut |_| ()).await
}

/// Lets a VM that stands still go on.
pub(super) async fn go_on(dir: &VmDir) -> Result<(), QmpError> {
    execute(dir, qmp::cont {}).await.map(drop)
}

const JOB: &str = "batwa-memory";

async fn job<C>(dir: &VmDir, command: C, on_percent: &mut impl FnMut(f64)) -> Result<(), QmpError>
where
    C: Command + QmpCommand,
{
    // One of a call that was cut off may still be listed; only an ended one can be dismissed.
    let dismiss = || qmp::job_dismiss { id: JOB.to_owned() };
    let _ = execute(dir, dismiss()).await;
    execute(dir, command).await?;
    loop {
        let jobs = execute(dir, qmp::query_jobs {}).await?;
        let Some(job) = jobs.into_iter().find(|job| job.id == JOB) else {
            return Err(QmpError::Refused("the job is gone".to_owned()));
        };
        if job.total_progress > 0 {
            #[expect(
                clippy::cast_precision_loss,
                reason = "per cent for people need no precision"
            )]
            on_percent(job.current_progress as f64 * 100.0 / job.total_progress as f64);
        }
        if matches!(job.status, qmp::JobStatus::concluded) {
            execute(dir, dismiss()).await?;
            return job.error.map_or(Ok(()), |why| Err(QmpError::Refused(why)));
        }
        tokio::time::sleep(JOB_POLL).await;
    }
}

async fn execute<C>(dir: &VmDir, command: C) -> Result<C::Ok, QmpError>
where
    C: Command + QmpCommand,
{
    let talk = async {
        let stream = connect(dir.path(), file::QMP).await?;
        let stream = QmpStreamTokio::open(stream).await?.negotiate().await?;
        let (service, events) = stream.into_parts();
        let answer = service.execute(command);
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| match error {
                ExecuteError::Qapi(error) => QmpError::Refused(error.desc),
                ExecuteError::Io(error) => QmpError::Io(error),
            }),
            () = events.into_future() => {
                Err(QmpError::Io(std::io::ErrorKind::ConnectionReset.into()))
            }
        }
    };
    timeout(DEADLINE, talk)
        .await
        .unwrap_or(Err(QmpError::Silent))
}

/// Connects to the socket `name` in `dir`, also where their path is longer than a socket's may be.
pub(super) async fn connect(dir: &Path, name: &str) -> std::io::Result<UnixStream> {
    /// The shortest limit of the systems we run on, with the closing NUL.
    const LIMIT: usize = 104;
    let path = dir.join(name);
    if path.as_os_str().len() < LIMIT {
        return UnixStream::connect(path).await;
    }
    let dir = std::fs::File::open(dir)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
    UnixStream::connect(format!("/proc/self/fd/{fd}/{name}")).await
}
