//! `batwa exec`

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use batwa_api::exec::{ExecClientFrame, ExecCommand, ExecEnd, ExecServerFrame, ExecStream};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    below, find, several,
    terminal::{Raw, Typed, size, typed},
};
use crate::{
    cli::ExecArgs,
    client::{Client, Socket, VmRef, cut},
    failure::{Exit, Failure},
    output::plain,
};

/// What a command ends with that was interrupted at the keyboard.
const INTERRUPTED: u8 = 130;

/// `batwa exec`: the command's exit code.
pub(crate) async fn exec(args: ExecArgs) -> Result<u8, Failure> {
    let of_its_own = |failure: Failure| Failure {
        exit: Exit::NotRun,
        ..failure
    };
    run(args).await.map_err(of_its_own)
}

async fn run(args: ExecArgs) -> Result<u8, Failure> {
    let mut command = ExecCommand {
        argv: args.command,
        env: args.env.into_iter().collect(),
        cwd: args.workdir,
        timeout_s: args.timeout.map(whole_seconds),
        tty: None,
    };
    if let Some(error) = command.check().into_iter().next() {
        return Err(Failure::usage(format!(
            "{}: {}",
            error.field, error.message
        )));
    }
    let client = Client::new(args.master)?;
    match (args.vm, args.on) {
        (Some(vm), None) => {
            let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            let wants = args.tty || (is_terminal && !args.no_tty);
            command.tty = wants.then(|| size().unwrap_or_default());
            let vm = find(&client, &vm).await?;
            interact(&client, &vm, command).await
        }
        (None, Some(search)) => several::run(&client, &search, command, args.parallel).await,
        _ => Err(Failure::usage("name a VM, or several with `--on SEARCH`")),
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Something that happens to a command.
#[derive(Debug)]
pub(super) enum Happened {
    Printed(ExecStream, Bytes),
    Ended(ExecEnd),
}

/// Opens the connection and says what to run.
pub(super) async fn start(
    client: &Client,
    vm: &VmRef,
    command: ExecCommand,
) -> Result<Socket, Failure> {
    let mut socket = client.socket(&below(vm, "exec"), &[]).await?;
    send(&mut socket, &ExecClientFrame::Start { command }).await?;
    Ok(socket)
}

async fn send(
    socket: &mut (impl SinkExt<Message> + Unpin),
    frame: &ExecClientFrame,
) -> Result<(), Failure> {
    let text = serde_json::to_string(frame).map_err(|e| Failure::new(Exit::Failed, e))?;
    socket
        .send(Message::Text(text.into()))
        .await
        .map_err(|_| cut())
}

/// The next thing that happens.
pub(super) async fn happened<S>(frames: &mut S) -> Result<Happened, Failure>
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        match frames.next().await {
            Some(Ok(Message::Binary(mut bytes))) if !bytes.is_empty() => {
                let from = if bytes[0] == ExecStream::Stderr as u8 {
                    ExecStream::Stderr
                } else {
                    ExecStream::Stdout
                };
                return Ok(Happened::Printed(from, bytes.split_off(1)));
            }
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(ExecServerFrame::Exit { end }) => return Ok(Happened::Ended(end)),
                Ok(ExecServerFrame::Error { detail, .. }) => {
                    return Err(Failure::new(Exit::Failed, plain(&detail)));
                }
                // What a newer master says besides is not for us.
                Ok(ExecServerFrame::Started) | Err(_) => {}
            },
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| plain(&frame.reason)).unwrap_or_default();
                return Err(match reason.as_str() {
                    "" => cut(),
                    reason => Failure::new(Exit::Failed, reason),
                });
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(cut()),
        }
    }
}

async fn interact(client: &Client, vm: &VmRef, command: ExecCommand) -> Result<u8, Failure> {
    let has_terminal = command.tty.is_some();
    let socket = start(client, vm, command).await?;
    let raw = if has_terminal { Raw::enter() } else { None };
    let mut tasks = JoinSet::new();
    let input = typed(&mut tasks, None);
    let (mut sink, mut frames) = socket.split();
    let end = tokio::select! {
        end = show(&mut frames) => end?,
        error = feed(&mut sink, input, has_terminal) => return Err(error),
        // Leaving ends it. On a terminal in raw mode the key goes to the command instead.
        Ok(()) = tokio::signal::ctrl_c(), if raw.is_none() => return Ok(INTERRUPTED),
    };
    drop(raw);
    match end.code {
        Some(code) => Ok(exit_code(code)),
        None => Err(Failure::new(Exit::Failed, plain(&end.reason))),
    }
}

/// A command's code as the code of this program.
pub(super) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Prints until the end.
async fn show<S>(frames: &mut S) -> Result<ExecEnd, Failure>
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        match happened(frames).await? {
            Happened::Ended(end) => return Ok(end),
            Happened::Printed(from, bytes) => put(from, &bytes)?,
        }
    }
}

/// A reader that goes away ends the output, and with it the command.
fn put(from: ExecStream, bytes: &[u8]) -> Result<(), Failure> {
    let written = match from {
        ExecStream::Stderr => std::io::stderr().lock().write_all(bytes),
        _ => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
    };
    written.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write to standard output: {error}"),
        )
    })
}

/// Hands input and sizes on until the connection is cut.
async fn feed(
    sink: &mut (impl SinkExt<Message> + Unpin),
    mut input: mpsc::Receiver<Typed>,
    has_terminal: bool,
) -> Failure {
    let mut sizes = if has_terminal {
        signal(SignalKind::window_change()).ok()
    } else {
        None
    };
    let resized = async |sizes: &mut Option<tokio::signal::unix::Signal>| match sizes {
        Some(sizes) => sizes.recv().await,
        None => std::future::pending().await,
    };
    let mut open = true;
    loop {
        let sent = tokio::select! {
            typed = input.recv(), if open => match typed {
                Some(Typed::Bytes(bytes)) => {
                    let mut framed = BytesMut::with_capacity(bytes.len() + 1);
                    framed.put_u8(ExecStream::Stdin as u8);
                    framed.put_slice(&bytes);
                    sink.send(Message::Binary(framed.freeze())).await.map_err(|_| cut())
                }
                Some(Typed::Eof) | None => {
                    open = false;
                    send(sink, &ExecClientFrame::Eof).await
                }
                Some(Typed::Leave | Typed::Help) => Ok(()),
            },
            _ = resized(&mut sizes) => match size() {
                Some(size) => send(sink, &ExecClientFrame::Resize { size }).await,
                None => Ok(()),
            },
        };
        if sent.is_err() {
            // It may have ended, which the other direction tells.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_times_are_what_systems_have() {
        assert_eq!(exit_code(3), 3);
        assert_eq!(exit_code(137), 137);
        assert_eq!(exit_code(256), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }
}
