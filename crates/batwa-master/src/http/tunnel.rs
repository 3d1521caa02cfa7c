//! `GET /api/v1/tunnel`: agents that dial in. The frames of the handshake, and from then on streams.

use std::{future::Future, time::Duration};

use axum::{extract::State, response::Response};
use batwa_api::tunnel::{AgentFrame, MasterFrame, Refused};
use batwa_tunnel::{Mux, WireError, wire};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{ApiResult, upgrade::Upgrade};
use crate::{
    app::{App, Error, auth::Source, tunnels::Established},
    fleet::admission,
};

/// How long an agent may take for its hello, and then for its proof.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Dial in as an agent: the identity is proven inside, see `docs/protocol.md`.
#[utoipa::path(get, path = "/api/v1/tunnel", tag = "agents", security(()),
    responses((status = 101, description = "text frames of the handshake, then binary frames of streams")))]
pub(crate) async fn dial_in(
    State(app): State<App>,
    source: Source,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let Some(place) = app.begin_handshake(source.address) else {
        return Err(Error::TooManyAttempts {
            retry_after: Duration::from_secs(1),
        }
        .into());
    };
    let serving = app.clone();
    Ok(upgrade.accept(&app, |stream| async move {
        let config = Some(batwa_tunnel::config());
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, config).await;
        let stopping = serving.stopping().clone();
        let established = tokio::select! {
            () = stopping.cancelled() => return,
            established = shake_hands(&serving, &source, &mut socket) => established,
        };
        drop(place);
        match established {
            Ok(Some(established)) => {
                let (mux, opener, requests) = Mux::master(socket, serving.config().tunnel_timing);
                serving.hold_tunnel(established, mux, opener, requests).await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(client.address = %source.address, "a tunnel did not come about: {error}");
            }
        }
    }))
}

/// Why a handshake ended before its time.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the agent is too slow")]
    Slow,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The handshake; `None` when it is over and no streams are to follow.
async fn shake_hands(
    app: &App,
    source: &Source,
    socket: &mut Socket,
) -> Result<Option<Established>, HandshakeError> {
    let hello = match in_time(wire::receive(socket)).await {
        Ok(AgentFrame::Hello(hello)) => hello,
        Ok(AgentFrame::Proof(_)) => {
            return refuse(socket, admission::malformed("a proof came before a hello")).await;
        }
        Err(HandshakeError::Wire(WireError::Garbage(what))) => {
            return refuse(socket, admission::malformed(&what)).await;
        }
        Err(error) => return Err(error),
    };
    let (challenged, frame) = match app.challenge(hello) {
        Ok(challenged) => challenged,
        Err(refused) => return refuse(socket, refused).await,
    };
    in_time(wire::send(socket, &frame)).await?;
    let proof = match in_time(wire::receive(socket)).await {
        Ok(AgentFrame::Proof(proof)) => proof,
        Ok(AgentFrame::Hello(_)) => {
            return refuse(socket, admission::malformed("a second hello came")).await;
        }
        Err(HandshakeError::Wire(WireError::Garbage(what))) => {
            return refuse(socket, admission::malformed(&what)).await;
        }
        Err(error) => return Err(error),
    };
    match app.admit(source, challenged, &proof).await {
        Ok((established, frame)) => {
            in_time(wire::send(socket, &frame)).await?;
            if established.is_lasting {
                Ok(Some(established))
            } else {
                say_goodbye(socket).await
            }
        }
        Err(refused) => refuse(socket, refused).await,
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, WireError>>) -> Result<T, HandshakeError> {
    match timeout(FRAME_DEADLINE, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(HandshakeError::Slow),
    }
}

async fn refuse(
    socket: &mut Socket,
    refused: Refused,
) -> Result<Option<Established>, HandshakeError> {
    in_time(wire::send(socket, &MasterFrame::Refused(refused))).await?;
    say_goodbye(socket).await
}

/// Closes in order, so that the last frame is read: closed with something unread, the connection would be reset.
async fn say_goodbye(socket: &mut Socket) -> Result<Option<Established>, HandshakeError> {
    in_time(wire::close(socket)).await?;
    Ok(None)
}
