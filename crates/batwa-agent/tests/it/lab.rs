//! An agent with fake VMs on a port of its own, and callers for it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use batwa_agent::{
    Agent, AgentConfig, DriverChoice, FakeSettings, Limits,
    driver::{Driver, fake::FakeDriver},
};
use batwa_api::{
    agent::DriverKind,
    id::{AgentId, OperationId},
    name::VmName,
    operation::Operation,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// The longest that anything may take here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Lab {
    pub(crate) driver: Arc<FakeDriver>,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) key: Option<&'static str>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    dir: Option<TempDir>,
}

/// What an answer was.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

pub(crate) fn config(state_dir: &Path) -> AgentConfig {
    AgentConfig {
        drivers: DriverChoice::List(vec![DriverKind::Fake]),
        listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
        limits: Limits {
            observe_interval: Duration::from_millis(200),
            observe_deadline: Duration::from_millis(600),
            ..Limits::default()
        },
        labels: BTreeMap::from([("site".to_owned(), "lab".to_owned())]),
        ..AgentConfig::new(AgentId::parse("lab-1").unwrap(), state_dir.to_owned())
    }
}

impl Lab {
    /// An agent with these fake VMs.
    pub(crate) async fn new(fake: FakeSettings) -> Self {
        Self::with(fake, |_| ()).await
    }

    /// The same with other settings.
    pub(crate) async fn with(fake: FakeSettings, change: impl FnOnce(&mut AgentConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::on(dir, fake, change).await
    }

    /// An agent on a folder that may have served one before.
    pub(crate) async fn on(
        dir: TempDir,
        fake: FakeSettings,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let vms = dir.path().to_owned();
        Self::apart(dir, &vms, fake, change).await
    }

    /// The same, whose VMs are in a folder of their own.
    pub(crate) async fn apart(
        dir: TempDir,
        vms: &Path,
        fake: FakeSettings,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let key: Option<&'static str> = config
            .key
            .as_ref()
            .map(|key| &*String::from(secrecy::ExposeSecret::expose_secret(key)).leak());
        let driver = Arc::new(FakeDriver::open(vms, fake).unwrap());
        let drivers: Vec<Arc<dyn Driver>> = vec![Arc::<FakeDriver>::clone(&driver)];
        let agent = Agent::with_drivers(config, drivers).unwrap();
        let address = agent.address().unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { agent.run(token).await.unwrap() });
        // Another test in this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            driver,
            address,
            http: reqwest::Client::new(),
            key,
            stop,
            tasks,
            dir: Some(dir),
        }
    }

    /// Stops the agent in order; its folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        while let Some(ended) = timeout(DEADLINE, self.tasks.join_next())
            .await
            .expect("an agent that stops in time")
        {
            ended.unwrap();
        }
        self.dir.take().unwrap()
    }

    /// Takes the agent away in the middle of whatever it does, as `kill -9` would.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.tasks.shutdown().await;
        self.dir.take().unwrap()
    }

    /// Its folder; the agent goes on until its runtime ends.
    pub(crate) fn abandon(mut self) -> TempDir {
        self.tasks.detach_all();
        self.dir.take().unwrap()
    }

    /// The agent's folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, self.url(path));
        if let Some(key) = self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Starts an operation under a new id; one that names an image is for that, and for no VM.
    pub(crate) async fn start(&self, vm: &str, request: Value) -> Answer {
        self.put(OperationId::new(), vm, request).await
    }

    pub(crate) async fn put(&self, id: OperationId, vm: &str, mut request: Value) -> Answer {
        if request.get("image").is_none() {
            request["vm"] = json!(vm);
        }
        self.call(
            Method::PUT,
            &format!("/api/v1/operations/{id}"),
            Some(request),
        )
        .await
    }

    /// Starts an operation that must be accepted, and waits until it is finished.
    pub(crate) async fn run(&self, vm: &str, request: Value) -> Operation {
        let answer = self.start(vm, request).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        self.finished(serde_json::from_value(answer.body["id"].clone()).unwrap())
            .await
    }

    /// Waits until an operation is finished.
    pub(crate) async fn finished(&self, id: OperationId) -> Operation {
        self.operation_when(id, |operation| operation.state.is_finished())
            .await
    }

    /// Waits until an operation is as wanted.
    pub(crate) async fn operation_when(
        &self,
        id: OperationId,
        wanted: impl Fn(&Operation) -> bool,
    ) -> Operation {
        let mut last = None;
        let found = timeout(DEADLINE, async {
            loop {
                let answer = self.get(&format!("/api/v1/operations/{id}")).await;
                let operation: Operation = serde_json::from_value(answer.body).unwrap();
                if wanted(&operation) {
                    return operation;
                }
                last = Some(operation);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("the operation stays {last:?}"))
    }

    /// Waits until a VM is as wanted; `Value::Null` is no VM.
    pub(crate) async fn vm_when(&self, vm: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = timeout(DEADLINE, async {
            loop {
                let answer = self.get("/api/v1/vms").await;
                let items = answer.body["items"].as_array().unwrap();
                let found = items.iter().find(|item| item["name"] == vm);
                last = found.cloned().unwrap_or_default();
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(found.is_ok(), "VM {vm} stays {last}");
        last
    }

    pub(crate) async fn vm_names(&self) -> Vec<String> {
        let answer = self.get("/api/v1/vms").await;
        let items = answer.body["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = timeout(DEADLINE, request.send()).await.unwrap().unwrap();
    let status = response.status();
    let content_type = response
        .headers()
        .get("content-type")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        content_type,
        body,
    }
}

pub(crate) fn vm_name(name: &str) -> VmName {
    VmName::parse(name).unwrap()
}
