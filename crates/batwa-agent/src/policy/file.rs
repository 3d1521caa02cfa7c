//! What a policy file says, read and checked. Pure.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use batwa_api::{
    policy::{ImageSources, MountRoot, Policy, VmBounds},
    size::ByteSize,
    vm::{NetworkCard, VmSpec},
};
use serde::Deserialize;

use super::listen::Listen;

/// Far more than a policy needs.
pub(super) const MAX_BYTES: u64 = 64 << 10;
/// Longest path or host name in it.
const MAX_TEXT: usize = 1024;

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the policy file `{}`: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Anybody on the machine may write it.
    #[error("cannot use the policy file `{path}`: anybody on this machine may change it: `chmod o-w {path}`", path = .0.display())]
    OpenToAll(PathBuf),
    /// It says what cannot be.
    #[error("cannot use the policy file `{}`: {detail}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        detail: String,
    },
}

/// The file as it is written. A key that is not known is an error: a cap that is misspelt would cap nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    vms: Vms,
    images: Images,
    mounts: Mounts,
    networks: Networks,
    forwards: Forwards,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Vms {
    count: Option<u32>,
    cpus: Option<u32>,
    memory: Option<ByteSize>,
    disk: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Images {
    hosts: Option<Vec<String>>,
    files: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mounts {
    roots: Vec<String>,
    read_only: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Networks {
    bridges: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Forwards {
    listen: Vec<String>,
}

/// Reads the text of a policy file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Policy, PolicyError> {
    let wrong = |detail: String| PolicyError::Wrong {
        path: path.to_owned(),
        detail,
    };
    if text.len() as u64 > MAX_BYTES {
        let most = ByteSize::bytes(MAX_BYTES);
        return Err(wrong(format!("it is longer than {most}")));
    }
    let mut file: File = toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or(text);
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        wrong(format!("{place}{}", error.message()))
    })?;
    file.check().map_err(wrong)?;
    file.forget_doubles();
    Ok(Policy {
        file: path.display().to_string(),
        written: true,
        problem: None,
        vms: VmBounds {
            count: file.vms.count,
            cpus: file.vms.cpus,
            memory: file.vms.memory,
            disk: file.vms.disk,
        },
        images: ImageSources {
            hosts: file.images.hosts,
            files: file.images.files,
        },
        mounts: roots(file.mounts.roots, false)
            .chain(roots(file.mounts.read_only, true))
            .collect(),
        bridges: file.networks.bridges,
        forwards: file.forwards.listen,
    })
}

fn roots(paths: Vec<String>, read_only: bool) -> impl Iterator<Item = MountRoot> {
    paths
        .into_iter()
        .map(move |path| MountRoot { path, read_only })
}

impl File {
    fn check(&self) -> Result<(), String> {
        let vms = &self.vms;
        if vms.cpus == Some(0) {
            return Err("`cpus` under `[vms]` must be 1 at least".to_owned());
        }
        for (key, size, least) in [
            ("memory", vms.memory, VmSpec::MIN_MEMORY),
            ("disk", vms.disk, VmSpec::MIN_DISK),
        ] {
            if size.is_some_and(|size| size < least) {
                return Err(format!("`{key}` under `[vms]` must be {least} at least"));
            }
        }
        if let Some(hosts) = &self.images.hosts {
            list("`hosts` under `[images]`", hosts, is_host)
                .map_err(|why| format!("{why}: write `images.example.org` or `*.example.org`"))?;
        }
        list(
            "`listen` under `[forwards]`",
            &self.forwards.listen,
            |text| text.parse::<Listen>().is_ok(),
        )
        .map_err(|why| {
            format!("{why}: write `127.0.0.1:8080`, `127.0.0.1:8000-8999` or `[::1]:*`")
        })?;
        list(
            "`bridges` under `[networks]`",
            &self.networks.bridges,
            is_network,
        )
        .map_err(|why| format!("{why}: write names of this machine's networks, such as `br0`"))?;
        for (what, folders) in [
            ("`files` under `[images]`", &self.images.files),
            ("`roots` under `[mounts]`", &self.mounts.roots),
            ("`read_only` under `[mounts]`", &self.mounts.read_only),
        ] {
            list(what, folders, is_folder).map_err(|why| {
                format!("{why}: write whole paths of folders, such as `/srv/images`")
            })?;
        }
        Ok(())
    }
}

impl File {
    /// Keeps one of what is written twice. A folder that VMs may write in is no other one to read in.
    fn forget_doubles(&mut self) {
        let hosts = self.images.hosts.iter_mut();
        let mounts = &mut self.mounts;
        for list in hosts.chain([
            &mut self.images.files,
            &mut mounts.roots,
            &mut mounts.read_only,
        ]) {
            let mut seen = BTreeSet::new();
            list.retain(|entry| seen.insert(entry.clone()));
        }
        mounts.read_only.retain(|path| !mounts.roots.contains(path));
    }
}

fn list(what: &str, entries: &[String], good: fn(&str) -> bool) -> Result<(), String> {
    if entries.len() > Policy::MAX_ENTRIES {
        return Err(format!(
            "{what} has more than {} entries",
            Policy::MAX_ENTRIES
        ));
    }
    match entries.iter().find(|entry| !good(entry)) {
        Some(entry) => {
            let entry: String = entry.chars().take(80).collect();
            Err(format!("{what} cannot have `{}`", entry.escape_debug()))
        }
        None => Ok(()),
    }
}

/// A host's name or address, without scheme, port or path; with `*.` before it for those below.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    !name.is_empty()
        && name.len() <= MAX_TEXT
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
        // An IPv6 address is written as in an URL; any other colon begins a port.
        && (name.starts_with('[') == name.contains(':'))
}

/// What one of the machine's networks can be called, by whichever driver.
fn is_network(text: &str) -> bool {
    text.parse::<NetworkCard>()
        .is_ok_and(|card| card.name == text)
}

fn is_folder(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_TEXT
        && !text.chars().any(char::is_control)
        && !text.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy, String> {
        parse(Path::new("/p"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_what_it_says() {
        let policy = read(
            "[vms]\ncount = 20\ncpus = 4\nmemory = \"8G\"\ndisk = \"100G\"\n\
             [images]\nhosts = [\"cloud-images.ubuntu.com\", \"*.example.org\", \"[::1]\"]\nfiles = [\"/srv/images\"]\n\
             [mounts]\nroots = [\"/srv/share\"]\nread_only = [\"/srv/iso\"]\n\
             [networks]\nbridges = [\"br0\", \"Default Switch\"]\n\
             [forwards]\nlisten = [\"127.0.0.1:8000-8999\", \"[::1]:*\"]\n",
        )
        .unwrap();
        assert!(policy.written);
        assert_eq!(
            policy.vms,
            VmBounds {
                count: Some(20),
                cpus: Some(4),
                memory: Some(ByteSize::gib(8)),
                disk: Some(ByteSize::gib(100)),
            }
        );
        assert_eq!(policy.images.hosts.as_ref().map(Vec::len), Some(3));
        assert_eq!(policy.images.files, ["/srv/images"]);
        let mounts: Vec<_> = policy
            .mounts
            .iter()
            .map(|root| (root.path.as_str(), root.read_only))
            .collect();
        assert_eq!(mounts, [("/srv/share", false), ("/srv/iso", true)]);
        assert_eq!(policy.bridges, ["br0", "Default Switch"]);
        assert_eq!(policy.forwards, ["127.0.0.1:8000-8999", "[::1]:*"]);
        let empty = read("").unwrap();
        assert!(empty.written && empty.images.hosts.is_none() && empty.images.files.is_empty());
    }

    #[test]
    fn what_is_written_twice_is_said_once() {
        let policy = read(
            "[images]\nhosts = [\"a\", \"b\", \"a\"]\nfiles = [\"/srv\", \"/srv\"]\n\
             [mounts]\nroots = [\"/srv\", \"/srv\"]\nread_only = [\"/srv\", \"/iso\", \"/iso\"]\n",
        )
        .unwrap();
        assert_eq!(policy.images.hosts.unwrap(), ["a", "b"]);
        assert_eq!(policy.images.files, ["/srv"]);
        let mounts = policy.mounts.iter();
        let mounts: Vec<_> = mounts
            .map(|root| (root.path.as_str(), root.read_only))
            .collect();
        assert_eq!(mounts, [("/srv", false), ("/iso", true)]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, says) in [
            ("\n[vms]\nrams = 3", "line 3: unknown field `rams`"),
            ("[network]", "unknown field `network`"),
            ("[vms]\ncount = -1", "line 2"),
            ("[vms]\ncpus = 0", "`cpus` under `[vms]`"),
            ("[vms]\nmemory = \"1M\"", "128M at least"),
            ("[vms]\nmemory = \"much\"", "`much` is not a size"),
            (
                "[images]\nhosts = [\"https://a\"]",
                "cannot have `https://a`",
            ),
            ("[images]\nhosts = [\"a:80\"]", "cannot have `a:80`"),
            ("[images]\nhosts = [\"*\"]", "cannot have `*`"),
            ("[images]\nfiles = [\"srv\"]", "whole paths"),
            ("[images]\nfiles = [\"/srv/../etc\"]", "cannot have"),
            ("[images]\nfiles = \"/srv\"", "line 2"),
            (
                "[networks]\nbridges = [\"br0,br1\"]",
                "`bridges` under `[networks]` cannot have `br0,br1`",
            ),
            (
                "[forwards]\nlisten = [\"*:80\"]",
                "`listen` under `[forwards]` cannot have `*:80`",
            ),
            (
                "[mounts]\nroots = [\"~\"]",
                "`roots` under `[mounts]` cannot have `~`",
            ),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.contains(says), "{text:?} gave {refusal}");
        }
        let many: Vec<String> = (0..=Policy::MAX_ENTRIES)
            .map(|n| format!("\"/d{n}\""))
            .collect();
        read(&format!("[images]\nfiles = [{}]", many.join(","))).unwrap_err();
    }
}
