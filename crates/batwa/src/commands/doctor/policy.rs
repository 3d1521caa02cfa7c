//! What the doctor says of the machine's policy.

use std::path::{Path, PathBuf};

use batwa_agent::policy::{FILE, PolicyFile};
use batwa_api::policy::Policy;

use super::{Check, Verdict, check};
use crate::config;

/// What the policy allows, in the file that was named or in the folder that would be used.
pub(super) fn check_of(named: Option<PathBuf>, state_dir: Option<&Path>) -> Option<Check> {
    let name = "policy";
    let path = match named {
        Some(path) => path,
        None => usual(state_dir?),
    };
    let shown = path.display().to_string();
    Some(match PolicyFile::open(path, Vec::new()) {
        Ok(policy) => {
            let policy = policy.current();
            let says = says(&policy).join("; ");
            let finding = if policy.written {
                format!("{shown}: {says}")
            } else {
                format!("no {shown}: {says}")
            };
            check(name, Verdict::Ok, finding)
        }
        Err(error) => check(name, Verdict::Bad, error.to_string())
            .repair("mend the file, or move it away; docs/policy.md says what it may hold. The agent does not start with it as it is"),
    })
}

/// Where the agent of this state folder has it: the one inside `batwa up`, or one by itself.
fn usual(state_dir: &Path) -> PathBuf {
    let own = state_dir.join(FILE);
    if own.exists() {
        own
    } else {
        state_dir.join(config::LOCAL_AGENT_DIR).join(FILE)
    }
}

/// What a policy allows, in a few words each.
fn says(policy: &Policy) -> Vec<String> {
    let vms = policy.vms;
    let mut words = Vec::new();
    let each = [
        vms.cpus.map(|cpus| format!("{cpus} CPUs")),
        vms.memory.map(|size| format!("{size} memory")),
        vms.disk.map(|size| format!("{size} disk")),
    ];
    let each: Vec<String> = each.into_iter().flatten().collect();
    words.push(match (vms.count, each.is_empty()) {
        (Some(count), true) => format!("at most {count} VMs"),
        (Some(count), false) => format!("at most {count} VMs of at most {}", each.join(", ")),
        (None, false) => format!("VMs of at most {}", each.join(", ")),
        (None, true) => "VMs as large as the machine".to_owned(),
    });
    words.push(match policy.images.hosts.as_deref() {
        None => "images from any server".to_owned(),
        Some([]) => "images from no server".to_owned(),
        Some(hosts) => format!("images from {}", hosts.join(", ")),
    });
    words.push(match policy.images.files.as_slice() {
        [] => "no image files of this machine".to_owned(),
        folders => format!("image files in {}", folders.join(", ")),
    });
    let roots: Vec<String> = policy
        .mounts
        .iter()
        .map(|root| {
            let how = if root.read_only { " (to read)" } else { "" };
            format!("{}{how}", root.path)
        })
        .collect();
    words.push(if roots.is_empty() {
        "no mounts".to_owned()
    } else {
        format!("mounts of {}", roots.join(", "))
    });
    words.push(match policy.bridges.as_slice() {
        [] => "none of its networks".to_owned(),
        networks => format!("its networks {}", networks.join(", ")),
    });
    words.push(match policy.forwards.as_slice() {
        [] => "no forwards".to_owned(),
        addresses => format!("forwards on {}", addresses.join(", ")),
    });
    words
}

#[cfg(test)]
mod tests {
    use batwa_api::policy::{ImageSources, MountRoot, VmBounds};

    use super::*;

    #[test]
    fn a_policy_is_told_in_a_line() {
        let told = |policy: &Policy| says(policy).join("; ");
        insta::assert_snapshot!(told(&Policy::default()), @"VMs as large as the machine; images from any server; no image files of this machine; no mounts; none of its networks; no forwards");
        let policy = Policy {
            vms: VmBounds {
                count: Some(5),
                cpus: Some(2),
                ..VmBounds::default()
            },
            images: ImageSources {
                hosts: Some(vec!["a.example".to_owned()]),
                files: vec!["/srv/images".to_owned()],
            },
            mounts: [("/srv/share", false), ("/srv/iso", true)]
                .map(|(path, read_only)| MountRoot {
                    path: path.to_owned(),
                    read_only,
                })
                .into(),
            bridges: vec!["br0".to_owned()],
            forwards: vec!["127.0.0.1:8000-8999".to_owned()],
            ..Policy::default()
        };
        insta::assert_snapshot!(told(&policy), @"at most 5 VMs of at most 2 CPUs; images from a.example; image files in /srv/images; mounts of /srv/share, /srv/iso (to read); its networks br0; forwards on 127.0.0.1:8000-8999");
    }
}
