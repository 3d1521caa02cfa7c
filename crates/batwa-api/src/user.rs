//! People and their credentials: accounts, sign-in, sessions, API tokens, the audit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{SessionId, TokenId, UserId},
};

/// What an account may do; each includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything, change nothing.
    Viewer,
    /// Make and manage VMs.
    Operator,
    /// Manage machines, accounts and settings too.
    Admin,
}

impl Role {
    /// The role in v1's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The name to sign in with.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may open terminals, run commands and move files in VMs.
    pub terminal: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last signed in.
    #[serde(default)]
    pub last_signed_in_at: Option<Timestamp>,
}

/// Body of `POST /api/v1/users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateUser {
    /// 1 to 64 letters, digits and `._@-`.
    pub name: String,
    /// At least 8 characters.
    pub password: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may open terminals; by default those who may manage VMs.
    #[serde(default)]
    pub terminal: Option<bool>,
}

/// Body of `PATCH /api/v1/users/{user}`; absent fields stay as they are.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct UpdateUser {
    /// A new role.
    #[serde(default)]
    pub role: Option<Role>,
    /// The terminal right.
    #[serde(default)]
    pub terminal: Option<bool>,
    /// A new password, set by an admin; ends the account's sessions.
    #[serde(default)]
    pub password: Option<String>,
}

/// Body of `POST /api/v1/session` and of the old `POST /api/auth/login`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// Body of `POST /api/v1/session/password`: the caller changes their own password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePassword {
    /// The password so far.
    pub current_password: String,
    /// The new one, at least 8 characters.
    pub new_password: String,
}

/// Answer to `GET /api/v1/session`: who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CurrentSession {
    /// The account.
    pub user: User,
    /// The browser session, when it is one.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// The API token, when it is one.
    #[serde(default)]
    pub token_id: Option<TokenId>,
    /// Things an admin should know, such as plain HTTP on an open address.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The master's version.
    pub version: String,
}

/// One signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id; not the secret in its cookie.
    pub id: SessionId,
    /// Where it signed in from.
    pub address: String,
    /// What the browser called itself.
    pub user_agent: String,
    /// When it signed in.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// Whether it is the caller's own.
    pub current: bool,
}

/// Body of `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    /// What it is for.
    pub name: String,
    /// Seconds until it expires; never when absent.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
    /// At most its owner's; the owner's own when absent.
    #[serde(default)]
    pub role: Option<Role>,
}

/// One API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub name: String,
    /// What it may do at most.
    pub role: Role,
    /// Its owner's name.
    pub owner: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

/// Answer to `POST /api/v1/tokens`: the only time the token is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// Its id.
    pub id: TokenId,
    /// `batwa_pat_…`, for `Authorization: Bearer`.
    pub token: String,
}

/// Answer to `GET /api/v1/setup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetupState {
    /// Whether there is no admin yet.
    pub needed: bool,
}

/// Body of `POST /api/v1/setup`: makes the first admin and signs it in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setup {
    /// The code of the one-time link.
    pub code: String,
    /// The admin's name.
    pub username: String,
    /// Its password, at least 8 characters.
    pub password: String,
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the chain, from 1.
    pub seq: i64,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it: an account's name, `agent:ID`, or `anonymous`.
    pub actor: String,
    /// By what: `session`, `token`, `agent_key`, `settings` (an agent by itself, because of a VM's settings), `none`.
    pub via: String,
    /// Where the request came from.
    pub address: String,
    /// What was done: `vm.create`, `session.sign_in`.
    pub action: String,
    /// To what: `lab-2/web`.
    pub target: String,
    /// `ok`, `refused` or `failed`.
    pub result: String,
    /// What else there is to say.
    #[serde(default)]
    pub detail: Option<String>,
    /// The request as the log knows it.
    pub request_id: String,
    /// SHA-256 over this line and the hash before it, in hex.
    pub hash: String,
}
