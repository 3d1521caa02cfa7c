//! Who calls, and what they may do.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use batwa_api::{
    id::{SessionId, TokenId, UserId},
    user::Role,
};

use super::Error;

/// What a call needs; each path has exactly one, see `http/router.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// To see machines, VMs and operations.
    Read,
    /// To make and manage VMs.
    Manage,
    /// To type in VMs.
    Terminal,
    /// To manage machines, accounts and settings.
    Administer,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "see machines and VMs",
            Self::Manage => "manage VMs",
            Self::Terminal => "open terminals",
            Self::Administer => "administer",
        })
    }
}

/// Whether an account with this role and terminal right has `right`. The one place that says so.
pub(crate) fn allows(role: Role, terminal: bool, right: Right) -> bool {
    match right {
        Right::Read => true,
        Right::Manage => role >= Role::Operator,
        Right::Terminal => terminal,
        Right::Administer => role >= Role::Admin,
    }
}

/// By what a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A browser's session cookie.
    Session(SessionId),
    /// An API token.
    Token(TokenId),
}

/// Where a request came from, and its name in log and audit.
#[derive(Clone, Debug)]
pub struct Source {
    /// The true client's address, behind trusted proxies too.
    pub address: IpAddr,
    /// The request as the log knows it.
    pub request_id: Arc<str>,
    /// Whether an audit line was written for this request already.
    pub(crate) audited: Arc<AtomicBool>,
}

impl Source {
    /// A request from `address`.
    pub(crate) fn new(address: IpAddr, request_id: Arc<str>) -> Self {
        Self {
            address,
            request_id,
            audited: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether the audit knows of this request.
    pub(crate) fn is_audited(&self) -> bool {
        self.audited.load(Ordering::Relaxed)
    }
}

/// Who calls: an account, by its session or token, with the rights that these have now.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub user_id: UserId,
    /// Its name.
    pub name: Arc<str>,
    /// What it may do: the account's role, or less for a lesser token.
    pub role: Role,
    /// Whether it may open terminals.
    pub terminal: bool,
    /// By what it is known.
    pub via: Via,
    /// Where the request came from.
    pub source: Source,
}

impl Caller {
    /// Refuses a caller without `right`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, right: Right) -> Result<(), Error> {
        if allows(self.role, self.terminal, right) {
            Ok(())
        } else {
            Err(Error::Forbidden(right))
        }
    }
}
