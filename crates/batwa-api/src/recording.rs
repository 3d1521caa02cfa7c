//! Recordings of terminal sessions: asciicast v2 files on the disks of agents, and when one is made.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{AgentId, RecordingId, TerminalId, UserId},
    name::VmName,
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
};

/// How a session is to be recorded: with its opening, or by `PUT /api/v1/terminals/{terminal}/recording` at the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordTerminal {
    /// Whether what is typed is recorded too, passwords included.
    #[serde(default)]
    pub input: bool,
    /// Whether a policy requires it: the session does not open without, and nobody stops it.
    #[serde(default)]
    pub required: bool,
    /// The account whose session it is, for its master.
    #[serde(default)]
    pub owner: Option<UserId>,
    /// That account's name.
    #[serde(default)]
    pub user: String,
}

/// That a session is being recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingMark {
    /// The recording.
    pub id: RecordingId,
    /// Whether what is typed is recorded too.
    pub input: bool,
    /// Whether a policy requires it.
    pub required: bool,
}

/// One recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recording {
    /// Its id.
    pub id: RecordingId,
    /// The session.
    pub terminal: TerminalId,
    /// The session's VM.
    pub vm: VmName,
    /// What the session was attached to.
    pub kind: TerminalKind,
    /// The account whose session it was.
    #[serde(default)]
    pub owner: Option<UserId>,
    /// That account's name.
    #[serde(default)]
    pub user: String,
    /// Whether what was typed is in it.
    pub input: bool,
    /// Whether a policy required it.
    pub required: bool,
    /// The size that it begins with.
    #[serde(flatten)]
    pub size: TermSize,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it is, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of its file.
    pub bytes: ByteSize,
    /// Why it ended; `null` while it goes on.
    #[serde(default)]
    pub ended: Option<String>,
}

impl Recording {
    /// Longest reason of an end, in characters.
    pub const MAX_REASON: usize = 256;
}

/// Where a text that was searched for stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingMatch {
    /// Milliseconds from the recording's beginning.
    pub at_ms: u64,
    /// The line it stands in, without colours, cut to [`Self::MAX_LINE`] characters.
    pub line: String,
}

impl RecordingMatch {
    /// Longest line that is shown.
    pub const MAX_LINE: usize = 200;
}

/// A recording that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundRecording {
    /// The recording.
    #[serde(flatten)]
    pub recording: Recording,
    /// The first place of the text that was searched for.
    #[serde(default)]
    pub found: Option<RecordingMatch>,
}

/// An agent's recordings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FoundRecordings {
    /// Those that match, the newest first.
    pub items: Vec<FoundRecording>,
    /// Whether there are more: beyond the limit, or not searched in time.
    pub partial: bool,
}

/// A recording as the master lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedRecording {
    /// The agent on whose disk it is.
    pub agent_id: AgentId,
    /// The recording.
    #[serde(flatten)]
    pub found: FoundRecording,
}

/// An agent whose recordings are not in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SilentAgent {
    /// The agent.
    pub agent_id: AgentId,
    /// Why.
    pub reason: String,
}

/// Answer to `GET /api/v1/recordings`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Recordings {
    /// Those that match, the newest first.
    pub items: Vec<ListedRecording>,
    /// Whether there are more than are listed: name a machine, a VM or a time to see them.
    pub partial: bool,
    /// Machines that could not be asked; they have recordings that are not listed, perhaps.
    pub unanswered: Vec<SilentAgent>,
}

/// Which sessions have to be recorded: those that a rule matches when they are opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RecordingPolicy {
    /// The rules, at most [`Self::MAX_RULES`]; nothing is recorded by policy where there are none.
    pub rules: Vec<RecordingRule>,
}

impl RecordingPolicy {
    /// Most rules.
    pub const MAX_RULES: usize = 100;
}

/// One rule of a [`RecordingPolicy`]; all that it names must hold, and one that names nothing matches every session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordingRule {
    /// Sessions of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Sessions in VMs, or on machines, with this label: `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether what is typed is recorded too, passwords included.
    #[serde(default)]
    pub input: bool,
}

/// Body of `PUT /api/v1/terminals/{terminal}/recording` at the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct StartRecording {
    /// Whether what is typed is recorded too, passwords included.
    #[serde(default)]
    pub input: bool,
}
