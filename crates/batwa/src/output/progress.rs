//! How far something is, on one line of stderr.

use std::io::{self, IsTerminal, Write};

use super::plain;

/// Cells of a bar between its brackets.
const BAR: usize = 24;
/// How wide a line is where the terminal does not say.
const USUAL_WIDTH: usize = 80;

/// One line on stderr that says how far something is: rewritten in place on a terminal, else a new line each
/// time the words change.
pub(crate) struct ProgressLine {
    in_place: bool,
    shown: String,
}

/// How far something is.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Progress {
    /// What it is at, in words that change only when it comes to something new.
    pub(crate) words: String,
    /// Per cent of that, where it can be known.
    pub(crate) percent: Option<f64>,
    /// What else there is to say, whose change alone is worth no new line in a log.
    pub(crate) figures: String,
}

impl ProgressLine {
    /// A line that shows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            in_place: io::stderr().is_terminal(),
            shown: String::new(),
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let mut stderr = io::stderr().lock();
        if self.in_place {
            let width = rustix::termios::tcgetwinsize(&stderr)
                .map(|size| usize::from(size.ws_col))
                .ok()
                .filter(|width| *width > 0)
                .unwrap_or(USUAL_WIDTH);
            let line = progress.line(width);
            if line != self.shown {
                let _ = write!(stderr, "\r\x1b[2K{line}");
                let _ = stderr.flush();
                self.shown = line;
            }
        } else if progress.words != self.shown {
            let _ = writeln!(stderr, "{}", plain(&progress.words));
            progress.words.clone_into(&mut self.shown);
        }
    }

    /// Takes the line away, so that the result can stand in its place.
    pub(crate) fn clear(&mut self) {
        if self.in_place && !self.shown.is_empty() {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
        self.shown.clear();
    }
}

impl Progress {
    /// Words alone.
    pub(crate) fn words(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            ..Self::default()
        }
    }

    /// The line for a terminal of this width. One that wraps could not be rewritten, so it is cut before the last
    /// column.
    fn line(&self, width: usize) -> String {
        let bar = self.percent.map(bar).unwrap_or_default();
        let line = [plain(&self.words), bar, plain(&self.figures)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("  ");
        line.chars().take(width.saturating_sub(1)).collect()
    }
}

fn bar(percent: f64) -> String {
    let percent = percent.clamp(0.0, 100.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to BAR"
    )]
    let done = (percent / 100.0 * BAR as f64) as usize;
    format!(
        "[{}{}] {percent:>3.0} %",
        "#".repeat(done),
        ".".repeat(BAR - done)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_one_width_and_stays_between_nothing_and_all() {
        let widths: Vec<_> = [-5.0, 0.0, 42.5, 99.9, 100.0, 1e9, f64::NAN]
            .map(|percent| bar(percent).chars().count())
            .into();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        assert_eq!(bar(50.0), "[############............]  50 %");
        assert_eq!(bar(200.0), bar(100.0));
    }

    #[test]
    fn a_line_never_wraps_and_carries_no_control_characters() {
        let progress = Progress {
            words: "local/web: downloading\x1b[2J".to_owned(),
            percent: Some(10.0),
            figures: "(1M of 10M)".to_owned(),
        };
        assert_eq!(
            progress.line(200),
            "local/web: downloading\u{fffd}[2J  [##......................]  10 %  (1M of 10M)"
        );
        assert_eq!(progress.line(20).chars().count(), 19);
        assert_eq!(Progress::words("x").line(80), "x");
    }
}
