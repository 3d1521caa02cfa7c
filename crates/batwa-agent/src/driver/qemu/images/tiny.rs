//! The image `tiny`: a kernel, busybox and an SSH server, put together here from Debian packages.
//!
//! It has no disk: its initrd makes the root file system on the VM's empty disk at the first boot, in whatever size
//! that is, and fills it. So nobody needs to be root to build it. Everything that runs inside is in the files beside
//! this one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_api::{Timestamp, operation::Stage, size::ByteSize};

use super::{
    super::files,
    cpio::Archive,
    manifest::{Boot, ImageId, Manifest},
    packages,
};
use crate::driver::{DriverError, Progress, command::Command};

/// The version of what is built here: an older build in the cache is not used for new VMs.
pub(super) const RECIPE: u32 = 3;
/// Bytes to download, about; for people who choose an image.
pub(super) const DOWNLOAD: ByteSize = ByteSize::mib(34);

/// What runs inside.
const PACKAGES: [&str; 3] = ["busybox-static", "dropbear-bin", "e2fsprogs"];
/// Programs taken from the packages, beside busybox, with the folder they go to.
const PROGRAMS: [(&str, &str); 5] = [
    ("usr/sbin", "dropbear"),
    ("usr/bin", "dropbearkey"),
    ("usr/bin", "dropbearconvert"),
    ("usr/sbin", "mke2fs"),
    ("usr/sbin", "resize2fs"),
];
/// Modules that a VM of ours needs, as far as its kernel does not have them built in.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "button",
    "evdev",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    // Only in the standard kernel, or only there no part of it.
    "ext4",
    "crc32c_generic",
    "9p",
    "9pnet_virtio",
];
/// Files of our own: path, permissions, content.
const FILES: [(&str, u32, &str); 9] = [
    ("init", 0o755, include_str!("tiny/init")),
    ("etc/inittab", 0o644, include_str!("tiny/inittab")),
    ("etc/rc", 0o755, include_str!("tiny/rc")),
    ("etc/rc.user", 0o755, include_str!("tiny/rc.user")),
    ("etc/udhcpc", 0o755, include_str!("tiny/udhcpc")),
    ("etc/profile", 0o644, include_str!("tiny/profile")),
    ("etc/os-release", 0o644, include_str!("tiny/os-release")),
    (
        "etc/acpi/PWRF/00000080",
        0o755,
        include_str!("tiny/power-button"),
    ),
    ("usr/bin/cloud-init", 0o755, include_str!("tiny/cloud-init")),
];
/// Small files without a file of their own here.
const ACCOUNTS: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/shadow", "root:*:20000:0:99999:7:::\n"),
    ("etc/shells", "/bin/sh\n"),
];
/// Folders, parents first.
const DIRS: [&str; 16] = [
    "bin",
    "sbin",
    "lib",
    "lib64",
    "usr",
    "usr/bin",
    "usr/sbin",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "root",
    "var",
    "var/lib",
    "var/log",
    "modules",
    "dev",
];

/// The kernel of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TinyKernel {
    /// Debian's for clouds where there is one: small, and without 9p, so that such VMs see no folders of the machine.
    #[default]
    Small,
    /// Debian's standard one, which knows 9p.
    Standard,
}

/// Builds the image into `staging`, a new folder; packages pass through `scratch`.
pub(super) async fn build(
    kernel: TinyKernel,
    staging: &Path,
    scratch: &Path,
    progress: &Progress,
) -> Result<Manifest, DriverError> {
    progress.stage(Stage::BuildingImage);
    let architecture = packages::architecture().await?;
    let small = format!("linux-image-cloud-{architecture}");
    let standard = format!("linux-image-{architecture}");
    let names: &[&str] = match kernel {
        TinyKernel::Small => &[&small, &standard, "linux-image-virtual"],
        TinyKernel::Standard => &[&standard, "linux-image-virtual"],
    };
    let kernel_packages = packages::kernel(names).await?;
    let mut wanted = packages::with_dependencies(&PACKAGES).await?;
    wanted.extend(kernel_packages.iter().cloned());
    let (kernel, root) = (scratch.join("kernel"), scratch.join("root"));
    let place = |file: &str| {
        if file.starts_with("linux-") {
            kernel.clone()
        } else {
            root.clone()
        }
    };
    packages::fetch(&wanted, &scratch.join("packages"), place, progress).await?;

    progress.message("putting the image together");
    let libraries = libraries(&root).await?;
    let modules = modules(&kernel).await?;
    let (kernel_file, version) = kernel_file(&kernel)?;
    let initrd = staging.join(Manifest::INITRD);
    let target = staging.join(Manifest::KERNEL);
    tokio::task::spawn_blocking(move || {
        archive(&root, &libraries, &modules)
            .and_then(|bytes| {
                fs::write(&initrd, bytes)?;
                fs::copy(&kernel_file, &target)?;
                fs::File::open(&initrd)?.sync_all()?;
                fs::File::open(&target)?.sync_all()
            })
            .map_err(|error| files::io_error("build", &initrd, &error))
    })
    .await
    .map_err(|error| DriverError::failed(format!("building the image broke off: {error}")))??;

    Ok(Manifest {
        id: ImageId::from_text(&format!("tiny-{RECIPE}-{version}")),
        name: "tiny".to_owned(),
        title: "Tiny Linux (busybox)".to_owned(),
        user: "root".to_owned(),
        cloud_config: false,
        disk: None,
        min_disk: batwa_api::vm::VmSpec::MIN_DISK,
        boot: Some(Boot {
            command_line: "console=ttyS0 quiet loglevel=4".to_owned(),
        }),
        made_at: Timestamp::now(),
    })
}

/// The newest kernel of the unpacked packages, with its version.
fn kernel_file(kernel: &Path) -> Result<(PathBuf, String), DriverError> {
    let boot = kernel.join("boot");
    fs::read_dir(&boot)
        .map_err(|error| files::io_error("read", &boot, &error))?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("vmlinuz-")?.to_owned();
            Some((entry.path(), version))
        })
        .max_by(|(_, a), (_, b)| a.cmp(b))
        .ok_or_else(|| DriverError::failed("the kernel's package holds no kernel"))
}

/// The shared libraries of our programs: name inside the image and file here. The packages' own loader says which,
/// so that it does not matter what this machine runs.
async fn libraries(root: &Path) -> Result<Vec<(String, PathBuf)>, DriverError> {
    let folders = library_folders(root);
    let loader = folders
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("ld-linux"))
        })
        .ok_or_else(|| DriverError::failed("the C library's package holds no loader"))?;
    let search = folders
        .iter()
        .map(|dir| dir.display().to_string())
        .collect::<Vec<_>>()
        .join(":");
    let mut found = BTreeSet::new();
    for (dir, program) in PROGRAMS {
        let output = Command::new(&loader)
            .args(["--library-path", &search, "--list"])
            .arg(program_file(root, dir, program)?)
            .deadline(Duration::from_secs(30))
            .run()
            .await
            .map_err(packages::failed)?;
        for path in listed_libraries(&String::from_utf8_lossy(&output.stdout)) {
            if !path.starts_with(root) {
                return Err(DriverError::failed(format!(
                    "a library of `{program}` is in none of the packages: {}",
                    path.display()
                )));
            }
            found.insert(path);
        }
    }
    found.insert(loader);
    Ok(found
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, path))
        })
        .collect())
}

/// A program lies where its package puts it: `/sbin` and `/usr/sbin` are the same on newer systems.
fn program_file(root: &Path, dir: &str, program: &str) -> Result<PathBuf, DriverError> {
    let usual = root.join(dir).join(program);
    let bare = root
        .join(dir.strip_prefix("usr/").unwrap_or(dir))
        .join(program);
    [usual, bare]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| DriverError::failed(format!("no package holds the program `{program}`")))
}

fn library_folders(root: &Path) -> Vec<PathBuf> {
    ["lib", "usr/lib"]
        .iter()
        .map(|dir| root.join(dir))
        .flat_map(|dir| {
            let inner = fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.is_dir()
                        && path
                            .file_name()
                            .and_then(|name| name.to_str())
                            .is_some_and(|name| name.contains("-linux-gnu"))
                });
            inner.collect::<Vec<_>>()
        })
        .collect()
}

/// `name => path (address)` a line.
fn listed_libraries(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split(" => ").nth(1)?.split(" (").next())
        .map(|path| PathBuf::from(path.trim()))
        .collect()
}

/// The modules in the order in which they can be loaded: name and content.
async fn modules(kernel: &Path) -> Result<Vec<(String, Vec<u8>)>, DriverError> {
    let mut paths = Vec::new();
    walk(kernel, &mut paths);
    let mut loaded: Vec<(String, Vec<u8>)> = Vec::new();
    // Depth first, dependencies before what needs them.
    let mut open: Vec<(String, Visit)> = MODULES
        .iter()
        .rev()
        .map(|name| ((*name).to_owned(), Visit::Enter))
        .collect();
    let mut contents: std::collections::HashMap<String, Vec<u8>> = Default::default();
    while let Some((name, visit)) = open.pop() {
        if loaded.iter().any(|(done, _)| *done == name) {
            continue;
        }
        match visit {
            Visit::Leave => {
                if let Some(content) = contents.remove(&name) {
                    loaded.push((name, content));
                }
            }
            Visit::Enter => {
                // One that is not there is built into the kernel.
                let Some(path) = paths.iter().find(|path| is_module(path, &name)) else {
                    continue;
                };
                let content = module_content(path).await?;
                let needs = module_dependencies(&content);
                contents.insert(name.clone(), content);
                open.push((name, Visit::Leave));
                open.extend(needs.into_iter().map(|need| (need, Visit::Enter)));
            }
        }
    }
    Ok(loaded)
}

enum Visit {
    Enter,
    Leave,
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        } else if path.to_string_lossy().contains(".ko") {
            found.push(path);
        }
    }
}

/// Whether a file is the module `name`; hyphens and underscores are the same in module names.
fn is_module(path: &Path, name: &str) -> bool {
    path.file_name()
        .and_then(|file| file.to_str())
        .and_then(|file| file.split_once(".ko"))
        .is_some_and(|(stem, _)| stem.replace('-', "_") == name.replace('-', "_"))
}

async fn module_content(path: &Path) -> Result<Vec<u8>, DriverError> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).map_err(|error| files::io_error("read", path, &error)),
    };
    let output = Command::new(program)
        .args(["-d", "-c"])
        .arg(path)
        .deadline(Duration::from_secs(60))
        .run()
        .await
        .map_err(packages::failed)?;
    Ok(output.stdout)
}

/// The text after `depends=` that every module carries.
fn module_dependencies(content: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(start) = content
        .windows(MARK.len())
        .position(|window| window == MARK)
    else {
        return Vec::new();
    };
    let text: Vec<u8> = content[start + MARK.len()..]
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&text)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The initrd: uncompressed, because an emulated processor would unpack it for longer than it takes to read.
fn archive(
    root: &Path,
    libraries: &[(String, PathBuf)],
    modules: &[(String, Vec<u8>)],
) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::with_capacity(12 << 20));
    for dir in DIRS {
        archive.dir(dir)?;
    }
    for (path, permissions, content) in FILES {
        archive.file(path, permissions, content.as_bytes())?;
    }
    for (path, content) in ACCOUNTS {
        archive.file(path, 0o644, content.as_bytes())?;
    }
    let busybox = ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.exists())
        .ok_or(std::io::ErrorKind::NotFound)?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    archive.link("bin/sh", "busybox")?;
    for (dir, program) in PROGRAMS {
        let path = program_file(root, dir, program).map_err(std::io::Error::other)?;
        archive.file(&format!("{dir}/{program}"), 0o755, &fs::read(path)?)?;
    }
    for (name, path) in libraries {
        archive.file(&format!("lib/{name}"), 0o755, &fs::read(path)?)?;
        if name.starts_with("ld-linux-x86-64") {
            archive.link(&format!("lib64/{name}"), &format!("/lib/{name}"))?;
        }
    }
    let mut order = String::new();
    for (name, content) in modules {
        archive.file(&format!("modules/{name}.ko"), 0o644, content)?;
        order.push_str(name);
        order.push_str(".ko\n");
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibz.so.1 => /r/lib/libz.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 => /r/ld.so (0x0)\n";
        assert_eq!(
            listed_libraries(text),
            [Path::new("/r/lib/libz.so.1"), Path::new("/r/ld.so")]
        );
    }

    #[test]
    fn a_modules_dependencies_are_read_from_it() {
        assert_eq!(
            module_dependencies(b"ELF\0license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0"),
            ["virtio", "virtio_ring"]
        );
        assert!(module_dependencies(b"x\0depends=\0y").is_empty());
        assert!(module_dependencies(b"no such thing").is_empty());
        assert!(is_module(Path::new("/x/virtio-rng.ko.xz"), "virtio_rng"));
        assert!(!is_module(Path::new("/x/virtio.ko"), "virtio_rng"));
    }
}
