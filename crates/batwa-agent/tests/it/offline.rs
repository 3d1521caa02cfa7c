//! Snapshots, clones and sizes, as a master asks for them: what touches a VM's disk while it is off.

use batwa_agent::{FakeSettings, driver::fake::StepMode};
use batwa_api::{
    operation::{Operation, OperationState},
    problem::ProblemCode,
    vm::VmState,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::lab::{Lab, vm_name};

async fn lab_with_vm() -> Lab {
    let lab = Lab::new(FakeSettings::instant()).await;
    let create = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
    succeeded(&lab.run("web", create).await);
    lab
}

fn succeeded(operation: &Operation) {
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
}

async fn snapshots(lab: &Lab) -> Vec<String> {
    let vm = lab.get("/api/v1/vms/web").await.body;
    let snapshots = vm["snapshots"].as_array().cloned().unwrap_or_default();
    snapshots
        .iter()
        .map(|snapshot| snapshot["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_vm_that_runs_is_stopped_for_a_snapshot_only_where_that_is_asked_for() {
    let lab = lab_with_vm().await;
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(
        (&vm["needs_stop"], &vm["actions"]["snapshot"]),
        (&json!(true), &Value::Null)
    );

    let refused = lab.start("web", json!({"kind": "snapshot"})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.body["code"], "illegal_state", "{}", refused.body);
    assert!(refused.body["detail"].as_str().unwrap().contains("`stop`"));

    let taken = lab
        .run("web", json!({"kind": "snapshot", "stop": true}))
        .await;
    succeeded(&taken);
    assert_eq!(taken.snapshot.unwrap().as_str(), "snapshot1");
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(vm["state"], "running", "it is started again: {vm}");
    assert_eq!(snapshots(&lab).await, ["snapshot1"]);
}

#[tokio::test]
async fn going_back_keeps_what_was_there_unless_told_otherwise() {
    let lab = lab_with_vm().await;
    succeeded(&lab.run("web", json!({"kind": "stop"})).await);
    let first = json!({"kind": "snapshot", "name": "first", "comment": "clean"});
    succeeded(&lab.run("web", first).await);
    succeeded(
        &lab.run("web", json!({"kind": "restore", "snapshot": "first"}))
            .await,
    );
    assert_eq!(snapshots(&lab).await, ["first", "before-restore1"]);
    let discard = json!({"kind": "restore", "snapshot": "first", "discard": true});
    succeeded(&lab.run("web", discard).await);
    assert_eq!(snapshots(&lab).await, ["first", "before-restore1"]);
    succeeded(
        &lab.run(
            "web",
            json!({"kind": "delete_snapshot", "snapshot": "first"}),
        )
        .await,
    );
    assert_eq!(snapshots(&lab).await, ["before-restore1"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_field_and_changes_nothing() {
    let lab = lab_with_vm().await;
    succeeded(&lab.run("web", json!({"kind": "stop"})).await);
    succeeded(
        &lab.run("web", json!({"kind": "snapshot", "name": "first"}))
            .await,
    );
    for (request, status, code, field) in [
        (
            json!({"kind": "snapshot", "name": "first"}),
            409,
            ProblemCode::NameTaken,
            "name",
        ),
        (
            json!({"kind": "snapshot", "name": "1st"}),
            422,
            ProblemCode::InvalidField,
            "name",
        ),
        (
            json!({"kind": "snapshot", "comment": "\u{1b}[31m"}),
            422,
            ProblemCode::InvalidField,
            "comment",
        ),
        (
            json!({"kind": "restore", "snapshot": "none"}),
            404,
            ProblemCode::NotFound,
            "",
        ),
        (
            json!({"kind": "delete_snapshot", "snapshot": "none"}),
            404,
            ProblemCode::NotFound,
            "",
        ),
        (
            json!({"kind": "clone", "name": "web"}),
            409,
            ProblemCode::NameTaken,
            "name",
        ),
        (
            json!({"kind": "clone", "name": "a b"}),
            400,
            ProblemCode::Malformed,
            "",
        ),
        (
            json!({"kind": "clone", "name": "1b"}),
            422,
            ProblemCode::InvalidField,
            "name",
        ),
        (
            json!({"kind": "clone", "name": "two", "snapshot": "none"}),
            404,
            ProblemCode::NotFound,
            "",
        ),
        (
            json!({"kind": "resize"}),
            422,
            ProblemCode::InvalidField,
            "cpus",
        ),
        (
            json!({"kind": "resize", "disk": "512M"}),
            422,
            ProblemCode::InvalidField,
            "disk",
        ),
        (
            json!({"kind": "resize", "memory": "999T"}),
            422,
            ProblemCode::InvalidField,
            "memory",
        ),
    ] {
        let answer = lab.start("web", request.clone()).await;
        let seen = answer.status.as_u16();
        if field.is_empty() {
            // Where no field is at fault, the kind of problem is what matters.
            assert!(
                seen == status || (status == 400 && seen == 422),
                "{request}: {}",
                answer.body
            );
            continue;
        }
        assert_eq!(seen, status, "{request}: {}", answer.body);
        assert_eq!(answer.body["code"], json!(code), "{request}");
        assert_eq!(
            answer.body["errors"][0]["field"], field,
            "{request}: {}",
            answer.body
        );
    }
    assert_eq!(snapshots(&lab).await, ["first"]);
    assert_eq!(lab.vm_names().await, ["web"]);
}

#[tokio::test]
async fn a_clone_has_a_name_that_nobody_else_can_take_meanwhile() {
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        vms: 1,
        ..FakeSettings::instant()
    };
    let lab = Lab::new(stepped).await;
    let fake = &lab.driver;
    fake.change_behind(&vm_name("demo-01"), Some(VmState::Stopped))
        .unwrap();
    lab.vm_when("demo-01", |vm| vm["state"] == "stopped").await;
    let clone = json!({"kind": "clone", "name": "twin"});
    let first = lab.start("demo-01", clone.clone()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.body);
    assert_eq!(first.body["target"], "twin");
    lab.vm_when("twin", |vm| vm["state"] == "creating").await;
    let create = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
    for (vm, request) in [("demo-01", clone), ("twin", create)] {
        let refused = lab.start(vm, request).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
        assert_eq!(refused.body["code"], "name_taken", "{}", refused.body);
    }
    let id = serde_json::from_value(first.body["id"].clone()).unwrap();
    let cancelled = lab
        .post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    assert_eq!(cancelled.status, StatusCode::OK, "{}", cancelled.body);
    fake.step(5);
    assert_eq!(lab.finished(id).await.state, OperationState::Cancelled);
    assert_eq!(lab.vm_names().await, ["demo-01"], "nothing is left of it");
}

#[tokio::test]
async fn a_new_size_is_seen_at_once() {
    let lab = lab_with_vm().await;
    let resize = json!({"kind": "resize", "memory": "1536M", "disk": "2G", "stop": true});
    succeeded(&lab.run("web", resize).await);
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(vm["memory"], 1536u64 << 20);
    assert_eq!(vm["disk"], 2u64 << 30);
    assert_eq!(vm["state"], "running");
}
