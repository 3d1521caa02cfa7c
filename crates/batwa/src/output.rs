//! What the client prints: data on stdout, talk on stderr.
//!
//! Texts come from other machines, so every one loses its control characters before a terminal sees it. A reader
//! that goes away (`batwa ls | head`) is no error.

use std::io::{self, IsTerminal, Write};

use batwa_api::Timestamp;
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// Prints to stdout; a closed pipe ends the output, not the program.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot print JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Says something to the person at the terminal.
pub(crate) fn say(text: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The text without anything that could move a cursor or change a colour.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()],
        }
    }

    /// Adds a row; empty cells show as a dash.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = cells.map(|cell| match cell.as_str() {
            "" => "–".to_owned(),
            cell => plain(cell),
        });
        self.rows.push(shown.into());
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago, in one unit: `3m`, `5h`, `12d`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// One line on stderr that says how far something is: rewritten in place on a terminal, else a new line each
/// time the words change.
pub(crate) struct ProgressLine {
    in_place: bool,
    shown: String,
}

impl ProgressLine {
    /// A line that shows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            in_place: io::stderr().is_terminal(),
            shown: String::new(),
        }
    }

    /// Shows `words`, and behind them `figures`, whose change alone is worth no new line in a log.
    pub(crate) fn show(&mut self, words: &str, figures: &str) {
        let mut stderr = io::stderr().lock();
        if self.in_place {
            let line = format!("{} {}", plain(words), plain(figures));
            if line != self.shown {
                let _ = write!(stderr, "\r\x1b[2K{}", line.trim_end());
                let _ = stderr.flush();
                self.shown = line;
            }
        } else if words != self.shown {
            let _ = writeln!(stderr, "{}", plain(words));
            words.clone_into(&mut self.shown);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_shows_dashes_for_nothing() {
        let mut table = Table::new(&["NAME", "STATE", "IPV4"]);
        table.row(["web-1".into(), "running".into(), "10.0.0.1".into()]);
        table.row(["a".into(), "stopped".into(), String::new()]);
        insta::assert_snapshot!(table.render(), @"
        NAME   STATE    IPV4
        web-1  running  10.0.0.1
        a      stopped  –
        ");
    }

    #[test]
    fn hostile_texts_cannot_steer_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\x1b]0;owned\x07\r\nx".into()]);
        let text = table.render();
        assert!(!text.contains(['\x1b', '\x07', '\r']), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn ages_have_one_unit() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let shown: Vec<_> = [0, 119, 120, 7199, 7200, 172_799, 172_800]
            .map(|seconds| age(at(0), at(seconds)))
            .into();
        assert_eq!(shown, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(age(at(5), at(0)), "0s", "clocks differ");
    }
}
