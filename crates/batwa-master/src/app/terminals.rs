//! Terminals: sessions belong to agents; the master authenticates, opens the same WebSocket there, and copies.
//!
//! `splice.rs` copies bytes between the two upgraded connections without reading them; `frames.rs` follows frame
//! lengths so that a Close with its reason can go in between two frames. Agents from before v1 have no sessions:
//! there the master holds one per attached viewer and translates (`old.rs`).

mod access;
pub(crate) mod frames;
mod old;
mod sharing;
pub(crate) mod splice;

use std::sync::Arc;

use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    id::{AgentId, KeyboardId, TerminalId, ViewerId},
    name::VmName,
    problem::{Problem, ProblemCode},
    recording::RecordTerminal,
    terminal::{
        ListedTerminal, OpenAgentTerminal, OpenTerminal, Terminal, TerminalAccess, TerminalKind,
        UpdateTerminal, close_code,
    },
    vm::VmAction,
};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{
    access::View,
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
    fleet::{contact::Contact, ownership::Ownership, search::pattern::AgentPattern},
};

/// How long a session of an old agent waits for its viewer.
const OLD_SESSION_LIFETIME_S: u64 = 600;

/// The agent's end of a terminal, open, and how to join a viewer to it.
pub(crate) struct Attachment {
    contact: Arc<Contact>,
    attached: Attached,
    how: How,
    /// Which session, and as which of its viewers; none for one that is its viewer's alone.
    view: Option<View>,
}

/// How a viewer wants to attach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The first byte of output; the oldest held when absent.
    pub(crate) from: Option<u64>,
    /// What it wants to do at most.
    pub(crate) access: TerminalAccess,
    /// What it types with.
    pub(crate) keyboard: Option<KeyboardId>,
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
            agent: open.agent_id.clone().unwrap_or_else(AgentId::local),
            name: open.vm.clone(),
        };
        if let Some(ttl_s) = open.ttl_s {
            check_ttl(ttl_s)?;
        }
        let opened = self.open_on_agent(caller, &vm, &open).await;
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
        let written = self.audit(caller, record).await;
        let terminal = opened?;
        let id = terminal.id;
        let noted = async {
            written?;
            let (store, now) = (self.store(), Timestamp::now());
            store
                .save_opener(id, &vm.agent, caller.user_id, &caller.name, now)
                .await?;
            Ok(())
        };
        if let Err(error) = noted.await {
            // A shell of which nothing is written down would be nobody's.
            self.end_unnoted(&vm.agent, &terminal).await;
            return Err(error);
        }
        let ownership = Ownership::new(vm.agent.clone(), caller.user_id, &caller.name);
        self.fleet()
            .put_own_terminal(&vm.agent, terminal, ownership);
        self.listed(id)
    }

    /// Ends a session that was opened a moment ago and that nobody will know of.
    async fn end_unnoted(&self, agent: &AgentId, terminal: &Terminal) {
        if !terminal.resumable {
            return;
        }
        let ended = match self.online(agent) {
            Ok(contact) => contact.client.close_terminal(terminal.id).await,
            Err(_) => return,
        };
        if let Err(error) = ended {
            tracing::warn!(
                "terminal session {} of agent `{agent}` cannot be ended, and is nobody's until its lifetime is over: {}",
                terminal.id,
                error.describe()
            );
        }
    }

    async fn open_on_agent(
        &self,
        caller: &Caller,
        vm: &VmRef,
        open: &OpenAgentTerminal,
    ) -> Result<Terminal, Error> {
        let (kind, size) = (open.kind, open.size.clamped());
        let contact = self.online(&vm.agent)?;
        let action = match kind {
            TerminalKind::Shell => VmAction::Shell,
            TerminalKind::Console => VmAction::Console,
        };
        self.can_enter(vm, action, "open a terminal in")?;
        let id = TerminalId::new();
        let record = self.required_recording(caller, vm).await?;
        let required = record.is_some();
        if self.is_legacy(&vm.agent) {
            if required {
                return Err(must_be_recorded(&vm.agent));
            }
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
                name: None,
                keep: false,
                present: Vec::new(),
                shareable: false,
                recording: None,
            });
        }
        let open = OpenTerminal {
            id: Some(id),
            vm: vm.name.clone(),
            kind,
            size,
            ttl_s: open.ttl_s,
            record,
        };
        let opened = contact.client.open_terminal(&open).await;
        let opened = opened.map_err(|error| agent_error(&vm.agent, error))?;
        of_session(&vm.agent, id, &opened)?;
        if required && opened.recording.is_none() {
            // An agent of before does not know what it was asked for: nobody gets to this session.
            let closed = contact.client.close_terminal(id).await;
            closed.map_err(|error| agent_error(&vm.agent, error))?;
            return Err(must_be_recorded(&vm.agent));
        }
        Ok(opened)
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

    /// Names a terminal session, or changes how long it lives on.
    pub(crate) async fn update_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
        update: &UpdateTerminal,
    ) -> Result<ListedTerminal, Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        if let Err(error) = update.checked_name() {
            return Err(Error::invalid("name", error.to_string()));
        }
        if let Some(ttl_s) = update.ttl_s {
            check_ttl(ttl_s)?;
        }
        let contact = self.online(&agent)?;
        if !terminal.resumable {
            return Err(Error::Conflict(
                "this session ends with its viewer: its machine's agent is of the old kind"
                    .to_owned(),
            ));
        }
        let updated = contact.client.update_terminal(id, update).await;
        let updated = updated.map_err(|error| agent_error(&agent, error))?;
        of_session(&agent, id, &updated)?;
        self.fleet().put_terminal(&agent, updated);
        let detail = format!("session {id}");
        self.audit_terminal(caller, "terminal.update", &agent, &terminal, detail)
            .await?;
        self.listed(id)
    }

    /// Ends a terminal session and what runs in it.
    pub(crate) async fn close_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
    ) -> Result<(), Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        let contact = self.online(&agent)?;
        if terminal.resumable {
            match contact.client.close_terminal(id).await {
                Err(error) if !error.is_not_found() => return Err(agent_error(&agent, error)),
                _ => {}
            }
        }
        self.fleet().remove_terminal(&agent, id);
        let detail = format!("session {id}");
        self.audit_terminal(caller, "terminal.close", &agent, &terminal, detail)
            .await
    }

    pub(super) fn terminal(&self, id: TerminalId) -> Result<(AgentId, Terminal), Error> {
        self.fleet()
            .read(|state| state.terminal(id))
            .ok_or_else(|| Error::NotFound(format!("terminal session `{id}`")))
    }

    /// Opens the agent's end of a session, with the viewer's own handshake key. Whoever may write there can ask to
    /// watch only.
    pub(crate) async fn attach_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
        wanted: Wanted,
        key: HeaderValue,
    ) -> Result<Attachment, Error> {
        let (agent, terminal) = self.terminal(id)?;
        let access = self.terminal_access(caller, id)?.min(wanted.access);
        let contact = self.online(&agent)?;
        let view = View {
            terminal: id,
            viewer: ViewerId::new(),
            wanted: wanted.access,
            access,
        };
        // An agent that cannot keep a viewer from typing is given none that may only watch.
        if access == TerminalAccess::Watch && !terminal.shareable {
            return Err(Error::Refused(format!(
                "you may only watch this terminal, and {} runs an agent that cannot keep viewers to that: update Batwa there",
                Self::agent_words(&agent)
            )));
        }
        let (path, how) = if terminal.resumable || !self.is_legacy(&agent) {
            (attach_path(view, &wanted, &caller.name), How::Copy)
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
            detail: Some(match access {
                TerminalAccess::Write => format!("session {id}"),
                TerminalAccess::Watch => format!("session {id}, watching"),
            }),
            ..Record::ok("terminal.attach", target)
        };
        self.audit(caller, record).await?;
        Ok(Attachment {
            contact,
            attached: attached?,
            how,
            view: Some(view),
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
            let record = self.required_recording(caller, &vm).await?;
            let path = match &record {
                None => old_path(&vm.name),
                Some(record) => {
                    self.require_recorder(&contact).await?;
                    recorded_old_path(&vm.name, record)
                }
            };
            let attached = contact
                .client
                .open_websocket(&path, key)
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
                view: None,
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

    /// Refuses an agent that cannot record.
    async fn require_recorder(&self, contact: &Contact) -> Result<(), Error> {
        if self.is_legacy(&contact.id) {
            return Err(must_be_recorded(&contact.id));
        }
        match contact
            .client
            .recordings("/api/v1/recordings?limit=0")
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Err(must_be_recorded(&contact.id)),
            Err(error) => Err(agent_error(&contact.id, error)),
        }
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
            view,
        } = attachment;
        let shut_out = async {
            match view {
                Some(view) => self.until_shut_out(caller, &contact, view).await,
                None => self.withdrawn(caller, Right::Terminal).await,
            }
        };
        let ending = self.ending_when(shut_out, &contact);
        match how {
            How::Copy => splice::splice(viewer, attached.stream, ending).await,
            How::CopyOld => {
                let ending = async { ending.await.with_words() };
                splice::splice(viewer, attached.stream, ending).await;
            }
            How::Translate(style) => translate(viewer, attached.stream, style, ending).await,
        }
        // An old agent's session ends with its viewer.
        if let (Some(view), How::Translate(_)) = (view, how) {
            self.fleet().remove_terminal(&contact.id, view.terminal);
        }
    }

    /// Resolves when what a caller with the terminal right has open has to end, with the code and reason for it.
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
        self.ending_when(self.withdrawn(caller, right), contact)
            .await
    }

    /// Resolves when a viewer is shut out, or there is nothing left to view.
    async fn ending_when(
        &self,
        shut_out: impl Future<Output = Error>,
        contact: &Contact,
    ) -> Ending {
        let mut online = contact.online.subscribe();
        tokio::select! {
            error = shut_out => {
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

/// Where the agent lets this viewer in.
fn attach_path(view: View, wanted: &Wanted, user: &str) -> String {
    let from = wanted.from.map(|from| format!("&from={from}"));
    let keyboard = wanted.keyboard.map(|id| format!("&keyboard={id}"));
    format!(
        "/api/v1/terminals/{}/attach?viewer={}&user={}&access={}{}{}",
        view.terminal,
        view.viewer,
        path_segment(user),
        view.access.as_str(),
        from.unwrap_or_default(),
        keyboard.unwrap_or_default(),
    )
}

/// Refuses an agent's answer about another session than it was asked for.
fn of_session(agent: &AgentId, id: TerminalId, answered: &Terminal) -> Result<(), Error> {
    if answered.id == id {
        return Ok(());
    }
    Err(Error::Problem(Box::new(Problem::new(
        ProblemCode::AgentFailed,
        format!("{} answered for another session", App::agent_words(agent)),
    ))))
}

fn check_ttl(ttl_s: u64) -> Result<(), Error> {
    if ttl_s <= Terminal::MAX_TTL_S {
        return Ok(());
    }
    let message = format!(
        "at most {} s, which is 30 days: `keep` is for longer",
        Terminal::MAX_TTL_S
    );
    Err(Error::invalid("ttl_s", message))
}

/// An admin's policy wants what this agent cannot do.
fn must_be_recorded(agent: &AgentId) -> Error {
    Error::Problem(Box::new(Problem::new(
        ProblemCode::Unsupported,
        format!(
            "terminals here have to be recorded, and {} runs an agent that cannot: update Batwa there",
            App::agent_words(agent)
        ),
    )))
}

/// The old way to a shell that is recorded.
fn recorded_old_path(vm: &VmName, record: &RecordTerminal) -> String {
    let owner = record
        .owner
        .map_or_else(String::new, |owner| format!("&owner={owner}"));
    format!(
        "{}&record=required&input={}&user={}{owner}",
        old_path(vm),
        record.input,
        path_segment(&record.user)
    )
}

fn old_path(vm: &VmName) -> String {
    format!("/ws?vm_name={}", path_segment(vm.as_str()))
}

/// With what a viewer is turned away after its upgrade: browsers cannot read the status of a refused one. `None`
/// for what is better said by the status.
pub(crate) fn refusal(error: &Error) -> Option<Ending> {
    let code = match error.code() {
        // About this one session, and not of the caller's rights.
        ProblemCode::Forbidden if matches!(error, Error::Refused(_)) => close_code::POLICY,
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
