//! Recordings through the master: who decides that they are made, who sees them, and what a crash leaves.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    lab::{Caller, Lab, Terminal, batwa, until},
    sharing::{attach, call, open, somebody},
};

/// The recordings that a caller sees, once there are as many as wanted and all have ended.
async fn recordings(caller: &Caller, query: &str, wanted: usize) -> Vec<Value> {
    until(&format!("{wanted} recordings at `{query}`"), async || {
        let path = format!("/api/v1/recordings?{query}");
        let list = caller.get(&path).await.expect(200);
        let items = list["items"].as_array().expect("a list").clone();
        let ended = items.iter().all(|one| one["ended"].is_string());
        (items.len() == wanted && ended).then_some(items)
    })
    .await
}

fn path_of(recording: &Value) -> String {
    let word = |name: &str| recording[name].as_str().expect("a text").to_owned();
    format!(
        "/api/v1/agents/{}/recordings/{}",
        word("agent_id"),
        word("id")
    )
}

async fn file_of(caller: &Caller, recording: &Value) -> String {
    let path = format!("{}/cast", path_of(recording));
    let answer = caller.request(Method::GET, &path).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-asciicast");
    answer.text().await.expect("a text")
}

async fn run(terminal: &mut Terminal, line: &str, shows: &str) {
    terminal.types_bytes(format!("{line}\n").as_bytes()).await;
    terminal.shows(shows).await;
}

#[tokio::test]
async fn what_the_policy_names_is_recorded_and_seen_by_its_owner_and_admins() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let ann = somebody(&lab, "ann", "operator", true).await;
    let bob = somebody(&lab, "bob", "operator", true).await;
    let policy = "/api/v1/recording-policy";
    assert_eq!(
        lab.admin.get(policy).await.expect(200),
        json!({"rules": []}),
        "off by default"
    );
    let wrong = json!({"rules": [{"label": "env"}]});
    let refused = call(&lab.admin, Method::PUT, policy, wrong)
        .await
        .expect(422);
    assert_eq!(refused["errors"][0]["field"], "rules.0.label");
    let rules = json!({"rules": [{"user": "ann", "input": true}]});
    call(&lab.admin, Method::PUT, policy, rules)
        .await
        .expect(200);
    ann.get(policy).await.expect(403);

    // Nobody's rule names bob.
    let free = open(&bob, "web").await;
    let listed = bob.get("/api/v1/terminals").await.expect(200);
    assert_eq!(listed["items"][0]["recording"], Value::Null);
    bob.delete(&format!("/api/v1/terminals/{free}"))
        .await
        .expect(204);

    let id = open(&ann, "web").await;
    let mut terminal = attach(&ann, &id).await;
    terminal.says(r#""required":true"#).await;
    run(&mut terminal, "echo told-$((6*7))", "told-42").await;
    let stop = format!("/api/v1/terminals/{id}/recording");
    let refusal = ann.delete(&stop).await.refused(409);
    assert!(refusal.contains("policy"), "{refusal}");
    // The terminal of before v1 does not get round it.
    let mut old = Terminal::old(&ann, "null", "web").await;
    old.types("echo old-$((6*7)); exit\n").await;
    old.shows("old-42").await;
    old.closed().await;
    terminal.types_bytes(b"exit\n").await;
    terminal.closed().await;

    let own = recordings(&ann, "", 2).await;
    assert!(
        own.iter()
            .all(|one| one["user"] == "ann" && one["required"] == true)
    );
    recordings(&bob, "", 0).await;
    recordings(&lab.admin, "user=ann&vm=web&agent=local", 2).await;
    let found = recordings(&lab.admin, "q=TOLD-42", 1).await;
    assert_eq!(found[0]["found"]["line"], "told-42");
    assert_eq!(found[0]["terminal"], json!(id));
    let file = file_of(&ann, &found[0]).await;
    assert!(file.contains(r#""i","echo told-$((6*7))"#), "{file}");
    assert!(file.contains("told-42"), "{file}");

    let path = path_of(&found[0]);
    for (caller, status) in [(&ann, 200), (&lab.admin, 200), (&bob, 404)] {
        caller.get(&path).await.expect(status);
    }
    let cast = format!("{path}/cast");
    bob.get(&cast).await.refused(404);
    ann.delete(&path).await.refused(403);
    lab.admin.delete(&path).await.expect(204);
    lab.admin.get(&path).await.refused(404);
    recordings(&ann, "", 1).await;
    let audit = lab.admin.get("/api/v1/audit?limit=100").await.expect(200);
    let lines = audit["items"].as_array().expect("a list");
    for (actor, action) in [
        ("admin", "recording.policy"),
        ("ann", "recording.read"),
        ("admin", "recording.delete"),
    ] {
        assert!(
            lines
                .iter()
                .any(|line| line["actor"] == actor && line["action"] == action),
            "{actor} {action}"
        );
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_leaves_a_recording_that_is_read_again() {
    let lab = Lab::master(&[]).await;
    let mut edge = lab.agent("edge", "vms=0,latency=0ms").await;
    lab.create_vm("edge", "web").await;
    let body = json!({"agent_id": "edge", "vm": "web", "cols": 80, "rows": 24});
    let opened = lab.admin.post("/api/v1/terminals", body).await.expect(201);
    let id = opened["id"].as_str().expect("an id").to_owned();
    let start = format!("/api/v1/terminals/{id}/recording");
    let started = call(&lab.admin, Method::PUT, &start, json!({}))
        .await
        .expect(200);
    assert_eq!(started["recording"]["input"], false);
    let mut terminal = attach(&lab.admin, &id).await;
    run(&mut terminal, "echo up-$((6*7))", "up-42").await;
    until("it is on the disk", async || {
        let list = lab
            .admin
            .get("/api/v1/recordings?q=up-42")
            .await
            .expect(200);
        (list["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    edge.kill();
    terminal.closed().await;
    let away = until("it is known to be away", async || {
        let list = lab.admin.get("/api/v1/recordings").await.expect(200);
        (!list["unanswered"].as_array()?.is_empty()).then_some(list)
    })
    .await;
    assert_eq!(away["unanswered"][0]["agent_id"], "edge");
    edge.start().await;
    lab.agent_is("edge", "online").await;
    let left = recordings(&lab.admin, "q=up-42", 1).await;
    assert_eq!(left[0]["ended"], "the agent stopped in the middle of it");
    let file = file_of(&lab.admin, &left[0]).await;
    for line in file.lines() {
        serde_json::from_str::<Value>(line).expect("whole lines");
    }
}

#[tokio::test]
async fn the_command_line_records_finds_downloads_and_deletes() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let id = open(&lab.admin, "web").await;
    let ok = async |args: &[&str]| {
        let said = batwa()
            .args(args)
            .env("BATWA_URL", &lab.url)
            .env("BATWA_TOKEN", lab.admin.token())
            .run()
            .await;
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        said
    };
    ok(&["recordings", "start", &id]).await;
    let mut terminal = attach(&lab.admin, &id).await;
    run(&mut terminal, "echo cli-$((6*7))", "cli-42").await;
    ok(&["recordings", "stop", &id]).await;
    let recording = recordings(&lab.admin, "q=cli-42", 1).await.remove(0);
    let listed = ok(&["recordings", "--query", "CLI-42"]).await;
    let name = format!("local/{}", recording["id"].as_str().expect("an id"));
    for word in [name.as_str(), "it was stopped", "cli-42"] {
        assert!(listed.stdout.contains(word), "{word}: {}", listed.stdout);
    }
    let got = ok(&["recordings", "get", &name]).await;
    assert_eq!(got.stdout, file_of(&lab.admin, &recording).await);
    ok(&["recordings", "delete", &name]).await;
    recordings(&lab.admin, "", 0).await;
}
