//! Operations and the inventory, as a master sees them.

use std::{sync::Arc, time::Duration};

use batwa_agent::{
    Agent, DriverChoice, FakeSettings,
    driver::{
        fake::{FakeDriver, StepMode},
        multipass::Multipass,
    },
};
use batwa_api::{
    event::WatchEvent,
    id::OperationId,
    operation::{OperationKind, OperationState, Stage},
    problem::ProblemCode,
    vm::VmState,
};
use futures_util::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::lab::{DEADLINE, Lab, vm_name};

fn stepped() -> FakeSettings {
    FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    }
}

fn create() -> Value {
    json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}})
}

#[tokio::test]
async fn a_vm_goes_through_its_life() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let created = lab.run("web", create()).await;
    assert_eq!(created.state, OperationState::Succeeded, "{created:?}");
    // Read your writes: no waiting here.
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(vm["state"], "running", "{vm}");
    assert_eq!(vm["actions"]["stop"], Value::Null);
    assert_eq!(vm["actions"]["start"], "VM is running");
    assert!(!vm["ipv4"].as_array().unwrap().is_empty());
    for (kind, state) in [
        ("stop", "stopped"),
        ("start", "running"),
        ("restart", "running"),
        ("suspend", "suspended"),
        ("resume", "running"),
        ("delete", "deleted"),
        ("recover", "stopped"),
    ] {
        let operation = lab.run("web", json!({"kind": kind})).await;
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
        let vm = lab.get("/api/v1/vms/web").await.body;
        assert_eq!(vm["state"], state, "after {kind}: {vm}");
        assert_eq!(vm["operations"], json!([]));
    }
    let purged = lab.run("web", json!({"kind": "purge"})).await;
    assert_eq!(purged.state, OperationState::Succeeded);
    assert!(lab.vm_names().await.is_empty());
    assert_eq!(
        lab.get("/api/v1/vms/web").await.status,
        StatusCode::NOT_FOUND
    );
    let log = lab
        .get(&format!("/api/v1/operations/{}/log", created.id))
        .await
        .body;
    assert!(log["items"].as_array().unwrap().len() > 3, "{log}");
}

#[tokio::test]
async fn user_data_is_forgotten_with_the_end_of_its_operation() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let secret = "hunter2-and-more";
    let text = format!("#cloud-config\npassword: {secret}\n");
    let request =
        json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G", "cloud_init": text}});
    let created = lab.run("web", request).await;
    assert_eq!(created.state, OperationState::Succeeded, "{created:?}");
    let folder = lab.stop().await;
    let journal = std::fs::read_dir(folder.path().join("operations")).unwrap();
    let entries: Vec<_> = journal
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(entries.len(), 1);
    assert!(entries[0].contains("tiny"), "{}", entries[0]);
    assert!(!entries[0].contains(secret), "{}", entries[0]);
}

#[tokio::test]
async fn watchers_see_the_effect_before_the_end_of_the_operation() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let mut watch = lab
        .http
        .get(lab.url("/api/v1/watch"))
        .send()
        .await
        .unwrap()
        .bytes_stream();
    let mut text = Vec::new();
    let mut events = Vec::new();
    let mut asked = None;
    let done = timeout(DEADLINE, async {
        while let Some(chunk) = watch.next().await {
            text.extend_from_slice(&chunk.unwrap());
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: WatchEvent = serde_json::from_slice(&line).unwrap();
                if asked.is_none() {
                    assert!(matches!(event, WatchEvent::Snapshot { .. }), "{event:?}");
                    let answer = lab.start("web", create()).await;
                    assert_eq!(answer.status, StatusCode::ACCEPTED);
                    asked = Some(());
                }
                let ends = matches!(&event, WatchEvent::Operation { operation, .. } if operation.state.is_finished());
                events.push(event);
                if ends {
                    return;
                }
            }
        }
    })
    .await;
    done.expect("an end of the operation");
    let vm_states: Vec<VmState> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Vm { vm, .. } => Some(vm.state),
            _ => None,
        })
        .collect();
    assert_eq!(vm_states.first(), Some(&VmState::Creating), "{vm_states:?}");
    assert_eq!(vm_states.last(), Some(&VmState::Running), "{vm_states:?}");
    let Some(WatchEvent::Operation { operation, .. }) = events.last() else {
        panic!()
    };
    assert_eq!(operation.state, OperationState::Succeeded);
    let stages: Vec<Stage> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Operation { operation, .. } => operation.stage,
            _ => None,
        })
        .collect();
    assert!(
        stages.contains(&Stage::Downloading) && stages.contains(&Stage::CloudInit),
        "{stages:?}"
    );
}

#[tokio::test]
async fn the_same_id_again_answers_with_the_same_operation() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let id = OperationId::new();
    assert_eq!(
        lab.put(id, "web", create()).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(lab.put(id, "web", create()).await.status, StatusCode::OK);
    lab.finished(id).await;
    let again = lab.put(id, "web", create()).await;
    assert_eq!(
        (again.status, &again.body["state"]),
        (StatusCode::OK, &json!("succeeded"))
    );
    assert_eq!(lab.vm_names().await, ["web"]);
}

#[tokio::test]
async fn wrong_requests_name_the_field_and_leave_nothing() {
    let lab = Lab::new(FakeSettings::instant()).await;
    lab.run("taken", create()).await;
    let spec = |change: Value| {
        let mut spec = json!({"image": "tiny", "disk": "1G"});
        spec.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        json!({"kind": "create", "spec": spec})
    };
    let long = "x".repeat(64);
    for (name, request, field, status) in [
        ("web_1", spec(json!({})), "name", 422),
        ("9lives", spec(json!({})), "name", 422),
        ("x-", spec(json!({})), "name", 422),
        (&*long, spec(json!({})), "name", 422),
        ("🦀", spec(json!({})), "name", 422),
        ("taken", spec(json!({})), "name", 409),
        ("web", spec(json!({"cpus": 0})), "cpus", 422),
        ("web", spec(json!({"cpus": 100_000})), "cpus", 422),
        ("web", spec(json!({"memory": "0"})), "memory", 422),
        ("web", spec(json!({"memory": "999T"})), "memory", 422),
        ("web", spec(json!({"disk": "1M"})), "disk", 422),
        (
            "web",
            spec(json!({"image": "24.04", "disk": "2G"})),
            "disk",
            422,
        ),
        ("web", spec(json!({"image": "nope"})), "image", 422),
        ("web", spec(json!({"image": "--all"})), "image", 422),
        (
            "web",
            spec(json!({"cloud_init": "#cloud-config\n{ a: [b"})),
            "cloud_init",
            422,
        ),
        ("web", spec(json!({"driver": "qemu"})), "driver", 422),
    ] {
        let answer = lab.start(name, request.clone()).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{name} {request} {}",
            answer.body
        );
        assert_eq!(
            answer.body["errors"][0]["field"], field,
            "{name} {request} {}",
            answer.body
        );
        assert_eq!(answer.content_type, "application/problem+json");
    }
    for wrong in ["--all", "../x", "a b", ""] {
        let answer = lab.start(wrong, create()).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{wrong} {}",
            answer.body
        );
    }
    let memory = lab.start("web", spec(json!({"memory": "abc"}))).await;
    assert_eq!(memory.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        memory.body["detail"]
            .as_str()
            .unwrap()
            .contains("`abc` is not a size")
    );
    assert_eq!(lab.vm_names().await, ["taken"]);
    let operations = lab.get("/api/v1/operations").await.body;
    assert_eq!(operations["items"].as_array().unwrap().len(), 1);
    let dir = lab.stop().await;
    let files = std::fs::read_dir(dir.path().join("operations")).unwrap();
    assert_eq!(files.count(), 1);
}

#[tokio::test]
async fn commands_that_are_not_possible_are_refused_with_the_reason() {
    let lab = Lab::new(FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    })
    .await;
    for (vm, kind, code, detail) in [
        (
            "nope",
            "start",
            ProblemCode::NotFound,
            "VM `nope` does not exist",
        ),
        (
            "demo-04",
            "suspend",
            ProblemCode::IllegalState,
            "cannot suspend VM `demo-04`: VM is stopped",
        ),
        (
            "demo-04",
            "restart",
            ProblemCode::IllegalState,
            "cannot restart VM `demo-04`: VM is stopped",
        ),
        (
            "demo-01",
            "recover",
            ProblemCode::IllegalState,
            "cannot recover VM `demo-01`: VM is not in the trash",
        ),
    ] {
        let answer = lab.start(vm, json!({"kind": kind})).await;
        assert_eq!(answer.body["code"], json!(code), "{}", answer.body);
        assert_eq!(answer.body["detail"], detail);
    }
    let done = lab.run("demo-01", json!({"kind": "start"})).await;
    assert_eq!(done.state, OperationState::Succeeded);
    assert_eq!(done.started_at, None, "nothing was done");
}

#[tokio::test]
async fn two_commands_for_one_vm_queue_and_different_vms_do_not() {
    let lab = Lab::new(FakeSettings {
        vms: 2,
        ..stepped()
    })
    .await;
    let (stop, start, other) = (OperationId::new(), OperationId::new(), OperationId::new());
    lab.put(stop, "demo-01", json!({"kind": "stop"})).await;
    lab.put(start, "demo-01", json!({"kind": "start"})).await;
    lab.put(other, "demo-02", json!({"kind": "stop"})).await;
    let running =
        |operation: &batwa_api::operation::Operation| operation.state == OperationState::Running;
    lab.operation_when(stop, running).await;
    lab.operation_when(other, running).await;
    assert_eq!(
        lab.operation_when(start, |_| true).await.state,
        OperationState::Queued
    );
    let vm = lab.vm_when("demo-01", |vm| vm["state"] == "stopping").await;
    assert_eq!(vm["operations"], json!([stop, start]));
    lab.driver.step(20);
    for id in [stop, start, other] {
        assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    }
    lab.vm_when("demo-01", |vm| vm["state"] == "running").await;
}

#[tokio::test]
async fn a_cancelled_create_leaves_nothing() {
    let lab = Lab::new(stepped()).await;
    let id = OperationId::new();
    lab.put(id, "web", create()).await;
    lab.vm_when("web", |vm| vm["state"] == "creating").await;
    lab.operation_when(id, |operation| operation.stage == Some(Stage::Downloading))
        .await;
    let answer = lab
        .post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    // The driver needs a step to remove what was made.
    lab.driver.step(10);
    assert_eq!(lab.finished(id).await.state, OperationState::Cancelled);
    assert!(lab.vm_names().await.is_empty());
    // A finished one stays as it is.
    let again = lab
        .post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    assert_eq!(again.body["state"], "cancelled");
}

#[tokio::test]
async fn a_purge_does_not_wait_for_what_it_makes_pointless() {
    let lab = Lab::new(FakeSettings {
        vms: 1,
        ..stepped()
    })
    .await;
    let (stop, start) = (OperationId::new(), OperationId::new());
    lab.put(stop, "demo-01", json!({"kind": "stop"})).await;
    lab.put(start, "demo-01", json!({"kind": "start"})).await;
    let purge = OperationId::new();
    lab.put(purge, "demo-01", json!({"kind": "purge"})).await;
    lab.driver.step(1);
    assert_eq!(lab.finished(purge).await.state, OperationState::Succeeded);
    assert_eq!(lab.finished(stop).await.state, OperationState::Cancelled);
    assert_eq!(lab.finished(start).await.state, OperationState::Cancelled);
    assert!(lab.vm_names().await.is_empty());
}

#[tokio::test]
async fn a_failure_has_its_reason_its_hint_and_its_log() {
    let lab = Lab::new("vms=0,latency=0ms,fail=create:1".parse().unwrap()).await;
    let failed = lab.run("web", create()).await;
    assert_eq!(failed.state, OperationState::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, ProblemCode::AgentFailed);
    assert!(error.detail.contains("`web`") && error.hint.is_some() && !error.log.is_empty());
    assert!(lab.vm_names().await.is_empty());
}

#[tokio::test]
async fn a_name_is_free_again_the_moment_its_failed_create_ends() {
    let lab = Lab::new("vms=0,latency=0ms,fail=create:1".parse().unwrap()).await;
    let id = OperationId::new();
    lab.put(id, "web", create()).await;
    let mut ended = id;
    for _ in 0..50 {
        // No pause between hearing of the end and the next command.
        while !lab
            .operation_when(ended, |_| true)
            .await
            .state
            .is_finished()
        {}
        let again = lab.start("web", create()).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.body);
        ended = serde_json::from_value(again.body["id"].clone()).unwrap();
    }
}

#[tokio::test]
async fn a_create_cut_off_by_a_kill_is_gone_on_with() {
    let lab = Lab::new(stepped()).await;
    let (create_id, queued) = (OperationId::new(), OperationId::new());
    lab.put(create_id, "web", create()).await;
    lab.put(queued, "web", json!({"kind": "stop"})).await;
    lab.driver.step(2);
    lab.operation_when(create_id, |operation| operation.progress == Some(50.0))
        .await;
    let dir = lab.kill().await;

    let lab = Lab::on(dir, stepped(), |_| ()).await;
    let operation = lab.operation_when(create_id, |_| true).await;
    assert!(!operation.state.is_finished(), "{operation:?}");
    lab.driver.step(100);
    assert_eq!(
        lab.finished(create_id).await.state,
        OperationState::Succeeded
    );
    assert_eq!(lab.finished(queued).await.state, OperationState::Succeeded);
    lab.vm_when("web", |vm| vm["state"] == "stopped").await;
}

#[tokio::test]
async fn stopping_the_agent_leaves_operations_to_the_next_one() {
    let lab = Lab::new(stepped()).await;
    let id = OperationId::new();
    lab.put(id, "web", create()).await;
    lab.operation_when(id, |operation| operation.state == OperationState::Running)
        .await;
    let dir = lab.stop().await;
    let lab = Lab::on(dir, FakeSettings::instant(), |_| ()).await;
    assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    lab.vm_when("web", |vm| vm["state"] == "running").await;
}

#[tokio::test]
async fn an_operation_is_begun_though_whoever_asked_for_it_hangs_up() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let lab = Lab::new(FakeSettings::instant()).await;
    lab.get("/api/v1/images").await;
    // The driver is asked about the image first, and does not answer.
    lab.driver.hang();
    let id = OperationId::new();
    let mut body = create();
    body["vm"] = json!("web");
    let body = body.to_string();
    let mut caller = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    let head = format!(
        "PUT /api/v1/operations/{id} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    caller
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    caller.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, caller.read_to_end(&mut rest))
        .await
        .expect("the agent lets go of the connection");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    lab.driver.recover_from_hang();
    let begun = timeout(DEADLINE, async {
        while lab.get(&format!("/api/v1/operations/{id}")).await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    begun.await.expect("the agent knows of it");
    let ended = lab.finished(id).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
}

#[tokio::test]
async fn a_hung_driver_delays_no_list_and_recovers_by_itself() {
    let lab = Lab::new(FakeSettings {
        vms: 2,
        ..FakeSettings::instant()
    })
    .await;
    let before = lab.vm_when("demo-01", |vm| vm["state"] == "running").await;
    lab.driver.hang();
    let health = async |status: &str| {
        let seen = timeout(DEADLINE, async {
            loop {
                let agent = lab.get("/api/v1/agent").await.body;
                let health = agent["drivers"][0]["health"].clone();
                if health["status"] == status {
                    return health;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        seen.await
            .unwrap_or_else(|_| panic!("the driver never is {status}"))
    };
    let stuck = health("stuck").await;
    assert!(
        stuck["message"]
            .as_str()
            .unwrap()
            .contains("did not answer"),
        "{stuck}"
    );
    let start = Instant::now();
    let vm = lab.get("/api/v1/vms").await.body["items"][0].clone();
    lab.get("/api/v1/vms/demo-01").await;
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(vm["state"], "running");
    assert_eq!(
        vm["observed_at"].as_str().unwrap()[..10],
        before["observed_at"].as_str().unwrap()[..10]
    );
    let refused = lab.start("web", create()).await;
    assert_eq!(
        refused.body["code"],
        json!(ProblemCode::DriverStuck),
        "{}",
        refused.body
    );
    lab.driver.recover_from_hang();
    health("ok").await;
    lab.run("web", create()).await;
}

#[tokio::test]
async fn what_others_do_to_vms_is_seen() {
    let lab = Lab::new(FakeSettings {
        vms: 2,
        ..FakeSettings::instant()
    })
    .await;
    lab.vm_when("demo-01", |vm| vm["state"] == "running").await;
    lab.driver
        .change_behind(&vm_name("demo-01"), Some(VmState::Stopped))
        .unwrap();
    lab.vm_when("demo-01", |vm| vm["state"] == "stopped").await;
    lab.driver.change_behind(&vm_name("demo-02"), None).unwrap();
    lab.vm_when("demo-02", Value::is_null).await;
    lab.driver
        .change_behind(&vm_name("made_by_hand"), Some(VmState::Running))
        .unwrap();
    lab.vm_when("made_by_hand", |vm| vm["state"] == "running")
        .await;
}

#[tokio::test]
async fn a_stop_that_waits_says_when_and_can_be_taken_back() {
    let lab = Lab::new(FakeSettings {
        vms: 1,
        ..FakeSettings::instant()
    })
    .await;
    let id = OperationId::new();
    let answer = lab
        .put(id, "demo-01", json!({"kind": "stop", "after_s": 3600}))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    let vm = lab
        .vm_when("demo-01", |vm| !vm["shutdown_at"].is_null())
        .await;
    assert_eq!(vm["state"], "running");
    lab.post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    assert_eq!(lab.finished(id).await.state, OperationState::Cancelled);
    let vm = lab
        .vm_when("demo-01", |vm| vm["shutdown_at"].is_null())
        .await;
    assert_eq!(vm["state"], "running");
}

#[tokio::test]
async fn images_and_facts_of_the_machine_are_told() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let images = lab.get("/api/v1/images").await.body;
    assert_eq!(images["items"][0]["name"], "ubuntu:24.04");
    let agent = lab.get("/api/v1/agent").await.body;
    assert_eq!(agent["agent_id"], "lab-1");
    assert_eq!(agent["labels"]["site"], "lab");
    assert!(agent["host"]["cpus"].as_u64().unwrap() >= 1);
    assert_eq!(agent["drivers"][0]["kind"], "fake");
}

#[tokio::test]
async fn auto_uses_the_first_driver_that_answers() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = crate::lab::config(dir.path());
    config.drivers = DriverChoice::Auto;
    let idle = Multipass::new(batwa_agent::driver::multipass::Settings {
        program: "/no/such/multipass".into(),
        ..config.multipass.clone()
    });
    let first = FakeDriver::open(other.path(), FakeSettings::instant()).unwrap();
    let agent = Agent::with_drivers(config, vec![Arc::new(first), Arc::new(idle)]).unwrap();
    let address = agent.address().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = CancellationToken::new();
    let look = async {
        let http = reqwest::Client::new();
        let found = timeout(DEADLINE, async {
            loop {
                let url = format!("http://{address}/api/v1/agent");
                let agent = crate::lab::answer(http.get(url)).await.body;
                if agent["drivers"][0]["version"].is_string() {
                    return agent["drivers"].clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let drivers = found.await.expect("a driver that answers");
        stop.cancel();
        drivers
    };
    let (ended, drivers) = tokio::join!(agent.run(stop.clone()), look);
    ended.unwrap();
    assert_eq!(drivers.as_array().unwrap().len(), 1, "{drivers}");
    assert_eq!(drivers[0]["kind"], "fake");
}

#[tokio::test]
async fn a_stop_that_waits_keeps_no_other_vm_from_its_turn() {
    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.limits.operations_per_driver = 1;
    })
    .await;
    for vm in ["a", "b"] {
        lab.run(vm, create()).await;
    }
    let id = OperationId::new();
    lab.put(id, "a", json!({"kind": "stop", "after_s": 3600}))
        .await;
    lab.vm_when("a", |vm| vm["shutdown_at"].is_string()).await;
    let stopped = lab.run("b", json!({"kind": "stop"})).await;
    assert_eq!(stopped.state, OperationState::Succeeded, "{stopped:?}");
    lab.post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    let cancelled = lab.finished(id).await;
    assert_eq!(cancelled.state, OperationState::Cancelled, "{cancelled:?}");
}

#[tokio::test]
async fn an_operation_has_the_deadline_of_its_kind() {
    let lab = Lab::with(stepped(), |config| {
        config
            .limits
            .deadlines
            .set(OperationKind::Create, Duration::from_millis(50));
    })
    .await;
    // Nobody steps the driver, so nothing happens until the time is over.
    let id = OperationId::new();
    lab.put(id, "web", create()).await;
    lab.operation_when(id, |operation| operation.stage == Some(Stage::CleaningUp))
        .await;
    lab.driver.step(100);
    let created = lab.finished(id).await;
    assert_eq!(created.state, OperationState::Failed, "{created:?}");
    let error = created.error.unwrap();
    assert_eq!(error.code, ProblemCode::Timeout, "{error:?}");
    assert!(error.detail.contains("not done after"), "{error:?}");
}

#[tokio::test]
async fn one_who_asks_for_much_does_not_keep_others_waiting() {
    let lab = Lab::with(stepped(), |config| config.limits.creates_per_driver = 1).await;
    let mut ids = Vec::new();
    for (vm, by) in [
        ("a0", "ann"),
        ("a1", "ann"),
        ("a2", "ann"),
        ("a3", "ann"),
        ("b0", "ben"),
    ] {
        let mut request = create();
        request["requested_by"] = json!(by);
        let id = OperationId::new();
        let answer = lab.put(id, vm, request).await;
        assert_eq!(answer.body["requested_by"], by, "{}", answer.body);
        ids.push(id);
    }
    lab.operation_when(ids[0], |first| first.state == OperationState::Running)
        .await;
    lab.driver.step(100);
    let mut started = Vec::new();
    for id in ids {
        let done = lab.finished(id).await;
        assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
        started.push(done.started_at.unwrap());
    }
    assert!(started[4] < started[3], "ben waited for ann: {started:?}");

    let mut request = create();
    request["requested_by"] = json!("x".repeat(256));
    let answer = lab.put(OperationId::new(), "c", request).await;
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        answer.body
    );
}
