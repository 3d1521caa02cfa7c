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

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    Timestamp,
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

/// Makes a newtype over so many bytes that travels as lower-case hex.
macro_rules! bytes_as_hex {
    ($($(#[$doc:meta])* $name:ident($len:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// Its bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = BytesError;

            fn try_from(bytes: &[u8]) -> Result<Self, BytesError> {
                bytes.try_into().map(Self).map_err(|_| BytesError($len))
            }
        }

        impl FromStr for $name {
            type Err = BytesError;

            fn from_str(text: &str) -> Result<Self, BytesError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| BytesError($len))?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BytesError;

            fn try_from(text: String) -> Result<Self, BytesError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                hex::encode(value.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(&self.0[..8]))
            }
        }

        impl PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::Object::with_type(utoipa::openapi::schema::Type::String).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

/// Why a text is no such value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not {0} bytes in hex")]
pub struct BytesError(usize);

bytes_as_hex! {
    /// An Ed25519 public key: who an agent or a master is.
    PublicKey(32);
    /// Fresh random bytes, used once.
    Nonce(32);
    /// An Ed25519 signature.
    Signature(64);
    /// An HMAC-SHA256.
    Mac(32);
    /// A SHA-256.
    Sha256Hash(32);
    /// One start of one agent process, so that two that share a key can be told apart.
    InstanceId(16);
}

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

/// The bytes that the two sides sign: hello and challenge, field by field.
#[derive(Debug, Clone)]
pub struct Transcript {
    fields: Vec<u8>,
}

impl Transcript {
    /// What was said so far.
    #[must_use]
    pub fn new(hello: &Hello, challenge: &Challenge) -> Self {
        let mut fields = Fields::default();
        fields.number(hello.protocol.min);
        fields.number(hello.protocol.max);
        fields.bytes(hello.version.as_bytes());
        fields.bytes(hello.agent_id.as_str().as_bytes());
        fields.bytes(hello.public_key.as_bytes());
        fields.bytes(hello.nonce.as_bytes());
        match &hello.purpose {
            Purpose::Tunnel => fields.bytes(b"tunnel"),
            Purpose::Join { token_id } => {
                fields.bytes(b"join");
                fields.bytes(token_id.as_uuid().as_bytes());
            }
            Purpose::Rotate { new_key } => {
                fields.bytes(b"rotate");
                fields.bytes(new_key.as_bytes());
            }
        }
        fields.bytes(hello.instance.as_bytes());
        fields.bytes(hello.hostname.as_bytes());
        fields.optional(
            hello
                .machine
                .as_ref()
                .map(|hash| hash.as_bytes().as_slice()),
        );
        fields.number(challenge.protocol);
        fields.bytes(challenge.version.as_bytes());
        fields.bytes(challenge.master_key.as_bytes());
        fields.bytes(challenge.nonce.as_bytes());
        let certificate = challenge.tls_certificate.as_ref();
        fields.optional(certificate.map(|hash| hash.as_bytes().as_slice()));
        Self { fields: fields.0 }
    }

    /// What the master signs in its challenge.
    #[must_use]
    pub fn master(&self) -> Vec<u8> {
        self.under(b"batwa tunnel 1: master")
    }

    /// What the agent signs in its proof.
    #[must_use]
    pub fn agent(&self) -> Vec<u8> {
        self.under(b"batwa tunnel 1: agent")
    }

    /// What the token's secret authenticates.
    #[must_use]
    pub fn join(&self) -> Vec<u8> {
        self.under(b"batwa tunnel 1: join")
    }

    /// What the key signs that an agent changes to.
    #[must_use]
    pub fn new_key(&self) -> Vec<u8> {
        self.under(b"batwa tunnel 1: new key")
    }

    /// What the master signs in its welcome.
    #[must_use]
    pub fn welcome(&self, proof: &Proof, welcome: &Welcome) -> Vec<u8> {
        let mut fields = Fields(self.under(b"batwa tunnel 1: welcome"));
        fields.bytes(proof.signature.as_bytes());
        fields.bytes(welcome.agent_id.as_str().as_bytes());
        fields.bytes(welcome.status.as_str().as_bytes());
        fields.0
    }

    fn under(&self, label: &[u8]) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.bytes(label);
        fields.0.extend_from_slice(&self.fields);
        fields.0
    }
}

/// Fields one after the other, each with its length before it, so that none can be taken for part of another.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn count(&mut self, count: usize) {
        // No frame is anywhere near 4 GiB.
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(u32::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }
}

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
    /// One line to paste on the machine that is to join: it installs Batwa and joins.
    pub command: String,
    /// When it expires.
    pub expires_at: Timestamp,
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
