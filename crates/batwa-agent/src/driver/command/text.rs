//! The end of what a child printed.

/// The last `count` lines of `text` that say anything, oldest first.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(count)
        .map(str::to_owned)
        .collect();
    lines.reverse();
    lines
}

pub(super) fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing")
}

/// Appends `chunk` and drops the oldest bytes once twice `limit` is held, so that at least `limit` remain.
pub(super) fn keep_tail(held: &mut Vec<u8>, chunk: &[u8], limit: usize) {
    held.extend_from_slice(chunk);
    if held.len() > 2 * limit {
        held.drain(..held.len() - limit);
    }
}

/// The last `limit` bytes as text.
pub(super) fn tail(held: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(&held[held.len().saturating_sub(limit)..]).into_owned()
}
