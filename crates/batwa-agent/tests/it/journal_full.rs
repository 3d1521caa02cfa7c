//! A disk that is full when an operation is to be written down: nothing is half begun, nothing accepted is lost.

use std::{path::Path, time::Duration};

use batwa_agent::{FakeSettings, driver::fake::StepMode};
use batwa_api::{id::OperationId, operation::OperationState, vm::VmState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    lab::{Answer, DEADLINE, Lab, vm_name},
    small_disk::{SmallDisk, with_small_disk},
};

const ROOM: u64 = 1 << 20;

fn stepped() -> FakeSettings {
    FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    }
}

/// An agent whose state folder is on `disk`, while its VM `web` is elsewhere; the VM is off.
async fn lab_with_web(disk: &SmallDisk, vms: &Path) -> Lab {
    let dir = tempfile::tempdir_in(&disk.0).unwrap();
    let lab = Lab::apart(dir, vms, stepped(), |_| ()).await;
    lab.driver
        .change_behind(&vm_name("web"), Some(VmState::Stopped))
        .unwrap();
    lab.vm_when("web", |vm| vm["state"] == "stopped").await;
    lab
}

impl Lab {
    /// Asks for something that must be accepted.
    async fn accepted(&self, request: Value) -> OperationId {
        let id = OperationId::new();
        let answer = self.put(id, "web", request).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        id
    }

    /// Waits until an operation is listed as being in a state: it is once the disk was asked to take that.
    async fn listed(&self, id: OperationId, state: OperationState) {
        let (id, state) = (json!(id), json!(state));
        let there = async {
            loop {
                let body = self.get("/api/v1/operations").await.body;
                let mut items = body["items"].as_array().unwrap().iter();
                if items.any(|item| item["id"] == id && item["state"] == state) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, there).await.unwrap();
    }

    /// Waits until an operation is written down as being in a state.
    async fn written(&self, id: OperationId, state: OperationState) {
        let entry = self.dir().join(format!("operations/{id}.json"));
        let written = || {
            let text = std::fs::read(&entry).unwrap();
            let mut entry: Value = serde_json::from_slice(&text).unwrap();
            serde_json::from_value::<OperationState>(entry["operation"]["state"].take()).unwrap()
        };
        let done = async {
            while written() != state {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(DEADLINE, done).await;
        assert!(waited.is_ok(), "it stays {:?}", written());
    }
}

fn assert_full(refused: &Answer) {
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let detail = refused.body["detail"].as_str().unwrap();
    let said = detail.contains("cannot write") && detail.contains("disk is full");
    assert!(said, "{detail}");
}

#[tokio::test]
async fn what_cannot_be_written_down_is_refused_and_costs_nobody_anything() {
    let vms = tempfile::tempdir().unwrap();
    let test = async |disk: SmallDisk| {
        let lab = lab_with_web(&disk, vms.path()).await;
        let start = lab.accepted(json!({"kind": "start"})).await;
        lab.written(start, OperationState::Running).await;
        let restart = lab.accepted(json!({"kind": "restart"})).await;

        disk.leave(0);
        let id = OperationId::new();
        let forced = json!({"kind": "stop", "force": true});
        assert_full(&lab.put(id, "web", forced.clone()).await);
        let unknown = lab.get(&format!("/api/v1/operations/{id}")).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        let change = Some(json!({"protected": true}));
        assert_full(&lab.call(Method::PATCH, "/api/v1/vms/web", change).await);

        // It would have pushed both aside.
        disk.leave(ROOM);
        lab.driver.step(100);
        for id in [start, restart] {
            let ended = lab.finished(id).await;
            assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
        }
        let web = lab.get("/api/v1/vms/web").await.body;
        assert_eq!(
            (&web["state"], &web["settings"]),
            (&json!("running"), &Value::Null)
        );
        let again = lab.put(id, "web", forced).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.body);
        lab.driver.step(100);
        assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
        drop(lab.stop().await);
    };
    with_small_disk(4, test, |_| ()).await;
}

#[tokio::test]
async fn how_operations_ended_is_written_down_when_there_is_room_and_they_are_done_once() {
    let vms = tempfile::tempdir().unwrap();
    let test = async |disk: SmallDisk| {
        let lab = lab_with_web(&disk, vms.path()).await;
        let start = lab.accepted(json!({"kind": "start"})).await;
        lab.written(start, OperationState::Running).await;
        let restart = lab.accepted(json!({"kind": "restart"})).await;
        disk.leave(0);
        lab.driver.step(100);
        assert_eq!(lab.finished(start).await.state, OperationState::Succeeded);
        // Not begun, as it could not be written down that it was.
        let failed = lab.finished(restart).await;
        let error = failed.error.unwrap();
        assert!(error.detail.contains("cannot write"), "{error:?}");
        let hint = error.hint.unwrap();
        assert!(hint.contains("disk is full"), "{hint}");

        disk.leave(ROOM);
        let stop = lab.accepted(json!({"kind": "stop"})).await;
        lab.driver.step(100);
        assert_eq!(lab.finished(stop).await.state, OperationState::Succeeded);
        let dir = lab.kill().await;
        let lab = Lab::apart(dir, vms.path(), FakeSettings::instant(), |_| ()).await;
        let ends = async |id| lab.finished(id).await.state;
        assert_eq!(ends(start).await, OperationState::Succeeded);
        assert_eq!(ends(restart).await, OperationState::Failed);
        let web = lab.vm_when("web", |vm| !vm.is_null()).await;
        assert_eq!(web["state"], "stopped", "it was started once more");
        drop(lab.stop().await);
    };
    with_small_disk(4, test, |_| ()).await;
}

#[tokio::test]
async fn an_end_that_the_disk_did_not_take_is_written_down_without_anybody_asking() {
    let vms = tempfile::tempdir().unwrap();
    let test = async |disk: SmallDisk| {
        let lab = lab_with_web(&disk, vms.path()).await;
        let start = lab.accepted(json!({"kind": "start"})).await;
        lab.written(start, OperationState::Running).await;
        disk.leave(0);
        lab.driver.step(100);
        lab.listed(start, OperationState::Succeeded).await;
        disk.leave(ROOM);
        lab.written(start, OperationState::Succeeded).await;
        drop(lab.stop().await);
    };
    with_small_disk(4, test, |_| ()).await;
}
