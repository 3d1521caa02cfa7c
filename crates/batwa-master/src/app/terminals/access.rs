//! What a caller may do in a terminal session: all of it in one's own, what one is invited to in another's.
//!
//! The agent keeps viewers to it; whoever is at a session when that changes is told there, or turned out, at once.

use std::sync::Arc;

use batwa_api::{
    id::{TerminalId, ViewerId},
    terminal::TerminalAccess,
};

use super::super::{
    App, Error,
    auth::{Caller, Right},
};
use crate::fleet::{contact::Contact, ownership::Ownership};

/// One screen that a session is on through this master.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) terminal: TerminalId,
    /// By what the agent knows it.
    pub(super) viewer: ViewerId,
    /// What its caller wants at most.
    pub(super) wanted: TerminalAccess,
    /// What the agent was told when it came.
    pub(super) access: TerminalAccess,
}

impl App {
    /// What `caller` may do in a session. Who owns it, or is an admin, needs the terminal right for anything; a guest
    /// needs it to type, and nothing but the invitation to watch.
    pub(super) fn terminal_access(
        &self,
        caller: &Caller,
        id: TerminalId,
    ) -> Result<TerminalAccess, Error> {
        let ownership = self
            .fleet()
            .read(|state| state.ownerships.get(&id).cloned());
        access(caller, ownership.as_ref())
    }

    /// Refuses whoever does not own a session and is no admin.
    pub(in crate::app) fn require_owner(
        &self,
        caller: &Caller,
        id: TerminalId,
    ) -> Result<(), Error> {
        caller.require(Right::Terminal)?;
        let ownership = self
            .fleet()
            .read(|state| state.ownerships.get(&id).cloned());
        if owns(caller, ownership.as_ref()) {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "only {} may do this, and admins",
            owner_words(ownership.as_ref())
        )))
    }

    /// Follows what the caller of an open view may do, and has its agent keep to it. Ends with the reason once that is
    /// nothing, or could not be made so.
    pub(super) async fn until_shut_out(
        &self,
        caller: &Caller,
        contact: &Arc<Contact>,
        view: View,
    ) -> Error {
        let mut told = view.access;
        let mut withdrawals = self.auth().withdrawals();
        loop {
            match self.view_access(caller, view).await {
                Ok(access) if access != told => {
                    let client = &contact.client;
                    match client.set_viewer(view.terminal, view.viewer, access).await {
                        Ok(()) => told = access,
                        // It is on its way out.
                        Err(error) if error.is_not_found() => {}
                        // What was taken must not be there a moment longer.
                        Err(_) if access < told => {
                            return Error::Refused(
                                "you may only watch now: attach again to do so".to_owned(),
                            );
                        }
                        Err(error) => {
                            tracing::warn!("cannot let `{}` type: {error}", caller.name);
                        }
                    }
                }
                Ok(_) => {}
                Err(error @ (Error::NotSignedIn | Error::Forbidden(_) | Error::Refused(_))) => {
                    return error;
                }
                // That the store is away for a moment takes nothing from anybody.
                Err(error) => {
                    tracing::warn!("cannot check the rights of `{}`: {error}", caller.name);
                }
            }
            self.something_withdrawn(&mut withdrawals).await;
        }
    }

    async fn view_access(&self, caller: &Caller, view: View) -> Result<TerminalAccess, Error> {
        let now = self.refresh(caller).await?;
        match self.terminal_access(&now, view.terminal) {
            // It has ended, and its agent says how.
            Err(Error::Refused(_)) if self.terminal(view.terminal).is_err() => Ok(view.access),
            access => Ok(access?.min(view.wanted)),
        }
    }
}

fn owns(caller: &Caller, ownership: Option<&Ownership>) -> bool {
    caller.require(Right::Administer).is_ok()
        || ownership.is_some_and(|ownership| ownership.owner == Some(caller.user_id))
}

fn access(caller: &Caller, ownership: Option<&Ownership>) -> Result<TerminalAccess, Error> {
    if owns(caller, ownership) {
        caller.require(Right::Terminal)?;
        return Ok(TerminalAccess::Write);
    }
    let guest = ownership.and_then(|ownership| ownership.guests.get(&caller.user_id));
    match guest {
        Some(guest) if caller.require(Right::Terminal).is_err() => {
            Ok(guest.access.min(TerminalAccess::Watch))
        }
        Some(guest) => Ok(guest.access),
        None => Err(Error::Refused(format!(
            "this terminal is not shared with you: ask {} to invite you",
            owner_words(ownership)
        ))),
    }
}

fn owner_words(ownership: Option<&Ownership>) -> String {
    match ownership {
        Some(ownership) => format!("its owner `{}`", ownership.owner_name),
        None => "its owner, whom this master does not know, or an admin".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{
        id::{AgentId, TokenId, UserId},
        terminal::TerminalGuest,
        user::Role,
    };

    use super::*;
    use crate::app::auth::{Source, Via};

    fn caller(user_id: UserId, role: Role, terminal: bool) -> Caller {
        Caller {
            user_id,
            name: "somebody".into(),
            role,
            terminal,
            via: Via::Token(TokenId::new()),
            source: Source::new("192.0.2.1".parse().unwrap(), "r".into()),
        }
    }

    #[test]
    fn who_may_do_what_in_a_session_is_this_table() {
        use TerminalAccess::{Watch, Write};
        let (owner, watcher, writer, stranger) =
            (UserId::new(), UserId::new(), UserId::new(), UserId::new());
        let mut ownership = Ownership::new(AgentId::parse("lab").unwrap(), owner, "ann");
        for (user, access) in [(watcher, Watch), (writer, Write)] {
            let guest = TerminalGuest {
                user: "guest".to_owned(),
                access,
            };
            ownership.guests.insert(user, guest);
        }
        for (user, role, terminal, expected) in [
            (owner, Role::Operator, true, Some(Write)),
            (owner, Role::Operator, false, None),
            (owner, Role::Viewer, true, Some(Write)),
            (watcher, Role::Viewer, false, Some(Watch)),
            (watcher, Role::Operator, true, Some(Watch)),
            (watcher, Role::Admin, true, Some(Write)),
            (writer, Role::Viewer, true, Some(Write)),
            (writer, Role::Viewer, false, Some(Watch)),
            (stranger, Role::Operator, true, None),
            (stranger, Role::Viewer, false, None),
            (stranger, Role::Admin, true, Some(Write)),
            (stranger, Role::Admin, false, None),
        ] {
            let caller = caller(user, role, terminal);
            let found = access(&caller, Some(&ownership)).ok();
            assert_eq!(found, expected, "{role:?}, {terminal}");
        }
        let nobodys = access(&caller(owner, Role::Operator, true), None);
        assert!(nobodys.is_err());
    }
}
