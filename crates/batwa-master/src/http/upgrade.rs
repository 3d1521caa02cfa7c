//! A WebSocket handshake that is answered here, and whose bytes go to whoever wants them.

use std::time::Duration;

use axum::{body::Body as HttpBody, extract::FromRequestParts, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::ApiError;
use crate::app::{App, terminals::frames::Ending};

/// How long a viewer that is turned away may take to answer the Close.
const FAREWELL: Duration = Duration::from_secs(1);

/// A request that asks for a WebSocket.
pub(crate) struct Upgrade {
    key: HeaderValue,
    on_upgrade: OnUpgrade,
}

impl FromRequestParts<App> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        let has = |name, wanted: &str| {
            parts
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value: &HeaderValue| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        let is_websocket = has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket");
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).cloned();
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        match (key, on_upgrade) {
            (Some(key), Some(on_upgrade))
                if is_websocket && has(header::SEC_WEBSOCKET_VERSION, "13") =>
            {
                Ok(Self { key, on_upgrade })
            }
            _ => Err(ApiError::malformed(
                "this path is a WebSocket of version 13: open it as one",
            )),
        }
    }
}

impl Upgrade {
    /// The client's handshake key.
    pub(crate) fn key(&self) -> &HeaderValue {
        &self.key
    }

    /// The answer to that key.
    pub(crate) fn accept_key(&self) -> HeaderValue {
        HeaderValue::from_str(&derive_accept_key(self.key.as_bytes()))
            .expect("base64 is a header value")
    }

    /// Accepts; what runs then is a task of the application's.
    pub(crate) fn accept<F>(
        self,
        app: &App,
        run: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let accept = self.accept_key();
        app.tasks().spawn(async move {
            if let Ok(stream) = self.on_upgrade.await {
                run(TokioIo::new(stream)).await;
            }
        });
        let mut response = Response::new(HttpBody::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    /// Accepts, only to say why not: browsers cannot read the status of a refused handshake.
    pub(crate) fn turn_away(self, app: &App, ending: Ending) -> Response {
        self.accept(app, move |mut viewer| async move {
            let farewell = async {
                viewer.write_all(&ending.frames()).await?;
                viewer.shutdown().await?;
                // Closed with its answer unread, the connection would be reset and the reason lost.
                let mut answer = [0; 1024];
                while viewer.read(&mut answer).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = timeout(FAREWELL, farewell).await;
        })
    }
}
