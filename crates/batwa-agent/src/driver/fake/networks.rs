//! Networks that fake VMs pretend to be on.

use batwa_api::{
    agent::DriverKind,
    vm::{HostNetwork, NetworkCard, VmNetwork, VmSpec},
};

use crate::{driver::DriverError, networks::new_address};

/// The networks of every fake machine.
const NETWORKS: [(&str, &str, &str); 2] = [
    ("lab0", "bridge", "Pretended bridge"),
    ("wan0", "ethernet", "Pretended card of the machine"),
];

pub(super) fn list() -> Vec<HostNetwork> {
    NETWORKS
        .into_iter()
        .map(|(name, kind, description)| HostNetwork {
            name: name.to_owned(),
            kind: kind.to_owned(),
            description: description.to_owned(),
            driver: DriverKind::Fake,
            refusal: None,
        })
        .collect()
}

/// Refuses a network that no fake machine has.
pub(super) fn check(spec: &VmSpec) -> Result<(), DriverError> {
    let known = |card: &&NetworkCard| NETWORKS.iter().all(|(name, ..)| *name != card.name);
    match spec.networks.iter().find(known) {
        Some(card) => Err(DriverError::Invalid {
            field: "networks",
            message: format!("this machine has no network `{}`", card.name),
        }),
        None => Ok(()),
    }
}

/// The cards of a new VM.
pub(super) fn cards(spec: &VmSpec) -> Vec<VmNetwork> {
    spec.networks.iter().map(connected).collect()
}

/// The same cards for another VM, with addresses of their own.
pub(super) fn of_clone(networks: &[VmNetwork]) -> Vec<VmNetwork> {
    let anew = |network: &VmNetwork| {
        let mac = None;
        connected(&NetworkCard {
            mac,
            ..network.card.clone()
        })
    };
    networks.iter().map(anew).collect()
}

fn connected(card: &NetworkCard) -> VmNetwork {
    VmNetwork {
        card: NetworkCard {
            mac: Some(card.mac.unwrap_or_else(new_address)),
            ..card.clone()
        },
        message: None,
    }
}
