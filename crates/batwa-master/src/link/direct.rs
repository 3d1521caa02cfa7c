//! The link to an agent's own port: TCP or TLS, as the set-up guide describes it.
//!
//! Over TLS an agent is known by the certificate that it registered with, or by one that the system's roots vouch for.

use std::{fmt, io, str::FromStr, sync::Arc};

use async_trait::async_trait;
use batwa_api::{agent::LinkKind, certificate::CertificateHash};
use batwa_tls::{NotTrusted, SystemRoots, Trust};
use http::Uri;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Hold, Link, Stream};

/// Where an agent says it can be reached: `http(s)://host:port`, perhaps with a path in front of its API.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ApiUrl {
    text: String,
    /// The name to ask for over TLS; `None` for plain TCP.
    tls: Option<ServerName<'static>>,
    address: String,
    port: u16,
    authority: String,
    prefix: String,
}

/// Why a text is no address of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiUrlError {
    /// It is no URL of the right form.
    #[error(
        "an agent's address has the form `http://host:8001` or `https://host:8001`, without user, query or fragment"
    )]
    Form,
    /// It asks for TLS with a host that cannot stand in a certificate.
    #[error(
        "an agent's address over `https://` needs a host name or address that a certificate can be for"
    )]
    TlsName,
}

impl ApiUrl {
    /// Longest address.
    pub(crate) const MAX_LEN: usize = 512;

    /// The address as it was given, less a slash at its end.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ApiUrl {
    type Err = ApiUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_LEN || text.contains('#') {
            return Err(ApiUrlError::Form);
        }
        let text = text.trim().trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|_| ApiUrlError::Form)?;
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(ApiUrlError::Form),
        };
        let authority = uri.authority().ok_or(ApiUrlError::Form)?;
        if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty()
        {
            return Err(ApiUrlError::Form);
        }
        // A port that is there but no number is dropped by the parser: refuse it rather than guess.
        let after_host = &authority.as_str()[authority.host().len()..];
        if !after_host.is_empty() && authority.port_u16().is_none() {
            return Err(ApiUrlError::Form);
        }
        // Brackets belong to the URL, not to the address inside.
        let address = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = is_tls.then(|| ServerName::try_from(address.clone()));
        Ok(Self {
            text: text.to_owned(),
            tls: tls.transpose().map_err(|_| ApiUrlError::TlsName)?,
            address,
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiUrl({})", self.text)
    }
}

/// A link to an agent's port.
pub(crate) struct Direct {
    url: ApiUrl,
    connector: Option<TlsConnector>,
}

impl Direct {
    /// A link to the agent at `url`, whose certificate over TLS is `pin` or one that `roots` vouch for.
    #[must_use]
    pub(crate) fn new(url: ApiUrl, pin: Option<CertificateHash>, roots: &SystemRoots) -> Self {
        let connector = url.tls.as_ref().map(|_| {
            let trust = pin.map_or(Trust::Roots, Trust::Pinned);
            TlsConnector::from(Arc::new(trust.client_config(roots)))
        });
        Self { url, connector }
    }
}

#[async_trait]
impl Link for Direct {
    fn kind(&self) -> LinkKind {
        LinkKind::Direct
    }

    fn host(&self) -> &str {
        &self.url.authority
    }

    fn path_prefix(&self) -> &str {
        &self.url.prefix
    }

    async fn connect(&self, _hold: Hold) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.url.address.as_str(), self.url.port)).await?;
        // Keystrokes are small writes: waiting to fill a packet would cost 40 ms each (MEASURED.md).
        stream.set_nodelay(true)?;
        let (Some(connector), Some(name)) = (&self.connector, &self.url.tls) else {
            return Ok(Box::new(stream));
        };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(no_tls(&error)),
        }
    }
}

/// The error with what to do about it.
fn no_tls(error: &io::Error) -> io::Error {
    let text = match NotTrusted::behind(error) {
        Some(refusal) => format!(
            "{refusal}; the certificate that an agent registers with is taken, so start the agent anew or register it with this one"
        ),
        None => format!("no TLS came about: {error}; does it speak TLS at that address?"),
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_agents_are_read_strictly() {
        let good = |text: &str| {
            let url: ApiUrl = text.parse().unwrap();
            (url.address.clone(), url.port, url.prefix.clone())
        };
        assert_eq!(
            good("http://10.0.0.5:8001"),
            ("10.0.0.5".into(), 8001, String::new())
        );
        assert_eq!(good("http://lab-2/"), ("lab-2".into(), 80, String::new()));
        assert_eq!(
            good("http://[::1]:8001"),
            ("::1".into(), 8001, String::new())
        );
        assert_eq!(
            good("http://proxy/agents/a/"),
            ("proxy".into(), 80, "/agents/a".into())
        );
        for bad in [
            "",
            "10.0.0.5:8001",
            "ftp://x",
            "http://",
            "http://a b:1",
            "http://user:pw@host:1",
            "http://host:99999",
            "http://host:1?x=y",
            "http://host:1#f",
            &format!("http://{}", "a".repeat(600)),
        ] {
            assert_eq!(bad.parse::<ApiUrl>(), Err(ApiUrlError::Form), "{bad}");
        }
        let https: ApiUrl = "https://host".parse().unwrap();
        assert_eq!((https.port, https.tls.is_some()), (443, true));
        let plain: ApiUrl = "http://host".parse().unwrap();
        assert!(plain.tls.is_none());
        assert!("https://[::1]:8001".parse::<ApiUrl>().is_ok());
    }
}
