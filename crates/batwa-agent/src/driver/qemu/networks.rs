//! Network cards of a VM beside its first one: taps on bridges of this machine.
//!
//! `-netdev bridge` would have QEMU itself start `qemu-bridge-helper`, which its sandbox keeps it from (`spawn=deny`,
//! `elevateprivileges=deny`), and is to keep it from. So the agent starts that helper, takes the open tap from it over a
//! socket, and hands it to QEMU, which needs no rights on any network then. Nor does the agent: the helper has them, and
//! goes by a list of its own of the bridges that it may open (`/etc/qemu/bridge.conf`). A tap is gone with the process that
//! holds it, so nothing is left of it whatever ends.

use std::{
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_api::{
    agent::DriverKind,
    vm::{HostNetwork, MacAddress, NetworkCard, NetworkMode, VmNetwork},
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::{
    machine::{From, Nic},
    vms::{Vm, Vms},
};
use crate::{
    driver::{
        DriverError,
        command::{Command, CommandError, last_lines},
    },
    networks::new_address,
};

/// Where distributions put the helper; it is on nobody's `PATH`.
const HELPERS: [&str; 4] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
    "/usr/lib64/qemu/qemu-bridge-helper",
    "/usr/local/libexec/qemu-bridge-helper",
];
/// The networks of this machine, a folder each.
const SYSTEM: &str = "/sys/class/net";
/// Longest name that Linux gives a network.
const MAX_NAME: usize = 15;
/// How long the helper may take; it makes a few calls to the system.
const HELP: Duration = Duration::from_secs(10);
/// The descriptor by which the helper finds its end of the socket.
const HELPERS_END: i32 = 3;
/// Most ports of a bridge that are named to people.
const TOLD_PORTS: usize = 8;

/// A network card as it is written down of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptCard {
    /// The bridge that it is on.
    pub(super) bridge: String,
    /// How the VM's system is told of it.
    pub(super) mode: NetworkMode,
    /// Its address, for the VM's whole life.
    pub(super) mac: MacAddress,
    /// Why it was connected to nothing when the VM was last powered on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

impl KeptCard {
    /// A card as it was asked for.
    pub(super) fn new(card: &NetworkCard) -> Self {
        Self {
            bridge: card.name.clone(),
            mode: card.mode,
            mac: card.mac.unwrap_or_else(new_address),
            problem: None,
        }
    }

    /// The same for another VM, with an address of its own.
    pub(super) fn of_clone(&self) -> Self {
        Self {
            mac: new_address(),
            problem: None,
            ..self.clone()
        }
    }

    /// The card as people are told of it.
    pub(super) fn told(&self) -> VmNetwork {
        VmNetwork {
            card: NetworkCard {
                name: self.bridge.clone(),
                mode: self.mode,
                mac: Some(self.mac),
            },
            message: self.problem.clone(),
        }
    }
}

impl Vms {
    /// Refuses network cards that could not be connected, by trying it.
    pub(super) async fn check_cards(&self, cards: &[NetworkCard]) -> Result<(), DriverError> {
        for card in cards {
            self.tap(&card.name).await?;
        }
        Ok(())
    }

    /// The network cards of a VM that is powered on, and the taps that connect them, in their order. One that cannot be
    /// connected is there all the same, so that the VM's others keep their places and names: why is written down, and shown.
    ///
    /// # Errors
    /// Memory goes on with the cards that it knows, connected as they were: where one cannot be.
    pub(super) async fn nics(
        &self,
        vm: &Vm,
        from: From,
    ) -> Result<(Vec<Nic>, Vec<OwnedFd>), DriverError> {
        let mut cards = vm.record().networks;
        if cards.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (mut nics, mut taps) = (Vec::new(), Vec::new());
        for card in &mut cards {
            let was_connected = card.problem.is_none();
            let tap = match from {
                From::Memory if !was_connected => None,
                From::Memory => Some(self.tap(&card.bridge).await?),
                From::Boot => match self.tap(&card.bridge).await {
                    Ok(tap) => {
                        card.problem = None;
                        Some(tap)
                    }
                    Err(error) => {
                        card.problem = Some(error.to_string());
                        None
                    }
                },
            };
            nics.push(Nic {
                mac: card.mac,
                tap: tap.is_some(),
            });
            taps.extend(tap);
        }
        vm.update(|record| record.networks = cards)?;
        Ok((nics, taps))
    }

    /// A tap on a bridge, as far as the policy of this machine allows it.
    async fn tap(&self, bridge: &str) -> Result<OwnedFd, DriverError> {
        self.policy().check_network(bridge)?;
        if !is_bridge(Path::new(SYSTEM), bridge) {
            return Err(DriverError::Invalid {
                field: "networks",
                message: format!("this machine has no bridge `{bridge}`"),
            });
        }
        let helper = helper().ok_or_else(|| DriverError::Missing(NO_HELPER.to_owned()))?;
        open_tap(&helper, bridge).await
    }
}

const NO_HELPER: &str = "`qemu-bridge-helper` is not installed: it comes with QEMU (Debian, Ubuntu: `apt-get install qemu-system-common`)";

fn helper() -> Option<PathBuf> {
    HELPERS
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// Has the helper open a tap on a bridge, and takes it over.
async fn open_tap(helper: &Path, bridge: &str) -> Result<OwnedFd, DriverError> {
    let cannot = |why: String| DriverError::Failed {
        detail: format!("cannot open bridge `{bridge}` for a VM: {why}"),
        hint: None,
        log: Vec::new(),
    };
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| cannot(error.to_string()))?;
    Command::new(helper)
        .arg("--use-vnet")
        .arg(format!("--br={bridge}"))
        .arg(format!("--fd={HELPERS_END}"))
        .inherit(theirs, HELPERS_END)
        .deadline(HELP)
        .run()
        .await
        .map_err(|error| refused(bridge, &error))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut handed_over = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    // It has ended: what it sent is there.
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(
        &ours,
        &mut [IoSliceMut::new(&mut byte)],
        &mut handed_over,
        flags,
    )
    .map_err(|error| cannot(error.to_string()))?;
    handed_over
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut taps) => taps.next(),
            _ => None,
        })
        .ok_or_else(|| cannot("its helper handed nothing over".to_owned()))
}

/// Why the helper opened no tap, and what the machine's owner can do about it.
fn refused(bridge: &str, error: &CommandError) -> DriverError {
    let log = error.log(10);
    let said = log.join("\n");
    let hint = if said.contains("acl") {
        Some(format!(
            "QEMU's helper goes by a list of its own: the machine's owner can put the line `allow {bridge}` into /etc/qemu/bridge.conf"
        ))
    } else if said.contains("not permitted") {
        Some("the helper needs rights that it was not given: `setcap cap_net_admin+ep` on it, or run the agent as root".to_owned())
    } else {
        None
    };
    let why = last_lines(&said, 1)
        .pop()
        .unwrap_or_else(|| error.to_string());
    DriverError::Failed {
        detail: format!("cannot open bridge `{bridge}` for a VM: {why}"),
        hint,
        log,
    }
}

/// The bridges of this machine.
pub(super) fn list() -> Result<Vec<HostNetwork>, DriverError> {
    let folder = Path::new(SYSTEM);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(super::files::io_error("read", folder, &error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut bridges: Vec<_> = names
        .filter(|name| is_bridge(folder, name))
        .map(|name| HostNetwork {
            kind: "bridge".to_owned(),
            description: describe(folder, &name),
            driver: DriverKind::Qemu,
            refusal: helper().is_none().then(|| NO_HELPER.to_owned()),
            name,
        })
        .collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn is_bridge(folder: &Path, name: &str) -> bool {
    let plain = !name.is_empty() && name.len() <= MAX_NAME && !name.contains('/') && name != "..";
    plain && folder.join(name).join("bridge").is_dir()
}

/// What the system says of a bridge: whether it is up, and what is on it.
fn describe(folder: &Path, name: &str) -> String {
    let bridge = folder.join(name);
    let state = fs::read_to_string(bridge.join("operstate")).unwrap_or_default();
    let ports = fs::read_dir(bridge.join("brif")).into_iter().flatten();
    let mut ports: Vec<String> = ports
        .filter_map(|port| port.ok()?.file_name().into_string().ok())
        .collect();
    ports.sort();
    let more = ports.len().saturating_sub(TOLD_PORTS);
    ports.truncate(TOLD_PORTS);
    let with = match (ports.join(", "), more) {
        (ports, _) if ports.is_empty() => "nothing on it".to_owned(),
        (ports, 0) => format!("with {ports}"),
        (ports, more) => format!("with {ports} and {more} more"),
    };
    match state.trim() {
        "" | "unknown" => format!("Network bridge, {with}"),
        state => format!("Network bridge, {state}, {with}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_told_with_what_is_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let system = dir.path();
        for folder in [
            "br0/bridge",
            "br0/brif/eth0",
            "br0/brif/tap1",
            "br1/bridge",
            "eth0",
        ] {
            fs::create_dir_all(system.join(folder)).unwrap();
        }
        fs::write(system.join("br0/operstate"), "up\n").unwrap();
        assert_eq!(
            describe(system, "br0"),
            "Network bridge, up, with eth0, tap1"
        );
        assert_eq!(describe(system, "br1"), "Network bridge, nothing on it");
        assert!(is_bridge(system, "br0"));
        for other in [
            "eth0",
            "br2",
            "",
            "..",
            "br0/..",
            "../br0",
            "a-name-that-is-too-long",
        ] {
            assert!(!is_bridge(system, other), "{other}");
        }
    }

    #[test]
    fn what_the_helper_says_comes_with_what_helps() {
        use std::{os::unix::process::ExitStatusExt, process::ExitStatus};
        let hint = |stderr: &str| {
            let error = CommandError::Failed {
                program: "qemu-bridge-helper".to_owned(),
                status: ExitStatus::from_raw(256),
                stderr: stderr.to_owned(),
            };
            match refused("br0", &error) {
                DriverError::Failed { detail, hint, .. } => (detail, hint),
                other => panic!("{other}"),
            }
        };
        let (detail, said) = hint("failed to parse default acl file `/etc/qemu/bridge.conf'\n");
        assert!(
            detail.contains("bridge `br0`") && detail.contains("acl file"),
            "{detail}"
        );
        assert!(said.unwrap().contains("`allow br0`"));
        assert!(
            hint("access denied by acl file\n")
                .1
                .unwrap()
                .contains("bridge.conf")
        );
        let (_, said) = hint("failed to create tun device: Operation not permitted\n");
        assert!(said.unwrap().contains("cap_net_admin"));
        assert_eq!(hint("failed to get mtu of bridge `br0'\n").1, None);
    }

    #[tokio::test]
    async fn a_helper_that_ends_badly_or_hands_nothing_over_opens_nothing() {
        for program in ["/bin/false", "/bin/true"] {
            let error = open_tap(Path::new(program), "br0").await.unwrap_err();
            assert!(error.to_string().contains("bridge `br0`"), "{error}");
        }
    }
}
