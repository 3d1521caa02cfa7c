//! COMPAT.md, the agent's rows: what an old master, or a script, asks of our agent.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lab::{Caller, DEADLINE, LabAgent, Terminal};

async fn lone_agent() -> (tempfile::TempDir, LabAgent) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = LabAgent::new(&dir.path().join("state"), "office-server-1", "");
    agent.start().await;
    (dir, agent)
}

#[tokio::test]
async fn only_health_is_open_without_the_key() {
    let (_dir, agent) = lone_agent().await;
    for caller in [
        Caller::nobody(&agent.url),
        Caller::with_key(&agent.url, "wrong"),
        Caller::with_key(&agent.url, ""),
    ] {
        let health = caller.get("/health").await.expect(200);
        assert_eq!(health["status"], "ok");
        assert_eq!(health["agent_id"], "office-server-1");
        assert!(
            health["timestamp"]
                .as_str()
                .is_some_and(|t| t.contains('T')),
            "{health}"
        );

        let name = json!({ "name": "web" });
        for answer in [
            caller.get("/api/vm/list").await,
            caller.get("/api/vm/info/web").await,
            caller.post("/api/vm/create", name.clone()).await,
            caller.post("/api/vm/start", name.clone()).await,
            caller.post("/api/vm/stop", name.clone()).await,
            caller.post("/api/vm/delete", name).await,
            caller
                .post("/api/execute", json!({ "args": ["list"] }))
                .await,
            caller.get("/api/v1/agent").await,
            caller.get("/nowhere").await,
        ] {
            assert_eq!(answer.refused(403), "Invalid or missing API key");
        }
        let refused = Terminal::open(&caller, "/ws?vm_name=web")
            .await
            .err()
            .expect("refused");
        assert_eq!(refused.status, 403);
        assert_eq!(refused.body["detail"], "Invalid or missing API key");
    }
}

#[tokio::test]
async fn a_vm_lives_and_dies_through_the_old_calls() {
    let (_dir, agent) = lone_agent().await;
    let master = agent.caller();
    assert_eq!(
        master.get("/api/vm/list").await.expect(200),
        json!({ "list": [] })
    );

    let created = master
        .post(
            "/api/vm/create",
            json!({ "name": "web", "cpus": 1, "memory": "1G", "disk": "5G", "image": "22.04" }),
        )
        .await
        .expect(200);
    assert_eq!(created["success"], true);
    assert!(created["message"].is_string(), "{created}");

    let list = master.get("/api/vm/list").await.expect(200);
    let vm = &list["list"][0];
    assert_eq!(vm["name"], "web");
    assert_eq!(vm["state"], "Running");
    assert!(vm["ipv4"].is_array() && vm["release"].is_string(), "{vm}");

    let info = master.get("/api/vm/info/web").await.expect(200);
    assert_eq!(info["errors"], json!([]));
    let vm = &info["info"]["web"];
    assert_eq!(vm["state"], "Running");
    // As `multipass info` prints them: the count is text, sizes are numbers of bytes.
    assert_eq!(vm["cpu_count"], "1");
    assert!(vm["memory"]["total"].is_u64(), "{vm}");
    assert!(
        vm["disks"].is_object() && vm["ipv4"].is_array() && vm["load"].is_array(),
        "{vm}"
    );

    for (action, state) in [
        ("stop", "Stopped"),
        ("stop", "Stopped"),
        ("start", "Running"),
        ("start", "Running"),
    ] {
        let done = master
            .post(&format!("/api/vm/{action}"), json!({ "name": "web" }))
            .await
            .expect(200);
        assert_eq!(done["success"], true);
        let list = master.get("/api/vm/list").await.expect(200);
        assert_eq!(list["list"][0]["state"], state);
    }
    master
        .post("/api/vm/delete", json!({ "name": "web" }))
        .await
        .expect(200);
    assert_eq!(
        master.get("/api/vm/list").await.expect(200),
        json!({ "list": [] }),
        "purged"
    );
}

#[tokio::test]
async fn failures_carry_a_detail() {
    let (_dir, agent) = lone_agent().await;
    let master = agent.caller();
    assert!(
        master
            .get("/api/vm/info/ghost")
            .await
            .refused(404)
            .contains("ghost")
    );
    for (path, body) in [
        ("start", json!({ "name": "ghost" })),
        ("stop", json!({ "name": "ghost" })),
        ("delete", json!({ "name": "ghost" })),
        ("create", json!({ "name": "--all" })),
        ("create", json!({ "name": "web", "image": "no-such" })),
        ("create", json!({ "name": "web", "memory": "abc" })),
        ("create", json!({})),
    ] {
        let answer = master.post(&format!("/api/vm/{path}"), body.clone()).await;
        assert!(answer.status >= 400, "{path} {body}: {answer:?}");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty(), "{path} {body}: {answer:?}");
    }
    assert_eq!(
        master.get("/api/vm/list").await.expect(200),
        json!({ "list": [] })
    );
}

#[tokio::test]
async fn execute_runs_only_what_reads_and_says_when_there_is_no_multipass() {
    let (_dir, agent) = lone_agent().await;
    let master = agent.caller();
    let run = async |args: Value| {
        master
            .post(
                "/api/execute",
                json!({ "command": "rm", "args": args, "timeout": 5 }),
            )
            .await
    };
    for args in [
        json!(["delete", "web"]),
        json!(["launch"]),
        json!(["exec", "web", "--", "id"]),
        json!(["list", "--verbose-and-unknown"]),
        json!(["set", "local.driver=lxd"]),
        json!([]),
    ] {
        run(args.clone()).await.refused(403);
    }
    let answer = run(json!(["list", "--format", "json"])).await.expect(200);
    if answer["return_code"] == -1 {
        assert_eq!(answer["success"], false);
        assert!(answer["error"].is_string(), "{answer}");
    }
    for field in ["success", "stdout", "stderr", "return_code", "error"] {
        assert!(
            answer.get(field).is_some(),
            "{field} is missing in {answer}"
        );
    }
}

#[tokio::test]
async fn its_terminal_is_a_shell_that_ends_with_the_connection() {
    let (_dir, agent) = lone_agent().await;
    let master = agent.caller();
    master
        .post("/api/vm/create", json!({ "name": "web" }))
        .await
        .expect(200);
    let mut terminal = Terminal::open(&master, "/ws?vm_name=web")
        .await
        .expect("a terminal");
    terminal.types("echo pid=$$; echo $((6*7))\n").await;
    terminal.shows("42").await;
    terminal.types("exit\n").await;
    terminal.closed().await;
    let mut nothing = Terminal::open(&master, "/ws?vm_name=ghost")
        .await
        .expect("an answer");
    let closed = nothing.closed().await;
    assert!(
        nothing.texts.concat().contains("ghost") || closed.reason.contains("ghost"),
        "{closed:?}"
    );
}

/// What an old master was told: the path, the key in the header, the body.
type Told = (&'static str, String, Value);

/// A master as the Python program was: 404 to everything new, 200 to registrations and heartbeats; with `picky`
/// as the Go one, which wants zones in times.
async fn old_master(picky: bool) -> (String, mpsc::Receiver<Told>, CancellationToken) {
    #[derive(Clone)]
    struct Ear(mpsc::Sender<Told>, bool);
    async fn told(ear: &Ear, path: &'static str, headers: &HeaderMap, body: Value) {
        let key = headers
            .get("x-api-key")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        // A test that has seen enough no longer listens.
        let _ = ear.0.send((path, key.to_owned(), body)).await;
    }
    let (sender, receiver) = mpsc::channel(256);
    let router = Router::new()
        .route(
            "/api/agent/register",
            post(
                async |State(ear): State<Ear>, headers: HeaderMap, Json(body): Json<Value>| {
                    let message = format!("Agent '{}' registered successfully", body["agent_id"]);
                    told(&ear, "register", &headers, body).await;
                    Json(json!({ "success": true, "message": message, "agent": {} }))
                },
            ),
        )
        .route(
            "/api/agent/heartbeat",
            post(
                async |State(ear): State<Ear>, headers: HeaderMap, Json(body): Json<Value>| {
                    let time = body["timestamp"].as_str().unwrap_or_default().to_owned();
                    let has_zone =
                        time.ends_with('Z') || time.rfind(['+', '-']).is_some_and(|at| at > 10);
                    told(&ear, "heartbeat", &headers, body).await;
                    if ear.1 && !has_zone {
                        return (
                            StatusCode::BAD_REQUEST,
                            Json(json!({ "error": "cannot parse time" })),
                        );
                    }
                    (
                        StatusCode::OK,
                        Json(json!({ "success": true, "message": "Heartbeat received" })),
                    )
                },
            ),
        )
        .with_state(Ear(sender, picky));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    // The runtime of the test owns it and ends it.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener =
                tokio::net::TcpListener::from_std(listener.into_std().expect("a listener"))
                    .expect("a listener");
            let server = axum::serve(listener, router);
            tokio::select! {
                _ = server => {}
                () = stopped.cancelled() => {}
            }
        });
    });
    (url, receiver, stop)
}

async fn next(told: &mut mpsc::Receiver<Told>) -> Told {
    tokio::time::timeout(DEADLINE, told.recv())
        .await
        .expect("heard in time")
        .expect("a call")
}

#[tokio::test]
async fn our_agent_registers_with_an_old_master_as_its_own_did() {
    let (url, mut told, stop) = old_master(false).await;
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = LabAgent::new(&dir.path().join("state"), "office-server-1", &url);
    agent.start().await;

    let (path, key, body) = next(&mut told).await;
    assert_eq!((path, key.as_str()), ("register", agent.key.as_str()));
    assert_eq!(body["agent_id"], "office-server-1");
    assert_eq!(body["api_url"], agent.url);
    assert!(
        body["hostname"]
            .as_str()
            .is_some_and(|name| !name.is_empty()),
        "{body}"
    );
    agent
        .process
        .as_ref()
        .expect("it runs")
        .logged("Successfully registered with master")
        .await;

    let (path, key, body) = next(&mut told).await;
    assert_eq!((path, key.as_str()), ("heartbeat", agent.key.as_str()));
    assert_eq!(body["agent_id"], "office-server-1");
    assert_eq!(body["status"], "online");
    assert_eq!(body["vm_count"], 0);
    let time = body["timestamp"].as_str().expect("a time");
    assert!(
        !time.ends_with('Z') && !time.contains('+'),
        "naive local time: {time}"
    );

    // Old masters forget: it registers again with every tenth heartbeat.
    let mut heartbeats = 1;
    while let ("heartbeat", ..) = next(&mut told).await {
        heartbeats += 1;
    }
    assert!(
        (9..=11).contains(&heartbeats),
        "{heartbeats} heartbeats before it registered again"
    );
    stop.cancel();
}

#[tokio::test]
async fn our_agent_gives_times_a_zone_to_the_later_old_master() {
    let (url, mut told, stop) = old_master(true).await;
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = LabAgent::new(&dir.path().join("state"), "a", &url);
    agent.start().await;
    loop {
        let (path, _, body) = next(&mut told).await;
        let time = body["timestamp"].as_str().unwrap_or_default();
        if path == "heartbeat" && (time.ends_with('Z') || time.contains('+')) {
            break;
        }
    }
    stop.cancel();
}

#[tokio::test]
async fn our_agent_tries_until_the_master_is_there() {
    // A port that nobody listens on yet.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = reserved.local_addr().expect("an address").port();
    drop(reserved);
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = LabAgent::new(
        &dir.path().join("state"),
        "edge",
        &format!("http://127.0.0.1:{port}"),
    );
    agent.start().await;
    agent
        .process
        .as_ref()
        .expect("it runs")
        .logged("cannot")
        .await;
    std::fs::write(dir.path().join("password"), crate::lab::ADMIN.1).expect("a file");
    let master = crate::lab::batwa()
        .args(["master", "--host", "127.0.0.1", "--port", &port.to_string()])
        .arg("--state-dir")
        .arg(dir.path().join("master"))
        .env("BATWA_ADMIN_PASSWORD_FILE", dir.path().join("password"))
        .start();
    master.address("Batwa is at").await;
    agent
        .process
        .as_ref()
        .expect("it runs")
        .logged("Successfully registered with master")
        .await;
}

#[tokio::test]
async fn the_guides_environment_stands_in_for_flags_and_ours_wins() {
    let (url, mut told, stop) = old_master(false).await;
    let dir = tempfile::tempdir().expect("a folder");
    let process = crate::lab::batwa()
        .args(["agent", "--driver", "fake"])
        .env("AGENT_ID", "from-guide")
        .env("BATWA_AGENT_ID", "from-us")
        .env("API_KEY", "k")
        .env("MASTER_URL", &url)
        .env("AGENT_PORT", "0")
        .env("AGENT_HOST", "127.0.0.1")
        .env("HEARTBEAT_INTERVAL", "1")
        .env("BATWA_STATE_DIR", dir.path().join("state"))
        .start();
    process.address("listens on").await;
    let (path, key, body) = next(&mut told).await;
    assert_eq!((path, key.as_str()), ("register", "k"));
    assert_eq!(body["agent_id"], "from-us");
    stop.cancel();
}
