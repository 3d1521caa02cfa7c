//! The recording of a session: its beginning and end, what is written to it, and what viewers are told of it.

use std::sync::Arc;

use batwa_api::{id::RecordingId, recording::RecordingMark, terminal::TermSize};
use tokio::sync::watch;

use super::Session;
use crate::recording::Recorder;

impl Session {
    /// What the size is, as it changes.
    pub(in crate::terminal) fn sizes(&self) -> watch::Receiver<TermSize> {
        self.size.subscribe()
    }

    /// The recording under way.
    pub(in crate::terminal) fn recording_mark(&self) -> Option<RecordingMark> {
        let state = self.state();
        state.recorder.as_ref().map(|it| it.mark().clone())
    }

    /// Records from now on; `false` when it has ended already.
    pub(in crate::terminal) fn begin_recording(&self, recorder: Recorder) -> bool {
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
    pub(in crate::terminal) fn stop_recording(&self, reason: &str) {
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
    pub(in crate::terminal) fn recording_over(&self, id: RecordingId, reason: &str) {
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

    /// Records what this session's program printed.
    pub(super) async fn record_output(&self, bytes: &[u8]) {
        let recorder = self.state().recorder.clone();
        if let Some(recorder) = recorder
            && let Err(over) = recorder.output(bytes).await
        {
            self.recording_over(recorder.mark().id, &over.0);
        }
    }

    /// Records what this session's program was given to read.
    pub(in crate::terminal) async fn record_input(&self, bytes: &[u8]) {
        let recorder = self.state().recorder.clone();
        if let Some(recorder) = recorder
            && let Err(over) = recorder.input(bytes).await
        {
            self.recording_over(recorder.mark().id, &over.0);
        }
    }
}
