//! What drivers share to run commands inside VMs.
//!
//! ```text
//! caller ◄─ streams, exit ─ Exec ─ its life ─► task of the driver ─► program inside
//! ```
//!
//! One task a command moves it and sees its end. When the [`Exec`] is dropped, the task ends the program inside
//! before it ends itself. Where dropping the connection does not do that, the program and all that it started are
//! found by a variable of their environment ([`Mark`]).

use std::{
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use batwa_api::{
    exec::{ExecCommand, ExecEnd},
    terminal::TermSize,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Pty, PtyExit};

/// A command that runs inside a VM. Dropping it ends the command.
pub struct Exec {
    /// What it reads; shut down and dropped, it is the end of its input ([`Exec::end_input`]).
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it prints; ends when it does.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// What it prints beside that; nothing for one with a terminal.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// The terminal's size, for one with a terminal; each value sent resizes.
    pub size: Option<watch::Sender<TermSize>>,
    /// How it ended; an error when that will never be known.
    pub exit: oneshot::Receiver<ExecEnd>,
    /// Its life ends with this.
    pub life: Life,
}

/// What a running command hangs on: its task is told when this is dropped.
#[derive(Debug)]
pub struct Life {
    _guard: DropGuard,
}

impl Life {
    /// A life, and what tells of its end.
    pub(super) fn new() -> (Self, CancellationToken) {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        (Self { _guard: guard }, over)
    }
}

impl Exec {
    /// Ends its input. Shutting it down alone does not end a pipe.
    pub async fn end_input(&mut self) {
        // It may read no more, and so need no end.
        let _ = self.stdin.shutdown().await;
        self.stdin = Box::pin(tokio::io::sink());
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exec")
    }
}

/// The tasks of a driver's commands; they end with it.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

/// Chunks of output between a command's task and whoever reads: back-pressure beyond these.
pub(super) const OUTPUT_CHUNKS: usize = 16;

/// A stream of chunks as something to read.
pub(super) struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl ChunkReader {
    pub(super) fn channel() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, chunks) = mpsc::channel(OUTPUT_CHUNKS);
        let rest = Bytes::new();
        (sender, Self { chunks, rest })
    }
}

impl AsyncRead for ChunkReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(context)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(n));
        Poll::Ready(Ok(()))
    }
}

/// A variable in the environment of one command and all that it starts, by which they are found again.
#[derive(Debug, Clone)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn new() -> Self {
        Self(format!("BATWA_EXEC={}", uuid::Uuid::now_v7().simple()))
    }

    /// The argument vector that runs `command` with the mark and its variables in its environment.
    pub(super) fn argv(&self, command: &ExecCommand) -> Vec<String> {
        let mut argv = vec!["env".to_owned(), self.0.clone()];
        argv.extend(
            command
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        argv.extend(command.argv.iter().cloned());
        argv
    }

    /// The argument vector that ends every process with the mark: politely, then, two seconds later, by force.
    /// Processes of root are reached where `sudo` asks for no password.
    pub(super) fn end_argv(&self) -> Vec<String> {
        [
            "sh",
            "-c",
            "sudo -n sh -c \"$1\" end \"$2\" 2>/dev/null || sh -c \"$1\" end \"$2\"",
            "end",
            END,
            &self.0,
        ]
        .map(str::to_owned)
        .into()
    }
}

/// Ends the processes whose environment has `$1`; ends with failure when there is no way to look.
const END: &str = r#"[ -r /proc/self/environ ] || exit 1
marked() {
  if grep --version >/dev/null 2>&1; then grep -lsF -e "$1" /proc/[0-9]*/environ; return; fi
  # busybox' grep stops at NUL.
  for e in /proc/[0-9]*/environ; do
    tr '\0' '\n' <"$e" 2>/dev/null | grep -qxF -e "$1" && echo "$e"
  done
}
hit() { marked "$2" | while IFS=/ read -r _ _ pid _; do kill -"$1" "$pid" 2>/dev/null; done; }
hit TERM "$1"
for _ in 1 2; do [ -z "$(marked "$1")" ] && exit 0; sleep 1; done
hit KILL "$1"
exit 0"#;

/// The words as one line for a POSIX shell, each as it is.
pub(super) fn quoted<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let quote = |word: S| format!("'{}'", word.as_ref().replace('\'', r"'\''"));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A folder as `cd` takes it, whatever it begins with.
pub(super) fn folder(cwd: &str) -> String {
    if cwd.starts_with('/') {
        cwd.to_owned()
    } else {
        format!("./{cwd}")
    }
}

/// A terminal whose program is a command: `ended` hears of its end, and of the caller's.
pub(super) fn of_pty(
    tasks: &Tasks,
    pty: Pty,
    on_abandon: impl Future<Output = ()> + Send + 'static,
) -> Exec {
    let (life, over) = Life::new();
    let (report, exit) = oneshot::channel();
    let Pty {
        output,
        input,
        size,
        exit: ended,
    } = pty;
    tasks.spawn(async move {
        tokio::select! {
            end = ended => {
                let _ = report.send(end.map_or_else(
                    |_| ExecEnd::unseen("its end is not known"),
                    |PtyExit { code, reason }| match code {
                        Some(code) => ExecEnd::exited(code),
                        None => ExecEnd::unseen(reason),
                    },
                ));
            }
            () = over.cancelled() => on_abandon.await,
        }
    });
    Exec {
        stdin: input,
        stdout: output,
        stderr: Box::pin(tokio::io::empty()),
        size: Some(size),
        exit,
        life,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(
            quoted(["echo", "a  b", "it's", "$HOME;*", "", "-n"]),
            r#"'echo' 'a  b' 'it'\''s' '$HOME;*' '' '-n'"#
        );
        assert_eq!(folder("/srv"), "/srv");
        assert_eq!(folder("-x"), "./-x");
    }

    #[test]
    fn a_command_carries_its_mark_and_variables() {
        let command = ExecCommand {
            argv: vec!["ls".to_owned(), "-l".to_owned()],
            env: [("A".to_owned(), "1 2".to_owned())].into(),
            ..ExecCommand::default()
        };
        let mark = Mark("BATWA_EXEC=x".to_owned());
        assert_eq!(
            mark.argv(&command),
            ["env", "BATWA_EXEC=x", "A=1 2", "ls", "-l"]
        );
    }
}
