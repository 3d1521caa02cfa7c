//! The old way to a master: register over HTTP, then heartbeats (COMPAT.md, "Agent").
//!
//! Runs for as long as the agent does; nothing that a master or the network does ends it. Towards an old master,
//! one without `/api/v1`, it speaks as that one understands: naive local times, and registering again now and
//! then, because old masters forget their agents without saying so.

use std::{net::SocketAddr, time::Duration};

use batwa_api::{Timestamp, certificate::CertificateHash, legacy::Register};
use batwa_tls::{SystemRoots, Trust};
use http::StatusCode;
use jiff::{Zoned, tz::TimeZone};
use rand::RngExt;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{config::AgentConfig, host, http::App};

/// How long the master may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// First pause after a failure.
const BACKOFF_START: Duration = Duration::from_millis(500);
/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Heartbeats after which an old master hears a registration again.
const OLD_MASTER_REGISTERS: u32 = 10;
/// Longest part of an answer that is logged.
const LOGGED: usize = 300;

/// What the master understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// One of ours.
    Batwa,
    /// One without `/api/v1`.
    Old(Clock),
}

/// How an old master reads times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// As Python's `datetime.now().isoformat()` writes them.
    Naive,
    /// With a zone.
    Zoned,
}

/// What a heartbeat's answer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Wait,
    RegisterAgain,
    SendZoned,
    Complain,
}

fn after_heartbeat(status: StatusCode, peer: Peer) -> After {
    match (status, peer) {
        (status, _) if status.is_success() => After::Wait,
        (StatusCode::NOT_FOUND, _) => After::RegisterAgain,
        (StatusCode::BAD_REQUEST, Peer::Old(Clock::Naive)) => After::SendZoned,
        _ => After::Complain,
    }
}

/// The time as the master reads it.
fn timestamp(peer: Peer, now: &Zoned) -> String {
    match peer {
        Peer::Batwa | Peer::Old(Clock::Zoned) => now.timestamp().to_string(),
        Peer::Old(Clock::Naive) => now.datetime().strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
    }
}

/// The pause before try number `failures`: doubling, with jitter so that a thousand agents do not come at once.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_START.saturating_mul(1 << failures.min(10));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + jitter / 2.0)
}

/// Registers with the configured master and stays registered, until the agent stops. `port` is where the agent
/// listens.
pub(crate) async fn run(app: App, port: Option<SocketAddr>) {
    let Some(master) = app.config().master_url.clone() else {
        return;
    };
    let registrar = match Registrar::new(&app, &master, port) {
        Ok(registrar) => registrar,
        Err(reason) => {
            error!("cannot register with master {master}: {reason}");
            return;
        }
    };
    tokio::select! {
        () = app.stop().cancelled() => {}
        () = registrar.stay_registered() => {}
    }
}

struct Registrar<'a> {
    app: &'a App,
    config: &'a AgentConfig,
    master: String,
    port: Option<SocketAddr>,
    http: reqwest::Client,
}

/// Why the master could not be asked, or what it said instead of yes.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("{0}")]
    Address(String),
    #[error("the master cannot be reached: {0}")]
    Network(String),
    #[error("the master refuses it ({status}): {text}")]
    Refused { status: StatusCode, text: String },
}

impl<'a> Registrar<'a> {
    fn new(app: &'a App, master: &str, port: Option<SocketAddr>) -> Result<Self, String> {
        let trust = match app.config().master_certificate {
            Some(pin) => Trust::Pinned(pin),
            None => Trust::Roots,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.client_config(&SystemRoots::default()))
            .timeout(ANSWER_DEADLINE)
            .build()
            .map_err(|error| causes(&error))?;
        Ok(Self {
            app,
            config: app.config(),
            master: master.trim_end_matches('/').to_owned(),
            port,
            http,
        })
    }

    async fn stay_registered(&self) {
        loop {
            // Before it is told: a change in between is then told again.
            let certificate = self.certificate();
            let peer = self.register_until_accepted().await;
            self.beat(peer, certificate).await;
        }
    }

    async fn register_until_accepted(&self) -> Peer {
        let mut failures = 0;
        let mut said = String::new();
        loop {
            match self.register().await {
                Ok(peer) => return peer,
                Err(error) => {
                    let text = error.to_string();
                    // The same reason again and again would bury the log.
                    if text != said || failures % 20 == 0 {
                        warn!(
                            "cannot register with master {}: {text}; trying on",
                            self.master
                        );
                        said = text;
                    }
                }
            }
            let pause = backoff(failures, rand::rng().random_range(0.0..1.0));
            sleep(pause).await;
            failures += 1;
        }
    }

    /// One registration.
    async fn register(&self) -> Result<Peer, RegisterError> {
        let peer = self.peer().await?;
        let api_url = self.api_url().await?;
        let key = self.config.key.as_ref().map(ExposeSecret::expose_secret);
        let body = Register {
            agent_id: self.config.agent_id.to_string(),
            hostname: host::hostname(),
            api_url: api_url.clone(),
            api_key: key.map(str::to_owned),
            tags: (!self.config.labels.is_empty()).then(|| self.config.labels.clone()),
            certificate: self.certificate(),
        };
        let response = self
            .post("/api/agent/register")
            .json(&body)
            .send()
            .await
            .map_err(|error| RegisterError::Network(causes(&error)))?;
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        if !status.is_success() {
            return Err(RegisterError::Refused {
                status,
                text: detail(&text),
            });
        }
        info!("Successfully registered with master");
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if answer.pointer("/agent/status").and_then(Value::as_str) == Some("pending") {
            info!(
                "agent `{}` waits for an admin of {} to approve it on the Machines page",
                self.config.agent_id, self.master
            );
        }
        debug!("registered as reachable at {api_url}");
        Ok(peer)
    }

    /// The certificate that the master meets at our own port; not where it comes by another address.
    fn certificate(&self) -> Option<CertificateHash> {
        let is_ours = match &self.config.advertise_url {
            Some(url) => url.starts_with("https://"),
            None => true,
        };
        let served = self.app.certificate().filter(|_| is_ours);
        served.map(|certificate| certificate.hash())
    }

    /// Heartbeats until the master wants a registration again, or has to hear of a new certificate.
    async fn beat(&self, mut peer: Peer, told: Option<CertificateHash>) {
        let mut beats = 0;
        let mut is_silent = false;
        loop {
            sleep(self.config.heartbeat_interval).await;
            if self.certificate() != told {
                return;
            }
            beats += 1;
            if matches!(peer, Peer::Old(_)) && beats % OLD_MASTER_REGISTERS == 0 {
                if let Err(error) = self.register().await {
                    debug!("cannot register again: {error}");
                }
                continue;
            }
            let mut answer = self.heartbeat(peer).await;
            if let Ok((status, _)) = &answer
                && after_heartbeat(*status, peer) == After::SendZoned
            {
                peer = Peer::Old(Clock::Zoned);
                answer = self.heartbeat(peer).await;
            }
            match answer {
                Err(error) => {
                    if !is_silent {
                        warn!("no heartbeat reaches master {}: {error}", self.master);
                    }
                    is_silent = true;
                }
                Ok((status, text)) => match after_heartbeat(status, peer) {
                    After::Wait => {
                        if is_silent {
                            info!("heartbeats reach the master again");
                        }
                        is_silent = false;
                    }
                    After::RegisterAgain => {
                        info!("the master does not know this agent; registering again");
                        return;
                    }
                    After::SendZoned | After::Complain => {
                        if !is_silent {
                            warn!(
                                "the master refuses a heartbeat ({status}): {}",
                                detail(&text)
                            );
                        }
                        is_silent = true;
                    }
                },
            }
        }
    }

    async fn heartbeat(&self, peer: Peer) -> Result<(StatusCode, String), RegisterError> {
        let body = json!({
            "agent_id": self.config.agent_id,
            "timestamp": timestamp(peer, &Timestamp::now().to_zoned(TimeZone::system())),
            "status": "online",
            "vm_count": self.app.picture().vm_count(),
        });
        let response = self
            .post("/api/agent/heartbeat")
            .json(&body)
            .send()
            .await
            .map_err(|error| RegisterError::Network(causes(&error)))?;
        let status = response.status();
        Ok((status, response.text().await.unwrap_or_default()))
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.master));
        match &self.config.key {
            Some(key) => request.header(crate::http::KEY_HEADER, key.expose_secret()),
            None => request,
        }
    }

    /// Finds out what kind of master this is.
    async fn peer(&self) -> Result<Peer, RegisterError> {
        let response = self
            .http
            .get(format!("{}/api/v1/setup", self.master))
            .send()
            .await
            .map_err(|error| RegisterError::Network(causes(&error)))?;
        Ok(if response.status() == StatusCode::NOT_FOUND {
            Peer::Old(Clock::Naive)
        } else {
            Peer::Batwa
        })
    }

    /// Where the master reaches us: what the settings say, else the address of our side of the route to it.
    async fn api_url(&self) -> Result<String, RegisterError> {
        if let Some(url) = &self.config.advertise_url {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let Some(port) = self.port else {
            return Err(RegisterError::Address(
                "this agent listens on no port: give `--port`, or `--advertise-url`".to_owned(),
            ));
        };
        let scheme = match self.app.certificate() {
            Some(_) => "https",
            None => "http",
        };
        if !port.ip().is_unspecified() {
            return Ok(format!("{scheme}://{port}"));
        }
        let source = timeout(ANSWER_DEADLINE, source_address(&self.master))
            .await
            .map_err(|_| RegisterError::Network("its name is not resolved in time".to_owned()))?
            .map_err(|error| RegisterError::Network(error.to_string()))?;
        Ok(format!(
            "{scheme}://{}",
            SocketAddr::new(source.ip(), port.port())
        ))
    }
}

/// Our address on the route to `url`. Sends nothing: connecting a datagram socket only picks the route.
async fn source_address(url: &str) -> std::io::Result<SocketAddr> {
    let invalid = || std::io::Error::other("the master's URL names no host");
    let url = reqwest::Url::parse(url).map_err(|_| invalid())?;
    let host = url.host_str().ok_or_else(invalid)?;
    // An IPv6 address stands in brackets in a URL, and without elsewhere.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let mut last = std::io::Error::other("its name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return socket.local_addr(),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An error with its causes on one line.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What an error body says, short enough for a log line.
fn detail(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let said = body["detail"].as_str().unwrap_or(text);
    said.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LOGGED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_master_reads_them() {
        let now: Zoned = "2026-11-23T05:00:01.5+01:00[Europe/Berlin]"
            .parse()
            .unwrap();
        assert_eq!(
            timestamp(Peer::Old(Clock::Naive), &now),
            "2026-11-23T05:00:01.500000"
        );
        assert_eq!(
            timestamp(Peer::Old(Clock::Zoned), &now),
            "2026-11-23T04:00:01.5Z"
        );
        assert_eq!(timestamp(Peer::Batwa, &now), "2026-11-23T04:00:01.5Z");
    }

    #[test]
    fn answers_to_heartbeats_are_understood() {
        let old = Peer::Old(Clock::Naive);
        for (status, peer, after) in [
            (200, Peer::Batwa, After::Wait),
            (404, Peer::Batwa, After::RegisterAgain),
            (404, old, After::RegisterAgain),
            (400, old, After::SendZoned),
            (400, Peer::Old(Clock::Zoned), After::Complain),
            (403, Peer::Batwa, After::Complain),
            (500, old, After::Complain),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(after_heartbeat(status, peer), after, "{status} {peer:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(backoff(0, 0.0), Duration::from_millis(250));
        assert_eq!(backoff(1, 1.0), Duration::from_secs(1));
        for failures in 0..100 {
            assert!(backoff(failures, 1.0) <= BACKOFF_MAX);
        }
    }

    #[tokio::test]
    async fn our_address_is_that_of_the_route_to_the_master() {
        let address = source_address("http://127.0.0.1:8000/").await.unwrap();
        assert_eq!(address.ip(), std::net::Ipv4Addr::LOCALHOST);
        assert!(source_address("nonsense").await.is_err());
    }
}
