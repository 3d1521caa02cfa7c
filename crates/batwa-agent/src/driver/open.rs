//! Opens the drivers that an agent was told to use.

use std::sync::Arc;

use batwa_api::agent::DriverKind;

use super::{Driver, DriverError, fake::FakeDriver, multipass::Multipass, qemu::QemuDriver};
use crate::config::{AgentConfig, DriverChoice};

/// The drivers of `config`, the one for new VMs first.
///
/// # Errors
/// The first driver that cannot use the state folder, with its kind. A driver whose program is missing is no
/// error: it says so when it is asked, and works as soon as the program is there.
pub(crate) fn open(
    config: &AgentConfig,
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
        .map(|kind| open_one(kind, config).map_err(|error| (kind, error)))
        .collect()
}

fn open_one(kind: DriverKind, config: &AgentConfig) -> Result<Arc<dyn Driver>, DriverError> {
    Ok(match kind {
        DriverKind::Multipass => Arc::new(Multipass::new(config.multipass.clone())),
        DriverKind::Qemu => Arc::new(QemuDriver::open_with(
            &config.state_dir,
            config.qemu.clone(),
        )?),
        DriverKind::Fake => Arc::new(FakeDriver::open(&config.state_dir, config.fake.clone())?),
    })
}
