//! What an agent is told when it starts, checked once.

use std::{
    collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use batwa_api::{
    agent::{DriverKind, HostFacts},
    certificate::CertificateHash,
    id::AgentId,
    operation::OperationKind,
};
use batwa_tls::CertificateSource;
use secrecy::SecretString;

use crate::{
    driver::{fake::FakeSettings, multipass, qemu::QemuOptions},
    recording::RecordingLimits,
    tunnel::TunnelConfig,
    upkeep::Clock,
};

/// The settings of one agent. The binary fills it from flags, environment and file.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The id it goes by.
    pub agent_id: AgentId,
    /// The folder of its own that it keeps everything in: made with access for its user only.
    pub state_dir: PathBuf,
    /// Which drivers run VMs.
    pub drivers: DriverChoice,
    /// What the fake driver pretends, when it is chosen.
    pub fake: FakeSettings,
    /// How Multipass is found and how much is asked of it.
    pub multipass: multipass::Settings,
    /// Which images QEMU VMs may be made from, and how they run.
    pub qemu: QemuOptions,
    /// The file with what the machine's owner lets any master ask; `policy.toml` in the state folder when absent.
    pub policy_file: Option<PathBuf>,
    /// Folders whose files may be used as images, beside those that the policy names.
    pub image_dirs: Vec<PathBuf>,
    /// Labels that it carries.
    pub labels: BTreeMap<String, String>,
    /// The key that callers of its port must present, and that it presents to the master.
    pub key: Option<SecretString>,
    /// Where to listen; `None` serves only the links that the binary makes.
    pub listen: Option<SocketAddr>,
    /// The certificate that its port shows; plain HTTP when absent.
    pub tls: Option<CertificateSource>,
    /// Whether a port that others can reach may be opened without a key.
    pub anonymous_access: Allow,
    /// Whether `POST /api/execute` runs every Multipass command, not only the read-only ones.
    pub execute: Allow,
    /// The master to register with in the old way.
    pub master_url: Option<String>,
    /// The master's certificate, where the system's roots do not vouch for it.
    pub master_certificate: Option<CertificateHash>,
    /// Where the master reaches this agent; found out from the route to the master when absent.
    pub advertise_url: Option<String>,
    /// What it says of its machine, for agents that only pretend to have one of their own; measured when absent.
    pub host: Option<HostFacts>,
    /// How it dials in to the master that it joined with a token; `None` for an agent that waits to be called.
    pub tunnel: Option<TunnelConfig>,
    /// Time between heartbeats to the master.
    pub heartbeat_interval: Duration,
    /// How long VMs stay in the trash before they are removed for good; until somebody does that when absent.
    pub trash_kept: Option<Duration>,
    /// What time it is, for what is done about VMs by itself.
    pub clock: Clock,
    /// Bounds on what it does at once.
    pub limits: Limits,
    /// How much of recordings of terminals it keeps.
    pub recordings: RecordingLimits,
}

impl AgentConfig {
    /// An agent with the guide's defaults that serves no port.
    #[must_use]
    pub fn new(agent_id: AgentId, state_dir: PathBuf) -> Self {
        Self {
            agent_id,
            state_dir,
            drivers: DriverChoice::Auto,
            fake: FakeSettings::default(),
            multipass: multipass::Settings::default(),
            qemu: QemuOptions::default(),
            policy_file: None,
            image_dirs: Vec::new(),
            labels: BTreeMap::new(),
            key: None,
            listen: None,
            tls: None,
            anonymous_access: Allow::No,
            execute: Allow::No,
            master_url: None,
            master_certificate: None,
            advertise_url: None,
            host: None,
            tunnel: None,
            heartbeat_interval: Duration::from_secs(30),
            trash_kept: None,
            clock: Clock::of_the_machine(),
            limits: Limits::default(),
            recordings: RecordingLimits::default(),
        }
    }
}

/// Something dangerous that a setting can permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allow {
    /// As it is by default.
    #[default]
    No,
    /// Somebody said so.
    Yes,
}

/// Which drivers an agent uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// Multipass where its daemon answers, else QEMU.
    #[default]
    Auto,
    /// These; the first one runs new VMs.
    List(Vec<DriverKind>),
}

/// Why a text names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no driver: write `auto`, or one or more of `multipass`, `qemu` and `fake` with commas between"
)]
pub struct DriverChoiceError(String);

impl FromStr for DriverChoice {
    type Err = DriverChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        let mut kinds = Vec::new();
        for word in text.split(',').map(str::trim) {
            let kind = match word {
                "multipass" => DriverKind::Multipass,
                "qemu" => DriverKind::Qemu,
                "fake" => DriverKind::Fake,
                other => return Err(DriverChoiceError(other.to_owned())),
            };
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(Self::List(kinds))
    }
}

/// Bounds on what an agent does at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// VMs that one driver makes at the same time; more would only make each slower.
    pub creates_per_driver: usize,
    /// Other operations that one driver runs at the same time.
    pub operations_per_driver: usize,
    /// Commands that wait for one VM.
    pub queue_per_vm: usize,
    /// Terminal sessions open at the same time.
    pub terminals: usize,
    /// Commands, file transfers and forwarded connections into VMs open at the same time.
    pub inside: usize,
    /// How long a terminal session lives on once nobody watches.
    pub terminal_ttl: Duration,
    /// Bytes of output that a terminal session holds for those who come back; within [`Self::TERMINAL_RING`].
    pub terminal_ring: usize,
    /// How long operations may take.
    pub deadlines: Deadlines,
    /// Time between two looks at a driver that reports no changes by itself.
    pub observe_interval: Duration,
    /// How long a driver may take to list its VMs before it counts as stuck.
    pub observe_deadline: Duration,
}

impl Limits {
    /// What [`Self::terminal_ring`] may be: several frames at least, so that a viewer that keeps up loses nothing.
    pub const TERMINAL_RING: RangeInclusive<usize> = (64 << 10)..=(64 << 20);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            creates_per_driver: 2,
            operations_per_driver: 8,
            queue_per_vm: 8,
            terminals: 256,
            inside: 256,
            terminal_ttl: Duration::from_secs(30 * 60),
            terminal_ring: 1 << 20,
            deadlines: Deadlines::default(),
            observe_interval: Duration::from_secs(2),
            // Multipass' daemon stalls for 14 s with three launches under way.
            observe_deadline: Duration::from_secs(25),
        }
    }
}

/// How long an operation of each kind may take before the driver's view decides what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines([Duration; OperationKind::ALL.len()]);

impl Deadlines {
    /// Above the drivers' own deadlines, which know better what they wait for.
    const USUAL: Duration = Duration::from_secs(20 * 60);
    /// The same where an image is fetched, or a whole disk copied.
    const LONG: Duration = Duration::from_secs(75 * 60);

    /// How long an operation of this kind may take.
    #[must_use]
    pub fn of(&self, kind: OperationKind) -> Duration {
        let kinds = OperationKind::ALL.iter().zip(self.0);
        kinds
            .into_iter()
            .find(|(known, _)| **known == kind)
            .map_or(Self::USUAL, |(_, deadline)| deadline)
    }

    /// Sets how long an operation of this kind may take.
    pub fn set(&mut self, kind: OperationKind, deadline: Duration) {
        for (known, own) in OperationKind::ALL.iter().zip(&mut self.0) {
            if *known == kind {
                *own = deadline;
            }
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self(OperationKind::ALL.map(|kind| match kind {
            OperationKind::Create | OperationKind::PullImage | OperationKind::Clone => Self::LONG,
            _ => Self::USUAL,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_deadline_of_its_own() {
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.of(OperationKind::Create), Deadlines::LONG);
        deadlines.set(OperationKind::Stop, Duration::from_secs(5));
        for kind in OperationKind::ALL {
            let expected = match kind {
                OperationKind::Stop => Duration::from_secs(5),
                kind => Deadlines::default().of(kind),
            };
            assert_eq!(deadlines.of(kind), expected, "{kind}");
        }
    }

    #[test]
    fn drivers_are_chosen_by_name() {
        assert_eq!("auto".parse(), Ok(DriverChoice::Auto));
        assert_eq!(
            "qemu, fake,qemu".parse(),
            Ok(DriverChoice::List(vec![DriverKind::Qemu, DriverKind::Fake]))
        );
        assert!("".parse::<DriverChoice>().is_err());
        assert!("docker".parse::<DriverChoice>().is_err());
    }
}
