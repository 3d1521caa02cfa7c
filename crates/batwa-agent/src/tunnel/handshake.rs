//! The agent's side of the handshake: prove who we are to a master that has proven to be ours.

use std::time::Duration;

use batwa_api::{
    id::AgentId,
    tunnel::{
        AgentFrame, Challenge, Hello, InstanceId, MasterFrame, Proof, ProtocolRange, Purpose,
        Refused, Sha256Hash, Transcript, Welcome,
    },
};
use batwa_tunnel::{Identity, JoinSecret, WireError, keys, wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use super::verify::Seen;
use crate::host;

/// How long each of the master's frames may take.
const FRAME_DEADLINE: Duration = Duration::from_secs(15);

/// Who we are, and what for.
pub(super) struct Greeting<'a> {
    pub(super) agent_id: &'a AgentId,
    pub(super) key: &'a Identity,
    pub(super) instance: InstanceId,
    pub(super) purpose: Purpose,
    /// For a join.
    pub(super) join_secret: Option<&'a JoinSecret>,
    /// For a change of key.
    pub(super) new_key: Option<&'a Identity>,
    /// Who the master must be.
    pub(super) master_key_hash: Sha256Hash,
}

/// Why a handshake did not work.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed.
    #[error("the master did not finish the handshake")]
    Wire(#[from] WireError),
    /// A frame did not come in time.
    #[error("the master did not go on with the handshake within {} s", FRAME_DEADLINE.as_secs())]
    Slow,
    /// The system gives no random bytes.
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    /// Another master than ours answers, or somebody who says to be ours and cannot prove it.
    #[error("the master at this address is not the one that made the token: its key is another")]
    WrongMaster,
    /// What answers has our master's key by name only.
    #[error("what answers at this address does not have the master's key")]
    Impostor,
    /// Neither the system nor the master vouches for the TLS certificate.
    #[error("{0}, and the master's key does not vouch for it either")]
    Certificate(String),
    /// The master refuses.
    #[error("{}", .0.detail)]
    Refused(Refused),
    /// What comes is none of the frames that can come here.
    #[error("the master's answer makes no sense")]
    Nonsense,
}

impl HandshakeError {
    /// Whether trying again may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Wire(WireError::Garbage(_)) => false,
            Self::Wire(_) | Self::Slow => true,
            Self::Refused(refused) => refused.code.is_transient(),
            _ => false,
        }
    }

    /// What to do about it, where we know.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Refused(refused) => return Some(clean(&refused.fix)),
            Self::WrongMaster => {
                "give the address of the master that made the token, or make a token at this one"
            }
            Self::Impostor => "somebody may be between: check the address and the network",
            Self::Certificate(_) => {
                "give the master a certificate that this machine trusts, install the authority that signed it here, or let the master serve TLS itself"
            }
            Self::Nonsense | Self::Wire(WireError::Garbage(_)) => {
                "run the same version of Batwa on both machines"
            }
            Self::Wire(_) | Self::Slow | Self::Key(_) => return None,
        };
        Some(fix.to_owned())
    }
}

/// Shakes hands on `socket`, whose TLS certificate, if it had one, was `certificate`.
///
/// # Errors
/// [`HandshakeError`].
pub(super) async fn shake_hands<S>(
    socket: &mut WebSocketStream<S>,
    greeting: &Greeting<'_>,
    certificate: Option<Seen>,
) -> Result<Welcome, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Hello {
        protocol: ProtocolRange::OURS,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_id: greeting.agent_id.clone(),
        public_key: greeting.key.public(),
        nonce: keys::nonce()?,
        purpose: greeting.purpose.clone(),
        instance: greeting.instance,
        hostname: host::hostname(),
        machine: host::machine_hash(),
    };
    wire::send(socket, &AgentFrame::Hello(hello.clone())).await?;
    let transcript = match receive(socket).await? {
        MasterFrame::Challenge {
            challenge,
            signature,
        } => {
            let transcript = Transcript::new(&hello, &challenge);
            check_master(greeting, &hello, &challenge, certificate)?;
            if !keys::is_signed(&challenge.master_key, &transcript.master(), &signature) {
                return Err(HandshakeError::Impostor);
            }
            (transcript, challenge.master_key)
        }
        MasterFrame::Refused(refused) => return Err(refusal(&refused)),
        MasterFrame::Welcome { .. } => return Err(HandshakeError::Nonsense),
    };
    let (transcript, master_key) = transcript;
    let proof = Proof {
        signature: greeting.key.sign(&transcript.agent()),
        mac: greeting
            .join_secret
            .map(|secret| secret.mac(&transcript.join())),
        new_key_signature: greeting
            .new_key
            .map(|new_key| new_key.sign(&transcript.new_key())),
    };
    wire::send(socket, &AgentFrame::Proof(proof.clone())).await?;
    match receive(socket).await? {
        MasterFrame::Welcome { welcome, signature } => {
            let signed = transcript.welcome(&proof, &welcome);
            if !keys::is_signed(&master_key, &signed, &signature) {
                return Err(HandshakeError::Impostor);
            }
            Ok(welcome)
        }
        MasterFrame::Refused(refused) => Err(refusal(&refused)),
        MasterFrame::Challenge { .. } => Err(HandshakeError::Nonsense),
    }
}

/// Whether the challenge can be our master's, its signature apart.
fn check_master(
    greeting: &Greeting<'_>,
    hello: &Hello,
    challenge: &Challenge,
    certificate: Option<Seen>,
) -> Result<(), HandshakeError> {
    if keys::sha256(challenge.master_key.as_bytes()) != greeting.master_key_hash {
        return Err(HandshakeError::WrongMaster);
    }
    if !(hello.protocol.min..=hello.protocol.max).contains(&challenge.protocol) {
        return Err(HandshakeError::Nonsense);
    }
    if let Some(Seen {
        hash,
        distrust: Some(why),
    }) = certificate
        && challenge.tls_certificate != Some(hash)
    {
        return Err(HandshakeError::Certificate(why));
    }
    Ok(())
}

async fn receive<S>(socket: &mut WebSocketStream<S>) -> Result<MasterFrame, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(FRAME_DEADLINE, wire::receive(socket)).await {
        Ok(frame) => Ok(frame?),
        Err(_) => Err(HandshakeError::Slow),
    }
}

fn refusal(refused: &Refused) -> HandshakeError {
    HandshakeError::Refused(Refused {
        code: refused.code,
        detail: clean(&refused.detail),
        fix: clean(&refused.fix),
    })
}

/// A master's words go to logs and terminals.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

#[cfg(test)]
mod tests;
