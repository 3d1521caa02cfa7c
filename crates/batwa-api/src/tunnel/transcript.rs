//! What is signed.

use super::{Challenge, Hello, Proof, Purpose, Welcome};

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
