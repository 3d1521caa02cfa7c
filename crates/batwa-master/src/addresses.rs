//! This machine's addresses, as others in its networks see them.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// Beginnings of the names that bridges for containers and VMs have: what is behind them is on this machine.
const BRIDGES: [&str; 7] = [
    "docker", "br-", "veth", "virbr", "vnet", "lxdbr", "mpqemubr",
];

/// All of them but loopback and link-local ones: that of the default route first, those of bridges for containers and
/// VMs last.
pub(crate) fn own() -> Vec<IpAddr> {
    let found = match getifaddrs() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!("cannot look at this machine's networks: {error}");
            return Vec::new();
        }
    };
    let found: Vec<_> = found
        .filter_map(|one| Some((one.interface_name, ip(&one.address?)?)))
        .collect();
    let addresses = found.iter().map(|(name, ip)| (name.as_str(), *ip));
    order(addresses, of_the_default_route())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

fn order<'a>(
    addresses: impl Iterator<Item = (&'a str, IpAddr)>,
    first: Option<IpAddr>,
) -> Vec<IpAddr> {
    let mut known: Vec<_> = addresses
        .filter(|(_, ip)| is_reachable(ip))
        .map(|(name, ip)| {
            let on_bridge = BRIDGES.iter().any(|bridge| name.starts_with(bridge));
            (Some(ip) != first, on_bridge, ip.is_ipv6(), ip)
        })
        .collect();
    known.sort_unstable();
    known.dedup();
    known.into_iter().map(|(.., ip)| ip).collect()
}

fn is_reachable(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || is_link_local)
}

/// The address towards the rest of the world. Connecting a UDP socket sends nothing; the destination is one reserved
/// for documentation.
fn of_the_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_comes_first_and_what_nobody_reaches_is_left_out() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = [
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("eth1", "10.0.0.5"),
            ("eth0", "fe80::1"),
            ("eth0", "fd00::7"),
            ("eth0", "192.168.1.10"),
            ("eth2", "169.254.3.4"),
        ];
        let ordered = order(
            addresses.iter().map(|(name, text)| (*name, ip(text))),
            Some(ip("192.168.1.10")),
        );
        assert_eq!(
            ordered,
            ["192.168.1.10", "10.0.0.5", "fd00::7", "172.17.0.1"].map(ip)
        );
    }

    #[test]
    fn this_machine_has_none_that_is_loopback() {
        assert!(own().iter().all(is_reachable));
    }
}
