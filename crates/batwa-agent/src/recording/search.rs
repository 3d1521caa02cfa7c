//! Looking for a text in what was printed: line by line, without colours and cursor movements.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
    time::Instant,
};

use batwa_api::recording::{FoundRecording, FoundRecordings, Recording, RecordingMatch};

use super::cast;

/// Longest line of a file that is read, and longest line of a screen that is put together.
const MAX_LINE: usize = 1 << 20;
const MAX_SHOWN_LINE: usize = 4 << 10;

/// Those of `candidates` in which `text` was printed, at most `limit`, until the time is up.
pub(super) fn all(
    dir: &Path,
    candidates: Vec<Recording>,
    text: &str,
    limit: usize,
    until: Instant,
) -> FoundRecordings {
    let wanted = text.to_lowercase();
    let mut found = FoundRecordings::default();
    for recording in candidates {
        if found.items.len() >= limit || Instant::now() >= until {
            found.partial = true;
            break;
        }
        let path = dir.join(format!("{}.cast", recording.id));
        match first(&path, recording.bytes.as_u64(), &wanted, until) {
            Ok(Some(place)) => found.items.push(FoundRecording {
                recording,
                found: Some(place),
            }),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!("cannot search recording `{}`: {error}", recording.id);
                found.partial = true;
            }
        }
    }
    found
}

fn first(
    path: &Path,
    bytes: u64,
    wanted: &str,
    until: Instant,
) -> io::Result<Option<RecordingMatch>> {
    let mut file = BufReader::new(File::open(path)?.take(bytes));
    let mut screen = Lines::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut file)
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut line)?;
        if read == 0 || Instant::now() >= until {
            return Ok(screen.end(wanted));
        }
        let Some((at, kind, text)) = cast::read(&line) else {
            continue;
        };
        if kind == cast::OUTPUT
            && let Some(found) = screen.take(at, &text, wanted)
        {
            return Ok(Some(found));
        }
    }
}

/// Puts lines together from what a program prints.
#[derive(Debug, Default)]
struct Lines {
    line: String,
    began_at: f64,
    escape: Escape,
}

/// Where in a sequence that is no text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begun,
    /// `ESC [` until a letter.
    Control,
    /// `ESC ]` and its like until BEL or `ESC \`.
    Words,
}

impl Lines {
    fn take(&mut self, at: f64, text: &str, wanted: &str) -> Option<RecordingMatch> {
        for c in text.chars() {
            self.escape = match (self.escape, c) {
                (_, '\u{1b}') => Escape::Begun,
                (Escape::Begun, '[') => Escape::Control,
                (Escape::Begun, ']' | 'P' | '_' | '^' | 'X') => Escape::Words,
                (Escape::Begun, ' '..='/') => Escape::Begun,
                (Escape::Begun, _) | (Escape::Control, '@'..='~') | (Escape::Words, '\u{7}') => {
                    Escape::None
                }
                (Escape::None, c) => {
                    if let Some(found) = self.print(at, c, wanted) {
                        return Some(found);
                    }
                    Escape::None
                }
                (within, _) => within,
            };
        }
        None
    }

    fn print(&mut self, at: f64, c: char, wanted: &str) -> Option<RecordingMatch> {
        match c {
            '\n' => return self.end(wanted),
            '\u{8}' => drop(self.line.pop()),
            '\t' => self.line.push(' '),
            c if c.is_control() => {}
            c => {
                if self.line.is_empty() {
                    self.began_at = at;
                }
                if self.line.len() < MAX_SHOWN_LINE {
                    self.line.push(c);
                }
            }
        }
        None
    }

    /// Looks at the line that is whole now.
    fn end(&mut self, wanted: &str) -> Option<RecordingMatch> {
        let line = std::mem::take(&mut self.line);
        line.to_lowercase()
            .contains(wanted)
            .then(|| RecordingMatch {
                at_ms: (self.began_at.max(0.0) * 1000.0) as u64,
                line: line.trim().chars().take(RecordingMatch::MAX_LINE).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pieces: &[(f64, &str)], wanted: &str) -> Option<(u64, String)> {
        let mut lines = Lines::default();
        let found = pieces
            .iter()
            .find_map(|(at, text)| lines.take(*at, text, wanted));
        found
            .or_else(|| lines.end(wanted))
            .map(|found| (found.at_ms, found.line))
    }

    #[test]
    fn a_text_is_found_through_colours_pieces_and_titles() {
        let pieces = [
            (0.5, "\u{1b}]0;secret title\u{7}$ cargo bui"),
            (1.25, "x\u{8}ld\r\n"),
            (2.0, "\u{1b}[1;31merror\u{1b}[0m: no \u{1b}["),
            (2.5, "4mroom\u{1b}(B left\r\n"),
        ];
        assert_eq!(
            find(&pieces, "cargo build"),
            Some((500, "$ cargo build".to_owned()))
        );
        assert_eq!(
            find(&pieces, "error: no room left"),
            Some((2000, "error: no room left".to_owned()))
        );
        assert_eq!(find(&pieces, "secret"), None);
        assert_eq!(
            find(&[(1.0, "no end of Line")], "line"),
            Some((1000, "no end of Line".to_owned()))
        );
    }
}
