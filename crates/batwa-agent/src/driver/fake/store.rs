//! Where fake VMs are kept: one JSON file, replaced at each step, so that they outlive the agent.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use batwa_api::{
    Timestamp,
    name::{SnapshotName, VmName},
    size::ByteSize,
    vm::{Mount, VmNetwork, VmState},
};
use serde::{Deserialize, Serialize};

use super::snapshots::FakeSnapshot;

/// One fake VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FakeVm {
    pub(super) state: VmState,
    pub(super) image: String,
    pub(super) cpus: u32,
    pub(super) memory: ByteSize,
    pub(super) disk: ByteSize,
    /// The last part of its address.
    pub(super) host: u16,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    /// What it was before it went to the trash.
    pub(super) before_trash: Option<VmState>,
    /// The oldest first.
    #[serde(default)]
    pub(super) snapshots: Vec<FakeSnapshot>,
    /// The snapshot that its disk goes on from.
    #[serde(default)]
    pub(super) came_from: Option<SnapshotName>,
    /// The folders of this machine that it is said to see.
    #[serde(default)]
    pub(super) mounts: Vec<Mount>,
    /// Its network cards beside the first.
    #[serde(default)]
    pub(super) networks: Vec<VmNetwork>,
    /// Whether it ended without having been asked to, and was not started since.
    #[serde(default)]
    pub(super) crashed: bool,
}

pub(super) type FakeVms = BTreeMap<VmName, FakeVm>;

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The VMs as last saved; `None` when never saved.
    pub(super) fn load(&self) -> io::Result<Option<FakeVms>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut vms: FakeVms = serde_json::from_slice(&text)?;
        for vm in vms.values_mut() {
            vm.state = settled(vm.state);
        }
        Ok(Some(vms))
    }

    /// Replaces the file at once: a reader, also after a crash of this process, sees the old or the new.
    pub(super) fn save(&self, vms: &FakeVms) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(vms)?)?;
        fs::rename(new, &self.path)
    }
}

/// Where a real VM would have got to by itself while nobody watched; a half-made one stays half-made.
fn settled(state: VmState) -> VmState {
    match state {
        VmState::Starting | VmState::Restarting => VmState::Running,
        VmState::Stopping => VmState::Stopped,
        VmState::Suspending => VmState::Suspended,
        other => other,
    }
}
