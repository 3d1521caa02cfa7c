//! One terminal session: a program's output in a ring, its input, and those who watch.
//!
//! One task reads the program's output as long as the fastest viewer keeps up, or nobody watches; each viewer
//! takes from the ring at its own pace. Invariants: offsets only grow; the program is never read further ahead
//! of all viewers than [`WINDOW`]; nothing that a viewer sends who may only watch reaches the program; when the
//! session ends, its program is gone.

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
    id::{RecordingId, TerminalId, ViewerId},
    name::VmName,
    recording::RecordingMark,
    terminal::{
        Admission, TermSize, Terminal, TerminalAccess, TerminalKind, TerminalName, TerminalViewer,
        close_code,
    },
};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::ring::Ring;
use crate::{
    driver::{Pty, PtyExit},
    recording::Recorder,
};

/// Output that is kept for those who come back.
pub(super) const RING_BYTES: usize = 1 << 20;
/// Largest frame of output; MEASURED: more gains nothing, less costs throughput.
pub(super) const FRAME_BYTES: usize = 16 << 10;
/// How far the program may be read ahead of the fastest viewer: some frames, so that neither waits for the
/// other, and little enough that Ctrl-C in a flood is seen at once.
const WINDOW: u64 = 64 << 10;
/// How long a program that closed its terminal gets to end.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// How long a session that nobody has watched yet is kept at least.
const FIRST_VIEWER: Duration = Duration::from_secs(30);

/// Most viewers of one session: each is a socket, and the slowest of them costs the others a look.
const MAX_VIEWERS: usize = 64;

/// One viewer's place in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeatId(u64);

/// Why nobody joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// The output that was asked for lies beyond this end of it.
    Beyond(u64),
    /// So many watch already.
    Full(usize),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) reason: String,
    /// The WebSocket close code that says so.
    pub(crate) close: u16,
    pub(super) at: Instant,
}

/// What a viewer is to be sent next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// These bytes.
    Output(Bytes),
    /// The bytes before this offset are gone.
    Jump(u64),
    /// What it may do.
    Access(TerminalAccess),
    /// It is recorded from now on, or no longer and why.
    Recording(Option<RecordingMark>, Option<String>),
    /// So many watch now, and these are the first of them.
    Viewers(u32, Vec<TerminalViewer>),
    /// All is sent, and the session has ended.
    Ended(Ended),
    /// Nothing for now.
    Nothing,
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

struct Viewer {
    /// As whom its master let it in.
    admission: Option<Admission>,
    access: TerminalAccess,
    /// The access that it was told; none when it is to be told again.
    told_access: Option<TerminalAccess>,
    /// Offset after the last byte handed over.
    sent: u64,
    paused: bool,
    size: Option<TermSize>,
    /// The crowd that it was told.
    told_crowd: u64,
    /// What it was told of recordings; nothing when there were none.
    told_recordings: u64,
}

impl Viewer {
    fn shown(&self) -> TerminalViewer {
        TerminalViewer {
            user: self
                .admission
                .as_ref()
                .map(|admission| admission.user.clone())
                .unwrap_or_default(),
            access: self.access,
        }
    }
}

impl Session {
    pub(super) fn new(
        id: TerminalId,
        vm: VmName,
        kind: TerminalKind,
        ttl: Duration,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        size: watch::Sender<TermSize>,
    ) -> Self {
        Self {
            id,
            vm,
            kind,
            created_at: Timestamp::now(),
            state: Mutex::new(State {
                ring: Ring::new(RING_BYTES),
                name: None,
                ttl,
                keep: false,
                viewers: BTreeMap::new(),
                next_viewer: 0,
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

    /// Joins as a viewer from offset `from`, or from the oldest byte held. The offset at which it begins. Who comes
    /// without an admission may write.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(super) fn join(
        &self,
        from: Option<u64>,
        admission: Option<Admission>,
    ) -> Result<(SeatId, u64), JoinError> {
        let mut state = self.state();
        let (oldest, end) = (state.ring.oldest(), state.ring.end());
        let start = match from {
            Some(from) if from > end => return Err(JoinError::Beyond(end)),
            Some(from) => from.max(oldest),
            None => oldest,
        };
        if state.viewers.len() >= MAX_VIEWERS {
            return Err(JoinError::Full(state.viewers.len()));
        }
        let id = SeatId(state.next_viewer);
        state.next_viewer += 1;
        state.crowd += 1;
        let access = admission
            .as_ref()
            .map_or(TerminalAccess::Write, |admission| admission.access);
        // Whoever is alone, and may do what everybody may without a word, has nothing to be told.
        let alone = state.viewers.is_empty();
        let viewer = Viewer {
            admission,
            access,
            told_access: Some(TerminalAccess::Write),
            sent: start,
            paused: false,
            size: None,
            told_crowd: state.crowd - u64::from(!alone),
            told_recordings: match state.recorder {
                Some(_) => state.recordings - 1,
                None => state.recordings,
            },
        };
        state.viewers.insert(id, viewer);
        state.unwatched = None;
        state.was_watched = true;
        drop(state);
        self.news.notify_waiters();
        Ok((id, start))
    }

    /// Leaves; the last one starts the session's time to live, or ends it where that is nothing.
    pub(super) fn leave(&self, id: SeatId) {
        let mut state = self.state();
        state.viewers.remove(&id);
        state.crowd += 1;
        if state.viewers.is_empty() {
            state.unwatched = Some(Instant::now());
        }
        let end_now = state.viewers.is_empty() && state.ttl.is_zero() && !state.keep;
        let size = smallest(&state);
        drop(state);
        self.apply(size);
        self.news.notify_waiters();
        self.room.notify_one();
        if end_now {
            self.end("nobody watches any more", close_code::ENDED);
        }
    }

    /// Lets a viewer do this much from now on; whether that viewer is there.
    pub(super) fn set_access(&self, viewer: ViewerId, access: TerminalAccess) -> bool {
        let mut state = self.state();
        let its = |seat: &&mut Viewer| {
            seat.admission
                .as_ref()
                .is_some_and(|admission| admission.viewer == viewer)
        };
        let Some(seat) = state.viewers.values_mut().find(its) else {
            return false;
        };
        if seat.access != access {
            seat.access = access;
            state.crowd += 1;
        }
        let size = smallest(&state);
        drop(state);
        self.apply(size);
        self.news.notify_waiters();
        true
    }

    /// Whether what this viewer types reaches the program.
    fn may_write(&self, id: SeatId) -> bool {
        let state = self.state();
        let viewer = state.viewers.get(&id);
        viewer.is_some_and(|viewer| viewer.access == TerminalAccess::Write)
    }

    /// Whether this viewer may type; one who may not is told so, as it tried.
    pub(super) fn admits_input(&self, id: SeatId) -> bool {
        if self.may_write(id) {
            return true;
        }
        if let Some(viewer) = self.state().viewers.get_mut(&id) {
            viewer.told_access = None;
        }
        self.news.notify_waiters();
        false
    }

    /// Resolves once this viewer may no longer type.
    pub(super) async fn muted(&self, id: SeatId) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Before looking, so that what happens after the look is not missed.
            news.as_mut().enable();
            if !self.may_write(id) {
                return;
            }
            news.await;
        }
    }

    /// What a viewer is to be sent next; bytes count as sent from now on.
    pub(super) fn next(&self, id: SeatId) -> Next {
        let mut state = self.state();
        let State {
            ring,
            viewers,
            ended,
            crowd,
            recordings,
            ..
        } = &mut *state;
        let Some(viewer) = viewers.get_mut(&id) else {
            return Next::Nothing;
        };
        if viewer.told_access != Some(viewer.access) {
            viewer.told_access = Some(viewer.access);
            return Next::Access(viewer.access);
        }
        if viewer.told_recordings != *recordings {
            viewer.told_recordings = *recordings;
            let mark = state.recorder.as_ref().map(|it| it.mark().clone());
            let reason = state.recording_end.clone();
            return Next::Recording(mark, reason);
        }
        if viewer.told_crowd != *crowd {
            viewer.told_crowd = *crowd;
            return Next::Viewers(count(&state), present(&state));
        }
        if viewer.paused {
            return Next::Nothing;
        }
        if viewer.sent < ring.oldest() {
            viewer.sent = ring.oldest();
            return Next::Jump(viewer.sent);
        }
        if viewer.sent < ring.end() {
            let bytes = ring.read(viewer.sent, FRAME_BYTES);
            viewer.sent += bytes.len() as u64;
            drop(state);
            self.room.notify_one();
            return Next::Output(bytes);
        }
        ended.clone().map_or(Next::Nothing, Next::Ended)
    }

    /// What a terminal has to be told before the byte at `offset`, where that is the oldest held; empty otherwise.
    pub(super) fn state_before(&self, offset: u64) -> String {
        let state = self.state();
        if offset == state.ring.oldest() {
            state.ring.state_before()
        } else {
            String::new()
        }
    }

    /// A viewer's window has this size.
    pub(super) fn resize(&self, id: SeatId, size: TermSize) {
        let mut state = self.state();
        if let Some(viewer) = state.viewers.get_mut(&id) {
            viewer.size = Some(size.clamped());
        }
        let size = smallest(&state);
        drop(state);
        self.apply(size);
    }

    fn apply(&self, size: Option<TermSize>) {
        if let Some(size) = size {
            self.size.send_if_modified(|now| {
                let changed = *now != size;
                *now = size;
                changed
            });
        }
    }

    /// A viewer can take no more for now, or can again.
    pub(super) fn set_paused(&self, id: SeatId, paused: Flow) {
        if let Some(viewer) = self.state().viewers.get_mut(&id) {
            viewer.paused = paused == Flow::Paused;
        }
        self.news.notify_waiters();
        self.room.notify_one();
    }

    /// Types some of `bytes`; how many. Can be dropped without losing or doubling any.
    ///
    /// # Errors
    /// When the program no longer reads.
    pub(super) async fn type_some(&self, bytes: &[u8]) -> io::Result<usize> {
        self.input.lock().await.write(bytes).await
    }

    /// Pushes what was typed on to the program.
    pub(super) async fn flush(&self) -> io::Result<()> {
        self.input.lock().await.flush().await
    }

    /// Whether the program may be read: nobody watches, or somebody keeps up.
    fn may_read(&self) -> bool {
        let state = self.state();
        let end = state.ring.end();
        state.viewers.is_empty()
            || state
                .viewers
                .values()
                .any(|viewer| !viewer.paused && end - viewer.sent < WINDOW)
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

/// Recording it.
impl Session {
    /// What the size is, as it changes.
    pub(super) fn sizes(&self) -> watch::Receiver<TermSize> {
        self.size.subscribe()
    }

    /// The recording under way.
    pub(super) fn recording_mark(&self) -> Option<RecordingMark> {
        let state = self.state();
        state.recorder.as_ref().map(|it| it.mark().clone())
    }

    /// Records from now on; `false` when it has ended already.
    pub(super) fn begin_recording(&self, recorder: Recorder) -> bool {
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        state.recorder = Some(Arc::new(recorder));
        state.recording_end = None;
        state.recordings += 1;
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// Records no longer.
    pub(super) fn stop_recording(&self, reason: &str) {
        let mut state = self.state();
        if let Some(recorder) = state.recorder.take() {
            recorder.because(reason);
            state.recording_end = Some(reason.to_owned());
            state.recordings += 1;
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// A recording is over, whoever ended it.
    pub(super) fn recording_over(&self, id: RecordingId, reason: &str) {
        let mut state = self.state();
        let current = state.recorder.as_ref().map(|it| it.mark().id);
        if current == Some(id) {
            state.recorder = None;
            state.recordings += 1;
        }
        if current.is_none_or(|current| current == id) {
            state.recording_end = Some(reason.to_owned());
        }
        drop(state);
        self.news.notify_waiters();
    }

    async fn record_output(&self, bytes: &[u8]) {
        let recorder = self.state().recorder.clone();
        if let Some(recorder) = recorder
            && let Err(over) = recorder.output(bytes).await
        {
            self.recording_over(recorder.mark().id, &over.0);
        }
    }

    /// Records what this session's program was given to read.
    pub(super) async fn record_input(&self, bytes: &[u8]) {
        let recorder = self.state().recorder.clone();
        if let Some(recorder) = recorder
            && let Err(over) = recorder.input(bytes).await
        {
            self.recording_over(recorder.mark().id, &over.0);
        }
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

/// Whether a viewer takes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Paused,
    Flowing,
}

fn count(state: &State) -> u32 {
    u32::try_from(state.viewers.len()).unwrap_or(u32::MAX)
}

fn present(state: &State) -> Vec<TerminalViewer> {
    let viewers = state.viewers.values().map(Viewer::shown);
    viewers.take(Terminal::MAX_PRESENT).collect()
}

/// The size that fits into the window of everybody who may type.
fn smallest(state: &State) -> Option<TermSize> {
    state
        .viewers
        .values()
        .filter(|viewer| viewer.access == TerminalAccess::Write)
        .filter_map(|viewer| viewer.size)
        .reduce(|a, b| TermSize {
            cols: a.cols.min(b.cols),
            rows: a.rows.min(b.rows),
        })
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
    let session = Session::new(id, vm, kind, ttl, input, size);
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
