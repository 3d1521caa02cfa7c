//! The master's settings, resolved and checked; the binary makes them from flags, environment and file.

use std::{fmt, io, net::IpAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use batwa_tls::CertificateSource;
use batwa_tunnel::Timing;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tokio::io::DuplexStream;

/// Everything that a master can be told.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// The address or host name to listen on.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The folder that holds everything the master must remember.
    pub state_dir: PathBuf,
    /// Where the store is; a file in the state folder when absent.
    pub database: Option<DatabaseUrl>,
    /// The certificate that the port shows; plain HTTP when absent.
    pub tls: Option<CertificateSource>,
    /// Where people reach the page, when that is not the address it listens on.
    pub public_url: Option<PublicUrl>,
    /// Reverse proxies whose forwarded headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether an unknown agent that registers is taken without an admin's approval.
    pub open_registration: bool,
    /// How long an old blocking call waits for its operation.
    pub operation_timeout: Duration,
    /// How long finished operations are kept.
    pub operations_kept: Duration,
    /// The first admin's name, with [`Self::admin_password_file`].
    pub admin_user: String,
    /// A file with the first admin's password; ignored once an admin exists.
    pub admin_password_file: Option<PathBuf>,
    /// How long sign-ins last.
    pub session_limits: SessionLimits,
    /// How long a shutdown waits for requests under way before it cuts them.
    pub shutdown_grace: Duration,
    /// Signs of life in tunnels.
    pub tunnel_timing: Timing,
    /// The program that machines may fetch from the master when they join: usually its own.
    pub executable: Option<PathBuf>,
    /// The agent in this process, when there is one.
    pub local_agent: Option<LocalAgent>,
}

impl MasterConfig {
    /// The defaults, with everything kept in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 8000,
            state_dir: state_dir.into(),
            database: None,
            tls: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            open_registration: false,
            operation_timeout: Duration::from_secs(15 * 60),
            operations_kept: Duration::from_secs(30 * 24 * 60 * 60),
            admin_user: "admin".to_owned(),
            admin_password_file: None,
            session_limits: SessionLimits::default(),
            shutdown_grace: Duration::from_secs(8),
            tunnel_timing: Timing::default(),
            executable: None,
            local_agent: None,
        }
    }

    /// Whether forwarded headers of a request that came from `peer` count.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// How long a sign-in lasts.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Ends a session that is not used for this long.
    pub idle: Duration,
    /// Ends a session this long after the sign-in, used or not.
    pub absolute: Duration,
}

impl Default for SessionLimits {
    /// A night away, and the old program's day.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(12 * 60 * 60),
            absolute: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The agent that runs in the master's own process.
#[derive(Clone)]
pub struct LocalAgent {
    /// Makes one end of a fresh byte stream whose other end the agent serves HTTP/1.1 on.
    pub connect: Connector,
}

/// Makes fresh byte streams to an agent in this process.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

impl fmt::Debug for LocalAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalAgent")
    }
}

/// Where the store is: `sqlite:PATH` or `postgres://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL, with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    /// The kind only: the URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.split(':').next().unwrap_or_default();
        write!(f, "DatabaseUrl({kind}:…)")
    }
}

impl FromStr for DatabaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if known.iter().any(|scheme| text.starts_with(scheme)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ConfigError::DatabaseUrl)
        }
    }
}

/// Where people reach the page: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
}

impl PublicUrl {
    /// The origin as browsers write it: `https://batwa.example`, with a port only when it is not the scheme's own.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether it is reached by TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.origin.starts_with("https://")
    }
}

impl FromStr for PublicUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| ConfigError::PublicUrl {
            url: text.to_owned(),
            reason,
        };
        let uri: http::Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        let scheme = match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => scheme,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong(
                "it has a path: batwa must be at the root of its own host name",
            ));
        }
        Ok(Self {
            origin: origin(scheme, authority.as_str()),
        })
    }
}

/// The origin of `scheme` and `authority` as browsers write it: lower case, without the scheme's own port.
pub(crate) fn origin(scheme: &str, authority: &str) -> String {
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    format!("{scheme}://{authority}")
}

/// Why a setting cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The store's URL has an unknown scheme.
    #[error("the database URL begins with neither `sqlite:` nor `postgres://`")]
    DatabaseUrl,
    /// The public URL cannot be one.
    #[error("the public URL `{url}` cannot be used: {reason}")]
    PublicUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The first admin's name cannot be one.
    #[error("the admin user `{0}` cannot be used: a name has 1 to 64 letters, digits and `._@-`")]
    AdminUser(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin() {
        let check = |text: &str| text.parse::<PublicUrl>().map(|url| url.origin).ok();
        assert_eq!(
            check("https://batwa.example").as_deref(),
            Some("https://batwa.example")
        );
        assert_eq!(
            check("https://Batwa.Example:443/").as_deref(),
            Some("https://batwa.example")
        );
        assert_eq!(
            check("http://10.0.0.1:8000").as_deref(),
            Some("http://10.0.0.1:8000")
        );
        assert_eq!(check("http://[::1]:80").as_deref(), Some("http://[::1]"));
        for bad in [
            "batwa.example",
            "ftp://x",
            "https://x/batwa",
            "https://u@x",
            "https://x?y",
            "",
            "https://",
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_database_url_never_shows_its_password() {
        let url: DatabaseUrl = "postgres://batwa:hunter2@db/batwa".parse().unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres:…)");
        assert_eq!(
            "mysql://x".parse::<DatabaseUrl>(),
            Err(ConfigError::DatabaseUrl)
        );
    }
}
