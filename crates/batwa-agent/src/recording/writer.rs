//! The task that writes one recording's file.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use batwa_api::{id::RecordingId, recording::Recording, terminal::TermSize};
use tokio::{
    fs::File,
    io::AsyncWriteExt as _,
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Event,
    cast::{self, Text},
    library::Library,
};

/// Bytes of lines that are written at once.
const BATCH: usize = 64 << 10;
/// Room that is kept for the last line.
const LAST_LINE: u64 = 1 << 10;
/// What a full disk has to give back for the last line: a block, of which files are made.
const BLOCK: u64 = 4 << 10;
/// Batches whose beginnings are remembered, to cut off at one of them.
const BATCHES: usize = 64;

/// Writes one recording.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) id: RecordingId,
    pub(super) library: Arc<Library>,
    pub(super) file: File,
    pub(super) began: Instant,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) end: Arc<OnceLock<String>>,
    pub(super) size: watch::Receiver<TermSize>,
    /// Bytes of the file: whole lines.
    pub(super) bytes: u64,
    pub(super) batches: VecDeque<u64>,
    pub(super) last: Duration,
    pub(super) output: Text,
    pub(super) input: Text,
}

impl Writer {
    /// Writes until the session drops its recorder, or no more can be written; why it ended.
    pub(crate) async fn run(mut self) -> String {
        let reason = self.write_all().await;
        let reason: String = reason.chars().take(Recording::MAX_REASON).collect();
        let _ = self.end.set(reason.clone());
        self.write_end(&reason).await;
        self.library
            .finish(self.id, self.bytes, self.last, reason.clone());
        reason
    }

    async fn write_all(&mut self) -> String {
        let mut lines = Vec::new();
        let mut sizes = true;
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.push(&mut lines, event),
                    None => break,
                },
                changed = self.size.changed(), if sizes => match changed {
                    Ok(()) => self.push_size(&mut lines),
                    Err(_) => sizes = false,
                },
            }
            while lines.len() < BATCH
                && let Ok(event) = self.events.try_recv()
            {
                self.push(&mut lines, event);
            }
            if let Err(reason) = self.write(&lines).await {
                return reason;
            }
            lines.clear();
        }
        let (output, input) = (self.output.rest(), self.input.rest());
        for (kind, text) in [(cast::OUTPUT, output), (cast::INPUT, input)] {
            if !text.is_empty() {
                cast::push(&mut lines, self.last, kind, &text);
            }
        }
        if let Err(reason) = self.write(&lines).await {
            return reason;
        }
        let reason = self.end.get().cloned();
        reason.unwrap_or_else(|| "the session ended".to_owned())
    }

    fn push(&mut self, lines: &mut Vec<u8>, event: Event) {
        let (at, kind, text) = match event {
            Event::Output(at, bytes) => (at, cast::OUTPUT, self.output.take(&bytes)),
            Event::Input(at, bytes) => (at, cast::INPUT, self.input.take(&bytes)),
        };
        // Several tasks make events: what comes later is not earlier.
        self.last = self.last.max(at);
        if !text.is_empty() {
            cast::push(lines, self.last, kind, &text);
        }
    }

    fn push_size(&mut self, lines: &mut Vec<u8>) {
        let TermSize { cols, rows } = *self.size.borrow_and_update();
        self.last = self.last.max(self.began.elapsed());
        cast::push(lines, self.last, cast::RESIZE, &format!("{cols}x{rows}"));
    }

    /// Writes whole lines; why that is the end.
    async fn write(&mut self, lines: &[u8]) -> Result<(), String> {
        if lines.is_empty() {
            return Ok(());
        }
        let after = self.bytes + lines.len() as u64;
        self.library
            .make_room(after + LAST_LINE, lines.len() as u64)?;
        if let Err(error) = self.append(lines).await {
            return Err(in_words(&error));
        }
        self.library.grow(self.id, self.bytes, self.last);
        Ok(())
    }

    async fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = async {
            self.file.write_all(lines).await?;
            self.file.flush().await
        };
        if let Err(error) = written.await {
            // Half a line is none.
            self.cut(self.bytes).await;
            return Err(error);
        }
        if self.batches.len() == BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(self.bytes);
        self.bytes += lines.len() as u64;
        Ok(())
    }

    async fn cut(&mut self, bytes: u64) {
        use tokio::io::AsyncSeekExt as _;
        // What fails here leaves lines that are cut off, which readers pass over.
        let _ = self.file.set_len(bytes).await;
        let _ = self.file.seek(io::SeekFrom::Start(bytes)).await;
        self.bytes = bytes;
    }

    /// Says why it ended; on a disk that is full at the cost of what came last.
    async fn write_end(&mut self, reason: &str) {
        let mut line = Vec::new();
        let text = format!("{}{reason}", cast::ENDED);
        cast::push(&mut line, self.last, cast::MARK, &text);
        if self.append(&line).await.is_ok() {
            return;
        }
        let given_back = |start: &&u64| self.bytes - **start >= BLOCK;
        if let Some(&start) = self.batches.iter().rev().find(given_back) {
            self.cut(start).await;
            if self.append(&line).await.is_ok() {
                return;
            }
        }
        tracing::warn!("recording `{}` ends without saying why: {reason}", self.id);
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        _ => format!("it could not be written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{
        Timestamp, id::TerminalId, name::VmName, size::ByteSize, terminal::TerminalKind,
    };
    use tokio::time::timeout;

    use super::*;
    use crate::recording::{Beginning, RecordingLimits};

    #[tokio::test]
    async fn a_full_disk_ends_the_recording_and_says_so_to_whoever_records() {
        let dir = tempfile::tempdir().unwrap();
        let library = Arc::new(Library::new(dir.path(), RecordingLimits::default()));
        let (size, sizes) = watch::channel(TermSize::default());
        let recording = Recording {
            id: RecordingId::new(),
            terminal: TerminalId::new(),
            vm: VmName::parse("web").unwrap(),
            kind: TerminalKind::Shell,
            owner: None,
            user: "ann".to_owned(),
            input: false,
            required: true,
            size: TermSize::default(),
            started_at: Timestamp::now(),
            duration_ms: 0,
            bytes: ByteSize::bytes(0),
            ended: None,
        };
        let id = recording.id;
        let beginning = Beginning {
            recording,
            size: sizes,
        };
        let (recorder, mut writer) = library.begin(beginning).await.unwrap();
        let mut full = File::options();
        writer.file = full.write(true).open("/dev/full").await.unwrap();
        recorder.output(b"up").await.unwrap();
        let ended = timeout(Duration::from_secs(20), writer.run()).await;
        assert_eq!(ended.unwrap(), "the disk is full");
        let over = recorder.output(b"more").await.unwrap_err();
        assert_eq!(over.0, "the disk is full");
        let known = library.get(id).await.unwrap();
        assert_eq!(known.ended.as_deref(), Some("the disk is full"));
        drop(size);
    }
}
