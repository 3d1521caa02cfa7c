//! Wrong inputs: a clear message that names the field, and nothing left over.

use serde_json::{Value, json};

use crate::lab::Lab;

/// A good request but for these fields.
fn request(changes: &Value) -> Value {
    let mut body =
        json!({ "name": "x", "image": "tiny", "cpus": 1, "memory": "256M", "disk": "1G" });
    for (field, value) in changes.as_object().expect("fields") {
        body[field] = value.clone();
    }
    body
}

#[tokio::test]
async fn each_wrong_field_is_named_and_nothing_is_left_over() {
    let lab = Lab::up().await;
    lab.create_vm("local", "taken").await;
    let long = "a".repeat(64);
    let huge_user_data = "#".repeat(65 << 10);
    let cases = [
        ("name", json!({ "name": "with space" })),
        ("name", json!({ "name": "--all" })),
        ("name", json!({ "name": "../x" })),
        ("name", json!({ "name": long })),
        ("name", json!({ "name": "🦀" })),
        ("name", json!({ "name": "" })),
        ("name", json!({ "name": "x\u{0}y" })),
        ("memory", json!({ "memory": "abc" })),
        ("memory", json!({ "memory": "0" })),
        ("memory", json!({ "memory": "999T" })),
        ("memory", json!({ "memory": -1 })),
        ("disk", json!({ "disk": "1M" })),
        ("disk", json!({ "disk": "999999T" })),
        ("disk", json!({ "image": "24.04", "disk": "1G" })),
        ("cpus", json!({ "cpus": 0 })),
        ("cpus", json!({ "cpus": 100_000 })),
        ("cpus", json!({ "cpus": "two" })),
        ("image", json!({ "image": "no-such-image" })),
        ("image", json!({ "image": "--help" })),
        ("image", json!({ "image": "" })),
        (
            "cloud_init",
            json!({ "cloud_init": "#cloud-config\nusers: [" }),
        ),
        ("cloud_init", json!({ "cloud_init": huge_user_data })),
        ("labels", json!({ "labels": { "bad key": "x" } })),
    ];
    for (field, changes) in cases {
        let answer = lab
            .admin
            .post("/api/v1/agents/local/vms", request(&changes))
            .await;
        let shown = changes.to_string().chars().take(80).collect::<String>();
        assert_eq!(answer.status, 422, "{shown}: {}", answer.body);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{shown}"
        );
        assert_eq!(
            answer.body["code"], "invalid_field",
            "{shown}: {}",
            answer.body
        );
        let fields: Vec<_> = answer.body["errors"]
            .as_array()
            .map(|errors| {
                errors
                    .iter()
                    .filter_map(|error| error["field"].as_str())
                    .collect()
            })
            .unwrap_or_default();
        assert_eq!(fields, [field], "{shown}: {}", answer.body);
        assert!(
            answer.body["detail"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{shown}"
        );
    }
    let taken = lab
        .admin
        .post(
            "/api/v1/agents/local/vms",
            request(&json!({ "name": "taken" })),
        )
        .await;
    assert_eq!(taken.body["code"], "name_taken");
    assert!(taken.refused(409).contains("taken"));

    let vms = lab.admin.get("/api/v1/vms").await.expect(200);
    assert_eq!(vms["counts"]["total"], 1, "{vms}");
    let operations = lab.admin.get("/api/v1/operations").await.expect(200);
    assert_eq!(
        operations["counts"]["total"], 1,
        "only the good one was written down: {operations}"
    );
    // The driver keeps one folder or record a VM.
    let left: Vec<_> = walk(&lab.state_dir().join("agent"))
        .into_iter()
        .filter(|path| path.ends_with("/x") || path.contains("space"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[tokio::test]
async fn a_vm_that_is_gone_meanwhile_is_not_found() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let operation = lab
        .admin
        .delete("/api/v1/agents/local/vms/web?purge=true")
        .await
        .expect(202);
    lab.finished(&operation["id"]).await;
    for path in ["/start", "/stop", "/restart", "/recover"] {
        let answer = lab
            .admin
            .post(&format!("/api/v1/agents/local/vms/web{path}"), json!({}))
            .await;
        assert!(answer.refused(404).contains("web"), "{path}");
    }
    lab.admin
        .delete("/api/v1/agents/local/vms/web")
        .await
        .refused(404);
    lab.admin
        .get("/api/v1/agents/local/vms/web")
        .await
        .refused(404);
    let terminal = json!({ "vm": "web", "cols": 80, "rows": 24 });
    lab.admin
        .post("/api/v1/terminals", terminal)
        .await
        .refused(404);
}

#[tokio::test]
async fn what_the_state_forbids_is_refused_with_the_reason() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let answer = lab
        .admin
        .post("/api/v1/agents/local/vms/web/recover", json!({}))
        .await;
    assert_eq!(answer.body["code"], "illegal_state", "{}", answer.body);
    assert!(answer.refused(409).contains("not in the trash"));
    let vm = lab.vm("local", "web").await.expect("the VM");
    assert_eq!(
        vm["actions"]["recover"], "VM is not in the trash",
        "the VM says so before: {vm}"
    );
    assert_eq!(vm["actions"]["stop"], Value::Null);
}

#[tokio::test]
async fn requests_that_are_none_are_refused_as_problems() {
    let lab = Lab::up().await;
    let admin = &lab.admin;
    let raw = async |method: reqwest::Method, path: &str, kind: &str, body: Vec<u8>| {
        let request = admin
            .request(method, path)
            .header("content-type", kind.to_owned())
            .body(body);
        admin.send(request).await
    };
    let post = reqwest::Method::POST;
    let vms = "/api/v1/agents/local/vms";
    let json_type = "application/json";
    for (answer, statuses) in [
        (
            raw(post.clone(), vms, json_type, b"{".to_vec()).await,
            [400, 422],
        ),
        (
            raw(post.clone(), vms, json_type, b"[]".to_vec()).await,
            [400, 422],
        ),
        (
            raw(post.clone(), vms, "text/plain", b"{}".to_vec()).await,
            [415, 400],
        ),
        (
            raw(post, vms, json_type, vec![b' '; 8 << 20]).await,
            [413, 413],
        ),
        (
            raw(reqwest::Method::PUT, vms, json_type, b"{}".to_vec()).await,
            [405, 405],
        ),
        (admin.get("/api/v1/nowhere").await, [404, 404]),
        (admin.get("/api/v1/agents/a%20b/vms/x").await, [404, 422]),
        (admin.get("/api/v1/vms?limit=5000").await, [422, 400]),
        (admin.get("/api/v1/vms?cursor=rubbish").await, [422, 400]),
        (admin.get("/api/v1/vms?state=asleep").await, [422, 400]),
        (admin.get("/api/v1/operations/soon").await, [404, 422]),
    ] {
        assert!(
            statuses.contains(&answer.status),
            "{statuses:?}: {answer:?}"
        );
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{answer:?}"
        );
        assert!(
            answer.body["detail"].is_string() && answer.body["code"].is_string(),
            "{answer:?}"
        );
    }
}
