//! Those who watch a session, each in a seat of its own: how far it has seen, what it may do, how large its window is.

use batwa_api::{
    id::ViewerId,
    recording::RecordingMark,
    terminal::{Admission, TermSize, Terminal, TerminalAccess, TerminalViewer, close_code},
};
use bytes::Bytes;
use tokio::time::Instant;

use super::{Ended, FRAME_BYTES, Session, State, WINDOW, keyboards::Keyboard};

/// Most viewers of one session: each is a socket, and the slowest of them costs the others a look.
pub(super) const MAX_VIEWERS: usize = 64;

/// One viewer's place in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::terminal) struct SeatId(u64);

/// Why nobody joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// The output that was asked for lies beyond this end of it.
    Beyond(u64),
    /// So many watch already.
    Full(usize),
}

/// What a viewer is to be sent next.
#[derive(Debug, PartialEq)]
pub(in crate::terminal) enum Next {
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
    /// Nothing any more: the same viewer has attached again.
    Replaced,
    /// Nothing for now.
    Nothing,
}

pub(super) struct Viewer {
    /// As whom its master let it in.
    admission: Option<Admission>,
    pub(super) access: TerminalAccess,
    /// What it types with, where it asked for that.
    pub(super) keyboard: Option<Keyboard>,
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

    /// Whether the program may be read on for this viewer, when its output ends at `end` now.
    pub(super) fn keeps_up(&self, end: u64) -> bool {
        !self.paused && end - self.sent < WINDOW
    }
}

impl Session {
    /// Joins as a viewer from offset `from`, or from the oldest byte held. The offset at which it begins. Who comes
    /// without an admission may write. Where a viewer with the same keyboard is there, this is the same one, and the seat
    /// that it had is given up.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(in crate::terminal) fn join(
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
        let keyboard = admission.as_ref().and_then(|admission| admission.keyboard);
        let before = keyboard.and_then(|id| {
            let mut viewers = state.viewers.iter();
            let same =
                |(_, viewer): &(_, &Viewer)| viewer.keyboard.as_ref().is_some_and(|it| it.is(id));
            viewers.find(same).map(|(seat, _)| *seat)
        });
        if before.is_none() && state.viewers.len() >= MAX_VIEWERS {
            return Err(JoinError::Full(state.viewers.len()));
        }
        if let Some(before) = before {
            give_up(&mut state, before);
        }
        let keyboard = keyboard.map(|id| state.keyboards.take(id));
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
            keyboard,
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
    pub(in crate::terminal) fn leave(&self, id: SeatId) {
        let mut state = self.state();
        if !give_up(&mut state, id) {
            return;
        }
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
    pub(in crate::terminal) fn set_access(&self, viewer: ViewerId, access: TerminalAccess) -> bool {
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
    pub(in crate::terminal) fn admits_input(&self, id: SeatId) -> bool {
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
    pub(in crate::terminal) async fn muted(&self, id: SeatId) {
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
    pub(in crate::terminal) fn next(&self, id: SeatId) -> Next {
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
            return Next::Replaced;
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
    pub(in crate::terminal) fn state_before(&self, offset: u64) -> String {
        let state = self.state();
        if offset == state.ring.oldest() {
            state.ring.state_before()
        } else {
            String::new()
        }
    }

    /// A viewer's window has this size.
    pub(in crate::terminal) fn resize(&self, id: SeatId, size: TermSize) {
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
    pub(in crate::terminal) fn set_paused(&self, id: SeatId, paused: Flow) {
        if let Some(viewer) = self.state().viewers.get_mut(&id) {
            viewer.paused = paused == Flow::Paused;
        }
        self.news.notify_waiters();
        self.room.notify_one();
    }
}

/// Whether a viewer takes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::terminal) enum Flow {
    Paused,
    Flowing,
}

/// Takes a viewer's seat away, and remembers its keyboard; whether it had one still.
fn give_up(state: &mut State, id: SeatId) -> bool {
    let Some(viewer) = state.viewers.remove(&id) else {
        return false;
    };
    if let Some(keyboard) = viewer.keyboard {
        state.keyboards.leave(keyboard);
    }
    true
}

pub(super) fn count(state: &State) -> u32 {
    u32::try_from(state.viewers.len()).unwrap_or(u32::MAX)
}

pub(super) fn present(state: &State) -> Vec<TerminalViewer> {
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
