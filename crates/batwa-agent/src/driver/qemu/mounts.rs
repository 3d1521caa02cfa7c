//! Folders of this machine that a VM sees, by 9p.
//!
//! QEMU takes such a folder only when it starts, so a VM that runs comes to see a new one at its next start, and loses
//! one that is taken out of it for good when it stops. In between, this is written down of each:
//!
//! ```text
//! mount ─► Waiting ──power-on──► In ──umount──► Leaving ──power-on──► gone
//!             └──umount──► gone   └─ off: umount ─► gone
//! ```
//!
//! A VM that goes on from memory is given an empty folder, a stand-in, where it may not see what it saw then. That is
//! never taken for the real one: it is mounted nowhere, nothing can be written in it, and the next boot does without.
//!
//! Safe, and why: the folder is opened beneath a root that the policy names ([`Folder`]), anew at each power-on, and QEMU
//! is given the open folder, not its name. Inside it QEMU follows no links of this machine, and what the VM makes as
//! links, owners and device files is kept as data (`mapped-xattr`), so a VM cannot make a way out for itself or others.

mod told;

use std::{sync::Arc, time::Duration};

use batwa_api::{
    name::VmName,
    operation::Stage,
    vm::{MAX_MOUNTS, Mount, MountKind, MountOptions, MountState},
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::time::timeout;

pub(super) use self::told::Inside;
use super::{
    files,
    inside::sign_in,
    machine::{From, Share},
    power::ssh_failed,
    record::Record,
    vms::{Vm, Vms},
};
use crate::{
    driver::{DriverError, Progress, inside::quoted},
    policy::Folder,
};

/// How long a VM may take over one mount, on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the VM's kernel speaks to QEMU: the variant made for Linux, in pieces as large as it can take.
const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=262144";
/// The folder, in the VM's own, that stands where a VM may not see what it saw.
const NOTHING: &str = "nothing";

/// A folder of this machine that a VM sees, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMount {
    source: String,
    target: String,
    read_only: bool,
    plug: Plug,
    /// Whether what the process has in its name is an empty folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stand_in: bool,
    /// Why the VM does not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// How a folder and the VM's process stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Plug {
    /// The process was started without it.
    Waiting,
    /// The process has it.
    In,
    /// The process has it, and is not to have it the next time.
    Leaving,
}

impl KeptMount {
    fn new(options: &MountOptions) -> Self {
        Self {
            source: options.source.clone(),
            target: options.target.clone(),
            read_only: options.read_only,
            plug: Plug::Waiting,
            stand_in: false,
            problem: None,
        }
    }

    /// The name by which the VM's kernel asks for it. The same for the same folder at the same place and for no other,
    /// as it may stand in a table of file systems that a snapshot brings back.
    fn tag(&self) -> String {
        let text = format!("{}\0{}\0{}", self.source, self.target, self.read_only);
        format!("batwa-{}", hex::encode(&sha2::Sha256::digest(text)[..8]))
    }

    fn is(&self, options: &MountOptions) -> bool {
        self.source == options.source && self.read_only == options.read_only
    }
}

impl Vms {
    /// Opens the folders that a VM is to see from its power-on on, and writes down which; they have to stay open until
    /// QEMU has them. A folder that it may not see, or that is not there, keeps no VM from starting: the mount says why.
    ///
    /// A VM that goes on from memory needs each device that it had then. Its folders were taken out of it before it was
    /// suspended, so where one may not be seen any more an empty one stands for it, in which it cannot write.
    pub(super) fn shares(
        &self,
        vm: &Vm,
        from: From,
    ) -> Result<(Vec<Share>, Vec<Folder>), DriverError> {
        let (mut shares, mut folders) = (Vec::new(), Vec::new());
        let mut mounts = vm.record().mounts;
        if from == From::Boot {
            mounts.retain(|mount| mount.plug != Plug::Leaving);
        }
        for mount in &mut mounts {
            if from == From::Memory && mount.plug == Plug::Waiting {
                continue;
            }
            let opened = match (from, mount.plug) {
                (From::Memory, Plug::Leaving) => None,
                _ => match self.policy().folder(&mount.source, mount.read_only) {
                    Ok(folder) => {
                        mount.problem = None;
                        Some(folder)
                    }
                    Err(error) => {
                        mount.problem = Some(error.to_string());
                        None
                    }
                },
            };
            mount.stand_in = from == From::Memory && opened.is_none();
            let path = match (&opened, from) {
                (Some(folder), _) => folder.pass(),
                (None, From::Memory) => {
                    let nothing = vm.dir.file(NOTHING);
                    files::make_dir(&nothing)?;
                    nothing
                }
                (None, From::Boot) => {
                    mount.plug = Plug::Waiting;
                    continue;
                }
            };
            if from == From::Boot {
                mount.plug = Plug::In;
            }
            shares.push(Share {
                tag: mount.tag(),
                path,
                read_only: mount.read_only || mount.stand_in,
            });
            folders.extend(opened);
        }
        vm.update(|record| record.mounts = mounts)?;
        Ok((shares, folders))
    }

    /// Lets a VM see a folder.
    pub(super) async fn mount(
        &self,
        name: &VmName,
        options: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        progress.stage(Stage::Mounting);
        if options.kind == Some(MountKind::Classic) {
            return Err(DriverError::Invalid {
                field: "type",
                message: "VMs of QEMU have no classic mounts: leave it out".to_owned(),
            });
        }
        drop(self.policy().folder(&options.source, options.read_only)?);
        let mut mounts = vm.record().mounts;
        let full = mounts.len() >= MAX_MOUNTS;
        let there = mounts
            .iter_mut()
            .find(|mount| mount.target == options.target);
        match there {
            Some(there) if there.is(options) => {
                // Its device is still there.
                if there.plug == Plug::Leaving {
                    there.plug = Plug::In;
                }
                if there.stand_in {
                    there.problem = None;
                    progress.log("the VM sees it from its next start on");
                }
            }
            Some(there) if there.plug == Plug::Leaving => {
                return Err(DriverError::IllegalState(format!(
                    "{} leaves {} only when VM `{name}` is stopped: restart it first",
                    there.source, there.target
                )));
            }
            Some(there) => {
                return Err(DriverError::Invalid {
                    field: "target",
                    message: format!(
                        "{} is mounted at {} already: `umount` that first",
                        there.source, there.target
                    ),
                });
            }
            None if full => {
                return Err(DriverError::too_many_mounts(name));
            }
            None => {
                progress.log("the VM sees it from its next start on");
                mounts.push(KeptMount::new(options));
            }
        }
        vm.update(|record| record.mounts = mounts)?;
        self.mount_inside(&vm, progress).await;
        self.changed();
        let inside = match vm.process() {
            None => Inside::Off,
            Some(_) => Inside::Unknown,
        };
        let told = vm.record().told_mounts(&inside);
        match told
            .into_iter()
            .find(|mount| mount.target == options.target)
        {
            Some(Mount {
                state: MountState::Failed,
                message,
                ..
            }) => Err(DriverError::Failed {
                detail: format!(
                    "VM `{name}` does not see {}: {}",
                    options.source,
                    message.unwrap_or_default()
                ),
                hint: Some("it is tried again at each start; `umount` gives it up".to_owned()),
                log: Vec::new(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes a folder, or all of them, out of a VM.
    pub(super) async fn umount(
        &self,
        name: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let vm = self.get(name)?;
        progress.stage(Stage::Unmounting);
        let is_meant = |mount: &KeptMount| target.is_none_or(|target| mount.target == target);
        let runs = vm.process().is_some();
        let mut taken = Ok(());
        if runs {
            for mount in in_process(&vm.record()).filter(is_meant) {
                taken = take_out(&vm, &mount, Table::Forget).await;
                if taken.is_err() {
                    break;
                }
                // One by one: where a later one stays, this one is out all the same.
                vm.update(|record| {
                    let kept = record.mounts.iter_mut();
                    for kept in kept.filter(|kept| kept.target == mount.target) {
                        kept.plug = Plug::Leaving;
                        kept.problem = None;
                    }
                })?;
            }
        }
        if taken.is_ok() {
            vm.update(|record| {
                record
                    .mounts
                    .retain(|mount| !is_meant(mount) || (runs && mount.plug == Plug::Leaving));
            })?;
        }
        self.changed();
        taken
    }

    /// Takes all folders out of a VM that is to be suspended: its memory cannot be kept while it uses one. Where one
    /// stays, those that were taken out come back.
    pub(super) async fn take_all_out(
        &self,
        vm: &Arc<Vm>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        for (at, mount) in in_process(&vm.record()).enumerate() {
            if let Err(error) = take_out(vm, &mount, Table::Keep).await {
                if at > 0 {
                    self.mount_inside(vm, progress).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets a VM that runs see the folders that its process has. What does not work is written down with the mount: a
    /// folder that is missing is no reason for a VM not to count as started.
    pub(super) async fn mount_inside(&self, vm: &Arc<Vm>, progress: &Progress) {
        if vm.process().is_none() {
            return;
        }
        for mount in in_process(&vm.record()).filter(|mount| !mount.stand_in) {
            let allowed = self.policy().folder(&mount.source, mount.read_only);
            let problem = match allowed {
                Err(error) => Some(error.to_string()),
                Ok(_) => {
                    let read_only = if mount.read_only { ",ro" } else { "" };
                    let options = format!("{OPTIONS}{read_only}");
                    let words = [mount.tag(), mount.target.clone(), options];
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    match run(vm, MOUNT, &words).await {
                        Ok(Ok(())) => None,
                        Ok(Err(why)) => Some(why),
                        Err(error) => Some(error.to_string()),
                    }
                }
            };
            if let Some(problem) = &problem {
                progress.log(format!("cannot mount {}: {problem}", mount.target));
            }
            let noted = vm.update(|record| {
                let kept = record.mounts.iter_mut();
                if let Some(kept) = kept.into_iter().find(|kept| kept.target == mount.target) {
                    kept.problem = problem;
                }
            });
            if let Err(error) = noted {
                progress.log(error.to_string());
            }
        }
        vm.mounts_were_made();
        self.changed();
    }
}

/// The folders that a VM's process has, or has a stand-in for, and the VM is to see.
fn in_process(record: &Record) -> impl Iterator<Item = KeptMount> + use<> {
    let mounts = record.mounts.clone();
    mounts.into_iter().filter(|mount| mount.plug == Plug::In)
}

/// What becomes of a mount's line in the VM's table of file systems, by which it comes back after a reboot from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Keep,
    Forget,
}

/// Takes a folder out of a VM that runs.
async fn take_out(vm: &Arc<Vm>, mount: &KeptMount, table: Table) -> Result<(), DriverError> {
    let table = match table {
        Table::Keep => "keep",
        Table::Forget => "forget",
    };
    let done = run(vm, UMOUNT, &[&mount.tag(), &mount.target, table]).await?;
    done.map_err(|why| DriverError::Failed {
        detail: format!(
            "cannot take {} out of VM `{}`: {why}",
            mount.target,
            vm.record().name
        ),
        hint: Some("end what uses it inside the VM, or stop the VM first".to_owned()),
        log: Vec::new(),
    })
}

/// Mounts `$1` at `$2` with the options `$3`, unless it is. Images without a table of file systems do without.
const MOUNT: &str = r#"while read -r device where type rest; do
  [ "$device $where $type" = "$1 $2 9p" ] && exit 0
done </proc/mounts
modprobe 9pnet_virtio 2>/dev/null
modprobe 9p 2>/dev/null
grep -qw 9p /proc/filesystems || { echo "its kernel knows no 9p file systems"; exit 1; }
mkdir -p "$2" && mount -t 9p -o "$3" "$1" "$2" || exit 1
if [ -w /etc/fstab ]; then
  sed -i "/^$1 /d" /etc/fstab
  echo "$1 $2 9p $3,nofail 0 0" >>/etc/fstab
fi
exit 0"#;

/// Takes `$1` away from `$2`, if it is there, and out of the table of file systems where `$3` is `forget`.
const UMOUNT: &str = r#"while read -r device where type rest; do
  [ "$device $where $type" = "$1 $2 9p" ] || continue
  umount "$2" || exit 1
done </proc/mounts
[ "$3" = forget ] && [ -w /etc/fstab ] && sed -i "/^$1 /d" /etc/fstab
exit 0"#;

/// Runs a script as root inside a VM, with these words; what it said when it failed.
async fn run(
    vm: &Arc<Vm>,
    script: &str,
    words: &[&str],
) -> Result<Result<(), String>, DriverError> {
    let record = vm.record();
    let name = &record.name;
    let mut line = vec!["sh", "-c", script, "batwa"];
    line.extend(words);
    let mut line = quoted(line);
    if record.manifest.user != "root" {
        line = format!("sudo -n {line}");
    }
    let work = async {
        let (session, _) = sign_in(name, vm).await?;
        let output = session.run(&line).await;
        session.close().await;
        output.map_err(|error| ssh_failed(name, &error))
    };
    let output = timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        Err(DriverError::Timeout(format!(
            "VM `{name}` did not answer within {} s",
            PATIENCE.as_secs()
        )))
    })?;
    Ok(if output.status == Some(0) {
        Ok(())
    } else {
        let said = output.text.trim().lines().next_back().unwrap_or_default();
        Err(said.chars().take(300).collect())
    })
}
