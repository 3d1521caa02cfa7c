//! Saved forwards: addresses of machines that lead to ports of their VMs.

use std::net::SocketAddr;

use axum::{Json, extract::State, http::StatusCode};
use batwa_api::{
    id::AgentId,
    name::VmName,
    vm::{SaveForward, VmDetails},
};

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, Error, auth::Caller, vms::VmRef};

/// Let an address of the VM's machine lead to a port of the VM whenever that runs, as far as that machine's policy allows it.
/// How it stands is in the VM's `forwards`.
#[utoipa::path(put, path = "/api/v1/agents/{agent}/vms/{vm}/forwards", tag = "vms", request_body = SaveForward,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")),
    responses((status = 200, body = VmDetails)))]
pub(crate) async fn save(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Body(forward): Body<SaveForward>,
) -> ApiResult<Json<VmDetails>> {
    let vm = VmRef { agent, name };
    Ok(Json(app.save_forward(&caller, &vm, forward).await?))
}

/// Let it lead there no more; connections that it carries are cut. One that leads nowhere is success.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}/vms/{vm}/forwards/{listen}", tag = "vms", responses((status = 204)),
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"),
        ("listen" = String, Path, description = "the address with its port")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name, listen)): Path<(AgentId, VmName, String)>,
) -> ApiResult<StatusCode> {
    let listen: SocketAddr = listen
        .parse()
        .map_err(|_| Error::invalid("listen", "write an address with a port: `127.0.0.1:8080`"))?;
    app.remove_forward(&caller, &VmRef { agent, name }, listen)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
