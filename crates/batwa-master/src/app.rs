//! The use cases. Handlers call these with plain values; nothing here knows HTTP or SQL.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod auth;
mod error;
pub(crate) mod images;
pub(crate) mod inside;
pub(crate) mod join_tokens;
pub(crate) mod keeper;
mod machines;
mod networks;
pub(crate) mod operations;
pub(crate) mod program;
pub(crate) mod recordings;
pub(crate) mod sessions;
pub(crate) mod setup;
mod ssh_keys;
mod templates;
pub(crate) mod terminals;
pub(crate) mod tokens;
pub(crate) mod tunnels;
pub(crate) mod users;
pub(crate) mod vms;

use std::{net::SocketAddr, sync::Arc};

use batwa_routes::Finisher;
use batwa_tls::ServedCertificate;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use error::Error;

use batwa_tunnel::Identity;

use self::{audit::Refusals, auth::Auth, program::Program, setup::SetupCode, tunnels::Handshakes};
use crate::{config::MasterConfig, fleet::Fleet, store::Store};

/// What every handler is given. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: MasterConfig,
    address: SocketAddr,
    store: Store,
    certificate: Option<Arc<ServedCertificate>>,
    identity: Identity,
    program: Program,
    handshakes: Arc<Handshakes>,
    auth: Auth,
    refusals: Refusals,
    setup: SetupCode,
    fleet: Arc<Fleet>,
    requests: Finisher,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl App {
    /// Puts the parts together for a master that listens on `address`, shows `certificate` there, and is `identity` to
    /// agents that dial in.
    pub(crate) fn new(
        config: MasterConfig,
        address: SocketAddr,
        store: Store,
        certificate: Option<Arc<ServedCertificate>>,
        identity: Identity,
    ) -> Self {
        let stopping = CancellationToken::new();
        let local = config
            .local_agent
            .as_ref()
            .map(|agent| agent.connect.clone());
        Self(Arc::new(Inner {
            setup: SetupCode::new(&config.state_dir),
            program: Program::new(config.executable.clone()),
            handshakes: Arc::default(),
            identity,
            config,
            address,
            store,
            certificate,
            auth: Auth::default(),
            refusals: Refusals::default(),
            fleet: Arc::new(Fleet::new(local, stopping.clone())),
            requests: Finisher::default(),
            tasks: TaskTracker::new(),
            stopping,
        }))
    }

    /// The settings.
    pub(crate) fn config(&self) -> &MasterConfig {
        &self.0.config
    }

    /// The address the master listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The certificate that the port shows, when it speaks TLS itself.
    pub(crate) fn certificate(&self) -> Option<&Arc<ServedCertificate>> {
        self.0.certificate.as_ref()
    }

    /// Who this master is to agents that dial in.
    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The program that it runs.
    pub(crate) fn program(&self) -> &Program {
        &self.0.program
    }

    /// Handshakes of tunnels under way.
    pub(crate) fn handshakes(&self) -> &Arc<Handshakes> {
        &self.0.handshakes
    }

    /// Passwords, failed attempts, and what was withdrawn.
    pub(crate) fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The fleet.
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.0.fleet
    }

    /// Owns the requests that change something: they are finished though their caller hangs up.
    pub(crate) fn requests(&self) -> &Finisher {
        &self.0.requests
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
