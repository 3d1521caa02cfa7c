//! Terminal sessions and the frames of their WebSocket (DESIGN.md section 7).
//!
//! Binary frames are bytes; text frames are one JSON object each, of the two types below.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{AgentId, TerminalId},
    name::VmName,
};

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
}

/// One terminal session as the master lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedTerminal {
    /// The agent that holds it.
    pub agent_id: AgentId,
    /// The session.
    #[serde(flatten)]
    pub terminal: Terminal,
    /// The user who opened it, where the master knows.
    #[serde(default)]
    pub opened_by: Option<String>,
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
    /// How many watch now.
    Viewers {
        /// Their number.
        viewers: u32,
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
