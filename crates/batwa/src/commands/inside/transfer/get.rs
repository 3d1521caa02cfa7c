//! Out of a VM.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use batwa_api::file::header;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWrite, AsyncWriteExt},
};

use super::{How, Kind, Place, Remote, digest_of, folder};
use crate::{
    client::cut,
    commands::sending::{Meter, io_failure, is_cut},
    failure::{Exit, Failure},
};

pub(super) async fn get(remote: &Remote<'_>, target: &Place, how: How) -> Result<(), Failure> {
    let Place::Here(target) = target else {
        return fetch(remote, Sink::Pipe(tokio::io::stdout()))
            .await
            .map(drop);
    };
    let name = remote.path.trim_end_matches('/').rsplit('/').next();
    let name = name.filter(|name| !matches!(*name, "" | "." | ".."));
    if how.recursive && remote.kind().await? == Kind::Folder {
        let target = match name {
            Some(name) if target.is_dir() => target.join(name),
            _ => target.clone(),
        };
        return get_folder(remote, &target).await;
    }
    let target = match name {
        Some(name) if target.is_dir() => target.join(name),
        None => {
            return Err(Failure::usage(format!("`{}` is a folder", remote.path))
                .hint("`-r` transfers folders"));
        }
        Some(_) if how.several => {
            return Err(Failure::usage(format!(
                "`{}` is no folder, but there are several files",
                target.display()
            )));
        }
        Some(_) => target.clone(),
    };
    if how.parents
        && let Some(parent) = target.parent()
    {
        std::fs::create_dir_all(parent).map_err(|error| io_failure("make", parent, &error))?;
    }
    get_file(remote, &target).await
}

/// Into a part beside the target, which takes its place when it is whole.
async fn get_file(remote: &Remote<'_>, target: &Path) -> Result<(), Failure> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let part = tempfile::Builder::new()
        .prefix(".batwa-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(|error| io_failure("write to", folder, &error))?;
    let file = part
        .reopen()
        .map_err(|error| io_failure("write", part.path(), &error))?;
    let sink = Sink::File(File::from_std(file), target.to_owned());
    let mode = fetch(remote, sink).await?;
    if let Some(mode) = mode {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(part.path(), permissions)
            .map_err(|error| io_failure("set permissions of", target, &error))?;
    }
    part.persist(target)
        .map_err(|error| io_failure("write", target, &error.error))?;
    Ok(())
}

/// Where content goes.
enum Sink {
    File(File, PathBuf),
    Pipe(tokio::io::Stdout),
}

impl Sink {
    fn writer(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        match self {
            Self::File(file, _) => file,
            Self::Pipe(stdout) => stdout,
        }
    }

    /// Begins anew, where that is possible.
    async fn restart(&mut self) -> Result<(), Failure> {
        match self {
            Self::File(file, path) => {
                let emptied = async {
                    file.set_len(0).await?;
                    file.rewind().await.map(drop)
                };
                emptied
                    .await
                    .map_err(|error| io_failure("write", path, &error))
            }
            Self::Pipe(_) => Err(Failure::new(
                Exit::Failed,
                "the file was changed while it came, and what is printed cannot be taken back",
            )),
        }
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        match self {
            Self::File(_, path) => io_failure("write", path, error),
            Self::Pipe(_) => Failure::new(
                Exit::Failed,
                format!("cannot write to standard output: {error}"),
            ),
        }
    }
}

/// Fetches a file, going on after each cut; its permissions.
async fn fetch(remote: &Remote<'_>, mut sink: Sink) -> Result<Option<u32>, Failure> {
    let mut meter = Meter::new(&remote.path, None);
    let mut sum = Sha256::new();
    let (mut came, mut tag) = (0_u64, None);
    loop {
        let mut request = remote
            .request(Method::GET, &[])
            .header(header::WANT_DIGEST, "sha-256=1");
        if let Some(tag) = &tag {
            request = request
                .header("range", format!("bytes={came}-"))
                .header("if-range", tag);
        }
        let mut answer = match request.send().await {
            Ok(answer) if answer.status().is_success() => answer,
            Ok(answer) if is_cut(answer.status()) && came > 0 => {
                meter.again(remote.refusal(answer).await).await?;
                continue;
            }
            Ok(answer) => return Err(remote.refusal(answer).await),
            Err(error) if came > 0 => {
                meter.again(remote.client.unreachable(error)).await?;
                continue;
            }
            Err(error) => return Err(remote.client.unreachable(error)),
        };
        if came > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
            // It was changed meanwhile.
            sink.restart().await?;
            sum = Sha256::new();
            came = 0;
        }
        tag = answer.headers().get("etag").cloned();
        let digest = digest_of(&answer);
        let mode = answer
            .headers()
            .get(header::MODE)
            .and_then(|mode| u32::from_str_radix(mode.to_str().ok()?, 8).ok());
        let total = answer.content_length().map(|rest| came + rest);
        meter.total = total;
        let failure = loop {
            match answer.chunk().await {
                Ok(Some(piece)) => {
                    if let Err(error) = sink.writer().write_all(&piece).await {
                        return Err(sink.failure(&error));
                    }
                    sum.update(&piece);
                    came += piece.len() as u64;
                    meter.at(came);
                }
                Ok(None) if total.is_none_or(|total| came == total) => break None,
                Ok(None) => break Some(cut()),
                Err(error) => break Some(remote.client.unreachable(error)),
            }
        };
        if let Some(failure) = failure {
            meter.again(failure).await?;
            continue;
        }
        if let Err(error) = sink.writer().flush().await {
            return Err(sink.failure(&error));
        }
        meter.done();
        let here = hex::encode(sum.finalize());
        return match digest {
            Some(there) if there != here => Err(Failure::new(
                Exit::Failed,
                format!(
                    "`{}` came with another checksum than it has in the VM",
                    remote.path
                ),
            )),
            _ => Ok(mode),
        };
    }
}

async fn get_folder(remote: &Remote<'_>, target: &Path) -> Result<(), Failure> {
    let answer = remote
        .request(Method::GET, &[("archive", "tar")])
        .send()
        .await
        .map_err(|error| remote.client.unreachable(error))?;
    if !answer.status().is_success() {
        return Err(remote.refusal(answer).await);
    }
    let mut meter = Meter::new(&remote.path, None);
    let result = folder::unpack(answer, target, &mut meter).await;
    meter.done();
    result.map_err(|error| match error {
        folder::Broken::There(error) => remote.client.unreachable(error),
        folder::Broken::Here(error) => io_failure("write", target, &error),
    })
}
