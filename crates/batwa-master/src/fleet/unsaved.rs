//! What waits to be written down. The fleet marks it; `app::keeper` fetches it, and says what the store could not take.

use std::sync::Arc;

use batwa_api::{agent::LinkChange, id::AgentId, name::VmName};

use super::{Fleet, row::Row};

/// A VM and the last word on it; nothing when it is gone.
pub(crate) type LastWord = ((AgentId, VmName), Option<Arc<Row>>);

impl Fleet {
    /// Resolves when something waits to be written down.
    pub(crate) async fn unsaved(&self) {
        self.unsaved.notified().await;
    }

    /// The VMs that are to be written down; [`Self::words_of`] has what is to be written of each.
    pub(crate) fn take_unsaved_vms(&self) -> Vec<(AgentId, VmName)> {
        let mut state = self.state.write().expect("no writer panics");
        let taken = std::mem::take(&mut state.unsaved);
        // Not under the lock: they may be a hundred thousand.
        drop(state);
        taken.into_iter().collect()
    }

    /// The last word on each of these VMs, or nothing when it is gone.
    pub(crate) fn words_of(&self, vms: &[(AgentId, VmName)]) -> Vec<LastWord> {
        self.read(|state| {
            vms.iter()
                .map(|key| (key.clone(), state.vms.get(&key.0, &key.1).cloned()))
                .collect()
        })
    }

    /// Says that the store could not take these after all.
    pub(crate) fn vms_still_unsaved(&self, keys: &[(AgentId, VmName)]) {
        let mut state = self.state.write().expect("no writer panics");
        state.unsaved.extend(keys.iter().cloned());
        drop(state);
        self.unsaved.notify_one();
    }

    /// Changes of an agent's link that are not written down yet, the newest first.
    pub(crate) fn unsaved_links(&self, agent: &AgentId) -> Vec<LinkChange> {
        self.read(|state| {
            let changes = state.link_changes.iter().rev();
            changes
                .filter(|(id, _)| id == agent)
                .map(|(_, change)| change.clone())
                .collect()
        })
    }

    /// Changes of links to be written down, the oldest first; [`Self::links_saved`] says that they were.
    pub(crate) fn links_to_save(&self) -> Vec<(AgentId, LinkChange)> {
        self.read(|state| state.link_changes.iter().cloned().collect())
    }

    /// Says that these are written down.
    pub(crate) fn links_saved(&self, saved: &[(AgentId, LinkChange)]) {
        let mut state = self.state.write().expect("no writer panics");
        for change in saved {
            // The oldest may have been dropped meanwhile.
            if state.link_changes.front() == Some(change) {
                state.link_changes.pop_front();
            }
        }
    }
}
