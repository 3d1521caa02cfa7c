//! Keys: who an agent or a master is, and what proves that one holds a join token.

use std::fmt;

use batwa_api::tunnel::{JoinToken, Mac, Nonce, PublicKey, Sha256Hash, Signature};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

/// What is hashed before a token's secret, so that what a master stores is no other hash of it.
const SECRET_LABEL: &[u8] = b"batwa join token 1\0";

/// A key that cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// What should be a key is none.
    #[error("it is no Ed25519 key")]
    NoKey,
}

/// A private key and its public one.
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_seed(random()?)
    }

    /// The one with this seed.
    ///
    /// # Errors
    /// [`KeyError::NoKey`].
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::NoKey)?;
        let public =
            PublicKey::try_from(pair.public_key().as_ref()).map_err(|_| KeyError::NoKey)?;
        Ok(Self { seed, pair, public })
    }

    /// What the private key is made from: for its file, and nothing else.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::try_from(self.pair.sign(message).as_ref())
            .expect("an Ed25519 signature has 64 bytes")
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::from_seed(self.seed).expect("it was a key before")
    }
}

impl fmt::Debug for Identity {
    /// The public key alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.public).finish()
    }
}

/// Whether `signature` over `message` was made with the private key of `key`.
#[must_use]
pub fn is_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes())
        .verify(message, signature.as_bytes())
        .is_ok()
}

/// Fresh random bytes, from the system.
///
/// # Errors
/// [`KeyError::NoRandomness`].
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

/// A fresh nonce.
///
/// # Errors
/// [`KeyError::NoRandomness`].
pub fn nonce() -> Result<Nonce, KeyError> {
    random::<32>().map(Nonce::from)
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Hash {
    Sha256Hash::try_from(digest::digest(&digest::SHA256, bytes).as_ref())
        .expect("a SHA-256 has 32 bytes")
}

/// What is left of a token's secret for checking proofs: all that a master keeps of it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret([u8; 32]);

impl JoinSecret {
    /// What a master keeps of `token`.
    #[must_use]
    pub fn of(token: &JoinToken) -> Self {
        let mut message = SECRET_LABEL.to_vec();
        message.extend_from_slice(&token.secret);
        Self(*sha256(&message).as_bytes())
    }

    /// As it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The proof for `message`.
    #[must_use]
    pub fn mac(&self, message: &[u8]) -> Mac {
        Mac::try_from(hmac::sign(&self.key(), message).as_ref())
            .expect("an HMAC-SHA256 has 32 bytes")
    }

    /// Whether `mac` is the proof for `message`; takes as long whichever byte differs.
    #[must_use]
    pub fn is_proven(&self, message: &[u8], mac: &Mac) -> bool {
        hmac::verify(&self.key(), message, mac.as_bytes()).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl TryFrom<&[u8]> for JoinSecret {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self).map_err(|_| KeyError::NoKey)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_private_key_signs_and_every_bit_counts() {
        let identity = Identity::generate().unwrap();
        let signature = identity.sign(b"message");
        assert!(is_signed(&identity.public(), b"message", &signature));
        assert!(!is_signed(&identity.public(), b"messagf", &signature));
        let other = Identity::generate().unwrap();
        assert!(!is_signed(&other.public(), b"message", &signature));
        for byte in 0..64 {
            let mut bytes = *signature.as_bytes();
            bytes[byte] ^= 1;
            assert!(!is_signed(&identity.public(), b"message", &bytes.into()));
        }
        let again = Identity::from_seed(*identity.seed()).unwrap();
        assert_eq!(again.public(), identity.public());
        assert!(!format!("{identity:?}").contains(&hex_of(identity.seed())));
    }

    fn hex_of(bytes: &[u8; 32]) -> String {
        PublicKey::from(*bytes).to_string()
    }

    #[test]
    fn a_key_that_is_none_signs_nothing() {
        // All zeros is a point of small order: with it some libraries accept anything.
        let nobody = PublicKey::from([0; 32]);
        assert!(!is_signed(&nobody, b"message", &Signature::from([0; 64])));
    }

    #[test]
    fn a_token_is_proven_by_its_secret_alone() {
        let token = |secret: u8| JoinToken {
            id: batwa_api::id::JoinTokenId::new(),
            secret: [secret; 32],
            master_key_hash: sha256(b"master"),
        };
        let secret = JoinSecret::of(&token(1));
        let mac = secret.mac(b"message");
        assert!(secret.is_proven(b"message", &mac));
        assert!(!secret.is_proven(b"messagf", &mac));
        assert!(!JoinSecret::of(&token(2)).is_proven(b"message", &mac));
        assert_ne!(secret.as_bytes(), &[1; 32], "the secret itself is not kept");
    }
}
