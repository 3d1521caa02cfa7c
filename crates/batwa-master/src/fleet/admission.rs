//! Who may open a tunnel, and as what: decisions over data, without any I/O. Signatures are checked before.

use batwa_api::{
    id::AgentId,
    tunnel::{
        Hello, JoinTokenInfo, JoinTokenStatus, ProtocolRange, PublicKey, Purpose, RefusalCode,
        Refused,
    },
};

use super::{
    enrolment::{MAX_PENDING, MAX_PENDING_PER_ADDRESS},
    record::{AgentRecord, PendingAgent},
};

/// What becomes of a hello whose proof is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// An agent that was let in before.
    Known,
    /// One that waits already.
    Waiting,
    /// A new one: it takes a use of its token, and is let in or waits as that says.
    Join,
    /// A known one that changes its key.
    Rotate {
        /// To this one.
        new_key: PublicKey,
    },
}

/// What becomes of `hello`.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn decide(
    hello: &Hello,
    known: Option<&AgentRecord>,
    waiting: &[PendingAgent],
) -> Result<Admission, Refused> {
    let id = &hello.agent_id;
    let key = Some(hello.public_key);
    let waits = waiting.iter().any(|row| row.public_key == key);
    match &hello.purpose {
        Purpose::Join { .. } => match known {
            _ if id.is_local() => Err(name_reserved(id)),
            Some(known) if known.public_key == key && known.revoked => Err(revoked(id)),
            // It joined before, and asks again because it never heard of it, or lost track.
            Some(known) if known.public_key == key => Ok(Admission::Known),
            Some(_) => Err(name_taken(id)),
            None => Ok(Admission::Join),
        },
        Purpose::Tunnel => match known {
            Some(known) if known.public_key == key && known.revoked => Err(revoked(id)),
            Some(known) if known.public_key == key => Ok(Admission::Known),
            _ if waits => Ok(Admission::Waiting),
            Some(_) => Err(wrong_key(id)),
            None if waiting.is_empty() => Err(unknown_agent(id)),
            None => Err(wrong_key(id)),
        },
        Purpose::Rotate { new_key } => match known {
            Some(known) if known.revoked => Err(revoked(id)),
            Some(known) if known.public_key == key => Ok(Admission::Rotate { new_key: *new_key }),
            Some(_) => Err(wrong_key(id)),
            None if waits => Err(refused(
                RefusalCode::UnknownAgent,
                format!("agent `{id}` still waits for approval"),
                "change its key once an admin has let it in",
            )),
            None => Err(unknown_agent(id)),
        },
    }
}

/// Whether one more may wait that comes from `address`.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn check_room(all_waiting: &[PendingAgent], address: &str) -> Result<(), Refused> {
    let from_address = all_waiting
        .iter()
        .filter(|row| row.address == address)
        .count();
    if all_waiting.len() >= MAX_PENDING || from_address >= MAX_PENDING_PER_ADDRESS {
        return Err(refused(
            RefusalCode::TooManyWaiting,
            "too many machines wait for approval already".to_owned(),
            "let an admin approve or remove some on the Machines page",
        ));
    }
    Ok(())
}

/// Whether a token can be used.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn check_token(token: &JoinTokenInfo) -> Result<(), Refused> {
    let (code, detail) = match token.status {
        JoinTokenStatus::Active => return Ok(()),
        JoinTokenStatus::Expired => (
            RefusalCode::TokenExpired,
            format!("the join token expired at {}", token.expires_at),
        ),
        JoinTokenStatus::UsedUp => {
            let times = match token.uses {
                1 => "once".to_owned(),
                n => format!("{n} times"),
            };
            (
                RefusalCode::TokenUsedUp,
                format!("the join token has been used {times}, which is all it allows"),
            )
        }
        JoinTokenStatus::Revoked => (
            RefusalCode::TokenRevoked,
            "an admin took the join token back".to_owned(),
        ),
    };
    Err(refused(code, detail, NEW_TOKEN))
}

/// What helps against a token that does not work.
const NEW_TOKEN: &str =
    "make a new one on the Machines page, or with `batwa join-token create`, and join with that";

fn refused(code: RefusalCode, detail: String, fix: &str) -> Refused {
    Refused {
        code,
        detail,
        fix: fix.to_owned(),
    }
}

/// There is no such token.
pub(crate) fn unknown_token() -> Refused {
    refused(
        RefusalCode::UnknownToken,
        "this master has no such join token".to_owned(),
        NEW_TOKEN,
    )
}

/// A signature or MAC is wrong.
pub(crate) fn bad_proof(hello: &Hello) -> Refused {
    match hello.purpose {
        Purpose::Join { .. } => refused(
            RefusalCode::BadProof,
            "the join token is not whole, or not as it was made".to_owned(),
            "paste the whole token, without line breaks",
        ),
        Purpose::Tunnel | Purpose::Rotate { .. } => refused(
            RefusalCode::BadProof,
            "the agent did not prove that it has its key".to_owned(),
            "join again with a new token",
        ),
    }
}

/// A frame that is none, or out of turn.
pub(crate) fn malformed(what: &str) -> Refused {
    refused(
        RefusalCode::Malformed,
        format!("the handshake cannot be understood: {what}"),
        "run the same version of Batwa on both machines",
    )
}

/// The master cannot do it now.
pub(crate) fn busy(what: &str) -> Refused {
    refused(RefusalCode::Busy, what.to_owned(), "wait a moment")
}

/// The two sides have no version in common.
pub(crate) fn versions(hello: &Hello) -> Refused {
    let ours = ProtocolRange::OURS;
    let theirs = hello.protocol;
    let range = |range: ProtocolRange| {
        if range.min == range.max {
            range.max.to_string()
        } else {
            format!("{} to {}", range.min, range.max)
        }
    };
    let fix = if theirs.max < ours.min {
        format!(
            "install Batwa {} on this machine: the agent is too old",
            env!("CARGO_PKG_VERSION")
        )
    } else {
        format!(
            "install Batwa {} on the master's machine: the master is too old",
            hello.version
        )
    };
    refused(
        RefusalCode::Version,
        format!(
            "the agent (Batwa {}) speaks protocol {}, the master (Batwa {}) protocol {}",
            hello.version,
            range(theirs),
            env!("CARGO_PKG_VERSION"),
            range(ours),
        ),
        &fix,
    )
}

fn name_reserved(id: &AgentId) -> Refused {
    refused(
        RefusalCode::NameTaken,
        format!("the agent id `{id}` means the master's own machine"),
        "give this machine another id with `--agent-id`",
    )
}

fn name_taken(id: &AgentId) -> Refused {
    refused(
        RefusalCode::NameTaken,
        format!("the agent id `{id}` belongs to another machine"),
        "give this machine another id with `--agent-id`, or let an admin remove the other one on the Machines page",
    )
}

fn unknown_agent(id: &AgentId) -> Refused {
    refused(
        RefusalCode::UnknownAgent,
        format!("this master does not know agent `{id}`: it was removed, or never let in"),
        "join again with a new token",
    )
}

fn wrong_key(id: &AgentId) -> Refused {
    refused(
        RefusalCode::WrongKey,
        format!("this master knows agent `{id}` by another key"),
        "if the key was changed on another copy of this folder, stop that one; else let an admin remove the agent, and join again",
    )
}

fn revoked(id: &AgentId) -> Refused {
    refused(
        RefusalCode::Revoked,
        format!("an admin shut agent `{id}` out"),
        "let an admin remove the agent on the Machines page, and join again with a new token",
    )
}
