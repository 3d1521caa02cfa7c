//! Terminals: sessions belong to agents; the master authenticates, opens the same WebSocket there, and copies.
//!
//! `splice.rs` copies bytes between the two upgraded connections without reading them; `frames.rs` follows frame
//! lengths so that a Close with its reason can go in between two frames. Agents from before v1 have no sessions:
//! there the master holds one per attached viewer and translates (`old.rs`).

pub(crate) mod frames;
mod old;
pub(crate) mod splice;

use std::sync::Arc;

use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    id::{AgentId, TerminalId},
    name::VmName,
    problem::{Problem, ProblemCode},
    terminal::{
        ListedTerminal, OpenAgentTerminal, OpenTerminal, TermSize, Terminal, TerminalKind,
        close_code,
    },
    vm::VmAction,
};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{
    frames::Ending,
    old::{Style, translate},
};
use super::{
    App, Error,
    audit::{Outcome, Record},
    auth::{Caller, Right},
    operations::agent_error,
    vms::VmRef,
};
use crate::{
    client::{Attached, legacy::path_segment},
    fleet::{contact::Contact, search::pattern::AgentPattern},
};

/// How long a session of an old agent waits for its viewer.
const OLD_SESSION_LIFETIME_S: u64 = 600;

/// The agent's end of a terminal, open, and how to join a viewer to it.
pub(crate) struct Attachment {
    contact: Arc<Contact>,
    attached: Attached,
    how: How,
    /// The old agent's session that ends with its viewer.
    session: Option<TerminalId>,
}

/// Which terminal sessions to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct TerminalQuery {
    /// Of these agents; empty means all.
    pub(crate) agents: Vec<AgentPattern>,
    /// Only of VMs with this name.
    pub(crate) vm: Option<VmName>,
}

/// How bytes get from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// As they are, for viewers of v1.
    Copy,
    /// As they are, for viewers from before v1.
    CopyOld,
    /// Frame by frame, as the agent is from before v1.
    Translate(Style),
}

impl App {
    /// All terminal sessions.
    pub(crate) fn list_terminals(&self, query: &TerminalQuery) -> Vec<ListedTerminal> {
        let wanted = |id: &AgentId| {
            query.agents.is_empty() || query.agents.iter().any(|pattern| pattern.matches(id))
        };
        self.fleet().read(|state| {
            state
                .agents
                .iter()
                .filter(|(id, _)| wanted(id))
                .flat_map(|(id, entry)| {
                    entry.terminals.values().map(move |terminal| (id, terminal))
                })
                .filter(|(_, terminal)| query.vm.as_ref().is_none_or(|vm| terminal.vm == *vm))
                .map(|(id, terminal)| state.listed_terminal(id, terminal.clone()))
                .collect()
        })
    }

    /// Opens a terminal session in a VM that runs.
    pub(crate) async fn open_terminal(
        &self,
        caller: &Caller,
        open: OpenAgentTerminal,
    ) -> Result<ListedTerminal, Error> {
        caller.require(Right::Terminal)?;
        let vm = VmRef {
            agent: open.agent_id.unwrap_or_else(AgentId::local),
            name: open.vm,
        };
        let opened = self
            .open_on_agent(&vm, open.kind, open.size.clamped())
            .await;
        let target = format!("{}/{}", vm.agent, vm.name);
        let record = match &opened {
            Ok(terminal) => Record {
                detail: Some(format!("session {}", terminal.id)),
                ..Record::ok("terminal.open", target)
            },
            Err(error) => Record {
                outcome: Outcome::Failed,
                detail: Some(error.to_string()),
                ..Record::ok("terminal.open", target)
            },
        };
        self.audit(caller, record).await?;
        let terminal = opened?;
        self.store()
            .save_opener(terminal.id, &vm.agent, &caller.name, Timestamp::now())
            .await?;
        self.fleet()
            .put_terminal(&vm.agent, terminal.clone(), &caller.name);
        Ok(ListedTerminal {
            agent_id: vm.agent,
            terminal,
            opened_by: Some(caller.name.to_string()),
        })
    }

    async fn open_on_agent(
        &self,
        vm: &VmRef,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Terminal, Error> {
        let contact = self.online(&vm.agent)?;
        let action = match kind {
            TerminalKind::Shell => VmAction::Shell,
            TerminalKind::Console => VmAction::Console,
        };
        self.can_enter(vm, action, "open a terminal in")?;
        let id = TerminalId::new();
        if self.is_legacy(&vm.agent) {
            return Ok(Terminal {
                id,
                vm: vm.name.clone(),
                kind,
                size,
                created_at: Timestamp::now(),
                viewers: 0,
                offset: 0,
                oldest_offset: 0,
                ttl_s: OLD_SESSION_LIFETIME_S,
                resumable: false,
            });
        }
        let open = OpenTerminal {
            id: Some(id),
            vm: vm.name.clone(),
            kind,
            size,
            ttl_s: None,
        };
        contact
            .client
            .open_terminal(&open)
            .await
            .map_err(|error| agent_error(&vm.agent, error))
    }

    /// Refuses what the VM does not allow now.
    pub(super) fn can_enter(&self, vm: &VmRef, action: VmAction, what: &str) -> Result<(), Error> {
        let found = self.found(vm)?;
        match found.refusal(action) {
            // A driver that is stuck for lists may still have its shells: the agent decides.
            Some(_) if found.vm.stale => Ok(()),
            Some(reason) => Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::IllegalState,
                format!("cannot {what} VM `{}`: {reason}", vm.name),
            )))),
            None => Ok(()),
        }
    }

    /// Ends a terminal session and what runs in it.
    pub(crate) async fn close_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
    ) -> Result<(), Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        let contact = self.online(&agent)?;
        if terminal.resumable {
            match contact.client.close_terminal(id).await {
                Err(error) if !error.is_not_found() => return Err(agent_error(&agent, error)),
                _ => {}
            }
        }
        self.fleet().remove_terminal(&agent, id);
        let target = format!("{agent}/{}", terminal.vm);
        let record = Record {
            detail: Some(format!("session {id}")),
            ..Record::ok("terminal.close", target)
        };
        self.audit(caller, record).await
    }

    fn terminal(&self, id: TerminalId) -> Result<(AgentId, Terminal), Error> {
        self.fleet()
            .read(|state| {
                state.agents.iter().find_map(|(agent, entry)| {
                    let terminal = entry.terminals.get(&id)?;
                    Some((agent.clone(), terminal.clone()))
                })
            })
            .ok_or_else(|| Error::NotFound(format!("terminal session `{id}`")))
    }

    /// Opens the agent's end of a session, with the viewer's own handshake key.
    pub(crate) async fn attach_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
        from: Option<u64>,
        key: HeaderValue,
    ) -> Result<Attachment, Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        let contact = self.online(&agent)?;
        let (path, how) = if terminal.resumable || !self.is_legacy(&agent) {
            let from = from.map_or_else(String::new, |from| format!("?from={from}"));
            (format!("/api/v1/terminals/{id}/attach{from}"), How::Copy)
        } else {
            (
                old_path(&terminal.vm),
                How::Translate(Style::Current(terminal.size)),
            )
        };
        let attached = contact.client.open_websocket(&path, key).await;
        let attached = attached.map_err(|error| {
            if error.is_not_found() {
                // It ended a moment ago.
                self.fleet().remove_terminal(&agent, id);
                Error::NotFound(format!("terminal session `{id}`"))
            } else {
                agent_error(&agent, error)
            }
        });
        let target = format!("{agent}/{}", terminal.vm);
        let record = Record {
            outcome: if attached.is_ok() {
                Outcome::Ok
            } else {
                Outcome::Failed
            },
            detail: Some(format!("session {id}")),
            ..Record::ok("terminal.attach", target)
        };
        self.audit(caller, record).await?;
        Ok(Attachment {
            contact,
            attached: attached?,
            how,
            session: matches!(how, How::Translate(_)).then_some(id),
        })
    }

    /// Opens the agent's end of a shell the old way: it lives as long as its viewer.
    pub(crate) async fn attach_old(
        &self,
        caller: &Caller,
        vm: VmRef,
        key: HeaderValue,
    ) -> Result<Attachment, Error> {
        caller.require(Right::Terminal)?;
        let opened = async {
            let contact = self.online(&vm.agent)?;
            self.can_enter(&vm, VmAction::Shell, "open a terminal in")?;
            let attached = contact
                .client
                .open_websocket(&old_path(&vm.name), key)
                .await
                .map_err(|error| agent_error(&vm.agent, error))?;
            Ok(Attachment {
                contact,
                attached,
                how: if self.is_legacy(&vm.agent) {
                    How::Translate(Style::Old)
                } else {
                    How::CopyOld
                },
                session: None,
            })
        }
        .await;
        let record = Record {
            outcome: if opened.is_ok() {
                Outcome::Ok
            } else {
                Outcome::Failed
            },
            ..Record::ok("terminal.open", format!("{}/{}", vm.agent, vm.name))
        };
        self.audit(caller, record).await?;
        opened
    }

    /// Joins a viewer to the agent's end until either ends, the agent vanishes, or the caller may no longer.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        viewer: impl AsyncRead + AsyncWrite + Send + Unpin,
        attachment: Attachment,
    ) {
        let Attachment {
            contact,
            attached,
            how,
            session,
        } = attachment;
        let ending = self.ending(caller, &contact);
        match how {
            How::Copy => splice::splice(viewer, attached.stream, ending).await,
            How::CopyOld => {
                let ending = async { ending.await.with_words() };
                splice::splice(viewer, attached.stream, ending).await;
            }
            How::Translate(style) => translate(viewer, attached.stream, style, ending).await,
        }
        if let Some(session) = session {
            self.fleet().remove_terminal(&contact.id, session);
        }
    }

    /// Resolves when a terminal has to end, with the code and reason for its viewer.
    pub(super) async fn ending(&self, caller: &Caller, contact: &Contact) -> Ending {
        self.ending_of(caller, Right::Terminal, contact).await
    }

    /// The same of anything that needs `right` for as long as it goes on.
    pub(super) async fn ending_of(
        &self,
        caller: &Caller,
        right: Right,
        contact: &Contact,
    ) -> Ending {
        let mut online = contact.online.subscribe();
        tokio::select! {
            error = self.withdrawn(caller, right) => {
                Ending::new(close_code::POLICY, error.to_string())
            }
            () = self.stopping().cancelled() => {
                Ending::new(close_code::GOING_AWAY, "the master is shutting down")
            }
            () = contact.ended.cancelled() => {
                Ending::new(close_code::AGENT_OFFLINE, "the agent was removed or moved")
            }
            _ = online.wait_for(|online| !online) => {
                Ending::new(close_code::AGENT_OFFLINE, "the agent is offline")
            }
        }
    }
}

impl Attachment {
    /// The agent's answer to the viewer's handshake key.
    pub(crate) fn accept(&self) -> Option<&HeaderValue> {
        self.attached.accept.as_ref()
    }
}

fn old_path(vm: &VmName) -> String {
    format!("/ws?vm_name={}", path_segment(vm.as_str()))
}

/// With what a viewer is turned away after its upgrade: browsers cannot read the status of a refused one. `None`
/// for what is better said by the status.
pub(crate) fn refusal(error: &Error) -> Option<Ending> {
    let code = match error.code() {
        ProblemCode::NotFound => close_code::NOT_FOUND,
        ProblemCode::IllegalState => close_code::VM_NOT_RUNNING,
        ProblemCode::AgentOffline
        | ProblemCode::AgentFailed
        | ProblemCode::Timeout
        | ProblemCode::DriverStuck
        | ProblemCode::Unavailable => close_code::AGENT_OFFLINE,
        _ => return None,
    };
    Some(Ending::new(code, error.to_string()))
}

/// With what a viewer from before v1 is turned away: always after its upgrade, in words that it shows.
pub(crate) fn old_refusal(vm: &VmRef, status: Option<AgentStatus>, error: &Error) -> Ending {
    let offline = status.is_some_and(|status| status != AgentStatus::Online);
    let reason = if offline {
        format!("Agent '{}' is offline", vm.agent)
    } else {
        error.to_string()
    };
    let code = refusal(error).map_or(close_code::INTERNAL, |ending| ending.code);
    Ending::new(code, reason).with_words()
}
