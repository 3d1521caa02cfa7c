//! The serial console: what it printed, and a terminal on it.
//!
//! QEMU writes all of it to a log file and shows it to one client of a socket at a time.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use batwa_api::terminal::TermSize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    sync::{OwnedMutexGuard, oneshot, watch},
};

use super::{
    files, qmp,
    record::{VmDir, file},
};
use crate::driver::{DriverError, Pty, PtyExit};

/// How much of the log a new terminal shows first.
const REPLAY: u64 = 64 << 10;
/// Above this the log is cut…
const LOG_LIMIT: u64 = 4 << 20;
/// …down to this.
const LOG_KEPT: u64 = 512 << 10;

/// Opens a terminal on the console. `turn` is held for its life: QEMU would leave a second client waiting.
pub(super) async fn attach(
    dir: &VmDir,
    size: TermSize,
    turn: OwnedMutexGuard<()>,
) -> Result<Pty, DriverError> {
    let path = dir.file(file::CONSOLE);
    let stream = qmp::connect(dir.path(), file::CONSOLE)
        .await
        .map_err(|error| files::io_error("connect to", &path, &error))?;
    let past = replay(&tail(&dir.file(file::CONSOLE_LOG), REPLAY));
    let (live, input) = stream.into_split();
    let (exit_tx, exit) = oneshot::channel();
    // A serial line does not know how large the window is; the sizes go nowhere.
    let (size_tx, size_rx) = watch::channel(size);
    Ok(Pty {
        output: Box::pin(ConsoleOutput {
            bytes: AsyncReadExt::chain(std::io::Cursor::new(past), live),
            exit: Some(exit_tx),
            _turn: turn,
            _size: size_rx,
        }),
        input: Box::pin(input),
        size: size_tx,
        exit,
    })
}

/// The lock by which terminals on one console take turns.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

struct ConsoleOutput<R> {
    bytes: R,
    exit: Option<oneshot::Sender<PtyExit>>,
    _turn: OwnedMutexGuard<()>,
    _size: watch::Receiver<TermSize>,
}

impl<R: AsyncRead + Unpin> AsyncRead for ConsoleOutput<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.bytes).poll_read(context, buffer));
        let ended = result.is_err() || buffer.filled().len() == before;
        if ended && let Some(exit) = self.exit.take() {
            let _ = exit.send(PtyExit {
                code: None,
                reason: "the VM was stopped".to_owned(),
            });
        }
        // A socket that broke has ended, no more.
        Poll::Ready(Ok(()))
    }
}

/// The last `limit` bytes of a file; nothing where there is none.
pub(super) fn tail(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut log| {
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        log.take(limit).read_to_end(&mut bytes)
    });
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

/// Cuts a log that has grown large. QEMU appends, so it goes on at the new end.
pub(super) fn bound_log(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.len() <= LOG_LIMIT {
        return Ok(());
    }
    let kept = tail(path, LOG_KEPT);
    let mut log = std::fs::OpenOptions::new().append(true).open(path)?;
    log.set_len(0)?;
    std::io::Write::write_all(&mut log, &kept)
}

/// What a new terminal may be shown of the past: without questions to the terminal, whose answers would be typed
/// into the VM.
fn replay(log: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(log.len());
    let mut rest = log;
    while let Some((&byte, tail)) = rest.split_first() {
        let question = question(rest);
        if question > 0 {
            rest = &rest[question..];
        } else {
            shown.push(byte);
            rest = tail;
        }
    }
    shown
}

/// The length of the control sequence at the start that asks the terminal something; 0 where there is none.
fn question(bytes: &[u8]) -> usize {
    let Some(sequence) = bytes.strip_prefix(b"\x1b[") else {
        return 0;
    };
    let parameters = sequence
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'?'))
        .count();
    match sequence.get(parameters) {
        // Device status, device attributes, window reports.
        Some(b'n' | b'c' | b't') => 2 + parameters + 1,
        _ => 0,
    }
}

/// The last `count` lines of terminal output that say anything, for people: without control sequences.
pub(super) fn last_lines(bytes: &[u8], count: usize) -> Vec<String> {
    let start = bytes.len().saturating_sub(16 << 10);
    let text = String::from_utf8_lossy(&bytes[start..]);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
                } else {
                    chars.next();
                }
            }
            '\n' | '\t' => plain.push(c),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    crate::driver::command::last_lines(&plain, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_asks_the_terminal_nothing() {
        assert_eq!(
            replay(b"a\x1b[6nb\x1b[31mred\x1b[0m\x1b[c\x1b[>0c\x1b[18tz"),
            b"ab\x1b[31mred\x1b[0mz"
        );
        assert_eq!(replay(b"cut \x1b["), b"cut \x1b[");
    }

    #[test]
    fn lines_for_people_have_no_control_sequences() {
        let log = b"one\r\n\x1b[32m  OK \x1b[0m two\r\n\r\n\x1b[6nthree\x07\r\n";
        assert_eq!(last_lines(log, 2), ["  OK  two", "three"]);
        assert_eq!(last_lines(b"", 2), Vec::<String>::new());
        last_lines(b"\xff\xfe\x1b", 2);
    }

    #[test]
    fn a_large_log_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut text = vec![b'x'; usize::try_from(LOG_LIMIT).unwrap()];
        std::fs::write(&path, &text).unwrap();
        bound_log(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LOG_LIMIT);
        text.extend_from_slice(b"the end");
        std::fs::write(&path, &text).unwrap();
        bound_log(&path).unwrap();
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(kept.len() as u64, LOG_KEPT);
        assert!(kept.ends_with(b"the end"));
    }
}
