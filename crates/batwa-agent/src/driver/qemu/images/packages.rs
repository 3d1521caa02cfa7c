//! Debian packages, taken from the machine's own package sources without installing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_api::size::ByteSize;

use super::super::files;
use crate::driver::{
    DriverError, Progress,
    command::{Command, CommandError},
};

/// Answers from the package lists on this machine.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// Some 30 MB from a mirror.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// Unpacking the largest package, a kernel, on a slow disk.
const UNPACK_DEADLINE: Duration = Duration::from_secs(300);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(300);

/// `packages` and all that they depend on.
pub(super) async fn with_dependencies(packages: &[&str]) -> Result<BTreeSet<String>, DriverError> {
    let output = query("apt-cache")
        .args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
        ])
        .args(packages)
        .run()
        .await
        .map_err(failed)?;
    Ok(package_names(&String::from_utf8_lossy(&output.stdout)))
}

/// The packages that hold the kernel that the first available one of `names` stands for.
pub(super) async fn kernel(names: &[&str]) -> Result<BTreeSet<String>, DriverError> {
    for name in names {
        let mut found = BTreeSet::new();
        let mut open = vec![(*name).to_owned()];
        while let Some(name) = open.pop() {
            let output = query("apt-cache")
                .args(["show", "--no-all-versions"])
                .arg(&name)
                .output()
                .await
                .map_err(failed)?;
            if output.status.success() && found.insert(name) {
                open.extend(kernel_dependencies(&String::from_utf8_lossy(
                    &output.stdout,
                )));
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(DriverError::Failed {
        detail: format!(
            "cannot find any of the packages {} in this machine's package lists",
            names.join(", ")
        ),
        hint: Some("run `apt-get update`, then try again".to_owned()),
        log: Vec::new(),
    })
}

/// Downloads `packages` into `dir`, says how far it is, and unpacks each into the folder that `place` names.
pub(super) async fn fetch(
    packages: &BTreeSet<String>,
    dir: &Path,
    place: impl Fn(&str) -> PathBuf,
    progress: &Progress,
) -> Result<(), DriverError> {
    let listing = query("apt-get")
        .args(["download", "--print-uris"])
        .args(packages)
        .run()
        .await
        .map_err(failed)?;
    let wanted = downloads(&String::from_utf8_lossy(&listing.stdout));
    let total: u64 = wanted.values().sum();
    progress.message(format!("downloading {} Debian packages", wanted.len()));

    files::make_dir(dir)?;
    let download = query("apt-get")
        // As root, apt would change to a user who may not write here.
        .args(["download", "-q", "-o", "APT::Sandbox::User=root"])
        .args(packages)
        .current_dir(dir)
        .deadline(DOWNLOAD_DEADLINE)
        .run();
    tokio::pin!(download);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = &mut download => {
                done.map_err(failed)?;
                break;
            }
            _ = tick.tick() => {
                let done = folder_size(dir).min(total);
                progress.bytes(ByteSize::bytes(done), Some(ByteSize::bytes(total)));
            }
        }
    }
    progress.bytes(ByteSize::bytes(total), Some(ByteSize::bytes(total)));

    progress.message("unpacking the packages");
    for file in wanted.keys() {
        let target = place(file);
        files::make_dir(&target)?;
        query("dpkg-deb")
            .arg("--extract")
            .arg(dir.join(file))
            .arg(&target)
            .deadline(UNPACK_DEADLINE)
            .run()
            .await
            .map_err(failed)?;
        files::remove(&dir.join(file))?;
    }
    Ok(())
}

/// The machine's architecture in Debian's words.
pub(super) async fn architecture() -> Result<String, DriverError> {
    let output = query("dpkg")
        .arg("--print-architecture")
        .run()
        .await
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn query(program: &str) -> Command {
    Command::new(program)
        .ends_with_agent()
        // What these programs print is read here.
        .env("LC_ALL", "C.UTF-8")
        .deadline(QUERY_DEADLINE)
}

/// What to tell people of a package program that failed.
pub(super) fn failed(error: CommandError) -> DriverError {
    match error {
        CommandError::NotFound { program } => DriverError::Missing(format!(
            "`{program}` is not installed: this image is built from Debian packages, so its building needs apt and \
             dpkg (on Debian and Ubuntu they are there; elsewhere `apt` and `dpkg` are packages, with sources of \
             Debian's to be set up)"
        )),
        error => DriverError::Failed {
            log: error.log(20),
            detail: error.to_string(),
            hint: Some(
                "check that `apt-get update` works on this machine, then try again".to_owned(),
            ),
        },
    }
}

/// Lines without indent, less virtual packages (`<…>`).
fn package_names(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with([' ', '|', '<']))
        .map(str::to_owned)
        .collect()
}

/// The packages among a kernel package's dependencies that are parts of the kernel.
fn kernel_dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Depends: "))
        .flat_map(|line| line.split(','))
        .filter_map(|word| word.split_whitespace().next())
        .filter(|name| name.starts_with("linux-image-") || name.starts_with("linux-modules-"))
        .map(str::to_owned)
        .collect()
}

/// `'URI' FILE SIZE HASH` a line: sizes by file name.
fn downloads(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line
                .strip_prefix('\'')?
                .split('\'')
                .nth(1)?
                .split_whitespace();
            let file = words.next()?.to_owned();
            let size = words.next()?.parse().ok()?;
            (!file.contains('/')).then_some((file, size))
        })
        .collect()
}

fn folder_size(dir: &Path) -> u64 {
    // apt writes what is not complete into `partial`, where it may.
    [dir.to_owned(), dir.join("partial")]
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_apts_tree() {
        let text = "dropbear-bin\n  Depends: libc6\n |Depends: debconf\n  Depends: <debconf-2.0>\nlibc6\n<debconf-2.0>\n";
        assert_eq!(
            package_names(text).into_iter().collect::<Vec<_>>(),
            ["dropbear-bin", "libc6"]
        );
    }

    #[test]
    fn a_kernels_parts_are_found_and_nothing_else() {
        let text = "Package: linux-image-virtual\nDepends: linux-image-6.8.0-40-generic (= 6.8.0-40.40), linux-modules-6.8.0-40-generic, kmod (>= 1), intel-microcode\n";
        assert_eq!(
            kernel_dependencies(text),
            [
                "linux-image-6.8.0-40-generic",
                "linux-modules-6.8.0-40-generic"
            ]
        );
    }

    #[test]
    fn downloads_are_read_with_their_sizes() {
        let text = "Reading package lists...\n'http://a/b_1%3a2_amd64.deb' b_1%3a2_amd64.deb 928188 SHA256:00ff\n";
        assert_eq!(
            downloads(text),
            BTreeMap::from([("b_1%3a2_amd64.deb".to_owned(), 928_188)])
        );
    }
}
