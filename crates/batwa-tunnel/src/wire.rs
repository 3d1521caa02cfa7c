//! Frames of the handshake over a WebSocket: bounded in size, and in time by whoever calls.

use batwa_api::tunnel::MAX_HANDSHAKE_FRAME;
use futures_util::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use crate::socket::{Closed, MAX_MESSAGE};

/// Buffer for reading from the socket. With the library's 128 KiB ten thousand tunnels would cost 1.5 GB.
const READ_BUFFER: usize = 8 << 10;

/// Settings of a tunnel's WebSocket, at either end.
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Messages are whole when they come here: keeping them back gains nothing.
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(2 * MAX_MESSAGE))
        .max_frame_size(Some(2 * MAX_MESSAGE))
}

/// Why a frame did not go or come.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed.
    #[error("the connection failed")]
    Socket(#[source] Box<tungstenite::Error>),
    /// The other side closed, perhaps with a reason.
    #[error("the other side closed the connection{}", .0.as_ref().map(ToString::to_string).unwrap_or_default())]
    Closed(Option<Closed>),
    /// What came is no frame of a handshake.
    #[error("what came is no frame of the handshake: {0}")]
    Garbage(String),
}

impl From<tungstenite::Error> for WireError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed(None)
            }
            error => Self::Socket(Box::new(error)),
        }
    }
}

/// Sends one frame.
///
/// # Errors
/// [`WireError`].
pub async fn send<S>(
    socket: &mut WebSocketStream<S>,
    frame: &impl Serialize,
) -> Result<(), WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text =
        serde_json::to_string(frame).map_err(|error| WireError::Garbage(error.to_string()))?;
    Ok(socket.send(Message::text(text)).await?)
}

/// Receives one frame.
///
/// # Errors
/// [`WireError`].
pub async fn receive<S, T>(socket: &mut WebSocketStream<S>) -> Result<T, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: DeserializeOwned,
{
    loop {
        match socket.next().await {
            None => return Err(WireError::Closed(None)),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Message::Text(text))) if text.len() > MAX_HANDSHAKE_FRAME => {
                return Err(WireError::Garbage(format!(
                    "it is longer than {} KiB",
                    MAX_HANDSHAKE_FRAME >> 10
                )));
            }
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text)
                    .map_err(|error| WireError::Garbage(error.to_string()));
            }
            Some(Ok(Message::Close(frame))) => {
                return Err(WireError::Closed(frame.map(Closed::from)));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                return Err(WireError::Garbage("it is binary".to_owned()));
            }
        }
    }
}

/// Closes in order: says so, and waits until the other side has, too.
///
/// # Errors
/// [`WireError`].
pub async fn close<S>(socket: &mut WebSocketStream<S>) -> Result<(), WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.close(None).await?;
    while let Some(message) = socket.next().await {
        if message.is_err() {
            break;
        }
    }
    Ok(())
}
