//! How a VM's mounts are told: what its record has, its process, and what the VM says itself.

use batwa_api::vm::{Mount, MountState};

use super::{
    super::{record::Record, vms::Seen},
    KeptMount, Plug,
};

/// Why a VM may see no more what it saw.
const LOST: &str = "the VM does not see it any more: it was rebooted from inside without a line for it in `/etc/fstab`, or took it out itself; `mount` it again, or restart the VM";

/// What is known of mounts inside a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Inside<'a> {
    /// It has no process.
    Off,
    /// It has not said lately.
    Unknown,
    /// It has these mounts by 9p: the tag, and where.
    Seen(&'a [(String, String)]),
}

impl<'a> Inside<'a> {
    /// What a VM that runs said of them since they were last brought about.
    pub(in super::super) fn of(seen: &'a Seen) -> Self {
        let said = seen.report.as_ref().and_then(|said| said.mounts.as_deref());
        match said {
            Some(mounts) if seen.mounts_made > 0 => Self::Seen(mounts),
            _ => Self::Unknown,
        }
    }

    fn lacks(&self, mount: &KeptMount) -> bool {
        match self {
            Self::Seen(mounts) => {
                let tag = mount.tag();
                let mut mounts = mounts.iter();
                !mounts.any(|(seen, target)| *seen == tag && *target == mount.target)
            }
            Self::Off | Self::Unknown => false,
        }
    }
}

impl Record {
    /// The mounts as they are told.
    pub(in super::super) fn told_mounts(&self, inside: &Inside<'_>) -> Vec<Mount> {
        let runs = *inside != Inside::Off;
        let is_lost =
            |mount: &KeptMount| mount.plug == Plug::In && !mount.stand_in && inside.lacks(mount);
        let state = |mount: &KeptMount| match (mount.plug, runs) {
            (Plug::Leaving, true) => MountState::UntilStop,
            (_, false) => MountState::AtNextStart,
            (Plug::Waiting | Plug::In, true) if mount.problem.is_some() => MountState::Failed,
            (Plug::Waiting, true) => MountState::AtNextStart,
            (Plug::In, true) if mount.stand_in => MountState::AtNextStart,
            (Plug::In, true) if is_lost(mount) => MountState::Failed,
            (Plug::In, true) => MountState::Mounted,
        };
        self.mounts
            .iter()
            // One that is leaving is gone with the process.
            .filter(|mount| runs || mount.plug != Plug::Leaving)
            .map(|mount| Mount {
                source: mount.source.clone(),
                target: mount.target.clone(),
                read_only: mount.read_only,
                kind: None,
                state: state(mount),
                message: mount
                    .problem
                    .clone()
                    .or_else(|| is_lost(mount).then(|| LOST.to_owned())),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::size::ByteSize;

    use super::*;
    use crate::driver::qemu::{images::Manifest, usage::Report};

    fn record(mounts: Vec<KeptMount>) -> Record {
        let mut record = Record::new(
            batwa_api::name::VmName::parse("web").unwrap(),
            "tiny".to_owned(),
            Manifest::example(),
            1,
            ByteSize::mib(256),
            ByteSize::gib(1),
        );
        record.mounts = mounts;
        record
    }

    fn plugged() -> KeptMount {
        KeptMount {
            source: "/srv".to_owned(),
            target: "/mnt".to_owned(),
            read_only: false,
            plug: Plug::In,
            stand_in: false,
            problem: None,
        }
    }

    #[test]
    fn a_stand_in_is_never_told_as_mounted() {
        let stand_in = KeptMount {
            stand_in: true,
            ..plugged()
        };
        let at = [(stand_in.tag(), "/mnt".to_owned())];
        for inside in [Inside::Unknown, Inside::Seen(&at), Inside::Seen(&[])] {
            let told = record(vec![stand_in.clone()]).told_mounts(&inside);
            assert_eq!(told[0].state, MountState::AtNextStart, "{inside:?}");
        }
        let kept = serde_json::to_string(&stand_in).unwrap();
        assert_eq!(serde_json::from_str::<KeptMount>(&kept).unwrap(), stand_in);
    }

    #[test]
    fn what_the_vm_says_of_its_mounts_counts_once_they_were_made() {
        let mount = plugged();
        let report = |mounts: &[(&str, &str)]| {
            let lines = mounts
                .iter()
                .map(|(tag, target)| format!("{tag} {target} 9p rw 0 0\n"));
            Report::parse(&format!("@mounts\n{}", lines.collect::<String>()))
        };
        let state = |mounts_made, mounts: &[(&str, &str)]| {
            let seen = Seen {
                report: Some(report(mounts)),
                mounts_made,
                ..Seen::default()
            };
            let told = record(vec![mount.clone()]).told_mounts(&Inside::of(&seen));
            (told[0].state, told[0].message.is_some())
        };
        let tag = mount.tag();
        assert_eq!(state(0, &[]), (MountState::Mounted, false));
        assert_eq!(state(1, &[(&tag, "/mnt")]), (MountState::Mounted, false));
        assert_eq!(state(1, &[]), (MountState::Failed, true));
        assert_eq!(state(1, &[(&tag, "/else")]), (MountState::Failed, true));
        assert_eq!(state(1, &[("batwa-0", "/mnt")]), (MountState::Failed, true));
    }
}
