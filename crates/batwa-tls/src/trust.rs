//! What a client believes of the other side's certificate.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use batwa_api::certificate::CertificateHash;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

use super::{hash, provider};

/// The roots that this system trusts, read when they are first needed. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct SystemRoots(Arc<OnceLock<Result<Verifier, String>>>);

impl SystemRoots {
    /// What checks certificates by them, or why there is nothing.
    fn verifier(&self) -> Result<&Verifier, &str> {
        self.0
            .get_or_init(|| Verifier::new(provider()).map_err(|error| error.to_string()))
            .as_ref()
            .map_err(String::as_str)
    }
}

impl fmt::Debug for SystemRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemRoots")
    }
}

/// What makes a certificate good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// The system's roots vouch for its name.
    #[default]
    Roots,
    /// It is this very one, whatever its name and dates; or the system's roots vouch for it.
    Pinned(CertificateHash),
}

impl Trust {
    /// Settings for a TLS client that believes so.
    #[must_use]
    pub fn client_config(self, roots: &SystemRoots) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for every version")
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// What checks certificates so, for a client that makes more of the verdict.
    #[must_use]
    pub fn verifier(self, roots: &SystemRoots) -> Arc<dyn ServerCertVerifier> {
        let pin = match self {
            Self::Roots => None,
            Self::Pinned(hash) => Some(hash),
        };
        Arc::new(Checker {
            pin,
            roots: roots.clone(),
            provider: provider(),
        })
    }
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its certificate (SHA-256 {shown}) {reason}")]
pub struct NotTrusted {
    /// The hash of the certificate that was shown.
    pub shown: CertificateHash,
    /// What is wrong with it.
    reason: String,
}

impl NotTrusted {
    /// What a TLS error says of the certificate, if that is what it is about.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref()
            }
            _ => None,
        }
    }

    /// The same, where it stands behind an I/O error or among the causes of another one.
    #[must_use]
    pub fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<rustls::Error>().and_then(Self::of) {
                return Some(found);
            }
            // An I/O error hides what it was made of from the usual way down.
            let inside = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .map(|inner| inner as &(dyn std::error::Error + 'static));
            next = inside.or_else(|| error.source());
        }
        None
    }
}

struct Checker {
    pin: Option<CertificateHash>,
    roots: SystemRoots,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Checker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = hash(end_entity);
        if self.pin == Some(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        let by_roots = match self.roots.verifier() {
            Ok(roots) => roots
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| match error {
                    rustls::Error::InvalidCertificate(why) => why.to_string(),
                    other => other.to_string(),
                }),
            Err(why) => Err(format!("this system has no list of trusted roots: {why}")),
        };
        by_roots.map_err(|why| {
            let reason = match self.pin {
                Some(pin) => format!("is not the one that is pinned ({pin}), and is not trusted by this system: {why}"),
                None => format!("is not trusted by this system: {why}"),
            };
            let error = NotTrusted { shown, reason };
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{CertificateSource, ServedCertificate};

    fn served(dir: &Path) -> Arc<ServedCertificate> {
        let names = vec!["lab".to_owned()];
        ServedCertificate::open(&CertificateSource::SelfSigned { names }, dir).unwrap()
    }

    /// A handshake of a client that believes so with a server that shows this.
    async fn handshake(trust: Trust, served: &Arc<ServedCertificate>) -> std::io::Result<()> {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let acceptor = served.acceptor();
        let server = async move {
            if let Ok(mut stream) = acceptor.accept(theirs).await {
                let _ = stream.write_all(b"!").await;
                let _ = stream.shutdown().await;
            }
        };
        let client = async move {
            let connector =
                TlsConnector::from(Arc::new(trust.client_config(&SystemRoots::default())));
            let name = ServerName::try_from("10.0.0.9").unwrap();
            let mut stream = connector.connect(name, ours).await?;
            stream.read_u8().await.map(drop)
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn a_pinned_certificate_is_believed_under_any_name_and_no_other() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [ours, other] = [served(dirs[0].path()), served(dirs[1].path())];
        handshake(Trust::Pinned(ours.hash()), &ours).await.unwrap();

        let error = handshake(Trust::Pinned(ours.hash()), &other)
            .await
            .unwrap_err();
        let refusal = NotTrusted::behind(&error)
            .expect("the reason is found")
            .clone();
        assert_eq!(refusal.shown, other.hash());
        assert!(
            refusal.to_string().contains(&ours.hash().to_string()),
            "{refusal}"
        );

        let error = handshake(Trust::Roots, &ours).await.unwrap_err();
        let refusal = NotTrusted::behind(&error).expect("the reason is found");
        assert!(
            refusal.to_string().contains("not trusted by this system"),
            "{refusal}"
        );
    }
}
