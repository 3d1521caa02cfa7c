//! Secrets that we make: 256 random bits, shown once and stored as their SHA-256.
//!
//! A plain hash is enough for them, and a lookup by it leaks nothing: nobody can search 2^256 of them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// What begins every API token, so that people and secret scanners know one when they see it.
pub(crate) const TOKEN_PREFIX: &str = "batwa_pat_";

/// A new secret in letters, digits, `-` and `_`.
pub(crate) fn generate() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A new API token.
pub(crate) fn generate_token() -> String {
    format!("{TOKEN_PREFIX}{}", generate())
}

/// What is stored of a secret.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_hold_256_bits() {
        let (a, b) = (generate(), generate());
        assert_ne!(a, b);
        assert_eq!(URL_SAFE_NO_PAD.decode(&a).unwrap().len(), 32);
        assert_ne!(hash(&a), hash(&b));
        assert!(generate_token().starts_with("batwa_pat_"));
    }
}
