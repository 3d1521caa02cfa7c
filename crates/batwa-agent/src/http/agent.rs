//! The agent itself: whether it lives, what it is, and the stream of its changes.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use batwa_api::{Timestamp, agent::AgentInfo, event::WatchEvent, id::AgentId};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use utoipa::{IntoParams, ToSchema};

use super::{App, extract::QueryOf};

/// Silence after which a watcher is told that the link lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a watch begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchOptions {
    /// For how many seconds the caller has not watched: the snapshot then holds what the agent began by itself and ended
    /// meanwhile, beside what ended in the last hour.
    away_s: Option<u64>,
}

/// Answer to `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// Always `ok`.
    status: &'static str,
    /// The agent's id.
    agent_id: AgentId,
    /// The agent's clock.
    timestamp: Timestamp,
}

/// Whether the process lives. Open to all.
#[utoipa::path(get, path = "/health", tag = "agent", responses((status = 200, body = HealthAnswer)))]
pub(crate) async fn health(State(app): State<App>) -> Json<HealthAnswer> {
    Json(HealthAnswer {
        status: "ok",
        agent_id: app.config().agent_id.clone(),
        timestamp: Timestamp::now(),
    })
}

/// What this agent is and how its drivers are.
#[utoipa::path(get, path = "/api/v1/agent", tag = "agent", responses((status = 200, body = AgentInfo)))]
pub(crate) async fn get_agent(State(app): State<App>) -> Json<AgentInfo> {
    Json(app.picture().agent())
}

/// Everything, and then every change, as newline-delimited JSON; open until the agent stops.
///
/// The first line is a snapshot. A reader that falls far behind gets another one. Ten seconds without a change
/// bring a keep-alive line.
#[utoipa::path(
    get, path = "/api/v1/watch", tag = "agent",
    params(WatchOptions),
    responses((status = 200, body = WatchEvent, content_type = "application/x-ndjson"))
)]
pub(crate) async fn watch(
    State(app): State<App>,
    QueryOf(options): QueryOf<WatchOptions>,
) -> Response {
    app.wait_for_first_word().await;
    let away = Duration::from_secs(options.away_s.unwrap_or_default());
    let watcher = app.picture().watch_after(away);
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let lines = stream::unfold(
        (app, watcher, ticks),
        |(app, mut watcher, mut ticks)| async {
            let line = tokio::select! {
                () = app.stop().cancelled() => return None,
                event = watcher.next() => {
                    ticks.reset();
                    line(&event)
                }
                _ = ticks.tick() => line(&app.picture().keep_alive()),
            };
            Some((line, (app, watcher, ticks)))
        },
    );
    (
        [
            (header::CONTENT_TYPE, "application/x-ndjson"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Body::from_stream(lines),
    )
        .into_response()
}

fn line(event: &WatchEvent) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}
