//! What machines join with, and what the API says of it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sha256Hash;
use crate::{
    Timestamp,
    id::{AgentId, JoinTokenId},
};

/// A join token as people paste it: `batwa-join.<id>.<secret>.<SHA-256 of the master's public key>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token.
    pub id: JoinTokenId,
    /// What proves that one has it.
    pub secret: [u8; 32],
    /// The master that made it.
    pub master_key_hash: Sha256Hash,
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it does not have the form `batwa-join.ID.SECRET.KEY`: paste the whole token, without line breaks"
)]
pub struct JoinTokenError;

impl JoinToken {
    const PREFIX: &str = "batwa-join";
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(JoinTokenError);
        if next()? != Self::PREFIX {
            return Err(JoinTokenError);
        }
        let bytes = |text: &str| -> Result<[u8; 32], JoinTokenError> {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinTokenError)?;
            bytes.try_into().map_err(|_| JoinTokenError)
        };
        let token = Self {
            id: next()?.parse().map_err(|_| JoinTokenError)?,
            secret: bytes(next()?)?,
            master_key_hash: bytes(next()?)?.into(),
        };
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(JoinTokenError),
        }
    }
}

impl fmt::Display for JoinToken {
    /// The whole token, its secret included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}.{}",
            Self::PREFIX,
            self.id.as_uuid().simple(),
            URL_SAFE_NO_PAD.encode(self.secret),
            URL_SAFE_NO_PAD.encode(self.master_key_hash.as_bytes()),
        )
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

/// Body of `POST /api/v1/join-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateJoinToken {
    /// How many machines may join with it.
    pub uses: u32,
    /// For how long, in seconds.
    pub expires_in_s: u64,
    /// Labels that those machines get.
    pub labels: BTreeMap<String, String>,
    /// Whether they are let in at once; else they wait for an admin.
    pub approve: bool,
}

impl Default for CreateJoinToken {
    fn default() -> Self {
        Self {
            uses: 1,
            expires_in_s: 3600,
            labels: BTreeMap::new(),
            approve: true,
        }
    }
}

/// Answer to `POST /api/v1/join-tokens`: the only time the token is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedJoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// What is given to `batwa agent join`.
    pub token: String,
    /// One line to paste on the machine that is to join: it installs Batwa and joins. That of the first of [`Self::ways`].
    pub command: String,
    /// How machines reach the master, the best first; never empty.
    pub ways: Vec<JoinWay>,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// One address of the master, and what is pasted on a machine that reaches it there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinWay {
    /// Scheme, host and port: what `batwa agent join` takes.
    pub url: String,
    /// One line to paste on the machine that is to join: it installs Batwa and joins.
    pub command: String,
    /// Whether the master's own machine alone reaches it there.
    pub this_machine_only: bool,
}

/// How a join token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinTokenStatus {
    /// Machines can join with it.
    Active,
    /// As many have as may.
    UsedUp,
    /// Its time is over.
    Expired,
    /// An admin took it back.
    Revoked,
}

impl JoinTokenStatus {
    /// In the wire's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::UsedUp => "used_up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenInfo {
    /// Its id.
    pub id: JoinTokenId,
    /// How it stands.
    pub status: JoinTokenStatus,
    /// How many machines may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Labels that those machines get.
    pub labels: BTreeMap<String, String>,
    /// Whether they are let in at once.
    pub approve: bool,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The machines that joined with it, in order.
    pub agents: Vec<AgentId>,
}
