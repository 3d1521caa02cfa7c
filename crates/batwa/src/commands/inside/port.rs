//! Carrying bytes between something here and a port inside a VM.

use batwa_api::{port::PortFrame, terminal::close_code};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Client, NoSocket, Socket, VmRef, cut},
    failure::{Exit, Failure},
    output::plain,
};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// Connects to a port.
pub(super) async fn open(client: &Client, vm: &VmRef, port: u16) -> Result<Socket, NoSocket> {
    let port = port.to_string();
    let (agent, name) = (vm.agent.as_str(), vm.name.as_str());
    let path = ["agents", agent, "vms", name, "ports", &port];
    client.socket(&path, &[]).await
}

/// Copies both ways until both have ended, or either breaks.
pub(super) async fn carry(
    socket: Socket,
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
