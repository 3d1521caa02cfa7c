//! What a port shows: a certificate with its key, which can be exchanged while connections go on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use batwa_api::certificate::CertificateHash;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{TlsError, hash, provider, self_signed};

/// Time between two looks at the files. Renewals happen every few weeks and early.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Far above any chain of certificates; a wrong path must not fill the memory.
const MAX_FILE: u64 = 1 << 20;

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files that somebody else renews.
    Files {
        /// The server's certificate, then those between it and the root.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Made by ourselves, once, and kept in the state folder.
    SelfSigned {
        /// Host names and addresses that it is for.
        names: Vec<String>,
    },
}

/// The certificate that a port shows, with its key.
#[derive(Debug)]
pub struct ServedCertificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    hash: CertificateHash,
}

/// What reading the files anew brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// Another certificate, which new connections see.
    Changed(CertificateHash),
    /// The same as before.
    Same,
}

impl ServedCertificate {
    /// Reads the files of `source` and checks that they belong together; makes a self-signed one in `state_dir`
    /// where that is missing.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn open(source: &CertificateSource, state_dir: &Path) -> Result<Arc<Self>, TlsError> {
        let (certificate_file, key_file) = match source {
            CertificateSource::Files { certificate, key } => (certificate.clone(), key.clone()),
            CertificateSource::SelfSigned { names } => self_signed::ensure(state_dir, names)?,
        };
        let current = read(&certificate_file, &key_file)?;
        Ok(Arc::new(Self {
            certificate_file,
            key_file,
            current: RwLock::new(current),
        }))
    }

    /// The hash of the certificate that new connections see now.
    #[must_use]
    pub fn hash(&self) -> CertificateHash {
        self.current().hash
    }

    /// The SHA-256 of the public key that new connections see now, as `curl --pinnedpubkey` has it; `None` where the
    /// key does not tell.
    #[must_use]
    pub fn public_key_hash(&self) -> Option<[u8; 32]> {
        let current = self.current();
        let key = current.key.key.public_key()?;
        Some(Sha256::digest(&*key).into())
    }

    /// What ends TLS on a port with this certificate, also after it was exchanged.
    #[must_use]
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for every version");
        let mut config = config
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        // WebSockets and tunnels are upgrades of HTTP/1.1 connections.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files anew. On an error the certificate stays as it was.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let read = read(&self.certificate_file, &self.key_file)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.hash != read.hash;
        *current = read;
        Ok(if changed {
            Reloaded::Changed(current.hash)
        } else {
            Reloaded::Same
        })
    }

    /// Reads the files anew now and then, and says in the log what has changed, until `stop`.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let complaint = self.look();
            // Between the two files of a renewal a mismatch is usual for a moment; the same is said once.
            if let Some(complaint) = complaint.as_ref().filter(|now| said.as_ref() != Some(*now)) {
                tracing::warn!("the certificate stays as it was: {complaint}");
            }
            said = complaint;
        }
    }

    /// Reads the files anew, says in the log when the certificate is another one, and returns what is wrong.
    pub fn look(&self) -> Option<String> {
        match self.reload() {
            Ok(Reloaded::Changed(hash)) => {
                let file = self.certificate_file.display();
                tracing::info!("serving the new certificate in `{file}`, SHA-256 {hash}");
                None
            }
            Ok(Reloaded::Same) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Hands the certificate of the moment to each handshake.
#[derive(Debug)]
struct Resolver(Arc<ServedCertificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().key)
    }
}

fn read(certificate_file: &Path, key_file: &Path) -> Result<Current, TlsError> {
    let text = read_file(certificate_file)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(certificate_file.to_owned()))?;
    let hash = hash(&chain[0]);
    let key = PrivateKeyDer::from_pem_slice(&read_file(key_file)?)
        .map_err(|_| TlsError::NoKey(key_file.to_owned()))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            certificate: certificate_file.to_owned(),
            key: key_file.to_owned(),
        },
        source => TlsError::Unusable {
            path: certificate_file.to_owned(),
            source,
        },
    })?;
    Ok(Current {
        key: Arc::new(key),
        hash,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn self_signed() -> CertificateSource {
        CertificateSource::SelfSigned {
            names: vec!["lab".into(), "127.0.0.1".into(), "no name!".into()],
        }
    }

    fn files(dir: &Path) -> CertificateSource {
        CertificateSource::Files {
            certificate: dir.join(self_signed::CERTIFICATE),
            key: dir.join(self_signed::KEY),
        }
    }

    #[test]
    fn a_self_signed_certificate_is_made_once_and_its_key_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = ServedCertificate::open(&self_signed(), dir.path()).unwrap();
        let again = ServedCertificate::open(&self_signed(), dir.path()).unwrap();
        assert_eq!(first.hash(), again.hash());
        let facts = fs::metadata(dir.path().join(self_signed::KEY)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let other = ServedCertificate::open(&self_signed(), other.path()).unwrap();
        assert_ne!(first.hash(), other.hash());
    }

    #[test]
    fn changed_files_are_seen_and_broken_ones_leave_the_certificate_as_it_was() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ServedCertificate::open(&self_signed(), ours.path()).unwrap();
        let next = ServedCertificate::open(&self_signed(), theirs.path()).unwrap();
        let served = ServedCertificate::open(&files(ours.path()), Path::new("unused")).unwrap();
        assert_eq!(served.reload().unwrap(), Reloaded::Same);
        let before = served.hash();

        // Half of a renewal: the certificate is new, the key is not.
        let copy = |name: &str| fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
        copy(self_signed::CERTIFICATE);
        assert!(matches!(served.reload(), Err(TlsError::Mismatch { .. })));
        assert!(served.look().is_some());
        assert_eq!(served.hash(), before);
        copy(self_signed::KEY);
        assert_eq!(served.look(), None);
        assert_eq!(served.hash(), next.hash());
    }

    #[test]
    fn wrong_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let state = Path::new("unused");
        let refusal = || {
            ServedCertificate::open(&files(dir.path()), state)
                .unwrap_err()
                .to_string()
        };
        assert!(refusal().contains("cannot read `"), "{}", refusal());
        fs::write(dir.path().join(self_signed::CERTIFICATE), "hello").unwrap();
        assert!(refusal().contains("holds no certificate"), "{}", refusal());
        ServedCertificate::open(&self_signed(), dir.path()).unwrap();
        fs::remove_file(dir.path().join(self_signed::CERTIFICATE)).unwrap();
        ServedCertificate::open(&self_signed(), dir.path()).unwrap();
        fs::write(dir.path().join(self_signed::KEY), "hello").unwrap();
        assert!(refusal().contains("holds no private key"), "{}", refusal());
    }
}
