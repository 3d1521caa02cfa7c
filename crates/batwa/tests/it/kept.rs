//! Operations for machines that are offline, and operations that are asked for again.

use serde_json::{Value, json};

use crate::lab::{INSTANT, Lab, until};

/// A lab whose machine `edge` has the running VM `web`.
async fn lab_with_vm(fake: &str) -> (Lab, crate::lab::LabAgent) {
    let lab = Lab::master(&[]).await;
    let edge = lab.agent("edge", fake).await;
    lab.create_vm("edge", "web").await;
    (lab, edge)
}

async fn act(lab: &Lab, action: &str, query: &str) -> Value {
    let path = format!("/api/v1/agents/edge/vms/web/{action}{query}");
    lab.admin.post(&path, json!({})).await.expect(202)
}

#[tokio::test]
async fn what_is_kept_for_a_machine_is_done_in_order_once_it_is_back() {
    let (lab, mut edge) = lab_with_vm(INSTANT).await;
    edge.kill();
    lab.agent_is("edge", "offline").await;

    let refused = lab
        .admin
        .post("/api/v1/agents/edge/vms/web/stop", json!({}))
        .await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    let unknown = "/api/v1/agents/edge/vms/none/stop?when_online=1h";
    assert_eq!(lab.admin.post(unknown, json!({})).await.status, 404);

    // What no machine can do is not kept until one says so.
    for (action, body, field) in [
        (
            "mount",
            json!({"source": "../etc", "target": "/mnt"}),
            "source",
        ),
        (
            "mount",
            json!({"source": "/srv", "target": "mnt"}),
            "target",
        ),
        ("umount", json!({"target": "mnt"}), "target"),
        ("clone", json!({"name": "1web"}), "name"),
        ("resize", json!({"memory": "1M"}), "memory"),
    ] {
        let path = format!("/api/v1/agents/edge/vms/web/{action}?when_online=1h");
        let refused = lab.admin.post(&path, body).await;
        assert_eq!(refused.status, 422, "{action}: {}", refused.body);
        assert_eq!(
            refused.body["errors"][0]["field"], field,
            "{}",
            refused.body
        );
    }

    let mut kept = Vec::new();
    for action in ["stop", "snapshot", "start"] {
        let operation = act(&lab, action, "?when_online=1h").await;
        assert_eq!(operation["state"], "queued", "{operation}");
        assert!(operation["waits_until"].is_string(), "{operation}");
        kept.push(operation["id"].clone());
    }
    let create = json!({ "name": "late", "image": "tiny", "memory": "256M" });
    let path = "/api/v1/agents/edge/vms?when_online=1h";
    kept.push(lab.admin.post(path, create).await.expect(202)["id"].clone());

    edge.start().await;
    for id in &kept {
        let operation = lab.finished(id).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        assert_eq!(operation["waits_until"], Value::Null, "{operation}");
    }
    let vm = lab.vm("edge", "web").await.expect("the VM");
    assert_eq!(vm["state"], "running", "the start came last: {vm}");
    assert_eq!(vm["snapshots"].as_array().map(Vec::len), Some(1), "{vm}");
    assert!(lab.vm("edge", "late").await.is_some());
}

#[tokio::test]
async fn what_is_kept_survives_the_master_and_can_be_cancelled() {
    let (mut lab, mut edge) = lab_with_vm(INSTANT).await;
    edge.kill();
    lab.agent_is("edge", "offline").await;
    let stop = act(&lab, "stop", "?when_online=1h").await;
    let other = act(&lab, "restart", "?when_online=1h").await;
    lab.kill();
    lab.restart().await;
    let path = format!(
        "/api/v1/operations/{}/cancel",
        other["id"].as_str().expect("an id")
    );
    let cancelled = lab.admin.post(&path, json!({})).await.expect(202);
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    edge.start().await;
    let stop = lab.finished(&stop["id"]).await;
    assert_eq!(stop["state"], "succeeded", "{stop}");
    let vm = lab.vm("edge", "web").await.expect("the VM");
    assert_eq!(vm["state"], "stopped");
}

#[tokio::test]
async fn what_is_kept_in_vain_fails_and_says_that_nothing_was_done() {
    let (lab, mut edge) = lab_with_vm(INSTANT).await;
    edge.kill();
    lab.agent_is("edge", "offline").await;
    let stop = act(&lab, "stop", "?when_online=1s").await;
    let failed = lab.finished(&stop["id"]).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert_eq!(failed["error"]["code"], "agent_offline");
    let detail = failed["error"]["detail"].as_str().expect("a detail");
    assert!(detail.contains("nothing was done"), "{detail}");
    edge.start().await;
    lab.agent_is("edge", "online").await;
    let vm = lab.vm("edge", "web").await.expect("the VM");
    assert_eq!(vm["state"], "running");
}

#[tokio::test]
async fn an_operation_that_failed_is_asked_for_again_and_found_by_kind_and_account() {
    let (lab, _edge) = lab_with_vm("vms=0,latency=0ms,fail=restart:1").await;
    let failed = act(&lab, "restart", "").await;
    let failed = lab.finished(&failed["id"]).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let steps = failed["steps"].as_array().expect("steps");
    assert_eq!(steps[0]["stage"], "restarting", "{failed}");
    assert!(failed["requested_from"].is_string(), "{failed}");

    let retry = |id: &Value| format!("/api/v1/operations/{}/retry", id.as_str().expect("an id"));
    let again = lab
        .admin
        .post(&retry(&failed["id"]), json!({}))
        .await
        .expect(202);
    assert_ne!(again["id"], failed["id"]);
    assert_eq!(again["kind"], "restart");
    lab.finished(&again["id"]).await;

    let found = "/api/v1/operations?kind=restart,stop&requested_by=admin";
    until("both are listed", async || {
        let listed = lab.admin.try_get(found).await?.body;
        let items = listed["items"].as_array()?;
        let all = items.len() == 2 && items.iter().all(|item| item["kind"] == "restart");
        (all && listed["counts"]["total"] == 2).then_some(())
    })
    .await;
    let nobody = "/api/v1/operations?requested_by=nobody";
    assert_eq!(lab.admin.get(nobody).await.expect(200)["items"], json!([]));

    let created = lab
        .admin
        .get("/api/v1/operations?kind=create")
        .await
        .expect(200);
    let done = lab
        .admin
        .post(&retry(&created["items"][0]["id"]), json!({}))
        .await;
    assert_eq!(done.status, 409, "{}", done.body);
}
