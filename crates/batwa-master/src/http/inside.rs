//! Commands in VMs, and connections to their ports and displays.

use axum::{extract::State, response::Response};
use batwa_api::{
    exec::{ExecLine, ExecServerFrame, PostExec},
    id::AgentId,
    name::VmName,
    port::PortFrame,
};

use super::{
    ApiResult,
    extract::{Body, Path},
    upgrade::Upgrade,
};
use crate::app::{App, Error, auth::Caller, terminals::refusal, vms::VmRef};

/// Run a command in a VM, with input: a WebSocket (docs/protocol.md).
#[utoipa::path(get, path = "/api/v1/agents/{agent}/vms/{vm}/exec", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")),
    responses((status = 101, description = "binary frames are a stream's number and bytes, text frames JSON control", body = ExecServerFrame)))]
pub(crate) async fn exec(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let way = app.way_into(&caller, VmRef { agent, name }, "run a command in")?;
    let key = upgrade.key().clone();
    let running = app.clone();
    Ok(upgrade.accept(&app, move |viewer| async move {
        running.exec(way, key, viewer).await;
    }))
}

/// Run a command in a VM and answer what it prints, one JSON object a line; the last says how it ended.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/exec", tag = "inside", request_body = PostExec,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")),
    responses((status = 200, body = ExecLine, content_type = "application/x-ndjson")))]
pub(crate) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Body(body): Body<PostExec>,
) -> ApiResult<Response> {
    let way = app.way_into(&caller, VmRef { agent, name }, "run a command in")?;
    Ok(app.run_exec(way, &body).await?)
}

/// Connect to a TCP port inside a VM: a WebSocket (docs/protocol.md).
#[utoipa::path(get, path = "/api/v1/agents/{agent}/vms/{vm}/ports/{port}", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"),
        ("port" = u16, Path, description = "the port")),
    responses((status = 101, description = "binary frames are bytes, text frames JSON control", body = PortFrame)))]
pub(crate) async fn connect(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name, port)): Path<(AgentId, VmName, u16)>,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let way = app.way_into(&caller, VmRef { agent, name }, "connect to")?;
    let attached = app.connect_port(&way, port, upgrade.key().clone()).await?;
    let joining = app.clone();
    Ok(upgrade.accept(&app, move |viewer| async move {
        joining.join_connection(&way, attached, viewer).await;
    }))
}

/// See the display of a VM, and use keyboard and mouse there: a WebSocket that carries RFB, as VNC viewers speak it
/// (docs/protocol.md).
#[utoipa::path(get, path = "/api/v1/agents/{agent}/vms/{vm}/display", tag = "inside",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")),
    responses((status = 101, description = "binary frames are bytes of RFB")))]
pub(crate) async fn display(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let connected = async {
        let way = app.way_to_display(&caller, VmRef { agent, name })?;
        let attached = app.connect_display(&way, upgrade.key().clone()).await?;
        Ok::<_, Error>((way, attached))
    };
    match connected.await {
        Ok((way, attached)) => {
            let joining = app.clone();
            Ok(upgrade.accept(&app, move |viewer| async move {
                joining.join_connection(&way, attached, viewer).await;
            }))
        }
        Err(error) => match refusal(&error) {
            Some(ending) => Ok(upgrade.turn_away(&app, ending)),
            None => Err(error.into()),
        },
    }
}
