//! A whole agent over a Multipass that misbehaves: what its callers see.

mod upkeep;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use batwa_agent::{
    Agent, AgentConfig, Clock, FakeSettings,
    driver::{Driver, fake::FakeDriver, multipass::Multipass},
};
use batwa_api::{
    agent::{AgentInfo, DriverKind, Health, HealthStatus},
    id::{AgentId, OperationId},
    operation::{Operation, OperationState},
    vm::{NoticeKind, Vm, VmState},
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::stand_in::{DEADLINE, StandIn};

/// A running agent with the Multipass of a stand-in and some VMs that pretend.
struct Lab {
    router: Router,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Lab {
    fn new(multipass: &StandIn, state_dir: &std::path::Path) -> Self {
        Self::at(multipass, state_dir, Clock::of_the_machine())
    }

    /// The same with a time of its own.
    fn at(multipass: &StandIn, state_dir: &std::path::Path, clock: Clock) -> Self {
        let mut config = AgentConfig::new(AgentId::parse("lab").unwrap(), state_dir.to_owned());
        config.clock = clock;
        let mut settings = multipass.settings();
        settings.limits.quick = Duration::from_millis(1000);
        let fake = FakeSettings {
            vms: 2,
            ..FakeSettings::default()
        };
        let drivers: Vec<Arc<dyn Driver>> = vec![
            Arc::new(Multipass::new(settings)),
            Arc::new(FakeDriver::open(state_dir, fake).unwrap()),
        ];
        let agent = Agent::with_drivers(config, drivers).unwrap();
        let (router, stop) = (agent.router(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let until = stop.clone();
        tasks.spawn(async move { agent.run(until).await.unwrap() });
        Self {
            router,
            stop,
            tasks,
        }
    }

    /// Ends the agent in order.
    async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        let response = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_value(body).unwrap()
    }

    async fn vms(&self) -> Vec<Vm> {
        let body: Value = self.get("/api/v1/vms").await;
        serde_json::from_value(body["items"].clone()).unwrap()
    }

    async fn vm(&self, name: &str) -> Option<Vm> {
        self.vms()
            .await
            .into_iter()
            .find(|vm| vm.name.as_str() == name)
    }

    /// The health of Multipass; `None` while it has not been asked yet.
    async fn health(&self) -> Option<Health> {
        let agent: AgentInfo = self.get("/api/v1/agent").await;
        let mut drivers = agent.drivers.into_iter();
        let multipass = drivers.find(|driver| driver.kind == DriverKind::Multipass)?;
        (multipass.health.message.as_deref() != Some("starting")).then_some(multipass.health)
    }

    async fn until_health(&self, wanted: HealthStatus) -> Health {
        let until = Instant::now() + DEADLINE;
        loop {
            let health = self.health().await;
            if let Some(health) = health.clone().filter(|health| health.status == wanted) {
                return health;
            }
            assert!(Instant::now() < until, "{health:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_vm(&self, name: &str, wanted: VmState) -> Vm {
        let until = Instant::now() + DEADLINE;
        loop {
            let vm = self.vm(name).await;
            if let Some(vm) = vm.clone().filter(|vm| vm.state == wanted) {
                return vm;
            }
            assert!(Instant::now() < until, "{vm:?}, not {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ask(&self, vm: &str, request: Value) -> OperationId {
        let id = OperationId::new();
        let mut body = request;
        body["vm"] = json!(vm);
        let (status, body) = self
            .call(Method::PUT, &format!("/api/v1/operations/{id}"), Some(body))
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        id
    }

    async fn create(&self, vm: &str) -> OperationId {
        let spec = json!({"image": "24.04", "cpus": 1, "memory": "512M", "driver": "multipass"});
        self.ask(vm, json!({"kind": "create", "spec": spec})).await
    }

    async fn operation(&self, id: OperationId) -> Operation {
        self.get(&format!("/api/v1/operations/{id}")).await
    }

    async fn finished(&self, id: OperationId) -> Operation {
        let until = Instant::now() + DEADLINE;
        loop {
            let operation = self.operation(id).await;
            if operation.state.is_finished() {
                return operation;
            }
            assert!(Instant::now() < until, "{operation:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_multipass_costs_nobody_else_anything_and_comes_back_by_itself() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web"]).await;
    let lab = Lab::new(&multipass, state.path());
    lab.until_vm("web", VmState::Running).await;
    let other = lab
        .vms()
        .await
        .into_iter()
        .find(|vm| vm.driver == DriverKind::Fake)
        .unwrap();

    multipass.control(&json!({"hang": ["*"]}));
    let before = batwa_api::Timestamp::now();
    let health = lab.until_health(HealthStatus::Stuck).await;
    assert!(
        health
            .message
            .as_deref()
            .unwrap()
            .contains("has not answered since"),
        "{health:?}"
    );
    assert!(health.since >= before);

    // Lists come from what is known: a hundred of them take less than one call of the daemon may.
    let began = Instant::now();
    for _ in 0..100 {
        let vm = lab.vm("web").await.unwrap();
        assert_eq!(vm.state, VmState::Running);
        assert!(vm.observed_at < health.since);
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

    // Other VMs work.
    let action = if other.state == VmState::Running {
        "stop"
    } else {
        "start"
    };
    let id = lab.ask(other.name.as_str(), json!({"kind": action})).await;
    assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    let still = lab.health().await.unwrap();
    assert_eq!(
        (still.status, still.since),
        (HealthStatus::Stuck, health.since)
    );

    multipass.behave();
    lab.until_health(HealthStatus::Ok).await;
    multipass.run(&["stop", "web"]).await;
    lab.until_vm("web", VmState::Stopped).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_during_a_launch_is_creating_and_a_dead_daemon_makes_it_late() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.control(&json!({"launch": "daemon_dies", "boot_ms": 1500, "down_ms": 300}));
    let lab = Lab::new(&multipass, state.path());
    lab.until_health(HealthStatus::Ok).await;
    let id = lab.create("web").await;
    lab.until_vm("web", VmState::Creating).await;
    let operation = lab.finished(id).await;
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
    assert!(operation.late);
    let vm = lab.until_vm("web", VmState::Running).await;
    assert_eq!(vm.driver, DriverKind::Multipass);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_late_says_why_and_leaves_nothing() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.control(&json!({"launch": "fails_late"}));
    let lab = Lab::new(&multipass, state.path());
    lab.until_health(HealthStatus::Ok).await;
    let id = lab.create("web").await;
    let operation = lab.finished(id).await;
    assert_eq!(operation.state, OperationState::Failed);
    let error = operation.error.unwrap();
    assert!(error.detail.contains("Cannot allocate memory"), "{error:?}");
    assert!(error.hint.is_some() && !error.log.is_empty(), "{error:?}");
    assert_eq!(lab.vm("web").await, None);
    assert_eq!(multipass.state("web").await, "");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_launch_leaves_nothing() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.control(&json!({"boot_ms": 20_000}));
    let lab = Lab::new(&multipass, state.path());
    lab.until_health(HealthStatus::Ok).await;
    let id = lab.create("web").await;
    lab.until_vm("web", VmState::Creating).await;
    let (status, body) = lab
        .call(
            Method::POST,
            &format!("/api/v1/operations/{id}/cancel"),
            None,
        )
        .await;
    assert!(status.is_success(), "{body}");
    let operation = lab.finished(id).await;
    assert_eq!(operation.state, OperationState::Cancelled, "{operation:?}");
    assert_eq!(multipass.state("web").await, "");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_goes_on_under_an_agent_that_was_stopped_and_is_settled_by_the_next() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.control(&json!({"boot_ms": 1500}));
    let lab = Lab::new(&multipass, state.path());
    lab.until_health(HealthStatus::Ok).await;
    let id = lab.create("web").await;
    lab.until_vm("web", VmState::Creating).await;
    lab.stop().await;
    let lab = Lab::new(&multipass, state.path());
    let operation = lab.finished(id).await;
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
    assert_eq!(multipass.state("web").await, "Running");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipass_that_is_not_running_is_missing_until_it_runs() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.control(&json!({"down": true}));
    let lab = Lab::new(&multipass, state.path());
    let health = lab.until_health(HealthStatus::Missing).await;
    assert!(
        health.message.as_deref().unwrap().contains("start it"),
        "{health:?}"
    );
    multipass.behave();
    lab.until_health(HealthStatus::Ok).await;
    let agent: AgentInfo = lab.get("/api/v1/agent").await;
    assert_eq!(agent.drivers[0].version.as_deref(), Some("1.16.3"));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_open_on_fifty_vms_costs_one_cheap_list_each_time() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has_many(50);
    multipass.control(&json!({"login_ms": 0}));
    let lab = Lab::new(&multipass, state.path());
    // Each is looked at once when the agent starts.
    let until = Instant::now() + DEADLINE * 4;
    let is_known = |vm: &Vm| vm.driver == DriverKind::Multipass && !vm.ipv4.is_empty();
    while lab.vms().await.iter().filter(|vm| is_known(vm)).count() < 50 {
        assert!(Instant::now() < until, "they are never known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let looks = multipass.count("info vm-01 --format json");
    let (calls, lists) = (multipass.calls().len(), multipass.count("list"));
    while multipass.count("list") < lists + 4 {
        assert!(Instant::now() < until, "it does not poll");
        assert_eq!(lab.vms().await.iter().filter(|vm| is_known(vm)).count(), 50);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for line in multipass.lines_after(calls) {
        assert_eq!(line, "list --no-ipv4 --format json");
    }
    assert_eq!(looks, 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_a_disk_goes_on_under_an_agent_that_was_stopped_and_is_settled_by_the_next() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has_stopped(&["web"]).await;
    multipass.control(&json!({"disk_ms": 1500}));
    let mut lab = Lab::new(&multipass, state.path());
    for (request, call, times) in [
        (
            json!({"kind": "snapshot", "name": "first"}),
            "snapshot web",
            1,
        ),
        (
            json!({"kind": "resize", "memory": "2G"}),
            "set local.web.memory=2G",
            1,
        ),
        // Nothing shows whether it was done, and doing it twice ends the same.
        (
            json!({"kind": "restore", "snapshot": "first", "discard": true}),
            "restore web.first",
            2,
        ),
        (json!({"kind": "clone", "name": "twin"}), "clone web", 1),
        (
            json!({"kind": "delete_snapshot", "snapshot": "first"}),
            "delete --purge web.first",
            1,
        ),
    ] {
        let until = Instant::now() + DEADLINE;
        let needs_first = request.to_string().contains("\"snapshot\":\"first\"");
        while !lab.vm("web").await.is_some_and(|vm| {
            vm.state == VmState::Stopped && (vm.snapshots.len() == 1 || !needs_first)
        }) {
            assert!(Instant::now() < until, "{request}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let id = lab.ask("web", request.clone()).await;
        multipass.called(call).await;
        crate::stand_in::eventually("the daemon at work", || multipass.is_busy()).await;
        lab.stop().await;
        lab = Lab::new(&multipass, state.path());
        let operation = lab.finished(id).await;
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
        assert_eq!(multipass.count(call), times, "{request}");
    }
    lab.until_vm("twin", VmState::Stopped).await;
    let web = lab.until_vm("web", VmState::Stopped).await;
    assert_eq!(web.snapshots, []);
    lab.stop().await;
}
