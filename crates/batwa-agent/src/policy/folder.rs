//! Folders of this machine that a VM may see: opened beneath a root that the policy names, so that no link leads out.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use batwa_api::policy::Policy;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::{PolicyFile, Refusal, check::refusal};
use crate::driver::DriverError;

/// A folder that may be mounted, open. What it is called may change; the folder stays the one that was looked at.
///
/// Races: the folder is opened by one call that the kernel keeps beneath the root (`openat2` with `RESOLVE_BENEATH`), so
/// a link that somebody puts in the way meanwhile leads nowhere. Who is given [`Self::pass`] opens this very folder,
/// whatever its path leads to by then. Who is given [`Self::path`] looks the path up anew: that is safe only in roots in
/// which nobody writes who is not trusted.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

impl Folder {
    /// A path by which another process of this user opens this very folder, as long as this value lives.
    #[must_use]
    pub fn pass(&self) -> PathBuf {
        let (process, fd) = (std::process::id(), self.fd.as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{fd}"))
    }

    /// Where it is, without links.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn path(&self) -> std::io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

impl PolicyFile {
    /// Opens a folder that a VM is to see, if it may.
    ///
    /// # Errors
    /// [`DriverError::Policy`] when no root of the policy allows it, or a link leads out of the root;
    /// [`DriverError::Invalid`] for `source` when there is no such folder.
    pub fn folder(&self, source: &str, read_only: bool) -> Result<Folder, DriverError> {
        let policy = self.current();
        let path = Path::new(source);
        let under = |root: &str| {
            let below = path.strip_prefix(root).ok()?;
            below
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
                .then(|| (PathBuf::from(root), below.to_owned()))
        };
        let mut roots = policy.mounts.iter();
        let found = roots
            .clone()
            .filter(|root| read_only || !root.read_only)
            .find_map(|root| under(&root.path));
        let Some((root, below)) = found else {
            let readable = roots.any(|root| under(&root.path).is_some());
            return Err(not_allowed(&policy, source, readable).into());
        };
        open(&root, &below).map_err(|error| match error {
            Errno::XDEV | Errno::LOOP => {
                let message = format!(
                    "a link in {source} leads out of {}, which is what the policy of this machine lets VMs see",
                    root.display()
                );
                refusal(&policy, "source", message, "mounts", &line(&policy, source)).into()
            }
            Errno::NOSYS => DriverError::Unsupported(
                "this machine's kernel cannot keep mounts inside a folder: it takes Linux 5.6 or newer".to_owned(),
            ),
            error => DriverError::Invalid {
                field: "source",
                message: match error {
                    Errno::ACCESS | Errno::PERM => format!(
                        "the user that the agent runs as may not read {source}, and QEMU is this user too"
                    ),
                    Errno::NOENT => format!("there is no folder {source} on this machine"),
                    Errno::NOTDIR => format!("{source} is no folder"),
                    error => format!("cannot open {source}: {}", std::io::Error::from(error)),
                },
            },
        })
    }
}

/// Opens the folder itself to be read, as QEMU will: one that this user cannot read is found out here, not when the VM is
/// to start.
fn open(root: &Path, below: &Path) -> Result<Folder, Errno> {
    let any = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (reading, passing) = (any | OFlags::RDONLY, any | OFlags::PATH);
    // The root is the owner's word, links in it included.
    if below.as_os_str().is_empty() {
        let fd = openat(CWD, root, reading, Mode::empty())?;
        return Ok(Folder { fd });
    }
    let root = openat(CWD, root, passing, Mode::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let fd = openat2(&root, below, reading, Mode::empty(), beneath)?;
    Ok(Folder { fd })
}

fn not_allowed(policy: &Policy, source: &str, readable: bool) -> Refusal {
    let message = if readable {
        format!("the policy of this machine lets VMs only read {source}")
    } else {
        format!(
            "VMs may see only folders of this machine that its policy names; {source} is in none"
        )
    };
    refusal(policy, "source", message, "mounts", &line(policy, source))
}

/// What would allow it.
fn line(policy: &Policy, source: &str) -> String {
    let mut roots: Vec<&str> = policy
        .mounts
        .iter()
        .filter(|root| !root.read_only)
        .map(|root| root.path.as_str())
        .collect();
    roots.push(source);
    format!("roots = {roots:?}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use batwa_api::policy::MountRoot;

    use super::*;

    fn policy(roots: &[(&Path, bool)]) -> PolicyFile {
        PolicyFile::fixed(Policy {
            mounts: roots
                .iter()
                .map(|(path, read_only)| MountRoot {
                    path: path.display().to_string(),
                    read_only: *read_only,
                })
                .collect(),
            ..Policy::default()
        })
    }

    fn text(path: &Path) -> String {
        path.display().to_string()
    }

    #[test]
    fn folders_below_a_root_may_be_seen_and_no_link_leads_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, secret) = (dir.path().join("root"), dir.path().join("root-secret"));
        for folder in [&root.join("a/b"), &secret] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(root.join("a/file"), "").unwrap();
        symlink(&secret, root.join("out")).unwrap();
        symlink("../../root-secret", root.join("a/out")).unwrap();
        symlink("a/b", root.join("in")).unwrap();
        let policy = policy(&[(&root, false)]);
        for good in ["", "a", "a/b", "a//b/", "in"] {
            let folder = policy.folder(&text(&root.join(good)), false);
            folder.unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        assert_eq!(
            policy
                .folder(&text(&root.join("in")), false)
                .unwrap()
                .path()
                .unwrap(),
            root.join("a/b").canonicalize().unwrap()
        );
        for bad in ["out", "a/out", "a/../..", "../root-secret"] {
            let refused = policy.folder(&text(&root.join(bad)), false).unwrap_err();
            assert!(
                matches!(refused, DriverError::Policy(_)),
                "{bad}: {refused}"
            );
        }
        for bad in [&secret, Path::new("/etc"), Path::new("/")] {
            let refused = policy.folder(&text(bad), false).unwrap_err();
            assert!(matches!(refused, DriverError::Policy(_)), "{refused}");
        }
        for nothing in ["none", "a/file"] {
            let refused = policy
                .folder(&text(&root.join(nothing)), false)
                .unwrap_err();
            assert!(
                matches!(
                    refused,
                    DriverError::Invalid {
                        field: "source",
                        ..
                    }
                ),
                "{refused}"
            );
        }
        PolicyFile::default()
            .folder(&text(&root), false)
            .unwrap_err();
    }

    #[test]
    fn a_root_to_read_is_no_root_to_write_in() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let source = text(&inner);
        let reading = policy(&[(dir.path(), true)]);
        reading.folder(&source, true).unwrap();
        let refused = reading.folder(&source, false).unwrap_err();
        assert!(refused.to_string().contains("only read"), "{refused}");
        policy(&[(dir.path(), true), (&inner, false)])
            .folder(&source, false)
            .unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_refused_before_any_vm_needs_it() {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt};

        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let policy = policy(&[(dir.path(), false)]);
        for source in [dir.path(), &inner] {
            let folder = policy.folder(&text(source), false).unwrap();
            // What was opened without asking for the right to read cannot be read.
            let entries = rustix::fs::Dir::read_from(&folder.fd);
            entries.unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        }
        std::fs::set_permissions(&inner, Permissions::from_mode(0o300)).unwrap();
        let refused = policy.folder(&text(&inner), false);
        std::fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
        // Nothing is closed to root.
        if !rustix::process::geteuid().is_root() {
            let refused = refused.unwrap_err();
            assert!(refused.to_string().contains("may not read"), "{refused}");
        }
    }

    #[test]
    fn the_folder_that_was_looked_at_is_the_one_that_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir(&b).unwrap();
        std::fs::write(a.join("first"), "").unwrap();
        std::fs::write(b.join("second"), "").unwrap();
        let folder = policy(&[(dir.path(), false)])
            .folder(&text(&a), false)
            .unwrap();
        std::fs::rename(&a, dir.path().join("moved")).unwrap();
        symlink(&b, &a).unwrap();
        let entries = std::fs::read_dir(folder.pass()).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["first"]);
    }
}
