//! Terminal sessions and their WebSockets, the old `/ws` included.

use axum::{Json, extract::State, response::Response};
use batwa_api::{
    id::{AgentId, KeyboardId, TerminalId},
    list::Items,
    name::VmName,
    terminal::{ListedTerminal, OpenAgentTerminal, ShareTerminal, TerminalAccess, UpdateTerminal},
};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Body, Path, Query},
    upgrade::Upgrade,
    vms::agent_patterns,
};
use crate::app::{
    App, Error,
    auth::Caller,
    terminals::{Attachment, TerminalQuery, Wanted, frames::Ending, old_refusal, refusal},
    vms::VmRef,
};

/// Which terminal sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TerminalParams {
    /// Machines by id, separated by commas; a star at the end stands for any rest.
    agent: Option<String>,
    /// Only sessions of VMs with this name.
    vm: Option<VmName>,
}

/// All terminal sessions.
#[utoipa::path(get, path = "/api/v1/terminals", tag = "terminals", params(TerminalParams),
    responses((status = 200, body = Items<ListedTerminal>)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(params): Query<TerminalParams>,
) -> ApiResult<Json<Items<ListedTerminal>>> {
    let query = TerminalQuery {
        agents: agent_patterns(params.agent.as_deref())?,
        vm: params.vm,
    };
    Ok(Json(app.list_terminals(&query).into()))
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

/// Name a terminal session, or change how long it lives on. For its owner and admins.
#[utoipa::path(patch, path = "/api/v1/terminals/{terminal}", tag = "terminals", request_body = UpdateTerminal,
    params(("terminal" = TerminalId, Path, description = "the session's id")),
    responses((status = 200, body = ListedTerminal)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
    Body(body): Body<UpdateTerminal>,
) -> ApiResult<Json<ListedTerminal>> {
    Ok(Json(app.update_terminal(&caller, id, &body).await?))
}

/// Invite an account to a terminal session, to watch or to write, or change which. For its owner and admins.
#[utoipa::path(put, path = "/api/v1/terminals/{terminal}/guests/{user}", tag = "terminals", request_body = ShareTerminal,
    params(("terminal" = TerminalId, Path, description = "the session's id"),
        ("user" = String, Path, description = "the account's name")),
    responses((status = 200, body = ListedTerminal)))]
pub(crate) async fn share(
    State(app): State<App>,
    caller: Caller,
    Path((id, user)): Path<(TerminalId, String)>,
    Body(body): Body<ShareTerminal>,
) -> ApiResult<Json<ListedTerminal>> {
    let shared = app.share_terminal(&caller, id, &user, body.access).await?;
    Ok(Json(shared))
}

/// Take an invitation back: whoever is there by it is turned out at once. For the session's owner and admins.
#[utoipa::path(delete, path = "/api/v1/terminals/{terminal}/guests/{user}", tag = "terminals",
    params(("terminal" = TerminalId, Path, description = "the session's id"),
        ("user" = String, Path, description = "the account's name")),
    responses((status = 204)))]
pub(crate) async fn unshare(
    State(app): State<App>,
    caller: Caller,
    Path((id, user)): Path<(TerminalId, String)>,
) -> ApiResult<StatusCode> {
    app.unshare_terminal(&caller, id, Some(&user)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take all invitations to a terminal session back. For its owner and admins.
#[utoipa::path(delete, path = "/api/v1/terminals/{terminal}/guests", tag = "terminals",
    params(("terminal" = TerminalId, Path, description = "the session's id")), responses((status = 204)))]
pub(crate) async fn unshare_all(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
) -> ApiResult<StatusCode> {
    app.unshare_terminal(&caller, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a terminal session and what runs in it. For its owner and admins.
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
    /// `watch` for a screen on which nothing is typed; what the caller may do at most when absent.
    access: Option<TerminalAccess>,
    /// A UUID that the viewer made up for what it types with, the same each time it attaches to the session: then it is told
    /// how much of that was taken.
    keyboard: Option<KeyboardId>,
}

/// Attach to a terminal session: a WebSocket (docs/protocol.md). For its owner and admins with the terminal right, and
/// for its guests.
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
    let key = upgrade.key().clone();
    let wanted = Wanted {
        from: params.from,
        access: params.access.unwrap_or_default(),
        keyboard: params.keyboard,
    };
    let attached = app.attach_terminal(&caller, id, wanted, key);
    match attached.await {
        Ok(attachment) => Ok(join(upgrade, &app, caller, attachment)),
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
        .attach_old(&caller, vm.clone(), upgrade.key().clone())
        .await
    {
        Ok(attachment) => Ok(join(upgrade, &app, caller, attachment)),
        Err(error @ Error::Forbidden(_)) => Err(error.into()),
        Err(error) => {
            let status = app.fleet().status(&vm.agent);
            Ok(upgrade.turn_away(&app, old_refusal(&vm, status, &error)))
        }
    }
}

/// Accepts, and joins the viewer to the agent's end.
fn join(upgrade: Upgrade, app: &App, caller: Caller, attachment: Attachment) -> Response {
    if attachment
        .accept()
        .is_some_and(|agent| *agent != upgrade.accept_key())
    {
        tracing::warn!("an agent answered a WebSocket handshake wrongly; going on");
    }
    let joining = app.clone();
    upgrade.accept(app, move |viewer| async move {
        joining.join(&caller, viewer, attachment).await;
    })
}
