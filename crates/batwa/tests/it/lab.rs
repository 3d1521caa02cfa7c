//! A master, agents and callers to experiment with.

mod caller;
mod machine;
mod member;
mod process;
mod terminal;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use self::{
    caller::{Answer, Caller},
    machine::{COPY, Machine, Networks, REPOSITORY},
    member::join_token,
    process::{Finished, Process, ProcessBuilder, batwa},
    terminal::Terminal,
};

/// Far above what anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The admin that every lab has.
pub(crate) const ADMIN: (&str, &str) = ("admin", "correct horse battery");
/// A fake driver that begins with nothing and takes no time.
pub(crate) const INSTANT: &str = "vms=0,latency=0ms";

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago, for programs that cannot say which one they took.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

/// One master with its folder, signed in as its admin.
pub(crate) struct Lab {
    dir: TempDir,
    command: &'static str,
    fake: String,
    extra: Vec<String>,
    /// The process; `None` while it is down.
    pub(crate) master: Option<Process>,
    /// Where it listens.
    pub(crate) url: String,
    /// The admin, by API token.
    pub(crate) admin: Caller,
}

impl Lab {
    /// `batwa up` with a fake driver that takes no time.
    pub(crate) async fn up() -> Self {
        Self::start("up", INSTANT, &[]).await
    }

    /// `batwa up` with this fake driver.
    pub(crate) async fn up_with(fake: &str) -> Self {
        Self::start("up", fake, &[]).await
    }

    /// `batwa up` with this fake driver and these flags besides.
    pub(crate) async fn up_with_flags(fake: &str, extra: &[&str]) -> Self {
        Self::start("up", fake, extra).await
    }

    /// `batwa master` with these flags besides.
    pub(crate) async fn master(extra: &[&str]) -> Self {
        Self::start("master", "", extra).await
    }

    /// `batwa master` that serves TLS with a certificate of its own making.
    pub(crate) async fn master_by_tls() -> Self {
        let mut lab = Self::unstarted("master", "", &["--tls", "self-signed"]);
        lab.start_master(0).await;
        let certificate = lab.master.as_ref().expect("it runs").certificate();
        let nobody = Caller::pinning(&lab.url, certificate);
        lab.admin = nobody.sign_in(ADMIN).await;
        lab
    }

    async fn start(command: &'static str, fake: &str, extra: &[&str]) -> Self {
        let mut lab = Self::unstarted(command, fake, extra);
        lab.start_master(0).await;
        let nobody = match &lab.master {
            Some(master) if lab.url.starts_with("https") => {
                Caller::pinning(&lab.url, master.certificate())
            }
            _ => Caller::nobody(&lab.url),
        };
        lab.admin = nobody.take_token(ADMIN).await;
        if command == "up" {
            lab.agent_is("local", "online").await;
        }
        lab
    }

    fn unstarted(command: &'static str, fake: &str, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("password"), ADMIN.1).expect("the password file");
        Self {
            dir,
            command,
            fake: fake.to_owned(),
            extra: extra.iter().map(|text| (*text).to_owned()).collect(),
            master: None,
            url: String::new(),
            admin: Caller::nobody(""),
        }
    }

    async fn start_master(&mut self, port: u16) {
        let mut builder = batwa()
            .args([
                self.command,
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .arg("--state-dir")
            .arg(self.state_dir())
            .env(
                "BATWA_ADMIN_PASSWORD_FILE",
                self.dir.path().join("password"),
            );
        if self.command == "up" {
            builder = builder.args(["--driver", "fake", "--fake", &self.fake]);
        }
        let process = builder.args(&self.extra).start();
        self.url = process.address("Batwa is at").await;
        self.master = Some(process);
    }

    /// Starts the master again on the same port and folder.
    pub(crate) async fn restart(&mut self) {
        assert!(self.master.is_none(), "it runs");
        let port = self
            .url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("the URL has a port");
        self.start_master(port).await;
        until("the master is ready again", async || {
            let answer = self.admin.try_get("/ready").await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Pulls the master's plug.
    pub(crate) fn kill(&mut self) {
        self.master.take().expect("it runs").kill();
    }

    /// What the master logged so far.
    pub(crate) fn log(&self) -> String {
        self.master.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The master's folder.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A folder of the lab for something else.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts an agent the guide's way, approves it, and waits until it is online.
    pub(crate) async fn agent(&self, id: &str, fake: &str) -> LabAgent {
        let mut agent = LabAgent::new(&self.dir.path().join(id), id, &self.url);
        agent.fake = fake.to_owned();
        agent.start().await;
        self.approve(id).await;
        self.agent_is(id, "online").await;
        agent
    }

    /// Approves an agent once it waits for that.
    pub(crate) async fn approve(&self, id: &str) {
        self.agent_is(id, "pending").await;
        self.admin
            .post(&format!("/api/v1/agents/{id}/approve"), json!({}))
            .await
            .ok();
    }

    /// Waits until an agent stands so.
    pub(crate) async fn agent_is(&self, id: &str, status: &str) -> Value {
        let path = format!("/api/v1/agents/{id}");
        until(&format!("agent {id} is {status}"), async || {
            let answer = self.admin.try_get(&path).await?;
            (answer.body["status"] == status).then_some(answer.body)
        })
        .await
    }

    /// Makes a VM and waits until it runs.
    pub(crate) async fn create_vm(&self, agent: &str, name: &str) -> Value {
        let path = format!("/api/v1/agents/{agent}/vms");
        let operation = self
            .admin
            .post(
                &path,
                json!({ "name": name, "image": "tiny", "memory": "256M" }),
            )
            .await
            .expect(202);
        self.finished(&operation["id"]).await
    }

    /// Waits for the end of an operation.
    pub(crate) async fn finished(&self, id: &Value) -> Value {
        let path = format!("/api/v1/operations/{}", id.as_str().expect("an id"));
        until("the operation ends", async || {
            let answer = self.admin.try_get(&path).await?;
            let state = answer.body["state"].as_str()?;
            matches!(state, "succeeded" | "failed" | "cancelled").then_some(answer.body)
        })
        .await
    }

    /// The VM as the master lists it now.
    pub(crate) async fn vm(&self, agent: &str, name: &str) -> Option<Value> {
        let answer = self
            .admin
            .get(&format!("/api/v1/agents/{agent}/vms/{name}"))
            .await;
        (answer.status == 200).then_some(answer.body)
    }
}

/// An agent by itself, started with the guide's flags.
pub(crate) struct LabAgent {
    folder: PathBuf,
    id: String,
    master_url: String,
    port: u16,
    /// What its fake driver pretends.
    pub(crate) fake: String,
    /// Its key.
    pub(crate) key: String,
    /// The process; `None` while it is down.
    pub(crate) process: Option<Process>,
    /// Where it listens.
    pub(crate) url: String,
}

impl LabAgent {
    /// An agent that is not started yet.
    pub(crate) fn new(folder: &Path, id: &str, master_url: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            id: id.to_owned(),
            master_url: master_url.to_owned(),
            port: 0,
            fake: INSTANT.to_owned(),
            key: format!("key-of-{id}"),
            process: None,
            url: String::new(),
        }
    }

    /// Starts it, again on the same port when it ran before.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let process = batwa()
            .args(["agent", "--agent-id", &self.id, "--api-key", &self.key])
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--heartbeat-interval", "0.2"])
            .args(["--driver", "fake", "--fake", &self.fake])
            .arg("--state-dir")
            .arg(&self.folder)
            .args(
                Some(["--master-url", &self.master_url])
                    .filter(|_| !self.master_url.is_empty())
                    .into_iter()
                    .flatten(),
            )
            .start();
        self.url = process.address("listens on").await;
        self.port = self
            .url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("the URL has a port");
        self.process = Some(process);
    }

    /// Pulls its plug.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Somebody who has its key.
    pub(crate) fn caller(&self) -> Caller {
        Caller::with_key(&self.url, &self.key)
    }
}
