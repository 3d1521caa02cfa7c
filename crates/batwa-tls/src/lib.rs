//! TLS, as master and agent serve it and as they check each other's.
//!
//! [`ServedCertificate`] is what a port shows: from PEM files, read anew when they change, or self-signed, made once.
//! [`Trust`] is what a client believes: the system's roots, or one certificate by its hash. Both sides use it and
//! neither may depend on the other, which is why it is a crate of its own.
//!
//! Certificates are ECDSA P-256 where we make them, because browsers refuse Ed25519 ones. The master's identity is
//! its Ed25519 key all the same: in a tunnel it signs the hash of the certificate that is served.

mod error;
mod self_signed;
mod serve;
mod trust;

use std::sync::Arc;

use batwa_api::certificate::CertificateHash;
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
};
use sha2::{Digest as _, Sha256};

pub use self::{
    error::TlsError,
    serve::{CertificateSource, Reloaded, ServedCertificate},
    trust::{NotTrusted, SystemRoots, Trust},
};

/// The hash that a certificate is known and pinned by.
#[must_use]
pub fn hash(certificate: &CertificateDer<'_>) -> CertificateHash {
    CertificateHash::from_bytes(Sha256::digest(certificate).into())
}

/// The one provider of ciphers, whatever else in the process has installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
