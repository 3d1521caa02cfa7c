//! The recorded runs of a real Multipass that the tests compare with; spinner frames that repeat are shortened.

use std::sync::LazyLock;

use serde::Deserialize;

/// One recorded run.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    /// Its number in the record.
    pub(super) n: u32,
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// Its exit status.
    pub(super) exit: i32,
    /// Standard output, or all that appeared on the terminal.
    pub(super) stdout: String,
    /// Standard error.
    pub(super) stderr: String,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    include_str!("../../../tests/fixtures/multipass/transcripts.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row of the record"))
        .collect()
});

/// All of them.
pub(super) fn rows() -> &'static [Row] {
    &ROWS
}

/// The one with a number.
pub(super) fn row(n: u32) -> &'static Row {
    ROWS.iter()
        .find(|row| row.n == n)
        .expect("a row with this number")
}
