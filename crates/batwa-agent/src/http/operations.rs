//! Operations: start, look, cancel.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use batwa_api::{
    id::OperationId,
    list::Items,
    operation::{LogLine, Operation, StartOperation},
    problem::{Problem, ProblemCode},
};

use super::{
    App,
    error::{ApiError, ApiResult},
    extract::{JsonBody, PathOf},
};
use crate::operations::Started;

/// Start an operation. The same id again answers with the one that is there, so a call can safely be repeated.
#[utoipa::path(
    put, path = "/api/v1/operations/{id}", tag = "operations", params(("id" = OperationId, Path)),
    request_body = StartOperation,
    responses(
        (status = 202, body = Operation, description = "accepted and written down"),
        (status = 200, body = Operation, description = "an operation with this id is there already"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn start_operation(
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
    JsonBody(start): JsonBody<StartOperation>,
) -> ApiResult<Response> {
    app.wait_for_first_word().await;
    let (status, operation) = match app.operations().start(id, start).await? {
        Started::New(operation) => (StatusCode::ACCEPTED, operation),
        Started::Known(operation) => (StatusCode::OK, operation),
    };
    let mut response = (status, Json(operation)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/operations/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// All operations that are not finished and the last that are, the newest first.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations", responses((status = 200, body = Items<Operation>)))]
pub(crate) async fn list_operations(State(app): State<App>) -> Json<Items<Operation>> {
    Json(app.picture().operations().into())
}

/// One operation.
#[utoipa::path(
    get, path = "/api/v1/operations/{id}", tag = "operations", params(("id" = OperationId, Path)),
    responses((status = 200, body = Operation), (status = 404, body = Problem))
)]
pub(crate) async fn get_operation(
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
) -> ApiResult<Json<Operation>> {
    app.operations()
        .get(id)
        .map(Json)
        .ok_or_else(|| missing(id))
}

/// Cancel an operation that waits or runs; a finished one stays as it is.
#[utoipa::path(
    post, path = "/api/v1/operations/{id}/cancel", tag = "operations", params(("id" = OperationId, Path)),
    responses((status = 200, body = Operation), (status = 404, body = Problem))
)]
pub(crate) async fn cancel_operation(
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
) -> ApiResult<Json<Operation>> {
    app.operations()
        .cancel(id)
        .await
        .map(Json)
        .ok_or_else(|| missing(id))
}

/// What the driver and we printed while it ran, the last lines.
#[utoipa::path(
    get, path = "/api/v1/operations/{id}/log", tag = "operations", params(("id" = OperationId, Path)),
    responses((status = 200, body = Items<LogLine>), (status = 404, body = Problem))
)]
pub(crate) async fn get_operation_log(
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
) -> ApiResult<Json<Items<LogLine>>> {
    app.operations()
        .log(id)
        .map(|lines| Json(lines.into()))
        .ok_or_else(|| missing(id))
}

fn missing(id: OperationId) -> ApiError {
    ApiError::new(
        ProblemCode::NotFound,
        format!("there is no operation `{id}`, or it is long finished"),
    )
}
