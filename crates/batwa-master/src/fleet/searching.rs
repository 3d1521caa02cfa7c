//! Searches run apart from the tasks that answer requests: as many at once as there are processors, the others wait.
//!
//! A search looks through texts and sets for up to some milliseconds. On the runtime's own threads a few impatient
//! clients would hold up everybody: database answers would lie there unread until their time was over.

use std::{sync::Arc, time::Duration};

use batwa_api::list::{AgentList, VmList};
use tokio::{sync::Semaphore, time::timeout};

use super::{Fleet, agent_list::AgentQuery, query::VmQuery, state::State};

/// How long a search waits for its turn: on a machine that is busy with other things its clients still get their answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Searches that wait at a time; a waiting one costs next to nothing, but nobody reads a thousand answers.
const MAX_WAITING: usize = 1024;

/// The turns that searches take.
pub(super) struct Searches {
    turns: Semaphore,
    places: Semaphore,
}

impl Default for Searches {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            turns: Semaphore::new(processors),
            places: Semaphore::new(MAX_WAITING),
        }
    }
}

/// Too many searches wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManySearches;

impl Fleet {
    /// One page of VMs.
    pub(crate) async fn list_vms(
        self: &Arc<Self>,
        query: VmQuery,
    ) -> Result<VmList, TooManySearches> {
        self.look();
        if query.is_search() {
            self.search(move |state| state.list_vms(&query)).await
        } else {
            Ok(self.read(|state| state.list_vms(&query)))
        }
    }

    /// One page of agents.
    pub(crate) async fn list_agents(
        self: &Arc<Self>,
        query: AgentQuery,
    ) -> Result<AgentList, TooManySearches> {
        self.look();
        self.search(move |state| state.list_agents(&query)).await
    }

    async fn search<T: Send + 'static>(
        self: &Arc<Self>,
        search: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, TooManySearches> {
        let Searches { turns, places } = &self.searches;
        let _place = places.try_acquire().map_err(|_| TooManySearches)?;
        let turn = timeout(PATIENCE, turns.acquire()).await;
        let _turn = turn
            .map_err(|_| TooManySearches)?
            .expect("the turns are never closed");
        let fleet = self.clone();
        let found = tokio::task::spawn_blocking(move || fleet.read(search)).await;
        Ok(found.expect("a search does not panic, and nobody cancels it"))
    }
}
