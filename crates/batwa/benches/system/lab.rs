//! Masters and agents to measure: real processes on loopback, each with its own folder.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    binary,
    http::{Answer, Connection, request},
    process::{Pin, Process},
};

const PASSWORD: &str = "correct horse battery staple";
/// The key of every agent here.
pub(crate) const AGENT_KEY: &str = "bench-agent-key-0123456789";

/// The folder of one row.
#[derive(Debug)]
pub(crate) struct Lab {
    folder: TempDir,
}

/// A master under test.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// The header that signs a request in.
    pub(crate) bearer: String,
}

/// Where a master is called, and as whom: for threads that do not own it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// The header that signs a request in.
    pub(crate) bearer: String,
}

/// An agent under test.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
}

impl Lab {
    /// An empty one.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("batwa-bench-").tempdir()?,
        })
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `batwa ROLE` as a master and signs in. Unknown agents are let in.
    pub(crate) async fn master(
        &self,
        role: &str,
        flags: &[&str],
        pin: Pin,
    ) -> anyhow::Result<Master> {
        let address = free_address()?;
        let password_file = self.path("password");
        std::fs::write(&password_file, PASSWORD)?;
        let mut args = arguments(role, address, &self.path("master"));
        args.push("--open-registration".to_owned());
        args.extend(flags.iter().map(|arg| (*arg).to_owned()));
        let env = [(
            "BATWA_ADMIN_PASSWORD_FILE",
            password_file.display().to_string(),
        )];
        let log = self.path("master.log");
        let mut process = Process::start(&binary(), &args, &env, &log, pin)?;
        answers(address, &mut process).await?;
        let mut connection = Connection::open(address).await?;
        let signed_in = connection.send(&sign_in()).await?;
        signed_in.good().context("cannot sign in")?;
        let cookie = signed_in
            .header("set-cookie")
            .and_then(|cookie| cookie.split(';').next())
            .context("signed in without a cookie")?
            .to_owned();
        let made = connection
            .send(&request(
                "POST",
                "/api/v1/tokens",
                &[("Cookie", &cookie)],
                Some(&json!({"name": "bench"})),
            ))
            .await?
            .json()
            .context("cannot make a token")?;
        let token = made["token"].as_str().context("a token without its text")?;
        Ok(Master {
            process,
            address,
            bearer: format!("Bearer {token}"),
        })
    }

    /// Starts a master that was killed again, where and as it was.
    pub(crate) async fn restart(&self, master: &mut Master) -> anyhow::Result<()> {
        let args = arguments("master", master.address, &self.path("master"));
        let log = self.path("master-again.log");
        master.process = Process::start(&binary(), &args, &[], &log, Pin::Anywhere)?;
        answers(master.address, &mut master.process).await?;
        Ok(())
    }

    /// Starts an agent of pretended VMs as the guide says.
    pub(crate) fn agent(
        &self,
        master: &Master,
        id: &str,
        fake: &str,
        pin: Pin,
    ) -> anyhow::Result<Agent> {
        self.agent_with(master, id, &["--driver", "fake", "--fake", fake], &[], pin)
    }

    /// Starts an agent with these flags and more in its environment.
    pub(crate) fn agent_with(
        &self,
        master: &Master,
        id: &str,
        flags: &[&str],
        env: &[(&str, String)],
        pin: Pin,
    ) -> anyhow::Result<Agent> {
        let address = free_address()?;
        let mut args = arguments("agent", address, &self.path(id));
        let master_url = format!("http://{}", master.address);
        let guide = [
            "--agent-id",
            id,
            "--master-url",
            &master_url,
            "--heartbeat-interval",
            "5",
        ];
        args.extend(guide.iter().chain(flags).map(|arg| (*arg).to_owned()));
        let mut all_env = vec![("BATWA_API_KEY", AGENT_KEY.to_owned())];
        all_env.extend_from_slice(env);
        let process = Process::start(
            &binary(),
            &args,
            &all_env,
            &self.path(&format!("{id}.log")),
            pin,
        )?;
        Ok(Agent {
            process,
            address,
            id: id.to_owned(),
        })
    }
}

impl Lab {
    /// Starts an agent of pretended VMs that joins with a token and dials in.
    pub(crate) async fn member(
        &self,
        master: &Master,
        id: &str,
        fake: &str,
        pin: Pin,
    ) -> anyhow::Result<Process> {
        self.member_through(master, master.address, id, fake, pin)
            .await
    }

    /// The same, where the master is reached at another address.
    pub(crate) async fn member_through(
        &self,
        master: &Master,
        address: SocketAddr,
        id: &str,
        fake: &str,
        pin: Pin,
    ) -> anyhow::Result<Process> {
        let made = master
            .call("POST", "/api/v1/join-tokens", Some(&json!({})))
            .await?;
        let token = made["token"].as_str().context("a token without its text")?;
        let url = format!("http://{address}");
        let state_dir = self.path(id).display().to_string();
        let args = [
            "agent",
            "join",
            &url,
            token,
            "--agent-id",
            id,
            "--driver",
            "fake",
            "--fake",
            fake,
            "--log-level",
            "warn",
            "--state-dir",
            &state_dir,
        ]
        .map(str::to_owned);
        let log = self.path(&format!("{id}.log"));
        Process::start(&binary(), &args, &[], &log, pin)
    }
}

impl Agent {
    /// Calls the agent itself, as the master does.
    pub(crate) async fn call(
        &self,
        connection: &mut Connection,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        connection
            .send(&request(method, path, &[("X-API-Key", AGENT_KEY)], body))
            .await
    }
}

impl Master {
    /// A request of somebody who is signed in.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        request(method, path, &[("Authorization", &self.bearer)], body)
    }

    /// Calls on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        self.door().call(method, path, body).await
    }

    /// Where it is called, and as whom.
    pub(crate) fn door(&self) -> Door {
        Door {
            address: self.address,
            bearer: self.bearer.clone(),
        }
    }

    /// Waits until so many agents are online and so many VMs known.
    pub(crate) async fn knows(
        &mut self,
        agents: u64,
        vms: u64,
        within: Duration,
    ) -> anyhow::Result<()> {
        let ended = self.process.check();
        let found = eventually(within, async || {
            let list = self.call("GET", "/api/v1/agents?limit=1", None).await?;
            let online = list["counts"]["statuses"]["online"].as_u64().unwrap_or(0);
            let list = self.call("GET", "/api/v1/vms?limit=1", None).await?;
            let known = list["counts"]["total"].as_u64().unwrap_or(0);
            anyhow::ensure!(
                online >= agents && known >= vms,
                "{online} of {agents} agents are online, {known} of {vms} VMs known"
            );
            Ok(())
        })
        .await;
        ended?;
        found
    }

    /// The name of some running VM on an agent.
    pub(crate) async fn running_vm(&self, agent: &str) -> anyhow::Result<String> {
        eventually(Duration::from_secs(20), async || {
            let list = self
                .call(
                    "GET",
                    &format!("/api/v1/vms?agent={agent}&state=running&limit=1"),
                    None,
                )
                .await?;
            list["items"][0]["name"]
                .as_str()
                .map(str::to_owned)
                .context("no VM runs there")
        })
        .await
    }
}

impl Door {
    /// Calls on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut connection = Connection::open(self.address).await?;
        connection
            .send(&request(
                method,
                path,
                &[("Authorization", &self.bearer)],
                body,
            ))
            .await?
            .json()
            .with_context(|| format!("{method} {path}"))
    }
}

impl Master {
    /// Ends all terminals: they would live on for half an hour, and an agent has room for some hundred.
    pub(crate) async fn end_terminals(&self) -> anyhow::Result<()> {
        eventually(Duration::from_secs(30), async || {
            let list = self.call("GET", "/api/v1/terminals", None).await?;
            let ids: Vec<_> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|terminal| terminal["id"].as_str())
                .collect();
            let mut connection = Connection::open(self.address).await?;
            for id in &ids {
                // One that ended meanwhile is 404.
                let path = format!("/api/v1/terminals/{id}");
                connection
                    .send(&self.request("DELETE", &path, None))
                    .await?;
            }
            anyhow::ensure!(ids.is_empty(), "{} terminals are still there", ids.len());
            Ok(())
        })
        .await
    }
}

/// Tries until it succeeds; the last error when it does not in time.
pub(crate) async fn eventually<T>(
    within: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > within => {
                return Err(error.context(format!("not so within {within:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Bounds a future by a time in which nothing healthy fails.
pub(crate) async fn within<T>(
    limit: Duration,
    what: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, what)
        .await
        .with_context(|| format!("not done within {limit:?}"))?
}

/// The request that signs the admin in.
pub(crate) fn sign_in() -> Vec<u8> {
    request(
        "POST",
        "/api/v1/session",
        &[],
        Some(&json!({"username": "admin", "password": PASSWORD})),
    )
}

/// Flags that every role has.
pub(crate) fn arguments(role: &str, address: SocketAddr, state_dir: &Path) -> Vec<String> {
    [
        role,
        "--host",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
        "--state-dir",
        &state_dir.display().to_string(),
        "--log-level",
        "warn",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A loopback address nobody listens on. Known before the process starts, so that its first answer can be timed.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits for the first answer of a process; how long it took from now.
pub(crate) async fn answers(
    address: SocketAddr,
    process: &mut Process,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let health = request("GET", "/health", &[], None);
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && connection
                .send(&health)
                .await
                .is_ok_and(|answer| answer.status == 200)
        {
            return Ok(begun.elapsed());
        }
        process.check()?;
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "no answer in 30 s: {}",
            process.last_words()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
