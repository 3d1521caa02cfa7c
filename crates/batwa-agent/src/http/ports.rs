//! Connections to ports inside VMs, each a WebSocket whose binary frames are its bytes.

use std::time::Duration;

use axum::{
    extract::{
        Path, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use batwa_api::{
    name::VmName,
    port::PortFrame,
    problem::{Problem, ProblemCode},
    terminal::close_code,
};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    App,
    error::{ApiError, ApiResult},
    terminals::{no_websocket, prepared},
};
use crate::driver::Connection;

/// Most bytes in one frame (MEASURED.md: the knee of throughput).
pub(super) const PIECE: usize = 16 << 10;
/// How often a silent caller is sent something: one that is gone is found out by it.
pub(super) const PING: Duration = Duration::from_secs(15);
/// How long a caller may take to hear of the end.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Connect to a TCP port inside a VM: a WebSocket (docs/protocol.md).
#[utoipa::path(
    get, path = "/api/v1/vms/{vm}/ports/{port}", tag = "inside",
    params(("vm" = VmName, Path), ("port" = u16, Path)),
    responses(
        (status = 101, description = "a WebSocket; binary frames are bytes, text frames these", body = PortFrame),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 502, body = Problem, description = "nobody listens there"),
    )
)]
pub(crate) async fn connect(
    State(app): State<App>,
    Path((vm, port)): Path<(String, String)>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let vm = VmName::parse(&vm).map_err(|_| nothing("VM", &vm))?;
    let port = port
        .parse()
        .ok()
        .filter(|port: &u16| *port > 0)
        .ok_or_else(|| nothing("port", &port))?;
    let upgrade = upgrade.map_err(no_websocket)?;
    app.wait_for_first_word().await;
    let (connection, place) = app.inside().connect(&vm, port).await?;
    Ok(prepared(upgrade).on_upgrade(async move |socket| {
        carry(&app, socket, connection).await;
        drop(place);
    }))
}

pub(super) fn nothing(what: &str, name: &str) -> ApiError {
    ApiError::new(
        ProblemCode::NotFound,
        format!("there is no {what} `{}`", name.escape_debug()),
    )
}

async fn carry(app: &App, socket: WebSocket, connection: Connection) {
    let (mut sink, mut stream) = socket.split();
    let (mut reads, mut writes) = tokio::io::split(connection);
    let reason = tokio::select! {
        reason = both(&mut stream, &mut sink, &mut reads, &mut writes) => reason,
        () = app.stop().cancelled() => Some((close_code::GOING_AWAY, "the agent stops".to_owned())),
    };
    let goodbye = async {
        if let Some((code, reason)) = reason {
            let reason = reason.into();
            let _ = sink
                .send(Message::Close(Some(CloseFrame { code, reason })))
                .await;
            // Closed with bytes unread, the connection would be reset, and what was sent lost on its way.
            while stream.next().await.is_some_and(|message| message.is_ok()) {}
        }
    };
    let _ = timeout(CLOSE_DEADLINE, goodbye).await;
}

/// Copies until both directions have ended or either is broken, and says with what to close; `None` when the caller is
/// gone.
async fn both(
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    reads: &mut (impl AsyncRead + Unpin),
    writes: &mut (impl AsyncWrite + Unpin),
) -> Option<(u16, String)> {
    let mut up = std::pin::pin!(up(stream, writes));
    let mut down = std::pin::pin!(down(sink, reads));
    tokio::select! {
        end = &mut up => match end {
            // The caller has said all; the answer may still come.
            Up::Eof => { (&mut down).await?; }
            Up::Broken => return Some((close_code::ENDED, "the VM ended the connection".to_owned())),
            Up::Gone => return None,
            Up::Wrong(what) => return Some((close_code::PROTOCOL, what)),
        },
        sent = &mut down => {
            sent?;
            // The VM has said all; what the caller still says may matter to it.
            match (&mut up).await {
                Up::Gone => return None,
                Up::Wrong(what) => return Some((close_code::PROTOCOL, what)),
                Up::Eof | Up::Broken => {}
            }
        }
    }
    Some((close_code::ENDED, String::new()))
}

/// How the way in ended.
enum Up {
    Eof,
    /// The VM takes no more.
    Broken,
    Gone,
    Wrong(String),
}

async fn up(
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    writes: &mut (impl AsyncWrite + Unpin),
) -> Up {
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Binary(bytes)) if bytes.is_empty() => {}
            Ok(Message::Binary(bytes)) => {
                let written = async {
                    writes.write_all(&bytes).await?;
                    writes.flush().await
                };
                if written.await.is_err() {
                    return Up::Broken;
                }
            }
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(PortFrame::Eof) => {
                    // It may be closed already, which the way out tells.
                    let _ = writes.shutdown().await;
                    return Up::Eof;
                }
                Err(error) => return Up::Wrong(format!("a text frame cannot be read: {error}")),
            },
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return Up::Gone,
        }
    }
    Up::Gone
}

/// `None` when the caller takes no more.
async fn down(
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    reads: &mut (impl AsyncRead + Unpin),
) -> Option<()> {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.tick().await;
    let mut buffer = vec![0; PIECE];
    loop {
        let message = tokio::select! {
            read = reads.read(&mut buffer) => match read {
                Ok(n @ 1..) => Message::Binary(Bytes::copy_from_slice(&buffer[..n])),
                Ok(0) | Err(_) => {
                    let eof = serde_json::to_string(&PortFrame::Eof).unwrap_or_default();
                    return sink.send(Message::Text(eof.into())).await.ok();
                }
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        sink.send(message).await.ok()?;
    }
}
