//! Addresses of VMs' network cards, which the agent chooses.

use batwa_api::vm::{MacAddress, NetworkCard};

/// An address that no hardware has, and that other VMs have by chance alone: three random bytes.
pub(crate) fn new_address() -> MacAddress {
    MacAddress::local(rand::random())
}

/// Gives every card an address that has none, another one than those that are `taken`.
pub(crate) fn give_addresses(cards: &mut [NetworkCard], taken: &[MacAddress]) {
    let mut taken = taken.to_vec();
    taken.extend(cards.iter().filter_map(|card| card.mac));
    for card in cards.iter_mut().filter(|card| card.mac.is_none()) {
        let mac = std::iter::repeat_with(new_address)
            .find(|mac| !taken.contains(mac))
            .unwrap_or_else(new_address);
        taken.push(mac);
        card.mac = Some(mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_keep_the_addresses_they_have_and_get_those_they_lack() {
        let mut cards: Vec<NetworkCard> = ["br0,mac=52:54:00:00:00:01", "br0", "br1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        give_addresses(&mut cards, &[]);
        let macs: Vec<String> = cards
            .iter()
            .map(|card| card.mac.unwrap().to_string())
            .collect();
        assert_eq!(macs[0], "52:54:00:00:00:01");
        assert!(
            macs.iter().all(|mac| mac.starts_with("52:54:00:")),
            "{macs:?}"
        );
        let again = cards.clone();
        give_addresses(&mut cards, &[]);
        assert_eq!(cards, again);
    }
}
