//! What the store keeps of an agent, in the fleet's own types.

use std::{collections::BTreeMap, fmt};

use batwa_api::{
    Timestamp,
    agent::{LinkKind, Registration},
    certificate::CertificateHash,
    id::AgentId,
    tunnel::PublicKey,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::labels::AdminLabels;

/// SHA-256 of an agent's key, in hex: what keys are compared and shown by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    /// How many hex digits of it people see.
    pub(crate) const SHOWN: usize = 16;

    /// The fingerprint of `key`.
    #[must_use]
    pub(crate) fn of(key: &SecretString) -> Self {
        Self(hex::encode(Sha256::digest(key.expose_secret().as_bytes())))
    }

    /// The fingerprint of an agent's public key.
    #[must_use]
    pub(crate) fn of_public(key: &PublicKey) -> Self {
        Self(hex::encode(Sha256::digest(key.as_bytes())))
    }

    /// All its digits.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits that people see.
    #[must_use]
    pub(crate) fn shown(&self) -> &str {
        self.0.get(..Self::SHOWN).unwrap_or(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.shown())
    }
}

/// The key of an agent: what it enrolled with, and what the master presents to it.
#[derive(Clone)]
pub(crate) struct AgentSecret {
    /// The key itself.
    pub(crate) key: SecretString,
    /// Its hash.
    pub(crate) fingerprint: Fingerprint,
}

impl AgentSecret {
    /// `key` with its fingerprint.
    #[must_use]
    pub(crate) fn new(key: SecretString) -> Self {
        let fingerprint = Fingerprint::of(&key);
        Self { key, fingerprint }
    }
}

impl fmt::Debug for AgentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint.fmt(f)
    }
}

/// One agent that was let in.
#[derive(Debug, Clone)]
pub(crate) struct AgentRecord {
    /// Its id.
    pub(crate) id: AgentId,
    /// What it says its machine is called.
    pub(crate) hostname: String,
    /// What an admin calls it.
    pub(crate) display_name: Option<String>,
    /// How it is reached.
    pub(crate) link: LinkKind,
    /// Where it is reached.
    pub(crate) api_url: String,
    /// The key it enrolled with, the old way.
    pub(crate) secret: Option<AgentSecret>,
    /// Labels from the join token that it came with.
    pub(crate) token_labels: BTreeMap<String, String>,
    /// The certificate that it registered with: the one its port shows over TLS.
    pub(crate) certificate: Option<CertificateHash>,
    /// The key that its tunnels prove.
    pub(crate) public_key: Option<PublicKey>,
    /// Labels from its registration.
    pub(crate) tags: BTreeMap<String, String>,
    /// What an admin decided about labels.
    pub(crate) admin_labels: AdminLabels,
    /// What admins wrote down about it.
    pub(crate) notes: String,
    /// Whether no new VM may be made there.
    pub(crate) cordoned: bool,
    /// Whether an admin shut it out.
    pub(crate) revoked: bool,
    /// When it was let in.
    pub(crate) created_at: Timestamp,
    /// When the master last heard of it, up to the last batch.
    pub(crate) last_seen: Option<Timestamp>,
}

impl AgentRecord {
    /// The record of the master's own machine.
    #[must_use]
    pub(crate) fn local(hostname: String, now: Timestamp) -> Self {
        Self {
            id: AgentId::local(),
            hostname,
            display_name: None,
            link: LinkKind::InProcess,
            api_url: "local".to_owned(),
            secret: None,
            token_labels: BTreeMap::new(),
            certificate: None,
            public_key: None,
            tags: BTreeMap::new(),
            admin_labels: AdminLabels::new(),
            notes: String::new(),
            cordoned: false,
            revoked: false,
            created_at: now,
            last_seen: None,
        }
    }

    /// The fingerprint of whichever key it has.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(self.secret.as_ref(), self.public_key.as_ref())
    }
}

fn fingerprint(secret: Option<&AgentSecret>, public: Option<&PublicKey>) -> Option<Fingerprint> {
    secret
        .map(|secret| secret.fingerprint.clone())
        .or_else(|| public.map(Fingerprint::of_public))
}

/// One registration that waits for an admin: one row for each id and key.
#[derive(Debug, Clone)]
pub(crate) struct PendingAgent {
    /// The id it goes by.
    pub(crate) id: AgentId,
    /// The host name it gave.
    pub(crate) hostname: String,
    /// Where it says it can be reached.
    pub(crate) api_url: String,
    /// Where the request came from.
    pub(crate) address: String,
    /// Its key, the old way.
    pub(crate) secret: Option<AgentSecret>,
    /// The certificate that its port shows over TLS.
    pub(crate) certificate: Option<CertificateHash>,
    /// The key that its tunnels prove.
    pub(crate) public_key: Option<PublicKey>,
    /// Labels it gave.
    pub(crate) tags: BTreeMap<String, String>,
    /// When it first asked.
    pub(crate) first_seen: Timestamp,
    /// When it last asked.
    pub(crate) last_seen: Timestamp,
}

impl PendingAgent {
    /// What an admin sees of it.
    #[must_use]
    pub(crate) fn registration(&self, connected: bool) -> Registration {
        Registration {
            hostname: self.hostname.clone(),
            api_url: self.api_url.clone(),
            address: self.address.clone(),
            link: self.link(),
            connected,
            fingerprint: self
                .fingerprint()
                .map(|fingerprint| fingerprint.shown().to_owned()),
            certificate: self.certificate,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
        }
    }

    /// How it would be reached.
    #[must_use]
    pub(crate) fn link(&self) -> LinkKind {
        match self.public_key {
            Some(_) => LinkKind::Tunnel,
            None => LinkKind::Direct,
        }
    }

    /// The fingerprint of whichever key it has.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(self.secret.as_ref(), self.public_key.as_ref())
    }

    /// Whether `other` is the fingerprint of its key.
    #[must_use]
    pub(crate) fn has_key_of(&self, other: Option<&Fingerprint>) -> bool {
        self.fingerprint().as_ref() == other
    }

    /// The agent's record once it is let in.
    #[must_use]
    pub(crate) fn into_record(self, now: Timestamp) -> AgentRecord {
        let link = self.link();
        // What an agent that dials in waits with came from its token: its own labels it tells by itself.
        let (token_labels, tags) = match link {
            LinkKind::Tunnel => (self.tags, BTreeMap::new()),
            LinkKind::Direct | LinkKind::InProcess => (BTreeMap::new(), self.tags),
        };
        AgentRecord {
            link,
            id: self.id,
            hostname: self.hostname,
            display_name: None,
            api_url: self.api_url,
            secret: self.secret,
            token_labels,
            certificate: self.certificate,
            public_key: self.public_key,
            tags,
            admin_labels: AdminLabels::new(),
            notes: String::new(),
            cordoned: false,
            revoked: false,
            created_at: now,
            last_seen: Some(self.last_seen),
        }
    }
}
