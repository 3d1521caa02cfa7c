//! A file on its way to or from a machine: its checksum, its bytes from a place on, how far it is, and when to give up.

use std::{
    io::SeekFrom,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_api::size::ByteSize;
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeekExt},
    time::{Instant, interval, sleep},
};

use crate::{
    failure::{Exit, Failure, chain},
    output::{Progress, ProgressLine},
};

/// How long to try to come back after a cut, since something last moved.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Between tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A file here, as it was when the transfer began.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
    /// Its permissions.
    pub(super) mode: u32,
    /// Its checksum as a header has it.
    pub(super) digest: String,
}

impl Source {
    /// What comes when it is sent from `offset` on, as `Content-Range` has it.
    pub(super) fn range_from(&self, offset: u64) -> String {
        let size = self.size;
        match offset < size {
            true => format!("bytes {offset}-{}/{size}", size - 1),
            // Nothing is left to send, but its place is still to be taken.
            false => format!("bytes */{size}"),
        }
    }
}

/// Reads a file once, for its size and checksum.
pub(super) async fn look(path: &Path) -> Result<Source, Failure> {
    let cannot = |error: std::io::Error| io_failure("read", path, &error);
    let mut file = File::open(path).await.map_err(cannot)?;
    let data = file.metadata().await.map_err(cannot)?;
    if !data.is_file() {
        return Err(Failure::usage(format!("`{}` is no file", path.display())));
    }
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; PIECE];
    loop {
        let n = file.read(&mut buffer).await.map_err(cannot)?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        size += n as u64;
    }
    Ok(Source {
        path: path.to_owned(),
        size,
        mode: data.permissions().mode() & 0o7777,
        digest: format!("sha-256=:{}:", STANDARD.encode(sum.finalize())),
    })
}

/// A file's content from `offset` on, counted as it is taken.
pub(super) fn content(
    path: PathBuf,
    offset: u64,
    came: Arc<AtomicU64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::try_unfold(None, move |open: Option<File>| {
        let (path, came) = (path.clone(), Arc::clone(&came));
        async move {
            let mut file = match open {
                Some(file) => file,
                None => {
                    let mut file = File::open(&path).await?;
                    file.seek(SeekFrom::Start(offset)).await?;
                    file
                }
            };
            let piece = read_piece(&mut file).await?;
            came.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok((!piece.is_empty()).then_some((piece, Some(file))))
        }
    })
}

/// What can be read at once; nothing at the end.
pub(super) async fn read_piece(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut buffer = vec![0; PIECE];
    let n = from.read(&mut buffer).await?;
    buffer.truncate(n);
    Ok(buffer.into())
}

/// Whether trying again may help.
pub(super) fn is_cut(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503 | 504)
}

/// Counts what moves, shows it, and says when to give up.
pub(super) struct Meter {
    line: ProgressLine,
    name: String,
    /// How many bytes are to come, once that is known.
    pub(super) total: Option<u64>,
    shown: Instant,
    began: Instant,
    first: Option<u64>,
    moved: Instant,
}

impl Meter {
    /// One for what is called so, of which so many bytes are to come where that is known.
    pub(super) fn new(name: &str, total: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            line: ProgressLine::new(),
            name: name.to_owned(),
            total,
            shown: now,
            began: now,
            first: None,
            moved: now,
        }
    }

    /// So many bytes are there now.
    pub(super) fn at(&mut self, bytes: u64) {
        const EVERY: Duration = Duration::from_millis(200);
        let now = Instant::now();
        let first = *self.first.get_or_insert(bytes);
        self.moved = now;
        if now.duration_since(self.shown) < EVERY {
            return;
        }
        self.shown = now;
        let seconds = now.duration_since(self.began).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = bytes.saturating_sub(first) as f64 / seconds / f64::from(1 << 20);
        let done = ByteSize::bytes(bytes);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let progress = match self.total.filter(|total| *total > 0) {
            Some(total) => Progress {
                words: self.name.clone(),
                percent: Some(bytes as f64 * 100.0 / total as f64),
                figures: format!("({done} of {}, {rate:.1} MB/s)", ByteSize::bytes(total)),
            },
            None => Progress {
                words: self.name.clone(),
                percent: None,
                figures: format!("({done}, {rate:.1} MB/s)"),
            },
        };
        self.line.show(&progress);
    }

    /// Waits for an answer, and shows meanwhile how much has `came`.
    pub(super) async fn follow<T>(
        &mut self,
        answer: impl Future<Output = T>,
        came: &AtomicU64,
    ) -> T {
        const LOOK: Duration = Duration::from_millis(250);
        tokio::pin!(answer);
        let mut tick = interval(LOOK);
        let mut last = came.load(Ordering::Relaxed);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = tick.tick() => {
                    let now = came.load(Ordering::Relaxed);
                    if now != last {
                        last = now;
                        self.at(now);
                    }
                }
            }
        }
    }

    /// After a cut: waits a little, or gives up with `why`.
    pub(super) async fn again(&mut self, why: Failure) -> Result<(), Failure> {
        if self.moved.elapsed() > PATIENCE {
            self.line.clear();
            return Err(why);
        }
        let words = format!("{}: cut off, going on", self.name);
        self.line.show(&Progress::words(words));
        sleep(PAUSE).await;
        Ok(())
    }

    /// It is over; what was shown goes.
    pub(super) fn done(&mut self) {
        self.line.clear();
    }
}

/// A failure of something here.
pub(super) fn io_failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("cannot {what} `{}`: {}", path.display(), chain(error)),
    )
}
