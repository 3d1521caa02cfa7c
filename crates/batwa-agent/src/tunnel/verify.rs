//! TLS towards the master: the certificate is checked by the system's roots, and where they do not vouch for it,
//! remembered, for the master's own key to vouch for it in the handshake that follows.

use std::sync::{Arc, Mutex, PoisonError};

use batwa_api::certificate::CertificateHash;
use batwa_tls::NotTrusted;
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// A certificate that a server showed.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its SHA-256.
    pub(super) hash: CertificateHash,
    /// Why it is not trusted; `None` when the system's roots vouch for it.
    pub(super) distrust: Option<String>,
}

/// Accepts every certificate whose key the server has, and remembers what the roots say of it. Nothing secret may be
/// sent before [`Seen::distrust`] is dealt with.
#[derive(Debug)]
pub(super) struct Recording {
    roots: Arc<dyn ServerCertVerifier>,
    seen: Mutex<Option<Seen>>,
}

impl Recording {
    /// A verifier for one connection.
    pub(super) fn new(roots: Arc<dyn ServerCertVerifier>) -> Self {
        Self {
            roots,
            seen: Mutex::new(None),
        }
    }

    /// What the server showed.
    pub(super) fn seen(&self) -> Option<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.roots.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(Seen {
            hash: batwa_tls::hash(end_entity),
            distrust: verdict.err().map(|error| match NotTrusted::of(&error) {
                Some(reason) => reason.to_string(),
                None => error.to_string(),
            }),
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}
