//! Addresses on which this machine may listen for its VMs.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{
    PolicyFile, Refusal,
    check::{quoted, refusal},
};

/// An address with the ports that may be used on it, as the file has it: `127.0.0.1:8000-8999`, `[::1]:8080`, `10.0.0.5:*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

impl FromStr for Listen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, ports) = text.rsplit_once(':').ok_or(())?;
        let address = match address.strip_prefix('[') {
            Some(inner) => IpAddr::V6(inner.strip_suffix(']').ok_or(())?.parse().map_err(drop)?),
            None => IpAddr::V4(address.parse().map_err(drop)?),
        };
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or(());
        let ports = match ports.split_once('-') {
            _ if ports == "*" => 1..=u16::MAX,
            Some((low, high)) => port(low)?..=port(high)?,
            None => {
                let port = port(ports)?;
                port..=port
            }
        };
        if ports.is_empty() {
            return Err(());
        }
        Ok(Self { address, ports })
    }
}

impl Listen {
    /// Whether listening there opens nothing that this does not open. `0.0.0.0` is every IPv4 address of the machine, `[::]`
    /// every one, as for whoever listens on them.
    fn covers(&self, asked: SocketAddr) -> bool {
        let (all, address) = (self.address, asked.ip().to_canonical());
        let is_covered = all == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || all.is_unspecified() && address.is_ipv4()
            || all.to_canonical() == address;
        is_covered && self.ports.contains(&asked.port())
    }
}

impl PolicyFile {
    /// Refuses an address on which this machine may not listen for its VMs.
    pub(crate) fn check_listen(&self, address: SocketAddr) -> Result<(), Refusal> {
        let policy = self.current();
        let allowed = policy
            .forwards
            .iter()
            .filter_map(|text| text.parse::<Listen>().ok())
            .any(|listen| listen.covers(address));
        if allowed {
            return Ok(());
        }
        let message =
            format!("this machine's policy does not let it listen on {address} for its VMs");
        let line = format!(
            "listen = [{}]",
            quoted(policy.forwards.iter().chain([&address.to_string()]))
        );
        Err(refusal(&policy, "listen", message, "forwards", &line))
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::policy::Policy;

    use super::*;

    #[test]
    fn addresses_are_read_with_their_ports() {
        for (text, good, bad) in [
            ("127.0.0.1:8000-8999", "127.0.0.1:8000", "127.0.0.1:9000"),
            ("127.0.0.1:8000-8999", "127.0.0.1:8999", "127.0.0.1:7999"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", "127.0.0.2:80"),
            ("127.0.0.1:*", "127.0.0.1:1", "0.0.0.0:80"),
            ("0.0.0.0:*", "10.0.0.1:65535", "[::1]:80"),
            ("0.0.0.0:80", "0.0.0.0:80", "[::]:80"),
            ("[::1]:*", "[::1]:22", "127.0.0.1:22"),
            ("[::]:80", "127.0.0.1:80", "127.0.0.1:81"),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert!(listen.covers(good.parse().unwrap()), "{text} {good}");
            assert!(!listen.covers(bad.parse().unwrap()), "{text} {bad}");
        }
        for bad in [
            "",
            "*:80",
            "localhost:80",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:9-8",
            "127.0.0.1:1-2-3",
            "::1:80",
            "[::1:80",
        ] {
            assert_eq!(bad.parse::<Listen>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn what_is_not_named_is_refused_with_the_line_that_would_allow_it() {
        let policy = PolicyFile::fixed(Policy {
            forwards: vec!["127.0.0.1:8000-8999".to_owned()],
            ..Policy::default()
        });
        let check =
            |policy: &PolicyFile, address: &str| policy.check_listen(address.parse().unwrap());
        assert_eq!(check(&policy, "127.0.0.1:8080"), Ok(()));
        let refused = check(&policy, "0.0.0.0:8080").unwrap_err();
        assert_eq!(refused.field, "listen");
        let line = r#"`listen = ["127.0.0.1:8000-8999", "0.0.0.0:8080"]` under `[forwards]`"#;
        assert!(refused.remedy.contains(line), "{refused:?}");
        check(&PolicyFile::default(), "127.0.0.1:8080").unwrap_err();
    }
}
