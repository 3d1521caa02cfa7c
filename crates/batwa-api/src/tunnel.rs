//! The handshake by which an agent's tunnel proves who is at either end: frames, transcript, join tokens.
//!
//! ```text
//! agent ── hello ──────► master      who it is, a fresh nonce, what for
//! agent ◄─ challenge ─── master      a fresh nonce, signed with the master's key
//! agent ── proof ──────► master      signed with the agent's key; for a join also a MAC with the token's secret
//! agent ◄─ welcome ───── master      signed; or `refused` with cause and fix, here or instead of the challenge
//! ```
//!
//! Each frame is one WebSocket text message. What is signed is the [`Transcript`]: every field of hello and
//! challenge, each with its length before it, under a label that names role and purpose. So no signature fits
//! another handshake, another field, or the other side. Nothing here depends on a clock, on TLS, or on
//! what a proxy does. Signing itself is done where keys are: this module is plain data.

mod bytes;
mod join_token;
mod transcript;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    bytes::{BytesError, InstanceId, Mac, Nonce, PublicKey, Sha256Hash, Signature},
    join_token::{
        CreateJoinToken, CreatedJoinToken, JoinToken, JoinTokenError, JoinTokenInfo,
        JoinTokenStatus, JoinWay,
    },
    transcript::Transcript,
};
use crate::{
    certificate::CertificateHash,
    id::{AgentId, JoinTokenId},
};

/// Where the master takes tunnels.
pub const TUNNEL_PATH: &str = "/api/v1/tunnel";
/// The oldest handshake and agent API that this build still understands: one version of skew works each way.
pub const OLDEST_PROTOCOL: u32 = if crate::PROTOCOL_VERSION > 1 {
    crate::PROTOCOL_VERSION - 1
} else {
    1
};
/// Longest frame of the handshake, in bytes.
pub const MAX_HANDSHAKE_FRAME: usize = 16 << 10;
/// Longest host name or version that a hello may carry.
const MAX_TEXT: usize = 255;

/// The versions of handshake and agent API that a side understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl ProtocolRange {
    /// What this build understands.
    pub const OURS: Self = Self {
        min: OLDEST_PROTOCOL,
        max: crate::PROTOCOL_VERSION,
    };

    /// The newest version that both understand.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

/// What an agent opens a tunnel for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Purpose {
    /// To be reached, with the identity it joined with.
    Tunnel,
    /// To become known, by a join token; nothing runs in this tunnel.
    Join {
        /// Which token; its secret is proven, never sent.
        token_id: JoinTokenId,
    },
    /// To go by another key from now on; nothing runs in this tunnel.
    Rotate {
        /// The key that takes the place of [`Hello::public_key`].
        new_key: PublicKey,
    },
}

/// The first frame, by the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it understands.
    pub protocol: ProtocolRange,
    /// Its version of Batwa, for people.
    pub version: String,
    /// The id it goes by.
    pub agent_id: AgentId,
    /// Its key.
    pub public_key: PublicKey,
    /// Fresh bytes of its own.
    pub nonce: Nonce,
    /// What it wants.
    pub purpose: Purpose,
    /// This start of its process.
    pub instance: InstanceId,
    /// Its machine's name.
    pub hostname: String,
    /// A hash that differs between machines, where the system has one.
    #[serde(default)]
    pub machine: Option<Sha256Hash>,
}

impl Hello {
    /// What is wrong with it besides its signatures, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let is_text = |text: &str| {
            !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
        };
        if !is_text(&self.version) {
            Some("the version is no short text")
        } else if !is_text(&self.hostname) {
            Some("the host name is no short text")
        } else {
            None
        }
    }
}

/// The answer to a hello, by the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The version that both understand.
    pub protocol: u32,
    /// The master's version of Batwa, for people.
    pub version: String,
    /// The master's key.
    pub master_key: PublicKey,
    /// Fresh bytes of its own.
    pub nonce: Nonce,
    /// SHA-256 of the TLS certificate that the master itself serves, if it does: an agent that cannot verify the
    /// certificate it sees by its system's roots accepts this one, because the master's key signs for it.
    #[serde(default)]
    pub tls_certificate: Option<CertificateHash>,
}

/// A frame from agent to master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentFrame {
    /// First.
    Hello(Hello),
    /// Second.
    Proof(Proof),
}

/// What the agent proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// By the agent's key, over [`Transcript::agent`].
    pub signature: Signature,
    /// By the token's secret, over [`Transcript::join`].
    #[serde(default)]
    pub mac: Option<Mac>,
    /// By the new key, over [`Transcript::new_key`].
    #[serde(default)]
    pub new_key_signature: Option<Signature>,
}

/// A frame from master to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MasterFrame {
    /// First.
    Challenge {
        /// What is said.
        challenge: Challenge,
        /// By the master's key, over [`Transcript::master`].
        signature: Signature,
    },
    /// Second: the proof is good.
    Welcome {
        /// What is said.
        welcome: Welcome,
        /// By the master's key, over [`Transcript::welcome`].
        signature: Signature,
    },
    /// Instead of either.
    Refused(Refused),
}

/// The end of a handshake that worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The id under which the master knows the agent.
    pub agent_id: AgentId,
    /// How it stands.
    pub status: TunnelStatus,
}

/// How an agent with an open tunnel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelStatus {
    /// It is let in.
    Approved,
    /// It waits for an admin and is asked nothing.
    Pending,
}

impl TunnelStatus {
    /// In the wire's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Pending => "pending",
        }
    }
}

/// A handshake that did not work, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What kind, for programs.
    pub code: RefusalCode,
    /// What happened.
    pub detail: String,
    /// What to do about it.
    pub fix: String,
}

/// Why a master refuses a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// A frame cannot be read, or comes out of turn.
    Malformed,
    /// The two versions have no protocol in common.
    Version,
    /// A signature or MAC is wrong.
    BadProof,
    /// There is no such token.
    UnknownToken,
    /// The token is too old.
    TokenExpired,
    /// The token has admitted as many agents as it may.
    TokenUsedUp,
    /// An admin took the token back.
    TokenRevoked,
    /// The id belongs to another machine.
    NameTaken,
    /// The master knows no such agent.
    UnknownAgent,
    /// The master knows the agent by another key.
    WrongKey,
    /// An admin shut the agent out.
    Revoked,
    /// Too many agents wait for approval.
    TooManyWaiting,
    /// The master cannot do it now; trying again helps.
    Busy,
    /// A later master's reason.
    #[serde(other)]
    Other,
}

impl RefusalCode {
    /// Whether trying again later may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Answer of an agent to `POST /api/v1/identity/rotate-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedKey {
    /// The key it goes by now.
    pub public_key: PublicKey,
}

/// Why a tunnel was closed, as the code of the WebSocket's close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The agent stops.
    GoingAway,
    /// The master stops; the reason says after how many milliseconds to come back.
    ComeBack,
    /// An admin shut the agent out, or removed it.
    ShutOut,
    /// A newer tunnel of the same identity took its place.
    Replaced,
    /// The other side broke the rules.
    Violation,
}

impl CloseCode {
    /// The number on the wire; the first two are RFC 6455's "going away" and "service restart".
    #[must_use]
    pub fn as_u16(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::ComeBack => 1012,
            Self::ShutOut => 4403,
            Self::Replaced => 4409,
            Self::Violation => 4400,
        }
    }

    /// The code with this number.
    #[must_use]
    pub fn from_u16(number: u16) -> Option<Self> {
        [
            Self::GoingAway,
            Self::ComeBack,
            Self::ShutOut,
            Self::Replaced,
            Self::Violation,
        ]
        .into_iter()
        .find(|code| code.as_u16() == number)
    }
}

#[cfg(test)]
mod tests;
