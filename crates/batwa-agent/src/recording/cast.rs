//! The format of the files: asciicast v2, <https://docs.asciinema.org/manual/asciicast/v2/>.
//!
//! The first line is a JSON object, each one after it an array of time, kind and text. What is ours stands in the
//! header's `batwa`, which players ignore, and in the marker that ends a recording.

use std::{io::Write as _, time::Duration};

use batwa_api::{
    Timestamp,
    id::{RecordingId, TerminalId, UserId},
    name::VmName,
    recording::Recording,
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
};
use serde::{Deserialize, Serialize};

/// Printed output.
pub(super) const OUTPUT: &str = "o";
/// Keyboard input.
pub(super) const INPUT: &str = "i";
/// A new size.
pub(super) const RESIZE: &str = "r";
/// A marker.
pub(super) const MARK: &str = "m";
/// What a marker begins with that says why a recording ended.
pub(super) const ENDED: &str = "ended: ";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    version: u32,
    width: u16,
    height: u16,
    timestamp: i64,
    title: String,
    env: Environment,
    batwa: Ours,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Environment {
    #[serde(rename = "TERM")]
    term: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ours {
    id: RecordingId,
    terminal: TerminalId,
    vm: VmName,
    kind: TerminalKind,
    owner: Option<UserId>,
    user: String,
    input: bool,
    required: bool,
    started_at: Timestamp,
}

impl Header {
    pub(super) fn of(recording: &Recording) -> Self {
        Self {
            version: 2,
            width: recording.size.cols,
            height: recording.size.rows,
            timestamp: recording.started_at.as_second(),
            title: recording.vm.as_str().to_owned(),
            env: Environment {
                term: "xterm-256color".to_owned(),
            },
            batwa: Ours {
                id: recording.id,
                terminal: recording.terminal,
                vm: recording.vm.clone(),
                kind: recording.kind,
                owner: recording.owner,
                user: recording.user.clone(),
                input: recording.input,
                required: recording.required,
                started_at: recording.started_at,
            },
        }
    }

    /// What is known by this line alone of a file of so many bytes.
    pub(super) fn into_recording(self, bytes: u64) -> Recording {
        let ours = self.batwa;
        Recording {
            id: ours.id,
            terminal: ours.terminal,
            vm: ours.vm,
            kind: ours.kind,
            owner: ours.owner,
            user: ours.user,
            input: ours.input,
            required: ours.required,
            size: TermSize {
                cols: self.width,
                rows: self.height,
            },
            started_at: ours.started_at,
            duration_ms: 0,
            bytes: ByteSize::bytes(bytes),
            ended: None,
        }
    }

    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a header is plain data");
        line.push(b'\n');
        line
    }
}

/// One line after the first.
pub(super) type Line = (f64, String, String);

/// Reads a line; `None` for what is none, such as one that was cut off.
pub(super) fn read(line: &[u8]) -> Option<Line> {
    serde_json::from_slice(line).ok()
}

/// Adds an event's line.
pub(super) fn push(lines: &mut Vec<u8>, at: Duration, kind: &str, text: &str) {
    // A Vec takes everything, and texts are plain data.
    let _ = write!(
        lines,
        "[{}.{:06},\"{kind}\",",
        at.as_secs(),
        at.subsec_micros()
    );
    let _ = serde_json::to_writer(&mut *lines, text);
    lines.extend_from_slice(b"]\n");
}

/// Makes text of bytes that come in pieces: a character that is cut in two waits for its rest, and what can be none
/// becomes the replacement character.
#[derive(Debug, Default)]
pub(super) struct Text {
    cut: Vec<u8>,
}

impl Text {
    pub(super) fn take(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let whole = match self.cut.utf8_chunks().last() {
            // Only the beginning of a character can be gone on with.
            Some(last) if is_begun(last.invalid()) => self.cut.len() - last.invalid().len(),
            _ => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        String::from_utf8_lossy(&std::mem::replace(&mut self.cut, rest)).into_owned()
    }

    /// What is left of a character whose rest never came.
    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned()
    }
}

/// Whether these bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_an_array_that_players_read() {
        let mut lines = Vec::new();
        push(
            &mut lines,
            Duration::from_micros(1_234_567),
            OUTPUT,
            "a\u{1b}[31m\"ü\r\n",
        );
        assert_eq!(
            String::from_utf8_lossy(&lines),
            "[1.234567,\"o\",\"a\\u001b[31m\\\"ü\\r\\n\"]\n"
        );
        assert_eq!(
            read(lines.trim_ascii_end()),
            Some((1.234_567, "o".to_owned(), "a\u{1b}[31m\"ü\r\n".to_owned()))
        );
        assert_eq!(read(b"[1.2,\"o\",\"cut"), None);
    }

    proptest! {
        #[test]
        fn text_in_pieces_is_the_same_text(text in ".{0,60}", cuts in prop::collection::vec(0_usize..200, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut pieces, mut from, mut out) = (Text::default(), 0, String::new());
            for cut in cuts {
                out.push_str(&pieces.take(&bytes[from..cut]));
                from = cut;
            }
            prop_assert_eq!(out, text);
            prop_assert_eq!(pieces.rest(), "");
        }

        #[test]
        fn bytes_that_are_no_text_are_never_held_back(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut pieces = Text::default();
            let mut out = pieces.take(&bytes);
            prop_assert!(pieces.cut.len() < 4);
            out.push_str(&pieces.rest());
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
        }
    }
}
