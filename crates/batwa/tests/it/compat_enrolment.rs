//! COMPAT.md, the rows by which agents come and go.

use serde_json::{Value, json};

use crate::lab::{Caller, INSTANT, Lab, LabAgent, until};

fn registration(id: &str, url: &str) -> Value {
    json!({ "agent_id": id, "hostname": format!("{id}-host"), "api_url": url, "tags": { "site": "lab" } })
}

#[tokio::test]
async fn the_guides_agent_registers_waits_is_approved_and_is_managed() {
    let lab = Lab::up().await;
    let mut edge = LabAgent::new(&lab.folder("edge"), "edge", &lab.url);
    edge.start().await;
    edge.process
        .as_ref()
        .expect("it runs")
        .logged("Successfully registered with master")
        .await;
    lab.agent_is("edge", "pending").await;

    // Old clients see it waiting, and nobody has called it.
    let listed = lab.admin.get("/api/agent/list").await.expect(200);
    assert_eq!(
        listed.as_array().map(Vec::len),
        Some(1),
        "`local` is not listed: {listed}"
    );
    assert_eq!(listed[0]["agent_id"], "edge");
    assert_eq!(listed[0]["status"], "pending");
    let answer = lab
        .admin
        .post(
            "/api/vm/create",
            json!({ "name": "web", "agent_id": "edge" }),
        )
        .await;
    assert!(answer.refused(503).contains("edge"));

    lab.approve("edge").await;
    lab.agent_is("edge", "online").await;
    let info = lab.admin.get("/api/agent/info/edge").await.expect(200);
    assert_eq!(info["success"], true);
    let agent = &info["agent"];
    assert_eq!(agent["agent_id"], "edge");
    assert_eq!(agent["status"], "online");
    assert_eq!(agent["api_url"], edge.url);
    assert_eq!(agent["vm_count"], 0);
    assert!(
        agent["tags"].is_object() && agent["hostname"].is_string(),
        "{agent}"
    );
    let seen = agent["last_seen"].as_str().expect("a time");
    assert!(seen.contains('T') && seen.starts_with("20"), "{seen}");

    lab.create_vm("edge", "web").await;
    let info = lab.admin.get("/api/agent/info/edge").await.expect(200);
    assert_eq!(info["agent"]["vm_count"], 1);
}

#[tokio::test]
async fn register_heartbeat_and_unregister_answer_as_they_always_did() {
    let lab = Lab::up().await;
    let nobody = Caller::nobody(&lab.url);
    let keyed = nobody.clone().header("x-api-key", "secret-1");

    let answer = keyed
        .post(
            "/api/agent/register",
            registration("old", "http://127.0.0.1:9"),
        )
        .await
        .expect(200);
    assert_eq!(answer["success"], true);
    assert_eq!(answer["message"], "Agent 'old' registered successfully");
    let agent = &answer["agent"];
    assert_eq!(agent["agent_id"], "old");
    assert_eq!(agent["hostname"], "old-host");
    assert_eq!(agent["api_url"], "http://127.0.0.1:9");
    assert_eq!(agent["status"], "pending");
    assert_eq!(agent["tags"], json!({ "site": "lab" }));
    assert_eq!(agent["vm_count"], 0);

    // Python's naive local time, any status, any count.
    let beat = json!({ "agent_id": "old", "timestamp": "2026-11-23T05:04:03.123456", "status": "busy", "vm_count": "?" });
    assert_eq!(
        keyed
            .post("/api/agent/heartbeat", beat.clone())
            .await
            .expect(200),
        json!({ "success": true, "message": "Heartbeat received" })
    );
    // No key, a wrong key, two different keys.
    nobody
        .post("/api/agent/heartbeat", beat.clone())
        .await
        .refused(403);
    let liar = nobody.clone().header("x-api-key", "secret-2");
    liar.post("/api/agent/heartbeat", beat).await.refused(403);
    let mut two = registration("old", "http://127.0.0.1:9");
    two["api_key"] = json!("secret-2");
    keyed.post("/api/agent/register", two).await.refused(400);

    // An agent that nobody knows is told so, on which ours registers again.
    let unknown =
        json!({ "agent_id": "ghost", "timestamp": "", "status": "online", "vm_count": 0 });
    let detail = nobody
        .post("/api/agent/heartbeat", unknown)
        .await
        .refused(404);
    assert!(detail.contains("regist"), "what to do: {detail}");

    for reserved in ["local", "null", "", "a b", "-x"] {
        nobody
            .post(
                "/api/agent/register",
                registration(reserved, "http://127.0.0.1:9"),
            )
            .await
            .refused(422);
    }
    nobody
        .post(
            "/api/agent/register",
            registration("x", "file:///etc/passwd"),
        )
        .await
        .refused(422);
    nobody
        .post("/api/agent/register", json!({ "agent_id": "x" }))
        .await
        .refused(422);

    let gone = lab
        .admin
        .delete("/api/agent/unregister/old")
        .await
        .expect(200);
    assert_eq!(
        gone,
        json!({ "success": true, "message": "Agent 'old' unregistered successfully" })
    );
    lab.admin
        .delete("/api/agent/unregister/old")
        .await
        .refused(404);
    lab.admin.get("/api/agent/info/old").await.refused(404);
}

#[tokio::test]
async fn a_key_that_an_admin_made_lets_an_agent_in_at_once() {
    let lab = Lab::up().await;
    let made = lab
        .admin
        .post(
            "/api/v1/agent-keys",
            json!({ "name": "for edge", "agent_id": "edge" }),
        )
        .await
        .expect(201);
    let mut edge = LabAgent::new(&lab.folder("edge"), "edge", &lab.url);
    edge.key = made["key"].as_str().expect("a key").to_owned();
    edge.start().await;
    lab.agent_is("edge", "online").await;

    // The key is for that id only.
    let mut other = LabAgent::new(&lab.folder("other"), "other", &lab.url);
    other.key.clone_from(&edge.key);
    other.start().await;
    let process = other.process.as_ref().expect("it runs");
    until("the master has refused or parked the other", async || {
        let status = lab.admin.get("/api/v1/agents/other").await.body["status"].clone();
        (status == "pending" || process.log().contains("403")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn open_registration_lets_everybody_in() {
    let lab = Lab::master(&["--open-registration"]).await;
    let mut edge = LabAgent::new(&lab.folder("edge"), "edge", &lab.url);
    edge.start().await;
    lab.agent_is("edge", "online").await;
}

#[tokio::test]
async fn nobody_takes_over_an_agent_without_its_key() {
    let lab = Lab::up().await;
    let edge = lab.agent("edge", INSTANT).await;
    let thief = registration("edge", "http://127.0.0.1:9");
    for caller in [
        Caller::nobody(&lab.url),
        Caller::nobody(&lab.url).header("x-api-key", "guess"),
    ] {
        caller
            .post("/api/agent/register", thief.clone())
            .await
            .refused(403);
    }
    let info = lab.admin.get("/api/agent/info/edge").await.expect(200);
    assert_eq!(info["agent"]["api_url"], edge.url);
    assert_eq!(info["agent"]["status"], "online");

    // With the key its address may change.
    let owner = Caller::nobody(&lab.url).header("x-api-key", &edge.key);
    let moved = registration("edge", &edge.url.replace("127.0.0.1", "localhost"));
    let answer = owner.post("/api/agent/register", moved).await.expect(200);
    assert_eq!(answer["agent"]["status"], "online", "{answer}");
}

#[tokio::test]
async fn a_revoked_agent_stays_out() {
    let lab = Lab::up().await;
    let edge = lab.agent("edge", INSTANT).await;
    lab.admin
        .post("/api/v1/agents/edge/revoke", json!({}))
        .await
        .ok();
    lab.agent_is("edge", "revoked").await;
    let owner = Caller::nobody(&lab.url).header("x-api-key", &edge.key);
    owner
        .post("/api/agent/register", registration("edge", &edge.url))
        .await
        .refused(403);
    let beat = json!({ "agent_id": "edge", "timestamp": "", "status": "online", "vm_count": 0 });
    owner.post("/api/agent/heartbeat", beat).await.refused(403);
}

#[tokio::test]
async fn the_master_remembers_its_agents_over_a_restart() {
    let mut lab = Lab::up().await;
    let edge = lab.agent("edge", INSTANT).await;
    lab.create_vm("edge", "web").await;
    lab.kill();
    lab.restart().await;
    lab.agent_is("edge", "online").await;
    assert_eq!(
        lab.vm("edge", "web").await.expect("the VM")["state"],
        "running"
    );
    let process = edge.process.as_ref().expect("it runs");
    let registered = process
        .log()
        .matches("Successfully registered with master")
        .count();
    assert_eq!(
        registered,
        1,
        "it had no need to register again:\n{}",
        process.log()
    );
}
