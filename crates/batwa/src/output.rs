//! What the client prints: data on stdout, talk on stderr.
//!
//! Texts come from other machines, so every one loses its control characters before a terminal sees it. A reader
//! that goes away (`batwa ls | head`) is no error.

mod format;
mod progress;
mod table;

use std::io::{self, Write};

use batwa_api::Timestamp;
use serde::Serialize;

pub(crate) use self::{
    format::show,
    progress::{Progress, ProgressLine},
    table::{Cell, Table},
};
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

#[cfg(test)]
mod tests {
    use super::*;

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
