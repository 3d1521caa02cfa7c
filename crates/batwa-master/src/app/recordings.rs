//! Recordings of terminal sessions: they lie on the disks of agents, which alone search them. An account sees those of
//! its own sessions, an admin all.

mod policy;

use std::time::Duration;

use axum::body::Body;
use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    id::{AgentId, RecordingId, TerminalId},
    name::VmName,
    problem::{Problem, ProblemCode},
    recording::{
        FoundRecording, ListedRecording, RecordTerminal, Recording, Recordings, SilentAgent,
        StartRecording,
    },
    terminal::ListedTerminal,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use tokio::time::timeout;

use super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right},
    operations::agent_error,
};
use crate::{client::legacy::path_segment, fleet::search::pattern::AgentPattern};

/// How many agents are asked at a time, and how many at most when the caller names none.
const ASKED_AT_A_TIME: usize = 16;
const ASKED_AT_MOST: usize = 256;
/// How long one may take: its own limit for searching a text is below.
const PATIENCE: Duration = Duration::from_secs(10);
/// Machines that are named as not asked.
const MAX_SILENT: usize = 100;

/// Which recordings are looked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordingQuery {
    /// Of these agents; empty means all.
    pub(crate) agents: Vec<AgentPattern>,
    pub(crate) vm: Option<VmName>,
    /// An account's name.
    pub(crate) user: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// A text that was printed.
    pub(crate) text: Option<String>,
    pub(crate) limit: usize,
}

impl App {
    /// Begins to record a session that goes on.
    pub(crate) async fn start_recording(
        &self,
        caller: &Caller,
        id: TerminalId,
        start: StartRecording,
    ) -> Result<ListedTerminal, Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        let contact = self.online(&agent)?;
        let ownership = self
            .fleet()
            .read(|state| state.ownerships.get(&id).cloned());
        let record = RecordTerminal {
            input: start.input,
            required: false,
            owner: ownership.as_ref().and_then(|it| it.owner),
            user: ownership.map(|it| it.owner_name).unwrap_or_default(),
        };
        let recorded = contact.client.record_terminal(id, &record).await;
        let recorded = recorded.map_err(|error| match error.is_not_found() {
            // It knows no such path, or no such session any more.
            true => cannot_record(&agent),
            false => agent_error(&agent, error),
        })?;
        self.fleet().put_terminal(&agent, recorded);
        let input = if start.input { " with input" } else { "" };
        let detail = format!("session {id}{input}");
        self.audit_terminal(caller, "recording.start", &agent, &terminal, detail)
            .await?;
        self.listed(id)
    }

    /// Ends the recording of a session, which goes on.
    pub(crate) async fn stop_recording(
        &self,
        caller: &Caller,
        id: TerminalId,
    ) -> Result<(), Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        let contact = self.online(&agent)?;
        let stopped = contact.client.stop_recording(id).await;
        stopped.map_err(|error| agent_error(&agent, error))?;
        let detail = format!("session {id}");
        self.audit_terminal(caller, "recording.stop", &agent, &terminal, detail)
            .await
    }

    /// The recordings that match and that the caller may see, the newest first.
    pub(crate) async fn recordings(
        &self,
        caller: &Caller,
        query: &RecordingQuery,
    ) -> Result<Recordings, Error> {
        let mut answer = Recordings::default();
        let agents: Vec<(AgentId, AgentStatus)> = self.fleet().read(|state| {
            let all = state.agents.iter().filter(|(id, entry)| {
                let named = query.agents.is_empty()
                    || query.agents.iter().any(|pattern| pattern.matches(id));
                named && entry.record.is_some() && !entry.legacy
            });
            all.map(|(id, entry)| (id.clone(), entry.standing.status))
                .collect()
        });
        let (online, away): (Vec<_>, Vec<_>) = agents
            .into_iter()
            .partition(|(_, status)| *status == AgentStatus::Online);
        answer.unanswered = away
            .into_iter()
            .map(|(agent_id, _)| SilentAgent {
                agent_id,
                reason: "it is offline".to_owned(),
            })
            .collect();
        answer.partial = online.len() > ASKED_AT_MOST;
        let path = &agent_path(caller, query);
        let answers: Vec<_> = stream::iter(online.into_iter().take(ASKED_AT_MOST))
            .map(|(agent, _)| async move {
                let found = async {
                    let contact = self.online(&agent)?;
                    let found = contact.client.recordings(path).await;
                    found.map_err(|error| agent_error(&agent, error))
                };
                let found = timeout(PATIENCE, found).await;
                (agent, found)
            })
            .buffer_unordered(ASKED_AT_A_TIME)
            .collect()
            .await;
        for (agent_id, found) in answers {
            match found {
                Ok(Ok(found)) => {
                    answer.partial |= found.partial;
                    let items = found.items.into_iter().take(query.limit);
                    let items = items.filter_map(|found| seen(caller, &agent_id, found));
                    answer.items.extend(items);
                }
                // Agents of before make no recordings.
                Ok(Err(error)) if error.code() == ProblemCode::NotFound => {}
                Ok(Err(error)) => answer.unanswered.push(SilentAgent {
                    agent_id,
                    reason: error.to_string(),
                }),
                Err(_) => answer.unanswered.push(SilentAgent {
                    agent_id,
                    reason: format!("it did not answer within {} s", PATIENCE.as_secs()),
                }),
            }
        }
        answer
            .items
            .sort_by_key(|item| std::cmp::Reverse(item.found.recording.started_at));
        answer.partial |= answer.items.len() > query.limit;
        answer.items.truncate(query.limit);
        answer
            .unanswered
            .sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        answer.unanswered.truncate(MAX_SILENT);
        Ok(answer)
    }

    /// One recording.
    pub(crate) async fn recording(
        &self,
        caller: &Caller,
        agent: &AgentId,
        id: RecordingId,
    ) -> Result<ListedRecording, Error> {
        let contact = self.online(agent)?;
        let recording = contact.client.recording(id).await;
        let recording = recording.map_err(|error| match error.is_not_found() {
            true => missing(id),
            false => agent_error(agent, error),
        })?;
        let found = FoundRecording {
            recording,
            found: None,
        };
        let listed = seen(caller, agent, found).filter(|it| it.found.recording.id == id);
        listed.ok_or_else(|| missing(id))
    }

    /// A recording's file, as it comes from the agent.
    pub(crate) async fn recording_file(
        &self,
        caller: &Caller,
        agent: &AgentId,
        id: RecordingId,
    ) -> Result<Response<Body>, Error> {
        let listed = self.recording(caller, agent, id).await?;
        let contact = self.online(agent)?;
        let path = format!("/api/v1/recordings/{id}/cast");
        let opened = contact
            .client
            .stream(Method::GET, &path, HeaderMap::new(), Body::empty());
        let opened = timeout(PATIENCE, opened)
            .await
            .unwrap_or(Err(crate::client::ClientError::Timeout(PATIENCE)));
        let answer = opened.map_err(|error| agent_error(agent, error))?;
        let recording = &listed.found.recording;
        self.audit_recording(caller, "recording.read", agent, recording)
            .await?;
        let length = answer.headers().get(header::CONTENT_LENGTH).cloned();
        let mut response = Response::new(Body::new(answer.into_body()));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-asciicast"),
        );
        headers.extend(length.map(|length| (header::CONTENT_LENGTH, length)));
        let name = format!("attachment; filename=\"{id}.cast\"");
        if let Ok(name) = HeaderValue::from_str(&name) {
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        Ok(response)
    }

    /// Deletes a recording.
    pub(crate) async fn delete_recording(
        &self,
        caller: &Caller,
        agent: &AgentId,
        id: RecordingId,
    ) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        let listed = self.recording(caller, agent, id).await?;
        let contact = self.online(agent)?;
        let deleted = contact.client.delete_recording(id).await;
        deleted.map_err(|error| agent_error(agent, error))?;
        self.audit_recording(caller, "recording.delete", agent, &listed.found.recording)
            .await
    }

    async fn audit_recording(
        &self,
        caller: &Caller,
        action: &str,
        agent: &AgentId,
        recording: &Recording,
    ) -> Result<(), Error> {
        let record = Record {
            detail: Some(format!(
                "recording {} of `{}`",
                recording.id, recording.user
            )),
            ..Record::ok(action, format!("{agent}/{}", recording.vm))
        };
        self.audit(caller, record).await
    }
}

/// That an agent of before cannot record.
pub(super) fn cannot_record(agent: &AgentId) -> Error {
    Error::Problem(Box::new(Problem::new(
        ProblemCode::Unsupported,
        format!(
            "{} runs an agent that cannot record terminals: update Batwa there",
            App::agent_words(agent)
        ),
    )))
}

fn missing(id: RecordingId) -> Error {
    Error::NotFound(format!("recording `{id}`"))
}

/// Where to ask an agent.
fn agent_path(caller: &Caller, query: &RecordingQuery) -> String {
    let mut path = format!("/api/v1/recordings?limit={}", query.limit);
    let owner = caller
        .require(Right::Administer)
        .is_err()
        .then(|| caller.user_id.to_string());
    for (name, value) in [
        ("owner", owner),
        ("vm", query.vm.as_ref().map(|vm| vm.as_str().to_owned())),
        ("user", query.user.clone()),
        ("since", query.since.map(|since| since.to_string())),
        ("until", query.until.map(|until| until.to_string())),
        ("q", query.text.clone()),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", path_segment(&value)));
        }
    }
    path
}

/// A recording as the caller sees it, within bounds; `None` when it is none of theirs, whatever the agent says.
fn seen(caller: &Caller, agent: &AgentId, mut found: FoundRecording) -> Option<ListedRecording> {
    let recording = &mut found.recording;
    let theirs = recording.owner == Some(caller.user_id);
    if !theirs && caller.require(Right::Administer).is_err() {
        return None;
    }
    recording.user = crate::client::clip(&recording.user, 64);
    if let Some(ended) = &mut recording.ended {
        *ended = crate::client::clip(ended, Recording::MAX_REASON);
    }
    if let Some(place) = &mut found.found {
        place.line =
            crate::client::clip(&place.line, batwa_api::recording::RecordingMatch::MAX_LINE);
    }
    Some(ListedRecording {
        agent_id: agent.clone(),
        found,
    })
}
