//! Batwa's agent: drives the VMs of one machine and serves the agent API.
//!
//! The binary makes an [`Agent`], serves its [`Agent::router`] on the links it has, and runs [`Agent::run`]
//! until it is told to stop. Stopping an agent never stops a VM.

pub mod config;
pub mod driver;
mod execute;
pub mod host;
mod http;
mod inside;
mod networks;
mod operations;
pub mod policy;
mod recording;
mod registration;
mod state_dir;
mod terminal;
pub mod tunnel;
mod upkeep;
mod vms;
mod watch;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use batwa_api::{
    PROTOCOL_VERSION, Timestamp,
    agent::{AgentInfo, DriverKind},
    policy::Policy,
};
use batwa_routes::Finisher;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

pub use batwa_tls::{CertificateSource, ServedCertificate, TlsError};

pub use self::{
    config::{AgentConfig, Allow, Deadlines, DriverChoice, Limits},
    driver::{DriverError, fake::FakeSettings},
    http::openapi,
    recording::RecordingLimits,
    state_dir::StateDirError,
    upkeep::Clock,
};
use self::{
    driver::Driver,
    http::{App, Inner},
    inside::Inside,
    operations::Operations,
    policy::{PolicyError, PolicyFile},
    recording::Library,
    state_dir::StateDir,
    terminal::Terminals,
    upkeep::{Forwards, Upkeep},
    vms::Inventory,
    watch::Picture,
};

/// Time between two measurements of the machine.
const MEASURE_INTERVAL: Duration = Duration::from_secs(30);
/// How long parts of the agent get to end in order.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// Why an agent does not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state folder cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The operations of before cannot be read.
    #[error("cannot read the operations in the state folder")]
    Journal(#[source] io::Error),
    /// The settings of VMs cannot be read.
    #[error("cannot read the settings of VMs in the state folder")]
    Settings(#[source] io::Error),
    /// The policy of the machine cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The certificate cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A driver cannot keep its state.
    #[error("cannot open driver `{kind}`")]
    Driver {
        /// Which one.
        kind: DriverKind,
        /// Why.
        #[source]
        source: DriverError,
    },
    /// The port would be open to anybody.
    #[error(
        "refusing to listen on {0} without a key, because anybody who reaches it could run commands in the VMs: give `--api-key KEY`, listen on 127.0.0.1, or say `--allow-unauthenticated`"
    )]
    OpenToAll(SocketAddr),
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Serving the port failed.
    #[error("cannot serve the agent's port")]
    Serve(#[source] io::Error),
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    app: App,
    port: Mutex<Option<(std::net::TcpListener, SocketAddr)>>,
    _state_dir: StateDir,
}

impl Agent {
    /// Takes the port, then the state folder, and opens the drivers; asks them nothing yet. When the port is
    /// taken, nothing is made.
    ///
    /// # Errors
    /// [`AgentError::OpenToAll`], [`AgentError::Bind`], [`AgentError::StateDir`], [`AgentError::Policy`], [`AgentError::Tls`],
    /// [`AgentError::Journal`], [`AgentError::Settings`], [`AgentError::Driver`].
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        if let Some(address) = config.listen
            && !address.ip().is_loopback()
            && config.key.is_none()
            && config.anonymous_access == Allow::No
        {
            return Err(AgentError::OpenToAll(address));
        }
        let port = config.listen.map(open_port).transpose()?;
        let state_dir = StateDir::open(&config.state_dir)?;
        let policy = open_policy(&config)?;
        let drivers = driver::open::open(&config, &policy)
            .map_err(|(kind, source)| AgentError::Driver { kind, source })?;
        Self::assemble(config, port, state_dir, policy, drivers)
    }

    /// As [`Agent::new`], with these drivers whatever the settings choose: for tests that hold on to them.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn with_drivers(
        config: AgentConfig,
        drivers: Vec<Arc<dyn Driver>>,
    ) -> Result<Self, AgentError> {
        let port = config.listen.map(open_port).transpose()?;
        let state_dir = StateDir::open(&config.state_dir)?;
        let policy = open_policy(&config)?;
        Self::assemble(config, port, state_dir, policy, drivers)
    }

    fn assemble(
        config: AgentConfig,
        port: Option<(std::net::TcpListener, SocketAddr)>,
        state_dir: StateDir,
        policy: PolicyFile,
        drivers: Vec<Arc<dyn Driver>>,
    ) -> Result<Self, AgentError> {
        let now = Timestamp::now();
        let picture = Arc::new(Picture::new(AgentInfo {
            agent_id: config.agent_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: PROTOCOL_VERSION,
            host: match &config.host {
                Some(facts) => facts.clone(),
                None => host::measure(&config.state_dir),
            },
            drivers: Vec::new(),
            labels: config.labels.clone(),
            policy: Some(Box::new((*policy.current()).clone())),
            started_at: now,
            clock: now,
        }));
        let certificate = match &config.tls {
            Some(source) => Some(ServedCertificate::open(source, &config.state_dir)?),
            None => None,
        };
        let stop = CancellationToken::new();
        let inventory = Arc::new(Inventory::new(Arc::clone(&picture), config.limits, drivers));
        let upkeep = Upkeep::open(
            &config.state_dir,
            Arc::clone(&picture),
            Arc::clone(&inventory),
            config.clock.clone(),
            config.trash_kept,
        )
        .map_err(AgentError::Settings)?;
        let upkeep = Arc::new(upkeep);
        let operations = Operations::open(
            config.agent_id.clone(),
            config.limits,
            &config.state_dir,
            operations::Parts {
                picture: Arc::clone(&picture),
                inventory: Arc::clone(&inventory),
                upkeep: Arc::clone(&upkeep),
                policy: policy.clone(),
            },
            stop.clone(),
        )
        .map_err(AgentError::Journal)?;
        let recordings = Arc::new(Library::new(&config.state_dir, config.recordings));
        let terminals = Arc::new(Terminals::new(
            config.limits,
            Arc::clone(&picture),
            Arc::clone(&inventory),
            Arc::clone(&recordings),
            stop.clone(),
        ));
        let inside = Arc::new(Inside::new(
            config.limits,
            Arc::clone(&picture),
            Arc::clone(&inventory),
            stop.clone(),
        ));
        let forwards = Forwards::new(Arc::clone(&upkeep), Arc::clone(&inside), policy.clone());
        Ok(Self {
            app: App::new(Inner {
                config,
                certificate,
                picture,
                inventory,
                operations,
                upkeep,
                terminals,
                recordings,
                inside,
                forwards,
                requests: Finisher::default(),
                stop,
                instance: tunnel::instance(),
                tunnel_is_open: tokio::sync::watch::Sender::new(false),
                policy,
            }),
            port: Mutex::new(port),
            _state_dir: state_dir,
        })
    }

    /// The agent API for a link whose other end is known already, such as the one inside `batwa up`. It asks
    /// for no key; the port does.
    pub fn router(&self) -> Router {
        http::router(self.app.clone())
    }

    /// Where it listens, until it runs; `None` without a port of its own.
    pub fn address(&self) -> Option<SocketAddr> {
        let port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.as_ref().map(|(_, address)| *address)
    }

    /// The certificate that its port shows, when it speaks TLS.
    pub fn certificate(&self) -> Option<&Arc<ServedCertificate>> {
        self.app.certificate()
    }

    /// What the machine's owner lets any master ask.
    pub fn policy(&self) -> &PolicyFile {
        self.app.policy()
    }

    /// Whether its tunnel to the master is open, as that changes.
    pub fn tunnel_is_open(&self) -> tokio::sync::watch::Receiver<bool> {
        self.app.tunnel_is_open().subscribe()
    }

    /// Watches the drivers, runs operations, serves the port and registers with the master, until `stop`; then
    /// ends in order. Operations under way are gone on with by the next agent on this state folder.
    ///
    /// # Errors
    /// [`AgentError::Serve`].
    pub async fn run(&self, stop: CancellationToken) -> Result<(), AgentError> {
        let port = match self.take_port() {
            Some((listener, address)) => Some((
                TcpListener::from_std(listener).map_err(AgentError::Serve)?,
                address,
            )),
            None => None,
        };
        raise_file_limit();
        let own_stop = self.app.stop().clone();
        let mut tasks: JoinSet<Result<(), AgentError>> = JoinSet::new();
        let app = self.app.clone();
        tasks.spawn(async move { run_drivers(app).await }.instrument(info_span!("drivers")));
        let app = self.app.clone();
        tasks.spawn(async move { measure(app).await });
        let terminals = Arc::clone(self.app.terminals());
        tasks.spawn(async move {
            terminals.keep_order().await;
            Ok(())
        });
        let (recordings, stop_sweeping) = (Arc::clone(self.app.recordings()), own_stop.clone());
        tasks.spawn(async move {
            recordings.keep_order(stop_sweeping).await;
            Ok(())
        });
        let (policy, picture) = (self.policy().clone(), Arc::clone(self.app.picture()));
        let stop_looking = own_stop.clone();
        tasks.spawn(async move {
            let show = |policy: &Policy| {
                picture.update_agent(|agent| agent.policy = Some(Box::new(policy.clone())));
            };
            policy.keep_fresh(stop_looking, show).await;
            Ok(())
        });
        let app = self.app.clone();
        let stop_dialling = own_stop.clone();
        tasks.spawn(
            async move {
                tunnel::run(app).await;
                stop_dialling.cancelled().await;
                Ok(())
            }
            .instrument(info_span!("tunnel")),
        );
        let app = self.app.clone();
        let address = port.as_ref().map(|(_, address)| *address);
        let stop_registering = own_stop.clone();
        tasks.spawn(
            async move {
                registration::run(app, address).await;
                // It may give up, where the settings are wrong; the agent goes on without a master.
                stop_registering.cancelled().await;
                Ok(())
            }
            .instrument(info_span!("registration")),
        );
        if let Some((listener, address)) = port {
            let app = self.app.clone();
            info!("agent `{}` listens on {address}", app.config().agent_id);
            tasks.spawn(async move { serve(app, listener).await }.instrument(info_span!("http")));
            if let Some(certificate) = self.app.certificate().cloned() {
                let stop = own_stop.clone();
                tasks.spawn(async move {
                    certificate.keep_fresh(stop).await;
                    Ok(())
                });
            }
        }

        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => {
                // A part that panicked is a defect; it must not leave half an agent behind.
                ended.unwrap_or_else(|error| Err(AgentError::Serve(io::Error::other(error))))
            }
        };
        own_stop.cancel();
        let in_order = async {
            while tasks.join_next().await.is_some() {}
            // They may begin operations.
            self.app.requests().finished().await;
            self.app.operations().stopped().await;
        };
        if timeout(GRACE_PERIOD, in_order).await.is_err() {
            warn!(
                "some parts of the agent did not end within {} s",
                GRACE_PERIOD.as_secs()
            );
        }
        self.app.requests().cut();
        info!("agent stopped; its VMs go on");
        result
    }

    fn take_port(&self) -> Option<(std::net::TcpListener, SocketAddr)> {
        self.port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Lets this process open as many files as its administrator allows: each terminal and each VM's consoles take some.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        debug!("the limit of open files stays as it is: {error}");
    }
}

/// The policy of the machine, where the settings say that it lies.
fn open_policy(config: &AgentConfig) -> Result<PolicyFile, PolicyError> {
    let usual = || config.state_dir.join(policy::FILE);
    let path = config.policy_file.clone().unwrap_or_else(usual);
    let path = std::path::absolute(&path).unwrap_or(path);
    PolicyFile::open(path, config.image_dirs.clone())
}

/// Takes a port; it queues connections from now on, and they are served once the agent runs.
fn open_port(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), AgentError> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|source| AgentError::Bind { address, source })
}

/// Watches the drivers and goes on with operations, until the agent stops.
async fn run_drivers(app: App) -> Result<(), AgentError> {
    let inventory = app.inventory();
    if app.config().drivers == DriverChoice::Auto {
        tokio::select! {
            () = app.stop().cancelled() => return Ok(()),
            () = inventory.choose_first_that_answers() => {}
        }
    }
    let mut tasks = JoinSet::new();
    for index in 0..inventory.len() {
        let (of, stop) = (Arc::clone(inventory), app.stop().clone());
        tasks.spawn(async move { of.observe(index, stop).await });
        let (of, stop) = (Arc::clone(inventory), app.stop().clone());
        tasks.spawn(async move { of.inspect(index, stop).await });
    }
    app.operations().go_on();
    let of = Arc::clone(app.operations());
    tasks.spawn(async move { of.see_to_overdue().await });
    let of = app.clone();
    tasks.spawn(async move {
        let upkeep = Arc::clone(of.upkeep());
        let operations = Arc::clone(of.operations());
        let inside = Arc::clone(of.inside());
        let state_dir = &of.config().state_dir;
        upkeep::run(upkeep, operations, inside, state_dir, of.stop().clone()).await;
    });
    let of = app.clone();
    tasks.spawn(async move { of.forwards().run(of.stop().clone()).await });
    app.stop().cancelled().await;
    // A driver's call under way may hang for minutes; dropping it is what drivers are made for.
    tasks.shutdown().await;
    Ok(())
}

/// Measures the machine now and then, unless it was told.
async fn measure(app: App) -> Result<(), AgentError> {
    if app.config().host.is_some() {
        app.stop().cancelled().await;
        return Ok(());
    }
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = app.stop().cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let state_dir = app.config().state_dir.clone();
        match tokio::task::spawn_blocking(move || host::measure(&state_dir)).await {
            Ok(facts) => app.picture().update_agent(|agent| agent.host = facts),
            Err(error) => debug!(%error, "cannot measure the machine"),
        }
    }
}

/// Serves the port until the agent stops.
async fn serve(app: App, listener: TcpListener) -> Result<(), AgentError> {
    let stop = app.stop().clone();
    let listener = http::port::Port::new(listener, app.certificate());
    axum::serve(listener, http::port_router(app))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(AgentError::Serve)
}
