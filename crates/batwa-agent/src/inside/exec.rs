//! Moving one command: what comes from its caller goes in, what it prints goes out, and its end comes last.

use std::{pin::Pin, time::Duration};

use batwa_api::{
    exec::{ExecEnd, ExecStream},
    problem::{Problem, ProblemCode},
    terminal::TermSize,
};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Place;
use crate::driver::inside::{Exec, Life};

/// Most bytes in one piece of output (MEASURED.md: the knee of throughput).
const PIECE: usize = 16 << 10;
/// How often a silent caller is sent something: one that is gone is found out by it.
const PING: Duration = Duration::from_secs(15);
/// How long a caller may take to hear how it ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// End of transmission, as a terminal's end of input is typed.
const CTRL_D: &[u8] = b"\x04";

/// What comes from the caller.
#[derive(Debug)]
pub(crate) enum ExecInput {
    /// Standard input.
    Data(Bytes),
    /// Its end.
    Eof,
    /// The terminal's size.
    Resize(TermSize),
    /// Something that does not belong here; says what.
    Wrong(String),
}

/// What goes to the caller.
#[derive(Debug)]
pub(crate) enum ExecOutput {
    /// A piece of output.
    Data(ExecStream, Bytes),
    /// How it ended.
    Exit(ExecEnd),
    /// Nothing more is known of it.
    Error(Problem),
    /// Nothing new.
    Ping,
}

/// A command that runs, for one caller.
#[derive(Debug)]
pub(crate) struct Running {
    exec: Exec,
    timeout_s: Option<u64>,
    _place: Place,
    stop: CancellationToken,
}

impl Running {
    pub(super) fn new(
        exec: Exec,
        timeout_s: Option<u64>,
        place: Place,
        stop: CancellationToken,
    ) -> Self {
        Self {
            exec,
            timeout_s,
            _place: place,
            stop,
        }
    }

    /// Moves the command until it ends, its time is over, or its caller is gone, which ends it. The last thing that
    /// goes out is an `Exit` or an `Error`.
    pub(crate) async fn serve(
        self,
        input: &mut (impl Stream<Item = ExecInput> + Unpin),
        output: &mut (impl Sink<ExecOutput> + Unpin),
    ) {
        let Exec {
            stdin,
            stdout,
            stderr,
            size,
            exit,
            life,
        } = self.exec;
        let time_is_over = async {
            match self.timeout_s {
                Some(seconds) => {
                    sleep(Duration::from_secs(seconds)).await;
                    seconds
                }
                None => std::future::pending().await,
            }
        };
        let last = tokio::select! {
            end = drain(stdout, stderr, exit, output) => match end {
                Some(end) => ExecOutput::Exit(end),
                None => return,
            },
            left = feed(input, stdin, size) => match left {
                Some(wrong) => ExecOutput::Error(Problem::new(ProblemCode::Malformed, wrong)),
                None => return,
            },
            seconds = time_is_over => ExecOutput::Exit(ExecEnd::timed_out(seconds)),
            () = self.stop.cancelled() => {
                ExecOutput::Error(Problem::new(ProblemCode::Unavailable, "the agent stops"))
            }
        };
        end_now(life);
        // A caller that does not read does not hold us.
        let _ = timeout(LAST_WORDS, output.send(last)).await;
    }
}

/// What hangs on this life ends.
fn end_now(life: Life) {
    drop(life);
}

/// Hands input on until the caller is gone, with what was wrong when it was sent away.
async fn feed(
    input: &mut (impl Stream<Item = ExecInput> + Unpin),
    stdin: Pin<Box<dyn AsyncWrite + Send>>,
    size: Option<watch::Sender<TermSize>>,
) -> Option<String> {
    let mut stdin = Some(stdin);
    while let Some(item) = input.next().await {
        match item {
            ExecInput::Data(bytes) => {
                if let Some(open) = &mut stdin
                    && put(open, &bytes).await.is_err()
                {
                    // It reads no more; what it does otherwise is its own business.
                    stdin = None;
                }
            }
            ExecInput::Eof => match stdin.take() {
                // On a terminal the end is typed, and more may follow.
                Some(mut open) if size.is_some() => {
                    let _ = put(&mut open, CTRL_D).await;
                    stdin = Some(open);
                }
                Some(mut open) => {
                    let _ = open.shutdown().await;
                }
                None => {}
            },
            ExecInput::Resize(new) => {
                if let Some(size) = &size {
                    size.send_replace(new);
                }
            }
            ExecInput::Wrong(what) => return Some(what),
        }
    }
    None
}

async fn put(stdin: &mut Pin<Box<dyn AsyncWrite + Send>>, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    stdin.write_all(bytes).await?;
    stdin.flush().await
}

/// Hands output on until there is no more, and says how it ended; `None` when the caller is gone.
async fn drain(
    mut stdout: Pin<Box<dyn AsyncRead + Send>>,
    mut stderr: Pin<Box<dyn AsyncRead + Send>>,
    exit: oneshot::Receiver<ExecEnd>,
    output: &mut (impl Sink<ExecOutput> + Unpin),
) -> Option<ExecEnd> {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.tick().await;
    let (mut out, mut err) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let piece = tokio::select! {
            // An error is an end: a terminal's other side is gone.
            read = stdout.read(&mut out), if out_open => match read {
                Ok(n @ 1..) => ExecOutput::Data(ExecStream::Stdout, Bytes::copy_from_slice(&out[..n])),
                _ => { out_open = false; continue }
            },
            read = stderr.read(&mut err), if err_open => match read {
                Ok(n @ 1..) => ExecOutput::Data(ExecStream::Stderr, Bytes::copy_from_slice(&err[..n])),
                _ => { err_open = false; continue }
            },
            _ = ping.tick() => ExecOutput::Ping,
        };
        output.send(piece).await.ok()?;
    }
    Some(
        exit.await
            .unwrap_or_else(|_| ExecEnd::unseen("its end is not known")),
    )
}
