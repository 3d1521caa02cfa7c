//! The paths that existed before v1: a test for each row of COMPAT.md, "Agent", that is no WebSocket.

use batwa_agent::{Allow, FakeSettings};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::lab::Lab;

fn four() -> FakeSettings {
    FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn health_tells_id_and_time() {
    let lab = Lab::new(four()).await;
    let health = lab.get("/health").await;
    assert_eq!(health.status, StatusCode::OK);
    assert_eq!(health.body["status"], "ok");
    assert_eq!(health.body["agent_id"], "lab-1");
    assert!(health.body["timestamp"].as_str().unwrap().contains('T'));
}

#[tokio::test]
async fn lists_look_as_multipass_prints_them() {
    let lab = Lab::new(four()).await;
    let list = lab.get("/api/vm/list").await.body;
    assert_eq!(keys(&list), ["list"]);
    let list = list["list"].as_array().unwrap();
    assert_eq!(list.len(), 4);
    assert_eq!(keys(&list[0]), ["ipv4", "name", "release", "state"]);
    assert_eq!(
        (&list[0]["name"], &list[0]["state"]),
        (&json!("demo-01"), &json!("Running"))
    );
    assert_eq!(
        (&list[3]["state"], &list[3]["ipv4"]),
        (&json!("Stopped"), &json!([]))
    );
}

#[tokio::test]
async fn details_look_as_multipass_prints_them() {
    let lab = Lab::new(four()).await;
    let running = lab.get("/api/vm/info/demo-01").await.body;
    assert_eq!(keys(&running), ["errors", "info"]);
    assert_eq!(running["errors"], json!([]));
    let vm = &running["info"]["demo-01"];
    assert_eq!(
        keys(vm),
        [
            "cpu_count",
            "disks",
            "image_hash",
            "image_release",
            "ipv4",
            "load",
            "memory",
            "mounts",
            "release",
            "snapshot_count",
            "state"
        ]
    );
    // Types as Multipass has them: counts and disks are text, memory is numbers.
    assert_eq!(vm["cpu_count"], "1");
    assert_eq!(vm["disks"]["sda1"]["total"], (5_u64 << 30).to_string());
    assert_eq!(vm["memory"]["total"], 1_u64 << 30);
    assert_eq!(vm["load"].as_array().unwrap().len(), 3);
    let stopped = lab.get("/api/vm/info/demo-04").await.body;
    let vm = &stopped["info"]["demo-04"];
    assert_eq!(
        (&vm["state"], &vm["cpu_count"]),
        (&json!("Stopped"), &json!(""))
    );
    assert_eq!(
        (&vm["disks"], &vm["memory"], &vm["load"]),
        (&json!({"sda1": {}}), &json!({}), &json!([]))
    );
    for missing in ["nope", "--all", "a%2Fb"] {
        let answer = lab.get(&format!("/api/vm/info/{missing}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{missing}");
        assert!(answer.body["detail"].is_string());
    }
}

#[tokio::test]
async fn old_calls_wait_until_it_is_done() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let created = lab
        .post("/api/vm/create", json!({"name": "web", "unknown": true}))
        .await;
    assert_eq!(created.status, StatusCode::OK, "{}", created.body);
    assert_eq!(created.body["success"], true);
    let state = async || lab.get("/api/vm/list").await.body["list"][0]["state"].clone();
    assert_eq!(state().await, "Running");
    // Also for what is so already, as Multipass does.
    for (path, expected) in [
        ("start", "Running"),
        ("stop", "Stopped"),
        ("stop", "Stopped"),
        ("start", "Running"),
    ] {
        let answer = lab
            .post(&format!("/api/vm/{path}"), json!({"name": "web"}))
            .await;
        assert_eq!(
            (answer.status, &answer.body["success"]),
            (StatusCode::OK, &json!(true)),
            "{path}"
        );
        assert_eq!(state().await, expected);
    }
    let deleted = lab.post("/api/vm/delete", json!({"name": "web"})).await;
    assert_eq!(deleted.status, StatusCode::OK);
    assert_eq!(lab.get("/api/vm/list").await.body, json!({"list": []}));
}

#[tokio::test]
async fn a_delete_purges_only_the_vm_that_is_named() {
    let lab = Lab::new(four()).await;
    lab.run("demo-02", json!({"kind": "delete"})).await;
    let answer = lab.post("/api/vm/delete", json!({"name": "demo-01"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let list = lab.get("/api/vm/list").await.body;
    let states: Vec<_> = list["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| (vm["name"].as_str().unwrap(), vm["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("demo-02", "Deleted"),
            ("demo-03", "Running"),
            ("demo-04", "Stopped")
        ]
    );
}

#[tokio::test]
async fn old_failures_have_a_detail_and_a_status_that_fits() {
    let lab = Lab::new(four()).await;
    for (path, body, status) in [
        ("start", json!({"name": "nope"}), 404),
        ("stop", json!({"name": "--all"}), 404),
        ("delete", json!({"name": "nope"}), 404),
        ("start", json!({}), 422),
        ("create", json!({"name": "demo-01"}), 409),
        ("create", json!({"name": "a b"}), 422),
        ("create", json!({"name": "web", "memory": "abc"}), 422),
        ("create", json!({"name": "web", "cpus": 0}), 422),
        ("create", json!({"name": "web", "image": "nope"}), 422),
    ] {
        let answer = lab.post(&format!("/api/vm/{path}"), body.clone()).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{path} {body} {}",
            answer.body
        );
        assert!(answer.body["detail"].is_string(), "{path} {body}");
    }
    let lab = Lab::new("vms=1,latency=0ms,fail=create:1".parse().unwrap()).await;
    let answer = lab.post("/api/vm/create", json!({"name": "web"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("told to fail")
    );
}

#[tokio::test]
async fn execute_runs_only_what_reads() {
    // Stands for Multipass: says what it was called with.
    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.multipass.program = "/bin/echo".into();
    })
    .await;
    let answer = lab
        .post(
            "/api/execute",
            json!({"command": "rm", "args": ["list", "--format", "json"]}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.body,
        json!({"success": true, "stdout": "list --format json\n", "stderr": "", "return_code": 0, "error": null})
    );
    for args in [
        json!([]),
        json!(["delete", "--all"]),
        json!(["list", "--what"]),
        json!(["exec", "web", "--", "sh"]),
    ] {
        let answer = lab
            .post(
                "/api/execute",
                json!({"command": "multipass", "args": args}),
            )
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{args}");
        assert!(answer.body["detail"].is_string());
    }
    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.multipass.program = "/bin/echo".into();
        config.execute = Allow::Yes;
    })
    .await;
    let answer = lab
        .post("/api/execute", json!({"args": ["delete", "web"]}))
        .await;
    assert_eq!(answer.body["stdout"], "delete web\n");
}

#[tokio::test]
async fn execute_says_when_there_is_no_multipass_and_when_it_takes_too_long() {
    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.multipass.program = "/no/such/multipass".into();
    })
    .await;
    let answer = lab.post("/api/execute", json!({"args": ["version"]})).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        (&answer.body["success"], &answer.body["return_code"]),
        (&json!(false), &json!(-1))
    );
    assert!(
        answer.body["error"]
            .as_str()
            .unwrap()
            .contains("not installed")
    );

    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.multipass.program = "/bin/sleep".into();
        config.execute = Allow::Yes;
    })
    .await;
    let answer = lab
        .post("/api/execute", json!({"args": ["60"], "timeout": 0.2}))
        .await;
    assert_eq!(
        (&answer.body["success"], &answer.body["return_code"]),
        (&json!(false), &json!(-1))
    );
    assert!(answer.body["error"].as_str().unwrap().contains("timed out"));
}
