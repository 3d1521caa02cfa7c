//! The master's life: `new -> bind -> run`.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use batwa_tls::{ServedCertificate, TlsError};
use batwa_tunnel::Identity;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use secrecy::SecretString;

use crate::{
    app::{
        self, App,
        audit::{Actor, Record},
        auth::{Source, password},
        users::is_name,
    },
    config::{ConfigError, MasterConfig, PublicUrl, origin},
    http, identity,
    store::{Store, StoreError},
};

/// How long the shutdown waits for the store to write its last.
const STORE_GRACE: Duration = Duration::from_secs(1);

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
    Config(#[from] ConfigError),
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
    /// The certificate cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first admin's password cannot be read.
    #[error("cannot read the admin's password from `{}`: {source}", path.display())]
    AdminPasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The first admin, or a new password, cannot be as it was given.
    #[error("{0}")]
    Account(app::Error),
    /// There is no such account.
    #[error("there is no user `{name}`; users are: {}", known.join(", "))]
    NoSuchUser {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl Master {
    /// Checks `config`.
    ///
    /// # Errors
    /// [`MasterError::Config`].
    pub fn new(config: MasterConfig) -> Result<Self, MasterError> {
        if !is_name(&config.admin_user) {
            return Err(ConfigError::AdminUser(config.admin_user).into());
        }
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
        let certificate = match &config.tls {
            Some(source) => Some(ServedCertificate::open(source, &config.state_dir)?),
            None => None,
        };
        let store = Store::open(&config.state_dir, config.database.as_ref()).await?;
        let identity =
            identity::open(&config.state_dir).map_err(|source| MasterError::StateDir {
                path: config.state_dir.join("master-key"),
                source,
            })?;
        let app = App::new(config, address, store, certificate, identity);
        let setup_code = prepare_first_admin(&app).await?;
        Ok(Bound {
            app,
            listener,
            address,
            setup_code,
            _lock: lock,
        })
    }

    /// Gives an account a new password, for who has the state folder and lost the old one; ends its sessions.
    ///
    /// Works beside a running master too.
    ///
    /// # Errors
    /// [`MasterError::NoSuchUser`], [`MasterError::Account`] for a password that is too short, and what [`Self::bind`]
    /// reports of state folder and store.
    pub async fn reset_password(
        config: MasterConfig,
        user: &str,
        password: SecretString,
    ) -> Result<(), MasterError> {
        password::check("password", &password).map_err(MasterError::Account)?;
        let app = open_beside(config).await?;
        let done = reset_password(&app, user, password).await;
        app.store().close().await;
        done
    }

    /// Checks the audit's chain of hashes: the number of the first line that was changed, or follows one that was
    /// taken out; `None` when all fit.
    ///
    /// Works beside a running master too.
    ///
    /// # Errors
    /// What [`Self::bind`] reports of state folder and store.
    pub async fn verify_audit(config: MasterConfig) -> Result<Option<i64>, MasterError> {
        let app = open_beside(config).await?;
        let verified = app.store().verify_audit().await;
        app.store().close().await;
        Ok(verified?)
    }
}

/// The state of a master that may be running: nothing is made that is not there.
async fn open_beside(config: MasterConfig) -> Result<App, MasterError> {
    let file = config.state_dir.join("batwa.db");
    if config.database.is_none() && !file.exists() {
        return Err(MasterError::StateDir {
            path: file,
            source: io::ErrorKind::NotFound.into(),
        });
    }
    let store = Store::open(&config.state_dir, config.database.as_ref()).await?;
    // Nobody dials in here: any key will do.
    let identity = Identity::generate().map_err(|error| MasterError::StateDir {
        path: config.state_dir.clone(),
        source: io::Error::other(error),
    })?;
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    Ok(App::new(config, address, store, None, identity))
}

async fn reset_password(app: &App, user: &str, password: SecretString) -> Result<(), MasterError> {
    let Some(account) = app.store().user_by_name(user).await? else {
        let known = app
            .store()
            .users()
            .await?
            .into_iter()
            .map(|user| user.name)
            .collect();
        return Err(MasterError::NoSuchUser {
            name: user.to_owned(),
            known,
        });
    };
    let hash = app
        .auth()
        .passwords
        .hash(password)
        .await
        .map_err(MasterError::Account)?;
    app.store()
        .set_password(account.user.id, &hash, None)
        .await?;
    let source = Source::new(Ipv4Addr::LOCALHOST.into(), "".into());
    let record = Record::ok("user.password", &account.user.name);
    app.audit_by(Actor::Console, &source, record)
        .await
        .map_err(MasterError::Account)
}

/// Makes the first admin from the password file, or the code with which somebody makes it; `None` when there is one.
async fn prepare_first_admin(app: &App) -> Result<Option<String>, MasterError> {
    let config = app.config();
    if app.store().has_admin().await? {
        if let Err(error) = app.remove_setup_code() {
            tracing::warn!("cannot remove the old set-up code: {error}");
        }
        return Ok(None);
    }
    if let Some(path) = &config.admin_password_file {
        let text = fs::read_to_string(path).map_err(|source| MasterError::AdminPasswordFile {
            path: path.clone(),
            source,
        })?;
        // Editors and `echo` end the line.
        let password = SecretString::from(text.trim_end_matches(['\r', '\n']));
        let made = app
            .make_first_admin("admin password", &config.admin_user, password)
            .await;
        if let Some(user) = made.map_err(MasterError::Account)? {
            let source = Source::new(Ipv4Addr::LOCALHOST.into(), "".into());
            let record = Record::ok("setup", &user.name);
            app.audit_by(Actor::Console, &source, record)
                .await
                .map_err(MasterError::Account)?;
            tracing::info!(
                user.name = user.name,
                "admin `{}` made from the password file",
                user.name
            );
        }
        return Ok(None);
    }
    let code = app.setup_code().map_err(|source| MasterError::StateDir {
        path: config.state_dir.join("setup-code"),
        source,
    })?;
    Ok(Some(code))
}

/// A master that holds its port and its state.
#[derive(Debug)]
pub struct Bound {
    app: App,
    listener: TcpListener,
    address: SocketAddr,
    setup_code: Option<String>,
    _lock: File,
}

impl Bound {
    /// The address it listens on; the port is the real one when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where people open the page: the public URL, else the address with a host that a browser can use.
    #[must_use]
    pub fn url(&self) -> String {
        if let Some(url) = &self.app.config().public_url {
            return url.origin().to_owned();
        }
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        origin(self.scheme(), &address.to_string())
    }

    /// `https` when its port speaks TLS, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.app.certificate() {
            Some(_) => "https",
            None => "http",
        }
    }

    /// The certificate that the port shows, when it speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<ServedCertificate>> {
        self.app.certificate()
    }

    /// The one-time link by which the first admin is made; `None` once there is one.
    #[must_use]
    pub fn setup_link(&self) -> Option<String> {
        let code = self.setup_code.as_ref()?;
        Some(format!("{}/setup#{code}", self.url()))
    }

    /// Serves until `stop` is cancelled, then ends in order within ten seconds.
    ///
    /// # Errors
    /// None at present; a failing task is reported and stops the rest.
    pub async fn run(self, stop: CancellationToken) -> Result<(), MasterError> {
        let (scheme, address) = (self.scheme(), self.address);
        let Self { app, listener, .. } = self;
        let stopping = app.stopping().clone();
        tracing::info!("master listens on {scheme}://{address}");
        let is_behind_tls = app
            .config()
            .public_url
            .as_ref()
            .is_some_and(PublicUrl::is_secure);
        if app.certificate().is_none() && !address.ip().is_loopback() && !is_behind_tls {
            tracing::warn!(
                "this is plain HTTP on an address that others can reach: passwords and terminals can be read on the way; \
                 use `--tls self-signed`, `--tls-cert` and `--tls-key`, or a proxy with TLS and `--public-url https://…`"
            );
        }
        let mut tasks = JoinSet::new();
        http::serve::raise_file_limit();
        let router = http::router(app.clone());
        let limits = http::serve::Limits::default();
        let door = http::serve::Door {
            listener,
            tls: app.certificate().map(ServedCertificate::acceptor),
        };
        tasks.spawn(http::serve::serve(door, router, limits, stopping.clone()));
        if let Some(certificate) = app.certificate().cloned() {
            let stopping = stopping.clone();
            tasks.spawn(async move { certificate.keep_fresh(stopping).await });
        }
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
            // They may begin tasks.
            app.requests().finished().await;
            app.tasks().wait().await;
        };
        let grace = app.config().shutdown_grace;
        if tokio::time::timeout(grace, orderly).await.is_err() {
            tracing::warn!(
                "requests were still under way {} s after the stop: cut",
                grace.as_secs()
            );
        }
        app.requests().cut();
        tasks.shutdown().await;
        if tokio::time::timeout(STORE_GRACE, app.store().close())
            .await
            .is_err()
        {
            tracing::warn!("the store was still in use at the end");
        }
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
