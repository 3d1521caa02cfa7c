//! Networks of machines that new VMs can be put on.

use axum::{Json, extract::State};
use batwa_api::{id::AgentId, list::Items, vm::HostNetwork};

use super::{ApiResult, extract::Path};
use crate::app::{App, auth::Caller};

/// The networks of a machine that new VMs could be put on (`networks` of a VM's spec), and why not where its policy, or
/// something else there, does not let them.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/networks", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")),
    responses((status = 200, body = Items<HostNetwork>)))]
pub(crate) async fn networks(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Items<HostNetwork>>> {
    Ok(Json(app.networks(&caller, &agent).await?.into()))
}
