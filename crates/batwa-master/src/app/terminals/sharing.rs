//! Inviting others to a terminal session, and taking that back.

use batwa_api::{
    Timestamp,
    id::{AgentId, TerminalId, UserId},
    problem::{Problem, ProblemCode},
    terminal::{ListedTerminal, Terminal, TerminalAccess, TerminalGuest},
    user::User,
};

use super::super::{
    App, Error,
    audit::Record,
    auth::{Caller, Right, allows},
};
use crate::fleet::ownership::MAX_GUESTS;

impl App {
    /// Invites an account to a session, or changes what it may do there; that holds at once for whoever is there.
    pub(crate) async fn share_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
        user: &str,
        access: TerminalAccess,
    ) -> Result<ListedTerminal, Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        if !terminal.shareable {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "{} runs an agent that cannot share terminals: update Batwa there",
                    Self::agent_words(&agent)
                ),
            ))));
        }
        let guest = self.account(user).await?;
        if access == TerminalAccess::Write && !allows(guest.role, guest.terminal, Right::Terminal) {
            return Err(Error::invalid(
                "access",
                format!(
                    "`{}` may not use terminals, so only `watch` is possible: an admin can give that right",
                    guest.name
                ),
            ));
        }
        let (owner, guests) = self.fleet().read(|state| {
            let ownership = state.ownerships.get(&id);
            let owner = ownership.and_then(|ownership| ownership.owner);
            let known = ownership.is_some_and(|it| it.guests.contains_key(&guest.id));
            let others = ownership.map_or(0, |it| it.guests.len() - usize::from(known));
            (owner, others)
        });
        if owner == Some(guest.id) {
            return Err(Error::Conflict(format!(
                "this terminal is `{}`'s own",
                guest.name
            )));
        }
        if guests >= MAX_GUESTS {
            return Err(Error::Conflict(format!(
                "{MAX_GUESTS} are invited to this terminal already: take one back first"
            )));
        }
        self.store()
            .save_guest(id, guest.id, access, Timestamp::now())
            .await?;
        self.fleet().change_guests(&agent, id, |guests| {
            let guest_there = TerminalGuest {
                user: guest.name.clone(),
                access,
            };
            guests.insert(guest.id, guest_there);
        });
        self.auth().withdraw();
        let what = match access {
            TerminalAccess::Watch => "watch",
            TerminalAccess::Write => "type in",
        };
        let detail = format!("`{}` may {what} session {id}", guest.name);
        self.audit_terminal(caller, "terminal.share", &agent, &terminal, detail)
            .await?;
        self.listed(id)
    }

    /// Takes an account's invitation back, or everybody's; whoever is there by it is turned out at once.
    pub(crate) async fn unshare_terminal(
        &self,
        caller: &Caller,
        id: TerminalId,
        user: Option<&str>,
    ) -> Result<(), Error> {
        caller.require(Right::Terminal)?;
        let (agent, terminal) = self.terminal(id)?;
        self.require_owner(caller, id)?;
        let guest = user.map(|user| self.guest(id, user)).transpose()?;
        self.store().delete_guests(id, guest).await?;
        self.fleet()
            .change_guests(&agent, id, |guests| match guest {
                Some(guest) => drop(guests.remove(&guest)),
                None => guests.clear(),
            });
        self.auth().withdraw();
        let who = user.map_or_else(|| "everybody".to_owned(), |user| format!("`{user}`"));
        let detail = format!("{who} no longer in session {id}");
        self.audit_terminal(caller, "terminal.unshare", &agent, &terminal, detail)
            .await
    }

    /// Writes a line of the audit about a session.
    pub(in crate::app) async fn audit_terminal(
        &self,
        caller: &Caller,
        action: &str,
        agent: &AgentId,
        terminal: &Terminal,
        detail: String,
    ) -> Result<(), Error> {
        let record = Record {
            detail: Some(detail),
            ..Record::ok(action, format!("{agent}/{}", terminal.vm))
        };
        self.audit(caller, record).await
    }

    /// A session as it is listed now.
    pub(in crate::app) fn listed(&self, id: TerminalId) -> Result<ListedTerminal, Error> {
        let (agent, terminal) = self.terminal(id)?;
        Ok(self
            .fleet()
            .read(|state| state.listed_terminal(&agent, terminal)))
    }

    fn guest(&self, id: TerminalId, user: &str) -> Result<UserId, Error> {
        let found = self.fleet().read(|state| {
            let guests = &state.ownerships.get(&id)?.guests;
            let (id, _) = guests.iter().find(|(_, guest)| guest.user == user)?;
            Some(*id)
        });
        found.ok_or_else(|| Error::NotFound(format!("guest `{}`", user.escape_debug())))
    }

    async fn account(&self, name: &str) -> Result<User, Error> {
        let users = self.store().users().await?;
        users
            .into_iter()
            .find(|user| user.name == name)
            .ok_or_else(|| Error::NotFound(format!("user `{}`", name.escape_debug())))
    }
}
