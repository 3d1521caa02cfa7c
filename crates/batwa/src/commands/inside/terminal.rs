//! The terminal that the person sits at: raw mode, its size, what is typed, and the escape that leads out.

use std::io;

use batwa_api::terminal::TermSize;
use bytes::Bytes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{io::AsyncReadExt, sync::mpsc, task::JoinSet};

/// Bytes of input that are read at once.
const PIECE: usize = 16 << 10;
/// Pieces of input between reader and connection: back-pressure beyond these.
const PIECES: usize = 4;

/// The terminal in raw mode; as it was when this is dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts the terminal into raw mode; `None` when standard input is none.
    pub(super) fn enter() -> Option<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; nobody is left to see it then.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The size of the terminal, where there is one.
pub(super) fn size() -> Option<TermSize> {
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(TermSize {
        cols: size.ws_col,
        rows: size.ws_row,
    })
}

/// What comes from standard input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes.
    Bytes(Bytes),
    /// The escape that leads out.
    Leave,
    /// The escape that asks for help.
    Help,
    /// Its end.
    Eof,
}

/// Standard input, read by a task that ends with `tasks`. `escape` is the state of the escape where it counts.
pub(super) fn typed(tasks: &mut JoinSet<()>, mut escape: Option<Escape>) -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tasks.spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match stdin.read(&mut buffer).await {
                Ok(n @ 1..) => &buffer[..n],
                Ok(0) | Err(_) => {
                    let _ = sender.send(Typed::Eof).await;
                    return;
                }
            };
            let typed = match &mut escape {
                Some(escape) => escape.read(read),
                None => vec![Typed::Bytes(Bytes::copy_from_slice(read))],
            };
            for typed in typed {
                if sender.send(typed).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// Finds `~.` and `~?` at the beginning of a line, as ssh does; `~~` is a tilde.
#[derive(Debug)]
pub(super) struct Escape {
    at_line_start: bool,
    tilde: bool,
}

impl Default for Escape {
    fn default() -> Self {
        Self {
            at_line_start: true,
            tilde: false,
        }
    }
}

impl Escape {
    fn read(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut typed = Vec::new();
        let mut plain = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.tilde) {
                let found = match byte {
                    b'.' => Some(Typed::Leave),
                    b'?' => Some(Typed::Help),
                    _ => None,
                };
                if let Some(found) = found {
                    if !plain.is_empty() {
                        typed.push(Typed::Bytes(std::mem::take(&mut plain).into()));
                    }
                    typed.push(found);
                    self.at_line_start = true;
                    continue;
                }
                plain.push(b'~');
                self.at_line_start = false;
                if byte == b'~' {
                    continue;
                }
            } else if byte == b'~' && self.at_line_start {
                self.tilde = true;
                continue;
            }
            plain.push(byte);
            self.at_line_start = matches!(byte, b'\r' | b'\n');
        }
        if !plain.is_empty() {
            typed.push(Typed::Bytes(plain.into()));
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> String {
        let mut escape = Escape::default();
        let mut shown = String::new();
        for typed in pieces
            .iter()
            .flat_map(|piece| escape.read(piece.as_bytes()))
        {
            match typed {
                Typed::Bytes(bytes) => shown.push_str(std::str::from_utf8(&bytes).unwrap()),
                Typed::Leave => shown.push_str("[leave]"),
                Typed::Help => shown.push_str("[help]"),
                Typed::Eof => {}
            }
        }
        shown
    }

    #[test]
    fn the_escape_counts_only_at_the_beginning_of_a_line() {
        assert_eq!(read(&["~."]), "[leave]");
        assert_eq!(read(&["ls\r", "~", "."]), "ls\r[leave]");
        assert_eq!(read(&["cd ~.\r"]), "cd ~.\r");
        assert_eq!(read(&["~~.\r"]), "~.\r");
        assert_eq!(read(&["~x\r~?~."]), "~x\r[help][leave]");
        assert_eq!(read(&["a~", ".b"]), "a~.b");
    }
}
