//! Folders as tar, packed and unpacked here. The library that does it blocks, so it has a thread of its own.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::Response;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    commands::sending::{Meter, io_failure},
    failure::{Exit, Failure},
};

/// Pieces between thread and connection: back-pressure beyond these.
const PIECES: usize = 4;
/// Bytes that go to the connection at once.
const PIECE: usize = 64 << 10;

/// Why a folder did not come.
pub(super) enum Broken {
    /// The connection.
    There(reqwest::Error),
    /// The files here.
    Here(io::Error),
}

/// What is in a folder, as tar; and how the packing ended.
pub(super) fn pack(
    path: &Path,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + use<>,
    impl Future<Output = Result<(), Failure>> + use<>,
) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let path = path.to_owned();
    let folder = path.clone();
    let packing = tokio::task::spawn_blocking(move || pack_into(&folder, sender));
    let content = stream::unfold(receiver, async |mut receiver| {
        let piece: Option<io::Result<Bytes>> = receiver.recv().await;
        piece.map(|piece| (piece, receiver))
    });
    (content, ended(path, packing))
}

async fn ended(path: PathBuf, packing: JoinHandle<io::Result<()>>) -> Result<(), Failure> {
    match packing.await {
        Ok(Ok(())) => Ok(()),
        // The other side went first, and says why.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ok(Err(error)) => Err(io_failure("pack", &path, &error)),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

fn pack_into(folder: &Path, sender: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let told = sender.clone();
    let packed = || {
        let out = io::BufWriter::with_capacity(PIECE, Pieces(sender));
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        archive.append_dir_all(".", folder)?;
        archive.into_inner()?.flush()
    };
    let result = packed();
    if let Err(error) = &result {
        // A body that breaks off, so that half a folder is not taken for a whole one.
        let broken = io::Error::new(error.kind(), error.to_string());
        let _ = told.blocking_send(Err(broken));
    }
    result
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks a tar that comes; nothing is written outside of `target`.
pub(super) async fn unpack(
    mut answer: Response,
    target: &Path,
    meter: &mut Meter,
) -> Result<(), Broken> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let folder = target.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        let mut archive = tar::Archive::new(Coming {
            receiver,
            rest: Bytes::new(),
        });
        archive.set_preserve_permissions(true);
        archive.unpack(&folder)
    });
    let mut came = 0;
    let moved = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => {
                came += piece.len() as u64;
                meter.at(came);
                if sender.send(piece).await.is_err() {
                    // It has all it wants, or says why not.
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let unpacked = unpacking
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    moved.map_err(Broken::There)?;
    unpacked.map_err(Broken::Here)
}

struct Coming {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}
