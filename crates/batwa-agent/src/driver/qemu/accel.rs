//! How VMs' CPUs run: KVM where it is proved to work, else emulation.
//!
//! `/dev/kvm` can open and still not run a kernel: nested and paravirtual hosts do that. So a boot sector that enters
//! long mode with paging, and works there a little, runs under both; KVM is used only when it came to the end, and
//! sooner. The answer is kept until the host boots again.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    time::{Duration, Instant},
};

use batwa_api::agent::Acceleration;
use serde::{Deserialize, Serialize};

use super::{files, machine::Accelerator};
use crate::driver::{
    DriverError,
    command::{Command, CommandError, last_lines},
};

/// The boot sector, assembled from `accel/probe.s`.
const PROBE: &[u8] = include_bytes!("accel/probe.bin");
/// What QEMU exits with when the probe came to its end: `(0x10 << 1) | 1`.
const CAME_THROUGH: i32 = 33;
/// A processor that needs longer for the probe is of no use.
const DEADLINE: Duration = Duration::from_secs(3);

/// What is known of this host since its boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Proof {
    /// The kernel's id of this boot.
    boot: String,
    /// What QEMU called itself then.
    qemu: String,
    name: String,
    reason: String,
}

/// What came of one run of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Run {
    /// It came to the end in this time.
    Through(Duration),
    /// It did not, and why.
    Failed(String),
}

/// Finds out which accelerator to use, or remembers it. `qemu` is the version line of the program.
pub(super) async fn choose(
    program: &str,
    qemu: &str,
    dir: &Path,
) -> Result<(Accelerator, Acceleration), DriverError> {
    let file = dir.join("acceleration.json");
    let boot = boot_id();
    let known = fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Proof>(&bytes).ok())
        .filter(|proof| !boot.is_empty() && proof.boot == boot && proof.qemu == qemu);
    let proof = match known {
        Some(proof) => proof,
        None => {
            let (accelerator, reason) = prove(program, dir).await?;
            let proof = Proof {
                boot,
                qemu: qemu.to_owned(),
                name: accelerator.as_str().to_owned(),
                reason,
            };
            let json = serde_json::to_vec_pretty(&proof).expect("a proof is plain data");
            files::write(&file, &json)?;
            proof
        }
    };
    let accelerator = if proof.name == Accelerator::Kvm.as_str() {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    Ok((
        accelerator,
        Acceleration {
            name: proof.name,
            reason: proof.reason,
        },
    ))
}

async fn prove(program: &str, dir: &Path) -> Result<(Accelerator, String), DriverError> {
    let kvm = match kvm_device() {
        Ok(()) => {
            let sector = dir.join("probe.bin");
            files::write(&sector, PROBE)?;
            let kvm = run(program, &sector, Accelerator::Kvm).await?;
            let tcg = run(program, &sector, Accelerator::Tcg).await?;
            files::remove(&sector)?;
            return Ok(decide(&kvm, &tcg));
        }
        Err(reason) => reason,
    };
    Ok((Accelerator::Tcg, kvm))
}

/// Whether KVM can be tried at all; if not, why, and what would help.
fn kvm_device() -> Result<(), String> {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(
            "emulated: this machine has no /dev/kvm (virtualisation is off in its firmware, or it is itself a VM without nested virtualisation)"
                .to_owned(),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(
            "emulated: the agent may not open /dev/kvm (add its user to the group `kvm`)".to_owned(),
        ),
        Err(error) => Err(format!("emulated: /dev/kvm cannot be opened: {error}")),
    }
}

async fn run(program: &str, sector: &Path, accelerator: Accelerator) -> Result<Run, DriverError> {
    let begin = Instant::now();
    let drive = format!(
        "file={},format=raw,if=ide,snapshot=on",
        sector.display().to_string().replace(',', ",,")
    );
    let output = Command::new(program)
        .args([
            "-machine",
            "pc",
            "-m",
            "32M",
            "-no-user-config",
            "-nodefaults",
        ])
        .args(["-display", "none", "-no-reboot"])
        .args(accelerator.args())
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-drive", &drive])
        .deadline(DEADLINE)
        .output()
        .await;
    let took = begin.elapsed();
    match output {
        Ok(output) if output.status.code() == Some(CAME_THROUGH) => Ok(Run::Through(took)),
        Ok(output) => {
            let said = last_lines(&output.stderr, 1).pop().unwrap_or_else(|| {
                output.status.signal().map_or_else(
                    || output.status.to_string(),
                    |signal| format!("QEMU ended by signal {signal}"),
                )
            });
            Ok(Run::Failed(said))
        }
        Err(CommandError::Deadline { .. }) => Ok(Run::Failed(format!(
            "no sign of life within {} s",
            DEADLINE.as_secs()
        ))),
        Err(error) => Err(super::missing_or_failed(error)),
    }
}

/// KVM when it came through, and not later than emulation did.
fn decide(kvm: &Run, tcg: &Run) -> (Accelerator, String) {
    let text = |run: &Run| match run {
        Run::Through(took) => format!("{:.2} s", took.as_secs_f64()),
        Run::Failed(why) => format!("nothing ({why})"),
    };
    match (kvm, tcg) {
        (Run::Through(kvm_took), Run::Through(tcg_took)) if kvm_took > tcg_took => (
            Accelerator::Tcg,
            format!(
                "emulated: the same test took {} under KVM and {} without it",
                text(kvm),
                text(tcg)
            ),
        ),
        (Run::Through(_), _) => (
            Accelerator::Kvm,
            format!(
                "KVM ran the test in {}, emulation in {}",
                text(kvm),
                text(tcg)
            ),
        ),
        (Run::Failed(why), _) => (
            Accelerator::Tcg,
            format!("emulated: /dev/kvm opens, but KVM does not run a VM here ({why})"),
        ),
    }
}

/// The kernel's id of this boot; empty where there is none, and then nothing is remembered.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_used_only_when_it_came_through_and_was_not_slower() {
        let through = |millis| Run::Through(Duration::from_millis(millis));
        let failed = || Run::Failed("hangs".to_owned());
        for (kvm, tcg, expected) in [
            (through(50), through(200), Accelerator::Kvm),
            (through(2700), through(70), Accelerator::Tcg),
            (failed(), through(70), Accelerator::Tcg),
            (through(50), failed(), Accelerator::Kvm),
            (failed(), failed(), Accelerator::Tcg),
        ] {
            let (accelerator, reason) = decide(&kvm, &tcg);
            assert_eq!(accelerator, expected, "{reason}");
        }
        assert!(decide(&failed(), &through(70)).1.contains("hangs"));
    }

    #[tokio::test]
    async fn the_embedded_boot_sector_is_what_its_source_says() {
        let dir = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/driver/qemu/accel/probe.s");
        let (object, binary) = (dir.path().join("probe.o"), dir.path().join("probe.bin"));
        let assembled = Command::new("as")
            .args(["--64", "-o"])
            .arg(&object)
            .arg(source)
            .run()
            .await;
        if let Err(CommandError::NotFound { .. }) = assembled {
            println!("skipped: `as` is not installed");
            return;
        }
        if cfg!(not(target_arch = "x86_64")) {
            println!("skipped: `as` is for another architecture");
            return;
        }
        assembled.unwrap();
        Command::new("ld")
            .args([
                "-m",
                "elf_x86_64",
                "--oformat",
                "binary",
                "-Ttext",
                "0x7c00",
                "-o",
            ])
            .arg(&binary)
            .arg(&object)
            .run()
            .await
            .unwrap();
        assert_eq!(fs::read(&binary).unwrap(), PROBE);
    }
}
