//! Whose terminal sessions are, and who is invited to them. Agents do not know.

use std::collections::BTreeMap;

use batwa_api::{
    id::{AgentId, UserId},
    terminal::TerminalGuest,
};

/// Most guests of one session.
pub(crate) const MAX_GUESTS: usize = 32;

/// Whose a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// The agent that it was opened on: what others tell of it is not heard.
    pub(crate) agent: AgentId,
    /// The account that opened it; `None` for one of before accounts were noted.
    pub(crate) owner: Option<UserId>,
    /// Its name, as it was then.
    pub(crate) owner_name: String,
    /// Who is invited.
    pub(crate) guests: BTreeMap<UserId, TerminalGuest>,
}

impl Ownership {
    /// A session that an account just opened.
    pub(crate) fn new(agent: AgentId, owner: UserId, owner_name: &str) -> Self {
        Self {
            agent,
            owner: Some(owner),
            owner_name: owner_name.to_owned(),
            guests: BTreeMap::new(),
        }
    }
}
