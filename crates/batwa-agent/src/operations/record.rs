//! One operation while the agent knows it: its public face, its log, and how to stop it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use batwa_api::{
    Timestamp,
    agent::DriverKind,
    operation::{LogLine, Operation, OperationRequest, OperationState},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    journal::{Journal, JournalEntry},
    settle::Pause,
};
use crate::{
    driver::{Progress, ProgressUpdate},
    watch::Picture,
};

/// Lines of an operation's log that are kept: the last ones.
const LOG_LINES: usize = 500;
/// Longest line kept, in bytes.
const LINE_BYTES: usize = 4096;
/// Time between two reports of mere progress.
const REPORT_GAP: Duration = Duration::from_millis(150);

/// One operation.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) request: OperationRequest,
    pub(super) driver: DriverKind,
    /// Whether it ran before the agent was started again, and must be settled first.
    pub(super) interrupted: bool,
    pub(super) cancel: CancellationToken,
    live: Mutex<Live>,
    state: watch::Sender<OperationState>,
    /// Held while its file is written: two writes would mix old and new.
    writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Live {
    operation: Operation,
    log: VecDeque<LogLine>,
    reported: Option<Instant>,
    /// The driver said that it succeeds late, if at all.
    late: bool,
    pause: Pause,
}

impl Record {
    pub(super) fn new(entry: JournalEntry) -> Self {
        let interrupted = entry.operation.state == OperationState::Running;
        Self {
            state: watch::Sender::new(entry.operation.state),
            request: entry.request,
            driver: entry.driver,
            interrupted,
            cancel: CancellationToken::new(),
            live: Mutex::new(Live {
                operation: entry.operation,
                log: entry.log.into(),
                reported: None,
                late: false,
                pause: entry.pause,
            }),
            writing: Arc::default(),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operation as it is shown.
    pub(super) fn operation(&self) -> Operation {
        self.live().operation.clone()
    }

    /// Its log, the oldest line first.
    pub(super) fn log(&self) -> Vec<LogLine> {
        self.live().log.iter().cloned().collect()
    }

    /// Whether the driver said that it succeeds late.
    pub(super) fn is_late(&self) -> bool {
        self.live().late
    }

    /// Whether its VM is off for it.
    pub(super) fn pause(&self) -> Pause {
        self.live().pause
    }

    /// Writes down that its VM is off for it, or need not be any longer.
    ///
    /// # Errors
    /// Whatever the disk says; nothing has changed then.
    pub(super) async fn set_pause(&self, pause: Pause, journal: &Journal) -> io::Result<()> {
        let before = std::mem::replace(&mut self.live().pause, pause);
        let written = self.persist(journal).await;
        if written.is_err() {
            self.live().pause = before;
        }
        written
    }

    /// Changes it. The caller shows it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Operation)) {
        let mut live = self.live();
        change(&mut live.operation);
        let state = live.operation.state;
        drop(live);
        self.state.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        });
    }

    /// Adds a line to its log.
    pub(super) fn note(&self, text: &str) {
        self.live().push_line(text);
    }

    /// Waits until it is finished.
    pub(super) async fn finished(&self) {
        let mut state = self.state.subscribe();
        // Cannot fail: the sender is ours.
        let _ = state.wait_for(|state| state.is_finished()).await;
    }

    /// Writes it down as it is now.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(super) async fn persist(&self, journal: &Journal) -> io::Result<()> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let entry = {
            let live = self.live();
            let is_finished = live.operation.state.is_finished();
            JournalEntry {
                operation: live.operation.clone(),
                request: match is_finished {
                    true => self.request.without_secrets(),
                    false => self.request.clone(),
                },
                driver: self.driver,
                pause: live.pause,
                log: match is_finished {
                    true => live.log.iter().cloned().collect(),
                    false => Vec::new(),
                },
            }
        };
        let journal = journal.clone();
        let write = move || {
            // The write goes on when nobody waits for it any more; the next one comes after it all the same.
            let _turn = turn;
            journal.write(&entry)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)?
    }

    /// Where its driver says how far it is.
    pub(super) fn progress(self: &Arc<Self>, picture: &Arc<Picture>) -> Progress {
        let record = Arc::clone(self);
        let picture = Arc::clone(picture);
        Progress::new(move |update| {
            if let Some(operation) = record.take_note(update) {
                picture.set_operation(operation);
            }
        })
    }

    /// Takes an update in; the operation, when it is time to show it.
    fn take_note(&self, update: ProgressUpdate) -> Option<Operation> {
        let mut live = self.live();
        // A driver's helper may speak once more after the end.
        if live.operation.state != OperationState::Running {
            return None;
        }
        let mut at_once = false;
        match update {
            ProgressUpdate::Stage(stage) => {
                at_once = live.operation.stage != Some(stage);
                live.operation.enter(stage, Timestamp::now());
                live.operation.progress = None;
                live.operation.bytes_done = None;
                live.operation.bytes_total = None;
            }
            ProgressUpdate::Percent(percent) => live.operation.progress = Some(percent),
            ProgressUpdate::Bytes { done, total } => {
                live.operation.bytes_done = Some(done);
                live.operation.bytes_total = total;
                #[expect(clippy::cast_precision_loss, reason = "a per cent needs no more")]
                if let Some(total) = total.filter(|total| total.as_u64() > 0) {
                    let share = done.as_u64() as f64 / total.as_u64() as f64;
                    live.operation.progress = Some((share * 100.0).clamp(0.0, 100.0));
                }
            }
            ProgressUpdate::Message(text) => {
                at_once = live.operation.message.as_deref() != Some(&*text);
                live.push_line(&text);
                live.operation.message = Some(shortened(&text));
            }
            ProgressUpdate::Log(text) => {
                live.push_line(&text);
                return None;
            }
            ProgressUpdate::Late => {
                live.late = true;
                return None;
            }
        }
        let now = Instant::now();
        let due = live
            .reported
            .is_none_or(|at| now.duration_since(at) >= REPORT_GAP);
        if at_once || due {
            live.reported = Some(now);
            return Some(live.operation.clone());
        }
        None
    }
}

impl Live {
    fn push_line(&mut self, text: &str) {
        for line in text.lines() {
            if self.log.len() >= LOG_LINES {
                self.log.pop_front();
            }
            self.log.push_back(LogLine {
                at: Timestamp::now(),
                text: shortened(line),
            });
        }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= LINE_BYTES {
        return text.to_owned();
    }
    let end = (0..=LINE_BYTES)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}
