//! Terminal sessions and their WebSockets, the old `/ws` included.

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{FromRequestParts, State},
    response::Response,
};
use batwa_api::{
    id::{AgentId, TerminalId},
    list::Items,
    name::VmName,
    terminal::{ListedTerminal, OpenAgentTerminal},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use utoipa::IntoParams;

use super::{
    ApiError, ApiResult,
    extract::{Body, Path, Query},
};
use crate::app::{
    App, Error,
    auth::Caller,
    terminals::{Attachment, frames::Ending, old_refusal, refusal},
    vms::VmRef,
};

/// How long a viewer that is turned away may take to answer the Close.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// All terminal sessions.
#[utoipa::path(get, path = "/api/v1/terminals", tag = "terminals", responses((status = 200, body = Items<ListedTerminal>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Items<ListedTerminal>> {
    Json(app.list_terminals().into())
}

/// Open a terminal session in a VM that runs.
#[utoipa::path(post, path = "/api/v1/terminals", tag = "terminals", request_body = OpenAgentTerminal,
    responses((status = 201, body = ListedTerminal)))]
pub(crate) async fn open(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<OpenAgentTerminal>,
) -> ApiResult<(StatusCode, Json<ListedTerminal>)> {
    let terminal = app.open_terminal(&caller, body).await?;
    Ok((StatusCode::CREATED, Json(terminal)))
}

/// End a terminal session and what runs in it.
#[utoipa::path(delete, path = "/api/v1/terminals/{terminal}", tag = "terminals",
    params(("terminal" = TerminalId, Path, description = "the session's id")), responses((status = 204)))]
pub(crate) async fn close(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
) -> ApiResult<StatusCode> {
    app.close_terminal(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// From where to attach.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttachParams {
    /// Offset of the first byte wanted; the oldest held when absent.
    from: Option<u64>,
}

/// Attach to a terminal session: a WebSocket (docs/protocol.md).
#[utoipa::path(get, path = "/api/v1/terminals/{terminal}/attach", tag = "terminals",
    params(("terminal" = TerminalId, Path, description = "the session's id"), AttachParams),
    responses((status = 101, description = "binary frames are bytes, text frames JSON control")))]
pub(crate) async fn attach(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
    Query(params): Query<AttachParams>,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let key = upgrade.key.clone();
    match app.attach_terminal(&caller, id, params.from, key).await {
        Ok(attachment) => Ok(upgrade.join(app, caller, attachment)),
        Err(error) => match refusal(&error) {
            Some(ending) => Ok(upgrade.turn_away(&app, ending)),
            None => Err(error.into()),
        },
    }
}

/// Where the old `/ws` leads.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OldWsParams {
    /// The VM.
    vm_name: Option<String>,
    /// The agent; absent, empty or `null` for the master's own machine.
    agent_id: Option<String>,
}

/// Open a shell in a VM and attach to it: the WebSocket from before v1.
#[utoipa::path(get, path = "/ws", tag = "before v1", params(OldWsParams),
    responses((status = 101, description = "binary frames are output, other frames input or a resize")))]
pub(crate) async fn old_ws(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<OldWsParams>,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let vm_name = params.vm_name.unwrap_or_default();
    let agent_id = params.agent_id.unwrap_or_default();
    let agent = match agent_id.as_str() {
        "" | "null" => Ok(AgentId::local()),
        id => AgentId::parse_remote(id).map_err(|_| Error::NotFound(format!("agent `{id}`"))),
    };
    let name = VmName::parse(&vm_name).map_err(|_| Error::NotFound(format!("VM `{vm_name}`")));
    let vm = match (agent, name) {
        (Ok(agent), Ok(name)) => VmRef { agent, name },
        (Err(error), _) | (_, Err(error)) => {
            let ending = refusal(&error)
                .unwrap_or_else(|| Ending::new(1011, error.to_string()))
                .with_words();
            return Ok(upgrade.turn_away(&app, ending));
        }
    };
    match app
        .attach_old(&caller, vm.clone(), upgrade.key.clone())
        .await
    {
        Ok(attachment) => Ok(upgrade.join(app, caller, attachment)),
        Err(error @ Error::Forbidden(_)) => Err(error.into()),
        Err(error) => {
            let status = app.fleet().status(&vm.agent);
            Ok(upgrade.turn_away(&app, old_refusal(&vm, status, &error)))
        }
    }
}

/// A WebSocket handshake that is answered, but not read by a library: its bytes are copied.
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
    /// Accepts, and joins the viewer to the agent's end.
    fn join(self, app: App, caller: Caller, attachment: Attachment) -> Response {
        let accept = self.accept();
        if attachment.accept().is_some_and(|agent| *agent != accept) {
            tracing::warn!("an agent answered a WebSocket handshake wrongly; going on");
        }
        let tasks = app.tasks().clone();
        tasks.spawn(async move {
            if let Ok(viewer) = self.on_upgrade.await {
                app.join(&caller, TokioIo::new(viewer), attachment).await;
            }
        });
        switching(accept)
    }

    /// Accepts, only to say why not.
    fn turn_away(self, app: &App, ending: Ending) -> Response {
        let accept = self.accept();
        app.tasks().spawn(async move {
            let Ok(viewer) = self.on_upgrade.await else {
                return;
            };
            let mut viewer = TokioIo::new(viewer);
            let farewell = async {
                viewer.write_all(&ending.frames()).await?;
                viewer.shutdown().await?;
                // Closed with its answer unread, the connection would be reset and the reason lost.
                let mut answer = [0; 1024];
                while viewer.read(&mut answer).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        });
        switching(accept)
    }

    fn accept(&self) -> HeaderValue {
        HeaderValue::from_str(&derive_accept_key(self.key.as_bytes()))
            .expect("base64 is a header value")
    }
}

fn switching(accept: HeaderValue) -> Response {
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}
