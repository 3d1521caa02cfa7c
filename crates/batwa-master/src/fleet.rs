//! What is known of agents and VMs, with its age.

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// The fleet: in memory, rebuilt from the store at start and from the agents as they connect.
#[derive(Debug, Default)]
pub(crate) struct Fleet;

impl Fleet {
    /// Keeps the fleet up to date until `stop`.
    pub(crate) async fn run(self: std::sync::Arc<Self>, _app: App, stop: CancellationToken) {
        stop.cancelled().await;
    }

    /// Whether lists can be answered.
    pub(crate) fn is_ready(&self) -> bool {
        true
    }
}
