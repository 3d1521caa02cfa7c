//! A new key in place of the old one, whatever breaks in between.
//!
//! ```text
//! new key written beside the old ─► handshake: both sign ─► master stores the new one ─► it takes the old one's place
//! ```
//!
//! Until the last step the file holds both, and an agent that finds both tries the new one first: so it is known to
//! its master by one of them at every moment.

use std::path::Path;

use batwa_api::tunnel::{InstanceId, PublicKey, Purpose};
use batwa_tunnel::{Identity, keys::KeyError};
use tracing::{info, warn};

use super::{
    ConnectError, Dialer, HandshakeError, IdentityError, Membership, connect, handshake::Greeting,
    identity::Lock,
};

/// Why the key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// There is none, or its file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system gives no random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The master did not take the new one.
    #[error("the master does not take the new key")]
    Connect(#[from] ConnectError),
}

impl RotateError {
    /// What to do about it, where we know.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.fix(),
            Self::Identity(_) | Self::Key(_) => None,
        }
    }
}

/// Makes a new key for the agent of this folder and has its master take it; works beside the running agent, which is
/// `instance`, or another process.
///
/// # Errors
/// [`RotateError`]; the agent is then known by one of the two keys, which it finds out by itself.
pub async fn rotate_key(
    state_dir: &Path,
    dialer: &Dialer,
    instance: InstanceId,
) -> Result<PublicKey, RotateError> {
    let _lock = Lock::take(state_dir)?;
    let mut member = Membership::load(state_dir)?
        .filter(|member| member.joined)
        .ok_or_else(|| IdentityError::NotJoined(state_dir.to_owned()))?;
    // One that was begun before and not finished is gone on with.
    let next = match member.next.clone() {
        Some(next) => next,
        None => {
            let next = Identity::generate()?;
            member.next = Some(next.clone());
            member.save(state_dir)?;
            next
        }
    };
    let greeting = Greeting {
        agent_id: &member.agent_id,
        key: &member.identity,
        instance,
        purpose: Purpose::Rotate {
            new_key: next.public(),
        },
        join_secret: None,
        new_key: Some(&next),
        master_key_hash: member.master_key_hash,
    };
    match connect(dialer, &member.master_url, &greeting).await {
        Ok(_) => {}
        // The master took it the last time already, and only its answer was lost: then it knows us by the new key.
        Err(error) if error.is_unknown_key() => {
            let again = Greeting {
                key: &next,
                ..greeting
            };
            connect(dialer, &member.master_url, &again)
                .await
                .map_err(|_| error)?;
        }
        Err(error) => return Err(error.into()),
    }
    member.identity = next.clone();
    member.next = None;
    member.save(state_dir)?;
    info!("agent `{}` goes by a new key", member.agent_id);
    Ok(next.public())
}

/// Puts `next` in the old key's place, now that the master is known to know it.
pub(super) fn settle(state_dir: &Path, next: &Identity) {
    let settle = || -> Result<(), IdentityError> {
        let _lock = Lock::take(state_dir)?;
        if let Some(mut member) = Membership::load(state_dir)?
            && member.next.as_ref().map(Identity::public) == Some(next.public())
        {
            member.identity = next.clone();
            member.next = None;
            member.save(state_dir)?;
        }
        Ok(())
    };
    if let Err(error) = settle() {
        // Both keys stay in the file, which works as well.
        warn!("cannot write the new key in the old one's place yet: {error}");
    }
}

impl From<HandshakeError> for RotateError {
    fn from(error: HandshakeError) -> Self {
        Self::Connect(error.into())
    }
}
