//! What the doctor looks at on the machine itself: folder, disk, Multipass' socket, drivers, KVM.

use std::path::Path;

use batwa_api::{
    agent::{AgentInfo, DriverKind, DriverStatus, HealthStatus},
    size::ByteSize,
};

use super::{Check, Verdict, check};

/// Below this no usual image fits.
const LITTLE_DISK: ByteSize = ByteSize::gib(10);

/// Whether the folder, or the nearest that exists above it, can be written.
pub(super) fn state_folder(dir: Option<&Path>) -> Check {
    let name = "state folder";
    let Some(dir) = dir else {
        return check(
            name,
            Verdict::Bad,
            "there is no home folder: name one with `--state-dir`",
        );
    };
    let existing = existing(dir);
    let shown = dir.display();
    if !existing.is_dir() {
        let finding = format!(
            "{shown} cannot be written: {} is no folder",
            existing.display()
        );
        return check(name, Verdict::Bad, finding).repair("name another folder with `--state-dir`");
    }
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        Ok(()) if existing == dir => check(name, Verdict::Ok, shown.to_string()),
        Ok(()) => check(name, Verdict::Ok, format!("{shown}, to be made")),
        Err(error) => check(
            name,
            Verdict::Bad,
            format!("{shown} cannot be written: {}: {error}", existing.display()),
        )
        .repair("run as the user that it belongs to, or name another folder with `--state-dir`"),
    }
}

/// The folder, or the nearest that exists above it.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|path| path.exists()).unwrap_or(dir)
}

/// Whether there is room for images and VMs where the state is kept.
pub(super) fn disk(dir: Option<&Path>) -> Option<Check> {
    let facts = rustix::fs::statvfs(existing(dir?)).ok()?;
    let free = ByteSize::bytes(facts.f_bavail.saturating_mul(facts.f_frsize));
    let finding = format!("{free} free");
    Some(if free < LITTLE_DISK {
        check("disk", Verdict::Note, finding)
            .repair("images and VMs' disks need room: purge VMs that are not needed, or put `--state-dir` on a larger disk")
    } else {
        check("disk", Verdict::Ok, finding)
    })
}

/// Where Multipass' daemon listens, by its snap and by other packages.
const MULTIPASS_SOCKETS: [&str; 2] = [
    "/var/snap/multipass/common/multipass_socket",
    "/run/multipass_socket",
];

/// Whether the daemon's socket, where there is one, may be used by this user.
pub(super) fn multipass_socket() -> Option<Check> {
    let path = MULTIPASS_SOCKETS
        .iter()
        .map(Path::new)
        .find(|path| path.exists())?;
    let name = "multipass socket";
    Some(match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) => check(name, Verdict::Ok, path.display().to_string()),
        Err(error) => check(
            name,
            Verdict::Bad,
            format!("{} cannot be used by this user: {error}", path.display()),
        )
        .repair(format!(
            "add the user to the group that owns it (`sudo usermod -aG \"$(stat -c %G {})\" USER`, then sign in again), or run the agent as root",
            path.display()
        )),
    })
}

/// What is on it, and how its drivers stand.
pub(super) fn machine(info: &AgentInfo) -> Vec<Check> {
    let host = &info.host;
    let mut checks = vec![check(
        "machine",
        Verdict::Ok,
        format!(
            "{}, {} CPUs ({}), memory {}",
            host.os, host.cpus, host.arch, host.memory
        ),
    )];
    for driver in &info.drivers {
        let (verdict, mut finding) = match driver.health.status {
            HealthStatus::Ok => (Verdict::Ok, String::from("works")),
            HealthStatus::Slow => (Verdict::Note, String::from("answers slowly")),
            HealthStatus::Stuck => (Verdict::Bad, String::from("does not answer")),
            HealthStatus::Missing => (Verdict::Note, String::from("is not there")),
        };
        if let Some(version) = &driver.version {
            finding = format!("{version}, {finding}");
        }
        if let Some(message) = &driver.health.message {
            finding.push_str(": ");
            finding.push_str(message);
        }
        let found = check(driver.kind.as_str(), verdict, finding);
        checks.push(match driver_repair(driver) {
            Some(repair) if verdict != Verdict::Ok => found.repair(repair),
            _ => found,
        });
        if let Some(acceleration) = &driver.acceleration {
            let verdict = if acceleration.name == "tcg" {
                Verdict::Note
            } else {
                Verdict::Ok
            };
            let kvm = check(
                "acceleration",
                verdict,
                format!("{}: {}", acceleration.name, acceleration.reason),
            );
            checks.push(match kvm_repair() {
                Some(repair) if verdict == Verdict::Note => kvm.repair(repair),
                _ => kvm,
            });
        }
    }
    checks
}

/// What helps a driver that does not work.
fn driver_repair(driver: &DriverStatus) -> Option<&'static str> {
    match (driver.kind, driver.health.status) {
        (DriverKind::Multipass, HealthStatus::Stuck | HealthStatus::Slow) => Some(
            "if it goes on, restart its daemon: `sudo snap restart multipass`; that interrupts its VMs",
        ),
        (DriverKind::Multipass, HealthStatus::Missing) => Some(
            "only where Multipass is wanted: install it (`sudo snap install multipass`), or start its daemon (`sudo snap start multipass`)",
        ),
        (DriverKind::Qemu, HealthStatus::Missing) => {
            Some("only where QEMU is wanted: `sudo apt-get install qemu-system-x86 qemu-utils`")
        }
        _ => None,
    }
}

/// What brings KVM where VMs are emulated, as far as this machine lets us see.
fn kvm_repair() -> Option<&'static str> {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Some(
            "there is no /dev/kvm: switch virtualisation on in the firmware, or, in a VM, nested virtualisation on its host; then `modprobe kvm_intel` or `kvm_amd`",
        );
    }
    match rustix::fs::access(
        kvm,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    ) {
        Ok(()) => None,
        Err(_) => Some("`sudo usermod -aG kvm USER`, then sign in again, or run the agent as root"),
    }
}
