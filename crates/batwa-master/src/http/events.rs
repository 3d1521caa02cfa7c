//! `GET /api/v1/events`: changes as Server-Sent Events.

use std::{convert::Infallible, time::Duration};

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
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    ApiResult,
    extract::Query,
    list::{split, words_of},
    vms::agent_patterns,
};
use crate::{
    app::{
        App, Error,
        agents::for_caller,
        auth::{Caller, Right},
    },
    fleet::{
        Follower,
        events::{
            Followed, Published,
            filter::{EventFilter, Kind, VmPattern},
        },
    },
};

/// Between two signs of life, below what proxies cut idle connections after.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often a follower that sees little of what happens is told how far it has come.
const PLACE_INTERVAL: Duration = Duration::from_secs(5);
/// How soon a browser comes back after a cut.
const RETRY: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// `agents`, `vms`, `operations`, `terminals`, separated by commas; all of them when absent.
    kinds: Option<String>,
    /// Machines by id, separated by commas; a star at the end stands for any rest.
    agent: Option<String>,
    /// VMs as `agent/name` or `name`, separated by commas.
    vm: Option<String>,
}

impl EventParams {
    fn filter(&self) -> Result<EventFilter, Error> {
        Ok(EventFilter {
            kinds: words_of::<Kind>("kinds", self.kinds.as_deref())?,
            agents: agent_patterns(self.agent.as_deref())?,
            vms: split(self.vm.as_deref())
                .map(|vm| {
                    VmPattern::parse(vm).ok_or_else(|| {
                        Error::invalid("vm", format!("`{vm}` can be no VM: `agent/name` or `name`"))
                    })
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Follow changes: Server-Sent Events, each named by its type, its data an event as JSON; `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventParams, ("Last-Event-ID" = Option<String>, Header, description = "the last event's id that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = Event)))]
pub(crate) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<EventParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let filter = params.filter()?;
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
    // An admin sees more: one who is none any more comes back as what they are now.
    let right = match caller.require(Right::Administer) {
        Ok(()) => Right::Administer,
        Err(_) => Right::Read,
    };
    let over = {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            tokio::select! {
                _ = app.withdrawn(&caller, right) => {}
                () = app.stopping().cancelled() => {}
            }
        }
    };
    let place = Following {
        follower,
        filter,
        caller,
    };
    let changes = stream::unfold(place, |mut place| async move {
        let event = place.next().await?;
        Some((event, place))
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

/// One who follows, and what it asked for.
struct Following {
    follower: Follower,
    filter: EventFilter,
    caller: Caller,
}

impl Following {
    /// The next event that was asked for; in quiet times the place reached, so that whoever is cut off then need not
    /// start anew from the last event that it happened to see.
    async fn next(&mut self) -> Option<sse::Event> {
        let quiet = tokio::time::sleep(PLACE_INTERVAL);
        tokio::pin!(quiet);
        let mut passed_by = false;
        loop {
            let followed = tokio::select! {
                followed = self.follower.events.next() => followed,
                () = &mut quiet, if passed_by => {
                    let id = self.follower.events.last_id().to_string();
                    return Some(sse::Event::default().id(id).comment("quiet"));
                }
            };
            match followed {
                Followed::Event(published) if self.filter.matches(&published.event) => {
                    return Some(shown(&published, &self.caller));
                }
                Followed::Event(_) => passed_by = true,
                Followed::Reload(id) => {
                    let reload = sse::Event::default().id(id.to_string()).event("reload");
                    return Some(reload.data(r#"{"type":"reload"}"#));
                }
                Followed::End => return None,
            }
        }
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
