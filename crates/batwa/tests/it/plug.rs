//! Pulled plugs: `kill -9` of agent and master, and everything is right afterwards.

use serde_json::{Value, json};

use crate::lab::{Lab, Terminal, until};

/// Each step of an operation takes long enough to be hit by a kill.
const SLOW: &str = "vms=0,latency=300ms";

async fn ask(lab: &Lab, path: &str, body: Value) -> Value {
    lab.admin.post(path, body).await.expect(202)["id"].clone()
}

async fn is_running(lab: &Lab, id: &Value) {
    let path = format!("/api/v1/operations/{}", id.as_str().expect("an id"));
    until("the operation runs", async || {
        let answer = lab.admin.try_get(&path).await?;
        (answer.body["state"] == "running" && !answer.body["stage"].is_null()).then_some(())
    })
    .await;
}

/// What an operation says it did is what the machine shows.
async fn agrees_with_the_machine(lab: &Lab, agent: &str, operation: &Value) {
    let name = operation["vm"].as_str().expect("a name");
    let vm = lab.vm(agent, name).await;
    let state = vm
        .as_ref()
        .map(|vm| vm["state"].as_str().unwrap_or_default());
    match (operation["kind"].as_str(), operation["state"].as_str()) {
        (Some("create" | "start"), Some("succeeded")) => {
            assert_eq!(state, Some("running"), "{operation}")
        }
        (Some("stop"), Some("succeeded")) => assert_eq!(state, Some("stopped"), "{operation}"),
        (Some("create"), Some("failed" | "cancelled")) => assert_eq!(state, None, "{operation}"),
        (_, Some("failed")) => assert!(state.is_some(), "{operation}"),
        other => panic!("{other:?} was not expected"),
    }
    if let Some(vm) = vm {
        assert_eq!(vm["operations"], json!([]), "nothing is left to do: {vm}");
    }
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_settles_its_operations_when_it_is_back() {
    let lab = Lab::master(&[]).await;
    let mut edge = lab.agent("edge", SLOW).await;
    lab.create_vm("edge", "steady").await;
    lab.create_vm("edge", "ending").await;

    let create = ask(
        &lab,
        "/api/v1/agents/edge/vms",
        json!({ "name": "new", "image": "tiny", "memory": "256M" }),
    )
    .await;
    let stop = ask(&lab, "/api/v1/agents/edge/vms/ending/stop", json!({})).await;
    is_running(&lab, &create).await;
    is_running(&lab, &stop).await;
    edge.kill();
    lab.agent_is("edge", "offline").await;

    // A lost link fails nothing and changes no VM.
    for id in [&create, &stop] {
        let path = format!("/api/v1/operations/{}", id.as_str().expect("an id"));
        let operation = lab.admin.get(&path).await.expect(200);
        assert_eq!(operation["state"], "running", "{operation}");
    }
    let steady = lab.vm("edge", "steady").await.expect("the VM");
    assert_eq!(
        (&steady["state"], &steady["stale"]),
        (&json!("running"), &json!(true))
    );

    edge.start().await;
    lab.agent_is("edge", "online").await;
    for id in [&create, &stop] {
        let operation = lab.finished(id).await;
        agrees_with_the_machine(&lab, "edge", &operation).await;
    }
    let steady = lab.vm("edge", "steady").await.expect("the VM");
    assert_eq!(
        (&steady["state"], &steady["stale"]),
        (&json!("running"), &json!(false))
    );
}

#[tokio::test]
async fn a_master_killed_in_the_middle_learns_how_it_ended() {
    let mut lab = Lab::master(&[]).await;
    let _edge = lab.agent("edge", SLOW).await;
    lab.create_vm("edge", "ending").await;
    let create = ask(
        &lab,
        "/api/v1/agents/edge/vms",
        json!({ "name": "new", "image": "tiny", "memory": "256M" }),
    )
    .await;
    let stop = ask(&lab, "/api/v1/agents/edge/vms/ending/stop", json!({})).await;
    is_running(&lab, &create).await;
    is_running(&lab, &stop).await;
    lab.kill();
    lab.restart().await;

    for id in [&create, &stop] {
        let operation = lab.finished(id).await;
        assert_eq!(
            operation["state"], "succeeded",
            "the agent never stopped: {operation}"
        );
        agrees_with_the_machine(&lab, "edge", &operation).await;
        assert_eq!(operation["requested_by"], "admin", "{operation}");
    }
    lab.agent_is("edge", "online").await;
}

#[tokio::test]
async fn both_in_one_process_killed_in_the_middle_settle_it_too() {
    let mut lab = Lab::up_with(SLOW).await;
    lab.create_vm("local", "steady").await;
    let create = ask(
        &lab,
        "/api/v1/agents/local/vms",
        json!({ "name": "new", "image": "tiny", "memory": "256M" }),
    )
    .await;
    is_running(&lab, &create).await;
    lab.kill();
    lab.restart().await;
    let operation = lab.finished(&create).await;
    agrees_with_the_machine(&lab, "local", &operation).await;
    lab.agent_is("local", "online").await;
    let steady = lab.vm("local", "steady").await.expect("the VM");
    assert_eq!(steady["state"], "running");
}

#[tokio::test]
async fn a_terminal_outlives_the_master_with_no_byte_lost_and_none_twice() {
    let mut lab = Lab::master(&[]).await;
    let _edge = lab.agent("edge", "vms=0,latency=0ms").await;
    lab.create_vm("edge", "web").await;
    let opened = lab
        .admin
        .post(
            "/api/v1/terminals",
            json!({ "agent_id": "edge", "vm": "web", "cols": 80, "rows": 24 }),
        )
        .await
        .expect(201);
    let id = opened["id"].as_str().expect("an id").to_owned();
    let attach = |from: usize| format!("/api/v1/terminals/{id}/attach?from={from}");
    let mut terminal = Terminal::open(&lab.admin, &attach(0))
        .await
        .expect("attached");
    terminal
        .types_bytes(b"stty -echo; PS1=; echo go$((1+1))\n")
        .await;
    terminal.shows("go2").await;
    // Prints on while nobody can see it.
    terminal.types_bytes(b"i=0; while [ $i -lt 200 ]; do echo line-$i-; i=$((i+1)); sleep 0.01; done; echo all\n").await;
    terminal.shows("line-20-").await;
    lab.kill();
    terminal.closed().await;
    let before = terminal.output.clone();
    lab.restart().await;
    lab.agent_is("edge", "online").await;

    let mut again = Terminal::open(&lab.admin, &attach(before.len()))
        .await
        .expect("attached again");
    let offset = again.says("offset").await;
    assert!(offset.contains(&before.len().to_string()), "{offset}");
    again.shows("all").await;
    let whole = [before, again.output.clone()].concat();
    let text = String::from_utf8_lossy(&whole);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("line-"))
        .collect();
    let expected: Vec<_> = (0..200).map(|i| format!("line-{i}-")).collect();
    assert_eq!(lines, expected);
}
