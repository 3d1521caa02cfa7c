//! How much of what is typed reached the program, by keyboard: who attaches again after a cut goes on typing from there,
//! with nothing lost and nothing typed twice.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    task::{Poll, ready},
};

use batwa_api::{id::KeyboardId, terminal::TerminalAccess};

use super::{
    Session,
    seats::{MAX_VIEWERS, SeatId},
};

/// Keyboards that are remembered when nobody sits at them. One that was forgotten is as one that never typed.
const REMEMBERED: usize = 4 * MAX_VIEWERS;

/// What one viewer types with.
#[derive(Debug)]
pub(super) struct Keyboard {
    id: KeyboardId,
    /// Bytes that the program got, or that were dropped as its viewer may not type.
    taken: u64,
    /// Whether the viewer typed and was not told since how much is taken.
    untold: bool,
}

impl Keyboard {
    pub(super) fn is(&self, id: KeyboardId) -> bool {
        self.id == id
    }

    /// Whether it has typed since its viewer was last told.
    fn types(&mut self) -> bool {
        !std::mem::replace(&mut self.untold, true)
    }
}

/// Keyboards at which nobody sits now, the one that left last at the end.
#[derive(Debug, Default)]
pub(super) struct Keyboards(VecDeque<Keyboard>);

impl Keyboards {
    /// The keyboard with this id: the one that was left, or a new one.
    pub(super) fn take(&mut self, id: KeyboardId) -> Keyboard {
        let at = self.0.iter().position(|keyboard| keyboard.is(id));
        at.and_then(|at| self.0.remove(at)).unwrap_or(Keyboard {
            id,
            taken: 0,
            untold: false,
        })
    }

    /// Its viewer has left.
    pub(super) fn leave(&mut self, keyboard: Keyboard) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(keyboard);
    }
}

impl Session {
    /// Types some of `bytes` for a viewer; how many, none when it may not type any more. Can be dropped without losing
    /// or doubling any.
    ///
    /// # Errors
    /// When the program no longer reads.
    pub(in crate::terminal) async fn type_some(
        &self,
        id: SeatId,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut input = self.input.lock().await;
        poll_fn(|cx| {
            // Held while it is written: a viewer that attaches again in this moment finds it counted, or finds that it was
            // not written and never will be.
            let mut state = self.state();
            let viewer = state.viewers.get_mut(&id);
            let Some(viewer) = viewer.filter(|viewer| viewer.access == TerminalAccess::Write)
            else {
                return Poll::Ready(Ok(0));
            };
            let written = ready!(input.as_mut().poll_write(cx, bytes))?;
            let news = viewer.keyboard.as_mut().is_some_and(|keyboard| {
                keyboard.taken += written as u64;
                keyboard.types()
            });
            drop(state);
            if news {
                self.news.notify_waiters();
            }
            Poll::Ready(Ok(written))
        })
        .await
    }

    /// So many bytes of a viewer arrived, of which `dropped` are not for the program.
    pub(in crate::terminal) fn count_input(&self, id: SeatId, dropped: usize) {
        let mut state = self.state();
        let keyboard = state
            .viewers
            .get_mut(&id)
            .and_then(|viewer| viewer.keyboard.as_mut());
        let news = keyboard.is_some_and(|keyboard| {
            keyboard.taken += dropped as u64;
            keyboard.types()
        });
        drop(state);
        if news {
            self.news.notify_waiters();
        }
    }

    /// How much of what was typed on a viewer's keyboard is taken, where it has one.
    pub(in crate::terminal) fn input_taken(&self, id: SeatId) -> Option<u64> {
        let state = self.state();
        let keyboard = state.viewers.get(&id)?.keyboard.as_ref()?;
        Some(keyboard.taken)
    }

    /// Whether a viewer has typed and was not told how much is taken.
    pub(in crate::terminal) fn has_untold_input(&self, id: SeatId) -> bool {
        let state = self.state();
        let keyboard = state.viewers.get(&id).and_then(|it| it.keyboard.as_ref());
        keyboard.is_some_and(|keyboard| keyboard.untold)
    }

    /// As [`Self::input_taken`]; the viewer counts as told.
    pub(in crate::terminal) fn tell_input(&self, id: SeatId) -> Option<u64> {
        let mut state = self.state();
        let keyboard = state.viewers.get_mut(&id)?.keyboard.as_mut()?;
        keyboard.untold = false;
        Some(keyboard.taken)
    }
}
