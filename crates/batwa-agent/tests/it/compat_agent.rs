//! The agent's side of the interface that existed before v1, row by row, over its port, as an old master or a
//! script meets it.

use batwa_agent::{Agent, AgentConfig, DriverChoice};
use batwa_api::{agent::DriverKind, id::AgentId};
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;

use crate::stand_in::{DEADLINE, StandIn};

const KEY: &str = "s3cret";

/// An agent on a port of this machine, over a stand-in.
struct OldPort {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _state: tempfile::TempDir,
}

impl OldPort {
    async fn open(multipass: &StandIn) -> Self {
        Self::open_with(multipass.settings()).await
    }

    async fn open_with(settings: batwa_agent::driver::multipass::Settings) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::new(
            AgentId::parse("vm-host-01").unwrap(),
            state.path().to_owned(),
        );
        config.drivers = DriverChoice::List(vec![DriverKind::Multipass]);
        config.multipass = settings;
        config.key = Some(KEY.into());
        config.listen = Some("127.0.0.1:0".parse().unwrap());
        let agent = Agent::new(config).unwrap();
        let address = agent.address().unwrap();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { agent.run(until).await.unwrap() });
        Self {
            address,
            stop,
            tasks,
            _state: state,
        }
    }

    async fn close(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> (StatusCode, Value) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent");
        if let Some(key) = key {
            request = request.header("X-API-Key", key);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Full::new(bytes::Bytes::from(body.to_owned())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::String(text)),
        )
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send("GET", path, Some(KEY), "").await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send("POST", path, Some(KEY), &body.to_string()).await
    }

    async fn socket(&self, path: &str, key: Option<&str>) -> Result<Socket, tungstenite::Error> {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("X-API-Key", key.parse().unwrap());
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn detail(body: &Value) -> &str {
    body["detail"]
        .as_str()
        .unwrap_or_else(|| panic!("no detail in {body}"))
}

#[tokio::test]
async fn health_is_open_and_all_else_needs_the_key() {
    let multipass = StandIn::new();
    let agent = OldPort::open(&multipass).await;
    let (status, body) = agent.send("GET", "/health", None, "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["status"], &body["agent_id"]),
        (&json!("ok"), &json!("vm-host-01"))
    );
    let stamp = body["timestamp"].as_str().unwrap();
    assert!(
        stamp
            .get(..19)
            .is_some_and(|start| start.parse::<jiff::civil::DateTime>().is_ok()),
        "{stamp}"
    );

    for (method, path, body) in [
        ("GET", "/api/vm/list", ""),
        ("GET", "/api/vm/info/web", ""),
        ("POST", "/api/vm/create", r#"{"name":"web"}"#),
        ("POST", "/api/vm/start", r#"{"name":"web"}"#),
        ("POST", "/api/vm/stop", r#"{"name":"web"}"#),
        ("POST", "/api/vm/delete", r#"{"name":"web"}"#),
        ("POST", "/api/execute", r#"{"args":["list"]}"#),
        ("GET", "/api/v1/agent", ""),
        ("GET", "/api/v1/watch", ""),
        ("GET", "/ws?vm_name=web", ""),
        ("GET", "/nowhere", ""),
    ] {
        for key in [None, Some("wrong"), Some("")] {
            let (status, answer) = agent.send(method, path, key, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {key:?}");
            assert_eq!(
                answer,
                json!({"detail": "Invalid or missing API key"}),
                "{path} {key:?}"
            );
        }
    }
    let refused = agent.socket("/ws?vm_name=web", Some("wrong")).await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(response)) if response.status() == 403));
    assert_eq!(multipass.count("launch"), 0);
    agent.close().await;
}

#[tokio::test]
async fn list_and_info_have_multipass_own_shapes() {
    let multipass = StandIn::new();
    multipass.has(&["web", "off"]).await;
    multipass.run(&["stop", "off"]).await;
    let agent = OldPort::open(&multipass).await;
    let (status, body) = agent.get("/api/vm/info/web").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let real: Value = serde_json::from_slice(
        &multipass
            .run(&["info", "web", "--format", "json"])
            .await
            .stdout,
    )
    .unwrap();
    assert_eq!(body["errors"], json!([]));
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&body["info"]["web"]), keys(&real["info"]["web"]));
    for field in [
        "cpu_count",
        "ipv4",
        "state",
        "load",
        "mounts",
        "snapshot_count",
    ] {
        assert_eq!(
            body["info"]["web"][field], real["info"]["web"][field],
            "{field}"
        );
    }
    assert_eq!(
        body["info"]["web"]["memory"]["used"],
        real["info"]["web"]["memory"]["used"]
    );
    assert_eq!(
        body["info"]["web"]["disks"]["sda1"]["used"],
        real["info"]["web"]["disks"]["sda1"]["used"]
    );

    let (_, body) = agent.get("/api/vm/info/off").await;
    let off = &body["info"]["off"];
    assert_eq!(
        (&off["cpu_count"], &off["ipv4"], &off["memory"]),
        (&json!(""), &json!([]), &json!({}))
    );

    let (status, body) = agent.get("/api/vm/list").await;
    assert_eq!(status, StatusCode::OK);
    let mut list = body["list"].as_array().unwrap().clone();
    list.sort_by_key(|row| row["name"].to_string());
    assert_eq!(
        list,
        [
            json!({"name": "off", "state": "Stopped", "ipv4": [], "release": "Ubuntu 24.04 LTS"}),
            json!({"name": "web", "state": "Running", "ipv4": ["10.89.54.2"], "release": "Ubuntu 24.04 LTS"}),
        ]
    );

    let (status, body) = agent.get("/api/vm/info/nope").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(detail(&body).contains("nope"), "{body}");
    agent.close().await;
}

#[tokio::test]
async fn a_vm_is_created_stopped_started_and_deleted_by_calls_that_wait() {
    let multipass = StandIn::new();
    multipass.has(&["other"]).await;
    multipass.run(&["delete", "other"]).await;
    let agent = OldPort::open(&multipass).await;
    let ok = |(status, body): (StatusCode, Value)| {
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["success"], json!(true));
        assert!(body["message"].is_string());
    };
    // Unknown fields are ignored, and the old default image is the old one.
    ok(agent
        .post("/api/vm/create", json!({"name": "web", "colour": "red"}))
        .await);
    assert_eq!(multipass.state("web").await, "Running");
    assert_eq!(
        multipass.count("launch --name web --cpus 1 --memory 1G --disk 5G"),
        1
    );
    assert!(
        multipass
            .calls()
            .iter()
            .any(|call| call.line.ends_with(" 22.04"))
    );
    ok(agent.post("/api/vm/start", json!({"name": "web"})).await);
    ok(agent.post("/api/vm/stop", json!({"name": "web"})).await);
    assert_eq!(multipass.state("web").await, "Stopped");
    ok(agent.post("/api/vm/stop", json!({"name": "web"})).await);
    ok(agent
        .post("/api/vm/start", json!({"name": "web", "agent_id": null}))
        .await);
    assert_eq!(multipass.state("web").await, "Running");
    ok(agent.post("/api/vm/delete", json!({"name": "web"})).await);
    assert_eq!(multipass.state("web").await, "");
    // It purges that VM alone.
    assert_eq!(multipass.state("other").await, "Deleted");
    let (_, body) = agent.get("/api/vm/list").await;
    assert!(!body.to_string().contains("\"web\""), "{body}");
    agent.close().await;
}

#[tokio::test]
async fn every_failure_carries_a_detail_that_names_the_thing() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let agent = OldPort::open(&multipass).await;
    for path in ["/api/vm/start", "/api/vm/stop", "/api/vm/delete"] {
        for name in ["nope", "--all", "a b", "../x", ""] {
            let (status, body) = agent.post(path, json!({"name": name})).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path} {name:?}: {body}");
            assert!(!detail(&body).is_empty());
        }
    }
    let (status, body) = agent.post("/api/vm/create", json!({"name": "web"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(detail(&body).contains("web"));
    for (wrong, word) in [
        (json!({"name": "--all"}), "name"),
        (json!({"name": "a b"}), "name"),
        (json!({"name": "x".repeat(64)}), "63"),
        (json!({"name": "\u{1f980}"}), "name"),
        (json!({"name": "new", "memory": "abc"}), "abc"),
        (json!({"name": "new", "memory": "0"}), "128M"),
        (json!({"name": "new", "memory": "999T"}), "999T"),
        (json!({"name": "new", "cpus": 0}), "CPU"),
        (json!({"name": "new", "disk": "1M"}), "512M"),
        (json!({"name": "new", "image": "--all"}), "image"),
        (json!({"name": "new", "image": "99.04"}), "99.04"),
    ] {
        let (status, body) = agent.post("/api/vm/create", wrong.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}: {body}");
        assert!(body.to_string().contains(word), "{wrong}: {body}");
        assert!(!detail(&body).is_empty());
    }
    let (status, body) = agent
        .send("POST", "/api/vm/create", Some(KEY), "{not json")
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(!detail(&body).is_empty());

    multipass.control(&json!({"launch": "fails_late"}));
    let (status, body) = agent
        .post(
            "/api/vm/create",
            json!({"name": "unlucky", "image": "24.04"}),
        )
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
    assert!(detail(&body).contains("Cannot allocate memory"), "{body}");
    assert_eq!(multipass.state("unlucky").await, "");
    agent.close().await;
}

#[tokio::test]
async fn execute_reads_and_nothing_else() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let agent = OldPort::open(&multipass).await;
    let (status, body) = agent
        .post(
            "/api/execute",
            json!({"command": "rm -rf /", "args": ["list", "--format", "json"], "timeout": 30}),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["success"], &body["return_code"]),
        (&json!(true), &json!(0))
    );
    let stdout: Value = serde_json::from_str(body["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(stdout["list"][0]["name"], "web");
    assert_eq!(body["error"], Value::Null);

    let (status, body) = agent
        .post("/api/execute", json!({"args": ["info", "nope"]}))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["success"], &body["return_code"]),
        (&json!(false), &json!(2))
    );
    assert!(
        body["stderr"].as_str().unwrap().contains("does not exist"),
        "{body}"
    );

    for args in [
        json!(["delete", "--all", "--purge"]),
        json!(["exec", "web", "--", "id"]),
        json!(["shell", "web"]),
        json!(["launch"]),
        json!(["set", "local.driver=lxd"]),
        json!(["list", "--bogus"]),
        json!([]),
    ] {
        let (status, body) = agent.post("/api/execute", json!({"args": args})).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{args}: {body}");
        assert!(!detail(&body).is_empty());
    }
    assert_eq!(multipass.state("web").await, "Running");
    assert_eq!(
        (
            multipass.count("exec"),
            multipass.count("delete"),
            multipass.count("set")
        ),
        (0, 0, 0)
    );
    agent.close().await;

    let mut settings = multipass.settings();
    settings.program = multipass.folder().join("not-there");
    let agent = OldPort::open_with(settings).await;
    let (status, body) = agent.post("/api/execute", json!({"args": ["list"]})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["success"], &body["return_code"]),
        (&json!(false), &json!(-1))
    );
    assert!(body["error"].is_string(), "{body}");
    agent.close().await;
}

/// Reads what a shell prints, which comes as binary frames, until it holds `wanted`.
async fn read_until(socket: &mut Socket, wanted: &str) -> String {
    let mut seen = Vec::new();
    let until = Instant::now() + DEADLINE;
    loop {
        if String::from_utf8_lossy(&seen).contains(wanted) {
            return String::from_utf8_lossy(&seen).into_owned();
        }
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, socket.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => seen.extend_from_slice(&bytes),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            other => panic!(
                "{other:?} instead of {wanted:?} after {:?}",
                String::from_utf8_lossy(&seen)
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_takes_keys_as_text_and_binary_and_resizes() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let agent = OldPort::open(&multipass).await;
    let mut socket = agent.socket("/ws?vm_name=web", Some(KEY)).await.unwrap();
    read_until(&mut socket, "ubuntu@web").await;
    socket
        .send(Message::text(r#"{"type":"resize","cols":97,"rows":31}"#))
        .await
        .unwrap();
    socket.send(Message::text("stty si")).await.unwrap();
    socket
        .send(Message::binary(&b"ze; echo do''ne\n"[..]))
        .await
        .unwrap();
    let text = read_until(&mut socket, "done").await;
    assert!(text.contains("31 97"), "{text:?}");
    // Only an object that says so resizes: all else is typed.
    socket
        .send(Message::text("cat; echo ca''t ended\n"))
        .await
        .unwrap();
    socket.send(Message::text(r#"{"a":1}"#)).await.unwrap();
    socket.send(Message::text("5\n\u{4}")).await.unwrap();
    let text = read_until(&mut socket, "cat ended").await;
    assert!(text.matches(r#"{"a":1}5"#).count() >= 2, "{text:?}");
    socket.send(Message::text("exit\n")).await.unwrap();
    let ended = timeout(DEADLINE, async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                return frame;
            }
        }
        None
    });
    let frame = ended.await.unwrap().expect("a close that says why");
    assert!(!frame.reason.is_empty(), "{frame:?}");
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_for_no_vm_or_a_stopped_one_closes_with_the_reason_and_starts_nothing() {
    let multipass = StandIn::new();
    multipass.has(&["off"]).await;
    multipass.run(&["stop", "off"]).await;
    let agent = OldPort::open(&multipass).await;
    for (vm, word) in [("nope", "nope"), ("off", "stopped")] {
        let mut socket = agent
            .socket(&format!("/ws?vm_name={vm}"), Some(KEY))
            .await
            .unwrap();
        let mut said = String::new();
        let closed = timeout(DEADLINE, async {
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Text(text) => said.push_str(&text),
                    Message::Close(Some(frame)) => {
                        said.push_str(&frame.reason);
                        return true;
                    }
                    _ => {}
                }
            }
            false
        });
        assert!(closed.await.unwrap(), "{vm}: {said}");
        assert!(said.contains(word), "{vm}: {said}");
    }
    assert_eq!(multipass.count("shell"), 0);
    assert_eq!(multipass.state("off").await, "Stopped");
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_no_shell_behind() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let agent = OldPort::open(&multipass).await;
    let mut socket = agent.socket("/ws?vm_name=web", Some(KEY)).await.unwrap();
    read_until(&mut socket, "ubuntu@web").await;
    let shell = multipass
        .calls()
        .into_iter()
        .find(|call| call.line == "shell web")
        .unwrap();
    let is_alive = || {
        std::fs::read_to_string(format!("/proc/{}/stat", shell.pid))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    assert!(is_alive());
    drop(socket);
    crate::stand_in::eventually("the shell's end", || !is_alive()).await;
    agent.close().await;
}
