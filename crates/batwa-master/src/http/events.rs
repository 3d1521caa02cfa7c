//! `GET /api/v1/events`: changes as Server-Sent Events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use batwa_api::event::Event;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ApiResult;
use crate::{
    app::{
        App,
        agents::for_caller,
        auth::{Caller, Right},
    },
    fleet::{
        Follower,
        events::{Followed, Published},
    },
};

/// Between two signs of life, below what proxies cut idle connections after.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a browser comes back after a cut.
const RETRY: Duration = Duration::from_secs(1);

/// Follow changes: Server-Sent Events, each named by its type, its data an event as JSON; `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "the last event's id that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = Event)))]
pub(crate) async fn follow(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let last_seen = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let follower = app.fleet().follow(last_seen);
    // So that whoever is cut off before the first change can resume too.
    let began = sse::Event::default()
        .retry(RETRY)
        .id(last_seen
            .unwrap_or_else(|| follower.events.started_at())
            .to_string())
        .comment("following");
    let over = {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            tokio::select! {
                _ = app.withdrawn(&caller, Right::Read) => {}
                () = app.stopping().cancelled() => {}
            }
        }
    };
    let caller = Arc::new(caller);
    let changes = stream::unfold((follower, caller), |(mut follower, caller)| async move {
        let event = next(&mut follower, &caller).await?;
        Some((event, (follower, caller)))
    });
    let events = stream::once(async { began })
        .chain(changes)
        .take_until(Box::pin(over))
        .map(Ok::<_, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // nginx holds streams back unless told.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

async fn next(follower: &mut Follower, caller: &Caller) -> Option<sse::Event> {
    match follower.events.next().await {
        Followed::Event(published) => Some(shown(&published, caller)),
        Followed::Reload(id) => Some(
            sse::Event::default()
                .id(id.to_string())
                .event("reload")
                .data(r#"{"type":"reload"}"#),
        ),
        Followed::End => None,
    }
}

/// The event as `caller` may see it.
fn shown(published: &Published, caller: &Caller) -> sse::Event {
    let out = sse::Event::default()
        .id(published.id.to_string())
        .event(published.name());
    match &published.event {
        Event::Agent { agent }
            if !agent.registrations.is_empty() && caller.require(Right::Administer).is_err() =>
        {
            let event = Event::Agent {
                agent: for_caller(caller, agent.clone()),
            };
            let json = serde_json::to_string(&event).expect("events are plain data");
            out.data(json)
        }
        _ => out.data(published.json()),
    }
}
