//! Recordings of terminal sessions over HTTP.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use batwa_api::{
    Timestamp,
    id::{RecordingId, UserId},
    name::VmName,
    problem::Problem,
    recording::{FoundRecordings, Recording},
};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;

use super::{
    App,
    error::ApiResult,
    extract::{PathOf, QueryOf},
};
use crate::recording::Filter;

/// Most recordings in one answer.
const MAX_LIMIT: usize = 1000;
/// Longest text that is searched for.
const MAX_TEXT: usize = 200;
/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;

/// Which recordings.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordingQuery {
    /// Of this VM.
    vm: Option<VmName>,
    /// Of this account's sessions.
    owner: Option<UserId>,
    /// Of the account with this name.
    user: Option<String>,
    /// That began then or later.
    since: Option<Timestamp>,
    /// That began before.
    until: Option<Timestamp>,
    /// In which this was printed, whatever its case; at most 200 bytes.
    q: Option<String>,
    /// At most so many, and never above 1000.
    limit: Option<usize>,
}

/// The recordings that match, the newest first.
#[utoipa::path(
    get, path = "/api/v1/recordings", tag = "recordings", params(RecordingQuery),
    responses((status = 200, body = FoundRecordings), (status = 500, body = Problem))
)]
pub(crate) async fn list_recordings(
    State(app): State<App>,
    QueryOf(query): QueryOf<RecordingQuery>,
) -> ApiResult<Json<FoundRecordings>> {
    let filter = Filter {
        vm: query.vm,
        owner: query.owner,
        user: query.user,
        since: query.since,
        until: query.until,
        text: query.q.map(|mut text| {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text
        }),
        limit: query.limit.unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
    };
    let found = app.recordings().find(&filter).await;
    Ok(Json(found.map_err(Problem::from)?))
}

/// One recording.
#[utoipa::path(
    get, path = "/api/v1/recordings/{id}", tag = "recordings", params(("id" = RecordingId, Path)),
    responses((status = 200, body = Recording), (status = 404, body = Problem))
)]
pub(crate) async fn get_recording(
    State(app): State<App>,
    PathOf(id): PathOf<RecordingId>,
) -> ApiResult<Json<Recording>> {
    let recording = app.recordings().get(id).await;
    Ok(Json(recording.map_err(Problem::from)?))
}

/// A recording's file: asciicast v2, as far as it is written.
#[utoipa::path(
    get, path = "/api/v1/recordings/{id}/cast", tag = "recordings", params(("id" = RecordingId, Path)),
    responses(
        (status = 200, description = "asciicast v2", content_type = "application/x-asciicast"),
        (status = 404, body = Problem),
    )
)]
pub(crate) async fn get_cast(
    State(app): State<App>,
    PathOf(id): PathOf<RecordingId>,
) -> ApiResult<Response> {
    let (recording, file) = app.recordings().open(id).await.map_err(Problem::from)?;
    let bytes = recording.bytes.as_u64();
    let pieces = ReaderStream::with_capacity(file.take(bytes), PIECE);
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-asciicast"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

/// Delete a recording that has ended.
#[utoipa::path(
    delete, path = "/api/v1/recordings/{id}", tag = "recordings", params(("id" = RecordingId, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn delete_recording(
    State(app): State<App>,
    PathOf(id): PathOf<RecordingId>,
) -> ApiResult<StatusCode> {
    app.recordings().remove(id).await.map_err(Problem::from)?;
    Ok(StatusCode::NO_CONTENT)
}
