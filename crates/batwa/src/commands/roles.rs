//! `up`, `master`, `agent`: the processes that stay.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use axum::{Router, serve::Listener};
use batwa_agent::{Agent, AgentError};
use batwa_master::{Bound, LocalAgent, Master, MasterConfig, MasterError};
use batwa_tls::ServedCertificate;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    failure::{Failure, chain},
    logging, output,
    service_manager::{
        ServiceManager,
        install::{Plan, install},
    },
    settings::{Environment, Flags, Role, Service, Settings},
    shutdown::Parts,
    tls,
};

/// What one stream between master and local agent holds in each direction (MEASURED: 64 KiB is as good as more).
const STREAM_BUFFER: usize = 64 << 10;
/// Streams that the master has opened and the agent has not yet taken.
const STREAM_QUEUE: usize = 64;

impl From<MasterError> for Failure {
    fn from(error: MasterError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::usage(chain(&error))
    }
}

/// `batwa up`
pub(crate) async fn up(flags: Flags) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let service = flags.service();
    let settings = Settings::load(Role::Up, flags, &environment)?;
    logging::start(&settings)?;
    let mut master_config = config::master(&settings, &environment)?;
    let agent_config = config::local_agent(&settings, &environment)?;
    if service == Service::Install {
        return install(Plan {
            role: Role::Up,
            settings: &settings,
            environment: &environment,
            state_dir: None,
        })
        .await;
    }

    let (local_agent, streams) = in_process_link();
    master_config.local_agent = Some(local_agent);
    // The master first: it takes the port before it makes anything.
    let bound = bind(master_config).await?;
    let agent = Arc::new(Agent::new(agent_config)?);
    announce(&bound, &settings)?;

    let router = agent.router();
    let mut parts = Parts::new().told_to(ServiceManager::of(&environment));
    let certificate = bound.certificate().cloned();
    let policy = Some(agent.policy().clone());
    parts.add("reload", |stop| {
        tls::reload_on_hangup(certificate, policy, stop)
    });
    parts.add("link", |stop| serve_streams(streams, router, stop));
    parts.add("agent", |stop| async move { Ok(agent.run(stop).await?) });
    parts.add("master", |stop| async move { Ok(bound.run(stop).await?) });
    parts.run().await
}

/// `batwa master`
pub(crate) async fn master(flags: Flags) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let service = flags.service();
    let settings = Settings::load(Role::Master, flags, &environment)?;
    logging::start(&settings)?;
    let config = config::master(&settings, &environment)?;
    if service == Service::Install {
        return install(Plan {
            role: Role::Master,
            settings: &settings,
            environment: &environment,
            state_dir: None,
        })
        .await;
    }
    let bound = bind(config).await?;
    announce(&bound, &settings)?;
    let mut parts = Parts::new().told_to(ServiceManager::of(&environment));
    let certificate = bound.certificate().cloned();
    parts.add("reload", |stop| {
        tls::reload_on_hangup(certificate, None, stop)
    });
    parts.add("master", |stop| async move { Ok(bound.run(stop).await?) });
    parts.run().await
}

/// `batwa agent`
pub(crate) async fn agent(flags: Flags) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let service = flags.service();
    let settings = Settings::load(Role::Agent, flags, &environment)?;
    logging::start(&settings)?;
    run_agent(&settings, &environment, service).await
}

/// Runs an agent with these settings until it is told to stop, or leaves that to a service.
pub(super) async fn run_agent(
    settings: &Settings,
    environment: &Environment,
    service: Service,
) -> Result<(), Failure> {
    let config = config::agent(settings, environment)?;
    if service == Service::Install {
        // It goes on with the identity and the VMs that are there.
        return install(Plan {
            role: Role::Agent,
            settings,
            environment,
            state_dir: Some(&config.state_dir),
        })
        .await;
    }
    let id = config.agent_id.clone();
    let agent = Agent::new(config)?;
    if let Some(address) = agent.address() {
        let certificate = agent.certificate();
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let mut text = format!("agent `{id}` listens on {scheme}://{address}\n");
        if let Some(certificate) = certificate {
            text.push_str(&shown(certificate));
        }
        output::print(&text)?;
    }
    let mut parts = Parts::new().told_to(ServiceManager::of(environment));
    let certificate = agent.certificate().cloned();
    let policy = Some(agent.policy().clone());
    parts.add("reload", |stop| {
        tls::reload_on_hangup(certificate, policy, stop)
    });
    parts.add("agent", |stop| async move { Ok(agent.run(stop).await?) });
    parts.run().await
}

async fn bind(config: MasterConfig) -> Result<Bound, Failure> {
    let (host, port) = (config.host.clone(), config.port);
    Master::new(config)?.bind().await.map_err(|error| {
        let in_use = matches!(&error, MasterError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse);
        let failure = Failure::from(error);
        if in_use {
            failure.hint(format!("another program listens on {host}:{port}; choose a port with `--port`, or 0 for a free one"))
        } else {
            failure
        }
    })
}

/// The stream maker that the master gets, and the end at which its streams arrive.
fn in_process_link() -> (LocalAgent, Streams) {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
    let connect = Arc::new(move || {
        let sender = sender.clone();
        let connecting: futures_util::future::BoxFuture<'static, io::Result<DuplexStream>> =
            Box::pin(async move {
                let (ours, theirs) = tokio::io::duplex(STREAM_BUFFER);
                sender.send(theirs).await.map_err(|_| {
                    io::Error::new(io::ErrorKind::NotConnected, "the local agent has stopped")
                })?;
                Ok(ours)
            });
        connecting
    });
    (LocalAgent { connect }, Streams(receiver))
}

/// The local agent's end of the in-process link, as something that accepts connections.
struct Streams(mpsc::Receiver<DuplexStream>);

impl Listener for Streams {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            // The master is gone; nobody will ever connect again.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn serve_streams(
    streams: Streams,
    router: Router,
    stop: CancellationToken,
) -> Result<(), Failure> {
    axum::serve(streams, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|error| Failure::usage(format!("cannot serve the local agent: {error}")))
}

/// Prints where the page is, and the one-time link while there is no admin.
fn announce(bound: &Bound, settings: &Settings) -> Result<(), Failure> {
    let mut text = format!("Batwa is at    {}/\n", bound.url());
    if settings.text("public-url").is_none()
        && bound.address().ip().is_unspecified()
        && let Some(ip) = own_address()
    {
        let address = SocketAddr::new(ip, bound.address().port());
        let scheme = bound.scheme();
        text.push_str(&format!("on the network {scheme}://{address}/\n"));
    }
    if let Some(certificate) = bound.certificate() {
        text.push_str(&shown(certificate));
    }
    if let Some(link) = bound.setup_link() {
        text.push_str(&format!(
            "\nNobody can sign in yet. Open this link once to make the first account:\n\n    {link}\n\n"
        ));
    }
    output::print(&text)
}

/// The line by which people know a certificate.
fn shown(certificate: &ServedCertificate) -> String {
    format!("certificate    SHA-256 {}\n", certificate.hash())
}

/// This machine's address towards the rest of the world. Connecting a UDP socket sends nothing; the destination
/// is one reserved for documentation.
pub(crate) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_in_process_link_carries_requests_and_says_when_the_agent_is_gone() {
        let (local_agent, streams) = in_process_link();
        let router = Router::new().route("/", axum::routing::get(async || "hello"));
        let stop = CancellationToken::new();
        let server = serve_streams(streams, router, stop.clone());
        let client = async {
            let mut stream = (local_agent.connect)().await.expect("a stream");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
                .await
                .expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            stop.cancel();
            answer
        };
        let (served, answer) = tokio::join!(server, client);
        assert!(served.is_ok());
        assert!(answer.ends_with("hello"), "{answer}");
        let error = (local_agent.connect)().await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
