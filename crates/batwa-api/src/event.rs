//! Streams of changes: what an agent tells the master, what the master tells pages and scripts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{Agent, AgentInfo},
    id::{AgentId, TerminalId},
    name::VmName,
    operation::Operation,
    terminal::{ListedTerminal, Terminal},
    vm::{ListedVm, Vm},
};

/// One line of the agent's `GET /api/v1/watch`: newline-delimited JSON, the first always a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchEvent {
    /// Everything; replaces what was known.
    Snapshot {
        /// Counts the agent's changes.
        revision: u64,
        /// The agent itself.
        agent: AgentInfo,
        /// All its VMs.
        vms: Vec<Vm>,
        /// Operations that are not finished, and those that finished lately.
        operations: Vec<Operation>,
        /// All its terminal sessions.
        terminals: Vec<Terminal>,
    },
    /// The agent, its load or a driver's health changed.
    Agent {
        /// Counts the agent's changes.
        revision: u64,
        /// The agent itself.
        agent: AgentInfo,
    },
    /// A VM appeared or changed.
    Vm {
        /// Counts the agent's changes.
        revision: u64,
        /// The VM.
        // Apart, as it is the largest by far.
        vm: Box<Vm>,
    },
    /// A VM is gone.
    VmRemoved {
        /// Counts the agent's changes.
        revision: u64,
        /// Its name.
        name: VmName,
    },
    /// An operation appeared or changed.
    Operation {
        /// Counts the agent's changes.
        revision: u64,
        /// The operation.
        operation: Operation,
    },
    /// A terminal session appeared or changed.
    Terminal {
        /// Counts the agent's changes.
        revision: u64,
        /// The session.
        terminal: Terminal,
    },
    /// A terminal session ended.
    TerminalRemoved {
        /// Counts the agent's changes.
        revision: u64,
        /// Its id.
        id: TerminalId,
    },
    /// Nothing changed for a while; the link is alive.
    KeepAlive {
        /// Counts the agent's changes.
        revision: u64,
    },
}

/// One event of the master's `GET /api/v1/events` (Server-Sent Events; the name is the SSE event's too).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// An agent appeared or changed.
    Agent {
        /// The agent.
        agent: Agent,
    },
    /// An agent was removed.
    AgentRemoved {
        /// Its id.
        agent_id: AgentId,
    },
    /// A VM appeared or changed.
    Vm {
        /// The VM.
        vm: ListedVm,
    },
    /// A VM is gone.
    VmRemoved {
        /// The agent it was on.
        agent_id: AgentId,
        /// Its name.
        name: VmName,
    },
    /// What lists show of all VMs of an agent changed at once; there are no events for each of them.
    AgentVms {
        /// The agent.
        agent_id: AgentId,
        /// Why all of them may be out of date now, and why nothing can be done with them; `null`: they are as the
        /// lists show them, load those that matter again.
        stale: Option<String>,
    },
    /// An operation appeared or changed.
    Operation {
        /// The operation.
        operation: Operation,
    },
    /// A terminal session appeared or changed.
    Terminal {
        /// The session.
        terminal: ListedTerminal,
    },
    /// A terminal session ended.
    TerminalRemoved {
        /// Its id.
        id: TerminalId,
    },
    /// Events were missed: load the lists again.
    Reload,
}
