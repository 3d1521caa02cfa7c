//! The agent's end of the tunnel: it dials in to its master, proves who it is, and serves its router on the streams
//! that the master opens.
//!
//! ```text
//! join ──► identity in the state folder ──► dial ─► handshake ─► streams ──► broken ─► pause ─┐
//!                                            ▲                                                │
//!                                            └────────────────────────────────────────────────┘
//! ```
//!
//! An agent with an identity never gives it up by itself: whatever the network or a master says, it tries
//! again, for ever, and says why. Only `join`, where somebody waits for the answer, takes no for one.

mod backoff;
mod dial;
mod handshake;
mod identity;
mod join;
mod rotate;
mod serve;
mod verify;

use std::{sync::Arc, time::Duration};

use axum::Router;
use batwa_api::tunnel::{InstanceId, Purpose, RefusalCode, TunnelStatus};
use batwa_tunnel::{Ended, Identity, Mux, Timing, keys};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use self::{backoff::Backoff, handshake::Greeting};
pub use self::{
    dial::{DialError, Dialer, MasterUrl, MasterUrlError, Proxies},
    handshake::HandshakeError,
    identity::{IdentityError, Membership},
    join::{JoinError, JoinRequest, Joined, default_agent_id, join},
    rotate::{RotateError, rotate_key},
};
use crate::http::{self, App};

/// How long the whole way to an open tunnel may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// How an agent dials in. What it is known by is in its state folder.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Makes the connections; agents of one process can share it.
    pub dialer: Arc<Dialer>,
    /// Signs of life.
    pub timing: Timing,
    /// First pause after a failure; doubles with each.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// A tunnel that lasted so long was a good one: the next failure begins with the first pause again.
    pub healthy: Duration,
}

impl TunnelConfig {
    /// The defaults, with connections made by `dialer`.
    #[must_use]
    pub fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            dialer,
            timing: Timing::default(),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            healthy: Duration::from_secs(60),
        }
    }
}

/// Why a tunnel did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A connection, but no handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Neither in time.
    #[error("the master did not answer within {} s", CONNECT_DEADLINE.as_secs())]
    Slow,
    /// There is no identity to prove.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ConnectError {
    /// Whether trying again may help without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_transient(),
            Self::Handshake(error) => error.is_transient(),
            Self::Slow => true,
            Self::Identity(_) => false,
        }
    }

    /// What to do about it, where we know.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Dial(error) => error.fix(),
            Self::Handshake(error) => error.fix(),
            Self::Slow | Self::Identity(_) => None,
        }
    }

    fn is_unknown_key(&self) -> bool {
        match self {
            Self::Handshake(HandshakeError::Refused(refused)) => matches!(
                refused.code,
                RefusalCode::WrongKey | RefusalCode::UnknownAgent
            ),
            _ => false,
        }
    }
}

/// A fresh id for one start of a process.
#[must_use]
pub fn instance() -> InstanceId {
    // Without randomness there are no nonces either, and the first handshake says so.
    keys::random::<16>().unwrap_or_default().into()
}

/// Keeps a tunnel to the master open until the agent stops.
pub(crate) async fn run(app: App) {
    let Some(tunnel) = &app.config().tunnel else {
        return;
    };
    let mut backoff = Backoff::new(tunnel.first_pause, tunnel.longest_pause);
    let mut said = String::new();
    let router = http::router(app.clone());
    loop {
        let lasted = tokio::select! {
            () = app.stop().cancelled() => return,
            lasted = once(&app, tunnel, &router) => lasted,
        };
        let pause = match &lasted {
            Ok(Lasted { since, ended }) => {
                said.clear();
                if since.elapsed() >= tunnel.healthy {
                    backoff.reset();
                }
                let (why, pause) = serve::after(ended, &mut backoff);
                warn!("the tunnel is closed: {why}");
                pause
            }
            Err(error) => {
                let text = describe(error);
                // The same reason again and again would bury the log.
                if text == said {
                    debug!("cannot open a tunnel: {text}");
                } else {
                    warn!("cannot open a tunnel: {text}; trying on");
                    said = text;
                }
                backoff.next()
            }
        };
        tokio::select! {
            () = app.stop().cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// A tunnel that was open.
struct Lasted {
    since: Instant,
    ended: Ended,
}

async fn once(app: &App, tunnel: &TunnelConfig, router: &Router) -> Result<Lasted, ConnectError> {
    let config = app.config();
    let member = Membership::load(&config.state_dir)?
        .filter(|member| member.joined)
        .ok_or_else(|| IdentityError::NotJoined(config.state_dir.clone()))?;
    let (socket, status) = match member.next.clone() {
        // A change of key was begun: the master may know the new one already, or not yet.
        Some(next) => match open(app, tunnel, &member, &next).await {
            Ok(opened) => {
                rotate::settle(&config.state_dir, &next);
                opened
            }
            Err(error) if error.is_unknown_key() => {
                open(app, tunnel, &member, &member.identity).await?
            }
            Err(error) => return Err(error),
        },
        None => open(app, tunnel, &member, &member.identity).await?,
    };
    match status {
        TunnelStatus::Approved => info!("the tunnel to {} is open", member.master_url),
        TunnelStatus::Pending => info!(
            "the tunnel to {} is open; agent `{}` waits for an admin to approve it on the Machines page",
            member.master_url, member.agent_id
        ),
    }
    let since = Instant::now();
    let mux = Mux::agent(socket, tunnel.timing);
    app.tunnel_is_open().send_replace(true);
    let ended = serve::streams(app, router, mux).await;
    app.tunnel_is_open().send_replace(false);
    Ok(Lasted { since, ended })
}

async fn open(
    app: &App,
    tunnel: &TunnelConfig,
    member: &Membership,
    key: &Identity,
) -> Result<(dial::Socket, TunnelStatus), ConnectError> {
    let greeting = Greeting {
        agent_id: &member.agent_id,
        key,
        instance: app.instance(),
        purpose: Purpose::Tunnel,
        join_secret: None,
        new_key: None,
        master_key_hash: member.master_key_hash,
    };
    let (socket, welcome) = connect(&tunnel.dialer, &member.master_url, &greeting).await?;
    Ok((socket, welcome.status))
}

/// Dials in and shakes hands, within the deadline.
async fn connect(
    dialer: &Dialer,
    master: &MasterUrl,
    greeting: &Greeting<'_>,
) -> Result<(dial::Socket, batwa_api::tunnel::Welcome), ConnectError> {
    let connecting = async {
        let (mut socket, certificate) = dialer.dial(master).await?;
        let welcome = handshake::shake_hands(&mut socket, greeting, certificate).await?;
        Ok((socket, welcome))
    };
    timeout(CONNECT_DEADLINE, connecting)
        .await
        .unwrap_or(Err(ConnectError::Slow))
}

/// An error with its causes, and what to do about it, on one line.
fn describe(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    match error.fix() {
        Some(fix) => format!("{text} ({fix})"),
        None => text,
    }
}
