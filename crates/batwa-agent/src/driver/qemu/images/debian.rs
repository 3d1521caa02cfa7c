//! `debian:12`: Debian's own cloud image, or one built here from packages when its server does not answer.

use std::{path::Path, time::Duration};

use batwa_api::{Timestamp, operation::Stage, size::ByteSize};

use super::{
    super::{files, missing_or_failed},
    download::{Checksum, Remote},
    manifest::{Boot, DiskFormat, ImageId, Manifest},
    packages,
};
use crate::driver::{
    DriverError, Progress,
    command::{Command, CommandError, last_lines},
};

/// The version of what is built here.
const RECIPE: u32 = 1;
/// Installing some 200 packages, on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
/// The built disk; a VM's own may be larger, and its file system grows.
const DISK: ByteSize = ByteSize::gib(2);
/// How often people hear what is being installed.
const NEWS: Duration = Duration::from_secs(1);
/// What a server with cloud-init needs, beside the kernel.
const PACKAGES: &str = "cloud-init,cloud-guest-utils,openssh-server,sudo,systemd-sysv,systemd-resolved,dbus,initramfs-tools,zstd,ca-certificates,iproute2,iputils-ping,less,vim-tiny,curl,procps,netbase,e2fsprogs,busybox";
/// Before the kernel's package makes its initrd: only what our VMs have.
const BEFORE: &str = include_str!("debian/before");
/// After all packages: network, cloud-init, and nothing that two VMs must not share.
const AFTER: &str = include_str!("debian/after");

/// The file among the lines of `SHA512SUMS` of Debian's server.
pub(super) fn remote(sums: &str, base: &str, arch: &str) -> Option<Remote> {
    let file = format!("debian-12-genericcloud-{arch}.qcow2");
    let line = sums
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&file))?;
    Some(Remote {
        url: format!("{base}{file}"),
        checksum: Checksum::parse(line.split_whitespace().next()?)?,
        size: None,
    })
}

/// Builds the image into `staging`, a new folder.
pub(super) async fn build(
    staging: &Path,
    scratch: &Path,
    progress: &Progress,
) -> Result<Manifest, DriverError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DriverError::Unsupported(
            "Debian's image server does not answer, and building `debian:12` here needs an agent that runs as root; \
             the image `tiny` needs neither"
                .to_owned(),
        ));
    }
    progress.stage(Stage::BuildingImage);
    let arch = packages::architecture().await?;
    let (root, log) = (scratch.join("root"), scratch.join("mmdebstrap.log"));
    let install = Command::new("mmdebstrap")
        .ends_with_agent()
        .args(["--variant=apt", "--format=directory", "--mode=root"])
        .arg(format!("--include=linux-image-cloud-{arch},{PACKAGES}"))
        .args([
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .arg(format!("--essential-hook={BEFORE}"))
        .arg(format!("--customize-hook={AFTER}"))
        .arg(format!("--logfile={}", log.display()))
        .arg("bookworm")
        .arg(&root)
        .env("LC_ALL", "C.UTF-8")
        .deadline(DEADLINE)
        .run();
    tokio::pin!(install);
    let mut news = tokio::time::interval(NEWS);
    loop {
        tokio::select! {
            done = &mut install => {
                done.map_err(|error| build_failed(error, &log))?;
                break;
            }
            _ = news.tick() => {
                let said = super::super::console::tail(&log, 4 << 10);
                if let Some(line) = last_lines(&String::from_utf8_lossy(&said), 1).pop() {
                    progress.message(line);
                }
            }
        }
    }
    progress.message("making the disk");
    let disk = staging.join(Manifest::DISK);
    files::create(&disk)
        .and_then(|file| file.set_len(DISK.as_u64()))
        .map_err(|error| files::io_error("make", &disk, &error))?;
    Command::new("mke2fs")
        .ends_with_agent()
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
        .arg(&root)
        .arg(&disk)
        .deadline(DEADLINE)
        .run()
        .await
        .map_err(|error| build_failed(error, &log))?;
    for (prefix, name) in [
        ("vmlinuz-", Manifest::KERNEL),
        ("initrd.img-", Manifest::INITRD),
    ] {
        let from = newest(&root.join("boot"), prefix)
            .ok_or_else(|| DriverError::failed(format!("the installed system has no {prefix}*")))?;
        let to = staging.join(name);
        std::fs::copy(&from, &to).map_err(|error| files::io_error("write", &to, &error))?;
    }
    Ok(Manifest {
        id: ImageId::from_text(&format!(
            "debian-12-built-{RECIPE}-{}",
            Timestamp::now().as_second()
        )),
        name: "debian:12".to_owned(),
        title: "Debian 12 (bookworm)".to_owned(),
        user: "debian".to_owned(),
        cloud_config: true,
        disk: Some(DiskFormat::Raw),
        min_disk: DISK,
        boot: Some(Boot {
            command_line: "root=/dev/vda rw console=ttyS0 net.ifnames=0".to_owned(),
        }),
        made_at: Timestamp::now(),
    })
}

fn newest(dir: &Path, prefix: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(prefix))
        })
        .max()
}

fn build_failed(error: CommandError, log: &Path) -> DriverError {
    match error {
        CommandError::NotFound { program } => DriverError::Missing(format!(
            "`{program}` is not installed: `debian:12` is built with it because Debian's image server does not answer \
             (Debian, Ubuntu: `apt-get install mmdebstrap e2fsprogs`)"
        )),
        error => {
            let said = super::super::console::tail(log, 16 << 10);
            let mut failed = missing_or_failed(error);
            if let DriverError::Failed { log, .. } = &mut failed {
                *log = last_lines(&String::from_utf8_lossy(&said), 20);
            }
            failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_among_the_checksums() {
        let sum = "0".repeat(128);
        let sums = format!(
            "{sum}  debian-12-genericcloud-amd64.json\n{sum}  debian-12-genericcloud-amd64.qcow2\n"
        );
        let found = remote(&sums, "https://images/", "amd64").unwrap();
        assert_eq!(
            found.url,
            "https://images/debian-12-genericcloud-amd64.qcow2"
        );
        assert_eq!(remote(&sums, "", "arm64"), None);
    }
}
