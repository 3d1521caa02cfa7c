//! Commands inside VMs: over a WebSocket with input, or as one call that answers lines.

use std::{future::ready, time::Duration};

use axum::{
    body::Body,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_api::{
    exec::{
        ExecChunk, ExecClientFrame, ExecCommand, ExecLine, ExecServerFrame, ExecStream, PostExec,
    },
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
    terminal::close_code,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, SinkExt, Stream, StreamExt, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::PollSender;

use super::{
    App,
    error::{ApiError, ApiResult},
    extract::{JsonBody, PathOf},
    terminals::{no_websocket, prepared},
};
use crate::inside::{ExecInput, ExecOutput, Running};

/// How long a caller may take to say what to run.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long a caller may take to close after the last frame.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Lines between command and response: back-pressure beyond these.
const LINES: usize = 4;

/// Run a command in a VM, with input: a WebSocket (docs/protocol.md).
#[utoipa::path(
    get, path = "/api/v1/vms/{vm}/exec", tag = "inside", params(("vm" = VmName, Path)),
    responses(
        (status = 101, description = "a WebSocket; its first frame is a text frame `ExecClientFrame::Start`", body = ExecServerFrame),
        (status = 404, body = Problem),
    )
)]
pub(crate) async fn attach(
    State(app): State<App>,
    PathOf(vm): PathOf<VmName>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(no_websocket)?;
    app.wait_for_first_word().await;
    app.vm(&vm)?;
    Ok(prepared(upgrade).on_upgrade(async move |socket| converse(&app, &vm, socket).await))
}

/// Run a command in a VM and answer what it prints, one JSON object a line; the last says how it ended.
#[utoipa::path(
    post, path = "/api/v1/vms/{vm}/exec", tag = "inside", params(("vm" = VmName, Path)),
    request_body = PostExec,
    responses(
        (status = 200, body = ExecLine, content_type = "application/x-ndjson"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem),
    )
)]
pub(crate) async fn run(
    State(app): State<App>,
    PathOf(vm): PathOf<VmName>,
    JsonBody(request): JsonBody<PostExec>,
) -> ApiResult<Response> {
    app.wait_for_first_word().await;
    let stdin = stdin_of(&request)?;
    let running = app.inside().exec(&vm, &request.command).await?;
    let lines = Body::from_stream(lines(running, stdin).map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

fn stdin_of(request: &PostExec) -> Result<Bytes, ApiError> {
    let refuse =
        |field, message: &str| Problem::invalid_fields(vec![FieldError::new(field, message)]);
    if request.command.tty.is_some() {
        return Err(refuse("tty", "a terminal needs the WebSocket").into());
    }
    match (&request.stdin, &request.stdin_base64) {
        (Some(_), Some(_)) => Err(refuse("stdin", "give `stdin` or `stdin_base64`").into()),
        (Some(text), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| refuse("stdin_base64", &error.to_string()).into()),
        (None, None) => Ok(Bytes::new()),
    }
}

/// Everything a command says, as lines. Dropping it ends the command.
fn lines(running: Running, stdin: Bytes) -> impl Stream<Item = Bytes> + Send {
    let (sender, receiver) = mpsc::channel::<ExecOutput>(LINES);
    let work = async move {
        // The caller is gone when this future is dropped, not when it has said all.
        let mut input =
            stream::iter([ExecInput::Data(stdin), ExecInput::Eof]).chain(stream::pending());
        running
            .serve(&mut input, &mut PollSender::new(sender))
            .await;
    };
    let received = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|output| (output, receiver))
    });
    let mut encoder = Encoder::default();
    let lines = received.filter_map(move |output| ready(encoder.lines(output)));
    stream::select(lines, work.into_stream().filter_map(|()| ready(None)))
}

/// Makes lines of output. Characters that are cut by the end of a piece wait for the next.
#[derive(Debug, Default)]
struct Encoder {
    stdout: BytesMut,
    stderr: BytesMut,
}

impl Encoder {
    fn lines(&mut self, output: ExecOutput) -> Option<Bytes> {
        let mut lines = Vec::new();
        match output {
            ExecOutput::Data(from, bytes) => lines.extend(self.piece(from, &bytes)),
            ExecOutput::Exit(end) => {
                lines.extend(self.rest());
                lines.push(ExecLine::Exit(end));
            }
            ExecOutput::Error(problem) => {
                lines.extend(self.rest());
                lines.push(ExecLine::Error {
                    code: problem.code,
                    detail: problem.detail,
                });
            }
            // An empty line keeps proxies awake, and JSON readers skip it.
            ExecOutput::Ping => return Some(Bytes::from_static(b"\n")),
        }
        let mut text = BytesMut::new();
        for line in lines {
            text.put_slice(&serde_json::to_vec(&line).unwrap_or_default());
            text.put_u8(b'\n');
        }
        (!text.is_empty()).then(|| text.freeze())
    }

    fn held(&mut self, from: ExecStream) -> &mut BytesMut {
        match from {
            ExecStream::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        }
    }

    fn piece(&mut self, from: ExecStream, bytes: &[u8]) -> Option<ExecLine> {
        let held = self.held(from);
        held.put_slice(bytes);
        let whole = match std::str::from_utf8(held) {
            Ok(_) => held.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => held.len(),
        };
        let piece = held.split_to(whole);
        (!piece.is_empty()).then(|| line(from, &piece))
    }

    fn rest(&mut self) -> Vec<ExecLine> {
        [ExecStream::Stdout, ExecStream::Stderr]
            .into_iter()
            .filter_map(|from| {
                let rest = std::mem::take(self.held(from));
                (!rest.is_empty()).then(|| line(from, &rest))
            })
            .collect()
    }
}

fn line(from: ExecStream, piece: &[u8]) -> ExecLine {
    let chunk = match std::str::from_utf8(piece) {
        Ok(text) => ExecChunk {
            text: Some(text.to_owned()),
            base64: None,
        },
        Err(_) => ExecChunk {
            text: None,
            base64: Some(STANDARD.encode(piece)),
        },
    };
    match from {
        ExecStream::Stderr => ExecLine::Stderr(chunk),
        _ => ExecLine::Stdout(chunk),
    }
}

/// Hears what to run, runs it, and says how it ended.
async fn converse(app: &App, vm: &VmName, mut socket: WebSocket) {
    let started = async {
        let command = hear_command(&mut socket).await?;
        app.inside().exec(vm, &command).await
    };
    match started.await {
        Ok(running) => serve(socket, running).await,
        Err(problem) => {
            let frame = frame(ExecOutput::Error(problem));
            let goodbye = async {
                socket.send(frame).await?;
                socket.send(close()).await
            };
            let _ = timeout(CLOSE_DEADLINE, goodbye).await;
        }
    }
}

async fn hear_command(socket: &mut WebSocket) -> Result<ExecCommand, Problem> {
    let malformed = |text: String| Problem::new(ProblemCode::Malformed, text);
    let first = timeout(START_DEADLINE, socket.recv())
        .await
        .map_err(|_| malformed("nothing was said to be run in time".to_owned()))?;
    match first {
        Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
            Ok(ExecClientFrame::Start { command }) => Ok(command),
            Ok(_) => Err(malformed("the first frame says what to run".to_owned())),
            Err(error) => Err(malformed(format!(
                "the first frame cannot be read: {error}"
            ))),
        },
        _ => Err(malformed("the first frame says what to run".to_owned())),
    }
}

async fn serve(socket: WebSocket, running: Running) {
    let (mut sink, stream) = socket.split();
    let started = serde_json::to_string(&ExecServerFrame::Started).unwrap_or_default();
    if sink.send(Message::Text(started.into())).await.is_err() {
        return;
    }
    let mut input = stream
        // An error is an end; a close is answered by the library.
        .take_while(|message| {
            ready(matches!(message, Ok(message) if !matches!(message, Message::Close(_))))
        })
        .filter_map(|message| ready(message.ok().and_then(inbound)))
        .boxed();
    let mut output = sink.with(|output| ready(Ok::<_, axum::Error>(frame(output))));
    running.serve(&mut input, &mut output).await;
    let mut sink = output.into_inner();
    let goodbye = async {
        let _ = sink.send(close()).await;
        // Closed with input unread, the connection would be reset, and the end lost on its way.
        input.for_each(|_| ready(())).await;
    };
    let _ = timeout(CLOSE_DEADLINE, goodbye).await;
}

fn close() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::ENDED,
        reason: "".into(),
    }))
}

fn inbound(message: Message) -> Option<ExecInput> {
    let wrong = |what: &str| Some(ExecInput::Wrong(what.to_owned()));
    match message {
        Message::Binary(mut bytes) => match bytes.first() {
            Some(&first) if first == ExecStream::Stdin as u8 => {
                Some(ExecInput::Data(bytes.split_off(1)))
            }
            _ => wrong("a binary frame begins with the number of its stream, 0"),
        },
        Message::Text(text) => match serde_json::from_str(&text) {
            Ok(ExecClientFrame::Eof) => Some(ExecInput::Eof),
            Ok(ExecClientFrame::Resize { size }) => Some(ExecInput::Resize(size)),
            Ok(ExecClientFrame::Start { .. }) => wrong("a command runs already"),
            Err(error) => Some(ExecInput::Wrong(format!(
                "a text frame cannot be read: {error}"
            ))),
        },
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

fn frame(output: ExecOutput) -> Message {
    let text = |frame: &ExecServerFrame| {
        Message::Text(serde_json::to_string(frame).unwrap_or_default().into())
    };
    match output {
        ExecOutput::Data(from, bytes) => {
            let mut framed = BytesMut::with_capacity(bytes.len() + 1);
            framed.put_u8(from as u8);
            framed.put_slice(&bytes);
            Message::Binary(framed.freeze())
        }
        ExecOutput::Exit(end) => text(&ExecServerFrame::Exit { end }),
        ExecOutput::Error(problem) => text(&ExecServerFrame::Error {
            code: problem.code,
            detail: problem.detail,
        }),
        ExecOutput::Ping => Message::Ping(Bytes::new()),
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::exec::ExecEnd;

    use super::*;

    fn said(outputs: impl IntoIterator<Item = ExecOutput>) -> String {
        let mut encoder = Encoder::default();
        let lines: Vec<u8> = outputs
            .into_iter()
            .filter_map(|output| encoder.lines(output))
            .flatten()
            .collect();
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn text_stays_text_though_pieces_cut_its_characters() {
        let data =
            |bytes: &'static [u8]| ExecOutput::Data(ExecStream::Stdout, Bytes::from_static(bytes));
        assert_eq!(
            said([
                data(b"h\xc3"),
                ExecOutput::Data(ExecStream::Stderr, Bytes::from_static(b"oops")),
                data(b"\xa9!"),
                data(b"\xff\x00"),
                data(b"\xe2\x82"),
                ExecOutput::Exit(ExecEnd::exited(0)),
            ]),
            concat!(
                r#"{"type":"stdout","text":"h"}"#,
                "\n",
                r#"{"type":"stderr","text":"oops"}"#,
                "\n",
                r#"{"type":"stdout","text":"é!"}"#,
                "\n",
                r#"{"type":"stdout","base64":"/wA="}"#,
                "\n",
                r#"{"type":"stdout","base64":"4oI="}"#,
                "\n",
                r#"{"type":"exit","code":0,"signal":null,"reason":"it ended"}"#,
                "\n",
            )
        );
    }

    #[test]
    fn frames_begin_with_their_stream() {
        let input = inbound(Message::Binary(Bytes::from_static(b"\x00ls\n")));
        assert!(matches!(input, Some(ExecInput::Data(bytes)) if bytes == "ls\n"));
        let wrong = inbound(Message::Binary(Bytes::from_static(b"ls\n")));
        assert!(matches!(wrong, Some(ExecInput::Wrong(_))));
        let output = frame(ExecOutput::Data(
            ExecStream::Stderr,
            Bytes::from_static(b"x"),
        ));
        assert_eq!(output, Message::Binary(Bytes::from_static(b"\x02x")));
    }
}
