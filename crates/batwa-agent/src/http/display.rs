//! The display of a VM: a WebSocket whose binary frames are the bytes of RFB, as VNC viewers speak it.
//!
//! Nothing of it is read here. What is held of one viewer is a frame in each direction: a viewer that does not read
//! stops the driver's side, which then draws nothing for it.

use std::time::Duration;

use axum::{
    extract::{
        Path, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use batwa_api::{name::VmName, problem::Problem, terminal::close_code};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    App,
    error::ApiResult,
    ports::{CLOSE_DEADLINE, PIECE, PING, nothing},
    terminals::{no_websocket, prepared},
};
use crate::driver::Connection;

/// Largest frame from a viewer: keys and pointers are a few bytes, and clipboard text may come in several.
const MAX_FRAME: usize = 64 << 10;
/// What is larger than that is read to its end up to here, so that its viewer still hears why it is turned out.
const MAX_READ: usize = 1 << 20;
/// How long a viewer may leave a frame unread before it counts as gone.
const STALLED: Duration = Duration::from_secs(60);

/// See the display of a VM, and use keyboard and mouse there: a WebSocket (docs/protocol.md).
#[utoipa::path(
    get, path = "/api/v1/vms/{vm}/display", tag = "inside", params(("vm" = VmName, Path)),
    responses(
        (status = 101, description = "a WebSocket; binary frames are bytes of RFB"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    Path(vm): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let vm = VmName::parse(&vm).map_err(|_| nothing("VM", &vm))?;
    let upgrade = prepared(upgrade.map_err(no_websocket)?)
        .max_message_size(MAX_READ)
        .max_frame_size(MAX_READ);
    app.wait_for_first_word().await;
    let (connection, place) = app.inside().display(&vm).await?;
    Ok(upgrade.on_upgrade(async move |socket| {
        carry(&app, socket, connection).await;
        drop(place);
    }))
}

/// How it ended, as the viewer is told; `None` for one that is gone.
type End = Option<(u16, String)>;

/// Copies until either side ends.
async fn carry(app: &App, socket: WebSocket, connection: Connection) {
    let (mut sink, mut stream) = socket.split();
    let (mut reads, mut writes) = tokio::io::split(connection);
    let end = tokio::select! {
        end = up(&mut stream, &mut writes) => end,
        end = down(&mut sink, &mut reads) => end,
        () = app.stop().cancelled() => Some((close_code::GOING_AWAY, "the agent stops".to_owned())),
    };
    let goodbye = async {
        if let Some((code, reason)) = end {
            let reason = reason.into();
            let _ = sink
                .send(Message::Close(Some(CloseFrame { code, reason })))
                .await;
            // Closed with bytes unread, the connection would be reset, and the reason lost on its way.
            while stream.next().await.is_some_and(|message| message.is_ok()) {}
        } else {
            // A viewer that said goodbye is answered.
            let _ = sink.close().await;
        }
    };
    let _ = timeout(CLOSE_DEADLINE, goodbye).await;
}

/// The end of a display: QEMU ends with its VM, and also lets go of viewers that speak no RFB.
fn ended() -> End {
    Some((
        close_code::VM_NOT_RUNNING,
        "the VM's display was closed: the VM stopped, or what was sent is no RFB".to_owned(),
    ))
}

async fn up(
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    writes: &mut (impl AsyncWrite + Unpin),
) -> End {
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Binary(bytes)) if bytes.len() > MAX_FRAME => {
                return Some((
                    close_code::PROTOCOL,
                    format!(
                        "a frame to a display has at most {MAX_FRAME} bytes: send more of them"
                    ),
                ));
            }
            Ok(Message::Binary(bytes)) => {
                let written = async {
                    writes.write_all(&bytes).await?;
                    writes.flush().await
                };
                if written.await.is_err() {
                    return ended();
                }
            }
            Ok(Message::Text(_)) => {
                return Some((
                    close_code::PROTOCOL,
                    "a display takes binary frames alone".to_owned(),
                ));
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
    None
}

async fn down(
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    reads: &mut (impl AsyncRead + Unpin),
) -> End {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.tick().await;
    let mut buffer = vec![0; PIECE];
    loop {
        let message = tokio::select! {
            read = reads.read(&mut buffer) => match read {
                Ok(n @ 1..) => Message::Binary(Bytes::copy_from_slice(&buffer[..n])),
                Ok(0) | Err(_) => return ended(),
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(STALLED, sink.send(message)).await {
            Ok(sent) => sent.ok()?,
            Err(_) => return None,
        }
    }
}
