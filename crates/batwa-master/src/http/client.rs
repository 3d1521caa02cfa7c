//! Where a request truly came from, and how: behind a reverse proxy the connection's other end is the proxy.
//!
//! Forwarded headers count only when the connection comes from a `--trusted-proxy`; anybody else could write
//! whatever they like into them.

use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};

use super::ApiError;
use crate::{
    app::{App, Error, auth::Source, sessions::Channel},
    config::MasterConfig,
};

/// Who sent a request, as far as the connection tells.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Address and request id.
    pub(crate) source: Source,
    /// Whether it came by TLS, ours or a trusted proxy's.
    pub(crate) is_secure: bool,
    /// Whether the TLS that the client sees is our own.
    pub(crate) own_tls: bool,
    /// The host the client asked for: what the page's address shows.
    pub(crate) host: Option<String>,
}

impl Client {
    /// Reads it from connection and headers.
    pub(crate) fn of(
        config: &MasterConfig,
        peer: SocketAddr,
        headers: &HeaderMap,
        request_id: &str,
    ) -> Self {
        let peer = peer.ip().to_canonical();
        let trusted = config.trusts(peer);
        let forwarded = |name: &str| {
            if trusted {
                last_value(headers, name)
            } else {
                None
            }
        };
        let address = if trusted {
            forwarded_address(config, peer, headers)
        } else {
            peer
        };
        Self {
            source: Source::new(address, request_id.into()),
            // A trusted proxy knows how its own client came; without its word, it is how this connection came.
            own_tls: config.tls.is_some() && forwarded("x-forwarded-proto").is_none(),
            is_secure: forwarded("x-forwarded-proto").map_or(config.tls.is_some(), |scheme| {
                scheme.eq_ignore_ascii_case("https")
            }),
            host: forwarded("x-forwarded-host")
                .or_else(|| {
                    headers
                        .get(header::HOST)
                        .and_then(|host| host.to_str().ok())
                })
                .map(str::to_owned),
        }
    }

    /// Whether others can read what is said here.
    pub(crate) fn channel(&self) -> Channel {
        if self.is_secure || self.source.address.is_loopback() {
            Channel::Private
        } else {
            Channel::Plain
        }
    }
}

/// The last of a list header's values: what the proxy nearest to us wrote.
fn last_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',')
        .next()
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// The first address, seen from us, that is no trusted proxy.
fn forwarded_address(config: &MasterConfig, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut address = peer;
    let lines = headers
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .filter_map(|line| line.to_str().ok());
    for hop in lines.flat_map(|line| line.rsplit(',')) {
        let Some(hop) = parse_hop(hop.trim()) else {
            break;
        };
        address = hop;
        if !config.trusts(hop) {
            break;
        }
    }
    address
}

/// An address, with or without a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare()
        .or_else(with_port)
        .or_else(bracketed)
        .map(|address| address.to_canonical())
}

impl FromRequestParts<App> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        let client = parts.extensions.get::<Self>().cloned();
        client.ok_or(ApiError::App(Error::Unavailable(
            "the request has no known origin",
        )))
    }
}

impl FromRequestParts<App> for Source {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Client::from_request_parts(parts, app).await?.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> Client {
        let mut config = MasterConfig::new("unused");
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Client::of(
            &config,
            SocketAddr::new(peer.parse().unwrap(), 1),
            &map,
            "r",
        )
    }

    fn address(peer: &str, forwarded_for: &[&str]) -> String {
        let headers: Vec<_> = forwarded_for
            .iter()
            .map(|value| ("x-forwarded-for", *value))
            .collect();
        client(peer, &headers).source.address.to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(address("192.0.2.9", &["203.0.113.1"]), "192.0.2.9");
        assert_eq!(address("10.0.0.1", &["203.0.113.1"]), "203.0.113.1");
        assert_eq!(address("::ffff:10.0.0.1", &["203.0.113.1"]), "203.0.113.1");
        let secure = |peer| client(peer, &[("x-forwarded-proto", "https")]).is_secure;
        assert!(secure("10.0.0.1"));
        assert!(!secure("192.0.2.9"));
        let host = |peer| {
            client(
                peer,
                &[("host", "inner:8000"), ("x-forwarded-host", "outer")],
            )
            .host
            .unwrap()
        };
        assert_eq!(host("10.0.0.1"), "outer");
        assert_eq!(host("192.0.2.9"), "inner:8000");
    }

    #[test]
    fn over_tls_of_our_own_a_request_is_secure_unless_a_trusted_proxy_says_otherwise() {
        let mut config = MasterConfig::new("unused");
        config.tls = Some(batwa_tls::CertificateSource::SelfSigned { names: vec![] });
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let secure = |peer: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            Client::of(&config, peer.parse().unwrap(), &map, "r").is_secure
        };
        let plain = [("x-forwarded-proto", "http")];
        assert!(secure("192.0.2.9:1", &[]));
        assert!(secure("192.0.2.9:1", &plain), "a stranger's word");
        assert!(!secure("10.0.0.1:1", &plain));
    }

    #[test]
    fn the_address_is_the_first_that_no_trusted_proxy_has() {
        assert_eq!(
            address("10.0.0.1", &["6.6.6.6, 203.0.113.1, 10.0.0.2"]),
            "203.0.113.1",
            "the client wrote the rest"
        );
        assert_eq!(
            address("10.0.0.1", &["6.6.6.6", "203.0.113.1"]),
            "203.0.113.1",
            "several lines are one list"
        );
        assert_eq!(address("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(
            address("10.0.0.1", &["203.0.113.1, rubbish, 10.0.0.2"]),
            "10.0.0.2"
        );
        assert_eq!(address("10.0.0.1", &["203.0.113.1:4711"]), "203.0.113.1");
        assert_eq!(address("::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(address("::1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }
}
