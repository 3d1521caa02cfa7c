//! The master's life: `new -> bind -> run`.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config::MasterConfig,
    http,
    store::{Store, StoreError},
};

/// How long the shutdown waits for requests, streams and tasks.
const GRACE_PERIOD: Duration = Duration::from_secs(8);

/// A master with checked settings that has touched nothing yet.
#[derive(Debug)]
pub struct Master {
    config: MasterConfig,
}

/// Why a master did not start. Each text is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The port cannot be taken.
    #[error("cannot listen on {host}:{port}: {source}")]
    Bind {
        /// The address or host name asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The state folder cannot be used.
    #[error("cannot use the state folder `{}`: {source}", path.display())]
    StateDir {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another master runs on the same state folder.
    #[error("another master runs on the state folder `{}`: give this one its own --state-dir", .0.display())]
    StateDirInUse(PathBuf),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Master {
    /// Checks `config`.
    ///
    /// # Errors
    /// [`MasterError::Config`].
    pub fn new(config: MasterConfig) -> Result<Self, MasterError> {
        Ok(Self { config })
    }

    /// Takes the port, then opens the state folder: when the port is in use, nothing is made.
    ///
    /// # Errors
    /// All of [`MasterError`].
    pub async fn bind(self) -> Result<Bound, MasterError> {
        let config = self.config;
        let bind_error = |source| MasterError::Bind {
            host: config.host.clone(),
            port: config.port,
            source,
        };
        let listener = TcpListener::bind((config.host.as_str(), config.port))
            .await
            .map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let lock = lock_state_dir(&config.state_dir)?;
        let store = Store::open(&config.state_dir, config.database.as_ref()).await?;
        let app = App::new(config, store, CancellationToken::new());
        Ok(Bound {
            app,
            listener,
            address,
            _lock: lock,
        })
    }
}

/// A master that holds its port and its state.
#[derive(Debug)]
pub struct Bound {
    app: App,
    listener: TcpListener,
    address: SocketAddr,
    _lock: File,
}

impl Bound {
    /// The address it listens on; the port is the real one when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then ends in order within ten seconds.
    ///
    /// # Errors
    /// None at present; a failing task is reported and stops the rest.
    pub async fn run(self, stop: CancellationToken) -> Result<(), MasterError> {
        let Self { app, listener, .. } = self;
        let stopping = app.stopping().clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(http::serve::serve(
            listener,
            http::router(app.clone()),
            stopping.clone(),
        ));
        tasks.spawn(crate::app::keeper::run(app.clone(), stopping.clone()));

        tokio::select! {
            () = stop.cancelled() => {}
            ended = tasks.join_next() => {
                // None of them ends by itself.
                tracing::error!("a part of the master ended by itself: {ended:?}");
            }
        }
        stopping.cancel();
        app.tasks().close();
        let orderly = async {
            while tasks.join_next().await.is_some() {}
            app.tasks().wait().await;
        };
        if tokio::time::timeout(GRACE_PERIOD, orderly).await.is_err() {
            tracing::warn!(
                "requests were still running {} s after the stop: cut",
                GRACE_PERIOD.as_secs()
            );
        }
        tasks.shutdown().await;
        app.store().close().await;
        Ok(())
    }
}

/// Makes the state folder, readable by its user alone, and keeps other masters out of it.
fn lock_state_dir(path: &Path) -> Result<File, MasterError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MasterError::StateDir { path, source }
    };
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder.create(path).map_err(failed(path))?;
    let lock_path = path.join("master.lock");
    let lock = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(MasterError::StateDirInUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(&lock_path)(source)),
    }
}
