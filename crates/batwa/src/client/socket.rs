//! WebSockets of the master, over the same connections, proxies and trust as every other call.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode, Upgraded, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::Client;
use crate::failure::{Exit, Failure};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<Upgraded>;

/// Longer than the master waits for a VM that lets somebody in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(75);

/// Why there is no WebSocket.
#[derive(Debug)]
pub(crate) enum NoSocket {
    /// The master or the machine cannot be reached now: trying again may help.
    Cut(Failure),
    /// It was refused.
    Refused(Failure),
}

impl From<NoSocket> for Failure {
    fn from(error: NoSocket) -> Self {
        match error {
            NoSocket::Cut(failure) | NoSocket::Refused(failure) => failure,
        }
    }
}

impl Client {
    /// Opens a WebSocket.
    pub(crate) async fn socket(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Socket, NoSocket> {
        let key = STANDARD.encode(uuid::Uuid::now_v7().as_bytes());
        let request = self
            .request(Method::GET, path, query)
            .timeout(OPEN_TIMEOUT)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key);
        let response = request
            .send()
            .await
            .map_err(|error| NoSocket::Cut(self.unreachable(error)))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = response.bytes().await.unwrap_or_default();
            let code = serde_json::from_slice(&body)
                .ok()
                .map(|problem: batwa_api::problem::Problem| problem.code);
            let failure = self.refusal(status, &body);
            // Nobody listens at the port: that is an answer, though its status is a gateway's.
            let answered = code == Some(batwa_api::problem::ProblemCode::ConnectionRefused);
            return Err(match status.as_u16() {
                502..=504 if !answered => NoSocket::Cut(failure),
                _ => NoSocket::Refused(failure),
            });
        }
        let upgraded = response
            .upgrade()
            .await
            .map_err(|error| NoSocket::Cut(self.unreachable(error)))?;
        let config = WebSocketConfig::default().write_buffer_size(0);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }
}

/// A WebSocket that ended though there was more to say.
pub(crate) fn cut() -> Failure {
    Failure::new(Exit::Unreachable, "the connection to the master was cut")
}
