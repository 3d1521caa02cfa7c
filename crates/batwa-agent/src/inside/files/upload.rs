//! Into a VM: files, gone on with where they were cut off, and folders as tar.

use std::sync::Arc;

use batwa_api::{
    exec::ExecEnd,
    file::{UploadId, WrittenFile},
    name::VmName,
    problem::{Problem, ProblemCode},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedMutexGuard, oneshot},
    time::timeout,
};

use super::{IDLE, Job, SETTLE, flag, odd, start, stood_still, take_all, why_not, work};
use crate::{
    driver::inside::Exec,
    inside::{Inside, scripts},
};

/// How a file is to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writing {
    /// Keeps what came when it is cut off, to be gone on with.
    pub(crate) upload: Option<UploadId>,
    /// Where what comes now begins.
    pub(crate) offset: u64,
    /// How long the file is, where that is known.
    pub(crate) total: Option<u64>,
    /// Permissions, in octal.
    pub(crate) mode: Option<String>,
    /// Its checksum, where that is known.
    pub(crate) sha256: Option<String>,
    /// Make folders that are missing.
    pub(crate) parents: bool,
}

impl Inside {
    /// How much of an upload the VM holds.
    pub(crate) async fn upload_offset(
        &self,
        vm: &VmName,
        path: &str,
        upload: &UploadId,
    ) -> Result<u64, Problem> {
        let (job, _place) = self.job(vm, path)?;
        let _turn = self.turn(vm, upload).await?;
        let line = work(&job, scripts::HELD, &[upload.as_str()]).await?;
        line.trim().parse().map_err(|_| odd(&job))
    }

    /// Writes a file. The work goes on by itself until what came has reached the VM, whoever drops this.
    pub(crate) async fn write_file(
        self: &Arc<Self>,
        vm: VmName,
        path: String,
        writing: Writing,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<WrittenFile, Problem> {
        let inside = Arc::clone(self);
        self.owned(async move { inside.put_file(&vm, &path, writing, body).await })
            .await
    }

    /// Unpacks tar into a folder. As [`Self::write_file`].
    pub(crate) async fn write_folder(
        self: &Arc<Self>,
        vm: VmName,
        path: String,
        parents: bool,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<WrittenFile, Problem> {
        let inside = Arc::clone(self);
        self.owned(async move {
            let (job, _place) = inside.job(&vm, &path)?;
            let exec = start(&job, scripts::UNPACK, &[flag(parents)]).await?;
            take_in(&job, exec, body).await?;
            Ok(WrittenFile {
                path,
                size: None,
                sha256: None,
            })
        })
        .await
    }

    async fn put_file(
        &self,
        vm: &VmName,
        path: &str,
        writing: Writing,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    ) -> Result<WrittenFile, Problem> {
        let (job, _place) = self.job(vm, path)?;
        let resumable = writing.upload.is_some();
        let upload = writing.upload.unwrap_or_else(UploadId::random);
        let id = upload.as_str();
        let _turn = self.turn(vm, &upload).await?;
        let (offset, parents) = (writing.offset.to_string(), flag(writing.parents));
        let exec = start(&job, scripts::WRITE, &[id, &offset, parents]).await?;
        let moved = take_in(&job, exec, body).await;
        let discard = async {
            if !resumable {
                let _ = work(&job, scripts::DISCARD, &[id]).await;
            }
        };
        let came = match moved {
            Ok(came) => came,
            Err(problem) => {
                discard.await;
                return Err(problem);
            }
        };
        if let Some(total) = writing.total
            && writing.offset + came < total
        {
            // A part of a file is kept until the rest has come; that is what an upload's id is for.
            discard.await;
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!(
                    "`{path}` is not whole yet: {} of {total} bytes are there",
                    writing.offset + came
                ),
            ));
        }
        let size = writing
            .total
            .map_or_else(String::new, |total| total.to_string());
        let mode = writing.mode.as_deref().unwrap_or_default();
        let sha256 = writing.sha256.as_deref().unwrap_or_default();
        let finished = work(&job, scripts::FINISH, &[id, &size, mode, sha256]).await;
        if finished.is_err() {
            discard.await;
        }
        let line = finished?;
        let (size, sha256) = line.trim().split_once(' ').ok_or_else(|| odd(&job))?;
        Ok(WrittenFile {
            path: path.to_owned(),
            size: size.parse().ok(),
            sha256: Some(sha256.to_owned()),
        })
    }

    /// Work that is not cut off with the request that asked for it.
    async fn owned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (done, result) = oneshot::channel();
        self.tasks.spawn(async move {
            // Nobody listens when the caller went.
            let _ = done.send(work.await);
        });
        result.await.unwrap_or_else(|_| {
            Err(Problem::new(
                ProblemCode::Internal,
                "the transfer broke off; the agent's log says more",
            ))
        })
    }

    /// Waits until nothing writes to this upload any more.
    async fn turn(&self, vm: &VmName, upload: &UploadId) -> Result<OwnedMutexGuard<()>, Problem> {
        let lock = self.upload_lock(vm, upload);
        timeout(SETTLE * 2, lock.lock_owned()).await.map_err(|_| {
            Problem::new(
                ProblemCode::Conflict,
                format!("the upload `{}` is still being written to", upload.as_str()),
            )
        })
    }
}

/// Hands a body to a script, waits for its end, and says how many bytes came.
async fn take_in(
    job: &Job<'_>,
    exec: Exec,
    mut body: impl Stream<Item = std::io::Result<Bytes>> + Unpin,
) -> Result<u64, Problem> {
    let Exec {
        mut stdin,
        mut stdout,
        mut stderr,
        mut exit,
        life,
        ..
    } = exec;
    let (mut heard, mut said) = (Vec::new(), Vec::new());
    let mut came = 0_u64;
    let give = async {
        loop {
            let piece = match timeout(IDLE, body.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(None) => break None,
                Ok(Some(Err(_))) => {
                    break Some(Problem::new(
                        ProblemCode::Malformed,
                        format!("the content of `{}` was cut off", job.path),
                    ));
                }
                Err(_) => break Some(stood_still(job, IDLE)),
            };
            if piece.is_empty() {
                continue;
            }
            match timeout(IDLE, stdin.write_all(&piece)).await {
                Ok(Ok(())) => came += piece.len() as u64,
                // It ended; its status says why.
                Ok(Err(_)) => break None,
                Err(_) => break Some(stood_still(job, IDLE)),
            }
        }
    };
    let listen = async {
        tokio::join!(
            take_all(&mut stdout, &mut heard),
            take_all(&mut stderr, &mut said)
        );
    };
    let mut ended = None;
    let cut = {
        tokio::pin!(give, listen);
        let mut listening = true;
        loop {
            tokio::select! {
                cut = &mut give => break cut,
                () = &mut listen, if listening => listening = false,
                // A script that has ended takes no more: what its caller still sends is not waited for.
                end = &mut exit => { ended = end.ok(); break None }
            }
        }
    };
    let end = match ended {
        Some(end) => Some(end),
        None => {
            // The end of its input is the end of its work; only then may another begin.
            let settle = async {
                stdin.shutdown().await.ok();
                drop(stdin);
                let ((), end) = tokio::join!(
                    async {
                        tokio::join!(
                            take_all(&mut stdout, &mut heard),
                            take_all(&mut stderr, &mut said)
                        );
                    },
                    &mut exit
                );
                end.ok()
            };
            let patience = if cut.is_some() { SETTLE } else { IDLE };
            timeout(patience, settle).await.ok().flatten()
        }
    };
    drop(life);
    match (cut, end) {
        (Some(problem), _) => Err(problem),
        (None, Some(ExecEnd { code: Some(0), .. })) => Ok(came),
        (None, end) => Err(why_not(job, end.as_ref(), &said)),
    }
}
