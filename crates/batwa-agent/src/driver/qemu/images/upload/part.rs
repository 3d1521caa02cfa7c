//! The content of an upload as it comes in: who writes to it, and what is kept of it when it is cut off.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use batwa_api::{file::UploadId, image::ImageName, size::ByteSize};
use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::{super::lock, files, refused};
use crate::driver::{DriverError, Upload};

/// Most uploads under way at the same time: each takes disk space that nobody sees yet.
const AT_ONCE: usize = 4;
/// How long nothing may come before an upload counts as cut off.
const IDLE: Duration = Duration::from_secs(60);
/// How long an upload that was cut off is waited for until nobody writes to it any more.
const SETTLE: Duration = Duration::from_secs(20);
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// The uploads under way: the names that they take, which nobody else may use meanwhile, and what they go on with.
#[derive(Debug, Default)]
pub(in super::super) struct Uploads(Arc<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    names: Mutex<BTreeMap<ImageName, Option<UploadId>>>,
    freed: Notify,
}

/// A name that is an upload's until the last write of it is done, whoever waits for that.
pub(super) struct Reserved {
    under_way: Arc<UnderWay>,
    name: ImageName,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.under_way.names).remove(&self.name);
        self.under_way.freed.notify_waiters();
    }
}

impl Uploads {
    /// Reserves a name, once nobody writes to the upload any more that is to be gone on with.
    pub(super) async fn reserve(
        &self,
        name: &ImageName,
        part: Option<&UploadId>,
    ) -> Result<Arc<Reserved>, DriverError> {
        if let Some(part) = part {
            self.settled(part).await?;
        }
        let mut names = lock(&self.0.names);
        let written = |other: &Option<UploadId>| part.is_some() && other.as_ref() == part;
        if names.values().any(written) {
            return Err(still_written());
        }
        if names.contains_key(name) {
            return Err(DriverError::ImageTaken(name.clone()));
        }
        if names.len() >= AT_ONCE {
            return Err(DriverError::IllegalState(format!(
                "{AT_ONCE} images are being uploaded to this machine already: wait for one of them"
            )));
        }
        names.insert(name.clone(), part.cloned());
        Ok(Arc::new(Reserved {
            under_way: Arc::clone(&self.0),
            name: name.clone(),
        }))
    }

    /// Waits until nobody writes to an upload.
    pub(super) async fn settled(&self, part: &UploadId) -> Result<(), DriverError> {
        let until = Instant::now() + SETTLE;
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // From here on no end is missed.
            freed.as_mut().enable();
            let written = |other: &Option<UploadId>| other.as_ref() == Some(part);
            if !lock(&self.0.names).values().any(written) {
                return Ok(());
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(still_written());
            }
        }
    }
}

fn not_whole(came: u64, size: ByteSize) -> DriverError {
    DriverError::IllegalState(format!(
        "the image is not whole yet: {came} of {} bytes are there",
        size.as_u64()
    ))
}

fn still_written() -> DriverError {
    DriverError::IllegalState("this upload is still being written to: wait a moment".to_owned())
}

/// Where an upload is written, with what its bytes come to.
struct Sink {
    file: File,
    sum: Sha256,
}

impl Sink {
    /// A file that begins with the first `offset` bytes of what it held. Blocks.
    fn open(path: &Path, offset: u64) -> Result<Self, DriverError> {
        let failed = |error: io::Error| files::io_error("write", path, &error);
        let mut sum = Sha256::new();
        if offset == 0 {
            let file = files::create(path).map_err(failed)?;
            return Ok(Self { file, sum });
        }
        let opened = File::options().read(true).write(true).open(path);
        let held = opened.as_ref().ok().and_then(|file| file.metadata().ok());
        let held = held.map_or(0, |held| held.len());
        let mut file = match opened {
            Ok(file) if held >= offset => file,
            _ => {
                return Err(DriverError::IllegalState(format!(
                    "{held} bytes of this upload are kept, so that it cannot go on at {offset}: ask how many there are, and go on there"
                )));
            }
        };
        // What was written last may be half of what was sent.
        file.set_len(offset).map_err(failed)?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece).map_err(failed)? {
                0 => break,
                n => sum.update(&piece[..n]),
            }
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file, sum })
    }

    fn take(mut self, piece: &Bytes) -> (Self, io::Result<()>) {
        self.sum.update(piece);
        let written = self.file.write_all(piece);
        (self, written)
    }
}

/// Writes the content down, after what is kept of it; the SHA-256 of all. What has come of an upload with a name is on
/// the disk also when it is cut off.
pub(super) async fn receive(
    upload: Upload,
    path: &Path,
    reserved: &Arc<Reserved>,
) -> Result<String, DriverError> {
    let Upload {
        size,
        part,
        mut content,
    } = upload;
    let before = part.as_ref().map_or(0, |part| part.offset);
    let failed = |error: io::Error| files::io_error("write", path, &error);
    let place = path.to_owned();
    let mut sink = blocking(move || Sink::open(&place, before)).await??;
    let mut came = before;
    let cut = |came: u64, why: &str| {
        let kept = match part {
            Some(_) => format!("the first {came} bytes are kept, to be gone on with"),
            None => "nothing of it is kept".to_owned(),
        };
        DriverError::failed(format!("the upload was cut off: {why}; {kept}"))
    };
    let ended = loop {
        let piece = match timeout(IDLE, content.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => break Err(cut(came, &error.to_string())),
            // A piece that came whole is no cut: that is what an upload's name is for.
            Ok(None) if came < size.as_u64() && part.is_some() => {
                break Err(not_whole(came, size));
            }
            Ok(None) if came < size.as_u64() => {
                let missing = ByteSize::bytes(size.as_u64() - came);
                break Err(cut(came, &format!("{missing} missing")));
            }
            Ok(None) => break Ok(()),
            Err(_) => break Err(cut(came, &format!("nothing came for {} s", IDLE.as_secs()))),
        };
        if came + piece.len() as u64 > size.as_u64() {
            break Err(refused(format!(
                "more came than the {size} that were announced"
            )));
        }
        let length = piece.len() as u64;
        let written;
        let until_written = Arc::clone(reserved);
        (sink, written) = blocking(move || {
            let taken = sink.take(&piece);
            drop(until_written);
            taken
        })
        .await?;
        if let Err(error) = written {
            break Err(failed(error));
        }
        came += length;
    };
    let Sink { file, sum } = sink;
    let synced = blocking(move || file.sync_all()).await?;
    ended?;
    synced.map_err(failed)?;
    Ok(hex::encode(sum.finalize()))
}

/// Work that blocks, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DriverError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DriverError::failed(format!("writing broke off: {error}")))
}
