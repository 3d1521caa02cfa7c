//! Facts of this machine: what it is, what it has, what is free.

use std::path::Path;

use batwa_api::{agent::HostFacts, size::ByteSize, tunnel::Sha256Hash};
use batwa_tunnel::keys;
use sysinfo::{MemoryRefreshKind, System};
use tracing::debug;

/// Measures the machine; the disk is the one that holds `state_dir`. Takes some milliseconds and blocks.
#[must_use]
pub fn measure(state_dir: &Path) -> HostFacts {
    let mut facts = HostFacts {
        hostname: hostname(),
        os: System::long_os_version()
            .or_else(|_| System::name())
            .unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        arch: std::env::consts::ARCH.to_owned(),
        cpus: cpus(),
        ..HostFacts::default()
    };
    match System::new() {
        Ok(mut system) => {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            facts.memory = ByteSize::bytes(system.total_memory());
            facts.memory_available = Some(ByteSize::bytes(system.available_memory()));
        }
        Err(error) => debug!(%error, "cannot measure the memory"),
    }
    if let Ok(load) = System::load_average() {
        facts.load = Some([load.one, load.five, load.fifteen]);
    }
    if let Some((total, free)) = disk(state_dir) {
        facts.disk_total = Some(ByteSize::bytes(total));
        facts.disk_free = Some(ByteSize::bytes(free));
    }
    facts
}

/// The machine's own name.
#[must_use]
pub fn hostname() -> String {
    System::host_name()
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// A hash that differs between machines; `None` where the system has no id of its own.
#[must_use]
pub fn machine_hash() -> Option<Sha256Hash> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    // The id itself is not for others: so systemd's manual asks.
    (!id.is_empty()).then(|| keys::sha256(format!("batwa machine {id}").as_bytes()))
}

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Size of and free space on the file system under `path`.
#[cfg(unix)]
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// What tells this boot of the machine from every other; `None` where it does not say.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_memory_and_a_disk() {
        let facts = measure(Path::new("/"));
        assert_ne!(facts.hostname, "");
        assert_ne!(facts.os, "");
        assert!(facts.cpus >= 1);
        assert!(facts.memory > ByteSize::mib(64), "{facts:?}");
        assert!(facts.memory_available.unwrap() <= facts.memory);
        assert!(facts.disk_total.unwrap() >= facts.disk_free.unwrap());
    }
}
