//! Agents of v1 as the master's callers see them: honest ones and liars.

use std::time::Duration;

use batwa_api::problem::ProblemCode;
use futures_util::SinkExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    compat_vms::{closed, next, websocket},
    enrolment::{admit, eventually, until_status},
    fake_agent::{FakeAgent, Manner, vm},
    harness::{Caller, TestMaster},
};

async fn with_agent<'a>(master: &'a TestMaster, agent: &FakeAgent) -> Caller<'a> {
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    admin
}

#[tokio::test]
async fn a_liar_harms_nothing_but_its_own_row() {
    let master = TestMaster::with_admin().await;
    let honest = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &honest).await;
    let mut liars = Vec::new();
    for (id, manner) in [
        ("rubbish", Manner::Rubbish),
        ("types", Manner::WrongTypes),
        ("endless", Manner::EndlessLine),
        ("huge", Manner::HugeNames),
        ("other", Manner::OtherId),
        ("hangs", Manner::Hangs),
    ] {
        let liar = FakeAgent::start(id, manner, vec![]).await;
        admit(&admin, id, &liar.url()).await;
        liars.push(liar);
    }
    for id in ["rubbish", "types", "endless", "huge", "other"] {
        let row = until_status(&admin, id, "error").await;
        assert!(
            !row["message"].as_str().unwrap().is_empty(),
            "{id} says why"
        );
    }
    let row = admin
        .get("/api/v1/agents/hangs")
        .await
        .expect(StatusCode::OK);
    assert_ne!(row["status"], "online");
    let began = std::time::Instant::now();
    let list = admin.get("/api/v1/vms").await.expect(StatusCode::OK);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "a hanging agent holds no list up"
    );
    assert_eq!(list["counts"]["total"], 1);
    assert_eq!(list["items"][0]["agent_id"], "lab");
    assert_eq!(list["items"][0]["stale"], false);
}

#[tokio::test]
async fn what_an_agent_did_by_itself_while_nobody_watched_reaches_the_history() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "stopped")]).await;
    let admin = with_agent(&master, &agent).await;
    let ended = |id: &str, requested_by: &str| {
        json!({
            "id": id, "kind": "stop", "agent_id": "lab", "vm": "web", "state": "succeeded",
            "requested_by": requested_by, "created_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:00:07Z",
        })
    };
    let (mine, nobodys) = (
        "01890000-0000-7000-8000-000000000001",
        "01890000-0000-7000-8000-000000000002",
    );
    *agent.known.operations.lock().unwrap() =
        vec![ended(mine, "agent: idle"), ended(nobodys, "mallory")];
    agent.hang_up();
    let known = eventually(async || {
        let answer = admin.get(&format!("/api/v1/operations/{mine}")).await;
        (answer.status == StatusCode::OK).then(|| answer.expect(StatusCode::OK))
    })
    .await;
    assert_eq!(known["requested_by"], "agent: idle");
    assert_eq!(known["state"], "succeeded");
    let list = "/api/v1/operations?agent=lab";
    eventually(async || {
        let list = admin.get(list).await.expect(StatusCode::OK);
        (list["counts"]["total"] == 1).then_some(())
    })
    .await;
    // It says for how long it was away, and asks for nothing of before it knew the agent.
    let watches = agent.known.watches.lock().unwrap().clone();
    assert!(watches.len() >= 2, "{watches:?}");
    assert!(
        watches[1..]
            .iter()
            .all(|query| query.starts_with("away_s=")),
        "{watches:?}"
    );
}

#[tokio::test]
async fn an_agent_that_would_make_a_vm_without_its_settings_is_not_asked_to() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    let admin = with_agent(&master, &agent).await;
    let create = async |settings: Value| {
        let body = json!({"name": "web", "memory": "512M", "settings": settings});
        admin.post("/api/v1/agents/lab/vms", body).await
    };
    let refused = create(json!({"protected": true})).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["errors"][0]["field"], "settings");
    let why = refused["errors"][0]["message"].as_str().unwrap();
    assert!(why.contains("too old"), "{why}");
    assert!(agent.known.asked.lock().unwrap().is_empty());
    create(json!({})).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn operations_are_accepted_followed_and_repeated_safely() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    let admin = with_agent(&master, &agent).await;
    let body = json!({"name": "web", "memory": "512M", "labels": {"tier": "front"}});
    let create = async |key: &str, body: &Value| {
        let path = "/api/v1/agents/lab/vms?wait=30s";
        let headers = [("idempotency-key", key)];
        admin
            .send(Method::POST, path, Some(body.clone()), &headers)
            .await
    };
    let first = create("k1", &body).await;
    let operation = first.expect(StatusCode::OK);
    assert_eq!(operation["state"], "succeeded");
    assert_eq!(operation["requested_by"], "admin");
    let id = operation["id"].as_str().unwrap();
    assert_eq!(first.header("location"), format!("/api/v1/operations/{id}"));
    let made = admin
        .get("/api/v1/agents/lab/vms/web")
        .await
        .expect(StatusCode::OK);
    assert_eq!(made["labels"], json!({"tier": "front"}));
    assert_eq!(made["actions"]["stop"], Value::Null);
    assert_eq!(made["actions"]["start"], "VM is running");

    assert_eq!(create("k1", &body).await.expect(StatusCode::OK)["id"], id);
    assert_eq!(
        agent.known.asked.lock().unwrap().len(),
        1,
        "the agent was asked once"
    );
    let other = json!({"name": "db"});
    let problem = create("k1", &other)
        .await
        .problem(ProblemCode::InvalidField);
    assert_eq!(problem.errors[0].field, "Idempotency-Key");
    create("k2", &body).await.problem(ProblemCode::NameTaken);

    let start = admin
        .post("/api/v1/agents/lab/vms/web/start", json!({}))
        .await;
    start.problem(ProblemCode::IllegalState);
    admin
        .delete("/api/v1/agents/lab/vms/web?purge=true&wait=30s")
        .await
        .expect(StatusCode::OK);
    admin
        .get("/api/v1/agents/lab/vms/web")
        .await
        .problem(ProblemCode::NotFound);
    let list = admin
        .get("/api/v1/operations?agent=lab&limit=1")
        .await
        .expect(StatusCode::OK);
    assert_eq!(list["items"][0]["kind"], "purge");
    let next = list["next_cursor"].as_str().unwrap();
    let page = admin
        .get(&format!(
            "/api/v1/operations?agent=lab&limit=1&cursor={next}"
        ))
        .await
        .expect(StatusCode::OK);
    assert_eq!(page["items"][0]["id"], id);
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test]
async fn what_an_agent_refuses_is_said_at_once_and_leaves_nothing() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    let admin = with_agent(&master, &agent).await;
    *agent.known.refuse_with.lock().unwrap() = Some(json!({
        "code": "invalid_field", "status": 422, "title": "", "detail": "image: unknown",
        "errors": [{"field": "image", "message": "unknown"}],
    }));
    let body = json!({"name": "web", "image": "none"});
    let refused = admin.post("/api/v1/agents/lab/vms", body).await;
    assert_eq!(
        refused.problem(ProblemCode::InvalidField).errors[0].field,
        "image"
    );
    let operations = admin.get("/api/v1/operations").await.expect(StatusCode::OK);
    assert_eq!(operations["items"], json!([]));
    // The host has 4 CPUs: the agent is not even asked.
    let body = json!({"name": "web", "cpus": 5});
    let refused = admin.post("/api/v1/agents/lab/vms", body).await;
    assert_eq!(
        refused.problem(ProblemCode::InvalidField).errors[0].field,
        "cpus"
    );
    admin
        .post("/api/v1/agents/lab/cordon", json!({}))
        .await
        .expect(StatusCode::OK);
    admin
        .post("/api/v1/agents/lab/vms", json!({"name": "web"}))
        .await
        .problem(ProblemCode::Conflict);
}

#[tokio::test]
async fn changes_reach_followers_and_a_broken_watch_turns_vms_stale() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "stopped")]).await;
    let admin = with_agent(&master, &agent).await;
    let url = master.url("/api/v1/events");
    let mut events = admin.client.get(url).send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    agent.tell(&json!({"type": "vm", "revision": 9, "vm": vm("web", "running")}));
    let mut text = String::new();
    while !text.contains("event: vm\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(10), events.chunk()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(text.contains(r#""state":"running""#), "{text}");
    agent.stop().await;
    until_status(&admin, "lab", "offline").await;
    let list = admin.get("/api/v1/vms").await.expect(StatusCode::OK);
    assert_eq!(list["items"][0]["stale"], true);
    assert_eq!(list["items"][0]["state"], "running");
}

#[tokio::test]
async fn an_operation_that_its_agent_does_not_know_after_a_restart_ends_with_the_reason() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "stopped")]).await;
    let id = {
        let admin = with_agent(&master, &agent).await;
        let began = admin
            .post("/api/v1/agents/lab/vms/web/restart", json!({}))
            .await;
        began.problem(ProblemCode::IllegalState);
        // Told as running by the agent, and never heard of again.
        let id = "01900000-0000-7000-8000-000000000001";
        agent.tell(&json!({"type": "operation", "revision": 9, "operation": {
            "id": id, "kind": "start", "agent_id": "lab", "vm": "web", "state": "running",
            "created_at": "2026-01-01T00:00:00Z"}}));
        eventually(async || {
            let operation = admin.get(&format!("/api/v1/operations/{id}")).await;
            (operation.status == StatusCode::OK).then_some(())
        })
        .await;
        id
    };
    let folder = master.stop().await;
    let master = TestMaster::in_folder(folder, |_| {}).await;
    let admin = master.admin().await;
    let ended = admin
        .get(&format!("/api/v1/operations/{id}?wait=30s"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(
        ended["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("no record")
    );
}

#[tokio::test]
async fn what_an_agent_refuses_with_is_cut_to_what_people_read() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    let long = "x".repeat(10_000);
    let errors = vec![json!({"field": long, "message": long}); 100];
    *agent.known.refuse_with.lock().unwrap() = Some(json!({
        "code": "invalid_field", "status": 422, "title": long, "detail": long, "errors": errors,
    }));
    let stop = "/api/v1/agents/lab/vms/web/stop";
    let refused = admin.post(stop, json!({})).await;
    let problem = refused.problem(ProblemCode::InvalidField);
    assert!(!problem.errors.is_empty(), "{problem:?}");
    assert!(refused.text.len() < 100_000, "{} bytes", refused.text.len());
}

#[tokio::test]
async fn terminals_pass_untouched_and_end_with_a_reason() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    let body = json!({"agent_id": "lab", "vm": "web", "cols": 80, "rows": 24});
    let made = admin
        .post("/api/v1/terminals", body)
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(made["opened_by"], "admin");
    let path = format!(
        "/api/v1/terminals/{}/attach?from=0",
        made["id"].as_str().unwrap()
    );
    let mut socket = websocket(&admin, &path).await;
    assert_eq!(
        next(&mut socket).await,
        Message::text(r#"{"type":"offset","offset":0}"#)
    );
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    socket.send(Message::binary(bytes.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await.into_data(), bytes);
    socket
        .send(Message::binary(b"exit\n".to_vec()))
        .await
        .unwrap();
    let (code, reason) = closed(next(&mut socket).await);
    assert_eq!((code, reason.as_str()), (1000, "the shell ended"));

    let mut socket = websocket(&admin, &path).await;
    next(&mut socket).await;
    agent.stop().await;
    assert_eq!(closed(next(&mut socket).await).0, 4003);
    let mut unknown = websocket(
        &admin,
        "/api/v1/terminals/00000000-0000-7000-8000-000000000000/attach",
    )
    .await;
    assert_eq!(closed(next(&mut unknown).await).0, 4004);
}

#[tokio::test]
async fn a_terminal_ends_when_its_callers_token_is_revoked() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    let body = json!({"agent_id": "lab", "vm": "web", "cols": 80, "rows": 24});
    let made = admin
        .post("/api/v1/terminals", body)
        .await
        .expect(StatusCode::CREATED);
    let path = format!("/api/v1/terminals/{}/attach", made["id"].as_str().unwrap());
    let mut socket = websocket(&admin, &path).await;
    next(&mut socket).await;
    let tokens = admin.get("/api/v1/tokens").await.expect(StatusCode::OK);
    let token = tokens["items"][0]["id"].as_str().unwrap();
    admin
        .delete(&format!("/api/v1/tokens/{token}"))
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_eq!(closed(next(&mut socket).await).0, 1008);
}
