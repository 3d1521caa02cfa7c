//! Recordings of terminal sessions: asciicast v2 files in the state folder, one a recording.
//!
//! ```text
//! Session ─► Recorder ─► (bounded) ─► Writer ─► ID.cast        one task a recording
//! ```
//!
//! A file is whole after every batch of lines: its first line says what it is (`cast.rs`), its last why it ended.
//! So a file without that is one whose agent was killed, and gets it when it is next read. Invariants: a recording
//! never holds its shell up for longer than [`PATIENCE`], and never more than the disk it was given.

mod cast;
mod library;
mod search;
mod writer;

pub use self::library::RecordingLimits;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use batwa_api::recording::RecordingMark;
use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};

pub(crate) use self::library::{Beginning, Filter, Library};

/// Pieces of output between a session and its recording's file: with 16 KiB each, 1 MiB at most.
const QUEUE: usize = 64;
/// How long a disk may take before the recording ends, rather than its shell waits on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that is recorded.
#[derive(Debug)]
enum Event {
    Output(Duration, Bytes),
    Input(Duration, Bytes),
}

/// A session's end of its recording; when all copies are dropped, the recording ends.
#[derive(Debug)]
pub(crate) struct Recorder {
    mark: RecordingMark,
    began: Instant,
    events: mpsc::Sender<Event>,
    end: Arc<OnceLock<String>>,
}

/// The recording took nothing more: it is over, and this is why.
#[derive(Debug)]
pub(crate) struct Over(pub(crate) String);

impl Recorder {
    /// What viewers are told of it.
    pub(crate) fn mark(&self) -> &RecordingMark {
        &self.mark
    }

    /// Records what the program printed.
    ///
    /// # Errors
    /// [`Over`].
    pub(crate) async fn output(&self, bytes: &[u8]) -> Result<(), Over> {
        let event = Event::Output(self.began.elapsed(), Bytes::copy_from_slice(bytes));
        self.put(event).await
    }

    /// Records what was typed, where that is wanted.
    ///
    /// # Errors
    /// [`Over`].
    pub(crate) async fn input(&self, bytes: &[u8]) -> Result<(), Over> {
        if !self.mark.input || bytes.is_empty() {
            return Ok(());
        }
        let event = Event::Input(self.began.elapsed(), Bytes::copy_from_slice(bytes));
        self.put(event).await
    }

    async fn put(&self, event: Event) -> Result<(), Over> {
        if self.events.send_timeout(event, PATIENCE).await.is_ok() {
            return Ok(());
        }
        // Where it ended by itself, it has said why.
        let slow = format!("the disk took nothing for {} s", PATIENCE.as_secs());
        Err(Over(self.end.get_or_init(|| slow).clone()))
    }

    /// Says why it ends, before it is dropped; the first reason counts.
    pub(crate) fn because(&self, reason: impl Into<String>) {
        let _ = self.end.set(reason.into());
    }
}
