//! Networks: those of a machine that its VMs can be put on, and the network cards that put them there.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{agent::DriverKind, problem::FieldError};

/// Most network cards that a VM has beside its first one.
pub const MAX_NETWORKS: usize = 8;

/// A network of a machine that VMs could be put on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostNetwork {
    /// Its name on the machine: `br0`, `eth0`.
    pub name: String,
    /// What it is, in the words of who runs it: `bridge`, `ethernet`, `wifi`.
    #[serde(rename = "type")]
    pub kind: String,
    /// More about it, for people.
    #[serde(default)]
    pub description: String,
    /// Which driver's VMs could be put on it.
    pub driver: DriverKind,
    /// Why none can be now; `null` where they can.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// A network card that a new VM is to have beside its first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkCard {
    /// The machine's network that it is on.
    pub name: String,
    /// How the VM's system is to be told of it.
    #[serde(default)]
    pub mode: NetworkMode,
    /// Its hardware address; the agent chooses one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

/// A network card that a VM has beside its first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmNetwork {
    /// What it was asked to be, with the address that it has.
    #[serde(flatten)]
    pub card: NetworkCard,
    /// Why it is connected to nothing, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a VM's system is told of a network card, in Multipass' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// It asks there for an address (DHCP), where its image is made by cloud-init.
    #[default]
    Auto,
    /// It is told nothing: whoever has the VM sets the card up.
    Manual,
}

impl NetworkMode {
    /// The mode in Multipass' words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// The hardware address of one network card, written `52:54:00:a1:b2:c3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, example = "52:54:00:a1:b2:c3")]
pub struct MacAddress([u8; 6]);

/// What addresses network cards can have.
pub const MAC_IS: &str =
    "write the address of one card, such as `52:54:00:a1:b2:c3`: its first byte is even";

impl MacAddress {
    /// An address of those that nobody's hardware has: QEMU's own beginning, which Multipass uses too, and these bytes.
    #[must_use]
    pub const fn local([a, b, c]: [u8; 3]) -> Self {
        Self([0x52, 0x54, 0x00, a, b, c])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or(MAC_IS)?;
        }
        // An odd first byte is the address of many.
        let of_one = bytes[0] & 1 == 0 && bytes != [0; 6];
        if parts.next().is_some() || !of_one {
            return Err(MAC_IS);
        }
        Ok(Self(bytes))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for NetworkCard {
    type Err = String;

    /// As Multipass has it: `NAME`, or `name=NAME,mode=manual,mac=52:54:00:a1:b2:c3`, where `name=` may be left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut card = Self {
            name: String::new(),
            mode: NetworkMode::Auto,
            mac: None,
        };
        for (at, field) in text.split(',').enumerate() {
            match field.split_once('=') {
                Some(("name", name)) => card.name = name.to_owned(),
                Some(("mode", "auto")) => card.mode = NetworkMode::Auto,
                Some(("mode", "manual")) => card.mode = NetworkMode::Manual,
                Some(("mode", mode)) => {
                    return Err(format!("the mode is `auto` or `manual`, not `{mode}`"));
                }
                Some(("mac", mac)) => card.mac = Some(mac.parse::<MacAddress>()?),
                None if at == 0 => card.name = field.to_owned(),
                _ => {
                    return Err(format!(
                        "write `NAME` or `name=NAME,mode=manual,mac=52:54:00:a1:b2:c3`: `{field}` is none of it"
                    ));
                }
            }
        }
        match name_is_good(&card.name) {
            true => Ok(card),
            false => Err(NAME_IS.to_owned()),
        }
    }
}

const NAME_IS: &str = "name a network of the machine: `batwa networks` lists them";

/// Whether a network can be called so: plain enough to be one value among those of Multipass' and QEMU's options.
fn name_is_good(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('-')
        && name.trim() == name
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, ',' | '=' | '/'))
}

/// What is wrong with the network cards of a new VM. Whether there are such networks, and whether they may be used, is the
/// machine's to say.
pub(super) fn check(cards: &[NetworkCard]) -> Option<FieldError> {
    let mut macs: Vec<_> = cards.iter().filter_map(|card| card.mac).collect();
    macs.sort_unstable();
    let message = if cards.len() > MAX_NETWORKS {
        format!("at most {MAX_NETWORKS} network cards beside the first")
    } else if cards.iter().any(|card| !name_is_good(&card.name)) {
        NAME_IS.to_owned()
    } else if macs.windows(2).any(|pair| pair[0] == pair[1]) {
        "two network cards cannot have one address".to_owned()
    } else {
        return None;
    };
    Some(FieldError::new("networks", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str) -> Result<NetworkCard, String> {
        text.parse()
    }

    #[test]
    fn cards_are_written_as_in_multipass() {
        let full = card("name=br0,mode=manual,mac=52:54:00:A1:b2:c3").unwrap();
        assert_eq!(
            (full.name.as_str(), full.mode),
            ("br0", NetworkMode::Manual)
        );
        assert_eq!(full.mac.unwrap().to_string(), "52:54:00:a1:b2:c3");
        assert_eq!(card("br0,mode=manual,mac=52:54:00:a1:b2:c3").unwrap(), full);
        let plain = card("Default Switch").unwrap();
        assert_eq!(
            (plain.name.as_str(), plain.mode, plain.mac),
            ("Default Switch", NetworkMode::Auto, None)
        );
        for bad in [
            "",
            "-br0",
            "mode=auto",
            "br0,br1",
            "br0,mode=bad",
            "br0,mac=zz",
            "br0,speed=1",
            "br/0",
        ] {
            assert!(card(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_of_one_card() {
        for bad in [
            "",
            "52:54:00:a1:b2",
            "52:54:00:a1:b2:c3:d4",
            "52-54-00-a1-b2-c3",
            "53:54:00:a1:b2:c3",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "5:54:00:a1:b2:c3",
            "+2:54:00:a1:b2:c3",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
        let json = serde_json::to_string(&MacAddress::local([1, 2, 3])).unwrap();
        assert_eq!(json, r#""52:54:00:01:02:03""#);
        assert_eq!(
            serde_json::from_str::<MacAddress>(&json).unwrap(),
            MacAddress::local([1, 2, 3])
        );
    }

    #[test]
    fn cards_are_few_and_apart() {
        let says = |cards: &[&str]| {
            let cards: Vec<_> = cards.iter().map(|text| card(text).unwrap()).collect();
            check(&cards).map(|error| error.message)
        };
        assert_eq!(says(&["br0", "br0", "br1"]), None);
        let same = "br0,mac=52:54:00:a1:b2:c3";
        assert!(says(&[same, same]).unwrap().contains("one address"));
        assert!(
            says(&["br0"; MAX_NETWORKS + 1])
                .unwrap()
                .contains("at most 8")
        );
        let mut bad = card("br0").unwrap();
        bad.name = "br0,mode=manual".to_owned();
        assert!(check(&[bad]).is_some());
    }
}
