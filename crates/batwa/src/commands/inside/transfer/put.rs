//! Into a VM.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use batwa_api::file::{UploadId, WrittenFile, header};
use futures_util::stream;
use reqwest::{Body, Method, Response};
use sha2::{Digest, Sha256};

use super::{How, Kind, Place, Remote, folder};
use crate::{
    commands::sending::{Meter, Source, content, is_cut, look, read_piece},
    failure::{Exit, Failure},
};

pub(super) async fn put(source: &Place, remote: Remote<'_>, how: How) -> Result<(), Failure> {
    match source {
        Place::Here(path) if path.is_dir() => {
            if !how.recursive {
                return Err(Failure::usage(format!("`{}` is a folder", path.display()))
                    .hint("`-r` transfers folders"));
            }
            let target = target(&remote, path, how).await?;
            put_folder(
                path,
                Remote {
                    path: target,
                    ..remote
                },
                how,
            )
            .await
        }
        Place::Here(path) => {
            let target = target(&remote, path, how).await?;
            put_file(
                path,
                &Remote {
                    path: target,
                    ..remote
                },
                how,
            )
            .await
        }
        _ => put_pipe(&remote, how).await,
    }
}

/// Where exactly it goes: into a folder that is there, under its own name.
async fn target(remote: &Remote<'_>, source: &Path, how: How) -> Result<String, Failure> {
    let name = source
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_else(|| "file".to_owned());
    if remote.path.ends_with('/') || remote.path == "." {
        return Ok(remote.join(&name));
    }
    match remote.kind().await? {
        Kind::Folder => Ok(remote.join(&name)),
        Kind::File | Kind::Nothing if how.several => Err(Failure::usage(format!(
            "`{}` is no folder in VM `{}`, but there are several files",
            remote.path, remote.vm
        ))),
        Kind::File | Kind::Nothing => Ok(remote.path.clone()),
    }
}

async fn put_file(path: &Path, remote: &Remote<'_>, how: How) -> Result<(), Failure> {
    let source = look(path).await?;
    let upload = UploadId::random();
    let mut meter = Meter::new(&path.display().to_string(), Some(source.size));
    let mut offset = 0;
    loop {
        let sent = send(&source, remote, how, &upload, offset, &mut meter).await;
        let cut = match sent {
            Ok(answer) if answer.status().is_success() => {
                meter.done();
                return Ok(());
            }
            Ok(answer) if is_cut(answer.status()) => remote.refusal(answer).await,
            Ok(answer) => {
                meter.done();
                return Err(remote.refusal(answer).await);
            }
            Err(error) => remote.client.unreachable(error),
        };
        meter.again(cut).await?;
        // Where to go on; not to be reached yet is asked again by the next try.
        let query = [("upload", upload.as_str())];
        if let Ok(answer) = remote.request(Method::HEAD, &query).send().await {
            let held = answer.headers().get(header::UPLOAD_OFFSET);
            offset = held
                .and_then(|held| held.to_str().ok()?.parse().ok())
                .unwrap_or(0)
                .min(source.size);
        }
    }
}

async fn send(
    source: &Source,
    remote: &Remote<'_>,
    how: How,
    upload: &UploadId,
    offset: u64,
    meter: &mut Meter,
) -> Result<Response, reqwest::Error> {
    let mode = format!("{:03o}", source.mode);
    let mut query = vec![("upload", upload.as_str()), ("mode", &mode)];
    if how.parents {
        query.push(("parents", "true"));
    }
    let came = Arc::new(AtomicU64::new(offset));
    let content = content(source.path.clone(), offset, Arc::clone(&came));
    let request = remote
        .request(Method::PUT, &query)
        .header("content-range", source.range_from(offset))
        .header(header::DIGEST, &source.digest)
        .header("content-length", source.size - offset)
        .body(Body::wrap_stream(content));
    meter.follow(request.send(), &came).await
}

/// Standard input: it cannot be read again, so a cut is the end.
async fn put_pipe(remote: &Remote<'_>, how: How) -> Result<(), Failure> {
    let sum = Arc::new(std::sync::Mutex::new(Sha256::new()));
    let summed = Arc::clone(&sum);
    let content = stream::try_unfold(tokio::io::stdin(), move |mut stdin| {
        let sum = Arc::clone(&summed);
        async move {
            let piece = read_piece(&mut stdin).await?;
            if let Ok(mut sum) = sum.lock() {
                sum.update(&piece);
            }
            Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, stdin)))
        }
    });
    let mut query = Vec::new();
    if how.parents {
        query.push(("parents", "true"));
    }
    let request = remote
        .request(Method::PUT, &query)
        .body(Body::wrap_stream(content));
    let answer = request
        .send()
        .await
        .map_err(|error| remote.client.unreachable(error))?;
    if !answer.status().is_success() {
        return Err(remote.refusal(answer).await);
    }
    let written: WrittenFile = answer
        .json()
        .await
        .map_err(|error| remote.client.unreachable(error))?;
    let here = sum
        .lock()
        .map(|sum| hex::encode(sum.clone().finalize()))
        .unwrap_or_default();
    if written.sha256.as_deref() == Some(here.as_str()) {
        Ok(())
    } else {
        Err(Failure::new(
            Exit::Failed,
            format!(
                "`{}` has another checksum in the VM than what was sent",
                remote.path
            ),
        ))
    }
}

async fn put_folder(path: &Path, remote: Remote<'_>, how: How) -> Result<(), Failure> {
    let mut query = vec![("archive", "tar")];
    if how.parents {
        query.push(("parents", "true"));
    }
    let (content, packing) = folder::pack(path);
    let sent = remote
        .request(Method::PUT, &query)
        .body(Body::wrap_stream(content))
        .send()
        .await;
    // What went wrong here explains what the other side saw.
    packing.await?;
    let answer = sent.map_err(|error| remote.client.unreachable(error))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(remote.refusal(answer).await)
    }
}
