//! Who may register the old way, and as what: decisions over data, without any I/O.
//!
//! An unknown agent waits for an admin unless it presents a key that an admin made or registration is open; a known one proves the key it enrolled with.

use std::time::Duration;

use batwa_api::{Timestamp, certificate::CertificateHash, id::AgentId};

use super::record::{AgentRecord, Fingerprint, PendingAgent};

/// Most registrations that wait at a time.
pub(crate) const MAX_PENDING: usize = 1000;
/// Most of them from one address.
pub(crate) const MAX_PENDING_PER_ADDRESS: usize = 10;
/// How long one waits after it last asked.
pub(crate) const PENDING_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What an agent asks for when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Claim<'a> {
    /// The id it goes by.
    pub(crate) id: &'a AgentId,
    /// The hash of the key it gave.
    pub(crate) fingerprint: Option<&'a Fingerprint>,
    /// Where it says it can be reached.
    pub(crate) api_url: &'a str,
    /// The certificate that it shows there over TLS.
    pub(crate) certificate: Option<CertificateHash>,
    /// Where the request came from.
    pub(crate) address: &'a str,
}

/// A key that an admin made, when the claim presents one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownKey {
    /// The only agent that may use it; `None` while no agent has.
    pub(crate) agent_id: Option<AgentId>,
}

/// Who registers without an admin's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Those with a key that an admin made.
    Keys,
    /// Anybody (`--open-registration`).
    Open,
}

/// What becomes of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A known agent: its record takes the new host name, address and labels.
    Update,
    /// A new agent, let in at once.
    Admit,
    /// It waits for an admin.
    Wait,
    /// It waits for an admin, and the record under its id is void until then.
    WaitAgain,
    /// It is turned away.
    Refuse(Refusal),
}

/// Why a registration is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// An admin shut the agent out.
    #[error("this agent was revoked; an admin can remove it so that it may register again")]
    Revoked,
    /// The id belongs to an agent with another key.
    #[error(
        "this agent id is enrolled with another key; give the agent the key it enrolled with, or let an admin remove it"
    )]
    WrongKey,
    /// The key belongs to another agent.
    #[error("this key was made for another agent")]
    KeyOfAnother,
    /// The id belongs to an agent that dials in.
    #[error(
        "this agent id belongs to a machine that joined with a token and dials in; give this one another id, or let an admin remove the other"
    )]
    Tunnelled,
    /// Too many wait already.
    #[error("too many agents wait for approval; an admin has to approve or remove some")]
    TooManyPending,
    /// Too many from one address wait already.
    #[error("too many agents from this address wait for approval")]
    TooManyFromAddress,
}

/// What becomes of `claim`.
#[must_use]
pub(crate) fn decide(
    claim: &Claim<'_>,
    known: Option<&AgentRecord>,
    key: Option<&KnownKey>,
    admission: Admission,
    pending: &[PendingAgent],
) -> Decision {
    if let Some(key) = key
        && key.agent_id.as_ref().is_some_and(|owner| owner != claim.id)
    {
        return Decision::Refuse(Refusal::KeyOfAnother);
    }
    let Some(known) = known else {
        return if key.is_some() || admission == Admission::Open {
            Decision::Admit
        } else {
            wait(claim, pending, Decision::Wait)
        };
    };
    if known.revoked {
        return Decision::Refuse(Refusal::Revoked);
    }
    if known.public_key.is_some() {
        return Decision::Refuse(Refusal::Tunnelled);
    }
    // An admin who makes a key for this very agent lets it change to that key.
    let key_is_for_it = key.is_some_and(|key| key.agent_id.is_some());
    match (&known.secret, claim.fingerprint) {
        _ if key_is_for_it => Decision::Update,
        (Some(secret), Some(given)) if secret.fingerprint == *given => Decision::Update,
        (Some(_), _) => Decision::Refuse(Refusal::WrongKey),
        (None, None)
            if known.api_url == claim.api_url && known.certificate == claim.certificate =>
        {
            Decision::Update
        }
        (None, None) if admission == Admission::Open => Decision::Update,
        // Nothing tells the agent from somebody else who took its name.
        (None, None) => wait(claim, pending, Decision::WaitAgain),
        // It got a key since: that says nothing about who it is, but the record without one goes on.
        (None, Some(_)) => wait(claim, pending, Decision::Wait),
    }
}

fn wait(claim: &Claim<'_>, pending: &[PendingAgent], decision: Decision) -> Decision {
    let waits_already = pending
        .iter()
        .any(|row| row.id == *claim.id && row.has_key_of(claim.fingerprint));
    if waits_already {
        return decision;
    }
    let from_address = pending
        .iter()
        .filter(|row| row.address == claim.address)
        .count();
    if from_address >= MAX_PENDING_PER_ADDRESS {
        Decision::Refuse(Refusal::TooManyFromAddress)
    } else if pending.len() >= MAX_PENDING {
        Decision::Refuse(Refusal::TooManyPending)
    } else {
        decision
    }
}

/// Whether a waiting registration has waited too long.
#[must_use]
pub(crate) fn is_expired(pending: &PendingAgent, now: Timestamp) -> bool {
    now.duration_since(pending.last_seen).unsigned_abs() > PENDING_LIFETIME
        && now > pending.last_seen
}

/// Why an approval names no registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ambiguity {
    /// None waits under this id.
    #[error("no registration waits under this agent id")]
    None,
    /// Several wait, and the approval does not say which.
    #[error("several registrations wait under this agent id: name the fingerprint of one")]
    Several,
    /// The one that is named does not wait, or not any more.
    #[error(
        "the registration has changed: none with this fingerprint waits; look again before you approve"
    )]
    Changed,
}

/// Which of an id's waiting registrations an approval means.
///
/// # Errors
/// [`Ambiguity`] when it is none or not clear.
pub(crate) fn choose<'a>(
    waiting: &'a [PendingAgent],
    fingerprint: Option<&str>,
) -> Result<&'a PendingAgent, Ambiguity> {
    match fingerprint {
        Some(wanted) => waiting
            .iter()
            .find(|row| {
                row.fingerprint()
                    .is_some_and(|fingerprint| is_prefix(wanted, fingerprint.as_str()))
            })
            .ok_or(Ambiguity::Changed),
        None => match waiting {
            [] => Err(Ambiguity::None),
            [only] => Ok(only),
            _ => Err(Ambiguity::Several),
        },
    }
}

/// People give the digits that they were shown, programs all of them.
fn is_prefix(wanted: &str, fingerprint: &str) -> bool {
    let wanted = wanted.trim().to_ascii_lowercase();
    wanted.len() >= Fingerprint::SHOWN && fingerprint.starts_with(&wanted)
}

/// Why a heartbeat is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeartbeatRefusal {
    /// No agent and no registration has this id.
    #[error("this master does not know the agent; it has to register")]
    Unknown,
    /// An admin shut the agent out.
    #[error("this agent was revoked")]
    Revoked,
    /// The key is not the one the agent enrolled with, or missing.
    #[error("the key is not the one this agent enrolled with")]
    WrongKey,
}

/// Whether a heartbeat counts: for a record by its key, else for a waiting registration with that key.
///
/// # Errors
/// [`HeartbeatRefusal`].
pub(crate) fn check_heartbeat(
    record: Option<&AgentRecord>,
    waiting: &[PendingAgent],
    fingerprint: Option<&Fingerprint>,
) -> Result<(), HeartbeatRefusal> {
    let waits = waiting.iter().any(|row| row.has_key_of(fingerprint));
    match record {
        Some(record) if record.revoked => Err(HeartbeatRefusal::Revoked),
        // Its tunnel is its sign of life; whoever beats in its name is somebody else.
        Some(record) if record.public_key.is_some() => Err(HeartbeatRefusal::WrongKey),
        Some(record) => match &record.secret {
            None => Ok(()),
            Some(secret) if Some(&secret.fingerprint) == fingerprint => Ok(()),
            Some(_) => Err(HeartbeatRefusal::WrongKey),
        },
        None if waits => Ok(()),
        None if waiting.is_empty() => Err(HeartbeatRefusal::Unknown),
        None => Err(HeartbeatRefusal::WrongKey),
    }
}

/// Keys of register and heartbeat: the header's, else the body's.
///
/// # Errors
/// [`KeysDiffer`] when both are there and not the same.
pub(crate) fn one_key<'a>(
    header: Option<&'a str>,
    body: Option<&'a str>,
) -> Result<Option<&'a str>, KeysDiffer> {
    // Old agents without a key send an empty or no one.
    let header = header.filter(|key| !key.is_empty());
    let body = body.filter(|key| !key.is_empty());
    match (header, body) {
        (Some(header), Some(body)) if header != body => Err(KeysDiffer),
        (header, body) => Ok(header.or(body)),
    }
}

/// A request gives two different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key in the header `X-API-Key` and the one in the body differ")]
pub(crate) struct KeysDiffer;

#[cfg(test)]
mod tests;
