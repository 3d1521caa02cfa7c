//! Agents.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use batwa_api::{
    agent::{Agent, AgentStatus, ApproveAgent, LinkChange, Removal, UpdateAgent},
    id::AgentId,
    list::{AgentList, Items},
};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    list::{ListParams, bad_search, cursor, sort, words_of},
};
use crate::{
    app::{App, Error, auth::Caller},
    fleet::{
        agent_list::{AgentCursor, AgentQuery, AgentSort},
        search::{self, Term, agents::AgentTest},
    },
};

/// Which agents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentParams {
    /// A search: words, and fields as in `status:offline label:site=a -is:cordoned vms>10`.
    q: Option<String>,
    /// Statuses, separated by commas.
    status: Option<String>,
    /// `id`, `name`, `status`, `vms` or `seen`; with `-` in front the other way round.
    sort: Option<String>,
    /// Most items, 1 to 1000; 100 when absent.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

impl AgentParams {
    fn query(&self) -> Result<AgentQuery, Error> {
        let q = self.q.as_deref().unwrap_or_default();
        let mut terms = search::agents::parse(q).map_err(|error| bad_search(&error))?;
        let statuses = words_of::<AgentStatus>("status", self.status.as_deref())?;
        if !statuses.is_empty() {
            terms.push(Term::wanted(AgentTest::Status(statuses)));
        }
        let (sort, direction) = sort(self.sort.as_deref(), &AgentSort::ALL)?;
        Ok(AgentQuery {
            terms,
            sort,
            direction,
            limit: ListParams::limit(self.limit)?,
            after: cursor(self.cursor.as_deref(), AgentCursor::decode, |cursor| {
                cursor.fits(sort, direction)
            })?,
        })
    }
}

/// The machines.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(AgentParams), responses((status = 200, body = AgentList)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<AgentParams>,
) -> ApiResult<Json<AgentList>> {
    Ok(Json(app.list_agents(&caller, params.query()?).await?))
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

/// How to remove a machine.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Only say what it would take away.
    #[serde(default)]
    dry_run: bool,
}

/// Remove a machine from the list; its VMs are not touched.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id"), DeleteParams),
    responses((status = 204), (status = 200, body = Removal, description = "with `dry_run`: nothing was done")))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
    Query(params): Query<DeleteParams>,
) -> ApiResult<Response> {
    if params.dry_run {
        return Ok(Json(app.agent_removal(&caller, &agent)?).into_response());
    }
    app.delete_agent(&caller, &agent).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The last changes of a machine's link, the newest first.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/links", tag = "agents",
    params(("agent" = AgentId, Path, description = "the agent's id")), responses((status = 200, body = Items<LinkChange>)))]
pub(crate) async fn links(
    State(app): State<App>,
    Path(agent): Path<AgentId>,
) -> ApiResult<Json<Items<LinkChange>>> {
    Ok(Json(app.agent_links(&agent).await?.into()))
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
