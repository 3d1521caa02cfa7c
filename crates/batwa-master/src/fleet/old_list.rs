//! The old `GET /api/vm/list`, kept as the bytes that go out until something in it changes.

use std::sync::Mutex;

use batwa_api::{agent::AgentStatus, id::AgentId, legacy::state_name};
use bytes::Bytes;
use serde::Serialize;

use super::state::State;

/// The last answer and what it was made from.
#[derive(Default)]
pub(super) struct OldListCache(Mutex<Option<(u64, Bytes)>>);

#[derive(Serialize)]
struct OldList<'a> {
    success: bool,
    vms: Vec<OldVm<'a>>,
    unreachable: Vec<&'a AgentId>,
}

#[derive(Serialize)]
struct OldVm<'a> {
    name: &'a str,
    state: &'static str,
    ipv4: &'a [String],
    release: &'a str,
    agent_id: Option<&'a AgentId>,
    agent_hostname: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

impl OldListCache {
    /// The answer for `state`.
    pub(super) fn get(&self, state: &State) -> Bytes {
        let mut cached = self.0.lock().expect("no holder panics");
        if let Some((revision, bytes)) = &*cached
            && *revision == state.list_revision
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(old_list(state));
        *cached = Some((state.list_revision, bytes.clone()));
        bytes
    }
}

/// The master's own VMs first, then the others by agent and name.
fn old_list(state: &State) -> Vec<u8> {
    let rows = state.vms.by_agent().values().flatten();
    let (own, others): (Vec<_>, Vec<_>) = rows
        .map(|(_, slot)| state.vms.row(*slot))
        // Here gone is gone: nobody who reads this list knows of missing VMs.
        .filter(|row| row.missing_since.is_none())
        .partition(|row| row.agent.is_local());
    let vms = own
        .into_iter()
        .chain(others)
        .filter_map(|row| {
            let entry = state.agents.get(&row.agent)?;
            let local = row.agent.is_local();
            let vm = &row.vm;
            Some(OldVm {
                name: vm.name.as_str(),
                state: state_name(vm.state),
                ipv4: &vm.ipv4,
                release: vm
                    .release
                    .as_deref()
                    .or(vm.image.as_deref())
                    .unwrap_or_default(),
                agent_id: (!local).then_some(&row.agent),
                agent_hostname: if local {
                    "local"
                } else {
                    entry
                        .record
                        .as_ref()
                        .map_or("", |record| record.hostname.as_str())
                },
                stale: entry.why_stale(vm).is_some(),
            })
        })
        .collect();
    let unreachable = state
        .agents
        .iter()
        .filter(|(_, entry)| {
            matches!(
                entry.standing.status,
                AgentStatus::Offline | AgentStatus::Error
            )
        })
        .map(|(id, _)| id)
        .collect();
    let list = OldList {
        success: true,
        vms,
        unreachable,
    };
    serde_json::to_vec(&list).expect("the list is plain data")
}
