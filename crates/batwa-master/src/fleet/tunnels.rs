//! Tunnels that agents have open: one for each agent and key, the newest.
//!
//! `app::tunnels` brings them here once the key is proven; the link of an agent takes its streams from here. An
//! agent that is let in has one key, so one tunnel; under an id where several wait, each may have its own, and
//! nobody opens a stream in those.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use batwa_api::{
    Timestamp,
    agent::{Alert, AlertCode, Tunnel},
    id::AgentId,
    tunnel::{CloseCode, InstanceId, PublicKey, Sha256Hash},
};
use batwa_tunnel::{Closed, Hold, Opener, Stream};

/// Who is at the other end of a tunnel, as its hello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The start of the agent's process.
    pub(crate) instance: InstanceId,
    /// Its machine, where it can tell.
    pub(crate) machine: Option<Sha256Hash>,
    /// Its machine's name.
    pub(crate) hostname: String,
    /// Where it dials in from.
    pub(crate) address: String,
}

/// One open tunnel.
#[derive(Debug, Clone)]
struct Live {
    /// Tells it from one that took its place.
    number: u64,
    opener: Opener,
    peer: Peer,
    /// Whether streams may be opened in it.
    let_in: bool,
}

/// All open tunnels.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    live: Mutex<HashMap<AgentId, HashMap<PublicKey, Live>>>,
    /// The agent that was last pushed aside under an id, to know it when it is back.
    displaced: Mutex<HashMap<AgentId, Peer>>,
    last: AtomicU64,
}

/// What taking a tunnel meant.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The tunnel, for [`Tunnels::close`].
    pub(crate) number: u64,
    /// The other agent that presents the same key and is alive, when there is one.
    pub(crate) rival: Option<Peer>,
}

impl Tunnels {
    /// Takes a tunnel whose key is proven; one that is open with the same key has to go. Each stays here until its own
    /// [`Self::close`], also one that is being cut. No stream is opened in it before [`Self::admit`].
    pub(crate) fn open(
        &self,
        agent: &AgentId,
        key: PublicKey,
        opener: Opener,
        peer: &Peer,
    ) -> Taken {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Live {
            number,
            opener,
            peer: peer.clone(),
            let_in: false,
        };
        let before = self
            .live()
            .entry(agent.clone())
            .or_default()
            .insert(key, live);
        let mut rival = None;
        if let Some(before) = before {
            before.opener.close(Closed::new(
                CloseCode::Replaced,
                &format!("the agent on {} took its place", peer.hostname),
            ));
            if before.peer.instance != peer.instance {
                let mut displaced = self.displaced();
                // One that was pushed aside and is back, while the other is there too: both are alive.
                let back = displaced
                    .get(agent)
                    .is_some_and(|other| other.instance == peer.instance);
                displaced.insert(agent.clone(), before.peer.clone());
                rival = back.then_some(before.peer);
            }
        }
        Taken { number, rival }
    }

    /// Takes away a tunnel that has ended, and tells by which key it went last; nothing when another has taken its
    /// place already.
    pub(crate) fn close(&self, agent: &AgentId, number: u64) -> Option<PublicKey> {
        let mut live = self.live();
        let of_agent = live.get_mut(agent)?;
        let key = of_agent
            .iter()
            .find_map(|(key, live)| (live.number == number).then_some(*key))?;
        of_agent.remove(&key);
        if of_agent.is_empty() {
            live.remove(agent);
        }
        Some(key)
    }

    /// Lets streams be opened in the tunnel of `key`, and in no other of the agent's: those are cut.
    pub(crate) fn admit(&self, agent: &AgentId, key: Option<&PublicKey>) {
        if let Some(of_agent) = self.live().get_mut(agent) {
            for (its_key, live) in of_agent {
                live.let_in = Some(its_key) == key;
                if !live.let_in {
                    live.opener.close(Closed::new(
                        CloseCode::ShutOut,
                        "another machine was let in under this id",
                    ));
                }
            }
        }
    }

    /// Cuts all tunnels of an agent.
    pub(crate) fn cut(&self, agent: &AgentId, reason: &str) {
        self.displaced().remove(agent);
        if let Some(of_agent) = self.live().get_mut(agent) {
            for live in of_agent.values_mut() {
                live.let_in = false;
                live.opener.close(Closed::new(CloseCode::ShutOut, reason));
            }
        }
    }

    /// Goes on by a new key: the tunnel of the process that changed it stays, true then; any other is cut. Who pushed
    /// whom aside is forgotten with the old key.
    pub(crate) fn change_key(
        &self,
        agent: &AgentId,
        old: &PublicKey,
        new: PublicKey,
        instance: InstanceId,
    ) -> bool {
        self.displaced().remove(agent);
        let mut live = self.live();
        let Some(of_agent) = live.get_mut(agent) else {
            return false;
        };
        match of_agent.get_mut(old) {
            Some(open) if open.peer.instance != instance => {
                open.let_in = false;
                let close = Closed::new(CloseCode::ComeBack, "0 the key was changed");
                open.opener.close(close);
                false
            }
            _ => match of_agent.remove(old) {
                Some(open) => {
                    of_agent.insert(new, open);
                    true
                }
                None => false,
            },
        }
    }

    /// Whether there is a tunnel to open streams in.
    pub(crate) fn is_open(&self, agent: &AgentId) -> bool {
        self.opener(agent).is_some()
    }

    /// A stream to the agent. The caller owns the deadline.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] without a tunnel, and those of [`Opener::open`].
    pub(crate) async fn connect(&self, agent: &AgentId, hold: Hold) -> io::Result<Stream> {
        let opener = self.opener(agent).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotConnected,
                "it dials in by itself, and has no tunnel open at present",
            )
        })?;
        opener.open(hold).await
    }

    /// Agents that have tunnels open.
    pub(crate) fn len(&self) -> usize {
        self.live().len()
    }

    fn opener(&self, agent: &AgentId) -> Option<Opener> {
        let live = self.live();
        let mut let_in = live.get(agent)?.values().filter(|live| live.let_in);
        let_in.next().map(|live| live.opener.clone())
    }

    fn displaced(&self) -> MutexGuard<'_, HashMap<AgentId, Peer>> {
        self.displaced.lock().expect("no holder panics")
    }

    fn live(&self) -> MutexGuard<'_, HashMap<AgentId, HashMap<PublicKey, Live>>> {
        self.live.lock().expect("no holder panics")
    }
}

/// What an admin is shown of a tunnel.
pub(crate) fn shown(peer: &Peer, version: &str, protocol: u32, since: Timestamp) -> Tunnel {
    Tunnel {
        address: peer.address.clone(),
        since,
        version: version.to_owned(),
        protocol,
    }
}

/// What an admin is shown of two agents that are both alive with one key.
pub(crate) fn shared_key(here: &Peer, other: &Peer, since: Timestamp) -> Alert {
    let place = |peer: &Peer| format!("`{}` (from {})", peer.hostname, peer.address);
    let machines = match (here.machine, other.machine) {
        (Some(a), Some(b)) if a == b => "two agents on one machine, or on copies of it,",
        _ => "agents on two machines",
    };
    Alert {
        code: AlertCode::SharedKey,
        message: format!(
            "{machines} present the same key and push each other aside: {} and {}. One of them runs on a copy of the other's state folder: stop it, empty its folder and join it anew; then run `batwa agent rotate-key` on the one that stays",
            place(here),
            place(other),
        ),
        since,
    }
}
