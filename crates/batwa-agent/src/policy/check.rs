//! May this be asked? Pure questions to a policy; a refusal says the cause, and what its file would have to say.

use std::path::Path;

use batwa_api::{
    policy::Policy,
    size::ByteSize,
    vm::{ResizeOptions, VmSpec},
};
use reqwest::Url;

use super::PolicyFile;

/// Something that the policy of this machine does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The field of the request that asks for it.
    pub field: &'static str,
    /// What is not allowed.
    pub message: String,
    /// What the machine's owner can do about it.
    pub remedy: String,
}

/// What the policy says must hold `line` under `section`, for this to be allowed.
pub(super) fn refusal(
    policy: &Policy,
    field: &'static str,
    message: String,
    section: &str,
    line: &str,
) -> Refusal {
    Refusal {
        field,
        message,
        remedy: format!(
            "whoever owns the machine can allow it: `{line}` under `[{section}]` in {}",
            if policy.file.is_empty() {
                super::FILE
            } else {
                &policy.file
            }
        ),
    }
}

impl PolicyFile {
    /// Refuses a VM that is larger than any may be.
    pub(crate) fn check_spec(&self, spec: &VmSpec) -> Result<(), Refusal> {
        self.check_size(Some(spec.cpus), Some(spec.memory), Some(spec.disk))
    }

    /// Refuses a size that no VM may be given.
    pub(crate) fn check_resize(&self, size: &ResizeOptions) -> Result<(), Refusal> {
        self.check_size(size.cpus, size.memory, size.disk)
    }

    fn check_size(
        &self,
        cpus: Option<u32>,
        memory: Option<ByteSize>,
        disk: Option<ByteSize>,
    ) -> Result<(), Refusal> {
        let policy = self.current();
        let bounds = policy.vms;
        if let (Some(cpus), Some(most)) = (cpus, bounds.cpus)
            && cpus > most
        {
            let message = format!(
                "{cpus} CPUs are more than the {most} that this machine's policy gives a VM"
            );
            let line = format!("cpus = {cpus}");
            return Err(refusal(&policy, "cpus", message, "vms", &line));
        }
        for (field, size, most) in [
            ("memory", memory, bounds.memory),
            ("disk", disk, bounds.disk),
        ] {
            if let (Some(size), Some(most)) = (size, most)
                && size > most
            {
                let message = format!(
                    "{size} is more {field} than the {most} that this machine's policy gives a VM"
                );
                let line = format!("{field} = \"{size}\"");
                return Err(refusal(&policy, field, message, "vms", &line));
            }
        }
        Ok(())
    }

    /// Refuses one more VM where there are, or are about to be, `there` already.
    pub(crate) fn check_count(&self, there: usize) -> Result<(), Refusal> {
        let policy = self.current();
        match policy.vms.count {
            Some(most) if there >= most as usize => {
                let message = format!(
                    "{there} VMs are on this machine, those in the trash included, and its policy allows {most}"
                );
                let line = format!("count = {}", there.saturating_add(1));
                Err(refusal(&policy, "name", message, "vms", &line))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to fetch an image from a server that is not named, where servers are named.
    pub(crate) fn check_url(&self, field: &'static str, url: &str) -> Result<(), Refusal> {
        let policy = self.current();
        let Some(hosts) = &policy.images.hosts else {
            return Ok(());
        };
        let host = Url::parse(url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_ascii_lowercase));
        if let Some(host) = &host
            && hosts.iter().any(|allowed| covers(allowed, host))
        {
            return Ok(());
        }
        let host = host.unwrap_or_else(|| "a server without a name".to_owned());
        let message = format!("this machine's policy does not let images come from `{host}`");
        let line = format!("hosts = [{}]", quoted(hosts.iter().chain([&host])));
        Err(refusal(&policy, field, message, "images", &line))
    }

    /// Refuses an image file, given by a path without links, outside the folders that are named. `shown` is what the
    /// caller called it.
    pub(crate) fn check_image_file(
        &self,
        field: &'static str,
        shown: &Path,
        real: &Path,
    ) -> Result<(), Refusal> {
        let policy = self.current();
        let allowed = policy
            .images
            .files
            .iter()
            .filter_map(|dir| Path::new(dir).canonicalize().ok())
            .any(|dir| real.starts_with(dir));
        if allowed {
            return Ok(());
        }
        let message = format!(
            "image files of this machine may be used only from folders that its policy names; {} is in none",
            shown.display()
        );
        let folder = shown
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string();
        let line = format!(
            "files = [{}]",
            quoted(policy.images.files.iter().chain([&folder]))
        );
        Err(refusal(&policy, field, message, "images", &line))
    }
}

/// Whether `host` is the one that is named, or below it where that begins with `*.`.
fn covers(named: &str, host: &str) -> bool {
    match named.strip_prefix('*') {
        Some(below) => host.len() > below.len() && host.ends_with(&below.to_ascii_lowercase()),
        None => named.eq_ignore_ascii_case(host),
    }
}

/// The entries of a list as TOML has them.
pub(super) fn quoted<'a>(entries: impl Iterator<Item = &'a String>) -> String {
    entries
        .map(|entry| format!("{entry:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use batwa_api::policy::{ImageSources, VmBounds};

    use super::*;

    fn policy(vms: VmBounds, images: ImageSources) -> PolicyFile {
        PolicyFile::fixed(Policy {
            file: "/p.toml".to_owned(),
            vms,
            images,
            ..Policy::default()
        })
    }

    #[test]
    fn without_a_word_only_the_machine_bounds_vms_and_any_server_has_images() {
        let none = PolicyFile::default();
        let large = VmSpec {
            cpus: 512,
            memory: ByteSize::gib(4096),
            ..VmSpec::default()
        };
        assert_eq!(none.check_spec(&large), Ok(()));
        assert_eq!(none.check_count(9_999), Ok(()));
        assert_eq!(none.check_url("image", "https://anywhere/x"), Ok(()));
        none.check_image_file("image", Path::new("/etc/passwd"), Path::new("/etc/passwd"))
            .unwrap_err();
    }

    #[test]
    fn a_vm_beyond_the_bounds_is_refused_with_the_line_that_would_allow_it() {
        let bounds = VmBounds {
            count: Some(2),
            cpus: Some(2),
            memory: Some(ByteSize::gib(2)),
            disk: Some(ByteSize::gib(10)),
        };
        let policy = policy(bounds, ImageSources::default());
        let most = VmSpec {
            cpus: 2,
            memory: ByteSize::gib(2),
            disk: ByteSize::gib(10),
            ..VmSpec::default()
        };
        assert_eq!(policy.check_spec(&most), Ok(()));
        let cpus = policy
            .check_spec(&VmSpec {
                cpus: 3,
                ..most.clone()
            })
            .unwrap_err();
        assert_eq!(cpus.field, "cpus");
        insta::assert_snapshot!(cpus.message, @"3 CPUs are more than the 2 that this machine's policy gives a VM");
        insta::assert_snapshot!(cpus.remedy, @"whoever owns the machine can allow it: `cpus = 3` under `[vms]` in /p.toml");
        let resize = ResizeOptions {
            disk: Some(ByteSize::gib(11)),
            ..ResizeOptions::default()
        };
        assert_eq!(policy.check_resize(&resize).unwrap_err().field, "disk");
        assert_eq!(policy.check_count(1), Ok(()));
        assert!(
            policy
                .check_count(2)
                .unwrap_err()
                .remedy
                .contains("count = 3")
        );
    }

    #[test]
    fn images_come_from_the_servers_that_are_named() {
        let images = ImageSources {
            hosts: Some(vec![
                "Images.example.org".to_owned(),
                "*.mirror.net".to_owned(),
            ]),
            files: Vec::new(),
        };
        let policy = policy(VmBounds::default(), images);
        for good in [
            "https://images.example.org/a",
            "https://IMAGES.example.org:8443/a",
            "https://eu.mirror.net/a",
            "https://a.b.mirror.net/a",
        ] {
            assert_eq!(policy.check_url("image", good), Ok(()), "{good}");
        }
        for bad in [
            "https://mirror.net/a",
            "https://evilmirror.net/a",
            "https://images.example.org.evil.net/a",
            "https://images.example.org@evil.net/a",
            "https://evil.net/images.example.org",
            "file:///etc/passwd",
            "nonsense",
        ] {
            let refused = policy.check_url("image", bad).unwrap_err();
            assert!(refused.remedy.contains("hosts = ["), "{bad}: {refused:?}");
        }
    }
}
