//! By which addresses other machines reach this master: decided from how somebody reached it just now.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::Authority;

use crate::config::{MasterConfig, origin};

/// Addresses that are offered; a machine with more networks than this needs `--public-url`.
const MOST: usize = 8;

/// One address of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// Scheme, host and port.
    pub(crate) url: String,
    /// Whether it leads to the master on its own machine only.
    pub(crate) this_machine_only: bool,
    /// Whether the certificate seen there is the master's own, not a proxy's.
    pub(crate) own_certificate: bool,
}

/// What the decision needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// `--public-url`, `--trusted-proxy` and `--tls`.
    pub(crate) config: &'a MasterConfig,
    /// The host that the request was for, with its port.
    pub(crate) host: Option<&'a str>,
    /// Whether it came by TLS.
    pub(crate) is_secure: bool,
    /// Whether that TLS was ours.
    pub(crate) own_tls: bool,
    /// Where the master listens.
    pub(crate) listens_on: SocketAddr,
}

impl Asked<'_> {
    /// Where whoever asks reaches the master: the public URL, else as they asked. Goes into a shell script, so nothing
    /// gets in that is no plain host and port.
    pub(crate) fn here(&self) -> Way {
        if let Some(url) = &self.config.public_url {
            return Way {
                url: url.origin().to_owned(),
                this_machine_only: false,
                // Who trusts a proxy has one in front, and it is the proxy's certificate that people see.
                own_certificate: url.is_secure() && self.config.trusted_proxies.is_empty(),
            };
        }
        let Some(host) = self.host.filter(|host| is_plain(host)) else {
            let mut address = self.listens_on;
            if address.ip().is_unspecified() {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            return self.at(address);
        };
        Way {
            url: origin(if self.is_secure { "https" } else { "http" }, host),
            this_machine_only: is_loopback(host),
            own_certificate: self.own_tls,
        }
    }

    /// How other machines reach the master, the best first; never empty. Asked on the machine itself, its own addresses
    /// come before the one that was asked at.
    pub(crate) fn for_others(&self, own: &[IpAddr]) -> Vec<Way> {
        let here = self.here();
        if !here.this_machine_only {
            return vec![here];
        }
        let ip = self.listens_on.ip().to_canonical();
        let reachable: Vec<IpAddr> = if ip.is_unspecified() {
            // A socket on 0.0.0.0 answers at no IPv6 address.
            let answers = |own: &&IpAddr| self.listens_on.is_ipv6() || own.is_ipv4();
            own.iter().filter(answers).copied().take(MOST).collect()
        } else if ip.is_loopback() {
            Vec::new()
        } else {
            vec![ip]
        };
        let port = self.listens_on.port();
        let mut ways: Vec<Way> = reachable
            .into_iter()
            .map(|ip| self.at(SocketAddr::new(ip, port)))
            .collect();
        ways.push(here);
        ways
    }

    /// The master's own port at `address`.
    fn at(&self, address: SocketAddr) -> Way {
        let own_certificate = self.config.tls.is_some();
        let scheme = if own_certificate { "https" } else { "http" };
        Way {
            url: origin(scheme, &address.to_string()),
            this_machine_only: address.ip().is_loopback(),
            own_certificate,
        }
    }
}

fn is_plain(host: &str) -> bool {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    host.len() <= 255 && host.chars().all(plain) && host.parse::<Authority>().is_ok()
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_matches(['[', ']'])
        .to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use batwa_tls::CertificateSource;

    use super::*;

    /// The ways as text, with `!` after those of this machine only and `*` after those that show our certificate.
    fn check(config: &MasterConfig, host: &str, listens_on: &str, own: &[&str]) -> Vec<String> {
        let tls = config.tls.is_some();
        let asked = Asked {
            config,
            host: Some(host),
            is_secure: tls,
            own_tls: tls,
            listens_on: listens_on.parse().unwrap(),
        };
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        let shown = |way: Way| {
            let only = if way.this_machine_only { "!" } else { "" };
            let certificate = if way.own_certificate { "*" } else { "" };
            format!("{}{only}{certificate}", way.url)
        };
        asked.for_others(&own).into_iter().map(shown).collect()
    }

    fn self_signed() -> MasterConfig {
        let mut config = MasterConfig::new("unused");
        config.tls = Some(CertificateSource::SelfSigned { names: vec![] });
        config
    }

    #[test]
    fn what_others_can_reach_is_offered_as_it_was_asked_for() {
        let config = MasterConfig::new("unused");
        let own = ["192.0.2.10"];
        for (host, url) in [
            ("batwa.example", "http://batwa.example"),
            ("10.0.0.1:8000", "http://10.0.0.1:8000"),
            ("[fd00::1]:8000", "http://[fd00::1]:8000"),
        ] {
            assert_eq!(check(&config, host, "0.0.0.0:8000", &own), [url]);
        }
        assert_eq!(
            check(&self_signed(), "batwa.example", "0.0.0.0:443", &own),
            ["https://batwa.example*"]
        );
    }

    #[test]
    fn asked_on_the_machine_itself_its_addresses_come_first() {
        let config = MasterConfig::new("unused");
        let own = ["192.0.2.10", "10.8.0.1", "fd00::1"];
        for host in [
            "127.0.0.1:8000",
            "localhost:8000",
            "[::1]:8000",
            "0.0.0.0:8000",
            "batwa.localhost:8000",
        ] {
            let here = format!("http://{host}!");
            assert_eq!(
                check(&config, host, "0.0.0.0:8000", &own),
                ["http://192.0.2.10:8000", "http://10.8.0.1:8000", &here]
            );
        }
        // Through somebody's port forwarding; listening on IPv6 too.
        assert_eq!(
            check(&config, "localhost:9999", "[::]:8000", &own[1..]),
            [
                "http://10.8.0.1:8000",
                "http://[fd00::1]:8000",
                "http://localhost:9999!"
            ]
        );
        assert_eq!(
            check(&self_signed(), "127.0.0.1:8000", "192.0.2.10:8000", &own),
            ["https://192.0.2.10:8000*", "https://127.0.0.1:8000!*"]
        );
    }

    #[test]
    fn where_nobody_else_can_reach_it_this_is_said() {
        let config = MasterConfig::new("unused");
        let here = ["http://127.0.0.1:8000!"];
        let own = ["192.0.2.10"];
        assert_eq!(check(&config, "127.0.0.1:8000", "0.0.0.0:8000", &[]), here);
        assert_eq!(
            check(&config, "127.0.0.1:8000", "127.0.0.1:8000", &own),
            here
        );
    }

    #[test]
    fn the_public_url_wins() {
        let mut config = self_signed();
        config.public_url = Some("https://batwa.example".parse().unwrap());
        let ways = |config: &MasterConfig| check(config, "127.0.0.1:8000", "127.0.0.1:8000", &[]);
        assert_eq!(ways(&config), ["https://batwa.example*"]);
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert_eq!(ways(&config), ["https://batwa.example"]);
    }

    #[test]
    fn no_hostile_host_gets_into_the_script() {
        let config = MasterConfig::new("unused");
        for host in [
            "x'; rm -rf ~; '",
            "$(id)",
            "`id`",
            "a b",
            "a\"b",
            "a;b",
            "a|b",
            "a\\b",
            "user@host",
            "a/b",
            "",
            &"a".repeat(300),
        ] {
            let ways = check(&config, host, "0.0.0.0:8000", &[]);
            assert_eq!(ways, ["http://127.0.0.1:8000!"], "{host}");
        }
    }
}
