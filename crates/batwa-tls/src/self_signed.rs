//! A certificate of our own making, made once and kept: who pins its hash must not be surprised by another.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::TlsError;

/// The files in the folder, certificate and key.
pub(crate) const CERTIFICATE: &str = "tls-cert.pem";
pub(crate) const KEY: &str = "tls-key.pem";

/// The certificate in `dir` for `names` and its key, made where they are missing. The key is its user's alone.
///
/// A certificate that is there stays, whatever names it is for: clients know it by its hash.
pub(crate) fn ensure(dir: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), TlsError> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    if !(certificate.exists() && key.exists()) {
        let (certificate_pem, key_pem) =
            generate(names).map_err(|error| TlsError::Generate(error.to_string()))?;
        // The key first: without the certificate, both are made anew at the next start.
        for (path, text) in [(&key, key_pem), (&certificate, certificate_pem)] {
            write_whole(path, &text).map_err(|source| TlsError::Unwritable {
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok((certificate, key))
}

/// PEM of certificate and key.
fn generate(names: &[String]) -> Result<(String, String), rcgen::Error> {
    // Names that cannot stand in a certificate are left out: it is known by its hash, not by them.
    let usable: Vec<String> = names
        .iter()
        .filter(|name| CertificateParams::new(vec![(*name).clone()]).is_ok())
        .cloned()
        .collect();
    let mut params = CertificateParams::new(usable)?;
    params.distinguished_name.push(
        DnType::CommonName,
        names.first().map_or("batwa", |name| name),
    );
    // Nobody's clock is trusted, and a pinned certificate cannot be renewed in passing.
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file that is there whole or not at all, mode 0600.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    // A file left over by an interrupted start may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
