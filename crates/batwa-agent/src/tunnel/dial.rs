//! From a master's URL to an open WebSocket: name, proxy, TCP, TLS, upgrade.

use std::{fmt, io, str::FromStr, sync::Arc, time::Duration};

use batwa_api::tunnel::TUNNEL_PATH;
use batwa_tls::{SystemRoots, Trust};
use http::{StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::verify::{Recording, Seen};

/// How long name and TCP connection may take.
const TCP_DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer of a proxy to `CONNECT`.
const MAX_PROXY_ANSWER: usize = 16 << 10;
/// Longest address of a master.
const MAX_URL: usize = 512;

/// An open connection of whichever kind.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A tunnel's WebSocket.
pub(super) type Socket = WebSocketStream<Box<dyn Connection>>;

/// Where a master is: `https://batwa.example`, perhaps with a port.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterUrl {
    text: String,
    is_tls: bool,
    host: String,
    port: u16,
}

/// Why a text is no master's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it should look like `https://batwa.example` or `http://192.168.1.10:8000`, without user, query or fragment"
)]
pub struct MasterUrlError;

impl FromStr for MasterUrl {
    type Err = MasterUrlError;

    fn from_str(text: &str) -> Result<Self, MasterUrlError> {
        let text = text.trim().trim_end_matches('/');
        if text.len() > MAX_URL || text.contains(['#', '?']) {
            return Err(MasterUrlError);
        }
        let uri: Uri = text.parse().map_err(|_| MasterUrlError)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(MasterUrlError),
        };
        let authority = uri.authority().ok_or(MasterUrlError)?;
        let host = authority.host();
        let after_host = authority.as_str().get(host.len()..).unwrap_or_default();
        if authority.as_str().contains('@')
            || host.is_empty()
            // A port that is there but no number is dropped by the parser.
            || (!after_host.is_empty() && authority.port_u16().is_none())
        {
            return Err(MasterUrlError);
        }
        Ok(Self {
            text: text.to_owned(),
            is_tls,
            // Brackets belong to the URL, not to the address inside.
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
        })
    }
}

impl fmt::Display for MasterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for MasterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterUrl({})", self.text)
    }
}

/// Proxies to go through, as the usual environment variables name them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http://` masters.
    pub http: Option<String>,
    /// For `https://` masters.
    pub https: Option<String>,
    /// Hosts and networks that are reached without one, separated by commas.
    pub none_for: Option<String>,
}

impl fmt::Debug for Proxies {
    /// Their URLs may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("none_for", &self.none_for)
            .finish()
    }
}

/// Why there is no open WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The network fails, or nobody is there.
    #[error("cannot reach {to}")]
    Network {
        /// Whom.
        to: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy cannot be used as it is written.
    #[error("the proxy `{0}` cannot be used: it must look like `http://proxy:3128`")]
    ProxyUrl(String),
    /// The proxy refuses.
    #[error("the proxy {proxy} answers {status} to CONNECT")]
    Proxy {
        /// Which.
        proxy: String,
        /// What it answers.
        status: StatusCode,
    },
    /// What answers does not speak TLS, or not as we do.
    #[error("{to} does not speak TLS as we do")]
    Tls {
        /// Who.
        to: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What answers is no tunnel.
    #[error("{to} answers {status} where the tunnel should be")]
    NoTunnel {
        /// Who.
        to: String,
        /// What it answers.
        status: StatusCode,
    },
    /// The upgrade was garbled on the way.
    #[error("{to} answers the tunnel's upgrade wrongly: {what}")]
    Upgrade {
        /// Who.
        to: String,
        /// How.
        what: String,
    },
}

impl DialError {
    /// Whether trying again may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let soon =
            |status: &StatusCode| matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        match self {
            Self::Network { .. } => true,
            Self::Proxy { status, .. } | Self::NoTunnel { status, .. } => soon(status),
            Self::ProxyUrl(_) | Self::Tls { .. } | Self::Upgrade { .. } => false,
        }
    }

    /// What to do about it, where we know.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Network { .. } => return None,
            Self::ProxyUrl(_) => "correct HTTPS_PROXY or HTTP_PROXY",
            Self::Proxy { status, .. } if status.as_u16() == 407 => {
                "give the proxy's user and password in HTTPS_PROXY: `http://user:password@proxy:3128`"
            }
            Self::Proxy { .. } => {
                "let the proxy connect to the master's address and port, or name the master in NO_PROXY"
            }
            Self::Tls { .. } => "if the master serves plain HTTP, write its address with `http://`",
            Self::NoTunnel { status, .. } if status.is_redirection() => {
                "give the address that it redirects to"
            }
            Self::NoTunnel { .. } | Self::Upgrade { .. } => {
                "either no Batwa master listens there, or a proxy in between does not pass WebSockets on: let it pass the headers Upgrade and Connection for /api/v1/tunnel"
            }
        };
        Some(fix.to_owned())
    }
}

/// Makes connections to masters; one serves any number of agents.
pub struct Dialer {
    proxies: Matcher,
    roots: SystemRoots,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// One that goes through `proxies`.
    #[must_use]
    pub fn new(proxies: Proxies) -> Self {
        let mut matcher = Matcher::builder();
        if let Some(proxy) = proxies.http {
            matcher = matcher.http(proxy);
        }
        if let Some(proxy) = proxies.https {
            matcher = matcher.https(proxy);
        }
        if let Some(none_for) = proxies.none_for {
            matcher = matcher.no(none_for);
        }
        Self {
            proxies: matcher.build(),
            roots: SystemRoots::default(),
        }
    }

    /// Opens the WebSocket for a tunnel to `master`; tells what certificate it showed, if it speaks TLS.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn dial(
        &self,
        master: &MasterUrl,
    ) -> Result<(Socket, Option<Seen>), DialError> {
        let stream = self.connect(master).await?;
        let (stream, seen): (Box<dyn Connection>, _) = if master.is_tls {
            let (stream, seen) = self.secure(master, stream).await?;
            (Box::new(stream), seen)
        } else {
            (Box::new(stream), None)
        };
        Ok((upgrade(master, stream).await?, seen))
    }

    /// A TCP connection to the master, through a proxy where one is set.
    async fn connect(&self, master: &MasterUrl) -> Result<TcpStream, DialError> {
        let uri: Uri = master
            .text
            .parse()
            .expect("a master's address is parsed when it is made");
        let Some(proxy) = self.proxies.intercept(&uri) else {
            return tcp(&master.text, &master.host, master.port).await;
        };
        // Without user and password, which are not for logs.
        let host = proxy.uri().host().unwrap_or_default();
        let port = proxy.uri().port_u16().unwrap_or(80);
        let shown = format!("{host}:{port}");
        if proxy.uri().scheme_str() != Some("http") || host.is_empty() {
            return Err(DialError::ProxyUrl(format!(
                "{}://{shown}",
                proxy.uri().scheme_str().unwrap_or_default()
            )));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = tcp(&format!("the proxy {shown}"), bare, port).await?;
        let auth = proxy.basic_auth().and_then(|auth| auth.to_str().ok());
        let status = ask_proxy(&mut stream, master, auth)
            .await
            .map_err(|source| DialError::Network {
                to: format!("{} through the proxy {shown}", master.text),
                source,
            })?;
        if status.is_success() {
            Ok(stream)
        } else {
            Err(DialError::Proxy {
                proxy: shown,
                status,
            })
        }
    }

    async fn secure(
        &self,
        master: &MasterUrl,
        stream: TcpStream,
    ) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, Option<Seen>), DialError> {
        let failed = |source: io::Error| {
            let to = master.text.clone();
            if source.kind() == io::ErrorKind::InvalidData {
                DialError::Tls { to, source }
            } else {
                DialError::Network { to, source }
            }
        };
        let verifier = Arc::new(Recording::new(Trust::Roots.verifier(&self.roots)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(io::Error::other(error)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        // WebSockets are upgrades of HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(master.host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(TCP_DEADLINE, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        Ok((stream, verifier.seen()))
    }
}

async fn tcp(to: &str, host: &str, port: u16) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Network {
        to: to.to_owned(),
        source,
    };
    let stream = timeout(TCP_DEADLINE, TcpStream::connect((host, port)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(failed)?;
    // Keystrokes are small writes: waiting to fill a packet would cost 40 ms each (MEASURED.md).
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Asks a proxy for a connection to the master.
async fn ask_proxy(
    stream: &mut TcpStream,
    master: &MasterUrl,
    auth: Option<&str>,
) -> io::Result<StatusCode> {
    let host = if master.host.contains(':') {
        format!("[{}]", master.host)
    } else {
        master.host.clone()
    };
    let target = format!("{host}:{}", master.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(auth) = auth {
        request.push_str(&format!("Proxy-Authorization: {auth}\r\n"));
    }
    request.push_str("\r\n");
    let asking = async {
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // A byte at a time: what follows the head belongs to the tunnel.
            let byte = stream.read_u8().await?;
            head.push(byte);
            if head.len() > MAX_PROXY_ANSWER {
                return Err(io::Error::other("the proxy's answer has no end"));
            }
        }
        status_of(&head).ok_or_else(|| io::Error::other("the proxy's answer is no HTTP"))
    };
    timeout(TCP_DEADLINE, asking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The status in `HTTP/1.1 200 Connection established`.
fn status_of(head: &[u8]) -> Option<StatusCode> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

async fn upgrade(master: &MasterUrl, stream: Box<dyn Connection>) -> Result<Socket, DialError> {
    let to = master.text.clone();
    let scheme = if master.is_tls { "wss" } else { "ws" };
    let rest = master.text.split_once("://").map_or("", |(_, rest)| rest);
    let url = format!("{scheme}://{rest}{TUNNEL_PATH}");
    let config = Some(batwa_tunnel::config());
    match client_async_with_config(url, stream, config).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(DialError::NoTunnel {
            to,
            status: response.status(),
        }),
        Err(tungstenite::Error::Io(source)) => Err(DialError::Network { to, source }),
        // The other side hung up before it answered: a restart, or a proxy that gave up.
        Err(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::HandshakeIncomplete,
        )) => Err(DialError::Network {
            to,
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
        Err(error) => Err(DialError::Upgrade {
            to,
            what: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masters_address_is_read_strictly() {
        let url = |text: &str| {
            let url: MasterUrl = text.parse().unwrap();
            (url.is_tls, url.host, url.port)
        };
        assert_eq!(
            url("https://batwa.example/"),
            (true, "batwa.example".into(), 443)
        );
        assert_eq!(
            url("http://10.0.0.1:8000"),
            (false, "10.0.0.1".into(), 8000)
        );
        assert_eq!(url("http://[::1]:8000"), (false, "::1".into(), 8000));
        for bad in [
            "",
            "batwa.example",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x:99999",
            "http://x?y",
            "http://x#y",
            "http://a b",
        ] {
            assert_eq!(bad.parse::<MasterUrl>(), Err(MasterUrlError), "{bad}");
        }
    }

    #[test]
    fn a_proxys_answer_is_its_status() {
        let status = |text: &str| status_of(text.as_bytes()).map(|status| status.as_u16());
        assert_eq!(
            status("HTTP/1.1 200 Connection established\r\n\r\n"),
            Some(200)
        );
        assert_eq!(
            status("HTTP/1.0 407 Proxy Authentication Required\r\n"),
            Some(407)
        );
        for bad in [
            "",
            "SSH-2.0-x\r\n",
            "HTTP/2 200\r\n",
            "HTTP/1.1 \r\n",
            "HTTP/1.1 99x y\r\n",
        ] {
            assert_eq!(status(bad), None, "{bad}");
        }
    }
}
