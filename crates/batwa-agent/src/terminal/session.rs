//! One terminal session: a program's output in a ring, its input, and those who watch.
//!
//! One task reads the program's output as long as the fastest viewer keeps up, or nobody watches; each viewer
//! takes from the ring at its own pace. Invariants: offsets only grow; the program is never read further ahead
//! of all viewers than [`WINDOW`]; nothing that a viewer sends who may only watch reaches the program; what is typed on a
//! keyboard reaches it once and in order; when the session ends, its program is gone.

mod keyboards;
mod recording;
mod seats;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    id::TerminalId,
    name::VmName,
    terminal::{TermSize, Terminal, TerminalKind, TerminalName, close_code},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::seats::JoinError;
pub(super) use self::seats::{Flow, Next, SeatId};
use self::{
    keyboards::Keyboards,
    seats::{Viewer, count, present},
};
use super::ring::Ring;
use crate::{
    driver::{Pty, PtyExit},
    recording::Recorder,
};

/// Largest frame of output; MEASURED: more gains nothing, less costs throughput.
pub(super) const FRAME_BYTES: usize = 16 << 10;
/// How far the program may be read ahead of the fastest viewer: some frames, so that neither waits for the
/// other, and little enough that Ctrl-C in a flood is seen at once.
const WINDOW: u64 = 64 << 10;
/// How long a program that closed its terminal gets to end.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// How long a session that nobody has watched yet is kept at least.
const FIRST_VIEWER: Duration = Duration::from_secs(30);

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) reason: String,
    /// The WebSocket close code that says so.
    pub(crate) close: u16,
    pub(super) at: Instant,
}

pub(crate) struct Session {
    pub(super) id: TerminalId,
    pub(super) vm: VmName,
    pub(super) kind: TerminalKind,
    created_at: Timestamp,
    state: Mutex<State>,
    /// Something for viewers happened.
    pub(super) news: Notify,
    /// Something happened that may let the program be read on.
    room: Notify,
    input: tokio::sync::Mutex<Pin<Box<dyn AsyncWrite + Send>>>,
    size: watch::Sender<TermSize>,
    /// Held by whoever begins to record it.
    pub(super) recording: tokio::sync::Mutex<()>,
    /// Cancelled to end the program.
    end: CancellationToken,
}

struct State {
    ring: Ring,
    name: Option<TerminalName>,
    ttl: Duration,
    /// Lives on whatever its time to live.
    keep: bool,
    viewers: BTreeMap<SeatId, Viewer>,
    next_viewer: u64,
    keyboards: Keyboards,
    /// Counts the changes of who watches.
    crowd: u64,
    recorder: Option<Arc<Recorder>>,
    /// Why the last recording ended.
    recording_end: Option<String>,
    /// Counts the changes of whether it is recorded.
    recordings: u64,
    /// Why somebody ended it, before the program is gone.
    ending: Option<Ended>,
    ended: Option<Ended>,
    /// Since when nobody watches.
    unwatched: Option<Instant>,
    was_watched: bool,
}

impl Session {
    pub(super) fn new(
        id: TerminalId,
        vm: VmName,
        kind: TerminalKind,
        ttl: Duration,
        ring: usize,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        size: watch::Sender<TermSize>,
    ) -> Self {
        Self {
            id,
            vm,
            kind,
            created_at: Timestamp::now(),
            state: Mutex::new(State {
                ring: Ring::new(ring),
                name: None,
                ttl,
                keep: false,
                viewers: BTreeMap::new(),
                next_viewer: 0,
                keyboards: Keyboards::default(),
                crowd: 0,
                recorder: None,
                recording_end: None,
                recordings: 0,
                ending: None,
                ended: None,
                unwatched: Some(Instant::now()),
                was_watched: false,
            }),
            news: Notify::new(),
            room: Notify::new(),
            input: tokio::sync::Mutex::new(input),
            size,
            recording: tokio::sync::Mutex::new(()),
            end: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session as it is shown.
    pub(crate) fn terminal(&self) -> Terminal {
        let state = self.state();
        Terminal {
            id: self.id,
            vm: self.vm.clone(),
            kind: self.kind,
            size: *self.size.borrow(),
            created_at: self.created_at,
            viewers: count(&state),
            offset: state.ring.end(),
            oldest_offset: state.ring.oldest(),
            ttl_s: state.ttl.as_secs(),
            resumable: true,
            name: state.name.clone(),
            keep: state.keep,
            present: present(&state),
            shareable: true,
            recording: state.recorder.as_ref().map(|it| it.mark().clone()),
        }
    }

    /// Takes a name, or none, and for how long it lives on.
    pub(super) fn update(
        &self,
        name: Option<Option<TerminalName>>,
        ttl: Option<Duration>,
        keep: Option<bool>,
    ) {
        let mut state = self.state();
        if let Some(name) = name {
            state.name = name;
        }
        state.ttl = ttl.unwrap_or(state.ttl);
        state.keep = keep.unwrap_or(state.keep);
        if state.unwatched.is_some() {
            // The time that it is given begins now: what was forgotten a moment ago was just remembered.
            state.unwatched = Some(Instant::now());
        }
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.state().ended.clone()
    }

    /// Ends the program and tells viewers why; the first reason counts.
    pub(crate) fn end(&self, reason: &str, close: u16) {
        let mut state = self.state();
        if state.ending.is_none() {
            state.ending = Some(Ended {
                code: None,
                reason: reason.to_owned(),
                close,
                at: Instant::now(),
            });
        }
        drop(state);
        self.end.cancel();
    }

    /// Whether it is time to end it, because nobody has watched for long enough.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        let state = self.state();
        let ttl = if state.was_watched {
            state.ttl
        } else {
            state.ttl.max(FIRST_VIEWER)
        };
        state.ended.is_none()
            && !state.keep
            && state
                .unwatched
                .is_some_and(|since| now.duration_since(since) >= ttl)
    }

    /// Pushes what was typed on to the program.
    pub(super) async fn flush(&self) -> io::Result<()> {
        self.input.lock().await.flush().await
    }

    /// Whether the program may be read: nobody watches, or somebody keeps up.
    fn may_read(&self) -> bool {
        let state = self.state();
        let end = state.ring.end();
        state.viewers.is_empty() || state.viewers.values().any(|viewer| viewer.keeps_up(end))
    }

    /// Reads the program's output until it ends or is ended.
    pub(super) async fn pump(
        self: Arc<Self>,
        mut output: Pin<Box<dyn AsyncRead + Send>>,
        exit: tokio::sync::oneshot::Receiver<PtyExit>,
    ) {
        let mut buffer = vec![0; FRAME_BYTES].into_boxed_slice();
        loop {
            let room = self.room.notified();
            if !self.may_read() {
                tokio::select! {
                    () = self.end.cancelled() => break,
                    () = room => continue,
                }
            }
            let read = tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                read = poll_fn(|cx| poll_burst(output.as_mut(), cx, &mut buffer)) => read,
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    // Before anybody sees it: what is to be recorded is.
                    self.record_output(&buffer[..n]).await;
                    self.state().ring.push(&buffer[..n]);
                    self.news.notify_waiters();
                }
            }
        }
        let asked_to = self.end.is_cancelled();
        let exit = if asked_to {
            None
        } else {
            timeout(EXIT_GRACE, exit).await.ok().and_then(Result::ok)
        };
        // Only now: dropping the output kills whatever is left.
        drop(output);
        self.note_end(exit);
        // Viewers in the middle of typing give the lock back as they hear of the end.
        *self.input.lock().await = Box::pin(tokio::io::sink());
    }
}

impl Session {
    /// The program is gone: by itself, or because somebody asked.
    fn note_end(&self, exit: Option<PtyExit>) {
        let mut state = self.state();
        let ended = state.ending.take().unwrap_or_else(|| {
            let exit = exit.unwrap_or(PtyExit {
                code: None,
                reason: "the shell ended".to_owned(),
            });
            Ended {
                code: exit.code,
                reason: exit.reason,
                close: close_code::ENDED,
                at: Instant::now(),
            }
        });
        // With it its recording.
        if let Some(recorder) = state.recorder.take() {
            recorder.because(ended.reason.clone());
        }
        state.ended = Some(ended);
        drop(state);
        self.news.notify_waiters();
    }
}

/// Reads until it would block or the buffer is full: one frame of a flood instead of many small ones, and no
/// waiting for more when there is none.
fn poll_burst(
    mut output: Pin<&mut (dyn AsyncRead + Send)>,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    while buffer.remaining() > 0 {
        let before = buffer.filled().len();
        match output.as_mut().poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
            // The end, or an error, comes again with the next call.
            Poll::Ready(Ok(()) | Err(_)) | Poll::Pending if before > 0 => break,
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(0)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Takes a terminal apart into a session and what its task needs.
pub(super) fn of_pty(
    id: TerminalId,
    vm: VmName,
    kind: TerminalKind,
    ttl: Duration,
    ring: usize,
    pty: Pty,
) -> (
    Arc<Session>,
    Pin<Box<dyn AsyncRead + Send>>,
    tokio::sync::oneshot::Receiver<PtyExit>,
) {
    let Pty {
        output,
        input,
        size,
        exit,
    } = pty;
    let session = Session::new(id, vm, kind, ttl, ring, input, size);
    (Arc::new(session), output, exit)
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("vm", &self.vm)
            .finish_non_exhaustive()
    }
}
