//! Opens the drivers that an agent was told to use.

use std::sync::Arc;

use batwa_api::agent::DriverKind;

use super::{
    Driver, DriverError,
    fake::FakeDriver,
    multipass::{self, Multipass},
    qemu::{QemuDriver, QemuOptions},
};
use crate::{
    config::{AgentConfig, DriverChoice},
    policy::PolicyFile,
};

/// The drivers of `config`, the one for new VMs first.
///
/// # Errors
/// The first driver that cannot use the state folder, with its kind. A driver whose program is missing is no
/// error: it says so when it is asked, and works as soon as the program is there.
pub(crate) fn open(
    config: &AgentConfig,
    policy: &PolicyFile,
) -> Result<Vec<Arc<dyn Driver>>, (DriverKind, DriverError)> {
    let kinds = match &config.drivers {
        // Where Multipass is not installed, nobody misses it; where it is and does not run, its health says so.
        DriverChoice::Auto if config.multipass.program.is_file() => {
            vec![DriverKind::Multipass, DriverKind::Qemu]
        }
        DriverChoice::Auto => vec![DriverKind::Qemu],
        DriverChoice::List(kinds) => kinds.clone(),
    };
    kinds
        .into_iter()
        .map(|kind| open_one(kind, config, policy).map_err(|error| (kind, error)))
        .collect()
}

fn open_one(
    kind: DriverKind,
    config: &AgentConfig,
    policy: &PolicyFile,
) -> Result<Arc<dyn Driver>, DriverError> {
    Ok(match kind {
        DriverKind::Multipass => Arc::new(Multipass::new(multipass::Settings {
            policy: policy.clone(),
            ..config.multipass.clone()
        })),
        DriverKind::Qemu => Arc::new(QemuDriver::open_with(
            &config.state_dir,
            QemuOptions {
                policy: policy.clone(),
                ..config.qemu.clone()
            },
        )?),
        DriverKind::Fake => Arc::new(FakeDriver::open(&config.state_dir, config.fake.clone())?),
    })
}
