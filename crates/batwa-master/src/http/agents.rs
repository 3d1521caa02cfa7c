//! Agents.

use axum::{Json, extract::State};
use batwa_api::{
    agent::{Agent, AgentStatus, ApproveAgent, UpdateAgent},
    id::AgentId,
    list::AgentList,
};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    list::{ListParams, words, words_of},
};
use crate::app::{App, Error, agents::AgentQuery, auth::Caller};

/// Which agents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentParams {
    /// Words that must all be found in id, name, address or labels.
    q: Option<String>,
    /// Statuses, separated by commas.
    status: Option<String>,
    /// Most items, 1 to 1000; 100 when absent.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The machines, by id.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(AgentParams), responses((status = 200, body = AgentList)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<AgentParams>,
) -> ApiResult<Json<AgentList>> {
    let after = params
        .cursor
        .map(|cursor| {
            AgentId::parse(&cursor)
                .map_err(|_| Error::invalid("cursor", "give the `next_cursor` of a page"))
        })
        .transpose()?;
    let query = AgentQuery {
        words: words(params.q.as_deref()),
        statuses: words_of::<AgentStatus>("status", params.status.as_deref())?,
        limit: ListParams::limit(params.limit)?,
        after,
    };
    Ok(Json(app.list_agents(&caller, &query)))
}

/// One machine.
#[utoipa::path(get, path = "/api/v1/agents/{agent}", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.agent(&caller, &agent)?))
}

/// Rename a machine for display, or set its labels.
#[utoipa::path(patch, path = "/api/v1/agents/{agent}", tag = "agents", request_body = UpdateAgent,
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
    Body(body): Body<UpdateAgent>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.update_agent(&caller, &agent, body).await?))
}

/// Remove a machine from the list; its VMs are not touched.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<StatusCode> {
    app.delete_agent(&caller, &agent).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a waiting machine in.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/approve", tag = "agents", request_body = ApproveAgent,
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
    OptionalBody(body): OptionalBody<ApproveAgent>,
) -> ApiResult<Json<Agent>> {
    let fingerprint = body.fingerprint.as_deref();
    Ok(Json(app.approve_agent(&caller, &agent, fingerprint).await?))
}

/// Let no new VM be made on a machine.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/cordon", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn cordon(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.cordon_agent(&caller, &agent).await?))
}

/// Let new VMs be made on a machine again.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/uncordon", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn uncordon(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.uncordon_agent(&caller, &agent).await?))
}

/// Shut a machine out: it is not contacted, and may not register again.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/revoke", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.revoke_agent(&caller, &agent).await?))
}

/// Have a machine that joined with a token change its key.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/rotate-key", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Agent)))]
pub(crate) async fn rotate_key(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(app.rotate_agent_key(&caller, &agent).await?))
}
