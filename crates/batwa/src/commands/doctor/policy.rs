//! What the doctor says of the machine's policy.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use batwa_agent::policy::{FILE, PolicyFile};
use batwa_api::policy::Policy;

use super::{Check, Verdict, check};
use crate::config;

/// What the policy allows, in the file that was named or in the folder of each agent here.
pub(super) fn checks_of(named: Option<PathBuf>, state_dir: Option<&Path>) -> Vec<Check> {
    let places = match (named, state_dir) {
        (Some(path), _) => vec![(None, path)],
        (None, Some(dir)) => usual(dir),
        (None, None) => Vec::new(),
    };
    places
        .into_iter()
        .map(|(agent, path)| check_of(agent, path))
        .collect()
}

fn check_of(agent: Option<String>, path: PathBuf) -> Check {
    let name = agent.map_or_else(|| "policy".to_owned(), |id| format!("policy of {id}"));
    let shown = path.display().to_string();
    match PolicyFile::open(path, Vec::new()) {
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
    }
}

/// Where the agents of this state folder have theirs: the one whose own folder it is; or the one inside `batwa up`, and
/// those by themselves, each with its id.
fn usual(state_dir: &Path) -> Vec<(Option<String>, PathBuf)> {
    let own = state_dir.join(FILE);
    if own.exists() {
        return vec![(None, own)];
    }
    let inside_up = state_dir.join(config::LOCAL_AGENT_DIR);
    let ids: BTreeSet<String> = std::fs::read_dir(state_dir.join(config::AGENTS_DIR))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let mut places = Vec::new();
    if inside_up.exists() || ids.is_empty() {
        places.push((None, inside_up.join(FILE)));
    }
    let agents = state_dir.join(config::AGENTS_DIR);
    places.extend(ids.into_iter().map(|id| {
        let path = agents.join(&id).join(FILE);
        (Some(id), path)
    }));
    places
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
    fn the_policy_of_each_agent_here_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let found = || {
            let checks = checks_of(None, Some(state)).into_iter();
            checks
                .map(|check| {
                    (
                        check.name,
                        check.finding.replace(&state.display().to_string(), "S"),
                    )
                })
                .collect::<Vec<_>>()
        };
        let none = "VMs as large as the machine; images from any server; no image files of this machine; no mounts; none of its networks; no forwards";
        let policy = |name: &str, finding: String| (name.to_owned(), finding);
        assert_eq!(
            found(),
            [policy("policy", format!("no S/agent/policy.toml: {none}"))]
        );

        for id in ["q2", "q1"] {
            std::fs::create_dir_all(state.join("agents").join(id)).unwrap();
        }
        std::fs::write(state.join("agents/q1/policy.toml"), "[vms]\ncount = 1\n").unwrap();
        let q1 = none.replace("VMs as large as the machine", "at most 1 VMs");
        let q1 = policy("policy of q1", format!("S/agents/q1/policy.toml: {q1}"));
        let q2 = policy(
            "policy of q2",
            format!("no S/agents/q2/policy.toml: {none}"),
        );
        assert_eq!(found(), [q1.clone(), q2.clone()]);

        std::fs::create_dir(state.join("agent")).unwrap();
        let local = policy("policy", format!("no S/agent/policy.toml: {none}"));
        assert_eq!(found(), [local, q1, q2]);

        // A folder that is an agent's own, as `--state-dir` names it.
        let own = checks_of(None, Some(&state.join("agents/q1")));
        assert_eq!(own.len(), 1);
        assert!(
            own[0].finding.contains("at most 1 VMs"),
            "{}",
            own[0].finding
        );
    }

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
