//! A real agent process to kill: this program again, told so by its environment.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use batwa_agent::{
    Agent, AgentConfig, Clock, DriverChoice,
    driver::command::{Command, Detached},
};
use batwa_api::{
    agent::DriverKind,
    id::{AgentId, OperationId},
    operation::Operation,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::lab::{PATIENCE, end_vms, program_file, state_folder};

/// The state folder of the agent to be.
const DIR: &str = "BATWA_TEST_AGENT_DIR";

/// In its folder: how many seconds its clock was moved on since it started, where it has one of its own.
const CLOCK: &str = "clock";

/// Stands before `qemu-img` on the agent's PATH: at the command that the file `hold` names, it stays before or after
/// doing it, once, for as long as there is a file `held`.
const HOLD: &str = r#"#!/bin/sh
command=$1
[ "$1" = snapshot ] && command="$1 $3"
stay() { mv DIR/hold DIR/held; while [ -e DIR/held ]; do sleep 0.05; done; }
if [ "$(cat DIR/hold 2>/dev/null)" = "before $command" ]; then stay; fi
PROGRAM "$@" || exit $?
if [ "$(cat DIR/hold 2>/dev/null)" = "after $command" ]; then stay; fi
"#;

/// Not a test: the agent that the tests here start and kill. It ends with its folder.
#[tokio::test]
async fn an_agent_for_the_others() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    let mut config = AgentConfig::new(AgentId::parse("lab").unwrap(), dir.clone());
    config.drivers = DriverChoice::List(vec![DriverKind::Qemu]);
    config.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    let clock = Clock::standing_still("one");
    if dir.join(CLOCK).exists() {
        config.clock = clock.clone();
    }
    let agent = Agent::new(config).unwrap();
    let url = format!("http://{}", agent.address().unwrap());
    std::fs::write(dir.join("url.partial"), url).unwrap();
    std::fs::rename(dir.join("url.partial"), dir.join("url")).unwrap();
    let gone = async {
        let mut moved = 0;
        while dir.exists() {
            let to = std::fs::read_to_string(dir.join(CLOCK));
            let to = to.ok().and_then(|text| text.parse().ok()).unwrap_or(moved);
            clock.advance(Duration::from_secs(to - moved));
            moved = to;
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = agent.run(CancellationToken::new()) => ended.unwrap(),
        () = gone => {}
    }
}

/// An agent in a process of its own.
pub(crate) struct AgentProcess {
    dir: tempfile::TempDir,
    process: Option<Detached>,
    url: String,
    http: reqwest::Client,
    /// How far its clock was moved; `None` where it goes by the machine's.
    moved: Option<Duration>,
}

impl AgentProcess {
    /// Starts one on a new folder.
    pub(crate) async fn new() -> Self {
        Self::on(state_folder(&std::env::temp_dir())).await
    }

    /// The same on a folder that is there.
    pub(crate) async fn on(dir: tempfile::TempDir) -> Self {
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = program_file("qemu-img").unwrap();
        let script = HOLD
            .replace("DIR", dir.path().to_str().unwrap())
            .replace("PROGRAM", program.to_str().unwrap());
        std::fs::write(bin.join("qemu-img"), script).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join("qemu-img"), executable).unwrap();
        // Another test in this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut agent = Self {
            dir,
            process: None,
            url: String::new(),
            http: reqwest::Client::new(),
            moved: None,
        };
        agent.start().await;
        agent
    }

    /// Starts it anew with a clock of its own, which stands still until it is moved.
    pub(crate) async fn with_clock(mut self) -> Self {
        self.kill().await;
        self.moved = Some(Duration::ZERO);
        self.start().await;
        self
    }

    /// Moves its clock.
    pub(crate) fn advance(&mut self, by: Duration) {
        let moved = self.moved.as_mut().unwrap();
        *moved += by;
        let seconds = moved.as_secs().to_string();
        let new = self.path().join("clock.new");
        std::fs::write(&new, seconds).unwrap();
        std::fs::rename(new, self.path().join(CLOCK)).unwrap();
    }

    /// Starts it where it was killed.
    pub(crate) async fn start(&mut self) {
        let url = self.path().join("url");
        let _ = std::fs::remove_file(&url);
        if self.moved.is_some() {
            self.moved = Some(Duration::ZERO);
            self.advance(Duration::ZERO);
        }
        let path = std::env::var("PATH").unwrap();
        let log = std::fs::File::create(self.path().join("log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent::an_agent_for_the_others", "--nocapture"])
            .env(DIR, self.path())
            .env("PATH", format!("{}/bin:{path}", self.path().display()))
            .spawn_detached(Some(&log))
            .unwrap();
        self.process = Some(child);
        until("the agent says where it is", async || {
            std::fs::read_to_string(&url).ok()
        })
        .await;
        self.url = std::fs::read_to_string(&url).unwrap();
    }

    /// Kills it, and nobody else.
    pub(crate) async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = i32::try_from(process.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        process.wait().await.unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Posts something that must be taken.
    pub(crate) async fn post(&self, path: &str, body: Value) {
        let url = format!("{}{path}", self.url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let status = answer.status();
        let said = answer.text().await.unwrap();
        assert!(status.is_success(), "{body}: {status} {said}");
    }

    /// Asks for an operation; one that names an image is for that, and for no VM.
    pub(crate) async fn ask(&self, vm: &str, mut request: Value) -> OperationId {
        let id = OperationId::new();
        if request.get("image").is_none() {
            request["vm"] = json!(vm);
        }
        let url = format!("{}/api/v1/operations/{id}", self.url);
        let answer = self.http.put(url).json(&request).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(status, 202, "{request}: {body}");
        id
    }

    /// Waits until an operation is as wanted.
    pub(crate) async fn when(
        &self,
        id: OperationId,
        wanted: impl Fn(&Operation) -> bool,
    ) -> Operation {
        until(&format!("operation {id}"), async || {
            let found: Operation = self.get(&format!("/api/v1/operations/{id}")).await?;
            wanted(&found).then_some(found)
        })
        .await
    }

    /// Does an operation to its end.
    pub(crate) async fn run(&self, vm: &str, request: Value) -> Operation {
        let id = self.ask(vm, request).await;
        self.when(id, |operation| operation.state.is_finished())
            .await
    }

    /// Asks for an operation, kills the agent at a command of `qemu-img`, and starts it again. The operation as the
    /// next agent ended it.
    pub(crate) async fn cut(&mut self, at: &str, vm: &str, request: Value) -> Operation {
        std::fs::write(self.path().join("hold"), at).unwrap();
        let id = self.ask(vm, request).await;
        let held = self.path().join("held");
        until(at, async || held.exists().then_some(())).await;
        self.kill().await;
        assert_eq!(self.commands().len(), 1, "it was not killed with its agent");
        self.start().await;
        assert!(self.commands().is_empty(), "{:?}", self.commands());
        std::fs::remove_file(held).unwrap();
        self.when(id, |operation| operation.state.is_finished())
            .await
    }

    /// Changes a VM's settings.
    pub(crate) async fn set(&self, vm: &str, change: Value) -> Value {
        let url = format!("{}/api/v1/vms/{vm}", self.url);
        let answer = self.http.patch(url).json(&change).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{change}");
        answer.json().await.unwrap()
    }

    /// Waits until a VM has a notice of a kind.
    pub(crate) async fn until_noticed(&self, vm: &str, kind: &str) {
        until(&format!("notice {kind}"), async || {
            let vm = self.vm(vm).await;
            let notices = vm["notices"].as_array()?;
            notices
                .iter()
                .any(|notice| notice["kind"] == kind)
                .then_some(())
        })
        .await;
    }

    /// The operations that it began by itself for a reason.
    pub(crate) async fn by_itself(&self, reason: &str) -> Vec<Operation> {
        let mut body: Value = until("the operations", async || {
            self.get("/api/v1/operations").await
        })
        .await;
        let all: Vec<Operation> = serde_json::from_value(body["items"].take()).unwrap();
        let mine = |operation: &Operation| operation.requested_by.as_deref() == Some(reason);
        all.into_iter().filter(mine).collect()
    }

    /// Waits until one of those is as wanted.
    pub(crate) async fn until_by_itself(
        &self,
        reason: &str,
        wanted: impl Fn(&Operation) -> bool,
    ) -> Operation {
        until(reason, async || {
            let mut begun = self.by_itself(reason).await.into_iter();
            begun.find(|operation| wanted(operation))
        })
        .await
    }

    /// The VMs by name, with what is known of them.
    pub(crate) async fn vms(&self) -> Vec<Value> {
        let mut body: Value =
            until("the list of VMs", async || self.get("/api/v1/vms").await).await;
        serde_json::from_value(body["items"].take()).unwrap()
    }

    /// One VM.
    pub(crate) async fn vm(&self, name: &str) -> Value {
        let mut vms = self.vms().await.into_iter();
        vms.find(|vm| vm["name"] == name).unwrap_or_default()
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await;
        answer.ok()?.json().await.ok()
    }

    /// The command lines of the `qemu-img` that stay for us.
    pub(crate) fn commands(&self) -> Vec<String> {
        let mine = self.path().join("bin/qemu-img");
        let mine = mine.to_str().unwrap();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(mine))
            .collect()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        end_vms(&self.path().join("qemu"));
    }
}

async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
