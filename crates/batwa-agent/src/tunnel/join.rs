//! `batwa agent join`: a token becomes an identity, or the reason why not.

use std::{path::PathBuf, sync::Arc, time::Duration};

use batwa_api::{
    id::AgentId,
    tunnel::{JoinToken, Purpose, TunnelStatus},
};
use batwa_tunnel::{Identity, JoinSecret, keys::KeyError};
use tokio::time::sleep;

use super::{
    ConnectError, Dialer, IdentityError, MasterUrl, Membership, backoff::Backoff, connect,
    describe, handshake::Greeting, identity::Lock, instance,
};
use crate::{host, state_dir::StateDir, state_dir::StateDirError};

/// Pauses while the master cannot be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who joins what.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Where the master is.
    pub master_url: MasterUrl,
    /// What proves that we may.
    pub token: JoinToken,
    /// The id to go by; made from the host name when absent.
    pub agent_id: Option<AgentId>,
    /// The agent's state folder.
    pub state_dir: PathBuf,
    /// Makes the connection.
    pub dialer: Arc<Dialer>,
}

/// An agent that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The id it goes by.
    pub agent_id: AgentId,
    /// Whether it is let in, or waits.
    pub status: TunnelStatus,
}

/// Why an agent has not joined. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The folder cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The identity in it cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system gives no random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder belongs to an agent of another master.
    #[error("the state folder `{}` belongs to agent `{agent}` of the master at {master}", state_dir.display())]
    OtherMaster {
        /// The folder.
        state_dir: PathBuf,
        /// Its agent.
        agent: AgentId,
        /// That agent's master.
        master: String,
    },
    /// The folder belongs to an agent of the same master with another id.
    #[error("the state folder `{}` belongs to agent `{agent}`", state_dir.display())]
    OtherAgent {
        /// The folder.
        state_dir: PathBuf,
        /// Its agent.
        agent: AgentId,
    },
    /// The master cannot be used, or refuses.
    #[error("cannot join {master}")]
    Refused {
        /// Where.
        master: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
}

impl JoinError {
    /// What to do about it, where we know.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::OtherMaster { .. } | Self::OtherAgent { .. } => Some(
                "give this agent a folder of its own with `--state-dir`, or remove `identity.json` from that one to give up the old identity".to_owned(),
            ),
            Self::Refused { source, .. } => source.fix(),
            Self::StateDir(_) | Self::Identity(_) | Self::Key(_) => None,
        }
    }
}

/// Joins. While the master cannot be reached it tries again, and tells `waiting` why and for how long it waits.
///
/// # Errors
/// [`JoinError`], at once, for everything that trying again does not change.
pub async fn join(
    request: JoinRequest,
    mut waiting: impl FnMut(&str, Duration),
) -> Result<Joined, JoinError> {
    // No other agent may use the folder at this time.
    let _folder = StateDir::open(&request.state_dir)?;
    let mut member = prepare(&request)?;
    let secret = JoinSecret::of(&request.token);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let instance = instance();
    let welcome = loop {
        let greeting = Greeting {
            agent_id: &member.agent_id,
            key: &member.identity,
            instance,
            purpose: Purpose::Join {
                token_id: request.token.id,
            },
            join_secret: Some(&secret),
            new_key: None,
            master_key_hash: request.token.master_key_hash,
        };
        match connect(&request.dialer, &request.master_url, &greeting).await {
            Ok((_, welcome)) => break welcome,
            Err(error) if error.is_transient() => {
                let pause = backoff.next();
                waiting(&describe(&error), pause);
                sleep(pause).await;
            }
            Err(source) => {
                return Err(JoinError::Refused {
                    master: request.master_url.to_string(),
                    source,
                });
            }
        }
    };
    member.agent_id = welcome.agent_id.clone();
    member.joined = true;
    member.save(&request.state_dir)?;
    Ok(Joined {
        agent_id: welcome.agent_id,
        status: welcome.status,
    })
}

/// The identity to ask with, written down before it is used: a key that the master knows and we have lost would
/// block its name.
fn prepare(request: &JoinRequest) -> Result<Membership, JoinError> {
    let _lock = Lock::take(&request.state_dir)?;
    let before = Membership::load(&request.state_dir)?;
    let same_master = |member: &Membership| member.master_key_hash == request.token.master_key_hash;
    let mut member = match before {
        Some(member) if member.joined && !same_master(&member) => {
            return Err(JoinError::OtherMaster {
                state_dir: request.state_dir.clone(),
                agent: member.agent_id,
                master: member.master_url.to_string(),
            });
        }
        Some(member) if same_master(&member) => member,
        Some(_) | None => {
            let identity = Identity::generate()?;
            let agent_id = request.agent_id.clone().unwrap_or_else(default_agent_id);
            Membership {
                agent_id,
                master_url: request.master_url.clone(),
                master_key_hash: request.token.master_key_hash,
                identity,
                next: None,
                joined: false,
            }
        }
    };
    if let Some(wanted) = &request.agent_id
        && *wanted != member.agent_id
    {
        if member.joined {
            return Err(JoinError::OtherAgent {
                state_dir: request.state_dir.clone(),
                agent: member.agent_id,
            });
        }
        member.agent_id = wanted.clone();
    }
    member.master_url = request.master_url.clone();
    member.save(&request.state_dir)?;
    Ok(member)
}

/// The id of an agent that is given none: its host name, or where that is no name, something else that stays.
#[must_use]
pub fn default_agent_id() -> AgentId {
    let machine = host::machine_hash().map(|hash| hash.to_string());
    own_name(
        &host::hostname(),
        &machine.unwrap_or_else(|| instance().to_string()),
    )
}

fn own_name(hostname: &str, machine: &str) -> AgentId {
    let name: String = hostname
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(AgentId::MAX_LEN)
        .collect();
    let is_none = matches!(
        name.as_str(),
        "localhost" | "localhost.localdomain" | "unknown"
    );
    AgentId::parse_remote(&name)
        .ok()
        .filter(|_| !is_none)
        .unwrap_or_else(|| {
            let digits: String = machine.chars().take(8).collect();
            AgentId::parse(&format!("agent-{digits}")).expect("letters and digits are an id")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_called_as_its_machine_is_where_that_is_a_name() {
        let name = |hostname: &str| own_name(hostname, "0123456789abcdef").to_string();
        assert_eq!(name("lab-2.example"), "lab-2.example");
        assert_eq!(name("Anna's Mac"), "Anna-s-Mac");
        assert_eq!(name("-x"), "x");
        assert_eq!(name(&"a".repeat(80)).len(), AgentId::MAX_LEN);
        for none in ["", "local", "null", "localhost", "---", "日本"] {
            assert_eq!(name(none), "agent-01234567", "{none}");
        }
    }
}
