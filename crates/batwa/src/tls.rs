//! TLS as the staying processes are told of it: which certificate, and when it is read anew.

use std::{io::IsTerminal as _, path::PathBuf, sync::Arc};

use batwa_agent::policy::{Look, PolicyFile};
use batwa_tls::{CertificateSource, ServedCertificate};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    failure::{Exit, Failure},
    settings::{SettingError, Settings},
};

/// The certificate that the settings ask for; `None` for plain HTTP. `names` are those that a self-signed one is for.
pub(crate) fn source(
    settings: &Settings,
    names: impl FnOnce() -> Vec<String>,
) -> Result<Option<CertificateSource>, SettingError> {
    let files = (settings.text("tls-cert"), settings.text("tls-key"));
    let self_signed = settings.parse("tls", |text| match text {
        "self-signed" => Ok(()),
        _ => Err("it can only be `self-signed`; a certificate of your own is given by `--tls-cert` and `--tls-key`".to_owned()),
    })?;
    match (self_signed, files) {
        (None, (None, None)) => Ok(None),
        (Some(()), (None, None)) => Ok(Some(CertificateSource::SelfSigned { names: names() })),
        (Some(()), _) => Err(settings.refuse(
            "tls",
            "self-signed",
            "a certificate is given by `--tls-cert` too: give one of them",
        )),
        (None, (Some(certificate), Some(key))) => {
            let absolute = |name, text: &str| {
                std::path::absolute(PathBuf::from(text))
                    .map_err(|error| settings.refuse(name, text, error.to_string()))
            };
            Ok(Some(CertificateSource::Files {
                certificate: absolute("tls-cert", certificate)?,
                key: absolute("tls-key", key)?,
            }))
        }
        (None, (Some(certificate), None)) => Err(settings.refuse(
            "tls-cert",
            certificate,
            "its private key is missing: name its file with `--tls-key`",
        )),
        (None, (None, Some(key))) => Err(settings.refuse(
            "tls-key",
            key,
            "its certificate is missing: name its file with `--tls-cert`",
        )),
    }
}

/// Reads the certificate, and the policy of this machine, anew on each SIGHUP, until `stop`.
///
/// Started from a terminal, SIGHUP means that the terminal is gone, and ends the process as ever.
pub(crate) async fn reload_on_hangup(
    certificate: Option<Arc<ServedCertificate>>,
    policy: Option<PolicyFile>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    if std::io::stderr().is_terminal() {
        stop.cancelled().await;
        return Ok(());
    }
    let mut hangups = signal(SignalKind::hangup())
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot receive signals: {error}")))?;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = hangups.recv() => {}
        }
        match policy.as_ref().map(PolicyFile::reload) {
            None => {}
            Some(Look::Same) => {
                info!("told to reload: the policy of this machine says what it said")
            }
            Some(Look::Changed) => info!("told to reload: the policy of this machine has changed"),
            Some(Look::Kept(problem)) => {
                warn!("told to reload, but the policy stays as it was: {problem}");
            }
        }
        match &certificate {
            None if policy.is_some() => {}
            None => info!(
                "told to reload, but there is no certificate to read anew; other settings take a restart"
            ),
            Some(certificate) => match certificate.look() {
                None => info!(
                    "told to reload: serving the certificate SHA-256 {}",
                    certificate.hash()
                ),
                Some(complaint) => {
                    warn!("told to reload, but the certificate stays as it was: {complaint}")
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{File, Flags, Role};

    fn chosen<const N: usize>(
        pairs: [(&str, &str); N],
    ) -> Result<Option<CertificateSource>, String> {
        let settings = Settings::merge(Role::Up, Flags::default(), &pairs.into(), File::default());
        source(&settings, || vec!["lab".to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_is_given_whole_and_once() {
        assert_eq!(chosen([]), Ok(None));
        let names = vec!["lab".to_owned()];
        assert_eq!(
            chosen([("BATWA_TLS", "self-signed")]),
            Ok(Some(CertificateSource::SelfSigned { names }))
        );
        let (cert, key) = (("BATWA_TLS_CERT", "/c.pem"), ("BATWA_TLS_KEY", "/k.pem"));
        assert_eq!(
            chosen([cert, key]),
            Ok(Some(CertificateSource::Files {
                certificate: "/c.pem".into(),
                key: "/k.pem".into()
            }))
        );
        insta::assert_snapshot!(chosen([cert]).unwrap_err(), @"cannot use `/c.pem` as tls-cert (from environment variable `BATWA_TLS_CERT`): its private key is missing: name its file with `--tls-key`");
        insta::assert_snapshot!(chosen([key]).unwrap_err(), @"cannot use `/k.pem` as tls-key (from environment variable `BATWA_TLS_KEY`): its certificate is missing: name its file with `--tls-cert`");
        insta::assert_snapshot!(chosen([cert, key, ("BATWA_TLS", "self-signed")]).unwrap_err(), @"cannot use `self-signed` as tls (from environment variable `BATWA_TLS`): a certificate is given by `--tls-cert` too: give one of them");
        insta::assert_snapshot!(chosen([("BATWA_TLS", "on")]).unwrap_err(), @"cannot use `on` as tls (from environment variable `BATWA_TLS`): it can only be `self-signed`; a certificate of your own is given by `--tls-cert` and `--tls-key`");
    }
}
