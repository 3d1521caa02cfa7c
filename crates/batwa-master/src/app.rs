//! The use cases. Handlers call these with plain values; nothing here knows HTTP or SQL.

pub(crate) mod audit;
pub(crate) mod auth;
mod error;
pub(crate) mod keeper;

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use error::Error;

use crate::{config::MasterConfig, fleet::Fleet, store::Store};

/// What every handler is given. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: MasterConfig,
    store: Store,
    fleet: Arc<Fleet>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl App {
    /// Puts the parts together; `stopping` is cancelled when the master begins to shut down.
    pub(crate) fn new(config: MasterConfig, store: Store, stopping: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            store,
            fleet: Arc::new(Fleet::new(
                config
                    .local_agent
                    .as_ref()
                    .map(|agent| agent.connect.clone()),
                stopping.clone(),
            )),
            config,
            tasks: TaskTracker::new(),
            stopping,
        }))
    }

    /// The settings.
    pub(crate) fn config(&self) -> &MasterConfig {
        &self.0.config
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The fleet.
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.0.fleet
    }

    /// Owns tasks that outlive the request that began them: a terminal's two directions, a running operation.
    ///
    /// They must end soon after [`Self::stopping`]; the shutdown waits for them, but not for ever.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Cancelled when the master begins to shut down: streams and WebSockets end then.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// Whether requests can be served in full; otherwise the reason.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.store().ping().await?;
        if self.fleet().is_ready() {
            Ok(())
        } else {
            Err(Error::Unavailable("the fleet is still being loaded"))
        }
    }
}
