//! Terminal sessions and the frames of their WebSocket (DESIGN.md section 7).
//!
//! Binary frames are bytes; text frames are one JSON object each, of the two types below.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{AgentId, KeyboardId, TerminalId, ViewerId},
    name::VmName,
    recording::{RecordTerminal, RecordingMark},
};

mod name;

pub use self::name::{TerminalName, TerminalNameError};

/// What a session is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TerminalKind {
    /// A shell inside the VM.
    #[default]
    Shell,
    /// The VM's serial port.
    Console,
}

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TermSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl TermSize {
    /// The largest that makes sense on any screen; programs allocate by it.
    pub const MAX: u16 = 1000;

    /// The size with each side brought into 1 to [`Self::MAX`].
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            cols: self.cols.clamp(1, Self::MAX),
            rows: self.rows.clamp(1, Self::MAX),
        }
    }
}

impl Default for TermSize {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

/// What a viewer may do in a session; each includes those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TerminalAccess {
    /// See what it shows.
    Watch,
    /// Type in it too; the sizes of these viewers' windows make its size.
    #[default]
    Write,
}

impl TerminalAccess {
    /// The access in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Write => "write",
        }
    }
}

/// Somebody who has a session on a screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalViewer {
    /// The account's name; empty where the master did not say.
    pub user: String,
    /// What this viewer may do.
    pub access: TerminalAccess,
}

impl TerminalViewer {
    /// Longest name of one, in characters.
    pub const MAX_USER: usize = 64;
}

/// Body of `POST /api/v1/terminals` at the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenTerminal {
    /// The id the master chose; the same id again answers with the same session.
    #[serde(default)]
    pub id: Option<TerminalId>,
    /// The VM.
    pub vm: VmName,
    /// What to attach to.
    #[serde(default)]
    pub kind: TerminalKind,
    /// First size.
    #[serde(flatten)]
    pub size: TermSize,
    /// Seconds that it lives on once nobody watches; the agent's default when absent.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// How it is recorded, from its first byte on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordTerminal>,
}

/// One terminal session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// The VM.
    pub vm: VmName,
    /// What it is attached to.
    pub kind: TerminalKind,
    /// Its size now.
    #[serde(flatten)]
    pub size: TermSize,
    /// When it was opened.
    pub created_at: Timestamp,
    /// How many watch it.
    pub viewers: u32,
    /// Bytes of output so far.
    pub offset: u64,
    /// Offset of the oldest byte still held.
    pub oldest_offset: u64,
    /// Seconds that it lives on once nobody watches.
    pub ttl_s: u64,
    /// Whether it can be attached to again after a cut; old agents' sessions cannot.
    pub resumable: bool,
    /// What people call it.
    #[serde(default)]
    pub name: Option<TerminalName>,
    /// Whether it lives on however long nobody watches, until its program or somebody ends it.
    #[serde(default)]
    pub keep: bool,
    /// Who watches it, the first ones: at most [`Self::MAX_PRESENT`].
    #[serde(default)]
    pub present: Vec<TerminalViewer>,
    /// Whether its agent keeps those who may only watch from typing; agents of before cannot, and are given none.
    #[serde(default)]
    pub shareable: bool,
    /// Its recording, while it is recorded.
    #[serde(default)]
    pub recording: Option<RecordingMark>,
}

impl Terminal {
    /// Most viewers that are named.
    pub const MAX_PRESENT: usize = 32;
    /// Longest time to live, in seconds: 30 days. What is to live longer is kept.
    pub const MAX_TTL_S: u64 = 30 * 24 * 3600;
}

/// Body of `PATCH /api/v1/terminals/{terminal}`; absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct UpdateTerminal {
    /// What people call it: 1 to 64 characters; an empty text takes the name away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds that it lives on once nobody watches: at most 30 days; 0 ends it when the last viewer leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Whether it lives on however long nobody watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
}

impl UpdateTerminal {
    /// The name that is wanted: none is a name taken away.
    ///
    /// # Errors
    /// [`TerminalNameError`].
    pub fn checked_name(&self) -> Result<Option<Option<TerminalName>>, TerminalNameError> {
        match self.name.as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(None)),
            Some(text) => TerminalName::parse(text).map(|name| Some(Some(name))),
        }
    }
}

/// Body of `PUT /api/v1/terminals/{terminal}/viewers/{viewer}` at the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetViewer {
    /// What the viewer may do from now on.
    pub access: TerminalAccess,
}

/// How a viewer is let in at the agent: the query of `GET /api/v1/terminals/{terminal}/attach` there, beside `from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// By what the master speaks of this viewer later.
    pub viewer: ViewerId,
    /// The account's name.
    pub user: String,
    /// What it may do.
    pub access: TerminalAccess,
    /// What it types with; none for those who do not ask how much of it was taken.
    pub keyboard: Option<KeyboardId>,
}

/// Somebody whom a session is shared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalGuest {
    /// The account's name.
    pub user: String,
    /// What it may do at most; to type, it needs the terminal right too.
    pub access: TerminalAccess,
}

/// Body of `PUT /api/v1/terminals/{terminal}/guests/{user}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareTerminal {
    /// What the guest may do.
    pub access: TerminalAccess,
}

/// Body of `POST /api/v1/terminals` at the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenAgentTerminal {
    /// The agent; the master's own machine when absent.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The VM.
    pub vm: VmName,
    /// What to attach to.
    #[serde(default)]
    pub kind: TerminalKind,
    /// First size.
    #[serde(flatten)]
    pub size: TermSize,
    /// Seconds that it lives on once nobody watches: at most 30 days; the agent's setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// One terminal session as the master lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedTerminal {
    /// The agent that holds it.
    pub agent_id: AgentId,
    /// The session.
    #[serde(flatten)]
    pub terminal: Terminal,
    /// The user who opened it and whose it is, where the master knows. Beside this one only admins and guests get in.
    #[serde(default)]
    pub opened_by: Option<String>,
    /// Its guests.
    #[serde(default)]
    pub guests: Vec<TerminalGuest>,
}

/// A text frame from viewer to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The viewer's window has this size.
    Resize {
        /// The size.
        #[serde(flatten)]
        size: TermSize,
    },
    /// The viewer has more output than it can show: send no more for now.
    Pause,
    /// The viewer has caught up.
    Resume,
}

/// A text frame from agent to viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The next binary frame begins at this offset; above the one asked for when older output is gone.
    Offset {
        /// Bytes of output before it.
        offset: u64,
        /// To a viewer with a keyboard, when it attaches: how many bytes of what was typed on that were taken. What it
        /// sent after these is lost, and to be sent again; 0 for a keyboard that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<u64>,
    },
    /// So much of what was typed on this viewer's keyboard is taken now. Comes within a second of anything typed, also
    /// when the program reads nothing.
    Input {
        /// Bytes, from the first that was ever typed on it.
        offset: u64,
    },
    /// What the output before that offset, which is gone, left a terminal in: to be shown first, and counted as no output.
    State {
        /// Control sequences: modes, the screen for full-screen programs, colours.
        text: String,
    },
    /// The output up to this offset was printed before this viewer came, and others were there: what it asks of a
    /// terminal has been answered. Comes to those who did not say from where to begin.
    Replay {
        /// Bytes of output before it.
        end: u64,
    },
    /// The program ended; a close follows.
    Exit {
        /// Its exit code, where it is known.
        code: Option<i32>,
        /// What to tell people.
        reason: String,
    },
    /// Something went wrong; a close follows.
    Error {
        /// What, and what to do.
        message: String,
    },
    /// Who watches now.
    Viewers {
        /// Their number.
        viewers: u32,
        /// Who they are, the first ones.
        #[serde(default)]
        present: Vec<TerminalViewer>,
    },
    /// Whether the session is recorded, from now on.
    Recording {
        /// Its recording; `null` when it has ended.
        recording: Option<RecordingMark>,
        /// Why it ended.
        #[serde(default)]
        reason: Option<String>,
    },
    /// What this viewer may do: to write until told otherwise. Comes again each time something typed was dropped.
    Access {
        /// What it may do.
        access: TerminalAccess,
    },
}

/// WebSocket close codes of terminals: the standard's where one fits, ours from 4000.
pub mod close_code {
    /// The program ended.
    pub const ENDED: u16 = 1000;
    /// The master or agent shuts down; the session goes on.
    pub const GOING_AWAY: u16 = 1001;
    /// The frame was no frame of this protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The caller's session ended or its right was withdrawn.
    pub const POLICY: u16 = 1008;
    /// Unexpected failure.
    pub const INTERNAL: u16 = 1011;
    /// There is no such VM or session.
    pub const NOT_FOUND: u16 = 4004;
    /// The VM's state does not allow it, or it stopped.
    pub const VM_NOT_RUNNING: u16 = 4009;
    /// The agent is offline or vanished.
    pub const AGENT_OFFLINE: u16 = 4003;
}
