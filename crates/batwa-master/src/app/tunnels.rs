//! Agents that dial in: the master's side of the handshake, and what an open tunnel means to the fleet.
//!
//! The frames come and go in `http/tunnel.rs`; who may do what is decided in `fleet/admission.rs`.

mod handshakes;

use std::{net::IpAddr, time::Duration};

use batwa_api::{
    Timestamp,
    agent::{Agent, LinkKind},
    id::{AgentId, JoinTokenId},
    tunnel::{
        Challenge, CloseCode, Hello, MasterFrame, Proof, ProtocolRange, PublicKey, Purpose,
        Refused, Transcript, TunnelStatus, Welcome,
    },
};
use batwa_tunnel::{Closed, Ended, Mux, Opener, Requests, keys};
use rand::RngExt as _;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::handshakes::{Handshakes, Place};
use super::{
    App, Error,
    agents::unknown,
    audit::{Actor, Record},
    auth::{Caller, Right, Source},
    operations::agent_error,
};
use crate::{
    fleet::{
        admission::{self, Admission},
        record::{AgentRecord, PendingAgent},
        tunnels::{self, Peer},
    },
    store::join_tokens::Joining,
};

/// An alert about a shared key is over once nobody has pushed this tunnel aside for so long.
const ALERT_MEMORY: Duration = Duration::from_secs(10 * 60);
/// What stands as the address of an agent that dials in.
const TUNNEL_ADDRESS: &str = "tunnel";
/// Agents told to come back do so within this time, and more the more they are.
const COME_BACK_WITHIN_MS: u64 = 1000;
/// Handshakes are cheap: five hundred a second leave both sides time for what follows.
const COME_BACK_MS_EACH: u64 = 2;

/// A handshake whose challenge is made.
pub(crate) struct Challenged {
    hello: Hello,
    protocol: u32,
    transcript: Transcript,
}

/// A tunnel whose handshake is over.
pub(crate) struct Established {
    id: AgentId,
    key: PublicKey,
    peer: Peer,
    version: String,
    protocol: u32,
    /// Whether streams run in it; else it was for joining or for changing a key alone.
    pub(crate) is_lasting: bool,
}

impl App {
    /// Room for one more handshake from `address`; none when there are too many under way.
    pub(crate) fn begin_handshake(&self, address: IpAddr) -> Option<Place> {
        self.handshakes().enter(address)
    }

    /// Answers a hello.
    pub(crate) fn challenge(&self, hello: Hello) -> Result<(Challenged, MasterFrame), Refused> {
        let protocol = ProtocolRange::OURS
            .agree(hello.protocol)
            .ok_or_else(|| admission::versions(&hello))?;
        if let Some(fault) = hello.fault() {
            return Err(admission::malformed(fault));
        }
        if !self.fleet().is_ready() {
            return Err(admission::busy("the master is still starting"));
        }
        let challenge = Challenge {
            protocol,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            master_key: self.identity().public(),
            nonce: keys::nonce().map_err(|error| admission::busy(&error.to_string()))?,
            tls_certificate: self.certificate().map(|certificate| certificate.hash()),
        };
        let transcript = Transcript::new(&hello, &challenge);
        let frame = MasterFrame::Challenge {
            challenge,
            signature: self.identity().sign(&transcript.master()),
        };
        let challenged = Challenged {
            hello,
            protocol,
            transcript,
        };
        Ok((challenged, frame))
    }

    /// Checks a proof, and does what the agent came for; the frame is for the agent.
    pub(crate) async fn admit(
        &self,
        source: &Source,
        challenged: Challenged,
        proof: &Proof,
    ) -> Result<(Established, MasterFrame), Refused> {
        let hello = &challenged.hello;
        let done = self.admit_proven(source, &challenged, proof).await;
        if let Err(refused) = &done
            && !refused.code.is_transient()
        {
            let action = match hello.purpose {
                Purpose::Join { .. } => "agent.join",
                Purpose::Tunnel => "agent.connect",
                Purpose::Rotate { .. } => "agent.rotate_key",
            };
            tracing::warn!(
                agent.id = %hello.agent_id,
                client.address = %source.address,
                "agent `{}` is refused: {}",
                hello.agent_id,
                refused.detail
            );
            let written = self
                .audit_refused_agent(source, action, &hello.agent_id, refused)
                .await;
            if let Err(error) = written {
                tracing::error!("cannot write the audit: {error}");
            }
        }
        let (status, key) = done?;
        let welcome = Welcome {
            agent_id: hello.agent_id.clone(),
            status,
        };
        let signature = self
            .identity()
            .sign(&challenged.transcript.welcome(proof, &welcome));
        let established = Established {
            id: hello.agent_id.clone(),
            key,
            peer: Peer {
                instance: hello.instance,
                machine: hello.machine,
                hostname: hello.hostname.clone(),
                address: source.address.to_string(),
            },
            version: hello.version.clone(),
            protocol: challenged.protocol,
            is_lasting: hello.purpose == Purpose::Tunnel,
        };
        Ok((established, MasterFrame::Welcome { welcome, signature }))
    }

    async fn admit_proven(
        &self,
        source: &Source,
        challenged: &Challenged,
        proof: &Proof,
    ) -> Result<(TunnelStatus, PublicKey), Refused> {
        let Challenged {
            hello, transcript, ..
        } = challenged;
        if !keys::is_signed(&hello.public_key, &transcript.agent(), &proof.signature) {
            return Err(admission::bad_proof(hello));
        }
        if let Purpose::Rotate { new_key } = &hello.purpose {
            let signed = proof.new_key_signature.is_some_and(|signature| {
                keys::is_signed(new_key, &transcript.new_key(), &signature)
            });
            if !signed {
                return Err(admission::bad_proof(hello));
            }
        }
        // Those that are known are the many, and change nothing: no lock, no store.
        let decide = || {
            self.fleet().read(|state| {
                let entry = state.agents.get(&hello.agent_id);
                let record = entry.and_then(|entry| entry.record.as_ref());
                let waiting = entry.map(|entry| entry.pending.as_slice());
                admission::decide(hello, record, waiting.unwrap_or_default())
            })
        };
        if decide()? == Admission::Known {
            return Ok((TunnelStatus::Approved, hello.public_key));
        }
        let _enrolling = self.fleet().enrolment.lock().await;
        let done = match decide()? {
            Admission::Known => Ok((TunnelStatus::Approved, hello.public_key)),
            Admission::Waiting => self.go_on_waiting(source, hello).await,
            Admission::Join => self.join_by_token(source, challenged, proof).await,
            Admission::Rotate { new_key } => self.change_key(source, hello, new_key).await,
        };
        done.map_err(|failure| match failure {
            Failure::Refused(refused) => refused,
            Failure::App(error) => {
                tracing::error!("cannot admit agent `{}`: {error}", hello.agent_id);
                admission::busy("the master cannot write to its store at present")
            }
        })
    }

    async fn go_on_waiting(
        &self,
        source: &Source,
        hello: &Hello,
    ) -> Result<(TunnelStatus, PublicKey), Failure> {
        let mut rows = self.fleet().pending_of(&hello.agent_id);
        let row = rows
            .iter_mut()
            .find(|row| row.public_key == Some(hello.public_key));
        if let Some(row) = row {
            row.last_seen = Timestamp::now();
            row.address = source.address.to_string();
            hello.hostname.clone_into(&mut row.hostname);
            self.store()
                .save_registration(row)
                .await
                .map_err(Error::from)?;
        }
        self.fleet().put_pending(&hello.agent_id, rows);
        Ok((TunnelStatus::Pending, hello.public_key))
    }

    async fn join_by_token(
        &self,
        source: &Source,
        challenged: &Challenged,
        proof: &Proof,
    ) -> Result<(TunnelStatus, PublicKey), Failure> {
        let Challenged {
            hello, transcript, ..
        } = challenged;
        let Purpose::Join { token_id } = hello.purpose else {
            return Err(Failure::Refused(admission::malformed("there is no token")));
        };
        let now = Timestamp::now();
        let token = self
            .store()
            .join_token(token_id, now)
            .await
            .map_err(Error::from)?
            .ok_or_else(admission::unknown_token)?;
        let proven = proof
            .mac
            .is_some_and(|mac| token.secret.is_proven(&transcript.join(), &mac));
        if !proven {
            return Err(Failure::Refused(admission::bad_proof(hello)));
        }
        admission::check_token(&token.info)?;
        let waiting = self.fleet().pending_of(&hello.agent_id);
        let waits = waiting
            .iter()
            .any(|row| row.public_key == Some(hello.public_key));
        if waits && !token.info.approve {
            return self.go_on_waiting(source, hello).await;
        }
        let row = PendingAgent {
            id: hello.agent_id.clone(),
            hostname: hello.hostname.clone(),
            api_url: TUNNEL_ADDRESS.to_owned(),
            address: source.address.to_string(),
            secret: None,
            certificate: None,
            public_key: Some(hello.public_key),
            tags: token.info.labels.clone(),
            first_seen: now,
            last_seen: now,
        };
        let status = if token.info.approve {
            let record = row.into_record(now);
            self.use_token(token_id, Joining::Agent(&record)).await?;
            self.let_in(&record);
            TunnelStatus::Approved
        } else {
            admission::check_room(&self.fleet().all_pending(), &row.address)?;
            self.use_token(token_id, Joining::Waiting(&row)).await?;
            let id = row.id.clone();
            let rows = waiting.into_iter().chain([row]).collect();
            self.fleet().put_pending(&id, rows);
            TunnelStatus::Pending
        };
        let record = Record {
            detail: Some(format!("{}, by join token {token_id}", status.as_str())),
            ..Record::ok("agent.join", hello.agent_id.as_str())
        };
        self.audit_by(Actor::Agent(&hello.agent_id), source, record)
            .await?;
        Ok((status, hello.public_key))
    }

    async fn use_token(&self, id: JoinTokenId, joining: Joining<'_>) -> Result<(), Failure> {
        let now = Timestamp::now();
        let used = self.store().use_join_token(id, joining, now).await;
        if used.map_err(Error::from)? {
            return Ok(());
        }
        // Another master took the last use, or time went by: the token says now what it is.
        let token = self
            .store()
            .join_token(id, now)
            .await
            .map_err(Error::from)?
            .ok_or_else(admission::unknown_token)?;
        admission::check_token(&token.info)?;
        Err(Failure::Refused(admission::busy("the token is in use")))
    }

    /// Takes an agent that is let in from now on, tunnel included if it is open.
    pub(super) fn let_in(&self, record: &AgentRecord) {
        self.fleet()
            .tunnels
            .admit(&record.id, record.public_key.as_ref());
        self.fleet().put_pending_and_record(record);
    }

    async fn change_key(
        &self,
        source: &Source,
        hello: &Hello,
        new_key: PublicKey,
    ) -> Result<(TunnelStatus, PublicKey), Failure> {
        let id = &hello.agent_id;
        let mut record = self.fleet().record(id).ok_or_else(|| unknown(id))?;
        record.public_key = Some(new_key);
        self.store()
            .save_agent(&record)
            .await
            .map_err(Error::from)?;
        let fleet = self.fleet();
        let stays = fleet
            .tunnels
            .change_key(id, &hello.public_key, new_key, hello.instance);
        fleet.put_record(&record);
        if stays {
            fleet.move_tunnel(id, hello.public_key, new_key);
        }
        fleet.put_alerts(id, Vec::new());
        let actor = Actor::Agent(id);
        self.audit_by(actor, source, Record::ok("agent.rotate_key", id.as_str()))
            .await?;
        tracing::info!(agent.id = %id, "agent `{id}` changed its key");
        Ok((TunnelStatus::Approved, new_key))
    }

    /// Holds an open tunnel until it ends, and tells the fleet of both.
    pub(crate) async fn hold_tunnel<S>(
        &self,
        established: Established,
        mux: Mux<S>,
        opener: Opener,
        requests: Requests,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Established { id, key, peer, .. } = &established;
        let fleet = self.fleet();
        let now = Timestamp::now();
        let taken = fleet.tunnels.open(id, *key, opener.clone(), peer);
        // Somebody may have decided otherwise since the proof: what is known now counts, and whoever decides later
        // finds the tunnel here.
        let stands = fleet.read(|state| {
            let entry = state.agents.get(id)?;
            let record = entry.record.as_ref();
            if record.is_some_and(|record| record.public_key == Some(*key) && !record.revoked) {
                return Some(TunnelStatus::Approved);
            }
            let waits = entry.pending.iter().any(|row| row.public_key == Some(*key));
            waits.then_some(TunnelStatus::Pending)
        });
        match stands {
            Some(TunnelStatus::Approved) => fleet.tunnels.admit(id, Some(key)),
            Some(TunnelStatus::Pending) => {}
            None => opener.close(Closed::new(
                CloseCode::ComeBack,
                "0 it was decided otherwise",
            )),
        }
        let shown = tunnels::shown(peer, &established.version, established.protocol, now);
        fleet.put_tunnel(id, *key, Some(shown));
        tracing::info!(agent.id = %id, client.address = peer.address, "agent `{id}` has a tunnel open");
        if let Some(rival) = &taken.rival {
            let alert = tunnels::shared_key(peer, rival, now);
            tracing::warn!(agent.id = %id, "agent `{id}`: {}", alert.message);
            fleet.put_alerts(id, vec![alert]);
        }
        let ended = {
            let mut run = std::pin::pin!(mux.run_master(requests));
            let mut calm = std::pin::pin!(tokio::time::sleep(ALERT_MEMORY));
            let mut is_calm = false;
            let mut is_told = false;
            loop {
                tokio::select! {
                    ended = &mut run => break ended,
                    () = &mut calm, if !is_calm => {
                        is_calm = true;
                        fleet.put_alerts(id, Vec::new());
                    }
                    () = self.stopping().cancelled(), if !is_told => {
                        is_told = true;
                        opener.close(self.come_back());
                    }
                }
            }
        };
        if let Some(key) = fleet.tunnels.close(id, taken.number) {
            fleet.put_tunnel(id, key, None);
        }
        match ended {
            Ended::ByUs => tracing::debug!(agent.id = %id, "tunnel of agent `{id}` closed"),
            Ended::ByPeer(closed) => {
                let reason = closed.map(|closed| closed.to_string()).unwrap_or_default();
                tracing::info!(agent.id = %id, "agent `{id}` closed its tunnel{reason}");
            }
            Ended::Broken(why) => {
                tracing::info!(agent.id = %id, "the tunnel of agent `{id}` broke: {why}");
            }
            Ended::Violation(what) => {
                tracing::warn!(agent.id = %id, client.address = peer.address, "agent `{id}` is cut off: {what}");
            }
        }
    }

    /// Tells an agent to come back once this master, or the next on its port, is there.
    fn come_back(&self) -> Closed {
        let each = COME_BACK_MS_EACH * self.fleet().tunnels.len() as u64;
        let delay = rand::rng().random_range(0..COME_BACK_WITHIN_MS + each);
        Closed::new(CloseCode::ComeBack, &format!("{delay} the master stops"))
    }

    /// Has an agent change its key; its open tunnel stays.
    pub(crate) async fn rotate_agent_key(
        &self,
        caller: &Caller,
        id: &AgentId,
    ) -> Result<Agent, Error> {
        caller.require(Right::Administer)?;
        let record = self.fleet().record(id).ok_or_else(|| unknown(id))?;
        if record.link != LinkKind::Tunnel {
            return Err(Error::Conflict(format!(
                "{} has no key of its own: only machines that joined with a token do",
                Self::agent_words(id)
            )));
        }
        let contact = self.fleet().contact(id).ok_or_else(|| unknown(id))?;
        contact
            .client
            .rotate_key()
            .await
            .map_err(|error| agent_error(id, error))?;
        self.audit(caller, Record::ok("agent.rotate_key", id.as_str()))
            .await?;
        self.agent(caller, id)
    }
}

/// Why an agent is not admitted.
enum Failure {
    /// For a reason of its own.
    Refused(Refused),
    /// Because of the master.
    App(Error),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::App(error)
    }
}
