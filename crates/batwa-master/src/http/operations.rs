//! Operations.

use axum::{Json, extract::State, response::Response};
use batwa_api::{
    id::{AgentId, OperationId},
    list::{Items, OperationList},
    name::VmName,
    operation::{LogLine, Operation, OperationKind, OperationState},
};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Path, Query},
    list::{ListParams, wait, words_of},
    vms::{IdempotencyKey, SlowParams, accepted},
};
use crate::{
    app::{App, Error, auth::Caller},
    store::operations::OperationQuery,
};

/// Which operations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationParams {
    /// States, separated by commas.
    state: Option<String>,
    /// Only of this agent.
    agent: Option<String>,
    /// Only of VMs with this name.
    vm: Option<String>,
    /// Kinds, separated by commas.
    kind: Option<String>,
    /// Only those that this account asked for.
    requested_by: Option<String>,
    /// Most items, 1 to 1000; 100 when absent.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Operations, the newest first.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations", params(OperationParams),
    responses((status = 200, body = OperationList)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(params): Query<OperationParams>,
) -> ApiResult<Json<OperationList>> {
    let query = OperationQuery {
        states: words_of::<OperationState>("state", params.state.as_deref())?,
        agent: params
            .agent
            .map(|agent| {
                AgentId::parse(&agent).map_err(|error| Error::invalid("agent", error.to_string()))
            })
            .transpose()?,
        vm: params
            .vm
            .map(|vm| VmName::parse(&vm).map_err(|error| Error::invalid("vm", error.to_string())))
            .transpose()?,
        kinds: words_of::<OperationKind>("kind", params.kind.as_deref())?,
        requested_by: params.requested_by.filter(|name| !name.is_empty()),
        before: params
            .cursor
            .map(|cursor| {
                cursor
                    .parse::<OperationId>()
                    .map_err(|_| Error::invalid("cursor", "give the `next_cursor` of a page"))
            })
            .transpose()?,
        limit: ListParams::limit(params.limit)?,
    };
    Ok(Json(app.list_operations(query).await?))
}

/// Whether to wait.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Wait until it is finished, at most this long: `30s`, `2m`.
    wait: Option<String>,
}

/// One operation.
#[utoipa::path(get, path = "/api/v1/operations/{operation}", tag = "operations",
    params(("operation" = OperationId, Path, description = "the operation's id"), WaitParams),
    responses((status = 200, body = Operation)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<OperationId>,
    Query(params): Query<WaitParams>,
) -> ApiResult<Json<Operation>> {
    Ok(Json(match wait(params.wait.as_deref())? {
        Some(patience) => app.wait_for_operation(id, patience).await?,
        None => app.operation(id).await?,
    }))
}

/// Ask for an operation to be cancelled; how it ends is told by the operation.
#[utoipa::path(post, path = "/api/v1/operations/{operation}/cancel", tag = "operations",
    params(("operation" = OperationId, Path, description = "the operation's id")),
    responses((status = 202, body = Operation)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<OperationId>,
) -> ApiResult<(StatusCode, Json<Operation>)> {
    let operation = app.cancel_operation(&caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(operation)))
}

/// Ask for the same again as an operation that failed or was cancelled.
#[utoipa::path(post, path = "/api/v1/operations/{operation}/retry", tag = "operations",
    params(("operation" = OperationId, Path, description = "the operation's id"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<OperationId>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> ApiResult<Response> {
    let delivery = params.delivery(key)?;
    let operation = app.retry_operation(&caller, id, delivery).await?;
    accepted(&app, operation, &params).await
}

/// What the driver printed.
#[utoipa::path(get, path = "/api/v1/operations/{operation}/log", tag = "operations",
    params(("operation" = OperationId, Path, description = "the operation's id")),
    responses((status = 200, body = Items<LogLine>)))]
pub(crate) async fn log(
    State(app): State<App>,
    Path(id): Path<OperationId>,
) -> ApiResult<Json<Items<LogLine>>> {
    Ok(Json(app.operation_log(id).await?.into()))
}
