//! Recordings of terminal sessions, and which are made.

use axum::{Json, extract::State, response::Response};
use batwa_api::{
    Timestamp,
    id::{AgentId, RecordingId, TerminalId},
    name::VmName,
    recording::{ListedRecording, RecordingPolicy, Recordings, StartRecording},
    terminal::ListedTerminal,
};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    vms::agent_patterns,
};
use crate::app::{App, Error, auth::Caller, recordings::RecordingQuery};

/// Most recordings in one answer, and how many come when nothing is said.
const MAX_LIMIT: usize = 1000;
const USUAL_LIMIT: usize = 100;
/// Longest text that is searched for.
const MAX_TEXT: usize = 200;

/// Which recordings.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordingParams {
    /// Machines by id, separated by commas; a star at the end stands for any rest.
    agent: Option<String>,
    /// Only sessions of VMs with this name.
    vm: Option<VmName>,
    /// Only sessions of this account.
    user: Option<String>,
    /// Only those that began then or later.
    since: Option<Timestamp>,
    /// Only those that began before.
    until: Option<Timestamp>,
    /// A text that was printed, whatever its case; each comes with the first line that has it.
    q: Option<String>,
    /// At most so many: 100, and never above 1000.
    limit: Option<usize>,
}

/// Recordings of terminal sessions, the newest first: of one's own, or of all for admins. The machines are asked, so
/// those that are offline are named instead.
#[utoipa::path(get, path = "/api/v1/recordings", tag = "recordings", params(RecordingParams),
    responses((status = 200, body = Recordings)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<RecordingParams>,
) -> ApiResult<Json<Recordings>> {
    let text = params.q.filter(|text| !text.trim().is_empty());
    if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
        let message = format!("at most {MAX_TEXT} bytes");
        return Err(Error::invalid("q", message).into());
    }
    let query = RecordingQuery {
        agents: agent_patterns(params.agent.as_deref())?,
        vm: params.vm,
        user: params.user,
        since: params.since,
        until: params.until,
        text,
        limit: params.limit.unwrap_or(USUAL_LIMIT).clamp(1, MAX_LIMIT),
    };
    Ok(Json(app.recordings(&caller, &query).await?))
}

/// One recording.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/recordings/{recording}", tag = "recordings",
    params(("agent" = AgentId, Path, description = "the agent's id"),
        ("recording" = RecordingId, Path, description = "the recording's id")),
    responses((status = 200, body = ListedRecording)))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((agent, id)): Path<(AgentId, RecordingId)>,
) -> ApiResult<Json<ListedRecording>> {
    Ok(Json(app.recording(&caller, &agent, id).await?))
}

/// A recording's file: asciicast v2, as far as it is written.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/recordings/{recording}/cast", tag = "recordings",
    params(("agent" = AgentId, Path, description = "the agent's id"),
        ("recording" = RecordingId, Path, description = "the recording's id")),
    responses((status = 200, description = "asciicast v2", content_type = "application/x-asciicast")))]
pub(crate) async fn file(
    State(app): State<App>,
    caller: Caller,
    Path((agent, id)): Path<(AgentId, RecordingId)>,
) -> ApiResult<Response> {
    Ok(app.recording_file(&caller, &agent, id).await?)
}

/// Delete a recording that has ended.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}/recordings/{recording}", tag = "recordings",
    params(("agent" = AgentId, Path, description = "the agent's id"),
        ("recording" = RecordingId, Path, description = "the recording's id")),
    responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((agent, id)): Path<(AgentId, RecordingId)>,
) -> ApiResult<StatusCode> {
    app.delete_recording(&caller, &agent, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which sessions have to be recorded.
#[utoipa::path(get, path = "/api/v1/recording-policy", tag = "recordings",
    responses((status = 200, body = RecordingPolicy)))]
pub(crate) async fn policy(State(app): State<App>) -> ApiResult<Json<RecordingPolicy>> {
    Ok(Json(app.recording_policy().await?))
}

/// Decide which sessions have to be recorded, from the next that is opened on.
#[utoipa::path(put, path = "/api/v1/recording-policy", tag = "recordings", request_body = RecordingPolicy,
    responses((status = 200, body = RecordingPolicy)))]
pub(crate) async fn set_policy(
    State(app): State<App>,
    caller: Caller,
    Body(policy): Body<RecordingPolicy>,
) -> ApiResult<Json<RecordingPolicy>> {
    Ok(Json(app.set_recording_policy(&caller, policy).await?))
}

/// Record a terminal session from now on. For its owner and admins.
#[utoipa::path(put, path = "/api/v1/terminals/{terminal}/recording", tag = "recordings", request_body = StartRecording,
    params(("terminal" = TerminalId, Path, description = "the session's id")),
    responses((status = 200, body = ListedTerminal)))]
pub(crate) async fn start(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
    OptionalBody(body): OptionalBody<StartRecording>,
) -> ApiResult<Json<ListedTerminal>> {
    Ok(Json(app.start_recording(&caller, id, body).await?))
}

/// End the recording of a terminal session, unless a policy requires it. For its owner and admins.
#[utoipa::path(delete, path = "/api/v1/terminals/{terminal}/recording", tag = "recordings",
    params(("terminal" = TerminalId, Path, description = "the session's id")), responses((status = 204)))]
pub(crate) async fn stop(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TerminalId>,
) -> ApiResult<StatusCode> {
    app.stop_recording(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
