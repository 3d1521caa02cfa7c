//! Keys that agents register with the old way.

use axum::{Json, extract::State};
use batwa_api::{
    agent::{AgentKey, CreateAgentKey, CreatedAgentKey},
    id::AgentKeyId,
    list::Items,
};
use http::StatusCode;

use super::{
    ApiResult,
    extract::{Body, Path},
};
use crate::app::{App, auth::Caller};

/// All keys, the newest first.
#[utoipa::path(get, path = "/api/v1/agent-keys", tag = "agent keys", responses((status = 200, body = Items<AgentKey>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Items<AgentKey>>> {
    Ok(Json(app.agent_keys(&caller).await?.into()))
}

/// Make a key; the only time it is shown.
#[utoipa::path(post, path = "/api/v1/agent-keys", tag = "agent keys", request_body = CreateAgentKey,
    responses((status = 201, body = CreatedAgentKey)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateAgentKey>,
) -> ApiResult<(StatusCode, Json<CreatedAgentKey>)> {
    let created = app.create_agent_key(&caller, body).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Remove a key: nobody enrols with it any more; agents that did stay.
#[utoipa::path(delete, path = "/api/v1/agent-keys/{key}", tag = "agent keys",
    params(("key" = AgentKeyId, Path, description = "the key's id")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<AgentKeyId>,
) -> ApiResult<StatusCode> {
    app.delete_agent_key(&caller, key).await?;
    Ok(StatusCode::NO_CONTENT)
}
