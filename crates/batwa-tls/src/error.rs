//! Why a certificate cannot be served.

use std::{io, path::PathBuf};

/// Why a certificate cannot be served. Each text names the file and what should be in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be made in the state folder.
    #[error("cannot write `{}`: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of the certificate holds none.
    #[error(
        "`{}` holds no certificate: it must be PEM, the server's own certificate first and then those between it and the root", .0.display()
    )]
    NoCertificate(PathBuf),
    /// The file of the key holds none.
    #[error("`{}` holds no private key: it must be PEM and without a password", .0.display())]
    NoKey(PathBuf),
    /// Key and certificate do not belong together.
    #[error(
        "the key in `{}` is not that of the first certificate in `{}`", key.display(), certificate.display()
    )]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The key or certificate is of a kind that cannot be served.
    #[error("cannot serve the certificate in `{}`: {source}", path.display())]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A self-signed certificate cannot be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(String),
}
