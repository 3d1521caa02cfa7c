//! The old VM paths and the old WebSocket (COMPAT.md, "VMs" and "Terminal"), over an agent from before v1.

use std::time::Duration;

use batwa_api::problem::ProblemCode;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use serde_json::json;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    enrolment::{admit, until_status},
    harness::{Caller, TestMaster},
    old_agent::OldAgent,
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a WebSocket as an account with an API token.
pub(crate) async fn websocket(caller: &Caller<'_>, path: &str) -> Socket {
    let made = caller
        .post("/api/v1/tokens", json!({"name": "ws"}))
        .await
        .expect(StatusCode::CREATED);
    let mut request = format!("ws://{}{path}", caller.master.address)
        .into_client_request()
        .unwrap();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    request
        .headers_mut()
        .insert("authorization", token.parse().unwrap());
    connect_async(request).await.unwrap().0
}

/// The next message, which must come soon.
pub(crate) async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(Duration::from_secs(10), socket.next())
        .await
        .expect("a message in time")
        .expect("a message before the end")
        .unwrap()
}

/// The Close frame's code and reason.
pub(crate) fn closed(message: Message) -> (u16, String) {
    match message {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("no close: {other:?}"),
    }
}

#[tokio::test]
async fn the_old_calls_work_on_an_old_agent_with_their_old_bodies() {
    let agent = OldAgent::start(&[("old", "Stopped")]).await;
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;

    let list = admin.get("/api/vm/list").await.expect(StatusCode::OK);
    assert_eq!(
        list,
        json!({"success": true, "unreachable": [], "vms": [{
            "name": "old", "state": "Stopped", "ipv4": ["10.9.8.7"], "release": "Ubuntu 22.04 LTS",
            "agent_id": "lab", "agent_hostname": "lab-host",
        }]})
    );
    let body = json!({"name": "web", "memory": "2G", "agent_id": "lab", "unknown": 1});
    let created = admin
        .post("/api/vm/create", body)
        .await
        .expect(StatusCode::OK);
    assert_eq!(created["success"], true);
    assert_eq!(created["vm_name"], "web");
    assert_eq!(created["agent_id"], "lab");
    assert_eq!(created["agent_hostname"], "lab-host");
    assert_eq!(
        agent.state.lock().unwrap().created,
        [json!({"name": "web", "cpus": 1, "memory": "2G", "disk": "5G", "image": "22.04"})]
    );
    let list = admin.get("/api/vm/list").await.expect(StatusCode::OK);
    assert_eq!(
        list["vms"].as_array().unwrap().len(),
        2,
        "its own write is read"
    );

    let info = admin
        .get("/api/vm/info/web?agent_id=lab")
        .await
        .expect(StatusCode::OK);
    assert_eq!(info["success"], true);
    assert_eq!(info["info"]["state"], "Running");
    assert_eq!(info["info"]["cpu_count"], "2");
    assert_eq!(info["state"], "Running");
    assert_eq!(info["name"], "web");
    assert_eq!(info["cpus"], 2);
    assert_eq!(info["memory"], 1_073_741_824_u64);
    assert_eq!(info["disk"], 5_368_709_120_u64);
    assert_eq!(info["agent_hostname"], "lab-host");

    let act = async |what: &str, name: &str| {
        let body = json!({"name": name, "agent_id": "lab"});
        admin.post(&format!("/api/vm/{what}"), body).await
    };
    for (what, message) in [
        ("start", "VM 'web' started"),
        ("stop", "VM 'web' stopped"),
        ("stop", "VM 'web' stopped"),
        ("start", "VM 'web' started"),
        ("delete", "VM 'web' deleted"),
    ] {
        let done = act(what, "web").await.expect(StatusCode::OK);
        assert_eq!(done, json!({"success": true, "message": message}));
    }
    let left: Vec<_> = agent.state.lock().unwrap().vms.clone();
    assert_eq!(left, [("old".to_owned(), "Stopped".to_owned())]);
    act("start", "web").await.problem(ProblemCode::NotFound);
    let taken = json!({"name": "old", "agent_id": "lab"});
    admin
        .post("/api/vm/create", taken)
        .await
        .problem(ProblemCode::NameTaken);
    let bad = json!({"name": "--all", "memory": "1M", "agent_id": "lab"});
    let problem = admin
        .post("/api/vm/create", bad)
        .await
        .problem(ProblemCode::InvalidField);
    let fields: Vec<_> = problem.errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["name", "memory"]);
}

#[tokio::test]
async fn a_create_that_the_agent_calls_failed_succeeds_when_the_vm_runs() {
    let agent = OldAgent::start(&[]).await;
    agent.state.lock().unwrap().create_fails_with =
        Some("timed out waiting for initialization to complete".to_owned());
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let body = json!({"name": "web", "agent_id": "lab"});
    admin
        .post("/api/vm/create", body)
        .await
        .expect(StatusCode::OK);
    let operations = admin
        .get("/api/v1/operations?agent=lab")
        .await
        .expect(StatusCode::OK);
    assert_eq!(operations["items"][0]["state"], "succeeded");
    assert_eq!(operations["items"][0]["late"], true);
}

#[tokio::test]
async fn the_masters_own_machine_is_missing_where_there_is_none() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    for agent_id in [json!(null), json!("null")] {
        let body = json!({"name": "web", "agent_id": agent_id});
        for path in [
            "/api/vm/create",
            "/api/vm/start",
            "/api/vm/stop",
            "/api/vm/delete",
        ] {
            let problem = admin
                .post(path, body.clone())
                .await
                .problem(ProblemCode::NotFound);
            assert_eq!(problem.detail, "this master runs no VMs itself", "{path}");
        }
    }
    let list = admin.get("/api/vm/list").await.expect(StatusCode::OK);
    assert_eq!(list, json!({"success": true, "vms": [], "unreachable": []}));
}

#[tokio::test]
async fn an_agent_that_goes_away_keeps_its_vms_listed_as_stale() {
    let agent = OldAgent::start(&[("web", "Running")]).await;
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    agent.stop().await;
    until_status(&admin, "lab", "offline").await;
    let list = admin.get("/api/vm/list").await.expect(StatusCode::OK);
    assert_eq!(list["vms"][0]["state"], "Running");
    assert_eq!(list["vms"][0]["stale"], true);
    assert_eq!(list["unreachable"], json!(["lab"]));
    let body = json!({"name": "web", "agent_id": "lab"});
    let offline = admin.post("/api/vm/stop", body).await;
    offline.problem(ProblemCode::AgentOffline);
    assert_eq!(offline.header("retry-after"), "5");
    let mut socket = websocket(&admin, "/ws?vm_name=web&agent_id=lab").await;
    assert_eq!(
        next(&mut socket).await,
        Message::text("Error: Agent 'lab' is offline\r\n")
    );
    assert_eq!(closed(next(&mut socket).await).0, 4003);
}

#[tokio::test]
async fn the_old_websocket_carries_an_old_agents_shell() {
    let agent = OldAgent::start(&[("web", "Running"), ("off", "Stopped")]).await;
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let mut socket = websocket(&admin, "/ws?vm_name=web&agent_id=lab").await;
    let mut echoes = async |sent: Option<Message>, expected: &[u8]| {
        if let Some(sent) = sent {
            socket.send(sent).await.unwrap();
        }
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend_from_slice(&next(&mut socket).await.into_data());
        }
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(expected)
        );
    };
    echoes(None, b"web$ ").await;
    echoes(Some(Message::text("ls\n")), b"ls\n").await;
    echoes(
        Some(Message::binary("é".as_bytes().to_vec())),
        "é".as_bytes(),
    )
    .await;
    echoes(Some(Message::text(r#"{"a":1}"#)), br#"{"a":1}"#).await;
    let size = r#"{"type":"resize","cols":100,"rows":30}"#;
    echoes(Some(Message::text(size)), b"<100x30>").await;
    socket.send(Message::text("exit\n")).await.unwrap();
    assert_eq!(closed(next(&mut socket).await).0, 1000);

    for (path, code) in [
        ("/ws?vm_name=gone&agent_id=lab", 4004),
        ("/ws?vm_name=off&agent_id=lab", 4009),
        ("/ws?vm_name=web&agent_id=nobody", 4004),
        ("/ws?vm_name=web", 4004),
    ] {
        let mut socket = websocket(&admin, path).await;
        let words = next(&mut socket).await.into_text().unwrap();
        assert!(
            words.starts_with("Error: ") && words.ends_with("\r\n"),
            "{words}"
        );
        assert_eq!(closed(next(&mut socket).await).0, code, "{path}: {words}");
    }
}

#[tokio::test]
async fn a_terminal_of_v1_on_an_old_agent_works_once_and_cannot_be_resumed() {
    let agent = OldAgent::start(&[("web", "Running")]).await;
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let body = json!({"agent_id": "lab", "vm": "web", "cols": 90, "rows": 20});
    let made = admin
        .post("/api/v1/terminals", body)
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(made["resumable"], false);
    let path = format!("/api/v1/terminals/{}/attach", made["id"].as_str().unwrap());
    let mut socket = websocket(&admin, &path).await;
    assert_eq!(
        next(&mut socket).await,
        Message::text(r#"{"type":"offset","offset":0}"#)
    );
    let mut got = String::new();
    while !got.contains("<90x20>") {
        got.push_str(std::str::from_utf8(&next(&mut socket).await.into_data()).unwrap());
    }
    assert_eq!(got, "web$ <90x20>");
    socket
        .send(Message::binary(b"exit\n".to_vec()))
        .await
        .unwrap();
    let exit = next(&mut socket).await.into_text().unwrap();
    assert!(exit.starts_with(r#"{"type":"exit""#), "{exit}");
    assert_eq!(closed(next(&mut socket).await).0, 1000);
    let mut again = websocket(&admin, &path).await;
    assert_eq!(closed(next(&mut again).await).0, 4004);
}
