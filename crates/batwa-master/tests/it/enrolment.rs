//! Agents that register the old way (COMPAT.md, "Agents"), and what admins make of them.

use batwa_api::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Caller, TestMaster};

/// Gives a master an agent with a key that an admin made for it.
pub(crate) async fn admit(admin: &Caller<'_>, id: &str, url: &str) -> String {
    let made = admin
        .post("/api/v1/agent-keys", json!({"name": id, "agent_id": id}))
        .await
        .expect(StatusCode::CREATED);
    let key = made["key"].as_str().unwrap().to_owned();
    register(admin.master, id, url, Some(&key))
        .await
        .expect(StatusCode::OK);
    key
}

/// Waits until an agent has this status, and gives its row.
pub(crate) async fn until_status(admin: &Caller<'_>, id: &str, status: &str) -> Value {
    eventually(async || {
        let agent = admin.get(&format!("/api/v1/agents/{id}")).await;
        let agent = agent.expect(StatusCode::OK);
        (agent["status"] == status).then_some(agent)
    })
    .await
}

/// Asks again and again, for at most ten seconds.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asking)
        .await
        .expect("it comes true in time")
}

pub(crate) async fn register(
    master: &TestMaster,
    id: &str,
    url: &str,
    key: Option<&str>,
) -> Answer {
    let body = json!({"agent_id": id, "hostname": format!("{id}-host"), "api_url": url, "tags": {"room": "3"}});
    let headers: Vec<_> = key.map(|key| ("x-api-key", key)).into_iter().collect();
    master
        .anonymous()
        .send(Method::POST, "/api/agent/register", Some(body), &headers)
        .await
}

async fn beat(master: &TestMaster, id: &str, key: Option<&str>) -> Answer {
    let body = json!({"agent_id": id, "timestamp": "2026-11-23T05:00:00.123456", "status": "odd", "vm_count": 3});
    let headers: Vec<_> = key.map(|key| ("x-api-key", key)).into_iter().collect();
    master
        .anonymous()
        .send(Method::POST, "/api/agent/heartbeat", Some(body), &headers)
        .await
}

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn an_unknown_agent_waits_until_an_admin_approves_it() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    beat(&master, "lab", None)
        .await
        .problem(ProblemCode::NotFound);
    let answer = register(&master, "lab", NOWHERE, Some("secret"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(answer["success"], true);
    assert_eq!(answer["message"], "Agent 'lab' registered successfully");
    let agent = &answer["agent"];
    assert_eq!(agent["agent_id"], "lab");
    assert_eq!(agent["hostname"], "lab-host");
    assert_eq!(agent["api_url"], NOWHERE);
    assert_eq!(agent["status"], "pending");
    assert_eq!(agent["vm_count"], 0);
    assert!(agent["last_seen"].as_str().unwrap().contains('T'));

    let beaten = beat(&master, "lab", Some("secret"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        beaten,
        json!({"success": true, "message": "Heartbeat received"})
    );
    beat(&master, "lab", Some("wrong"))
        .await
        .problem(ProblemCode::Forbidden);

    let row = admin.get("/api/v1/agents/lab").await.expect(StatusCode::OK);
    let fingerprint = row["registrations"][0]["fingerprint"].as_str().unwrap();
    assert_eq!(fingerprint.len(), 16);
    admin
        .post(
            "/api/v1/agents/lab/approve",
            json!({"fingerprint": "0000000000000000"}),
        )
        .await
        .problem(ProblemCode::Conflict);
    let approved = admin
        .post(
            "/api/v1/agents/lab/approve",
            json!({"fingerprint": fingerprint}),
        )
        .await
        .expect(StatusCode::OK);
    assert_eq!(approved["registrations"], json!([]));
    until_status(&admin, "lab", "offline").await;

    let listed = admin.get("/api/agent/list").await.expect(StatusCode::OK);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["tags"], json!({"room": "3"}));
    let info = admin
        .get("/api/agent/info/lab")
        .await
        .expect(StatusCode::OK);
    assert_eq!(info["agent"], listed[0]);
    admin
        .get("/api/agent/info/nobody")
        .await
        .problem(ProblemCode::NotFound);
    let gone = admin
        .delete("/api/agent/unregister/lab")
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        gone,
        json!({"success": true, "message": "Agent 'lab' unregistered successfully"})
    );
    admin
        .delete("/api/agent/unregister/lab")
        .await
        .problem(ProblemCode::NotFound);
}

#[tokio::test]
async fn a_known_agent_changes_its_address_with_its_own_key_only() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let key = admit(&admin, "lab", NOWHERE).await;
    let moved = "http://127.0.0.1:10";
    let refused = register(&master, "lab", moved, Some("wrong")).await;
    assert!(!refused.problem(ProblemCode::Forbidden).detail.is_empty());
    register(&master, "lab", moved, None)
        .await
        .problem(ProblemCode::Forbidden);
    let updated = register(&master, "lab", moved, Some(&key))
        .await
        .expect(StatusCode::OK);
    assert_eq!(updated["agent"]["api_url"], moved);
    admin
        .post("/api/v1/agents/lab/revoke", json!({}))
        .await
        .expect(StatusCode::OK);
    register(&master, "lab", moved, Some(&key))
        .await
        .problem(ProblemCode::Forbidden);
    beat(&master, "lab", Some(&key))
        .await
        .problem(ProblemCode::Forbidden);
}

#[tokio::test]
async fn registrations_that_make_no_sense_name_their_field() {
    let master = TestMaster::with_admin().await;
    let field = async |id: &str, url: &str| {
        let problem = register(&master, id, url, None)
            .await
            .problem(ProblemCode::InvalidField);
        problem.errors[0].field.clone()
    };
    for reserved in ["local", "null", "a b", "../x", ""] {
        assert_eq!(field(reserved, NOWHERE).await, "agent_id", "{reserved}");
    }
    assert_eq!(field("lab", "ftp://x").await, "api_url");
    let body = json!({"agent_id": "lab", "hostname": "h", "api_url": NOWHERE, "api_key": "one"});
    master
        .anonymous()
        .send(
            Method::POST,
            "/api/agent/register",
            Some(body),
            &[("x-api-key", "two")],
        )
        .await
        .problem(ProblemCode::Malformed);
}

#[tokio::test]
async fn agents_and_their_keys_are_remembered_over_a_restart() {
    let master = TestMaster::with_admin().await;
    let key = {
        let admin = master.admin().await;
        register(&master, "waiting", NOWHERE, Some("w"))
            .await
            .expect(StatusCode::OK);
        admit(&admin, "lab", NOWHERE).await
    };
    let folder = master.stop().await;
    let master = TestMaster::in_folder(folder, |_| {}).await;
    let admin = master.admin().await;
    beat(&master, "lab", Some(&key))
        .await
        .expect(StatusCode::OK);
    let row = admin
        .get("/api/v1/agents/waiting")
        .await
        .expect(StatusCode::OK);
    assert_eq!(row["status"], "pending");
    let list = admin
        .get("/api/v1/agents?status=pending")
        .await
        .expect(StatusCode::OK);
    assert_eq!(list["counts"]["total"], 1);
    assert_eq!(list["items"][0]["id"], "waiting");
}
