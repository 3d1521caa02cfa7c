//! Carrying bytes between something here and a VM: to a port inside it, or to its display.

use std::fmt;

use batwa_api::{port::PortFrame, terminal::close_code};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::below;
use crate::{
    client::{Client, NoSocket, Socket, VmRef, cut},
    failure::{Exit, Failure},
    output::plain,
};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// What of a VM a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A TCP port inside.
    Port(u16),
    /// Its display.
    Display,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Display => f.write_str("the display"),
        }
    }
}

/// Connects to it.
pub(super) async fn open(client: &Client, vm: &VmRef, place: Place) -> Result<Socket, NoSocket> {
    match place {
        Place::Port(port) => {
            let port = port.to_string();
            let (agent, name) = (vm.agent.as_str(), vm.name.as_str());
            let path = ["agents", agent, "vms", name, "ports", &port];
            client.socket(&path, &[]).await
        }
        Place::Display => client.socket(&below(vm, "display"), &[]).await,
    }
}

/// Copies both ways until both have ended, or either breaks; a display ends with its viewer.
pub(super) async fn carry(
    socket: Socket,
    place: Place,
    mut reads: impl AsyncRead + Unpin,
    mut writes: impl AsyncWrite + Unpin,
) -> Result<(), Failure> {
    let (mut sink, mut frames) = socket.split();
    let up = async {
        let mut buffer = vec![0; PIECE];
        // An error is an end: the other side is told, and may still answer.
        while let Ok(n @ 1..) = reads.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..n]);
            if sink.send(Message::Binary(bytes)).await.is_err() {
                break;
            }
        }
        if place == Place::Display {
            let _ = sink.send(Message::Close(None)).await;
            return;
        }
        let eof = serde_json::to_string(&PortFrame::Eof).unwrap_or_default();
        let _ = sink.send(Message::Text(eof.into())).await;
        // Only what comes back ends it.
        std::future::pending::<()>().await;
    };
    let down = async {
        loop {
            match frames.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let written = async {
                        writes.write_all(&bytes).await?;
                        writes.flush().await
                    };
                    if written.await.is_err() {
                        // Whoever reads here has gone.
                        return Ok(());
                    }
                }
                Some(Ok(Message::Text(_))) => {
                    let _ = writes.shutdown().await;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    let code: u16 = frame.code.into();
                    return match code {
                        close_code::ENDED => Ok(()),
                        _ => Err(Failure::new(Exit::Failed, plain(&frame.reason))),
                    };
                }
                Some(Ok(Message::Close(None))) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(cut()),
            }
        }
    };
    tokio::select! {
        () = up => Ok(()),
        result = down => result,
    }
}
